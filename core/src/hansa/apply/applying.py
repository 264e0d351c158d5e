"""Applying the objects of one request, in the caller's transaction: owned, resolved and written, those of a kind and tenant together.

Each is refused by itself. Everything is read once for all objects of a kind and tenant, and written once.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby

import msgspec

from hansa.apply import ownership, sight, store
from hansa.apply.auditing import Trail
from hansa.apply.authority import keep_applier, narrowed
from hansa.apply.candidates import Candidate, candidates, forbidden, refused
from hansa.apply.changes import changes
from hansa.apply.judging import refusals, surroundings
from hansa.apply.model import CLUSTER, Applied, Asked, Kept, KnownServer, ToolServerStatus
from hansa.apply.namespaces import claim
from hansa.apply.narrowing import Judges, turned
from hansa.apply.rollout.service import Rollouts, begin
from hansa.apply.secrets import missing_secret
from hansa.auth.identity import keep_issuers
from hansa.auth.model import Principal
from hansa.db.pool import Connection, enter_each, enter_platform, enter_tenant, has_own
from hansa.errors import FieldError, Invalid, Unavailable
from hansa.plugins.model import Plugins
from hansa.tenants import store as tenant_store
from hansa.tenants.messaging import store as messaging_store
from hansa.tenants.placing import copy_object, elsewhere, misplaced
from hansa.tenants.service import closed, tenant_id
from hansa_crds import Agent, Region, Tenant, ToolServer


class Prepared(msgspec.Struct, frozen=True):
    """An object that may be written: as it was, if it was there, and as it shall be."""

    candidate: Candidate
    known: Kept | None
    row: store.Row
    own: bool = True

    @property
    def same(self) -> bool:
        """Whether it is there as it shall be, and whose it shall be."""
        return self.known is not None and self.known.digest == self.row.digest and self.own


class Applying:
    """One request. Use `apply` once. Then `trail` has what is to be audited, and `changed` the tenants whose objects are others now."""

    def __init__(
        self, connection: Connection, principal: Principal, asked: Asked, *, plugins: Plugins, judges: Judges, rollouts: Rollouts
    ) -> None:
        self._connection = connection
        self._principal = principal
        self._asked = asked
        self._plugins = plugins
        self._judges = judges
        self._rollouts = rollouts
        self.trail = Trail(principal)
        self.changed: set[str] = set()
        self._results: dict[int, Applied] = {}

    async def apply(self) -> list[Applied]:
        """What became of each object, in the order they were sent."""
        good, self._results = candidates(self._principal, self._asked.items, self._asked.leads.tenants)
        allowed = [each for each in good if not self._is_forbidden(each)]
        tenants = [each.found for each in allowed if isinstance(each.found, Tenant)]
        away = await lock_tenants(self._connection, {self._principal.tenant, *(each.tenant for each in allowed)}, tenants)
        for each in allowed:
            if each.tenant in away:
                self._refuse(each, (away[each.tenant],))
        near = [each for each in allowed if each.tenant not in away]
        for (kind, tenant), group in groupby(near, key=lambda each: (each.kind, each.tenant)):
            await enter_place(self._connection, kind, tenant)
            await self._group(kind, tenant, list(group))
        return [self._results[number] for number in range(len(self._asked.items))]

    def _is_forbidden(self, candidate: Candidate) -> bool:
        error = forbidden(self._principal, candidate)
        if error is None:
            return False
        self._refuse(candidate, (error,))
        self.trail.refused(candidate.found, candidate.tenant, error.message)
        return True

    def _refuse(self, candidate: Candidate, errors: tuple[FieldError, ...]) -> None:
        self._tell(candidate, refused(candidate.item, errors))

    def _tell(self, candidate: Candidate, result: Applied) -> None:
        foreign = candidate.tenant != self._principal.tenant
        self._results[candidate.number] = msgspec.structs.replace(result, tenant=candidate.tenant) if foreign else result

    async def _group(self, kind: str, tenant: str, group: list[Candidate]) -> None:
        """Objects of one kind in one tenant, that of the connection."""
        group = await self._open(kind, tenant, group)
        if kind == "Region":
            # It takes effect before it is written: of two that make one, the second waits here, and then sees it. Tenants are held already.
            await store.hold(self._connection, kind, [each.name for each in group])
        known = await store.lock(self._connection, kind, [each.name for each in group])
        owned = [each for each in group if self._is_owned(each, known.get(each.name))]
        around = await surroundings(self._connection, self._principal, kind, owned)
        admitted = await self._admission(kind, owned, known)
        ready: list[Prepared] = []
        for each in owned:
            before = known.get(each.name)
            errors = admitted(each) or refusals(each.found, around, self._plugins, self._judges)
            errors = errors or turned(each.found, before.manifest if before else None) or await self._effects(each)
            if errors:
                self._refuse(each, errors)
                continue
            ready.append(self._prepared(each, before))
        await self._write(kind, tenant, ready)

    async def _open(self, kind: str, tenant: str, group: list[Candidate]) -> list[Candidate]:
        """Those whose tenant is there and takes objects, and whose namespace leads to it."""
        field = "metadata.name" if kind == "Tenant" else "metadata.namespace"
        named = any(each.namespace != tenant for each in group)  # what they lead to is not dropped meanwhile: who does so holds the tenant
        held = tenant != self._principal.tenant or kind == "Tenant" or named
        found = await tenant_store.lock_tenant(self._connection) if held else None
        errors: tuple[FieldError, ...] = ()
        if found is None and tenant != self._principal.tenant and kind != "Tenant":
            text = f"there is no tenant {tenant!r}; its Tenant object makes it, or another one claims the namespace in spec.namespaces"
            errors = (FieldError(field, "reference", text),)
        elif found is not None and found["state"] != "active":
            errors = (FieldError(field, "closed", closed(tenant, found["state"]).detail, closed(tenant, found["state"]).hint),)
        elif kind != "Tenant":
            errors = elsewhere(self._connection, tenant, found)
        for each in group if errors else ():
            self._refuse(each, errors)
        if errors or not named or kind in CLUSTER:
            return [] if errors else group
        leading = {tenant, *await store.namespaces(self._connection)}
        for each in group:
            if each.namespace not in leading:
                text = f"the namespace {each.namespace!r} does not lead to tenant {tenant!r}: name it in spec.namespaces of that Tenant"
                self._refuse(each, (FieldError("metadata.namespace", "reference", text),))
        return [each for each in group if each.namespace in leading]

    def _is_owned(self, candidate: Candidate, known: Kept | None) -> bool:
        if known is None:
            return True
        error = sight.untouchable(self._principal, candidate.kind, known, force=self._asked.force)
        if error is None and not self._asked.force:
            error = self._conflict(candidate, known) or ownership.elsewhere(
                candidate.kind, known, candidate.namespace, tenant=candidate.tenant
            )
        if error is not None:
            self._refuse(candidate, (error,))
        return error is None

    def _conflict(self, candidate: Candidate, known: Kept) -> FieldError | None:
        return ownership.conflict(candidate.kind, known, self._asked.owner, tenant=candidate.tenant, own=self._principal.tenant)

    async def _admission(self, kind: str, group: list[Candidate], known: dict[str, Kept]) -> Callable[[Candidate], tuple[FieldError, ...]]:
        """Says whether there is room for one more agent; those that are let in count."""
        new = {each.name for each in group if each.name not in known} if kind == "Agent" else set[str]()
        quota = await tenant_store.agents_left(self._connection) if new else None
        if quota is None:
            return lambda _: ()
        have, most = quota

        def admit(candidate: Candidate) -> tuple[FieldError, ...]:
            nonlocal have
            if candidate.name not in new:
                return ()
            if have >= most:
                text = f"the tenant has {have} agents and may have {most} (quotas.agents of the Tenant); delete one, or raise it"
                return (FieldError("metadata.name", "quota", text),)
            have += 1
            return ()

        return admit

    async def _effects(self, candidate: Candidate) -> tuple[FieldError, ...]:
        """Make what a Region or a Tenant says so, whole or not at all; what is wrong with it."""
        found, connection = candidate.found, self._connection
        match found:
            case Region():
                spec = found.spec
                name = found.metadata.name
                if await tenant_store.update_region(connection, name, display_name=spec.display_name, cordoned=spec.cordoned):
                    return ()
                return (FieldError("metadata.name", "reference", f"there is no region {name!r}"),)
            case Tenant():
                identity = tenant_id(found.metadata.name)
                wrong = misplaced(connection, found, await tenant_store.lock_tenant(connection))
                if wrong:
                    return wrong
                try:
                    async with connection.transaction():
                        async for _ in enter_each(connection, identity):
                            await tenant_store.ensure_tenant(
                                connection, identity, found.metadata.name, database=found.spec.isolation.database
                            )
                            await claim(connection, found, self._asked.leads.claimed)
                            await tenant_store.update_tenant(connection, found.spec)
                            await tenant_store.set_budget(connection, found.spec.quotas)
                        await enter_platform(connection, identity)
                        await messaging_store.set_account(connection, identity, found.spec)
                        await keep_issuers(connection, identity, found.spec.identity)
                except Invalid as error:
                    await enter_platform(connection, identity)
                    return error.errors
                return ()
            case _:
                return ()

    def _prepared(self, candidate: Candidate, known: Kept | None) -> Prepared:
        manifest = msgspec.json.encode(candidate.found, order="sorted")
        source = msgspec.json.encode(candidate.item.source).decode() if candidate.item.source else None
        row = store.Row(candidate.name, manifest.decode(), digest(manifest), source)
        return Prepared(candidate, known, row, known is None or known.owner == self._asked.owner)

    async def _write(self, kind: str, tenant: str, ready: list[Prepared]) -> None:
        asked = self._asked
        changed = [each.row for each in ready if not each.same]
        who = {"commit": asked.commit, "applied_by": self._principal.name}
        written = await store.write(self._connection, kind, changed, asked.owner, **who, force=asked.force) if changed else {}
        moved = {each.row.name: each.row.source for each in ready if each.same and each.row.source and _moved(each)}
        if moved:
            await store.move(self._connection, kind, moved, **who)
        lost = {each.row.name for each in ready if not each.same} - written.keys()
        if lost:
            await self._lose(kind, [each.candidate for each in ready if each.row.name in lost])
        ready = [each for each in ready if each.row.name not in lost]
        if written:
            self.changed.add(tenant)
        revisions = await self._agents(tenant, ready) if kind == "Agent" and ready else {}
        for each in ready:
            await self._finish(each, tenant, written.get(each.row.name), revisions.get(each.row.name))
        if kind == "Agent" and not self._asked.explain:  # of what is only planned nothing stands yet
            await self._told([each.candidate for each in ready])

    async def _told(self, agents: Sequence[Candidate]) -> None:
        """Add to what is answered of agents how they stand now."""
        told = await self._rollouts.told(self._connection, self._principal, [each.name for each in agents])
        for each in agents:
            result, (status, note) = self._results[each.number], told[each.name]
            self._results[each.number] = msgspec.structs.replace(result, status=status, note="; ".join(filter(None, (result.note, note))))

    async def _lose(self, kind: str, group: list[Candidate]) -> None:
        """Another owner was quicker, by less than this transaction."""
        known = await store.lock(self._connection, kind, [each.name for each in group])
        for each in group:
            kept = known.get(each.name)
            error = kept and (sight.untouchable(self._principal, kind, kept, force=False) or self._conflict(each, kept))
            self._refuse(each, (error or FieldError("metadata.name", "conflict", "somebody else changed it at this moment: try again"),))

    async def _agents(self, tenant: str, ready: Sequence[Prepared]) -> dict[str, int]:
        """Keep revisions of agents, and whose rights their runs have: name -> newest revision."""
        names = [each.row.name for each in ready]
        newest = await store.revisions(self._connection, names)
        added: list[tuple[str, int, bytes, str]] = []
        changed: list[tuple[Agent, int]] = []
        checked: list[tuple[Agent, int]] = []
        found: dict[str, int] = {}
        for each in ready:
            agent = each.candidate.found
            if not isinstance(agent, Agent):
                continue
            number, known, namespace = newest.get(each.row.name, (0, b"", None))
            spec = digest(msgspec.json.encode(agent.spec, order="sorted"))
            # What stood in another namespace is another agent's past there, however alike the two are.
            if spec != known or (namespace or tenant) != each.candidate.namespace:
                number += 1
                added.append((each.row.name, number, spec, each.row.manifest))
            found[each.row.name] = number
            if not each.same:
                (changed if agent.spec.rollout is None else checked).append((agent, number))
        if added:
            await store.add_revisions(self._connection, added)
        if changed:
            await store.agents_changed(self._connection, changed)
        for agent, number in checked:
            await begin(self._connection, agent, number)
        await store.place_agents(self._connection, {each.row.name: each.candidate.namespace for each in ready})
        if await keep_applier(self._connection, self._principal, names):
            self.changed.add(tenant)
        return found

    async def _finish(self, each: Prepared, tenant: str, generation: int | None, revision: int | None) -> None:
        """What is answered and audited for an object that is written."""
        found, known = each.candidate.found, each.known
        before = None if known is None else known.manifest
        action = "unchanged" if generation is None else "created" if known is None and generation == 1 else "configured"
        notes: list[str] = []
        if known is not None and not each.own:
            notes.append(f"taken over from {ownership.described(known)}")
            self.trail.taken(each.candidate.kind, tenant, known, self._asked.owner)
        if isinstance(found, Tenant) and generation is not None:
            await tenant_store.set_generation(self._connection, generation)
        if isinstance(found, Tenant):
            await copy_object(self._connection, found.metadata.name)
        if action == "created" or (known is not None and known.digest != each.row.digest):
            self.trail.applied(found, tenant, before, action=action)
        if isinstance(found, Agent):
            notes.append(narrowed(self._principal, found))
        said = self._asked.discovered.get((tenant, found.metadata.name))
        if isinstance(found, ToolServer) and said is not None:
            self.changed.add(tenant)
            notes.append(await self._keep_status(found, said, same=action == "unchanged"))
        notes.append(await missing_secret(self._connection, found))
        told = changes(before, each.row.manifest.encode()) if self._asked.explain and action == "configured" else ()
        generation = generation if generation is not None else known.generation if known is not None else None
        note = "; ".join(filter(None, notes))
        self._tell(each.candidate, Applied(each.candidate.kind, found.metadata.name, action, generation, revision, note, changes=told))

    async def _keep_status(self, server: ToolServer, status: ToolServerStatus, *, same: bool) -> str:
        """Keep what the server said, and the tools it last named while it is the same server and can't be reached."""
        name = server.metadata.name
        if not status.reachable and same:
            (text,) = await store.tool_servers(self._connection, [name])
            before = msgspec.json.decode(text, type=KnownServer).status
            if before is not None:
                status = msgspec.structs.replace(status, protocol=before.protocol, tools=before.tools, left_out=before.left_out)
        await store.set_status(self._connection, "ToolServer", name, status=msgspec.json.encode(status).decode())
        return "" if status.reachable else f"not reachable: {status.reason}"


