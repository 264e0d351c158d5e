"""Deleting objects that an owner no longer has, in the caller's transaction: only its own, in reverse order of their kinds, and never many
without an explicit yes.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import msgspec

from hansa.apply import ownership, sight, store
from hansa.apply.applying import enter_place, lock_tenants
from hansa.apply.auditing import Trail
from hansa.apply.candidates import tenant_of_name
from hansa.apply.model import CLUSTER, ORDER, Applied, Kept, Named, Unwanted
from hansa.apply.narrowing import Judges
from hansa.apply.references import unresolved
from hansa.auth.model import Principal
from hansa.db.pool import Connection, enter_tenant
from hansa.errors import Conflict, FieldError, HansaError
from hansa.plugins.model import Plugins
from hansa.tenants import store as tenant_store
from hansa.tenants.deletion import Deletions
from hansa.tenants.placing import elsewhere
from hansa.tenants.service import tenant_id
from hansa_crds import Agent, ModelProvider

FEW = 10
"""So many objects of a kind are deleted without asking, however few there are."""
PERCENT = 30
"""And so many of a hundred that the owner has."""
USED = ("ModelProvider", "ToolServer")
"""Kinds that agents refer to, and can't do without."""
REGION_STAYS = "the region itself stays, as it was: its processes make it"


class MassDeletion(Conflict):
    """More would be deleted at once than anybody does by intention, and nobody has said that it is meant; nothing is."""

    code, title = "mass_deletion", "Mass deletion"


class Target(msgspec.Struct, frozen=True):
    """An object to be deleted: its place in the request, and where it stands."""

    number: int
    named: Named
    tenant: str


