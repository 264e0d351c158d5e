"""Who is the leader: whoever holds a Lease, which it renews. A standby takes it when it has not been renewed for its duration.

Clocks of several machines are not compared: how long a Lease has stood is counted from when it was first seen as it is. Warning: a leader
that was frozen may act for a moment beside its successor; all that is done is idempotent, and no more is needed.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

from hansa_operator.cluster import Cluster
from hansa_operator.errors import Clash, Missing, OperatorError
from hansa_operator.metrics import Metrics

log = logging.getLogger(__name__)
NAME = "hansa-operator"
TOLD_SECONDS = 60.0
"""How often it is said that the API server is away: it is looked for far more often."""


class Election:
    """One candidate, `identity`. `lasts` and `renew` are seconds: of the lease, and between looks."""

    def __init__(self, cluster: Cluster, metrics: Metrics, *, namespace: str, identity: str, lasts: float, renew: float) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{NAME}"
        self._namespace = namespace
        self._identity = identity
        self._lasts = lasts
        self._renew = renew
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed = 0.0
        self._away_since: float | None = None
        self._told = 0.0

    async def lead(self) -> None:
        """Return when this process is the leader."""
        while not await self._attempt():  # noqa: ASYNC110
            await asyncio.sleep(self._renew)
        self._metrics.leader.set(1)
        log.info("%s is the leader", self._identity)

    async def follow(self) -> None:
        """Go on being the leader; return when it is so no longer, or can't be known to be."""
        try:
            while time.monotonic() - self._renewed < self._lasts * 2 / 3:
                await asyncio.sleep(self._renew)
                if not await self._attempt(standing=True):
                    break
        finally:
            self._metrics.leader.set(0)
        log.warning("%s is the leader no longer", self._identity)

    async def resign(self) -> None:
        """Let a standby take over at once."""
        try:
            async with asyncio.timeout(self._renew):
                lease = await self._cluster.get(self._path)
                if lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._cluster.replace(self._path, lease)
        except (OperatorError, TimeoutError) as error:
            log.info("the Lease was not given back, and runs out: %s", error)

    async def _attempt(self, *, standing: bool = False) -> bool:
        """Renew or take the Lease; whether this process is the leader. `standing`: while the API server is away, it is as before."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._lasts / 3):
                held = await self._take()
        except (Clash, Missing):
            held = False
            if standing:
                return time.monotonic() - self._renewed < self._lasts * 2 / 3
        except (OperatorError, TimeoutError) as error:
            self._away(str(error) or "no answer in time")
            return standing
        if self._away_since is not None:
            log.info("the Lease can be looked at again, after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None
        if held:
            self._renewed = started
            self._metrics.writes.labels("lease").inc()
        return held

    def _away(self, why: str) -> None:
        """Say that the Lease can't be had, at first and then each minute."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        elif now - self._told < TOLD_SECONDS:
            return
        self._told = now
        log.warning("the Lease can't be renewed or looked at now, since %.0f s: %s", now - self._away_since, why)

    async def _take(self) -> bool:
        try:
            lease = await self._cluster.get(self._path)
        except Missing:
            meta = {"name": NAME, "namespace": self._namespace}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": self._spec({})}
            await self._cluster.create(self._collection, lease)
            return True
        spec: dict[str, Any] = lease.get("spec") or {}
        version = str(lease["metadata"]["resourceVersion"])
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        lasts = float(spec.get("leaseDurationSeconds") or 0)
        stands = spec.get("holderIdentity") and time.monotonic() - self._seen[1] < lasts
        if spec.get("holderIdentity") != self._identity and stands:
            return False
        await self._cluster.replace(self._path, {**lease, "spec": self._spec(spec)})
        return True

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._lasts)),
            "acquireTime": before.get("acquireTime") if mine else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if mine else 1),
        }
