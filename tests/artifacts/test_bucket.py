"""The artifact store behind an S3 API, on a real server: kept, verified, each tenant's apart, and clear when the server will not."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from artifacts.s3 import CREDENTIALS, S3Server, open_s3
from hansa.artifacts.content import open_artifacts, place_of
from hansa.audit.checkpoints import Checkpoint, Outside, fault, signed
from hansa.audit.signing import Signer
from hansa.errors import Damaged, Unavailable

pytestmark = pytest.mark.timeout(600)  # the first build of the server

A, B = UUID(int=0xA), UUID(int=0xB)
BODY = b"y" * 6_000_000
DIGEST = hashlib.sha256(BODY).digest()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    folder = Path(tempfile.mkdtemp(prefix="hansa-s3-"))
    with open_s3(folder) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


async def test_what_was_put_is_got_until_it_is_deleted(s3: S3Server, tmp_path: Path) -> None:
    async with open_artifacts(s3.settings(), tmp_path) as artifacts:
        for _ in range(2):
            await artifacts.put(A, DIGEST, BODY)
            assert await artifacts.get(A, DIGEST) == BODY
        assert (s3.folder / "some/prefix" / str(A) / DIGEST.hex()[:2] / DIGEST.hex()).stat().st_size == len(BODY)
        with pytest.raises(Damaged, match=f"the artifact sha256:{DIGEST.hex()} is missing"):
            await artifacts.get(B, DIGEST)
        for _ in range(2):
            await artifacts.delete(A, DIGEST)
        with pytest.raises(Damaged, match="missing"):
            await artifacts.get(A, DIGEST)
    assert list(tmp_path.iterdir()) == []


async def test_a_changed_object_is_named(s3: S3Server, tmp_path: Path) -> None:
    async with open_artifacts(s3.settings(), tmp_path) as artifacts:
        await artifacts.put(A, DIGEST, BODY)
        (s3.folder / "some/prefix" / str(A) / DIGEST.hex()[:2] / DIGEST.hex()).write_bytes(BODY[:-1] + b"!")
        with pytest.raises(Damaged, match=f"{DIGEST.hex()} has been changed"):
            await artifacts.get(A, DIGEST)


async def test_a_server_that_is_away_is_unavailable_and_serves_again_when_it_is_back(s3: S3Server, tmp_path: Path) -> None:
    async with open_artifacts(s3.settings(), tmp_path) as artifacts:
        await artifacts.put(A, DIGEST, BODY)
        s3.kill()
        try:
            for operation in (artifacts.put(A, DIGEST, BODY), artifacts.get(A, DIGEST), artifacts.delete(A, DIGEST)):
                with pytest.raises(Unavailable, match="s3://hansa/some/prefix"):
                    await asyncio.wait_for(operation, 10)
        finally:
            s3.restart()
        assert await artifacts.get(A, DIGEST) == BODY


async def test_a_bucket_that_is_not_there_is_unavailable(s3: S3Server, tmp_path: Path) -> None:
    async with open_artifacts(s3.settings(bucket="other"), tmp_path) as artifacts:
        with pytest.raises(Unavailable, match="s3://other/some/prefix"):
            await artifacts.put(A, DIGEST, BODY)


async def test_wrong_credentials_are_unavailable_and_not_told(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-made-up-one")
    async with open_artifacts(s3.settings(), tmp_path) as artifacts:
        with pytest.raises(Unavailable, match="privileges") as told:
            await artifacts.get(A, DIGEST)
    assert "another-made-up-one" not in str(told.value)


async def test_checkpoints_of_the_audit_trail_lie_in_a_bucket_too(s3: S3Server, tmp_path: Path) -> None:
    outside = Outside(place_of(s3.settings(), tmp_path))
    signer = Signer(b"a secret that is made for tests")
    assert await outside.numbers(str(A)) == []
    for seq in (12, 3):
        await outside.keep(signed(Checkpoint(tenant=str(A), seq=seq, at="t", hash="00", made_at="t"), signer))
    assert await outside.numbers(str(A)) == [3, 12]
    assert await outside.numbers(str(B)) == []
    found = await outside.read(str(A), 12)
    assert found is not None
    assert fault(found, str(A), {signer.public_key}) == ""
    assert await outside.read(str(B), 12) is None
