"""The objects of a tenant, and of all for those who may act in any: applying, planning, deleting, taking over and reading them.

Applying and deleting are done in the caller's transaction, after `prepare`, which reads and asks what no transaction should wait for.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import msgspec

from hansa.apply import namespaces, ownership, store
from hansa.apply.applying import Applying, enter_place, lock_tenants
from hansa.apply.auditing import Trail
from hansa.apply.candidates import candidates, forbidden
from hansa.apply.deleting import Deleting, MassDeletion
from hansa.apply.discovery import discovered
from hansa.apply.judging import allowance_of
from hansa.apply.model import CLUSTER, Applied, Asked, Discover, Named, Owner, Unwanted
from hansa.apply.narrowing import Judges
from hansa.apply.planning import undone
from hansa.apply.rollout.service import Rollouts
from hansa.apply.sight import READING, WRITING, judge, sees
from hansa.auth.model import Principal
from hansa.db.joining import joining
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, Forbidden, NotFound, Unavailable
from hansa.plugins.model import Plugins
from hansa.tenants import store as tenant_store
from hansa.tenants.allowance import Allowance
from hansa.tenants.deletion import Deletions, invalid
from hansa.tenants.mending import settled
from hansa.tenants.placing import copy_object
from hansa.tenants.service import DEFAULT_TENANT, Tenants, TenantView, missing, tenant_id
from hansa_crds import KINDS

PEOPLE = Owner()


class Deleted(msgspec.Struct, frozen=True):
    """What became of objects that were to be deleted; `guard`: why it wanted an explicit yes, empty: it did not; `closed`: tenants that
    are, once the transaction is committed, of which `Objects.told` is to tell."""

    results: list[Applied]
    guard: str
    closed: list[str]


class Objects:
    """Objects of a tenant, and of all for those who may act in any."""

    def __init__(
        self, database: Database, plugins: Plugins, discover: Discover, *, judges: Judges, tenants: Tenants, deletions: Deletions
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._plugins = plugins
        self._discover = discover
        self._judges = judges
        self._deletions = deletions
        self._rollouts = Rollouts(database, plugins, judges)

    async def prepare(self, principal: Principal, asked: Asked) -> Asked:
        """Find out where namespaces lead and what ToolServers say. Raises `Forbidden`: the caller may take nothing over, and wants to."""
        if asked.force and principal.reach(ownership.PERMISSION) == frozenset():
            raise Forbidden(
                f"`force` takes over what others own: this needs the permission {ownership.PERMISSION}",
                hint="Leave `force` out, or have a tenant-admin do it.",
            )
        leads = await namespaces.of_items(self._database, principal, asked.items)
        servers = [item for item in asked.items if _kind(item.manifest) == "ToolServer"]
        good = candidates(principal, servers, leads.tenants)[0] if servers else []
        said = await discovered([each for each in good if forbidden(principal, each) is None], self._discover, self._allowance)
        return msgspec.structs.replace(asked, leads=leads, discovered=said)

    async def _allowance(self, tenant: str) -> Allowance | None:
        """What a tenant may use; None: its own database is away, and nothing of it is applied now."""
        try:
            async with self._database.tenant(tenant_id(tenant)) as connection:
                return allowance_of(await store.allowed(connection))
        except Unavailable:
            if self._database.of(tenant_id(tenant)) is self._database:
                raise
            return None

    def _joined(self, connection: Connection, principal: Principal) -> AbstractAsyncContextManager[Connection]:
        """The caller's connection, made to reach the own databases of tenants too."""
        return joining(self._database, connection, self._database.of(principal.tenant_id))

    async def apply(self, connection: Connection, principal: Principal, asked: Asked) -> list[Applied]:
        """Apply objects, in the caller's transaction and one in each tenant's own database; the answers stand in the order of the items."""
        async with self._joined(connection, principal) as joined:
            applying = Applying(joined, principal, asked, plugins=self._plugins, judges=self._judges, rollouts=self._rollouts)
            results = await applying.apply()
            await applying.trail.record(joined, applying.changed)
        return results

    async def leads(self, principal: Principal, names: Sequence[Named]) -> dict[str, str]:
        """Where the namespaces of named objects lead."""
        return await namespaces.leading(self._database, principal, (each.namespace for each in names))

    async def delete_all(self, connection: Connection, principal: Principal, asked: Unwanted) -> Deleted:
        """Delete what an owner has; the answers stand in the order of the names. Raises `MassDeletion`."""
        async with self._joined(connection, principal) as joined:
            deleted = await self._delete_all(joined, principal, asked)
            if deleted.guard and not asked.allow_mass:
                raise MassDeletion(deleted.guard, hint="Nothing was deleted. If it is meant: allow_mass_delete, or --allow-mass-delete.")
        return deleted

    async def _delete_all(self, connection: Connection, principal: Principal, asked: Unwanted) -> Deleted:
        deleting = self._deleting(connection, principal, asked)
        results, guard = await deleting.delete()
        await deleting.trail.record(connection, deleting.changed)
        return Deleted(results, guard, deleting.closed)

    async def plan(self, connection: Connection, principal: Principal, asked: Asked, unwanted: Unwanted) -> tuple[list[Applied], Deleted]:
        """What applying objects and then deleting others would do: it is done, and undone. The guard does not refuse it."""
        async with self._joined(connection, principal) as joined, undone(joined):
            applied = await self.apply(joined, principal, msgspec.structs.replace(asked, explain=True))
            deleted = await self._delete_all(joined, principal, msgspec.structs.replace(unwanted, allow_mass=True))
        return applied, deleted

    async def told(self, principal: Principal, *, closed: Sequence[str] = (), applied: Sequence[str] = ()) -> None:
        """A request is committed: have every process know at once which tenants were closed, and the own databases of these and of those
        whose Tenants were applied follow."""
        if applied:
            await settled(self._database, [*applied, principal.tenant])
        if closed:
            await self._deletions.told(closed, principal)

    def _deleting(self, connection: Connection, principal: Principal, asked: Unwanted) -> Deleting:
        return Deleting(connection, principal, asked, plugins=self._plugins, judges=self._judges, deletions=self._deletions)

    async def get(self, principal: Principal, kind: str, name: str, *, namespace: str | None = None) -> str:
        """An object as JSON text. `namespace`: in the tenant that it leads to."""
        tenant = await self._leads_to(principal, kind, namespace)
        return await self._read(principal, tenant, kind, name=name, permission=READING)

    async def _read(self, principal: Principal, tenant: str, kind: str, *, name: str, permission: str) -> str:
        async with self._database.tenant(tenant_id(tenant)) as connection:
            body = await store.read(connection, _known_kind(kind), name)
            if body is None or not (sees(principal, permission, body) and (kind not in CLUSTER or principal.may(permission))):
                raise no_object(kind, name)
            (body,) = await self._rollouts.with_status(connection, principal, [(kind, name, body)])
        return await self._tenants.with_status(kind, name, body)

    async def page(
        self, principal: Principal, filters: store.Filters, *, after: tuple[str, str], limit: int
    ) -> tuple[list[str], tuple[str, str] | None]:
        """Objects by kind and name, and where the next page begins. The filter by namespace leads to its tenant."""
        if filters.kind:
            _known_kind(filters.kind)
        tenant = await self._leads_to(principal, filters.kind, filters.namespace)
        filters = within(principal, filters)
        async with self._database.tenant(tenant_id(tenant)) as connection:
            rows = await store.page(connection, filters, after, limit + 1)
            bodies = await self._rollouts.with_status(
                connection, principal, [(row["kind"], row["name"], row["body"]) for row in rows[:limit]]
            )
        last = (rows[limit - 1]["kind"], rows[limit - 1]["name"]) if len(rows) > limit else None
        return [await self._tenants.with_status(row["kind"], row["name"], body) for row, body in zip(rows, bodies, strict=False)], last

    async def everywhere(
        self, principal: Principal, filters: store.Filters, *, after: tuple[str, str, str], limit: int
    ) -> tuple[list[str], tuple[str, str, str] | None]:
        """What one owner has in all tenants, by tenant, kind and name; of those who act in no other, in their own."""
        if filters.manager is None or filters.origin is None:
            raise invalid("namespace", "`*` goes with a manager and an origin: whose objects in all tenants")
        tenants, filters = [principal.tenant], within(principal, filters)
        if principal.may("tenants:act") and filters.within is None:
            # One may have no more of it, and one is to show that there is more.
            tenants = await store.tenants_owned(self._database, filters, after[0], limit + 2)
        found: list[tuple[str, Any, str]] = []
        for tenant in tenants:
            begun = (after[1], after[2]) if tenant == after[0] else ("", "")
            async with self._database.tenant(tenant_id(tenant)) as connection:
                rows = await store.page(connection, filters, begun, limit + 1 - len(found))
                bodies = await self._rollouts.with_status(connection, principal, [(row["kind"], row["name"], row["body"]) for row in rows])
                found += [(tenant, row, body) for row, body in zip(rows, bodies, strict=True)]
            if len(found) > limit:
                break
        last = found[limit - 1] if len(found) > limit else None
        shown = [await self._tenants.with_status(row["kind"], row["name"], body) for _, row, body in found[:limit]]
        return shown, (last[0], last[1]["kind"], last[1]["name"]) if last else None

    async def _leads_to(self, principal: Principal, kind: str | None, namespace: str | None) -> str:
        """The tenant where to look; for those who act in no other, always their own. Raises `Unavailable` where this process would look for
        it in the wrong database."""
        if not principal.may("tenants:act") or not principal.may(READING):
            return principal.tenant
        if kind == "Region":
            return DEFAULT_TENANT
        if namespace is None:
            return principal.tenant
        tenant = (await namespaces.leading(self._database, principal, [namespace])).get(namespace, namespace)
        found = await tenant_store.find_tenant(self._database, tenant)
        if found is not None:  # where it is not, nothing would be found, and that would be no answer
            self._database.expect(found["tenant_id"], found["database"])
        return tenant

    async def manifests(self, principal: Principal, kind: str) -> list[str]:
        """All manifests of a kind, as JSON texts."""
        async with self._database.tenant(principal.tenant_id) as connection:
            return await store.manifests(connection, kind)

    async def delete(self, principal: Principal, kind: str, name: str) -> None:
        """Delete an object that people own. Runs under way go on; a ModelProvider or ToolServer that agents still use stays."""
        if _known_kind(kind) in CLUSTER:
            raise Conflict(
                f"a {kind} can't be deleted through this tenant's API",
                hint="DELETE /v1/tenants/{name}, or `hansa delete tenant`." if kind == "Tenant" else "Cordon it instead.",
            )
        async with self._database.tenant(principal.tenant_id) as connection:
            await lock_tenants(connection, {principal.tenant})
            known = (await store.lock(connection, kind, [name])).get(name)
            known = judge(principal, WRITING, kind, known, unseen=no_object(kind, name))
            ownership.refuse(kind, known, PEOPLE)
            deleting = self._deleting(connection, principal, Unwanted(PEOPLE))
            users = await deleting.users(kind, [name])
            if users:
                raise Conflict(
                    f"agents still use the {kind} {name!r}: {deleting.described(users[name])}", hint="Change or delete these agents first."
                )
            await store.delete(connection, kind, [name])
            deleting.trail.deleted(kind, principal.tenant, known)
            await deleting.trail.record(connection, {principal.tenant})

    async def close_tenant(self, principal: Principal, name: str, *, confirm: str | None, policy: str | None) -> TenantView:
        """Archive or begin to delete a tenant whose object people own, as it says or as `policy` does. Safe to repeat."""
        async with self._deletions.joined(name) as connection:
            if await tenant_store.lock_tenant(connection) is None:
                raise missing(name)
            known = (await store.lock(connection, "Tenant", [name])).get(name)
            if confirm != name:
                raise invalid("confirm", "must be the name of the tenant, so that no other one is deleted by mistake")
            if known is not None:
                ownership.refuse("Tenant", known, PEOPLE)
            event = await self._deletions.close(connection, principal, name, policy=policy)
            if event is not None:
                await self._deletions.recorded(connection, event, principal, name)
        await self._deletions.told([name], principal)
        return await self._tenants.get(name)

    async def take_over(self, principal: Principal, kind: str, name: str, owner: Owner) -> str:
        """Give an object another owner; the object as JSON text. What it says stays as it is."""
        if _known_kind(kind) in CLUSTER and not principal.may("platform:write"):
            raise Forbidden(f"a {kind} needs the permission platform:write", hint="A platform-admin has it.")
        tenant = DEFAULT_TENANT if kind == "Region" else principal.tenant
        identity = tenant_id(tenant)
        async with self._database.tenant(identity) as own, joining(self._database, own, self._database.of(identity)) as connection:
            await enter_place(connection, kind, tenant)
            await tenant_store.lock_tenant(connection)
            known = (await store.lock(connection, kind, [name])).get(name)
            unseen = NotFound(f"there is no {kind} {name!r}", hint="What nobody has applied yet belongs to whoever does so first.")
            known = judge(principal, ownership.PERMISSION, kind, known, unseen=unseen)
            if known.owner != owner:
                await store.take_over(connection, kind, name, owner, by=principal.name)
                if kind == "Tenant":
                    await copy_object(connection, name)
                trail = Trail(principal)
                trail.taken(kind, tenant, known, owner)
                await trail.record(connection, set())
        if kind == "Tenant":
            await self.told(principal, applied=[name])
        return await self._read(principal, tenant, kind, name=name, permission=ownership.PERMISSION)


def within(principal: Principal, filters: store.Filters) -> store.Filters:
    """The filters, for what the caller may read."""
    reach = principal.reach(READING)
    return filters if reach is None else msgspec.structs.replace(filters, within=tuple(sorted(reach)))


def no_object(kind: str, name: str) -> NotFound:
    """What is said of an object that is not there."""
    return NotFound(f"there is no {kind} {name!r}")


def _kind(manifest: Any) -> Any:
    return cast("dict[str, Any]", manifest).get("kind") if isinstance(manifest, dict) else None


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise NotFound(f"there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return kind
