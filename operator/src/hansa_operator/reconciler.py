"""What is done for one object: `reconcile(key)`, from what is now and not from what happened, in steps each of which may be the last.

Idempotent: called twice, late, or after having been killed anywhere, it ends where one call would have. Knows nothing of kopf.
"""

import logging
from typing import Any

import msgspec

from hansa_operator.cluster import SERVER as CLUSTER
from hansa_operator.conditions import Verdict, ready
from hansa_operator.credentials import Credentials
from hansa_operator.desk import Desk
from hansa_operator.errors import Away, Clash, Denied, Missing, OperatorError, Refused
from hansa_operator.index import needs
from hansa_operator.judging import RETRY_SECONDS, Judgement, refused, taken, with_more
from hansa_operator.leaving import Leaving
from hansa_operator.model import REQUESTED_AT, Found, Key, found_of, inner
from hansa_operator.platform import Result, Stored
from hansa_operator.tenancy import Tenancy
from hansa_operator.writer import Writer

log = logging.getLogger(__name__)
LOOKED_AT = ("Agent", "ToolServer", "Tenant")
"""Kinds of which the control plane knows more than what was written."""


class Known(msgspec.Struct):
    """What is known of an object in this process. `wanted`: what the control plane should have of it, and in which tenant; `sent`: what it
    has. `judged`: it has a verdict; `unready`: the control plane was not done with it, or not content. `heard`: how it is there, until the
    next reconcile."""

    wanted: tuple[Any, ...] | None = None
    sent: tuple[Any, ...] | None = None
    result: Result = Result()
    judged: bool = False
    unready: bool = False
    heard: Stored | None = None


