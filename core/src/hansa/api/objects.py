"""/v1/objects:apply, :plan and :delete, and /v1/objects."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, delete, get, post
from msgspec import Meta

from hansa.api import answers, bodies, requests
from hansa.api.services import STANDING, AnyRequest, services
from hansa.apply.model import Applied, Asked, Item, Named, Owner, Unwanted
from hansa.apply.ownership import refuse_credentials
from hansa.apply.store import Filters
from hansa.audit.model import Action
from hansa.auth.idempotency import once
from hansa.auth.model import Principal
from hansa.db.pool import Connection
from hansa.errors import FieldError, Invalid

MAX_OBJECTS = 500
MAX_DELETED = 5000
"""Names are short, and what the guard counts is better asked for at once."""
APPLYING = (Action.OBJECT_CREATED, Action.OBJECT_CHANGED, Action.OBJECT_TAKEN, Action.TENANT_CREATED, Action.TENANT_CHANGED)
"""What the audit trail may say of each object; nothing of one that was there already as it is."""
DELETING = (Action.OBJECT_DELETED, Action.TENANT_ARCHIVED, Action.TENANT_DELETED)
EVERYWHERE = "*"
WHICH = {"git": "the repository and the folder in it, as URL//path", "kubernetes": "the name of the cluster"}
Manager = Literal["rest", "git", "kubernetes"]
Origin = Annotated[str, Meta(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]
Commit = Annotated[str, Meta(max_length=128, pattern=r"^[0-9A-Za-z._-]*$")]


class Apply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Objects to be applied, each by itself: one that is refused does not hold up the others. `manager` and `origin` say who owns them
    from then on (of git `URL//path`, of kubernetes the cluster), `commit` where they are written; `force` takes over what others own."""

    objects: list[Item]
    manager: Manager = "rest"
    origin: Origin = ""
    commit: Commit = ""
    force: bool = False


class Plan(Apply, frozen=True, forbid_unknown_fields=True):
    """Objects that would be applied, and then others of the same owner that would be deleted."""

    delete: list[Named] = []


class Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Objects of an owner that it no longer has. `allow_mass_delete`: it is meant, however many there are."""

    objects: list[Named]
    manager: Manager = "rest"
    origin: Origin = ""
    commit: Commit = ""
    allow_mass_delete: bool = False


class ApplyAnswer(msgspec.Struct, frozen=True):
    """What became of each object, in the order they were sent."""

    results: list[Applied]
    failed: int


class PlanAnswer(msgspec.Struct, frozen=True):
    """What would become of each object, in the order they were sent, those that would be deleted last. `guard`: why deleting them would be
    refused without `allow_mass_delete`; empty: it would not."""

    results: list[Applied]
    failed: int
    guard: str


class Takeover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to own the object from now on."""

    manager: Manager = "rest"
    origin: Origin = ""


class StoredObject(msgspec.Struct, frozen=True):
    """An object as it is kept. `manager` and `origin` own it; `commit` has it as it is, where `source` says; `applied_by` wrote it last.
    `status` is what the platform knows: a ToolServer's tools, or why it is not reachable; the conditions of an Agent or a Tenant."""

    kind: str
    name: str
    generation: int
    manager: str
    origin: str
    commit: str
    applied_by: str
    manifest: dict[str, Any]
    source: dict[str, Any] | None
    status: dict[str, Any] | None
    created_at: str
    updated_at: str


