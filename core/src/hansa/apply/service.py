"""Applying objects: checked, resolved and written, each by itself, in one transaction of the tenant.

Objects are taken in the order of their kinds, whatever order they were sent in, so that what others refer to comes first.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from hansa import clock
from hansa.apply import store
from hansa.apply.auditing import Trail
from hansa.apply.items import Applied, Item, duplicate, failed, unkeepable
from hansa.apply.model import Discover, KnownServer, ToolServerStatus
from hansa.apply.narrowing import Judges, beyond, unreadable
from hansa.apply.owners import keep_owner
from hansa.apply.references import unresolved
from hansa.apply.secrets import missing_secret
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.identity import keep_issuers, refused_issuers
from hansa.auth.model import Principal
from hansa.db.joining import joining
from hansa.db.pool import Connection, Database, enter_each, enter_platform, enter_tenant, has_own
from hansa.errors import Conflict, FieldError, Invalid, NotFound, Unavailable
from hansa.plugins.model import Plugins
from hansa.secrets.variables import Variables
from hansa.tenants import store as tenant_store
from hansa.tenants.allowance import NO_BOUND, Allowance
from hansa.tenants.messaging import store as messaging_store
from hansa.tenants.placing import copy_object, elsewhere, misplaced
from hansa.tenants.service import Tenants, closed, tenant_id
from hansa_crds import KINDS, Agent, HansaObject, ModelProvider, Region, Tenant, TenantAllowed, ToolServer, check, kind_of

ORDER = ("Region", "Tenant", "ModelProvider", "ToolServer", "Agent")
CLUSTER = ("Region", "Tenant")
DISCOVERIES = 8
DISCOVERY_SECONDS = 20.0
"""After so many seconds no further ToolServer of a request is asked for its tools."""


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
        servers = {name: server for name, server in servers.items() if allowances[_tenant(principal, server)] is not None}

        async def ask(server: ToolServer) -> ToolServerStatus:
            async with slots:
                refusal = (allowances[_tenant(principal, server)] or NO_BOUND).endpoint_refusal(server.spec.endpoint)
                if refusal:
                    return ToolServerStatus(False, refusal)
                if clock.monotonic() >= give_up:
                    return ToolServerStatus(False, "not asked: the other ToolServers of the request were too slow; apply it again")
                return await self._discover(tenant_id(_tenant(principal, server)), server)

        return dict(zip(servers, await asyncio.gather(*map(ask, servers.values())), strict=True))

    async def _allowance(self, tenant: str) -> Allowance | None:
        """What a tenant may use; None: its own database is away, and nothing of it is applied now."""
        try:
            async with self._database.tenant(tenant_id(tenant)) as connection:
                return _allowance(await store.allowed(connection))
        except Unavailable:
            if self._database.of(tenant_id(tenant)) is self._database:
                raise
            return None

    async def apply(
        self,
        connection: Connection,
        principal: Principal,
        items: list[Item],
        *,
        manager: str,
        discovered: Mapping[str, ToolServerStatus],
    ) -> list[Applied]:
        """Apply objects in the caller's transaction, and in one of each tenant's own database; the answers stand in the order of the items.
        `discovered` is from `discover`."""
        async with joining(self._database, connection, self._database.of(principal.tenant_id)) as joined:
            return await self._apply(joined, principal, items, manager=manager, discovered=discovered)

    async def _apply(
        self, connection: Connection, principal: Principal, items: list[Item], *, manager: str, discovered: Mapping[str, ToolServerStatus]
    ) -> list[Applied]:
        checked: list[tuple[int, Item, HansaObject]] = []
        results: dict[int, Applied] = {}
        seen: dict[tuple[str, str, str], int] = {}
        for number, item in enumerate(items):
            found, problems = check(item.manifest)
            errors = tuple(FieldError(p.path, p.code, p.message, p.suggestion or None) for p in problems)
            if found is not None:
                errors = unkeepable(item.manifest, ())
            if found is None or errors:
                results[number] = failed(item, errors)
                continue
            first = seen.setdefault(_place(principal, found), number)
            if first != number:
                results[number] = failed(item, (duplicate(items[first]),))
                continue
            checked.append((number, item, found))
        # Also by name: two requests that write the same objects lock them in the same order, so that neither waits for the other.
        checked.sort(key=lambda each: (ORDER.index(kind_of(each[2]).kind), _place(principal, each[2])))
        trail = Trail(principal)
        touched = {principal.tenant, *(_tenant(principal, found) for _, _, found in checked if _forbidden(principal, found) is None)}
        away = await self._lock(connection, touched)
        for number, item, found in checked:
            tenant, forbidden = _tenant(principal, found), _forbidden(principal, found)
            if forbidden is not None:
                told = failed(item, (forbidden,))
                results[number] = told if tenant == principal.tenant else msgspec.structs.replace(told, tenant=tenant)
                trail.refused(found, tenant, forbidden.message)
                continue
            if tenant in away:
                results[number] = msgspec.structs.replace(failed(item, away[tenant]), tenant=tenant)
                continue
            await (enter_platform if isinstance(found, Tenant | Region) else enter_tenant)(connection, tenant_id(tenant))
            refused = await self._refusals(connection, principal, found)
            if refused:
                results[number] = failed(item, refused)
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
        for tenant in (*sorted(touched - away.keys() - {principal.tenant}), principal.tenant):
            await enter_tenant(connection, tenant_id(tenant))
            await tenant_store.objects_changed(connection)
            await record(connection, *trail.of(tenant))
        return [results[number] for number in range(len(items))]

    async def _lock(self, connection: Connection, tenants: set[str]) -> dict[str, tuple[FieldError, ...]]:
        """Of several tenants: take their rows in one order, or two requests might each hold what the other one wants. Those whose own
        database is away, and what is said of them."""
        away: dict[str, tuple[FieldError, ...]] = {}
        for tenant in sorted(tenants) if len(tenants) > 1 else ():
            try:
                async for _ in enter_each(connection, tenant_id(tenant)):
                    await tenant_store.lock_tenant(connection)
            except Unavailable as error:
                if not has_own(connection, tenant_id(tenant)):
                    raise
                away[tenant] = (FieldError("metadata.namespace", "unavailable", error.detail),)
        return away

    async def _refusals(self, connection: Connection, principal: Principal, found: HansaObject) -> tuple[FieldError, ...]:
        tenant = _tenant(principal, found)
        place = "metadata.name" if isinstance(found, Tenant) else "metadata.namespace"
        known = await tenant_store.lock_tenant(connection) if tenant != principal.tenant or isinstance(found, Tenant) else None
        if known is None and tenant != principal.tenant and not isinstance(found, Tenant):
            return (FieldError(place, "reference", f"there is no tenant {tenant!r}; its Tenant object makes it"),)
        if known is not None and known["state"] != "active":
            return (FieldError(place, "closed", closed(tenant, known["state"]).detail, closed(tenant, known["state"]).hint),)
        wrong = misplaced(connection, found, known) if isinstance(found, Tenant) else elsewhere(connection, tenant, known)
        if wrong:
            return wrong
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
        if isinstance(found, Region) and not await tenant_store.update_region(
            connection, name, display_name=found.spec.display_name, cordoned=found.spec.cordoned
        ):
            return failed(item, (FieldError("metadata.name", "reference", f"there is no region {name!r}"),)), None
        if isinstance(found, Tenant):
            taken = await self._keep_tenant(connection, found)
            if taken:
                return failed(item, taken), None
        if known is not None and known["digest"] == digest:
            action, generation = "unchanged", known["generation"]
        else:
            source = msgspec.json.encode(item.source).decode() if item.source else None
            values = {"kind": kind, "name": name, "manager": manager, "manifest": manifest.decode(), "digest": digest, "source": source}
            generation = await store.upsert(connection, values)
            if isinstance(found, Tenant):
                await tenant_store.set_generation(connection, generation)
            action = "configured" if known is not None else "created"
        if isinstance(found, Tenant):
            await copy_object(connection, name)
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
                name, tenant = found.metadata.name, tenant_id(found.metadata.name)
                async for _ in enter_each(connection, tenant):
                    await tenant_store.ensure_tenant(connection, tenant, name, database=found.spec.isolation.database)
                    await tenant_store.update_tenant(connection, found.spec)
                    await tenant_store.set_budget(connection, found.spec.quotas)
                await enter_platform(connection, tenant)
                await messaging_store.set_account(connection, tenant, found.spec)
                await keep_issuers(connection, tenant, found.spec.identity)
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


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
