"""The outbox's rules in Python, without a database: a twin of the SQL functions, small enough to be run through thousands of worlds.

`test_twin.py` does the same to both and compares them; `test_worlds.py` lets the twin live through crashes and lost disks.
"""

from enum import StrEnum


class State(StrEnum):
    NEW = "new"
    HELD = "held"
    FLIGHT = "flight"
    DELIVERED = "delivered"


class Row:
    """A row of the outbox. `locked`: a receiver's transaction has it, and what it did is not committed."""

    def __init__(self, position: int, name: int, key: str | None) -> None:
        self.position = position
        self.name = name
        self.key = key
        self.state = State.NEW
        self.tries = 0
        self.due = 0.0
        self.locked = False


class Outbox:
    """Outbox and inbox of one tenant."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.handled: set[int] = set()
        self._position = 0

    def put(self, name: int, key: str | None) -> bool:
        self._position += 1  # a sequence does not take a number back
        if any(row.name == name and row.state is not State.DELIVERED for row in self.rows):
            return False
        self.rows.append(Row(self._position, name, key))
        return True

    def claim(self, now: float, *, limit: int, window: int) -> tuple[list[Row], bool]:
        """What is to be published, and whether to ask again at once."""
        gone = self._in(State.DELIVERED)[:limit]
        self.rows = [row for row in self.rows if row not in gone]
        promoted: list[Row] = []
        for key in dict.fromkeys(row.key for row in gone if row.key is not None):
            held = [row for row in self._in(State.HELD) if row.key == key]
            if held and not any(row.key == key for row in self._in(State.FLIGHT)):
                promoted.append(self._fly(held[0], now))
        again = sorted((row for row in self._in(State.FLIGHT) if row.due <= now and not row.locked), key=lambda row: row.due)[:limit]
        for row in again:
            row.tries += 1
            row.due = now + 2 * min(row.tries, 5)
        room = min(limit, window - len(self._in(State.FLIGHT)[:window]))
        fresh = self._in(State.NEW)[: max(room, 0)]
        taken = {row.key for row in self.rows if row.state in (State.FLIGHT, State.HELD)}
        flown: list[Row] = []
        for row in fresh:
            if row.key is None or row.key not in taken:
                flown.append(self._fly(row, now))
            else:
                row.state = State.HELD
            taken.add(row.key)
        return [*promoted, *again, *flown], len(gone) == limit or (room > 0 and len(fresh) == room)

    def sent(self, row: Row, now: float, patience: float) -> None:
        """NATS has taken it."""
        if row.state is State.FLIGHT and not row.locked:
            row.due = now + patience * min(row.tries, 5)

    def begin(self, name: int) -> Row | str:
        """Open a receiver's transaction: the row, or that there is nothing to do or that someone is at it."""
        found = [row for row in self._in(State.FLIGHT) if row.name == name]
        if not found:
            return "done"
        if found[0].locked:
            return "busy"
        found[0].locked = True
        return found[0]

    def commit(self, row: Row) -> bool:
        """Close it; whether the message was new."""
        row.locked = False
        row.state = State.DELIVERED
        new = row.name not in self.handled
        self.handled.add(row.name)
        return new

    def _in(self, state: State) -> list[Row]:
        return [row for row in self.rows if row.state is state]

    def _fly(self, row: Row, now: float) -> Row:
        row.state, row.tries, row.due = State.FLIGHT, 1, now + 2
        return row
