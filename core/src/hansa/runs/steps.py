"""The pure part of replay: step ids and what the log answers for them. No clock, no I/O.

Ids are paths: steps of the run are 1, 2, 3 ...; the branches of a `gather` that is step 3 count 3.0.1, 3.0.2, 3.1.1 ...
So an id does not depend on which branch happens to be faster.
"""

import hashlib
from collections.abc import Awaitable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from hansa.errors import Conflict
from hansa.runs.model import EventType, Recorded, canonical

T = TypeVar("T")


class Diverged(Conflict):
    """A replay did something else than what stands in the log."""

    code, title = "replay_diverged", "Replay diverged"

    def __init__(self, step: str, expected: str, got: str) -> None:
        super().__init__(
            f"step {step} was {expected} in the log and is now {got}",
            hint="The runtime or the agent's tools changed while the run was under way.",
        )
        self.step = step
        self.expected = expected
        self.got = got


class Scope:
    """Counts the steps of the run, or of one branch of a gather."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._count = 0

    def next(self) -> str:
        """The next step id in this scope."""
        self._count += 1
        return f"{self._prefix}{self._count}"


class StepIds:
    """Gives step ids, by the scope of the task that asks."""

    def __init__(self) -> None:
        self._scope: ContextVar[Scope] = ContextVar("scope")
        self._scope.set(Scope())

    def next(self) -> str:
        """The next id where the caller stands."""
        return self._scope.get().next()

    async def branch(self, prefix: str, work: Awaitable[T]) -> T:
        """Await `work` with ids that begin with `prefix`; must run in a task of its own."""
        self._scope.set(Scope(prefix))
        return await work


class StepLog:
    """The recorded steps of a run: answers what was done, and notices when something else is asked."""

    def __init__(self, recorded: Iterable[Recorded]) -> None:
        self._steps: dict[str, dict[EventType, Any]] = {}
        for event in recorded:
            self._steps.setdefault(event.step, {})[event.type] = event.data
        self._asked = set[str]()

    def __len__(self) -> int:
        return len(self._steps)

    def find(self, step: str, types: tuple[EventType, ...]) -> Mapping[EventType, Any]:
        """What stands in the log for a step; empty: nothing yet. Raises `Diverged` when it is of another type."""
        self._asked.add(step)
        known = self._steps.get(step, {})
        for type_ in known:
            if type_ not in types:
                raise Diverged(step, type_.value, types[-1].value)
        return known

    def unasked(self) -> tuple[str, str] | None:
        """The first recorded step that nobody has asked for: (id, type)."""
        return next(((step, next(iter(events)).value) for step, events in self._steps.items() if step not in self._asked), None)


def check_same(step: str, what: str, recorded: Any, now: Any) -> None:
    """Raise `Diverged` unless two JSON values are the same."""
    if canonical(recorded) != canonical(now):
        raise Diverged(step, f"{what} {_short(recorded)}", f"{what} {_short(now)}")


def digest(value: Any) -> str:
    """A short name for a JSON value: the first half of the SHA-256 of its canonical form, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()[:32]


def _short(value: Any) -> str:
    text = canonical(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
