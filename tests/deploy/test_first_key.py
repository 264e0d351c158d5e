"""The first key of an installation whose file can't be written to: it is made before, and let in by the migration."""

import asyncio
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from db.scratch import Scratch, open_scratch
from hansa.auth import keys
from hansa.errors import Misconfigured
from hansa.migration import migrate
from stack import Stack

LIVE = "SELECT id, roles, name FROM hansa.api_keys WHERE revoked_at IS NULL"


@pytest.fixture
async def empty(stack: Stack, tmp_path: Path) -> AsyncIterator[Scratch]:
    async with open_scratch(stack, tmp_path, migrated=False) as found:
        yield found


def test_a_key_is_made_without_a_server() -> None:
    made = subprocess.run([sys.executable, "-m", "hansa", "keys", "make"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert keys.parse(made.strip()).id in made


async def test_a_key_that_was_made_before_is_let_in_and_stays(empty: Scratch) -> None:
    text = keys.make("live")[0]
    empty.key_file.write_text(text)
    empty.key_file.chmod(0o400)
    outcomes = await asyncio.gather(*(migrate(empty.settings) for _ in range(3)))
    assert sorted(told.rpartition(" is ")[2] for _, told in outcomes) == ["good from now on", "in order", "in order"]
    assert empty.key_file.read_text() == text
    assert [(row["id"], row["roles"]) for row in await empty.fetch(LIVE)] == [(text.split("_")[2], ["platform-admin"])]


async def test_another_key_in_the_file_takes_the_place_of_the_one_before(empty: Scratch) -> None:
    await migrate(empty.settings)
    first = empty.key_file.read_text()
    second = keys.make("live")[0]
    empty.key_file.write_text(second)
    assert "is good from now on" in (await migrate(empty.settings))[1]
    assert [row["id"] for row in await empty.fetch(LIVE)] == [second.split("_")[2]]
    assert first.split("_")[2] != second.split("_")[2]


async def test_a_revoked_key_is_not_let_in_again(empty: Scratch) -> None:
    await migrate(empty.settings)
    revoked = empty.key_file.read_text()
    await empty.execute("UPDATE hansa.api_keys SET revoked_at = now()")
    assert "a new API key was written" in (await migrate(empty.settings))[1]
    assert empty.key_file.read_text() != revoked
    assert revoked.split("_")[2] not in [row["id"] for row in await empty.fetch(LIVE)]


def base62(number: int) -> str:
    """A checksum as keys end in it."""
    return "".join(keys.BASE62[number // 62**place % 62] for place in range(5, -1, -1))


async def test_a_key_with_another_secret_is_not_taken_for_the_one_of_its_id(empty: Scratch) -> None:
    await migrate(empty.settings)
    known = empty.key_file.read_text().strip()
    other = keys.make("live")[0]
    forged = f"{known[: known.rindex('_') + 1]}{other[other.rindex('_') + 1 : -6]}"
    empty.key_file.write_text(f"{forged}{base62(zlib.crc32(forged.encode()))}")
    assert "a new API key was written" in (await migrate(empty.settings))[1]


async def test_a_file_that_can_be_neither_used_nor_written_is_named(empty: Scratch, tmp_path: Path) -> None:
    nowhere = msgspec.structs.replace(empty.settings.key, file=str(tmp_path / "nothing" / "key"))
    with pytest.raises(Misconfigured, match=r"the API key can't be written to .*/nothing/key"):
        await migrate(msgspec.structs.replace(empty.settings, key=nowhere))
