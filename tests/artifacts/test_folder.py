"""The artifact store as a folder: whole or not at all, verified, each tenant's apart, and clear about a disk that will not."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest

from hansa.artifacts.content import open_artifacts
from hansa.errors import Damaged, Misconfigured, Unavailable
from hansa.settings import ArtifactSettings

A, B = UUID(int=0xA), UUID(int=0xB)
BODY = b"x" * 300_000
DIGEST = hashlib.sha256(BODY).digest()
WRITER = """
import asyncio, hashlib, sys
from pathlib import Path
from uuid import UUID
from hansa.artifacts.content import open_artifacts
from hansa.settings import ArtifactSettings

async def main():
    async with open_artifacts(ArtifactSettings(), Path(sys.argv[1])) as artifacts:
        for n in range(10**9):
            body = str(n).encode() * 200_000
            await artifacts.put(UUID(int=0xA), hashlib.sha256(body).digest(), body)
            print(n, flush=True)

asyncio.run(main())
"""
SMALL_DISK = """
import asyncio, hashlib, resource, signal, sys
from pathlib import Path
from uuid import UUID
from hansa.artifacts.content import open_artifacts
from hansa.errors import Unavailable
from hansa.settings import ArtifactSettings

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
body = b"x" * 300_000

async def main():
    async with open_artifacts(ArtifactSettings(), Path(sys.argv[1])) as artifacts:
        try:
            await artifacts.put(UUID(int=0xA), hashlib.sha256(body).digest(), body)
        except Unavailable as error:
            print(error.detail)

asyncio.run(main())
"""


def objects(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "artifacts").rglob("*") if path.is_file() and path.parent.name != ".incoming")


async def test_what_was_put_is_got_again_and_again(tmp_path: Path) -> None:
    async with open_artifacts(ArtifactSettings(), tmp_path) as artifacts:
        for _ in range(2):
            await artifacts.put(A, DIGEST, BODY)
            assert await artifacts.get(A, DIGEST) == BODY
        assert [path.relative_to(tmp_path / "artifacts").parts for path in objects(tmp_path)] == [(str(A), DIGEST.hex()[:2], DIGEST.hex())]
        await artifacts.delete(A, DIGEST)
        await artifacts.delete(A, DIGEST)
        assert objects(tmp_path) == []


async def test_another_tenant_finds_nothing_under_the_same_digest(tmp_path: Path) -> None:
    async with open_artifacts(ArtifactSettings(), tmp_path) as artifacts:
        await artifacts.put(A, DIGEST, BODY)
        with pytest.raises(Damaged, match="missing"):
            await artifacts.get(B, DIGEST)
        await artifacts.delete(B, DIGEST)
        assert await artifacts.get(A, DIGEST) == BODY


async def test_a_missing_or_changed_object_is_named(tmp_path: Path) -> None:
    async with open_artifacts(ArtifactSettings(), tmp_path) as artifacts:
        await artifacts.put(A, DIGEST, BODY)
        (path,) = objects(tmp_path)
        path.write_bytes(BODY[:-1] + b"y")
        with pytest.raises(Damaged, match=f"^the artifact sha256:{DIGEST.hex()} has been changed: its [0-9]+ bytes"):
            await artifacts.get(A, DIGEST)
        path.unlink()
        with pytest.raises(Damaged, match=f"^the artifact sha256:{DIGEST.hex()} is missing$"):
            await artifacts.get(A, DIGEST)
        await artifacts.put(A, DIGEST, BODY)
        assert await artifacts.get(A, DIGEST) == BODY


async def test_a_body_under_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    async with open_artifacts(ArtifactSettings(), tmp_path) as artifacts:
        with pytest.raises(ValueError, match="is not the SHA-256"):
            await artifacts.put(A, hashlib.sha256(b"other").digest(), BODY)
    assert objects(tmp_path) == []


def test_a_killed_writer_leaves_only_whole_objects(tmp_path: Path) -> None:
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = int(writer.stdout.readline())
            time.sleep(0.02)
            writer.send_signal(signal.SIGKILL)
            told = writer.stdout.read().split(b"\n")[:-1]
        acknowledged = max([acknowledged, *map(int, told)])
        found = {path.name: path.read_bytes() for path in objects(tmp_path)}
        assert [name for name, body in found.items() if hashlib.sha256(body).hexdigest() != name] == []
        wanted = {hashlib.sha256(str(n).encode() * 200_000).hexdigest() for n in range(acknowledged + 1)}
        assert wanted <= found.keys()


async def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    async with open_artifacts(ArtifactSettings(), tmp_path):
        pass
    old, fresh = tmp_path / "artifacts/.incoming/old", tmp_path / "artifacts/.incoming/fresh"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    async with open_artifacts(ArtifactSettings(), tmp_path):
        assert (old.exists(), fresh.exists()) == (False, True)


async def test_a_disk_that_refuses_is_unavailable_and_leaves_nothing(tmp_path: Path) -> None:
    async with open_artifacts(ArtifactSettings(), tmp_path) as artifacts:
        (tmp_path / "artifacts" / str(A)).write_text("a file where a folder must be")
        with pytest.raises(Unavailable, match=r"can't be written: (Not a directory|File exists)"):
            await artifacts.put(A, DIGEST, BODY)
        (tmp_path / "artifacts" / str(B) / DIGEST.hex()[:2] / DIGEST.hex()).mkdir(parents=True)
        with pytest.raises(Unavailable, match="can't be read: Is a directory"):
            await artifacts.get(B, DIGEST)
        with pytest.raises(Unavailable, match="can't be written: Is a directory"):
            await artifacts.put(B, DIGEST, BODY)
        assert list((tmp_path / "artifacts/.incoming").iterdir()) == []


def test_a_full_disk_is_unavailable(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", SMALL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "can't be written: File too large" in ended.stdout
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


async def test_many_writers_of_one_object_agree(tmp_path: Path) -> None:
    async with open_artifacts(ArtifactSettings(), tmp_path) as artifacts:
        await asyncio.gather(*(artifacts.put(A, DIGEST, BODY) for _ in range(20)))
        assert await artifacts.get(A, DIGEST) == BODY
        assert len(objects(tmp_path)) == 1


@pytest.mark.parametrize("url", ["ftp://a/b", "s3:///nothing", "file://host/x", "https://bucket.example.org"])
async def test_a_url_that_is_no_store_is_refused_at_start(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misconfigured, match="HANSA_ARTIFACTS_URL is"):
        async with open_artifacts(ArtifactSettings(url=url), tmp_path):
            pass


@pytest.mark.parametrize("form", ["{}", "file://{}"])
async def test_a_folder_is_named_by_path_or_url(tmp_path: Path, form: str) -> None:
    async with open_artifacts(ArtifactSettings(url=form.format(tmp_path / "a b")), tmp_path / "unused") as artifacts:
        await artifacts.put(A, DIGEST, BODY)
    assert (tmp_path / "a b" / str(A)).is_dir()


async def test_a_folder_that_cannot_be_made_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("in the way")
    with pytest.raises(Misconfigured, match="can't be used"):
        async with open_artifacts(ArtifactSettings(), tmp_path):
            pass
