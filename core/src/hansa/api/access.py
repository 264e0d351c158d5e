"""/v1/whoami, /v1/api-keys and /v1/tenants: who may come in, and where."""

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post

from hansa.api import answers, bodies, requests
from hansa.api.services import AnyRequest, services
from hansa.audit.model import Action
from hansa.auth.api_keys import Made
from hansa.auth.idempotency import Answer, once
from hansa.auth.model import Kind, Principal
from hansa.db.pool import Connection

LABEL = msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
MAX_GRACE_SECONDS = 2_592_000


class WhoAmI(msgspec.Struct, frozen=True):
    """The caller: its tenant, its roles, and all that it may do. `groups`: those that its issuer names; `on_behalf_of`: whom it named."""

    name: str
    kind: Kind
    tenant: str
    roles: tuple[str, ...]
    permissions: list[str]
    groups: tuple[str, ...]
    on_behalf_of: str | None


class ApiKey(msgspec.Struct, frozen=True):
    """An API key without its secret. `scopes`: the only permissions of its roles that it has; null: it has them all."""

    id: str
    name: str
    roles: list[str]
    scopes: list[str] | None
    made_by: str
    created_at: str
    expires_at: str | None
    used_at: str | None
    revoked_at: str | None


class NewApiKey(ApiKey, frozen=True):
    """A key that was just made. `key` is its text, shown this once; a repeated answer under an Idempotency-Key has none."""

    key: str | None = None


class MakeApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made: what it may do, and until when."""

    name: Annotated[str, LABEL]
    roles: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=16)]
    scopes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=100)] | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class RotateApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the key that is replaced is good beside its successor."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=MAX_GRACE_SECONDS)] = 86_400


class Tenant(msgspec.Struct, frozen=True):
    """A tenant. `concurrent_runs`: most runs at once, `requests_per_second`: most requests to the API; null: no bound."""

    name: str
    id: str
    display_name: str
    suspended: bool
    weight: int
    concurrent_runs: int | None
    requests_per_second: int | None
    created_at: str


@get("/v1/whoami", opt={"permission": "self:read", "answer": WhoAmI})
async def whoami(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Who the caller is, and what it may do."""
    me = principal
    return answers.value(WhoAmI(me.name, me.kind, me.tenant, me.roles, sorted(me.permissions), me.groups, me.on_behalf_of))


@get("/v1/api-keys", opt={"permission": "keys:read", "answer": list[ApiKey]})
async def list_api_keys(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Keys of the tenant by name, also those that are revoked or have expired."""
    after = requests.cursor(request, principal) or ["", ""]
    data, last = await services(request).api_keys.page(principal, after=(after[0], after[1]), limit=requests.limit(request))
    return answers.page(request, principal, data, last)


@get("/v1/api-keys/{key_id:str}", opt={"permission": "keys:read", "answer": ApiKey})
async def get_api_key(request: AnyRequest, principal: Principal, key_id: str) -> Response[bytes]:
    """One key."""
    return answers.text(await services(request).api_keys.get(principal, key_id))


@post("/v1/api-keys", status_code=201, opt={"audit": Action.KEY_MADE, "permission": "keys:write", "body": MakeApiKey, "answer": NewApiKey})
async def make_api_key(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Make a key that may do no more than the caller. Its text is shown this once and kept nowhere."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, MakeApiKey)
    made: list[Made] = []

    async def operation(connection: Connection) -> tuple[int, str]:
        made.append(
            await services(request).api_keys.make(
                connection, principal, name=asked.name, roles=asked.roles, scopes=asked.scopes, expires_at=asked.expires_at
            )
        )
        return 201, made[0][1]

    return _shown(await once(services(request).equipment.database, principal, key, operation), made)


@post(
    "/v1/api-keys/{key_id:str}/rotate",
    status_code=201,
    opt={"audit": Action.KEY_ROTATED, "permission": "keys:write", "body": RotateApiKey, "answer": NewApiKey},
)
async def rotate_api_key(request: AnyRequest, principal: Principal, key_id: str) -> Response[bytes]:
    """Make a successor that may do the same; both are good until the grace is over."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, RotateApiKey)
    made: list[Made] = []

    async def operation(connection: Connection) -> tuple[int, str]:
        grace = timedelta(seconds=asked.grace_seconds)
        made.append(await services(request).api_keys.rotate(connection, principal, key_id, grace=grace))
        return 201, made[0][1]

    answer = await once(services(request).equipment.database, principal, key, operation)
    await services(request).api_keys.changed()
    return _shown(answer, made)


@delete("/v1/api-keys/{key_id:str}", status_code=204, opt={"audit": Action.KEY_REVOKED, "permission": "keys:write"})
async def revoke_api_key(request: AnyRequest, principal: Principal, key_id: str) -> None:
    """Revoke a key at once and for good. It stays in the list."""
    await services(request).api_keys.revoke(principal, key_id)


@get("/v1/tenants", opt={"permission": "tenants:read", "answer": list[Tenant]})
async def list_tenants(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """All tenants by name."""
    after = requests.cursor(request, principal) or ""
    data, last = await services(request).tenants.page(after=after, limit=requests.limit(request))
    return answers.page(request, principal, data, last)


@get("/v1/tenants/{name:str}", opt={"permission": "tenants:read", "answer": Tenant})
async def get_tenant(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """One tenant."""
    return answers.text(await services(request).tenants.get(name))


def _shown(answer: Answer, made: list[Made]) -> Response[bytes]:
    """The answer as it is kept, without the secret, and the secret if it was made now."""
    if answer.replayed or not made:
        return answers.kept(answer)
    return answers.text(f"{answer.body[:-1]},{msgspec.json.encode({'key': made[0][0]}).decode()[1:]}", status=answer.status)


HANDLERS = (
    whoami,
    list_api_keys,
    get_api_key,
    make_api_key,
    rotate_api_key,
    revoke_api_key,
    list_tenants,
    get_tenant,
)
