"""The clock of the control plane. Leases never use it: they are judged by the database's clock alone."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The wall clock, UTC, with its zone."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds from an arbitrary start, never going back: for durations and deadlines within a process."""
    return time.monotonic()
