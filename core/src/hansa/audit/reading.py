"""Reading a trail: pages of it, all of it as a file, and whether it is as it was written."""

from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from hansa.audit import store
from hansa.audit.chain import START, Finding, Kind, Mark, Row, Verifier
from hansa.audit.checkpoints import Checkpoint, Judge, Judged, Outside, fault
from hansa.audit.store import Anchor, Head, Stored
from hansa.audit.verdict import FORMAT, Verdict, verdict
from hansa.db.pool import Connection, Database

BATCH = 1000
LEAST = -(2**63)
"""Before any number that a row may have, also one that someone made up."""


class Trails:
    """The trails of tenants. `trusted`: the public keys whose checkpoints are believed."""

    def __init__(self, database: Database, outside: Outside, trusted: Collection[str]) -> None:
        self._database = database
        self._outside = outside
        self._trusted = trusted

    async def page(self, tenant_id: UUID, filters: dict[str, Any], *, before: int | None, limit: int) -> tuple[list[str], int | None]:
        """Events, newest first, as JSON texts, and where the next page begins."""
        async with self._database.tenant(tenant_id) as connection:
            rows = await store.page(connection, filters, before, limit + 1)
        return [_shown(row) for row in rows[:limit]], rows[limit - 1].seq if len(rows) > limit else None

    async def export(self, tenant_id: UUID, *, since: datetime | None, until: datetime | None) -> AsyncIterator[bytes]:
        """A piece of the trail as JSON lines: what it begins after, each row, and an end that says that nothing is missing."""
        async with self._database.tenant(tenant_id) as connection:
            start = await self._start(connection, since)
            head = await store.head(connection)
            anchor = await store.anchor(connection)
        statement = msgspec.Raw(anchor.statement.encode()) if anchor is not None else None
        last = head.seq
        yield _line({"format": FORMAT, "tenant": str(tenant_id), "after": start, "removed": statement})
        count, seq = 0, start.seq
        async for rows in self._chain(tenant_id, start.seq):
            wanted = [row for row in rows if row.seq <= last and (until is None or row.at < until)]
            count, seq = count + len(wanted), wanted[-1].seq if wanted else seq
            if wanted:
                yield b"".join(_line(_row(row)) for row in wanted)
            if len(wanted) < len(rows):
                break
        yield _line({"end": {"rows": count, "last": last if until is None else seq}})

    async def verify(self, tenant_id: UUID) -> Verdict:
        """Look at every row. Raises `Unavailable`."""
        tenant = str(tenant_id)
        numbers = await self._outside.numbers(tenant)
        async with self._database.tenant(tenant_id) as connection:
            start = await self._start(connection, None)
            anchor, end = await store.anchor(connection), await store.head(connection)
        finding = None if anchor is None else self._anchor_finding(tenant, anchor)
        verifier = Verifier(tenant, start, frozenset({*numbers, end.seq}))
        if finding is None:
            async for rows in self._chain(tenant_id, LEAST):
                for row in rows:
                    verifier.row(_row(row))
                if verifier.finding is not None or rows[-1].seq >= end.seq:
                    break
            verifier.finish()
            finding = verifier.finding
            if finding is None or finding.seq > end.seq:
                finding = _end_finding(verifier, end) or finding
        judged = Judged()
        if finding is None:
            judged = await Judge(self._outside, tenant, self._trusted).judge(numbers, verifier.hashes, verifier.seq)
        return verdict(verifier, start, self._outside.name, judged=judged, finding=finding)

    async def _start(self, connection: Connection, since: datetime | None) -> Mark:
        """After which row to begin: the first one since a time, or all that is there."""
        anchor = await store.anchor(connection)
        begin = Mark(0, START.hex()) if anchor is None else Mark(anchor.seq, anchor.hash)
        if since is None:
            return begin
        first = await store.first_since(connection, since)
        if first is None:
            head = await store.head(connection)
            return Mark(head.seq, head.hash) if head.seq else begin
        before = None if first - 1 <= begin.seq else await store.hash_of(connection, first - 1)
        return begin if before is None else Mark(first - 1, before)

    async def _chain(self, tenant_id: UUID, after: int) -> AsyncIterator[list[Stored]]:
        """The rows after a number, some at a time: no transaction is as long as the trail."""
        place: tuple[int, datetime | None] = (after, None)
        while True:
            async with self._database.tenant(tenant_id) as connection:
                rows = await store.chain(connection, place, BATCH)
            if not rows:
                return
            yield rows
            place = (rows[-1].seq, rows[-1].at)

    def _anchor_finding(self, tenant: str, anchor: Anchor) -> Finding | None:
        try:
            statement = msgspec.json.decode(anchor.statement, type=Checkpoint)
        except msgspec.DecodeError:
            return Finding(anchor.seq, Kind.ANCHOR, "what was removed by retention is not stated in a form that can be read")
        wrong = fault(statement, tenant, self._trusted)
        if not wrong and (statement.why, statement.seq, statement.hash) != ("dropped", anchor.seq, anchor.hash):
            wrong = "it says something else"
        detail = f"rows up to {anchor.seq} are gone, and the statement of that is not good: {wrong}"
        return Finding(anchor.seq, Kind.ANCHOR, detail) if wrong else None


def _end_finding(verifier: Verifier, end: Head) -> Finding | None:
    """Whether the rows end where the trail was said to end when it was begun to be read."""
    if verifier.seq < end.seq:
        detail = f"the trail is said to end at row {end.seq}, and the last row that is there is {verifier.seq}"
        return Finding(verifier.seq + 1, Kind.MISSING, detail)
    if end.newest > end.seq:
        return Finding(end.seq + 1, Kind.INSERTED, f"the trail is said to end at row {end.seq}, and there is a row {end.newest}")
    if verifier.hashes[end.seq] != end.hash:
        return Finding(end.seq, Kind.CHANGED, f"row {end.seq} is not the one that the trail was said to end with")
    return None


def _row(row: Stored) -> Row:
    return Row(row.seq, row.told_at, msgspec.Raw(row.event.encode()), row.hash)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _shown(row: Stored) -> str:
    """An event with its number, time and hash, as people see it."""
    return f'{{"seq":{row.seq},"at":"{row.told_at}","hash":"{row.hash}",{row.event[1:]}'
