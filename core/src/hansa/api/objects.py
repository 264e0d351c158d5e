"""/v1/objects:apply and /v1/objects."""

from typing import Any, Literal

import msgspec
from litestar import Response, delete, get, post

from hansa.api import answers, bodies, requests
from hansa.api.services import AnyRequest, services
from hansa.apply.items import Applied, Item
from hansa.audit.model import Action
from hansa.auth.idempotency import once
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa.errors import Invalid

MAX_OBJECTS = 500
APPLYING = (Action.OBJECT_CREATED, Action.OBJECT_CHANGED, Action.TENANT_CREATED, Action.TENANT_CHANGED)
"""What the audit trail may say of each object; nothing of one that was there already as it is."""


class Apply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Objects to be applied, each by itself: one that is refused does not hold up the others."""

    objects: list[Item]
    manager: Literal["rest"] = "rest"


class ApplyAnswer(msgspec.Struct, frozen=True):
    """What became of each object, in the order they were sent."""

    results: list[Applied]
    failed: int


class StoredObject(msgspec.Struct, frozen=True):
    """An object as it is kept. `status` is what the platform found out: a ToolServer's tools, or why it is not reachable."""

    kind: str
    name: str
    generation: int
    manager: str
    manifest: dict[str, Any]
    source: dict[str, Any] | None
    status: dict[str, Any] | None
    created_at: str
    updated_at: str


@post(
    "/v1/objects:apply",
    status_code=200,
    opt={"audit": APPLYING, "permission": "objects:write", "body": Apply, "answer": ApplyAnswer},
)
async def apply_objects(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Apply objects. 200 also when some were refused: `failed` counts them, `errors` names each place."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, Apply)
    if len(asked.objects) > MAX_OBJECTS:
        raise Invalid(f"{len(asked.objects)} objects in one request; the most is {MAX_OBJECTS}", hint="Send them in several requests.")

    discovered = await services(request).objects.discover(principal, asked.objects)
    tenants: list[str] = []

    tenants_changed = False

    async def operation(connection: Connection) -> tuple[int, str]:
        nonlocal tenants_changed
        results = await services(request).objects.apply(connection, principal, asked.objects, manager=asked.manager, discovered=discovered)
        tenants.extend(result.name for result in results if result.kind == "Tenant" and result.action != "failed")
        answer = ApplyAnswer(results, sum(result.action == "failed" for result in results))
        tenants_changed = any(result.kind == "Tenant" and result.action in ("created", "configured") for result in results)
        return 200, msgspec.json.encode(answer).decode()

    answer = await once(services(request).equipment.database, principal, key, operation)
    if tenants_changed:  # and with them, perhaps, who may come in and what they may
        await services(request).api_keys.changed()
    if tenants:
        await services(request).messaging.changed(tenants)
    return answers.kept(answer)


@get("/v1/objects", opt={"permission": "objects:read", "answer": list[StoredObject], "query": {"kind": str}})
async def list_objects(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Objects by kind and name."""
    asked = requests.query(request)
    after = requests.cursor(request, principal) or ["", ""]
    data, last = await services(request).objects.page(
        principal, asked.get("kind"), after=(after[0], after[1]), limit=requests.limit(request)
    )
    return answers.page(request, principal, data, last)


@get("/v1/objects/{kind:str}/{name:str}", opt={"permission": "objects:read", "answer": StoredObject})
async def get_object(request: AnyRequest, principal: Principal, kind: str, name: str) -> Response[bytes]:
    """One object."""
    return answers.text(await services(request).objects.get(principal, kind, name))


@delete("/v1/objects/{kind:str}/{name:str}", status_code=204, opt={"audit": Action.OBJECT_DELETED, "permission": "objects:write"})
async def delete_object(request: AnyRequest, principal: Principal, kind: str, name: str) -> None:
    """Delete an object. Runs under way go on; revisions of an agent are kept."""
    await services(request).objects.delete(principal, kind, name)


HANDLERS = (apply_objects, list_objects, get_object, delete_object)
