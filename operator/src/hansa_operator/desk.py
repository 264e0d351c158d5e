"""What all who work for one leader have in common."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hansa_operator.cluster import Cluster
from hansa_operator.events import Events
from hansa_operator.index import Index
from hansa_operator.metrics import Metrics
from hansa_operator.model import Key
from hansa_operator.platform import Platform


@dataclass(frozen=True)
class Desk:
    """`wake(keys)` has objects reconciled now; `outage(server)` is told when one is away."""

    cluster: Cluster
    platform: Platform
    index: Index
    events: Events
    metrics: Metrics
    wake: Callable[[Iterable[Key]], None]
    outage: Callable[[str], None]