class Reconciler:
    """See the module."""

    def __init__(self, desk: Desk, writer: Writer, tenancy: Tenancy, credentials: Credentials) -> None:
        self._cluster = desk.cluster
        self._platform = desk.platform
        self._index = desk.index
        self._wake = desk.wake
        self._outage = desk.outage
        self._writer = writer
        self._tenancy = tenancy
        self._credentials = credentials
        self._leaving = Leaving(desk, writer, tenancy, credentials)
        self.known: dict[Key, Known] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Do what there is to do; the seconds after which to look again, or None. Raises what is to be tried again."""
        found = self._index.get(key)
        if found is None:
            self.known.pop(key, None)
            return None
        try:
            return await self._reconcile(found)
        except OperatorError as error:
            if isinstance(error, Missing | Clash) and error.server == CLUSTER:
                return await self._look_again(key)
            await self._failed(found, error)
            raise

    def sent(self, key: Key) -> bool:
        """Whether the control plane has an object as it was last written, as far as is known."""
        known = self.known.get(key)
        return known is not None and known.sent is not None

    def forget(self, key: Key) -> None:
        """Have an object sent again, whatever is known of it."""
        found = self.known.get(key)
        if found is not None:
            found.sent = None

    def unfinished(self, found: Found) -> bool:
        """Whether an object was not brought as it is now, or is on its way out."""
        known = self.known.get(found.key)
        return found.deleting or not found.held or known is None or known.sent is None or known.sent[:-1] != _written(found)

    def hear(self, found: Found, stored: Stored) -> bool:
        """Take in how an object that was sent is in the control plane; whether there is anything to do about that, which `reconcile` then
        does without asking for it once more. What a Tenant has in the cluster, and a Secret that is named, only a reconcile sees."""
        known = self.known.get(found.key)
        if known is None or known.sent is None or found.key.kind not in LOOKED_AT:
            return False
        fields = {"tenant": known.sent[-1]} if found.key.namespace else {}
        verdict = taken(found, known.result, stored.status, fields=fields).verdict
        more = found.key.kind == "Tenant" or bool(inner(found.spec_value(), "credentials").get("secret"))
        known.heard = stored if more or self._writer.news(found, verdict) else None
        return known.heard is not None

    def unready(self) -> list[Key]:
        """The objects that the control plane was not done with, or not content with, and that may be looked at again at no cost."""
        return [key for key, known in self.known.items() if known.unready and known.sent is not None]

    async def _reconcile(self, found: Found) -> float | None:
        if found.deleting:
            gone = await self._leaving.leave(found)
            if gone is None:
                self._left(found)
            return gone
        if found.disabled:
            return await self._leave_alone(found)
        known = self.known.setdefault(found.key, Known())
        heard, known.heard = known.heard, None
        tenant = "" if not found.key.namespace else self._place(found)
        if tenant is None:
            return None  # the verdict on its Tenant wakes it
        if isinstance(tenant, Verdict):
            known.sent, known.judged = None, True
            await self._nobodys(found, tenant)
            return None
        known.wanted = wanted = (*_written(found), tenant)
        if known.sent is None and not known.judged and self._settled(found, tenant):
            known.sent, known.judged = wanted, True  # as it was when this process began: the next resync looks whether it is so
            self._credentials.follow(found)
            return None
        spec = found.spec_value()
        words = needs(found.key.kind, spec)
        news = known.sent != wanted or not known.judged
        if known.sent != wanted:
            pending = [word for word in words if self._pending(tenant, word)]
            if pending:
                self._index.wait(found.key, tenant, pending)
                return None
        judgement = await self._bring(found, tenant, words, known=known, heard=heard)
        return await self._conclude(found, tenant, words, judgement, news=news)

    async def _conclude(self, found: Found, tenant: str, words: frozenset[str], judgement: Judgement, *, news: bool) -> float | None:
        """Tell what was found out, and wake those who waited for it. `news`: it was brought now, or has its first verdict."""
        known = self.known.setdefault(found.key, Known())
        if judgement.verdict.reason == "ReferenceNotFound":
            self._index.wait(found.key, tenant, words)
        after = self._index.get(found.key)
        if after is not None and after.uid == found.uid:
            news = await self._writer.tell(after, judgement.verdict, generation=found.generation) is not after or news
        if found.key.kind == "Tenant" and news:  # only now its status says whose its namespaces are
            self._wake(key for name in self._tenancy.names(found) for key in self._index.within(name) if not self.sent(key))
        if not known.judged or judgement.verdict.ready == "True":
            self._wake(self._index.waiting(tenant, self._index.brings(found.key)))
        known.judged, known.unready = True, judgement.taken and judgement.verdict.ready != "True"
        if known.unready and found.key.kind == "ToolServer":
            known.sent = None  # only applying it again has its tools asked for again
            return RETRY_SECONDS
        return judgement.after

    async def _bring(self, found: Found, tenant: str, words: frozenset[str], *, known: Known, heard: Stored | None) -> Judgement:
        """The steps, each only if the one before it has succeeded. `heard`: how it is in the control plane, if that is known already."""
        key, wanted = found.key, known.wanted
        if key.kind == "Tenant":
            objection = self._tenancy.objection(found)
            if objection is not None:
                known.sent = None
                return Judgement(objection)
        if known.sent != wanted:
            missing = await self._missing_agents(tenant, words)
            if missing:
                text = f"there is no agent {', '.join(missing)} in tenant {tenant}"
                return Judgement(Verdict("False", "ReferenceNotFound", text, progressing=True), RETRY_SECONDS)
        found = await self._writer.hold(found)
        await self._leave_old_tenant(found, tenant)
        fields: dict[str, Any] = {"tenant": tenant} if key.namespace else {}
        more = await self._credentials.copy(found, tenant, fields)
        if known.sent != wanted:
            result = await self._platform.apply(found.manifest())
            if result.action == "failed":
                known.sent = None
                return with_more(_with_fields(refused(result), fields), *more)
            if key.namespace and (result.tenant or self._platform.home) != tenant:
                text = f"the control plane took it for tenant {result.tenant or self._platform.home!r}, and its namespace is {tenant!r}'s"
                return Judgement(Verdict("False", "TakenOver", text, stalled=True), RETRY_SECONDS)
            known.sent, known.result, heard = wanted, result, None
        else:
            result = msgspec.structs.replace(known.result, status=None)
        if key.kind == "Tenant":
            more = (*more, await self._tenancy.provide(found))
            fields["namespaces"] = list(self._tenancy.names(found))
        status = result.status
        if status is None and key.kind in LOOKED_AT:
            stored = heard or await self._platform.look(tenant or key.name, key.kind, key.name)  # a tenant's own object is its own
            status = stored.status if stored is not None else None
        return with_more(taken(found, result, status, fields=fields), *more)

    # --------------------------------------------------------------------------------------------------- where it belongs

    def _place(self, found: Found) -> str | Verdict | None:
        """The tenant whose an object is; or why it is nobody's yet; None: its Tenant has no verdict yet."""
        key = found.key
        holder = self._index.holder(key.namespace)
        if holder is None:
            text = (
                f"no Tenant claims the namespace {key.namespace}: one has to list it in spec.namespaces, or to have its name and list none"
            )
            return Verdict("False", "NamespaceUnclaimed", text, progressing=True)
        if key.namespace not in (holder.status_value().get("namespaces") or ()):
            if not self._judged(holder.key):
                return None
            return Verdict("False", "DependencyNotReady", f"the Tenant {holder.key.name} is not there yet", progressing=True)
        first = self._index.first(key)
        if first != key:
            text = f"the tenant {holder.key.name} has one of this name already, in namespace {first.namespace}; give this one another name"
            return Verdict("False", "NameTaken", text, stalled=True, fields={"tenant": None})
        return holder.key.name

    def _settled(self, found: Found, tenant: str) -> bool:
        """Whether the object's own status says that all is done: then a process that has just begun has nothing to do for it."""
        status = found.status_value()
        said = ready(status)
        return (
            found.held
            and said is not None
            and said.status == "True"
            and said.reason != "Disabled"
            and status.get("observedGeneration") == found.generation
            and status.get("tenant", "") == tenant
            and status.get("lastHandledReconcileAt", "") == found.notes.get(REQUESTED_AT, "")
            and (found.key.kind != "Tenant" or self._tenancy.objection(found) is None)
        )

    def _pending(self, tenant: str, word: str) -> bool:
        """Whether what is needed is about to come: it is here, and has no verdict yet."""
        brought = [] if word.startswith("agent ") else self._index.bringing(tenant, word)
        return bool(brought) and not any(self._judged(key) for key in brought)

    def _judged(self, key: Key) -> bool:
        known, found = self.known.get(key), self._index.get(key)
        return (known is not None and known.judged) or (found is not None and ready(found.status_value()) is not None)

    async def _missing_agents(self, tenant: str, words: frozenset[str]) -> list[str]:
        names = [word.removeprefix("agent ") for word in words if word.startswith("agent ") and not self._index.bringing(tenant, word)]
        return [name for name in sorted(names) if await self._platform.look(tenant, "Agent", name) is None]

    async def _leave_old_tenant(self, found: Found, tenant: str) -> None:
        """A namespace may have come to another tenant: what the one before has of its objects goes."""
        before = str(found.status_value().get("tenant", ""))
        if found.key.namespace and before and before != tenant:
            await self._platform.delete(before, found.key.kind, found.key.name)

    # ------------------------------------------------------------------------------------------------- what else happens

    async def _nobodys(self, found: Found, verdict: Verdict) -> None:
        """The object is brought to no tenant, and to that of its namespace least of all."""
        holder = self._index.holder(found.key.namespace)
        if verdict.reason == "NameTaken" and holder is not None:
            await self._leave_old_tenant(found, holder.key.name)
        await self._writer.tell(found, verdict)

    async def _leave_alone(self, found: Found) -> None:
        status = found.status_value()
        said = ready(status)
        text = "the annotation hansa.dev/reconcile: disabled is set: changes of it are not brought to the control plane"
        observed = int(status.get("observedGeneration", -1))
        self.forget(found.key)
        await self._writer.tell(found, Verdict(said.status if said else "Unknown", "Disabled", text), generation=max(observed, 0))

    def _left(self, found: Found) -> None:
        """An object is on its way out for good: who stood in its shadow, or behind it, may go on."""
        self.known.pop(found.key, None)
        self._credentials.unfollow(found.key)
        self._wake(self._index.rivals(found.key))
        self._wake(self._leaving.refused)

    async def _look_again(self, key: Key) -> float | None:
        """The object is not what was seen: see what it is."""
        try:
            seen = found_of(key.kind, await self._cluster.get(key.path))
        except Missing:
            gone = self._index.remove(key)
            if gone is not None:
                self._left(gone)
            return None
        self._index.put(seen)
        return 0.05

    async def _failed(self, found: Found, error: OperatorError) -> None:
        """Have the status say why it does not go on, unless all that is written was brought before."""
        if isinstance(error, Away) and not error.busy:
            self._outage(error.server)
        known = self.known.setdefault(found.key, Known())
        if not known.judged:
            known.judged = True
            self._wake(self._index.waiting(str(found.status_value().get("tenant", "")), self._index.brings(found.key)))
            if found.key.kind == "Tenant":
                self._wake(key for name in self._tenancy.names(found) for key in self._index.within(name))
        if (not found.held) if found.deleting else (known.sent is not None and known.sent == known.wanted):
            return
        if isinstance(error, Away) and error.busy and error.server == CLUSTER:
            return  # it has too much to do already, and is asked for nothing more before its time
        reason = "Forbidden" if isinstance(error, Denied) else "ClusterUnavailable"
        server = error.server if isinstance(error, Away | Refused) else CLUSTER
        if not isinstance(error, Denied) and server != CLUSTER:
            reason = "ControlPlaneUnavailable"
        now = self._index.get(found.key)
        said = ready(now.status_value()) if now is not None else None
        if now is None or (isinstance(error, Away) and said is not None and said.reason == reason):
            return
        status = "Unknown" if said is None or said.status == "Unknown" else said.status
        text = f"not deleted yet: {error}" if found.deleting else str(error)
        verdict = Verdict(status, reason, text, progressing=True, stalled=isinstance(error, Denied))
        observed = int(now.status_value().get("observedGeneration", -1))
        try:
            await self._writer.tell(now, verdict, generation=max(observed, 0))
        except OperatorError as second:
            log.info("%s: the status could not be written: %s", found.key, second)


def _written(found: Found) -> tuple[Any, ...]:
    """What of an object the control plane is given, and what says that it is given it once more."""
    return found.uid, found.generation, dict(found.labels), found.notes.get(REQUESTED_AT, "")


def _with_fields(judgement: Judgement, fields: dict[str, Any]) -> Judgement:
    return msgspec.structs.replace(judgement, verdict=msgspec.structs.replace(judgement.verdict, fields=fields))