@post(
    "/v1/objects:apply",
    status_code=200,
    opt={"audit": APPLYING, "permission": "objects:write", "within": STANDING, "body": Apply, "answer": ApplyAnswer},
)
async def apply_objects(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Apply objects. 200 also when some were refused: `failed` counts them, `errors` names each place."""
    key = await requests.idempotency_key(request)
    asked = await services(request).objects.prepare(principal, _asked(await bodies.body(request, Apply)))
    changed: list[str] = []
    told: list[str] = []

    async def operation(connection: Connection) -> tuple[int, str]:
        results = await services(request).objects.apply(connection, principal, asked)
        tenants = [result for result in results if result.kind == "Tenant" and result.action != "failed"]
        told.extend(result.name for result in tenants)
        changed.extend(result.name for result in tenants if result.action != "unchanged")
        return 200, msgspec.json.encode(ApplyAnswer(results, _failed(results))).decode()

    answer = await once(services(request).equipment.database, principal, key, operation)
    await services(request).objects.told(principal, applied=told)
    if changed:  # and with them, perhaps, who may come in and what they may
        await services(request).api_keys.changed()
    if told:
        await services(request).messaging.changed(told)
    return answers.kept(answer)


@post(
    "/v1/objects:plan",
    status_code=200,
    opt={"unaudited": "it changes nothing", "permission": "objects:write", "within": STANDING, "body": Plan, "answer": PlanAnswer},
)
async def plan_objects(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """What applying and deleting these would do, and what would change: it is done in a transaction that is undone. Same permissions,
    same refusals."""
    key = await requests.idempotency_key(request)
    plan = await bodies.body(request, Plan)
    _check_size(len(plan.delete), MAX_DELETED)
    objects = services(request).objects
    asked = await objects.prepare(principal, _asked(plan))
    unwanted = Unwanted(asked.owner, plan.delete, await objects.leads(principal, plan.delete), commit=plan.commit)

    async def operation(connection: Connection) -> tuple[int, str]:
        applied, deleted = await objects.plan(connection, principal, asked, unwanted)
        results = [*applied, *deleted.results]
        return 200, msgspec.json.encode(PlanAnswer(results, _failed(results), deleted.guard)).decode()

    return answers.kept(await once(services(request).equipment.database, principal, key, operation))


@post(
    "/v1/objects:delete",
    status_code=200,
    opt={"audit": DELETING, "permission": "objects:write", "within": STANDING, "body": Delete, "answer": ApplyAnswer},
)
async def delete_objects(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Delete objects that an owner no longer has, only its own, in reverse order of their kinds. Many at once, and any Tenant or Region,
    only with `allow_mass_delete`: otherwise nothing is deleted. A Tenant goes the way that its `deletionPolicy` says."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, Delete)
    _check_size(len(asked.objects), MAX_DELETED)
    objects = services(request).objects
    leads = await objects.leads(principal, asked.objects)
    unwanted = Unwanted(_owner(asked.manager, asked.origin), asked.objects, leads, asked.allow_mass_delete, asked.commit)
    closed: list[str] = []

    async def operation(connection: Connection) -> tuple[int, str]:
        deleted = await objects.delete_all(connection, principal, unwanted)
        closed.extend(deleted.closed)
        return 200, msgspec.json.encode(ApplyAnswer(deleted.results, _failed(deleted.results))).decode()

    answer = await once(services(request).equipment.database, principal, key, operation)
    await objects.told(principal, closed=closed)
    return answers.kept(answer)


@get(
    "/v1/objects",
    opt={
        "permission": "objects:read",
        "within": STANDING,
        "answer": list[StoredObject],
        "query": {"kind": str, "manager": str, "origin": str, "namespace": str},
    },
)
async def list_objects(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Objects by kind and name. A namespace leads to its tenant, for those who act in any; with `*` the objects of one manager and origin
    in all tenants are listed."""
    asked = requests.query(request)
    if asked.get("namespace") == EVERYWHERE:
        everywhere = Filters(asked.get("kind"), asked.get("manager"), asked.get("origin"))
        begun = requests.cursor(request, principal) or ["", "", ""]
        data, end = await services(request).objects.everywhere(
            principal, everywhere, after=(begun[0], begun[1], begun[2]), limit=requests.limit(request)
        )
        return answers.page(request, principal, data, end)
    filters = Filters(asked.get("kind"), asked.get("manager"), asked.get("origin"), asked.get("namespace"))
    after = requests.cursor(request, principal) or ["", ""]
    data, last = await services(request).objects.page(principal, filters, after=(after[0], after[1]), limit=requests.limit(request))
    return answers.page(request, principal, data, last)


@get(
    "/v1/objects/{kind:str}/{name:str}",
    opt={"permission": "objects:read", "within": STANDING, "answer": StoredObject, "query": {"namespace": str}},
)
async def get_object(request: AnyRequest, principal: Principal, kind: str, name: str) -> Response[bytes]:
    """One object. A namespace leads to its tenant, for those who act in any."""
    namespace = requests.query(request).get("namespace")
    return answers.text(await services(request).objects.get(principal, kind, name, namespace=namespace))


@delete(
    "/v1/objects/{kind:str}/{name:str}",
    status_code=204,
    opt={"audit": Action.OBJECT_DELETED, "permission": "objects:write", "within": STANDING},
)
async def delete_object(request: AnyRequest, principal: Principal, kind: str, name: str) -> None:
    """Delete an object that nobody but people own. Runs under way go on; revisions of an agent are kept."""
    await services(request).objects.delete(principal, kind, name)


@post(
    "/v1/objects/{kind:str}/{name:str}/takeover",
    status_code=200,
    opt={"audit": Action.OBJECT_TAKEN, "permission": "objects:takeover", "within": STANDING, "body": Takeover, "answer": StoredObject},
)
async def take_over_object(request: AnyRequest, principal: Principal, kind: str, name: str) -> Response[bytes]:
    """Give an object another owner, on purpose. What it says stays as it is; the one who had it is refused from now on."""
    asked = await bodies.body(request, Takeover)
    return answers.text(await services(request).objects.take_over(principal, kind, name, _owner(asked.manager, asked.origin)))


def _asked(body: Apply) -> Asked:
    _check_size(len(body.objects), MAX_OBJECTS)
    return Asked(body.objects, _owner(body.manager, body.origin), body.commit, body.force)


def _owner(manager: str, origin: str) -> Owner:
    """Raises `Invalid` for what names nobody, or shows a password."""
    if manager != "rest" and not origin:
        text = f"is needed with the manager {manager!r}: {WHICH[manager]}"
        raise Invalid(f"origin: {text}", errors=(FieldError("origin", "required", text),))
    refuse_credentials(origin)
    return Owner(manager, origin)


def _check_size(many: int, most: int) -> None:
    if many > most:
        raise Invalid(f"{many} objects in one request; the most is {most}", hint="Send them in several requests.")


def _failed(results: list[Applied]) -> int:
    return sum(result.action == "failed" for result in results)


HANDLERS = (
    apply_objects,
    plan_objects,
    delete_objects,
    list_objects,
    get_object,
    delete_object,
    take_over_object,
)
