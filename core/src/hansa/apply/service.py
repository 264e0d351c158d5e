"""Applying objects: checked, resolved and written, each by itself, in one transaction of the tenant. They are taken in the order of their
kinds, whatever order they were sent in, so that what others refer to comes first."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from hansa import clock
from hansa.apply import store
from hansa.apply.auditing import Trail
from hansa.apply.model import Discover, KnownServer, ToolServerStatus
from hansa.apply.narrowing import Judges, beyond, turned, unreadable
from hansa.apply.owners import keep_owner
from hansa.apply.references import unresolved
from hansa.apply.secrets import missing_secret
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.identity import keep_issuers, refused_issuers
from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database, enter_tenant
from hansa.errors import Conflict, FieldError, Invalid, NotFound
from hansa.plugins.model import Plugins
from hansa.secrets.variables import Variables
from hansa.tenants import store as tenant_store
from hansa.tenants.allowance import NO_BOUND, Allowance
from hansa.tenants.messaging import store as messaging_store
from hansa.tenants.service import Tenants, closed, tenant_id
from hansa_crds import KINDS, Agent, HansaObject, Keys, ModelProvider, Region, Tenant, TenantAllowed, ToolServer, check, kind_of
from hansa_crds.problem import path_of

ORDER = ("Region", "Tenant", "ModelProvider", "ToolServer", "Agent")
CLUSTER = ("Region", "Tenant")
DISCOVERIES = 8
DISCOVERY_SECONDS = 20.0
"""After so many seconds no further ToolServer of a request is asked for its tools."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an object was written: file, line and column (from 1)."""

    file: str = ""
    line: int = 0
    column: int = 0


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object to apply, as decoded from YAML or JSON."""

    manifest: Any
    source: Source | None = None


class Applied(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one object. `action`: created, configured, unchanged or failed; `note`: what is not right with it nevertheless;
    `tenant`: whose it is, if not the caller's.
    """

    kind: str
    name: str
    action: str
    generation: int | None = None
    revision: int | None = None
    note: str = ""
    tenant: str = ""
    errors: tuple[FieldError, ...] = ()