async def lock_tenants(connection: Connection, tenants: set[str], made: Sequence[Tenant] = ()) -> dict[str, FieldError]:
    """Take the rows of tenants before all else, in one order, with their objects' locks inside: who changes the same at once waits here,
    and never for somebody who waits for him. `made`: Tenants that the request applies, there or not. Those whose own database is away, and
    what is said of them."""
    away: dict[str, FieldError] = {}
    names = sorted({each.metadata.name for each in made})
    if names:
        await enter_platform(connection, tenant_id(names[0]))
        if len(names) > 1 or any(each.spec.namespaces for each in made):
            # What one drops another one claims: they are not taken in the order of anything.
            await store.hold(connection, "Namespace", ["*"])
        await store.hold(connection, "Tenant", names)
    if len(tenants) == 1 and not names:  # what the platform keeps of it is not changed
        await enter_tenant(connection, tenant_id(min(tenants)))
        await tenant_store.lock_tenant(connection)
        return away
    for tenant in sorted(tenants):
        try:
            async for _ in enter_each(connection, tenant_id(tenant)):
                await tenant_store.lock_tenant(connection)
        except Unavailable as error:
            if not has_own(connection, tenant_id(tenant)):
                raise
            away[tenant] = FieldError("metadata.namespace", "unavailable", error.detail)
    return away


async def enter_place(connection: Connection, kind: str, tenant: str) -> None:
    """Go where objects of a kind of a tenant are: Tenants and Regions are in the platform's database, whoever has one of their own."""
    await (enter_platform if kind in CLUSTER else enter_tenant)(connection, tenant_id(tenant))


def digest(text: bytes) -> bytes:
    """What two manifests are told apart by."""
    return hashlib.sha256(text).digest()


def _moved(each: Prepared) -> bool:
    """Whether an object that is as it was stands at another place now, so that the commit that is kept would not have it there."""
    return each.known is not None and each.known.source != each.row.source
