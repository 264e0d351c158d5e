"""A repository behind ssh: a program in the place of `ssh` that keeps what it was called with, and runs what it was told to run."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.git import GitSource
from hansa.apply.repository.location import Location, locate
from hansa.apply.repository.mirror import Mirror
from hansa.apply.repository.settings import GitSettings
from hansa.apply.repository.ssh import SshRemote
from repository.repos import GitRepo, agents

RECORDING = """#!/usr/bin/env python3
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps({{"argv": sys.argv[1:], "environ": sorted(os.environ)}}) + "\\n")
{act}
"""
OBEY = 'os.execvp("sh", ["sh", "-c", sys.argv[-1]])'


class Ssh:
    """A stand-in for the program."""

    def __init__(self, folder: Path, act: str) -> None:
        self.log = folder / "ssh.log"
        self.program = folder / "ssh"
        self.program.write_text(RECORDING.format(log=str(self.log), act=act))
        self.program.chmod(0o700)

    @property
    def calls(self) -> list[dict[str, list[str]]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def opened(location: Location, ssh: Ssh, settings: GitSettings | None = None, seconds: float = 20.0) -> Iterator[GitSource]:
    found = settings or GitSettings()
    with closing(Mirror(None)) as mirror:
        yield GitSource(
            location, found, mirror, SshRemote(location, found, program=str(ssh.program), seconds=seconds), asked=("main", "", "none")
        )


async def test_a_repository_is_read_by_ssh_with_arguments_that_nobody_adds_to(
    repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit(agents("a"))
    monkeypatch.setenv("HANSA_API_KEY", "key-of-the-test")
    ssh = Ssh(tmp_path, OBEY)
    settings = GitSettings(ssh_key_file=str(tmp_path / "a key"), known_hosts_file=str(tmp_path / "known hosts"))
    with opened(locate(f"ssh://git@git.example.org:2222{repo.folder}"), ssh, settings) as source:
        tree = await source.tree(await source.look())
    assert list(tree.files) == ["agents/a.yaml"]
    for call in ssh.calls:
        argv = call["argv"]
        options = {argv[index + 1] for index, word in enumerate(argv) if word == "-o"}
        assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"} <= options
        assert f'IdentityFile="{tmp_path}/a key"' in options
        assert f'UserKnownHostsFile="{tmp_path}/known hosts"' in options
        assert argv[-3:] == ["--", "git@git.example.org", f"git-upload-pack '{repo.folder}'"]
        assert "HANSA_API_KEY" not in call["environ"]


async def test_a_path_can_not_end_its_quotes(repo: GitRepo, tmp_path: Path) -> None:
    ssh = Ssh(tmp_path, OBEY)
    location = locate(f"ssh://git@git.example.org{tmp_path}/x'; touch '{tmp_path}/touched")
    with opened(location, ssh) as source, pytest.raises((RepositoryAway, RepositoryRefused)):
        await source.look()
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("git@git.example.org: Permission denied (publickey).", Reason.DENIED),
        ("Host key verification failed.", Reason.DENIED),
        ("ERROR: Repository not found.", Reason.GONE),
        ("ssh: connect to host git.example.org port 22: Connection refused", Reason.UNREACHABLE),
        ("x" * 1_000_000, Reason.UNREACHABLE),
    ],
    ids=["key", "host-key", "no-repository", "refused", "much"],
)
async def test_what_ssh_says_is_understood(tmp_path: Path, said: str, reason: Reason) -> None:
    ssh = Ssh(tmp_path, f"sys.stderr.write({said!r}); sys.exit(255)")
    with opened(locate("ssh://git@git.example.org/agents"), ssh) as source, pytest.raises((RepositoryAway, RepositoryRefused)) as caught:
        await source.look()
    assert caught.value.reason == reason
    assert len(caught.value.detail) < 1000


async def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    ssh = Ssh(tmp_path, "import time; time.sleep(60)")
    started = time.monotonic()
    with opened(locate("ssh://git@git.example.org/agents"), ssh, seconds=0.5) as source, pytest.raises(RepositoryAway) as caught:
        await source.look()
    assert caught.value.reason == Reason.UNREACHABLE
    assert time.monotonic() - started < 10


async def test_without_the_program_it_is_said_that_it_is_missing(tmp_path: Path) -> None:
    ssh = Ssh(tmp_path, OBEY)
    ssh.program.unlink()
    with opened(locate("ssh://git@git.example.org/agents"), ssh) as source, pytest.raises(RepositoryRefused, match="can't be started"):
        await source.look()
