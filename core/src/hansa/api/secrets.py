"""/v1/secrets and /v1/secret-keys: what a tenant keeps secret, and the keys it is kept with. No route gives a value."""

import hashlib
import hmac
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post

from hansa.api import answers, bodies, requests
from hansa.api.services import AnyRequest, services
from hansa.audit.model import Action
from hansa.auth.idempotency import IdempotencyKey, once
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa.errors import FieldError, Invalid
from hansa.tenants.secrets.model import Progress, Wrapping


class Secret(msgspec.Struct, frozen=True):
    """A secret, without what it holds. `source` and `path`: where another system keeps it; null: it is kept here. `hosts`: the only ones
    that it is sent to; null: it is tied to none."""

    name: str
    version: int
    versions: list[int]
    source: str | None
    path: str | None
    hosts: list[str] | None
    made_by: str
    created_at: str


class PutSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret's next version: a `value` of 8 characters or more, or the `source` and `path` of one that another system keeps.

    `hosts`: the only ones that it is sent to, as `api.example.org`, `*.example.org` or with a port; empty: it is tied to none; left out:
    those of the version before.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    value: Annotated[str, msgspec.Meta(max_length=65_536)] | None = None
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=63)] | None = None
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    hosts: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=260)], ...], msgspec.Meta(max_length=32)] | None = None


class RotateDataKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The generation of the data key that all secrets should be encrypted with: the next one (null), or that which is under way."""

    generation: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


@get("/v1/secrets", opt={"permission": "secrets:read", "answer": list[Secret]})
async def list_secrets(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Secrets of the tenant by name, without what they hold."""
    after = requests.cursor(request, principal) or ""
    data, last = await services(request).secrets.page(principal, after=after, limit=requests.limit(request))
    return answers.page(request, principal, data, last)


@get("/v1/secrets/{name:str}", opt={"permission": "secrets:read", "answer": Secret})
async def get_secret(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """One secret, without what it holds."""
    return answers.text(await services(request).secrets.get(principal, name))


@post("/v1/secrets", status_code=201, opt={"audit": Action.SECRET_SET, "permission": "secrets:write", "body": PutSecret, "answer": Secret})
async def put_secret(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Set a secret: a new one, or the next version of one that is there. New calls use it at once."""
    key = await _key(request)
    asked = await bodies.body(request, PutSecret)
    if (asked.value is None) == (asked.source is None) or (asked.source is None) != (asked.path is None):
        raise Invalid("give `value`, or `source` and `path`", errors=(FieldError("value", "one_of", "give this, or `source` and `path`"),))
    secrets = services(request).secrets
    if asked.value is not None:
        await secrets.prepare(principal.tenant_id)

    async def operation(connection: Connection) -> tuple[int, str]:
        if asked.value is not None:
            return 201, await secrets.put(connection, principal, name=asked.name, value=asked.value, hosts=asked.hosts)
        place = (asked.source or "", asked.path or "")
        return 201, await secrets.refer(connection, principal, name=asked.name, place=place, hosts=asked.hosts)

    return answers.kept(await once(services(request).equipment.database, principal, key, operation))


@delete("/v1/secrets/{name:str}", status_code=204, opt={"audit": Action.SECRET_DELETED, "permission": "secrets:write"})
async def delete_secret(request: AnyRequest, principal: Principal, name: str) -> None:
    """Delete a secret with all its versions. One that objects name stays."""
    await services(request).secrets.delete(principal, name)


@get("/v1/secret-keys", opt={"permission": "secrets:read", "answer": Progress})
async def get_data_key(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """The generation of the tenant's data key, and how far a change of it has come."""
    return answers.value(await services(request).rotation.progress(principal))


@post(
    "/v1/secret-keys",
    status_code=200,
    opt={"audit": Action.DATA_KEY_ROTATED, "permission": "secrets:write", "body": RotateDataKey, "answer": Progress},
)
async def rotate_data_key(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Change the tenant's data key, for some seconds; ask again, with the generation, until it is finished. Safe to repeat and to leave."""
    asked = await bodies.body(request, RotateDataKey)
    return answers.value(await services(request).rotation.rotate(principal, asked.generation))


@get("/v1/key-encryption", opt={"permission": "tenants:read", "answer": Wrapping})
async def get_wrapping(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """The key-encryption key, and how many data keys of all tenants are wrapped by it."""
    return answers.value(await services(request).rotation.wrapping())


@post(
    "/v1/key-encryption/rewrap",
    status_code=200,
    opt={"audit": Action.DATA_KEYS_REWRAPPED, "permission": "platform:write", "answer": Wrapping},
)
async def rewrap_data_keys(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Bring data keys of all tenants under the current key-encryption key, for some seconds; ask again until it is finished."""
    requests.key_text(request)  # asked twice it only goes on, so a key changes nothing; one that is none is refused as everywhere
    return answers.value(await services(request).rotation.rewrap(principal))


async def _key(request: AnyRequest) -> IdempotencyKey | None:
    """The `Idempotency-Key`. What is kept of the body is a keyed hash: a plain one would let values be guessed from the database."""
    found = await requests.idempotency_key(request)
    if found is None:
        return None
    keyed = hmac.digest(services(request).cursor_key, b"put-secret\0" + await request.body(), hashlib.sha256)
    return msgspec.structs.replace(found, digest=keyed)


HANDLERS = (
    list_secrets,
    get_secret,
    put_secret,
    delete_secret,
    get_data_key,
    rotate_data_key,
    get_wrapping,
    rewrap_data_keys,
)
