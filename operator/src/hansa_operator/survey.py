"""Looks at everything, again and again: what watches did not tell, what has drifted in the control plane, how it is there, and whether
servers that were away are back. Each look is made from what is now.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from hansa_crds import KINDS, check
from hansa_operator.desk import Desk
from hansa_operator.errors import Away, Missing, OperatorError, Refused
from hansa_operator.intake import Intake
from hansa_operator.model import Found, Key, collection
from hansa_operator.reconciler import LOOKED_AT, Reconciler
from hansa_operator.settings import OperatorSettings
from hansa_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
SEEN = ("Namespace", *KINDS)
"""Kinds that are watched; namespaces and Tenants come before what stands in them."""
OUTAGE_MOST = 30.0


class Survey:
    """`restart()` has all watches opened anew."""

    def __init__(
        self,
        settings: OperatorSettings,
        desk: Desk,
        *,
        intake: Intake,
        queue: WorkQueue,
        reconciler: Reconciler,
        restart: Callable[[], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self._cluster = desk.cluster
        self._platform = desk.platform
        self._index = desk.index
        self._events = desk.events
        self._metrics = desk.metrics
        self._intake = intake
        self._queue = queue
        self._reconciler = reconciler
        self._restart = restart
        self.away: set[str] = set()
        """Servers that were not there when they were asked last."""
        self._outage = asyncio.Event()

    def outage(self, server: str) -> None:
        """A server is away: what has failed by it is tried again when it is back, and not only when its pause is over."""
        if server not in self.away:
            log.warning("%s is away; what is ready stays so, and what is not is tried again when it is back", server)
        self.away.add(server)
        self._outage.set()

    async def load(self) -> None:
        """See all that there is, and what is there no more."""
        for kind in SEEN:
            before = self._held(kind)
            seen: set[Key] = set()
            try:
                async for body in self._cluster.each(collection(kind)):
                    seen.add(Key(kind, body["metadata"].get("namespace", ""), body["metadata"]["name"]))
                    self._intake.seen(kind, body)
            except Missing as error:
                hint = "hansa crds | kubectl apply --server-side -f -"
                raise Refused(error.server, error.status, f"it knows no {kind}; install the definitions: {hint}") from None
            for key in before.keys() - seen:
                self._intake.gone(key)

    async def resync(self) -> None:
        """Compare everything, now and then, for ever."""
        await asyncio.sleep(self._jittered(min(self.settings.resync_seconds, 30.0)))  # the first one soon: what changed while nobody led
        while True:
            started = time.monotonic()
            try:
                await self.load()
                await self.compare()
                self._metrics.resync.set(time.monotonic() - started)
            except OperatorError as error:
                log.warning("the resync was broken off, and begins anew later: %s", error)
            await asyncio.sleep(self._jittered(self.settings.resync_seconds))

    async def compare(self) -> None:
        """Repair what the control plane has otherwise than it is written, tell what it says otherwise than the cluster, go on with what is
        unfinished, and count what it has too much. Each list is read once; who is as it should be is not reconciled."""
        orphans = 0
        for tenant in [key.name for key in self._index.objects if key.kind == "Tenant"]:
            for kind in ("Tenant", *(each.kind for each in KINDS.values() if each.scope == "Namespaced")):
                try:
                    orphans += await self._compare(tenant, kind)
                except Refused as error:
                    log.info("the %ss of tenant %s can't be compared: %s", kind, tenant, error)
                    self._queue.wake(found.key for found in self._here(tenant, kind).values() if kind in LOOKED_AT)
        self._metrics.orphans.set(orphans)
        unfinished = [key for key, found in self._index.objects.items() if self._reconciler.unfinished(found)]
        self._queue.wake(key for key in unfinished if not self._queue.holds(key))

    async def watch_over(self) -> None:
        """Look whether watches are silent: what they should have told, and have not by the next look."""
        late: dict[Key, int] = {}
        while True:
            await asyncio.sleep(self._jittered(self.settings.look_seconds))
            try:
                behind = await self._behind()
            except OperatorError as error:
                log.info("whether watches are silent can't be known now: %s", error)
                continue
            missed = [key for key, version in late.items() if behind.get(key, -2) >= version]
            late = behind
            if missed:
                log.warning("watches have missed %s objects, %s among them, and are opened anew", len(missed), missed[0])
                self._metrics.watch_restarts.inc()
                await self._restart()
                await self._guarded(self.load())
                late = {}

    async def states(self) -> None:
        """Look how tenants are, and what the control plane was not done with."""
        told: dict[str, list[tuple[Any, ...]]] = {}
        while True:
            await asyncio.sleep(self._jittered(self.settings.state_seconds))
            try:
                async for tenant in self._platform.tenants():
                    key = Key("Tenant", "", tenant.name)
                    said = [tuple(each.get(name) for name in ("type", "status", "reason")) for each in tenant.conditions]
                    if key in self._index.objects and told.get(tenant.name, said) != said:
                        self._queue.add(key)
                    told[tenant.name] = said
                for key in self._reconciler.unready():
                    self._queue.add(key)
            except OperatorError as error:
                log.info("how tenants are can't be known now: %s", error)

    async def returns(self) -> None:
        """When a server is back that was away, try again what has failed."""
        pause = 1.0
        while True:
            await self._outage.wait()
            await asyncio.sleep(self._jittered(pause))
            if await self._platform.ready() and await self._reachable():
                log.info("back: %s", ", ".join(sorted(self.away)))
                self.away.clear()
                self._outage.clear()
                # A server that says that it is ready and is not must not be asked by all, each second.
                pause = min(pause * 2, OUTAGE_MOST) if self._queue.failing else 1.0
                self._queue.wake_failed()

    async def _reachable(self) -> bool:
        try:
            await self._cluster.get("/version")
        except Away:
            return False
        except Refused:
            return True
        return True

    async def _compare(self, tenant: str, kind: str) -> int:
        """How many objects the control plane has that are not in the cluster."""
        here = self._here(tenant, kind)
        sent = {name for name, found in here.items() if self._reconciler.sent(found.key) and not found.deleting and not found.disabled}
        there: dict[str, bool] = {}
        async for stored in self._platform.objects(tenant, kind, own=True):
            known = here.get(stored.name)
            there[stored.name] = known is not None and _alike(stored.manifest, known.manifest())
            if known is None or not there[stored.name] or stored.name not in sent:
                continue
            # Who has changed since, or is being worked on, has newer word of it than this.
            if self._index.get(known.key) is known and not self._queue.holds(known.key) and self._reconciler.hear(known, stored):
                self._queue.wake([known.key])
        for name in sent:
            found = here[name]
            if self._index.get(found.key) is not found or not self._reconciler.sent(found.key) or there.get(name):
                continue
            self._metrics.drift.inc()
            what = "had it otherwise than it is written" if name in there else "had it no more, or not as this cluster's"
            self._events.tell(found, "Warning", "DriftCorrected", f"the control plane {what}; it is brought again")
            self._reconciler.forget(found.key)
            self._queue.wake([found.key])
        left = sorted(there.keys() - here.keys())
        if left:
            log.warning(
                "the control plane has %ss of tenant %s that are not in this cluster any more: %s", kind, tenant, ", ".join(left[:20])
            )
        return len(left)

    def _here(self, tenant: str, kind: str) -> dict[str, Found]:
        """The objects of a kind that a tenant has in the cluster, by name; of several of one name that which was sent."""
        if kind == "Tenant":
            keys = [Key("Tenant", "", tenant)]
        else:
            keys = [key for space in self._index.spaces_of(tenant) for key in self._index.within(space) if key.kind == kind]
        keys.sort(key=self._reconciler.sent)
        return {key.name: found for key in keys if (found := self._index.get(key)) is not None}

    async def _behind(self) -> dict[Key, int]:
        """The objects of which something newer is there than was seen: with its version; -1 for those that are gone."""
        found: dict[Key, int] = {}
        for kind in SEEN:
            known = self._held(kind)
            seen: set[Key] = set()
            async for body in self._cluster.each(collection(kind), names_only=True):
                meta = body["metadata"]
                key, version = Key(kind, meta.get("namespace", ""), meta["name"]), int(meta["resourceVersion"])
                seen.add(key)
                if self._held_version(key) < version:
                    found[key] = version
            found |= dict.fromkeys(known.keys() - seen, -1)
        return found

    def _held(self, kind: str) -> dict[Key, int]:
        if kind == "Namespace":
            return {Key(kind, "", name): each.version for name, each in self._index.spaces.items()}
        return {key: found.version for key, found in self._index.objects.items() if key.kind == kind}

    def _held_version(self, key: Key) -> int:
        held: Found | None = self._index.get(key)
        if key.kind == "Namespace":
            space = self._index.spaces.get(key.name)
            return space.version if space is not None else -1
        return held.version if held is not None else -1

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except OperatorError as error:
            log.warning("the cluster can't be looked through now: %s", error)

    def _jittered(self, seconds: float) -> float:
        return seconds * random.uniform(0.9, 1.1)  # noqa: S311


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two manifests mean the same, whatever defaults are written in them. Most are the same to the letter."""
    return one == other or _canonical(one) == _canonical(other)


def _canonical(manifest: dict[str, object]) -> bytes:
    """A manifest as it is whatever defaults are written in it."""
    found, problems = check(manifest)
    return (
        msgspec.json.encode(found, order="sorted") if found is not None and not problems else msgspec.json.encode(manifest, order="sorted")
    )
