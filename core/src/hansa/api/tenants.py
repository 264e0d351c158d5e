"""/v1/tenants and /v1/deletions: all tenants, with their conditions; closing, deleting, exporting and importing whole ones."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post
from litestar.response import Stream

from hansa.api import answers, requests
from hansa.api.services import AnyRequest, services
from hansa.audit.model import Action
from hansa.auth.model import Principal
from hansa.runs.leaving.importing import Imported
from hansa.tenants.service import TenantView

BUNDLE = "application/x-tar"


class Deletion(msgspec.Struct, frozen=True):
    """A deletion of a tenant. `step`: stop, export, purge, scan, done; `residue`: what the last scan found of it, place -> how much."""

    id: UUID
    tenant: str
    policy: str
    requested_by: str
    requested_at: str
    step: str
    exported: bool
    residue: dict[str, int]
    finished_at: str | None


@get("/v1/tenants", opt={"permission": "tenants:read", "answer": list[TenantView]})
async def list_tenants(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """All tenants by name."""
    after = requests.cursor(request, principal) or ""
    views, last = await services(request).tenants.page(after=after, limit=requests.limit(request))
    return answers.page(request, principal, (msgspec.json.encode(view).decode() for view in views), last)


@get("/v1/tenants/{name:str}", opt={"permission": "tenants:read", "answer": TenantView})
async def get_tenant(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """One tenant."""
    return answers.value(await services(request).tenants.get(name))


@delete(
    "/v1/tenants/{name:str}",
    status_code=202,
    opt={
        "audit": (Action.TENANT_ARCHIVED, Action.TENANT_DELETED),
        "permission": "platform:write",
        "answer": TenantView,
        "query": {"confirm": str, "policy": str},
    },
)
async def delete_tenant(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """Close a tenant and do what its `deletionPolicy` says, or `policy` instead of it. `confirm` repeats its name. Nobody gets in from the
    answer on; workers remove what it has, after which it is not found, and /v1/deletions tells of it."""
    asked = requests.query(request)
    view = await services(request).objects.close_tenant(principal, name, confirm=asked.get("confirm"), policy=asked.get("policy"))
    return answers.value(view, status=202)


@post(
    "/v1/tenants/{name:str}/restore",
    status_code=200,
    opt={"audit": Action.TENANT_RESTORED, "permission": "platform:write", "answer": TenantView},
)
async def restore_tenant(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """Bring an archived tenant back, with its keys and all it had."""
    return answers.value(await services(request).deletions.restore(principal, name))


@get("/v1/tenants/{name:str}/export", opt={"permission": "platform:write", "answer": BUNDLE})
async def export_tenant(request: AnyRequest, principal: Principal, name: str) -> Stream:
    """Objects, sessions with their logs, and what is known of keys but their secrets, as one tar file; its last member says that nothing
    is missing."""
    pieces = await services(request).bundles.export(name)
    return Stream(pieces, media_type=BUNDLE, headers=_file(name))


@post(
    "/v1/tenants:import",
    status_code=201,
    request_max_body_size=None,  # it has a bound of its own, and is read as a stream
    opt={"audit": Action.TENANT_IMPORTED, "permission": "platform:write", "body": BUNDLE, "answer": Imported, "query": {"name": str}},
)
async def import_tenant(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Make a tenant of an export, under its own name or another. Safe to repeat: what is there already is left as it is, and counted."""
    most = services(request).settings.server.bundle_bytes
    name = requests.query(request).get("name")
    return answers.value(await services(request).bundles.take(principal, request.stream(), most=most, name=name), status=201)


@get("/v1/deletions", opt={"permission": "tenants:read", "answer": list[Deletion]})
async def list_deletions(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Deletions of tenants, newest first; they outlive what was deleted."""
    after: Any = requests.cursor(request, principal)
    data, last = await services(request).deletions.page(before=UUID(after) if after else None, limit=requests.limit(request))
    return answers.page(request, principal, data, str(last) if last else None)


@get("/v1/deletions/{deletion_id:str}", opt={"permission": "tenants:read", "answer": Deletion})
async def get_deletion(request: AnyRequest, principal: Principal, deletion_id: str) -> Response[bytes]:
    """One deletion."""
    return answers.text(await services(request).deletions.get(requests.uuid(deletion_id, "deletion")))


@get("/v1/deletions/{deletion_id:str}/export", opt={"permission": "platform:write", "answer": BUNDLE})
async def get_deleted(request: AnyRequest, principal: Principal, deletion_id: str) -> Stream:
    """The export that a deletion has written before it removed anything."""
    found = services(request)
    identity = requests.uuid(deletion_id, "deletion")
    name, export, parts = await found.deletions.parts(identity)
    return Stream(found.bundles.kept(identity, export, parts), media_type=BUNDLE, headers=_file(name))


def _file(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="tenant-{name}.tar"', "cache-control": "no-store"}


HANDLERS = (
    list_tenants,
    get_tenant,
    delete_tenant,
    restore_tenant,
    export_tenant,
    import_tenant,
    list_deletions,
    get_deletion,
    get_deleted,
)
