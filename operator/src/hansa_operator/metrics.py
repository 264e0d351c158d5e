"""What Prometheus is told. The one place that knows prometheus_client. `METRICS` has every name with its meaning."""

from collections.abc import Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "hansa_operator_leader": "1 while this process is the leader.",
        "hansa_operator_objects": "Objects known, by kind and by the status of Ready (True, False, Unknown; none: not told yet).",
        "hansa_operator_queue_depth": "Objects that could be reconciled now and are not yet.",
        "hansa_operator_queue_failing": "Objects whose last reconcile failed.",
        "hansa_operator_reconciles_total": "Reconciles by kind and by how they ended: settled, waiting, failed.",
        "hansa_operator_reconcile_seconds": "Seconds that reconciles took, by kind.",
        "hansa_operator_writes_total": "Writes to the API server: finalizer, status, child, event, lease.",
        "hansa_operator_requests_total": "Requests with which objects were applied to the control plane.",
        "hansa_operator_sent_total": "Objects in these requests.",
        "hansa_operator_watch_events_total": "Events of watches, by kind.",
        "hansa_operator_watch_restarts_total": "Times that watches were opened anew because they had missed something or had ended.",
        "hansa_operator_drift_total": "Objects and children that were found otherwise than written, and repaired.",
        "hansa_operator_orphans": "Objects that the control plane has from this cluster and that are not in it any more.",
        "hansa_operator_resync_seconds": "How long the last comparison with everything took.",
    }
)
"""Name -> meaning."""


class Metrics:
    """One set of them; each process has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.leader = self._gauge("hansa_operator_leader")
        self.objects = self._gauge("hansa_operator_objects", "kind", "ready")
        self.queue_depth = self._gauge("hansa_operator_queue_depth")
        self.queue_failing = self._gauge("hansa_operator_queue_failing")
        self.reconciles = self._counter("hansa_operator_reconciles_total", "kind", "end")
        self.writes = self._counter("hansa_operator_writes_total", "what")
        self.requests = self._counter("hansa_operator_requests_total")
        self.sent = self._counter("hansa_operator_sent_total")
        self.watch_events = self._counter("hansa_operator_watch_events_total", "kind")
        self.watch_restarts = self._counter("hansa_operator_watch_restarts_total")
        self.drift = self._counter("hansa_operator_drift_total")
        self.orphans = self._gauge("hansa_operator_orphans")
        self.resync = self._gauge("hansa_operator_resync_seconds")
        name = "hansa_operator_reconcile_seconds"
        buckets = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60)
        self.seconds = Histogram(name, METRICS[name], ("kind",), registry=self._registry, buckets=buckets)

    def page(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self._registry)

    def request(self, objects: int) -> None:
        """A request with so many objects went to the control plane."""
        self.requests.inc()
        self.sent.inc(objects)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(name, METRICS[name], labels, registry=self._registry)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, METRICS[name], labels, registry=self._registry)
