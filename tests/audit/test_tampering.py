"""Whatever a superuser does to a trail, `verify` names the first row that it was done to; a trail that was hashed anew only beside what
is kept outside."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from audit.places import RESEAL, keeper, outside, tamper, trails, write
from db.rows import A, B
from db.scratch import Scratch
from hansa.audit.chain import Kind
from hansa.audit.checkpoints import Outside
from hansa.audit.offline import verify_lines
from hansa.audit.reading import Trails
from hansa.audit.signing import Signer
from hansa.audit.verdict import UNSEALED, Verdict
from hansa.db.pool import Database, open_database

ROW = f"tenant_id = '{A}' AND seq"
UP = f"UPDATE hansa.audit_events SET seq = -seq - 1 WHERE {ROW} >= 5; UPDATE hansa.audit_events SET seq = -seq WHERE {ROW} < 0"
DOWN = f"UPDATE hansa.audit_events SET seq = 1 - seq WHERE {ROW} > 5; UPDATE hansa.audit_events SET seq = -seq WHERE {ROW} < 0"
NEW = "INSERT INTO hansa.audit_events (tenant_id, seq, at, event, hash) "
CASES: dict[str, tuple[str, int, Kind]] = {
    "an event is changed": (f'UPDATE hansa.audit_events SET event = \'{{"action":"x"}}\' WHERE {ROW} = 5', 5, Kind.CHANGED),
    "a time is changed": (f"UPDATE hansa.audit_events SET at = at + interval '1 microsecond' WHERE {ROW} = 5", 5, Kind.CHANGED),
    "a hash is changed": (f"UPDATE hansa.audit_events SET hash = sha256('x') WHERE {ROW} = 5", 5, Kind.CHANGED),
    "the first is changed": (f"UPDATE hansa.audit_events SET event = '{{}}' WHERE {ROW} = 1", 1, Kind.CHANGED),
    "the last is changed": (f"UPDATE hansa.audit_events SET event = '{{}}' WHERE {ROW} = 9", 9, Kind.CHANGED),
    "an event is changed and hashed anew": (
        f"UPDATE hansa.audit_events SET event = '{{}}', hash = sha256((SELECT hash FROM hansa.audit_events WHERE {ROW} = 4) "
        f"|| convert_to(hansa.audit_text(tenant_id, seq, at, '{{}}'), 'UTF8')) WHERE {ROW} = 5",
        6,
        Kind.CHANGED,
    ),
    "a row is taken out": (f"DELETE FROM hansa.audit_events WHERE {ROW} = 5", 5, Kind.MISSING),
    "the first is taken out": (f"DELETE FROM hansa.audit_events WHERE {ROW} = 1", 1, Kind.MISSING),
    "the last two are taken out": (f"DELETE FROM hansa.audit_events WHERE {ROW} > 7", 8, Kind.MISSING),
    "all are taken out": (f"DELETE FROM hansa.audit_events WHERE tenant_id = '{A}'", 1, Kind.MISSING),
    "a row is taken out, the rest renumbered": (f"DELETE FROM hansa.audit_events WHERE {ROW} = 5; {DOWN}", 5, Kind.MISSING),
    "a row is put in, the rest renumbered": (
        f"{UP}; {NEW} SELECT tenant_id, 5, at, '{{}}', sha256('x') FROM hansa.audit_events WHERE {ROW} = 4",
        5,
        Kind.INSERTED,
    ),
    "a row that fits is put in, the rest renumbered": (
        f"{UP}; {NEW} SELECT tenant_id, 5, at, '{{}}', sha256(hash || convert_to(hansa.audit_text(tenant_id, 5, at, '{{}}'), 'UTF8')) "
        f"FROM hansa.audit_events WHERE {ROW} = 4",
        5,
        Kind.INSERTED,
    ),
    "a second row of one number is put in": (
        f"{NEW} SELECT tenant_id, 5, at + interval '1 hour', '{{}}', hash FROM hansa.audit_events WHERE {ROW} = 5",
        5,
        Kind.INSERTED,
    ),
    "a second row is put in before the first": (
        f"{NEW} SELECT tenant_id, 5, at - interval '1 minute', '{{}}', hash FROM hansa.audit_events WHERE {ROW} = 5",
        5,
        Kind.INSERTED,
    ),
    "a row is put in at the end": (
        f"{NEW} SELECT tenant_id, 10, at, '{{}}', sha256('x') FROM hansa.audit_events WHERE {ROW} = 9",
        10,
        Kind.INSERTED,
    ),
    "a row is put in before all": (
        f"{NEW} SELECT tenant_id, 0, at, '{{}}', sha256('x') FROM hansa.audit_events WHERE {ROW} = 1",
        0,
        Kind.INSERTED,
    ),
    "two rows change places": (
        f"UPDATE hansa.audit_events SET seq = -5 WHERE {ROW} = 5; UPDATE hansa.audit_events SET seq = 5 WHERE {ROW} = 6; "
        f"UPDATE hansa.audit_events SET seq = 6 WHERE {ROW} = -5",
        5,
        Kind.REORDERED,
    ),
    "the end is forgotten": (f"DELETE FROM hansa.audit_heads WHERE tenant_id = '{A}'", 1, Kind.INSERTED),
    "a row of another tenant is taken over": (
        f"UPDATE hansa.audit_events SET event = (SELECT event FROM hansa.audit_events WHERE tenant_id = '{B}' AND seq = 5), "
        f"hash = (SELECT hash FROM hansa.audit_events WHERE tenant_id = '{B}' AND seq = 5) WHERE {ROW} = 5",
        5,
        Kind.CHANGED,
    ),
}
"""What is done to a trail of nine rows, and what is found: the row, and what is wrong with it."""


@pytest.fixture
def place(tmp_path: Path) -> Outside:
    return outside(tmp_path / "outside")


@pytest.fixture
async def database(scratch: Scratch) -> AsyncIterator[Database]:
    """Two tenants with a trail of nine rows each."""
    await scratch.add_tenant(A, "a")
    await scratch.add_tenant(B, "b")
    async with open_database(scratch.settings.database) as found:
        await write(found, [str(number) for number in range(1, 10)])
        await write(found, [f"other {number}" for number in range(1, 10)], B)
        yield found


async def exported(found: Trails) -> list[bytes]:
    pieces = [piece async for piece in found.export(A, since=None, until=None)]
    return b"".join(pieces).splitlines(keepends=True)


async def both(found: Trails) -> tuple[Verdict, Verdict]:
    """What the server says, and an auditor over an export."""
    return await found.verify(A), await verify_lines(await exported(found), None, frozenset())


@pytest.mark.parametrize("case", CASES)
async def test_the_first_row_that_was_tampered_with_is_named(case: str, scratch: Scratch, database: Database, place: Outside) -> None:
    found = trails(database, place)
    before = await both(found)
    assert [(each.ok, each.rows, each.first, each.last) for each in before] == [(True, 9, 1, 9)] * 2
    sql, seq, kind = CASES[case]
    await tamper(scratch, *sql.split("; "))
    verdict, told = await both(found)
    assert verdict.finding is not None, "it was not noticed"
    assert (verdict.ok, verdict.finding.seq, verdict.finding.kind) == (False, seq, kind), verdict.finding
    # An export ends where the trail is said to end: what was put behind that is not in it, and what is said to be there is missing.
    if case not in ("a row is put in at the end", "a row is put in before all", "the end is forgotten"):
        assert not told.ok, "the auditor did not notice"
    assert (await found.verify(B)).ok, "the other tenant's trail is whole"


async def test_a_trail_that_was_hashed_anew_is_caught_by_what_is_outside_and_by_nothing_else(
    scratch: Scratch, database: Database, place: Outside, tmp_path: Path
) -> None:
    found = trails(database, place)
    assert (await found.verify(A)).warnings == (UNSEALED,)
    await keeper(database, place).sweep()
    sealed = await found.verify(A)
    assert (sealed.ok, sealed.sealed, sealed.warnings) == (True, 9, ())
    await write(database, ["10", "11"])
    await keeper(database, place).sweep()
    await tamper(scratch, f"UPDATE hansa.audit_events SET event = '{{}}' WHERE {ROW} = 10", RESEAL.format(tenant=A))
    blind = await trails(database, outside(tmp_path / "empty")).verify(A)
    assert (blind.ok, blind.warnings) == (True, (UNSEALED,)), "without a checkpoint it can't be seen, and that is said"
    caught = await found.verify(A)
    assert caught.finding is not None
    assert (caught.finding.seq, caught.finding.kind) == (10, Kind.RESEALED)
    offline = await verify_lines(await exported(found), place, frozenset({sealed.checkpoint.public_key} if sealed.checkpoint else ()))
    assert offline.finding == caught.finding
    await tamper(scratch, f"UPDATE hansa.audit_events SET event = '{{}}' WHERE {ROW} = 3", RESEAL.format(tenant=A))
    caught = await found.verify(A)
    assert caught.finding is not None
    assert (caught.finding.seq, caught.finding.kind) == (1, Kind.RESEALED)


async def test_an_end_that_was_cut_off_with_its_mark_is_caught_by_what_is_outside(
    scratch: Scratch, database: Database, place: Outside
) -> None:
    await keeper(database, place).sweep()
    await tamper(scratch, f"DELETE FROM hansa.audit_events WHERE {ROW} > 6", RESEAL.format(tenant=A))
    caught = await trails(database, place).verify(A)
    assert caught.finding is not None
    assert (caught.finding.seq, caught.finding.kind) == (7, Kind.MISSING)
    assert "covers row 9" in caught.finding.detail


DAMAGED = {
    "its number": (b'"seq":9', b'"seq":8', "signature is wrong"),
    "its hash": (b'"hash":"', b'"hash":"0', "signature is wrong"),
    "what it says": (b'"why":"sealed"', b'"why":"dropped"', "signature is wrong"),
    "its signature": (b'"signature":"', b'"signature":"zz', "signature is wrong"),
    "its tenant": (str(A).encode(), str(B).encode(), "one of tenant"),
    "its form": (b"{", b"", "can't be read"),
}


@pytest.mark.parametrize("part", DAMAGED)
async def test_a_checkpoint_that_was_tampered_with_is_no_proof(part: str, database: Database, place: Outside, tmp_path: Path) -> None:
    await keeper(database, place).sweep()
    (file,) = (tmp_path / "outside" / str(A)).iterdir()
    was, becomes, said = DAMAGED[part]
    assert was in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(was, becomes))
    verdict = await trails(database, place).verify(A)
    assert verdict.finding is not None
    assert verdict.finding.kind is Kind.CHECKPOINT
    assert said in verdict.finding.detail


async def test_a_checkpoint_of_a_strange_key_is_no_proof(database: Database, place: Outside) -> None:
    await keeper(database, place, signer=Signer(b"the secret of someone else")).sweep()
    verdict = await trails(database, place).verify(A)
    assert verdict.finding is not None
    assert (verdict.finding.kind, "not known here" in verdict.finding.detail) == (Kind.CHECKPOINT, True)


async def test_an_export_is_a_piece_that_can_be_verified(scratch: Scratch, database: Database, place: Outside) -> None:
    times = [row["at"] for row in await scratch.fetch("SELECT at FROM hansa.audit_events WHERE tenant_id = $1 ORDER BY seq", A)]
    found = trails(database, place)
    for since, until, first, rows in ((None, None, 1, 9), (times[3], None, 4, 6), (times[3], times[6], 4, 3), (None, times[2], 1, 2)):
        pieces = [piece async for piece in found.export(A, since=since, until=until)]
        lines = b"".join(pieces).splitlines(keepends=True)
        verdict = await verify_lines(lines, None, frozenset())
        assert (verdict.ok, verdict.first, verdict.rows) == (True, first, rows)
        for gone in range(1, len(lines)):
            broken = await verify_lines(lines[:gone] + lines[gone + 1 :], None, frozenset())
            assert not broken.ok, gone