class Objects:
    """Objects of a tenant, and of all for those who may act in any."""

    def __init__(
        self, database: Database, plugins: Plugins, discover: Discover, *, variables: Variables, judges: Judges, tenants: Tenants
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._plugins = plugins
        self._discover = discover
        self._variables = variables
        self._judges = judges

    async def discover(self, principal: Principal, items: list[Item]) -> dict[str, ToolServerStatus]:
        """Ask every ToolServer of a request for its tools: name -> status. Comes before `apply`: no transaction waits for a stranger."""
        servers: dict[str, ToolServer] = {}
        for item in items:
            if _kind(item.manifest) == "ToolServer":
                found, problems = check(item.manifest)
                if isinstance(found, ToolServer) and not problems and _forbidden(principal, found) is None:
                    servers.setdefault(found.metadata.name, found)
        give_up, slots = clock.monotonic() + DISCOVERY_SECONDS, asyncio.Semaphore(DISCOVERIES)
        allowances = {tenant: await self._allowance(tenant) for tenant in {_tenant(principal, server) for server in servers.values()}}

        async def ask(server: ToolServer) -> ToolServerStatus:
            async with slots:
                refusal = allowances[_tenant(principal, server)].endpoint_refusal(server.spec.endpoint)
                if refusal:
                    return ToolServerStatus(False, refusal)
                if clock.monotonic() >= give_up:
                    return ToolServerStatus(False, "not asked: the other ToolServers of the request were too slow; apply it again")
                return await self._discover(tenant_id(_tenant(principal, server)), server)

        return dict(zip(servers, await asyncio.gather(*map(ask, servers.values())), strict=True))

    async def _allowance(self, tenant: str) -> Allowance:
        async with self._database.tenant(tenant_id(tenant)) as connection:
            return _allowance(await store.allowed(connection))

    async def apply(
        self,
        connection: Connection,
        principal: Principal,
        items: list[Item],
        *,
        manager: str,
        discovered: Mapping[str, ToolServerStatus],
    ) -> list[Applied]:
        """Apply objects in the caller's transaction; the answers stand in the order of the items. `discovered` is from `discover`."""
        checked: list[tuple[int, Item, HansaObject]] = []
        results: dict[int, Applied] = {}
        seen: dict[tuple[str, str, str], int] = {}
        for number, item in enumerate(items):
            found, problems = check(item.manifest)
            errors = tuple(FieldError(p.path, p.code, p.message, p.suggestion or None) for p in problems)
            if found is not None:
                errors = _unkeepable(item.manifest, ())
            if found is None or errors:
                results[number] = _failed(item, errors)
                continue
            first = seen.setdefault(_place(principal, found), number)
            if first != number:
                results[number] = _failed(item, (_duplicate(items[first]),))
                continue
            checked.append((number, item, found))
        # Also by name: two requests that write the same objects lock them in the same order, so that neither waits for the other.
        checked.sort(key=lambda each: (ORDER.index(kind_of(each[2]).kind), _place(principal, each[2])))
        trail = Trail(principal)
        touched = {principal.tenant, *(_tenant(principal, found) for _, _, found in checked if _forbidden(principal, found) is None)}
        await self._lock(connection, touched)
        for number, item, found in checked:
            tenant, forbidden = _tenant(principal, found), _forbidden(principal, found)
            if forbidden is not None:
                failed = _failed(item, (forbidden,))
                results[number] = failed if tenant == principal.tenant else msgspec.structs.replace(failed, tenant=tenant)
                trail.refused(found, tenant, forbidden.message)
                continue
            await enter_tenant(connection, tenant_id(tenant))
            refused = await self._refusals(connection, principal, found)
            if refused:
                results[number] = _failed(item, refused)
            else:
                results[number], before = await self._write(connection, item, found, manager)
                trail.applied(found, tenant, before, action=results[number].action)
                if isinstance(found, Agent) and results[number].action != "failed":
                    results[number] = msgspec.structs.replace(results[number], note=await keep_owner(connection, principal, found))
            if isinstance(found, ToolServer) and not refused and found.metadata.name in discovered:
                results[number] = await self._keep(connection, found, results[number], discovered[found.metadata.name])
            missing = await missing_secret(connection, found) if not refused else ""
            if missing:
                results[number] = msgspec.structs.replace(results[number], note="; ".join(filter(None, (results[number].note, missing))))
            if tenant != principal.tenant:
                results[number] = msgspec.structs.replace(results[number], tenant=tenant)
        # Last, and also for what a tool server says now: a tenant's row is held only until the commit. So is the end of its audit trail.
        for tenant in (*sorted(touched - {principal.tenant}), principal.tenant):
            await enter_tenant(connection, tenant_id(tenant))
            await tenant_store.objects_changed(connection)
            await record(connection, *trail.of(tenant))
        return [results[number] for number in range(len(items))]

    async def _lock(self, connection: Connection, tenants: set[str]) -> None:
        """Of several tenants: take their rows in one order, or two requests might each hold what the other one wants."""
        for tenant in sorted(tenants) if len(tenants) > 1 else ():
            await enter_tenant(connection, tenant_id(tenant))
            await tenant_store.lock_tenant(connection)

    async def _refusals(self, connection: Connection, principal: Principal, found: HansaObject) -> tuple[FieldError, ...]:
        tenant = _tenant(principal, found)
        place = "metadata.name" if isinstance(found, Tenant) else "metadata.namespace"
        known = await tenant_store.lock_tenant(connection) if tenant != principal.tenant or isinstance(found, Tenant) else None
        if known is None and tenant != principal.tenant and not isinstance(found, Tenant):
            return (FieldError(place, "reference", f"there is no tenant {tenant!r}; its Tenant object makes it"),)
        if known is not None and known["state"] != "active":
            return (FieldError(place, "closed", closed(tenant, known["state"]).detail, closed(tenant, known["state"]).hint),)
        if isinstance(found, Agent) and await store.find(connection, "Agent", found.metadata.name) is None:
            quota = await tenant_store.agents_left(connection)
            if quota is not None and quota[0] >= quota[1]:
                text = f"the tenant has {quota[0]} agents and may have {quota[1]} (quotas.agents of the Tenant); delete one, or raise it"
                return (FieldError("metadata.name", "quota", text),)
        texts = await store.manifests(connection, "ModelProvider")
        providers = [msgspec.json.decode(text, type=ModelProvider) for text in texts]
        named = [use.tool_server for use in found.spec.tools if use.tool_server] if isinstance(found, Agent) else []
        servers = await store.tool_servers(connection, named) if named else []
        known = [msgspec.json.decode(text, type=KnownServer) for text in servers]
        missing = unresolved(found, self._plugins, providers, known, variables=self._variables)
        if isinstance(found, Tenant):
            missing = [*missing, *refused_issuers(found.spec.identity, self._judges.issuers)]
        if missing:
            return tuple(missing)
        allowance = _allowance(await store.allowed(connection))
        narrower = beyond(found, allowance, self._plugins, providers, servers=known)
        return (*narrower, *unreadable(found, self._judges.flaw, self._plugins, known))

    async def _write(self, connection: Connection, item: Item, found: HansaObject, manager: str) -> tuple[Applied, str | None]:
        """What became of an object, and what it was before as JSON text."""
        kind, name = kind_of(found).kind, found.metadata.name
        manifest = msgspec.json.encode(found, order="sorted")
        digest = _digest(manifest)
        known = await store.find(connection, kind, name)
        if other := turned(known["manifest"] if known else None, manifest):
            return _failed(item, other), None
        if isinstance(found, Region) and not await tenant_store.update_region(
            connection, name, display_name=found.spec.display_name, cordoned=found.spec.cordoned
        ):
            return _failed(item, (FieldError("metadata.name", "reference", f"there is no region {name!r}"),)), None
        if isinstance(found, Tenant):
            taken = await self._keep_tenant(connection, found)
            if taken:
                return _failed(item, taken), None
        if known is not None and known["digest"] == digest:
            action, generation = "unchanged", known["generation"]
        else:
            source = msgspec.json.encode(item.source).decode() if item.source else None
            values = {"kind": kind, "name": name, "manager": manager, "manifest": manifest.decode(), "digest": digest, "source": source}
            generation = await store.upsert(connection, values)
            if isinstance(found, Tenant):
                await tenant_store.set_generation(connection, generation)
            action = "configured" if known is not None else "created"
        revision = None
        if isinstance(found, Agent):
            spec = msgspec.json.encode(found.spec, order="sorted")
            revision = await store.add_revision(connection, name, digest=_digest(spec), manifest=manifest.decode())
            if action != "unchanged":
                await store.agent_changed(connection, found, revision)
        return Applied(kind, name, action, generation, revision), None if known is None else known["manifest"]

    async def _keep_tenant(self, connection: Connection, found: Tenant) -> tuple[FieldError, ...]:
        """Make or change a tenant, whole or not at all; what is wrong with it."""
        try:
            async with connection.transaction():
                await tenant_store.ensure_tenant(connection, tenant_id(found.metadata.name), found.metadata.name)
                await tenant_store.update_tenant(connection, found.spec)
                await tenant_store.set_budget(connection, found.spec.quotas)
                await messaging_store.set_account(connection, tenant_id(found.metadata.name), found.spec)
                await keep_issuers(connection, tenant_id(found.metadata.name), found.spec.identity)
        except Invalid as error:
            return error.errors
        return ()

    async def _keep(self, connection: Connection, server: ToolServer, applied: Applied, status: ToolServerStatus) -> Applied:
        """Keep what the server said, and the tools it last named while it is the same server and can't be reached."""
        name = server.metadata.name
        if not status.reachable and applied.action == "unchanged":
            (text,) = await store.tool_servers(connection, [name])
            before = msgspec.json.decode(text, type=KnownServer).status
            if before is not None:
                status = msgspec.structs.replace(status, protocol=before.protocol, tools=before.tools, left_out=before.left_out)
        await store.set_status(connection, "ToolServer", name, status=msgspec.json.encode(status).decode())
        return applied if status.reachable else msgspec.structs.replace(applied, note=f"not reachable: {status.reason}")

    async def get(self, principal: Principal, kind: str, name: str) -> str:
        """An object as JSON text."""
        async with self._database.tenant(principal.tenant_id) as connection:
            body = await store.read(connection, _known_kind(kind), name)
        if body is None:
            raise NotFound(f"there is no {kind} {name!r}")
        return await self._tenants.with_status(kind, name, body)

    async def page(
        self, principal: Principal, kind: str | None, *, after: tuple[str, str], limit: int
    ) -> tuple[list[str], tuple[str, str] | None]:
        """Objects by kind and name, and where the next page begins."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.page(connection, _known_kind(kind) if kind else None, after, limit + 1)
        last = (rows[limit - 1]["kind"], rows[limit - 1]["name"]) if len(rows) > limit else None
        return [await self._tenants.with_status(row["kind"], row["name"], row["body"]) for row in rows[:limit]], last

    async def manifests(self, principal: Principal, kind: str) -> list[str]:
        """All manifests of a kind, as JSON texts."""
        async with self._database.tenant(principal.tenant_id) as connection:
            return await store.manifests(connection, kind)

    async def delete(self, principal: Principal, kind: str, name: str) -> None:
        """Delete an object. Runs under way go on; a ModelProvider or ToolServer that agents still use stays."""
        if _known_kind(kind) in CLUSTER:
            raise Conflict(
                f"a {kind} can't be deleted through this tenant's API",
                hint="DELETE /v1/tenants/{name}, or `hansa delete tenant`." if kind == "Tenant" else "Cordon it instead.",
            )
        async with self._database.tenant(principal.tenant_id) as connection:
            users = await self._users(connection, kind, name)
            if users:
                raise Conflict(f"agents still use the {kind} {name!r}: {', '.join(users)}", hint="Change or delete these agents first.")
            known = await store.find(connection, kind, name)
            if known is None or not await store.delete(connection, kind, name):
                raise NotFound(f"there is no {kind} {name!r}")
            await tenant_store.objects_changed(connection)
            before = msgspec.json.decode(known["manifest"])
            await record(connection, principal.did(Action.OBJECT_DELETED, f"{kind}/{name}", before=before))

    async def _users(self, connection: Connection, kind: str, name: str) -> list[str]:
        """Agents that would be left with a reference to nothing if a ModelProvider or ToolServer went."""
        if kind not in ("ModelProvider", "ToolServer"):
            return []
        agents = [msgspec.json.decode(text, type=Agent) for text in await store.manifests(connection, "Agent")]
        if kind == "ToolServer":
            return [agent.metadata.name for agent in agents if any(use.tool_server == name for use in agent.spec.tools)]
        texts = await store.manifests(connection, "ModelProvider")
        left = [found for found in (msgspec.json.decode(text, type=ModelProvider) for text in texts) if found.metadata.name != name]
        return [
            agent.metadata.name
            for agent in agents
            if any(error.path.startswith("spec.model") for error in unresolved(agent, self._plugins, left, [], variables=self._variables))
        ]


def _allowance(text: str | None) -> Allowance:
    return Allowance(msgspec.json.decode(text, type=TenantAllowed)) if text else NO_BOUND


def _kind(manifest: Any) -> Any:
    return cast("dict[str, Any]", manifest).get("kind") if isinstance(manifest, dict) else None


def _forbidden(principal: Principal, found: HansaObject) -> FieldError | None:
    """Why this caller can't apply such an object, whatever it says."""
    kind, metadata = kind_of(found).kind, found.metadata
    if kind in CLUSTER and not principal.may("platform:write"):
        return FieldError("kind", "forbidden", f"a {kind} needs the permission platform:write (role platform-admin)")
    if kind not in CLUSTER and metadata.namespace not in (None, principal.tenant) and not principal.may("tenants:act"):
        text = f"this key belongs to tenant {principal.tenant!r}; leave namespace out or write that"
        return FieldError("metadata.namespace", "reference", text)
    return None


def _tenant(principal: Principal, found: HansaObject) -> str:
    """Whose an object is: a Tenant is its own, anything else belongs to the tenant that its namespace names, or the caller's."""
    if isinstance(found, Tenant):
        return found.metadata.name
    return principal.tenant if isinstance(found, Region) else found.metadata.namespace or principal.tenant


def _place(principal: Principal, found: HansaObject) -> tuple[str, str, str]:
    """(tenant, kind, name): where an object stands, once."""
    return _tenant(principal, found), kind_of(found).kind, found.metadata.name


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise NotFound(f"there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return kind


class _Name(msgspec.Struct):
    name: str = ""


class _Head(msgspec.Struct):
    """As much of a manifest as is needed to name it in an answer."""

    kind: str = ""
    metadata: _Name = msgspec.field(default_factory=_Name)


def _failed(item: Item, errors: tuple[FieldError, ...]) -> Applied:
    try:
        head = msgspec.convert(item.manifest, _Head)
    except msgspec.ValidationError:
        head = _Head()
    source = item.source
    if source is not None:
        errors = tuple(msgspec.structs.replace(e, file=source.file, line=source.line, column=source.column) for e in errors)
    return Applied(head.kind, head.metadata.name, "failed", errors=errors)


def _duplicate(first: Item) -> FieldError:
    where = f"{first.source.file}:{first.source.line}" if first.source else "earlier in this request"
    return FieldError("metadata.name", "duplicate", f"an object of this kind and name stands already at {where}")


def _unkeepable(value: Any, keys: Keys) -> tuple[FieldError, ...]:
    """Texts that the database can keep and then not look into: those with a NUL character."""
    match value:
        case str():
            wrong = "\x00" in value
            return (FieldError(path_of(keys), "pattern", "holds a NUL character, which no manifest may"),) if wrong else ()
        case list():
            items = cast(list[Any], value)
            return tuple(error for number, item in enumerate(items) for error in _unkeepable(item, (*keys, number)))
        case dict():
            fields = cast(dict[str, Any], value)
            inside = [error for key, item in fields.items() for error in _unkeepable(item, (*keys, key))]
            return (*(error for key in fields for error in _unkeepable(key, (*keys, key))), *inside)
        case _:
            return ()


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
