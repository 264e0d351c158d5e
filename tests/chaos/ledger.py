"""What clients were promised, written down by the clients: the oracle holds logs and witness against it."""

from typing import Any

import msgspec

ENDED = frozenset({"completed", "failed", "canceled"})


class Promise(msgspec.Struct):
    """One request for a run. `ids`: those that 202 answers to its idempotency key named; more than one is a doubled run."""

    nonce: str
    shape: str
    marks: frozenset[str]
    output: Any = None
    session: str = ""
    ids: set[str] = msgspec.field(default_factory=set[str])
    cancel: bool = False


class Refusal(msgspec.Struct, frozen=True):
    """An answer that no fault excuses."""

    request: str
    answer: str


class Death(msgspec.Struct, frozen=True):
    """A worker killed while nothing else was hurt: the wall clock in seconds, and the runs that it had in hand."""

    at: float
    runs: frozenset[str]


class Ledger(msgspec.Struct):
    """Everything that the outside has seen. `queues`: for each session, nonces in the order in which they were accepted, one after
    the other. `followed`: numbers of a session's log as a stream told them. `replays`: run -> what the replay said. `decisions`:
    run -> what a person has decided about its calls in doubt: done, retry or fail."""

    promises: dict[str, Promise] = msgspec.field(default_factory=dict[str, Promise])
    queues: dict[str, list[str]] = msgspec.field(default_factory=dict[str, list[str]])
    followed: dict[str, list[int]] = msgspec.field(default_factory=dict[str, list[int]])
    replays: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict[str, dict[str, Any]])
    decisions: dict[str, list[str]] = msgspec.field(default_factory=dict[str, list[str]])
    refusals: list[Refusal] = msgspec.field(default_factory=list[Refusal])
    deaths: list[Death] = msgspec.field(default_factory=list[Death])

    def accepted(self) -> int:
        """How many runs were accepted so far."""
        return sum(bool(promise.ids) for promise in self.promises.values())
