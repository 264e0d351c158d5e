"""A real S3 server for tests: versitygw over a folder, built from the Go module beside this file into `build/`.

The first build compiles it and takes a minute or two; Go's own cache makes the next ones short.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from hansa.settings import ArtifactSettings
from stack import free_port

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "build" / "versitygw"
BUCKET = "hansa"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "made-up-for-tests"}


def build() -> None:
    """Build the server, at the version that go.mod pins."""
    PROGRAM.parent.mkdir(exist_ok=True)
    command = ["go", "build", "-buildvcs=false", "-mod=readonly", "-o", str(PROGRAM), "github.com/versity/versitygw/cmd/versitygw"]
    ended = subprocess.run(command, cwd=Path(__file__).parent / "s3server", capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"the S3 server was not built:\n{ended.stderr}"


class S3Server:
    """A running server; `folder` is where its objects lie as files, so that a test can damage them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / BUCKET
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self._root = folder
        self._process = self._started()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, *, bucket: str = BUCKET) -> ArtifactSettings:
        return ArtifactSettings(url=f"s3://{bucket}/some/prefix", endpoint=self.endpoint, timeout_seconds=3.0)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def restart(self) -> None:
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        keys = {"ROOT_ACCESS_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
        command = [str(PROGRAM), "--port", f"127.0.0.1:{self.port}", "--quiet", "posix", str(self._root)]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env={**os.environ, **keys}, stdin=quiet, stdout=quiet, stderr=quiet)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            try:
                httpx2.get(self.endpoint, trust_env=False, verify=False, timeout=2)
                return process
            except httpx2.TransportError:
                assert process.poll() is None, "the S3 server has ended"
                time.sleep(0.05)
        process.kill()
        raise AssertionError("the S3 server does not answer")


@contextmanager
def open_s3(folder: Path) -> Iterator[S3Server]:
    """A server over a folder, built if need be."""
    build()
    server = S3Server(folder)
    try:
        yield server
    finally:
        server.kill()
