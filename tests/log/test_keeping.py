"""Values are kept once a tenant, the largest in the artifact store, verified whenever they are read, and never removed under a writer."""

import asyncio
import hashlib
from uuid import UUID

import asyncpg
import pytest

from hansa.errors import Damaged, Unavailable
from hansa.runs.log import store
from hansa.runs.log.keeping import Values
from log.library import FROM_BYTES, HOUR, A, B, Library

MIDDLING, LARGE = "m" * 5_000, "l" * 20_000


async def test_a_value_is_stored_once_however_often_it_is_said(library: Library) -> None:
    sessions = [await library.session(A, HOUR) for _ in range(3)]
    for session in sessions:
        for seq in range(2, 12):
            await library.keep(A, session, seq, text=MIDDLING, output=MIDDLING)
    assert (await library.count("values"), await library.count("value_refs")) == (1, 3)
    assert await library.count("events") == 33


async def test_large_values_are_in_the_artifact_store_and_others_in_the_database(library: Library) -> None:
    session = await library.session(A, HOUR)
    small, large = await library.keep(A, session, 2, text=MIDDLING), await library.keep(A, session, 3, text=LARGE)
    rows = await library.scratch.fetch("SELECT digest, in_store, body, size FROM hansa.values ORDER BY size")
    assert [(row["digest"], row["in_store"], row["body"] is None, row["size"]) for row in rows] == [
        (small[0], False, False, len(MIDDLING) + 2),
        (large[0], True, True, len(LARGE) + 2),
    ]
    assert library.objects() == set(large)
    assert await library.values.load(A, [*small, *large]) == {small[0]: f'"{MIDDLING}"'.encode(), large[0]: f'"{LARGE}"'.encode()}


async def test_another_tenant_cannot_load_a_value_whose_digest_it_knows(library: Library) -> None:
    digests = [*await library.keep(A, await library.session(A, HOUR), 2, text=MIDDLING, output=LARGE)]
    assert [type(body) for body in (await library.values.load(A, digests)).values()] == [bytes, bytes]
    for body in (await library.values.load(B, digests)).values():
        assert isinstance(body, Damaged)
        assert "is missing" in body.detail


async def test_a_changed_or_missing_value_is_told_by_its_digest(library: Library) -> None:
    digests = [*await library.keep(A, await library.session(A, HOUR), 2, text=MIDDLING, output=LARGE, more=MIDDLING + "!")]
    await library.scratch.execute("UPDATE hansa.values SET body = replace(body, 'mm', 'mn') WHERE size = $1", len(MIDDLING) + 2)
    await library.scratch.execute("DELETE FROM hansa.values WHERE size = $1", len(MIDDLING) + 3)
    for path in library.folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"other")
    for digest, body in (await library.values.load(A, digests)).items():
        assert isinstance(body, Damaged)
        assert digest.hex() in body.detail


async def test_what_is_loaded_unchanged_is_no_damage(library: Library) -> None:
    """The control of the test above: nothing is touched, and nothing is told."""
    digests = [*await library.keep(A, await library.session(A, HOUR), 2, text=MIDDLING, output=LARGE)]
    assert not [body for body in (await library.values.load(A, digests)).values() if isinstance(body, Damaged)]


async def test_a_damaged_object_is_mended_when_its_value_is_put_again(library: Library) -> None:
    session = await library.session(A, HOUR)
    (digest,) = await library.keep(A, session, 2, text=LARGE)
    (path,) = [path for path in library.folder.rglob("*") if path.is_file()]
    path.write_bytes(b"other")
    await library.keep(A, session, 3, text=LARGE)
    assert isinstance((await library.values.load(A, [digest]))[digest], bytes)


async def test_nothing_refers_to_a_value_that_the_artifact_store_refuses(library: Library) -> None:
    session = await library.session(A, HOUR)
    (library.folder / str(A)).write_text("in the way")
    with pytest.raises(Unavailable):
        await library.keep(A, session, 2, text=LARGE)
    assert await library.count("value_refs") == 0
    assert await library.count("events") == 1


async def test_a_changed_bound_loses_nothing(library: Library) -> None:
    session = await library.session(A, HOUR)
    digests = await library.keep(A, session, 2, text=MIDDLING, output=LARGE)
    for bound in (100, FROM_BYTES * 10):
        library.values = Values(library.database, library.artifacts, bound)
        assert await library.keep(A, session, bound, text=MIDDLING, output=LARGE) == digests
        assert not [body for body in (await library.values.load(A, digests)).values() if isinstance(body, Damaged)]


async def test_many_writers_of_the_same_values_do_not_stop_each_other(library: Library) -> None:
    sessions = [await library.session(A, HOUR) for _ in range(6)]
    fields = {f"f{n}": f"{n}" + MIDDLING for n in range(20)}
    await asyncio.wait_for(asyncio.gather(*(library.keep(A, session, 2, **fields) for session in sessions)), 20)
    assert (await library.count("values"), await library.count("value_refs")) == (20, 120)


async def test_a_value_that_is_just_being_removed_is_waited_for_and_kept_anew(library: Library) -> None:
    await library.keep(A, None, 0, text=LARGE)
    await library.age_values(3)
    session = await library.session(A, HOUR)
    async with library.database.system_transaction() as connection:
        gone, _ = await store.remove_values(connection, (UUID(int=0), b""), 10)
        assert len(gone) == 1
        writing = asyncio.create_task(library.keep(A, session, 2, text=LARGE))
        await asyncio.sleep(0.3)
        assert not writing.done()
        await library.artifacts.delete(*gone[0])
    (digest,) = await asyncio.wait_for(writing, 5)
    assert library.objects() == {digest}
    assert isinstance((await library.values.load(A, [digest]))[digest], bytes)


async def test_a_value_that_is_put_again_is_as_good_as_new(library: Library) -> None:
    (digest,) = await library.keep(A, None, 0, text=MIDDLING)
    await library.age_values(3)
    await library.keep(A, None, 0, text=MIDDLING)
    async with library.database.system_transaction() as connection:
        await store.remove_values(connection, (UUID(int=0), b""), 10)
    assert await library.digests() == {digest}


async def test_a_kept_value_is_never_rewritten_by_the_app(library: Library) -> None:
    await library.keep(A, None, 0, text=MIDDLING)
    other = hashlib.sha256(b"x").digest()
    async with library.database.tenant(A) as connection:
        for sql in (
            "UPDATE hansa.values SET body = '1'",
            "UPDATE hansa.values SET digest = $1",
            "DELETE FROM hansa.values WHERE digest <> $1",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await connection.execute(sql, *([other] if "$1" in sql else []))
