"""/v1/whoami and /v1/api-keys: who may come in."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post

from hansa.api import answers, bodies, requests
from hansa.api.services import UNPLACED, AnyRequest, services
from hansa.audit.model import Action
from hansa.auth.api_keys import Made
from hansa.auth.idempotency import Answer, once
from hansa.auth.model import Grant, Kind, Principal, RolesIn, permissions_of, permissions_within
from hansa.db.pool import Connection

LABEL = msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
MAX_GRACE_SECONDS = 2_592_000


class InNamespace(msgspec.Struct, frozen=True):
    """What somebody has in one namespace: roles, and what they allow there, beside what it may in the whole tenant."""

    namespace: str
    roles: tuple[str, ...]
    permissions: list[str]


class WhoAmI(msgspec.Struct, frozen=True):
    """The caller: its tenant, its roles, and all that it may do there; `namespaces`: what more in some of them. `groups`: those that its
    issuer names; `on_behalf_of`: whom it named."""

    name: str
    kind: Kind
    tenant: str
    roles: tuple[str, ...]
    permissions: list[str]
    namespaces: list[InNamespace]
    groups: tuple[str, ...]
    on_behalf_of: str | None


class ApiKey(msgspec.Struct, frozen=True):
    """An API key without its secret. `scopes`: the only permissions of its roles that it has; null: it has them all."""

    id: str
    name: str
    service_account: str | None
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
    """A key to be made: what it may do, by `roles` or as a service account, and until when."""

    name: Annotated[str, LABEL]
    roles: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    service_account: Name | None = None
    scopes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=100)] | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class RotateApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the key that is replaced is good beside its successor."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=MAX_GRACE_SECONDS)] = 86_400


class ServiceAccount(msgspec.Struct, frozen=True):
    """A program that acts in the tenant under a name of its own. `roles`: its own; `bound`: those that the tenant binds to it, in one
    namespace as `viewer@team-a`."""

    name: str
    description: str
    roles: list[str]
    bound: list[str]
    made_by: str
    created_at: str


class MakeServiceAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A service account to be made. Without roles of its own it has those that the tenant binds to it."""

    name: Name
    roles: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    description: Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class Access(msgspec.Struct, frozen=True):
    """What somebody in the tenant may, in all of it and in some of its namespaces."""

    subject: str
    roles: tuple[str, ...]
    permissions: list[str]
    namespaces: list[InNamespace]


@get("/v1/whoami", opt={"permission": "self:read", "within": UNPLACED, "answer": WhoAmI})
async def whoami(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Who the caller is, and what it may do."""
    me, places = principal, _within(principal.within, principal.scopes)
    return answers.value(WhoAmI(me.name, me.kind, me.tenant, me.roles, sorted(me.permissions), places, me.groups, me.on_behalf_of))


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
        grant = Grant(
            name=asked.name, roles=asked.roles, scopes=asked.scopes, expires_at=asked.expires_at, service_account=asked.service_account
        )
        made.append(await services(request).api_keys.make(connection, principal, grant=grant))
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


@get("/v1/access", opt={"permission": "access:read", "answer": Access, "query": {"subject": str, "groups": str}})
async def get_access(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """What somebody may, by default the caller: ?subject= is user:ISSUER:NAME (?groups= are its groups), service:NAME or key:ID."""
    asked = requests.query(request)
    groups = tuple(filter(None, asked.get("groups", "").split(",")))
    subject = asked.get("subject")
    if not subject:
        me = principal
        return answers.value(Access(me.name, me.roles, sorted(me.permissions), _within(me.within, me.scopes)))
    bound, scopes = await services(request).api_keys.access(principal, subject, groups)
    found = sorted(permissions_of(bound.roles, scopes))
    return answers.value(Access(subject, bound.roles, found, _within(bound.within, scopes)))


@get("/v1/service-accounts", opt={"permission": "keys:read", "answer": list[ServiceAccount]})
async def list_service_accounts(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Service accounts of the tenant by name."""
    after = requests.cursor(request, principal) or ""
    data, last = await services(request).accounts.page(principal, after=after, limit=requests.limit(request))
    return answers.page(request, principal, data, last)


@get("/v1/service-accounts/{name:str}", opt={"permission": "keys:read", "answer": ServiceAccount})
async def get_service_account(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """One service account."""
    return answers.text(await services(request).accounts.get(principal, name))


@post(
    "/v1/service-accounts",
    status_code=201,
    opt={"audit": Action.ACCOUNT_MADE, "permission": "keys:write", "body": MakeServiceAccount, "answer": ServiceAccount},
)
async def make_service_account(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Make a service account that may do no more than the caller."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, MakeServiceAccount)
    accounts = services(request).accounts

    async def operation(connection: Connection) -> tuple[int, str]:
        return 201, await accounts.make(connection, principal, name=asked.name, description=asked.description, roles=asked.roles)

    return answers.kept(await once(services(request).equipment.database, principal, key, operation))


@delete("/v1/service-accounts/{name:str}", status_code=204, opt={"audit": Action.ACCOUNT_DELETED, "permission": "keys:write"})
async def delete_service_account(request: AnyRequest, principal: Principal, name: str) -> None:
    """Delete a service account and its keys, at once."""
    await services(request).accounts.delete(principal, name)


def _within(within: Sequence[RolesIn], scopes: Sequence[str] | None) -> list[InNamespace]:
    return [InNamespace(each.namespace, each.roles, sorted(permissions_within(each.roles, scopes))) for each in within]


def _shown(answer: Answer, made: list[Made]) -> Response[bytes]:
    """The answer as it is kept, without the secret, and the secret if it was made now."""
    if answer.replayed or not made:
        return answers.kept(answer)
    return answers.text(f"{answer.body[:-1]},{msgspec.json.encode({'key': made[0][0]}).decode()[1:]}", status=answer.status)


HANDLERS = (
    whoami,
    get_access,
    list_service_accounts,
    get_service_account,
    make_service_account,
    delete_service_account,
    list_api_keys,
    get_api_key,
    make_api_key,
    rotate_api_key,
    revoke_api_key,
)