class Deleting:
    """One request. Use `delete` once. Then `trail` has what is to be audited, `changed` the tenants whose objects are others now, and
    `closed` those that were archived or are being deleted, which every process is to be told of."""

    def __init__(
        self, connection: Connection, principal: Principal, asked: Unwanted, *, plugins: Plugins, judges: Judges, deletions: Deletions
    ) -> None:
        self._connection = connection
        self._principal = principal
        self._asked = asked
        self._plugins = plugins
        self._judges = judges
        self._deletions = deletions
        self._results: dict[int, Applied] = {}
        self.trail = Trail(principal)
        self.changed: set[str] = set()
        self.closed: list[str] = []

    async def delete(self) -> tuple[list[Applied], str]:
        """What became of each object, in the order they were named, and what the guard has to say; when it says something and that is not
        allowed, nothing was deleted."""
        names = self._asked.names
        targets = [each for each in map(self._target, range(len(names)), names) if each is not None]
        targets.sort(key=lambda each: (-ORDER.index(each.named.kind), each.tenant, each.named.name))
        away = await lock_tenants(self._connection, {self._principal.tenant, *(each.tenant for each in targets)})
        for each in targets:
            if each.tenant in away:
                self._fail(each.number, each.named, away[each.tenant])
        targets = [each for each in targets if each.tenant not in away]
        groups = groupby(targets, key=lambda each: (each.named.kind, each.tenant))
        standing = [(kind, tenant, await self._standing(kind, tenant, list(group))) for (kind, tenant), group in groups]
        guard = await self._guard(standing)
        if not guard or self._asked.allow_mass:
            for kind, tenant, found in standing:
                await enter_place(self._connection, kind, tenant)
                await self._group(kind, tenant, found)
        return [self._results.get(number, _result(named, "absent")) for number, named in enumerate(names)], guard

    def _target(self, number: int, named: Named) -> Target | None:
        """Where an object stands, if the caller may delete such a one."""
        mine = self._principal.tenant
        if named.kind not in ORDER:
            self._fail(number, named, FieldError("kind", "reference", f"there is no kind {named.kind!r}; the kinds are {', '.join(ORDER)}"))
            return None
        if named.kind in CLUSTER and not self._principal.may("platform:write"):
            text = f"a {named.kind} needs the permission platform:write (role platform-admin)"
            self._fail(number, named, FieldError("kind", "forbidden", text))
            return None
        tenant = tenant_of_name(self._principal, named.kind, named.name, self._asked.leads, namespace=named.namespace)
        if named.kind not in CLUSTER and tenant != mine and not self._principal.may("tenants:act"):
            text = f"this key belongs to tenant {mine!r}; leave namespace out or write that"
            self._fail(number, named, self._outside(named.namespace) or FieldError("namespace", "reference", text))
            return None
        error = self._outside(named.namespace) if tenant == mine and named.kind not in CLUSTER else None
        if error is not None or (tenant != mine and not self._principal.may(sight.WRITING) and named.kind not in CLUSTER):
            self._fail(
                number, named, error or FieldError("kind", "forbidden", f"this needs the permission {sight.WRITING} in every tenant")
            )
            return None
        return Target(number, named, tenant)

    def _outside(self, namespace: str | None) -> FieldError | None:
        """Why the caller may delete nothing in a namespace that it names."""
        return None if namespace is None else sight.outside(self._principal, sight.WRITING, namespace, path="namespace")

    async def _standing(self, kind: str, tenant: str, group: Sequence[Target]) -> list[tuple[Target, Kept]]:
        """Those objects that are there and the owner's own, locked. What is not there is `absent`."""
        await enter_place(self._connection, kind, tenant)
        if kind not in CLUSTER and tenant != self._principal.tenant:
            wrong = elsewhere(self._connection, tenant, await tenant_store.lock_tenant(self._connection))
            for each in group if wrong else ():
                self._fail(each.number, each.named, wrong[0])
            group = [] if wrong else group
        known = await store.lock(self._connection, kind, [each.named.name for each in group])
        found: list[tuple[Target, Kept]] = []
        taken = set[str]()
        for each in group:
            kept = known.get(each.named.name)
            namespace = each.named.namespace
            if kept is None or each.named.name in taken or (kind not in CLUSTER and namespace not in (None, kept.namespace or tenant)):
                continue
            if not sight.is_seen(self._principal, kind, kept):
                continue
            error = sight.untouchable(self._principal, kind, kept, force=False) or ownership.conflict(
                kind, kept, self._asked.owner, tenant=tenant, own=self._principal.tenant
            )
            if error is not None:
                self._fail(each.number, each.named, error)
                continue
            taken.add(each.named.name)
            found.append((each, kept))
        return found

    async def _guard(self, standing: Sequence[tuple[str, str, list[tuple[Target, Kept]]]]) -> str:
        """Why this is not done without an explicit yes; empty: it is."""
        gone = Counter[str]()
        for kind, _, found in standing:
            gone[kind] += len(found)
        told = [f"the {kind} {found[0][1].name!r}" for kind, _, found in standing if kind in CLUSTER and found]
        if any(many > FEW for many in gone.values()):
            have = Counter[str]()
            for tenant in sorted({tenant for _, tenant, _ in standing}):
                await enter_tenant(self._connection, tenant_id(tenant))
                have.update(await store.count(self._connection, self._asked.owner))
            told += [f"{many} of {have[kind]} {kind}s" for kind, many in gone.items() if many > FEW and many * 100 > have[kind] * PERCENT]
        if not told:
            return ""
        return f"{' and '.join(told)} would be deleted; more than {FEW} and {PERCENT} % of a kind, any Tenant and any Region want a yes"

    async def _group(self, kind: str, tenant: str, found: list[tuple[Target, Kept]]) -> None:
        if kind == "Tenant":
            for target, kept in found:
                await self._close(target, kept)
            return
        used = await self.users(kind, [kept.name for _, kept in found])
        for target, kept in found:
            if kept.name in used:
                text = f"agents still use the {kind} {kept.name!r}: {self.described(used[kept.name])}"
                error = FieldError("metadata.name", "in_use", text, "change or delete these agents first")
                self._fail(target.number, target.named, error)
        await self._gone(kind, tenant, [(target, kept) for target, kept in found if kept.name not in used])

    async def _gone(self, kind: str, tenant: str, found: list[tuple[Target, Kept]]) -> None:
        if not found:
            return
        await store.delete(self._connection, kind, [kept.name for _, kept in found])
        self.changed.add(tenant)
        for target, kept in found:
            self.trail.deleted(kind, tenant, kept, commit=self._asked.commit)
            self._tell(target, _result(target.named, "deleted", note=REGION_STAYS if kind == "Region" else ""))

    async def _close(self, target: Target, kept: Kept) -> None:
        """A tenant goes the way that its deletionPolicy says."""
        try:
            event = await self._deletions.close(self._connection, self._principal, kept.name, policy=None)
        except HansaError as error:
            self._fail(target.number, target.named, FieldError("metadata.name", "prevented", error.detail, error.hint or None))
            return
        if event is not None:
            self.trail.add(target.tenant, event, decided=True)
            self.trail.add(self._principal.tenant, event, decided=True)
            self.closed.append(kept.name)
        self._tell(target, _result(target.named, "absent" if event is None else "deleted"))

    def described(self, users: Sequence[Agent]) -> str:
        """Agents by their names, as far as the caller may see them."""
        seen = [each.metadata.name for each in sight.visible(self._principal, users)]
        return ", ".join([*seen, *(["some in namespaces that you may not see"] if len(seen) < len(users) else [])])

    async def users(self, kind: str, names: Sequence[str]) -> dict[str, list[Agent]]:
        """Of ModelProviders or ToolServers of the connection's tenant that are to go one after another, those that can't: the agents that
        each would leave with a reference to nothing. What was missing already is no reason to keep another one."""
        if kind not in USED or not names:
            return {}
        agents = [msgspec.json.decode(text, type=Agent) for text in await store.manifests(self._connection, "Agent")]
        if kind == "ToolServer":
            users = {name: [each for each in agents if any(use.tool_server == name for use in each.spec.tools)] for name in names}
            return {name: found for name, found in users.items() if found}
        texts = await store.manifests(self._connection, "ModelProvider")
        left = {found.metadata.name: found for found in (msgspec.json.decode(text, type=ModelProvider) for text in texts)}

        def lost() -> set[str]:
            flaws = ((agent, unresolved(agent, self._plugins, [*left.values()], [], variables=self._judges.variables)) for agent in agents)
            return {agent.metadata.name for agent, found in flaws if any(each.path.startswith("spec.model") for each in found)}

        before, used = lost(), dict[str, list[Agent]]()
        for name in names:
            gone = left.pop(name)
            if more := lost() - before:
                used[name], left[name] = [each for each in agents if each.metadata.name in more], gone
        return used

    def _fail(self, number: int, named: Named, error: FieldError) -> None:
        self._results[number] = _result(named, "failed", errors=(error,))

    def _tell(self, target: Target, result: Applied) -> None:
        foreign = target.tenant != self._principal.tenant
        self._results[target.number] = msgspec.structs.replace(result, tenant=target.tenant) if foreign else result


def _result(named: Named, action: str, *, note: str = "", errors: tuple[FieldError, ...] = ()) -> Applied:
    return Applied(named.kind, named.name, action, note=note, errors=errors)
