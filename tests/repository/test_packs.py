"""Packs that a server may have made to exhaust us. Real packs are let through; bombs are refused in little memory."""

import io
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import pytest

from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.packs import MAX_OBJECT_BYTES, judge
from repository.repos import GitRepo, agents


def head(kind: int, size: int) -> bytes:
    first, rest = size & 15, size >> 4
    found = bytearray([kind << 4 | first | (0x80 if rest else 0)])
    while rest:
        found.append(rest & 0x7F | (0x80 if rest >> 7 else 0))
        rest >>= 7
    return bytes(found)


def varint(size: int) -> bytes:
    found = bytearray()
    while size >> 7:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*found, size])


def pack(*objects: bytes, count: int | None = None) -> io.BytesIO:
    return io.BytesIO(b"PACK\0\0\0\2" + (len(objects) if count is None else count).to_bytes(4, "big") + b"".join(objects) + b"\0" * 20)


def test_a_real_pack_is_let_through(repo: GitRepo, tmp_path: Path) -> None:
    for number in range(5):
        repo.commit({f"agents/{each}.yaml": f"# {number}\n" * 200 for each in range(20)} | agents(f"a{number}"))
    made = subprocess.run(["git", "pack-objects", "--all", "--stdout"], cwd=repo.folder, input=b"", capture_output=True, check=True).stdout
    assert judge(io.BytesIO(made)) == int(repo.git("rev-list", "--all", "--objects", "--count"))


@pytest.mark.parametrize(
    "bomb",
    [
        pack(head(3, 10_000_000_000) + zlib.compress(b"")),
        pack(head(3, 100) + zlib.compress(b"\0" * 50_000_000)),
        pack(head(6, 30) + b"\x05" + zlib.compress(varint(10) + varint(10**12) + b"\x90" * 16)),
        pack(head(7, 30) + b"\1" * 20 + zlib.compress(varint(10) + varint(10**12) + b"\x90" * 16)),
        pack(count=4_000_000_000),
        pack(b"\xb1" + b"\xff" * 1_000_000),
        pack(*[head(3, MAX_OBJECT_BYTES) + zlib.compress(b"\0" * MAX_OBJECT_BYTES, 1)] * 4),
    ],
    ids=["says-large", "is-larger", "delta", "thin-delta", "many", "endless", "together"],
)
def test_a_bomb_is_refused_in_little_memory(bomb: io.BytesIO) -> None:
    tracemalloc.start()
    with pytest.raises((RepositoryRefused, RepositoryAway)) as caught:
        judge(bomb, most=2 * MAX_OBJECT_BYTES)
    assert caught.value.reason in (Reason.TOO_LARGE, Reason.DAMAGED)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("cut", [0, 3, 11, 14, 20, 40])
def test_a_pack_that_breaks_off_is_damaged(cut: int) -> None:
    whole = pack(head(3, 5) + zlib.compress(b"hello"), head(3, 3000) + zlib.compress(bytes(range(250)) * 12)).getvalue()
    with pytest.raises(RepositoryAway):
        judge(io.BytesIO(whole[: max(0, cut)]))
    with pytest.raises(RepositoryAway):
        judge(io.BytesIO(b"\xff" * 40))
    assert judge(io.BytesIO(whole)) == 2
