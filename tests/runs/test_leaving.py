"""A tenant is deleted whole, wherever whoever does it dies; and what would be left behind is found."""

import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any
from uuid import UUID, uuid4

import msgspec
import pytest

from db.rows import ROWS, fill
from db.scratch import Scratch, open_scratch
from hansa.bus.connection import open_bus
from hansa.bus.queue import Queue
from hansa.bus.subjects import messages_sent
from hansa.db.pool import Database
from hansa.errors import Invalid
from hansa.messages.courier import queue_of
from hansa.process import open_equipment
from hansa.runs.equipment import Equipment
from hansa.runs.leaving import store
from hansa.runs.leaving.bundle import PIECE, Writer, members, padding
from hansa.runs.leaving.deletion import Remover
from hansa.runs.leaving.exporting import pieces
from hansa.runs.log import importing
from hansa.runs.log.importing import LINE_BYTES
from stack import Stack

TENANT, NEIGHBOUR = uuid4(), uuid4()
ROUNDS = 12
"""Looks after which a deletion that nobody disturbs is surely done."""


class Killed(BaseException):
    """Stands for kill -9: nothing that comes after it is done, and nothing catches it."""


class Mortal(Database):
    """A database that kills who asks it for the so-and-so-manieth time; a half of the times after it has done what it was asked for."""

    def __init__(self, database: Database) -> None:
        self.__dict__.update(database.__dict__)
        self.left = 1 << 30

    async def system(self, sql: str, *arguments: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise Killed
        found = await super().system(sql, *arguments)
        if self.left == 1:
            self.left = 0
            raise Killed
        return found


class Place(msgspec.Struct):
    """Where a tenant is to be deleted."""

    scratch: Scratch
    equipment: Equipment
    queue: Queue
    database: Mortal

    def remover(self) -> Remover:
        return Remover(msgspec.structs.replace(self.equipment, database=self.database), self.queue)

    async def condemn(self, policy: str, *, tenant: UUID = TENANT) -> None:
        """Furnish a tenant with rows in every table, files and messages, and let it be deleted."""
        await self.scratch.add_tenant(tenant, f"t-{tenant.hex[:8]}")
        await fill(self.scratch.owner, tenant, word=tenant.hex)
        await self.scratch.execute("DELETE FROM hansa.sessions WHERE tenant_id = $1", tenant)  # of these an export would have to be made
        manifests = "UPDATE hansa.objects SET manifest = json_build_object('kind', kind, 'metadata', json_build_object('name', name))"
        await self.scratch.execute(manifests)
        await self.equipment.artifacts.put(tenant, bytes.fromhex(EMPTY), b"")
        (self.equipment.workspaces / str(tenant) / "run").mkdir(parents=True)
        await self.queue.ensure()
        await self.queue.publish(messages_sent(self.equipment.region, tenant.hex), b"{}", message_id=str(uuid4()))
        await self.scratch.execute("UPDATE hansa.tenants SET state = 'deleting' WHERE tenant_id = $1", tenant)
        await self.scratch.execute(
            "INSERT INTO hansa.deletions (id, tenant, name, policy, requested_by, requested_at) "
            "VALUES ($1, $2, 't', $3, 'k', now() - interval '1 m')",
            *(uuid4(), tenant, policy),
        )

    async def look(self) -> None:
        """One look of a worker that begins anew; whoever had it before is dead."""
        await self.scratch.execute("UPDATE hansa.deletions SET held_until = '-infinity'")
        await self.remover().look()

    async def left(self, tenant: UUID = TENANT) -> dict[str, int]:
        """What is left of a tenant, as a superuser sees it."""
        found = {
            table: (await self.scratch.fetch(f"SELECT count(*) AS n FROM hansa.{table} WHERE tenant_id = $1", tenant))[0]["n"]
            for table in ("tenants", *ROWS)
        }
        found["artifacts"] = await self.equipment.artifacts.residue(tenant)
        found["workspaces"] = int((self.equipment.workspaces / str(tenant)).exists())
        found["messages"] = await self.queue.count(messages_sent(self.equipment.region, tenant.hex))
        return {place: much for place, much in found.items() if much}

    async def deletion(self) -> dict[str, Any]:
        columns = "id, step, export, parts, residue, finished_at"
        (found,) = await self.scratch.fetch(f"SELECT {columns} FROM hansa.deletions ORDER BY requested_at DESC LIMIT 1")
        return found


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@asynccontextmanager
async def opened(stack: Stack, folder: Path) -> AsyncIterator[Place]:
    async with open_scratch(stack, folder) as scratch:
        placed = msgspec.structs.replace(scratch.settings.place, region=f"r{uuid4().hex[:8]}", data_dir=str(folder / "data"))
        settings = msgspec.structs.replace(scratch.settings, place=placed)
        async with open_equipment(settings, process="leaving") as equipment, open_bus(settings.nats, name="leaving") as bus:
            queue = queue_of(bus, settings.messages, region=equipment.region, replicas=1)
            yield Place(scratch, equipment, queue, Mortal(equipment.database))


@pytest.fixture
async def place(stack: Stack, tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(stack, tmp_path) as found:
        yield found


async def gone(place: Place) -> None:
    """Look until the deletion is done."""
    for _ in range(ROUNDS):
        await place.look()
        if (await place.deletion())["finished_at"] is not None:
            return
    raise AssertionError(await place.deletion())


class Jammed:
    """An artifact store that breaks over one tenant."""

    def __init__(self, artifacts: Any) -> None:
        self._artifacts = artifacts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._artifacts, name)

    async def purge(self, tenant: UUID) -> None:
        if tenant == TENANT:
            raise ValueError("a defect")
        await self._artifacts.purge(tenant)


async def test_a_deletion_that_breaks_holds_up_no_other(place: Place) -> None:
    await place.condemn("Delete")
    await place.condemn("Delete", tenant=NEIGHBOUR)
    jammed: Any = Jammed(place.equipment.artifacts)
    remover = Remover(msgspec.structs.replace(place.equipment, artifacts=jammed), place.queue)
    for _ in range(ROUNDS):
        await place.scratch.execute("UPDATE hansa.deletions SET held_until = '-infinity'")
        await remover.look()
    assert "tenants" in await place.left()
    assert "tenants" not in await place.left(NEIGHBOUR)


@pytest.mark.parametrize("policy", ["Delete", "Export"])
async def test_a_deletion_that_dies_at_any_statement_is_finished_by_the_next_worker(place: Place, policy: str) -> None:
    await place.condemn("Delete", tenant=NEIGHBOUR)
    await place.scratch.execute("UPDATE hansa.tenants SET state = 'active'; DELETE FROM hansa.deletions")
    neighbour = await place.left(NEIGHBOUR)
    await place.condemn(policy)
    assert set(await place.left()) >= {"tenants", "objects", "events", "values", "outbox", "artifacts", "workspaces", "messages"}
    deaths = 0
    for attempt in range(200):
        place.database.left = 2 + attempt % 6
        try:
            await gone(place)
        except Killed:
            deaths += 1
            continue
        break
    assert deaths > 8, "it was hardly ever killed"
    assert await place.left() == {}
    assert await place.left(NEIGHBOUR) == neighbour
    done = await place.deletion()
    assert (done["step"], done["residue"]) == ("done", "{}")
    if policy == "Export":
        parts = [await place.equipment.artifacts.get_part(f"{done['id']}/{done['export']}", n) for n in range(done["parts"])]
        bundle = place.equipment.workspaces.parent / "bundle.tar"
        bundle.write_bytes(b"".join(parts))
        with bundle.open("rb") as file:
            assert [each.name for each in members(file)] == ["tenant.json", "keys.json", "objects.json"]


async def test_what_is_left_behind_is_found_wherever_it_is_and_goes_too(place: Place) -> None:
    await place.condemn("Delete")
    for _ in range(3):
        await place.look()
        if (await place.deletion())["step"] == "scan":
            break
    # Somebody who was frozen writes a row, an artifact, a file and a message of it now.
    await place.scratch.execute(
        "INSERT INTO hansa.values (tenant_id, digest, size, in_store, body) VALUES ($1, $2, 1, false, '1')", TENANT, b"d" * 32
    )
    await place.equipment.artifacts.put(TENANT, bytes.fromhex(EMPTY), b"")
    (place.equipment.workspaces / str(TENANT)).mkdir()
    await place.queue.publish(messages_sent(place.equipment.region, TENANT.hex), b"{}", message_id=str(uuid4()))
    await place.look()
    found = await place.deletion()
    assert msgspec.json.decode(found["residue"]) == {"values": 1, "storage": 1, "artifacts": 1, "workspaces": 1, "messages": 1}
    assert (found["step"], found["finished_at"]) == ("purge", None)
    await gone(place)
    assert await place.left() == {}


async def test_what_is_written_of_a_tenant_that_is_gone_goes_too(place: Place) -> None:
    await place.condemn("Delete")
    await gone(place)
    await place.scratch.execute(
        "INSERT INTO hansa.values (tenant_id, digest, size, in_store, body) VALUES ($1, $2, 1, false, '1')", TENANT, b"d" * 32
    )
    (place.equipment.workspaces / str(TENANT)).mkdir()
    await place.look()
    assert await place.left() == {}
    # Once there is a tenant of the name again, what it has is its own.
    await place.scratch.add_tenant(TENANT, "again")
    await fill(place.scratch.owner, TENANT, word="own")
    before = await place.left()
    await place.look()
    assert await place.left() == before


async def test_what_breaks_over_a_tenant_that_is_gone_holds_up_no_other(place: Place) -> None:
    for tenant in (TENANT, NEIGHBOUR):
        await place.condemn("Delete", tenant=tenant)
        await gone(place)
    for tenant in (TENANT, NEIGHBOUR):
        await place.scratch.execute(
            "INSERT INTO hansa.values (tenant_id, digest, size, in_store, body) VALUES ($1, $2, 1, false, '1')", tenant, b"d" * 32
        )
    jammed: Any = Jammed(place.equipment.artifacts)
    await Remover(msgspec.structs.replace(place.equipment, artifacts=jammed), place.queue).look()
    assert "values" in await place.left()
    assert await place.left(NEIGHBOUR) == {}


class Renewed(Mortal):
    """A database in which the tenant is made anew while somebody looks for what is left of it."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.database)
        self._place = place

    async def system(self, sql: str, *arguments: Any) -> Any:
        found = await super().system(sql, *arguments)
        if "tenant_residue" in sql:
            await self._place.scratch.add_tenant(TENANT, "again")
            await self._place.equipment.artifacts.put(TENANT, bytes.fromhex(EMPTY), b"")
        return found


async def test_a_tenant_that_is_made_anew_while_one_looks_for_what_was_late_keeps_what_it_has(place: Place) -> None:
    await place.condemn("Delete")
    await gone(place)
    await place.scratch.execute(
        "INSERT INTO hansa.values (tenant_id, digest, size, in_store, body) VALUES ($1, $2, 1, false, '1')", TENANT, b"d" * 32
    )
    place.database = Renewed(place)
    await place.look()
    assert (await place.left())["artifacts"] == 1


async def test_a_tenant_that_is_not_being_deleted_loses_nothing(place: Place) -> None:
    await place.condemn("Delete")
    await place.scratch.execute("UPDATE hansa.tenants SET state = 'active'")
    before = await place.left()
    for verb in ("tenant_purge($1, 100)", "tenant_residue($1)"):
        with pytest.raises(Exception, match="is not being deleted"):
            await place.equipment.database.system(f"SELECT hansa.{verb}", TENANT)
    assert await place.equipment.database.system("SELECT hansa.tenant_remove($1) AS gone", TENANT) == [(False,)]
    assert await place.left() == before


async def test_a_deletion_waits_for_the_runs_that_workers_drive_and_for_the_requests_under_way(place: Place) -> None:
    await place.condemn("Delete")
    await place.scratch.execute("UPDATE hansa.deletions SET requested_at = clock_timestamp()")
    await place.look()
    assert (await place.deletion())["step"] == "stop"
    await place.scratch.execute("UPDATE hansa.deletions SET requested_at = now() - interval '1 minute'")
    await place.scratch.execute("INSERT INTO hansa.sessions (tenant_id, id, agent) VALUES ($1, $2, 'a')", TENANT, UUID(int=7))
    await place.scratch.execute(
        "INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, input, lease_until) "
        "VALUES ($1, $2, $2, 1, 'a', 1, 'running', '1', now() + interval '1 minute')",
        *(TENANT, UUID(int=7)),
    )
    await place.look()
    assert (await place.deletion())["step"] == "stop"
    await place.scratch.execute("UPDATE hansa.runs SET lease_until = now() - interval '1 second'")
    await gone(place)


async def test_one_worker_at_a_time_goes_on_with_a_deletion(place: Place) -> None:
    await place.condemn("Delete")
    (leaving,) = await store.open_deletions(place.equipment.database)
    assert await store.hold(place.equipment.database, leaving.id)
    await place.remover().look()
    assert (await place.deletion())["step"] == "stop"
    await place.look()
    assert (await place.deletion())["step"] == "purge"


async def test_a_member_of_a_bundle_is_never_held_in_memory_whole() -> None:
    lines = [b"%d " % number * 5000 + b"\n" for number in range(200)]

    async def slowly() -> AsyncIterator[bytes]:
        for each in lines:
            yield each

    writer = Writer(0.0)
    written = [writer.member("tenant.json", b"{}")]
    written += [piece async for piece in pieces(writer, "sessions/long.jsonl", slowly())]
    written += [piece async for piece in pieces(writer, "sessions/empty.jsonl", nothing())]
    assert max(len(piece) for piece in written) <= PIECE < len(b"".join(lines)) / 2
    found = [(each.name, each.whole()) for each in members(io.BytesIO(b"".join([*written, writer.end()])))]
    assert found == [("tenant.json", b"{}"), ("sessions/long.jsonl", b"".join(lines)), ("sessions/empty.jsonl", b"")]


async def nothing() -> AsyncIterator[bytes]:
    """A session without a line."""
    for each in ():
        yield each


def bundle(file: IO[bytes], name: str, size: int) -> None:
    """A bundle with one member of so many bytes, made without having it in memory."""
    writer, digest, piece = Writer(0.0), hashlib.sha256(), b"x" * PIECE
    for _ in range(size // PIECE):
        digest.update(piece)
    file.write(writer.member("tenant.json", b"{}") + writer.begin(name, size, digest.digest()))
    for _ in range(size // PIECE):
        file.write(piece)
    file.write(padding(size) + writer.end())
    file.seek(0)


def test_a_session_is_read_piece_by_piece_and_what_is_read_whole_has_a_bound(tmp_path: Path) -> None:
    size = 16 * PIECE
    with (tmp_path / "bundle.tar").open("w+b") as file:
        bundle(file, "sessions/long.jsonl", size)
        tracemalloc.start()
        try:
            read = {each.name: sum(map(len, each.pieces())) for each in members(file)}
            assert read == {"tenant.json": 2, "sessions/long.jsonl": size}
            file.seek(0)
            with pytest.raises(Invalid, match=f"'sessions/long.jsonl' has {size} bytes, .* no more than {size - 1} are read"):
                assert [each.whole(size - 1) for each in members(file)] == []
            assert tracemalloc.get_traced_memory()[1] < 4 * PIECE, "it is refused before it is read"
            file.seek(0)
            assert sum(len(each.whole()) for each in members(file)) == size + 2
            assert tracemalloc.get_traced_memory()[1] > size, "one that is held is seen"
        finally:
            tracemalloc.stop()


def test_what_stands_in_the_place_of_a_member_is_refused() -> None:
    whole = io.BytesIO()
    bundle(whole, "sessions/a.jsonl", PIECE)
    text = whole.getvalue()
    link = tarfile.TarInfo("../../etc/passwd")
    link.type = tarfile.SYMTYPE
    longer = tarfile.TarInfo("a" * 300).tobuf(tarfile.PAX_FORMAT)
    for wrong, told in (
        (text[: len(text) // 2], "ends within 'sessions/a.jsonl'"),
        (text[:1024], "members are missing"),
        (link.tobuf() + text, "is no member"),
        (longer + text, "is no member"),
        (b"x" * 512 + text, "can't be read"),
        (text.replace(b"xx", b"xy", 1), "were changed"),
    ):
        with pytest.raises(Invalid, match=told):
            list(members(io.BytesIO(wrong)))


def test_a_session_beyond_what_a_header_of_old_can_say_is_a_member_too() -> None:
    size = 9 * 1024**3
    assert next(members(io.BytesIO(Writer(0.0).begin("sessions/a.jsonl", size, b"")))).size == size


async def test_a_line_beyond_the_bound_is_refused_with_its_number(tmp_path: Path) -> None:
    async def sent() -> AsyncIterator[bytes]:
        for _ in range(LINE_BYTES // PIECE + 1):
            yield b" " * PIECE

    with importing.spooled(tmp_path) as spool, pytest.raises(Invalid, match=f"line 1: longer than the {LINE_BYTES} bytes"):
        await spool.fill(sent(), 2 * LINE_BYTES)
