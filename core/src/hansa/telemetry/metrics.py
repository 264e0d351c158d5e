"""What Prometheus is told of a control plane or a worker. The one place of core that knows prometheus_client. `METRICS` has every name with
its meaning.

Warning: whoever reads them sees all tenants' together. So no label says whose something is: no tenant, agent, run, session or key.
"""

from collections.abc import Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "hansa_requests_total": "Requests by method, route (as the OpenAPI document writes it; none: there is no such route) and class of "
        "the status, as in 2xx.",
        "hansa_request_seconds": "Seconds until the answer of a request began, by route.",
        "hansa_runs_claimed_total": "Runs that the worker has claimed, those that it claimed again too.",
        "hansa_runs_in_flight": "Runs that the worker drives now.",
        "hansa_outbox_messages": "Messages that wait to be delivered, in all databases that answer; 100000: so many or more in one.",
    }
)
"""Name -> meaning."""
METHODS = frozenset(("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"))
"""A caller may send any word as a method."""
OTHER = "_OTHER"
"""What OpenTelemetry calls each of these others, too."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)


class Metrics:
    """One set of them; each process has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("hansa_requests_total", "method", "route", "status")
        name = "hansa_request_seconds"
        self._seconds = Histogram(name, METRICS[name], ("route",), registry=self._registry, buckets=BUCKETS)
        self._samples: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.claimed = self._counter("hansa_runs_claimed_total")
        self.running = self._gauge("hansa_runs_in_flight")
        self.outbox = self._gauge("hansa_outbox_messages")

    def page(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self._registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is a template: never what stood in its place."""
        key = method, route, status // 100
        samples = self._samples.get(key)
        if samples is None:  # looking labels up takes longer than counting
            known = method if method in METHODS else OTHER
            samples = self._requests.labels(known, route, f"{status // 100}xx"), self._seconds.labels(route)
            if known == method:
                self._samples[key] = samples
        samples[0].inc()
        samples[1].observe(seconds)

    def _gauge(self, name: str) -> Gauge:
        return Gauge(name, METRICS[name], registry=self._registry)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, METRICS[name], labels, registry=self._registry)
