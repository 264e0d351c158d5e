"""Checkpoints are made outside, by one worker at a time; old weeks go, and what is left can be verified."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from audit.places import SIGNER, keeper, outside, tamper, trails, write
from db.rows import A, B
from db.scratch import Scratch
from hansa import clock
from hansa.artifacts.folder import Folder
from hansa.audit.chain import Kind
from hansa.audit.checkpoints import Outside
from hansa.audit.keeper import ROWS, Keeper
from hansa.audit.offline import verify_lines
from hansa.db.pool import Database, open_database
from hansa.errors import Unavailable
from hansa.settings import AuditSettings


@pytest.fixture
def place(tmp_path: Path) -> Outside:
    return outside(tmp_path / "outside")


@pytest.fixture
async def database(scratch: Scratch) -> AsyncIterator[Database]:
    for tenant, name in ((A, "a"), (B, "b")):
        await scratch.add_tenant(tenant, name)
    async with open_database(scratch.settings.database) as found:
        yield found


class Away(Folder):
    """A place that can't be written to until it is there again."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = True

    async def put(self, key: str, body: bytes) -> None:
        if self.away:
            raise Unavailable("the place is away")
        await super().put(key, body)


async def test_a_row_has_a_checkpoint_after_the_time_or_when_there_are_many(database: Database, place: Outside, scratch: Scratch) -> None:
    patient = Keeper(database, place, SIGNER, AuditSettings(seal_seconds=600.0))
    await write(database, ["one"])
    await patient.sweep()
    assert await place.numbers(str(A)) == []
    await write(database, [str(number) for number in range(ROWS - 1)])
    await write(database, ["of b"], B)
    await patient.sweep()
    assert (await place.numbers(str(A)), await place.numbers(str(B))) == ([ROWS], [])
    await scratch.execute("UPDATE hansa.audit_heads SET pending_since = now() - interval '601 seconds' WHERE tenant_id = $1", B)
    await patient.sweep()
    await patient.sweep()
    assert (await place.numbers(str(A)), await place.numbers(str(B))) == ([ROWS], [1])
    assert (await trails(database, place).verify(A)).sealed == ROWS
    assert await scratch.fetch("SELECT FROM hansa.audit_heads WHERE pending_since IS NOT NULL") == []


async def test_sealing_that_is_cut_off_is_done_again(database: Database, tmp_path: Path) -> None:
    shaky = Away(tmp_path / "outside")
    place = Outside(shaky)
    await write(database, ["one", "two"])
    with pytest.raises(Unavailable):
        await keeper(database, place).sweep()
    assert (await trails(database, place).verify(A)).sealed == 0
    shaky.away = False
    await keeper(database, place).sweep()
    assert (await trails(database, place).verify(A)).sealed == 2


async def test_one_worker_at_a_time_seals(database: Database, place: Outside, scratch: Scratch) -> None:
    await write(database, ["one"])
    async with scratch.owner.transaction():
        assert await scratch.owner.fetchval("SELECT pg_try_advisory_xact_lock(hashtextextended('hansa.audit', 0))")
        await keeper(database, place).sweep()
        assert await place.numbers(str(A)) == []
    await asyncio.gather(*(keeper(database, place).sweep() for _ in range(4)))
    assert await place.numbers(str(A)) == [1]


async def test_without_a_key_nothing_is_sealed_and_nothing_removed(database: Database, place: Outside, scratch: Scratch) -> None:
    await aged(scratch, database, weeks=(20, 0))
    await keeper(database, place, signer=None, days=30).sweep()
    assert await place.numbers(str(A)) == []
    assert len(await scratch.fetch("SELECT FROM hansa.audit_events WHERE tenant_id = $1", A)) == 4


