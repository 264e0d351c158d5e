"""Kubernetes Events about objects, for transitions only: told and forgotten. An Event that can't be written holds up nothing."""

import asyncio
import logging
import secrets
from datetime import UTC, datetime

from hansa_crds import API_VERSION
from hansa_operator.cluster import Cluster
from hansa_operator.errors import OperatorError
from hansa_operator.metrics import Metrics
from hansa_operator.model import MANAGER, Found

log = logging.getLogger(__name__)
WAITING = 1000
"""Most Events that wait to be written; further ones are left out, and logged like all."""


class Events:
    """`run` writes what `tell` has taken."""

    def __init__(self, cluster: Cluster, metrics: Metrics, identity: str) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._identity = identity
        self._queue: asyncio.Queue[tuple[str, dict[str, object]]] = asyncio.Queue(WAITING)

    def tell(self, found: Found, type_: str, reason: str, message: str) -> None:
        """Say something about an object, at once in the log and soon in an Event. `type_`: Normal or Warning."""
        log.log(logging.WARNING if type_ == "Warning" else logging.INFO, "%s: %s: %s", found.key, reason, message)
        namespace = found.key.namespace or "default"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        regarding = {"apiVersion": API_VERSION, "kind": found.key.kind, "name": found.key.name, "uid": found.uid}
        if found.key.namespace:
            regarding["namespace"] = found.key.namespace
        body: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{found.key.name}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": regarding,
            "type": type_,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._identity[:128],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._queue.put_nowait((f"/api/v1/namespaces/{namespace}/events", body))
        except asyncio.QueueFull:
            return

    async def run(self) -> None:
        """Write them, for ever."""
        while True:
            path, body = await self._queue.get()
            try:
                await self._cluster.create(path, body)
                self._metrics.writes.labels("event").inc()
            except OperatorError as error:
                # In a namespace that goes, none can be made, and all that stands in it has one to tell.
                level = logging.DEBUG if "being terminated" in str(error) else logging.INFO
                log.log(level, "an Event could not be written: %s", error)
