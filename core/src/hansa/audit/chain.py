"""The chain itself: what a row's hash is, and which row is the first that is not as it was written. Knows no database: what a control
plane finds in it, an auditor finds in an export, on another machine.

Warning: whoever may change every row, and the end of the chain too, can hash all of it anew. That shows only against a checkpoint that
was written elsewhere; see `checkpoints`.
"""

import hashlib
from collections.abc import Container
from enum import StrEnum

import msgspec

START = bytes(32)
"""What the first row is chained to."""
SHIFTS = 16
"""Of so many rows put in or taken out, with all that follow renumbered, it is seen that they were."""


class Row(msgspec.Struct, frozen=True):
    """A row as it was exported or read. `at` is a time as it was hashed, `event` JSON as it was hashed, `hash` in hex."""

    seq: int
    at: str
    event: msgspec.Raw
    hash: str


class Mark(msgspec.Struct, frozen=True):
    """A place in a chain: the number of a row and its hash in hex."""

    seq: int
    hash: str


class Kind(StrEnum):
    """What can be wrong with a trail."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    RESEALED = "resealed"
    CHECKPOINT = "checkpoint"
    ANCHOR = "anchor"


class Finding(msgspec.Struct, frozen=True):
    """The first row that is not as it was written, or is not there."""

    seq: int
    kind: Kind
    detail: str


class Verifier:
    """Takes rows in the order of their numbers, from after `start`; `wanted` are numbers whose hashes are to be remembered."""

    def __init__(self, tenant: str, start: Mark, wanted: Container[int] = ()) -> None:
        self.tenant = tenant
        self._wanted = wanted
        self._waiting: Row | None = None
        self.seq: int = start.seq
        self.hash = bytes.fromhex(start.hash)
        self.rows = 0
        self.hashes: dict[int, str] = {start.seq: start.hash}
        self.finding: Finding | None = None

    def row(self, row: Row) -> None:
        """One more row. Each is judged when the next one is known: only beside that it is seen what was done to it."""
        self._judge(row)
        self._waiting = row

    def finish(self) -> None:
        """There is no further row."""
        self._judge(None)
        self._waiting = None

    def _judge(self, follower: Row | None) -> None:
        row = self._waiting
        if row is None or self.finding is not None:
            return
        if self._fits(self.hash, row, self.seq + 1) and row.seq == self.seq + 1:
            self.seq, self.hash = row.seq, bytes.fromhex(row.hash)
            self.rows += 1
            if row.seq in self._wanted:
                self.hashes[row.seq] = row.hash
            return
        self.finding = self._finding(row, follower)

    def _finding(self, row: Row, follower: Row | None) -> Finding:
        due = self.seq + 1
        if row.seq > due:
            return Finding(due, Kind.MISSING, f"after row {self.seq} comes row {row.seq}: {_rows(due, row.seq - 1)} missing")
        if row.seq < due:
            return Finding(row.seq, Kind.INSERTED, f"there are two rows {row.seq}")
        if follower is not None:
            if self._fits(self.hash, follower, due):
                if self._fits(bytes.fromhex(follower.hash), row, due + 1):
                    return Finding(due, Kind.REORDERED, f"row {due} and the one after it have changed places")
                return Finding(due, Kind.INSERTED, f"row {due} was put in: the row after it is the one that was written as row {due}")
            for shift in range(1, SHIFTS + 1):
                if self._fits(bytes.fromhex(row.hash), follower, follower.seq + shift):
                    return Finding(due, Kind.MISSING, f"{_rows(due, due + shift - 1)} missing: those that follow were renumbered")
                if self._fits(bytes.fromhex(row.hash), follower, follower.seq - shift):
                    first = due - shift
                    return Finding(first, Kind.INSERTED, f"row {first} was put in: those that follow were renumbered")
        before = f", or row {self.seq} was and its hash was made anew" if self.rows else ""
        return Finding(due, Kind.CHANGED, f"row {due} does not follow from what is before it: it was changed{before}")

    def _fits(self, before: bytes, row: Row, seq: int) -> bool:
        return hashlib.sha256(before + text(self.tenant, seq, row)).hexdigest() == row.hash


def text(tenant: str, seq: int, row: Row) -> bytes:
    """A row as it is hashed, if its number is `seq`: canonical JSON, like hansa.audit_text of the database."""
    return b'{"at":"%b","event":%b,"seq":%d,"tenant":"%b"}' % (row.at.encode(), bytes(row.event), seq, tenant.encode())


def _rows(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"