async def aged(scratch: Scratch, database: Database, *, weeks: tuple[int, ...]) -> list[datetime]:
    """Two rows of each tenant in each of these weeks before now, the oldest first; the weeks' beginnings."""
    starts: list[datetime] = []
    for ago in weeks:
        now = clock.now() - timedelta(weeks=ago)
        start = (now - timedelta(days=now.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
        starts.append(start)
        name = f"hansa.audit_events_{start:%Y%m%d}"
        if ago:
            await scratch.execute("SET ROLE hansa_owner")
            await scratch.execute(f"CREATE TABLE {name} (LIKE hansa.audit_events INCLUDING ALL)")
            await scratch.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
            await scratch.execute(
                f"ALTER TABLE hansa.audit_events ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{start + timedelta(days=7)}')"
            )
            await scratch.execute("RESET ROLE")
        for tenant in (A, B):
            await write(database, [f"{ago} weeks ago", "and another"], tenant)
    await tamper(
        scratch,
        *(
            f"UPDATE hansa.audit_events SET at = '{start + timedelta(hours=number)}' WHERE seq = {2 * number + 1}; "
            f"UPDATE hansa.audit_events SET at = '{start + timedelta(hours=number, minutes=1)}' WHERE seq = {2 * number + 2}"
            for number, start in enumerate(starts)
            if weeks[number]
        ),
    )
    for tenant in (A, B):
        await tamper(scratch, resealed(str(tenant)))
    return starts


def resealed(tenant: str) -> str:
    return f"""
DO $$ DECLARE r record; h bytea := decode(repeat('00', 32), 'hex'); BEGIN
  FOR r IN SELECT * FROM hansa.audit_events WHERE tenant_id = '{tenant}' ORDER BY seq LOOP
    h := sha256(h || convert_to(hansa.audit_text(r.tenant_id, r.seq, r.at, r.event), 'UTF8'));
    UPDATE hansa.audit_events SET hash = h WHERE tenant_id = r.tenant_id AND seq = r.seq AND at = r.at;
  END LOOP;
  UPDATE hansa.audit_heads SET hash = h WHERE tenant_id = '{tenant}';
END $$"""


async def test_weeks_that_are_old_enough_go_and_the_rest_can_be_verified(database: Database, place: Outside, scratch: Scratch) -> None:
    await aged(scratch, database, weeks=(20, 19, 2, 0))
    found, sweeper = trails(database, place), keeper(database, place, days=30)
    assert (await found.verify(A)).rows == 8
    await sweeper.sweep()
    for tenant in (A, B):
        verdict = await found.verify(tenant)
        assert (verdict.ok, verdict.first, verdict.last, verdict.rows) == (True, 5, 8, 4), verdict
    pieces = [piece async for piece in found.export(A, since=None, until=None)]
    offline = await verify_lines(b"".join(pieces).splitlines(keepends=True), place, frozenset({SIGNER.public_key}))
    assert (offline.ok, offline.first, offline.rows) == (True, 5, 4)
    await write(database, ["goes on"])
    assert (await found.verify(A)).last == 9
    tables = await scratch.fetch("SELECT FROM pg_inherits WHERE inhparent = 'hansa.audit_events'::regclass")
    await sweeper.sweep()
    assert len(await scratch.fetch("SELECT FROM pg_inherits WHERE inhparent = 'hansa.audit_events'::regclass")) == len(tables)


async def test_what_no_checkpoint_covers_is_not_removed(database: Database, tmp_path: Path, scratch: Scratch) -> None:
    await aged(scratch, database, weeks=(20, 0))
    shaky = Away(tmp_path / "outside")
    lazy = Keeper(database, Outside(shaky), SIGNER, AuditSettings(seal_seconds=600.0, retention_days=30))
    shaky.away = False
    await lazy.sweep()
    assert (await trails(database, Outside(shaky)).verify(A)).first == 1, "nothing is sealed yet"
    await keeper(database, Outside(shaky), days=30).seal()
    shaky.away = True
    with pytest.raises(Unavailable):
        await lazy.sweep()
    assert (await trails(database, Outside(shaky)).verify(A)).first == 1, "the statement could not be kept"
    shaky.away = False
    await lazy.sweep()
    assert (await trails(database, Outside(shaky)).verify(A)).first == 3


async def test_rows_that_are_taken_out_as_if_by_retention_are_missed(database: Database, place: Outside, scratch: Scratch) -> None:
    await aged(scratch, database, weeks=(20, 2, 0))
    await keeper(database, place, days=30).sweep()
    found = trails(database, place)
    assert (await found.verify(A)).first == 3
    forged = (
        "UPDATE hansa.audit_anchors a SET seq = 4, hash = e.hash FROM hansa.audit_events e WHERE e.tenant_id = a.tenant_id AND e.seq = 4"
    )
    await tamper(scratch, forged, "DELETE FROM hansa.audit_events WHERE seq <= 4")
    verdict = await found.verify(A)
    assert verdict.finding is not None
    assert (verdict.finding.seq, verdict.finding.kind) == (4, Kind.ANCHOR)
    await tamper(scratch, "DELETE FROM hansa.audit_anchors")
    verdict = await found.verify(A)
    assert verdict.finding is not None
    assert (verdict.finding.seq, verdict.finding.kind) == (1, Kind.MISSING)


async def test_the_system_removes_nothing_that_is_young_or_not_stated(database: Database, place: Outside, scratch: Scratch) -> None:
    starts = await aged(scratch, database, weeks=(20, 0))
    system = await asyncpg.connect(scratch.settings.database.system_url)
    try:
        for start in starts:
            name = f"hansa.audit_events_{start:%Y%m%d}"
            assert await system.fetchval("SELECT hansa.audit_partition_drop($1)", name) is False
        await keeper(database, place, days=30).sweep()
        for sql in ("DELETE FROM hansa.audit_events", "SELECT event FROM hansa.audit_events", "UPDATE hansa.audit_heads SET hash = 'x'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await system.execute(sql)
        this_week = f"hansa.audit_events_{starts[-1]:%Y%m%d}"
        await system.execute(
            "INSERT INTO hansa.audit_anchors (tenant_id, seq, hash, statement) SELECT tenant_id, 9, hash, '{}' FROM hansa.audit_heads "
            "ON CONFLICT (tenant_id) DO UPDATE SET seq = 9"
        )
        assert await system.fetchval("SELECT hansa.audit_partition_drop($1)", this_week) is False, "of the last day nothing is removed"
        assert await system.fetchval("SELECT hansa.audit_partition_drop('hansa.audit_heads')") is False
    finally:
        await system.close()


async def test_rows_without_a_week_are_removed_too(database: Database, place: Outside, scratch: Scratch) -> None:
    await aged(scratch, database, weeks=(0,))
    old = datetime(2020, 1, 1, tzinfo=UTC)
    await tamper(
        scratch,
        f"UPDATE hansa.audit_events SET at = '{old}'::timestamptz + seq * interval '1 second'",
        resealed(str(A)),
        resealed(str(B)),
    )
    assert [row["n"] for row in await scratch.fetch("SELECT count(*) AS n FROM hansa.audit_events_default")] == [4]
    sweeper = keeper(database, place, days=30)
    await write(database, ["of this week"])
    await sweeper.sweep()
    verdict = await trails(database, place).verify(A)
    assert (verdict.ok, verdict.first, verdict.rows) == (True, 3, 1)
    await tamper(scratch, f"UPDATE hansa.audit_events SET at = '{old}'")
    assert len(await scratch.fetch("SELECT FROM hansa.audit_events_default")) == 1, "it is there again"
