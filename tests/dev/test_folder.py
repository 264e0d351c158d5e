"""The data folder: one holder, one version, private secrets, and refusals that name the path and the user."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.stand_ins import plain_environ, unprivileged
from hansa import clock
from hansa.dev.failures import FolderDamaged, FolderInUse, FolderTooNew, FolderTooOld, FolderUnreachable
from hansa.dev.folder import DataFolder, ReadyFile, Versions

OPEN_IT = """
import asyncio, sys
from pathlib import Path
from hansa.dev.folder import DataFolder
from hansa.errors import HansaError

async def main():
    async with DataFolder(Path(sys.argv[1])):
        pass

try:
    asyncio.run(main())
except HansaError as error:
    print(type(error).__name__, error.detail)
    sys.exit(error.exit_code)
"""


async def test_a_second_instance_is_refused_with_the_pid_of_the_first(place: Path) -> None:
    async with DataFolder(place):
        with pytest.raises(FolderInUse, match=f"{place} is in use by process {os.getpid()}$") as refused:
            await DataFolder(place).__aenter__()
    assert refused.value.exit_code == 75
    assert "hansa down" in refused.value.hint
    async with DataFolder(place):
        pass


async def test_looking_at_a_folder_does_not_keep_it(place: Path) -> None:
    folder = DataFolder(place)
    assert folder.holder() is None
    async with folder:
        holder = DataFolder(place).holder()
        assert holder is not None
        assert holder.pid == os.getpid()
    assert folder.holder() is None


@pytest.mark.parametrize("newer", [Versions(format=2, postgres=18), Versions(format=1, postgres=19)])
async def test_a_folder_of_a_newer_version_is_refused_naming_both(place: Path, newer: Versions) -> None:
    async with DataFolder(place, versions=newer):
        pass
    with pytest.raises(
        FolderTooNew, match=f"format {newer.format} with PostgreSQL {newer.postgres}.* format 1 with PostgreSQL 18"
    ) as refused:
        await DataFolder(place).__aenter__()
    assert refused.value.exit_code == 78
    assert "Upgrade Hansa" in refused.value.hint
    async with DataFolder(place, versions=newer):
        pass


async def test_an_older_format_is_upgraded_step_by_step(place: Path) -> None:
    async with DataFolder(place, versions=Versions(format=1, postgres=18)):
        pass
    steps: list[int] = []

    def step(number: int) -> Callable[[Path], None]:
        return lambda path: steps.append(number if path == place else 0)

    upgrades = {number: step(number) for number in (1, 2)}
    for _ in range(2):
        async with DataFolder(place, versions=Versions(format=3, postgres=18), upgrades=upgrades):
            assert steps == [1, 2]


@pytest.mark.parametrize("version", [Versions(format=2, postgres=18), Versions(format=1, postgres=19)])
async def test_what_can_not_be_upgraded_is_refused(place: Path, version: Versions) -> None:
    async with DataFolder(place):
        pass
    with pytest.raises(FolderTooOld):
        await DataFolder(place, versions=version, upgrades={}).__aenter__()


async def test_a_database_without_a_version_is_refused_and_left_as_it_is(place: Path) -> None:
    (place / "postgres" / "data").mkdir(parents=True)
    (place / "postgres" / "data" / "PG_VERSION").write_text("18\n")
    with pytest.raises(FolderDamaged, match=r"version\.json is missing") as refused:
        await DataFolder(place).__aenter__()
    assert refused.value.exit_code == 78
    assert not (place / "version.json").exists()
    (place / "postgres" / "data" / "PG_VERSION").unlink()
    async with DataFolder(place):
        assert (place / "version.json").exists()


async def test_an_unreadable_version_is_refused(place: Path) -> None:
    (place / "version.json").write_text('{"format": ')
    with pytest.raises(FolderDamaged, match=r"version\.json"):
        await DataFolder(place).__aenter__()


async def test_secrets_are_private_different_and_kept(place: Path) -> None:
    async with DataFolder(place) as folder:
        first = {name: folder.secret(name) for name in ("a", "b")}
        assert {path.stat().st_mode & 0o777 for path in folder.secrets.iterdir()} == {0o600}
        assert folder.secrets.stat().st_mode & 0o777 == 0o700
        assert first["a"] != first["b"]
        assert all(len(value) == 43 for value in first.values())
        (folder.secrets / "a").chmod(0o644)
    async with DataFolder(place) as folder:
        assert {name: folder.secret(name) for name in ("a", "b")} == first
        assert (folder.secrets / "a").stat().st_mode & 0o777 == 0o600


async def test_an_empty_secret_is_refused(place: Path) -> None:
    async with DataFolder(place) as folder:
        (folder.secrets / "a").touch(mode=0o600)
        with pytest.raises(FolderDamaged, match="secrets/a is empty"):
            folder.secret("a")


async def test_a_ready_file_is_believed_only_while_its_writer_holds_the_folder(place: Path) -> None:
    ready = ReadyFile(url="http://h", api_key_file="k", postgres="p", nats="n", pid=os.getpid(), started_at=clock.now())
    async with DataFolder(place) as folder:
        assert folder.read_ready() is None
        folder.write_ready(ready)
        assert folder.read_ready() == ready
        content = folder.ready_file.read_bytes()
    assert not folder.ready_file.exists()
    folder.ready_file.write_bytes(content)
    assert folder.read_ready() is None
    async with DataFolder(place):
        assert not folder.ready_file.exists()


def test_a_folder_without_rights_is_refused_naming_path_and_user(place: Path) -> None:
    home = place / "home"
    home.mkdir()
    locked = place / "locked"
    locked.mkdir(mode=0o500)
    program = (sys.executable, "-c", OPEN_IT, str(locked / "data"))
    done = subprocess.run(unprivileged(program), env=plain_environ(home), capture_output=True, text=True, timeout=20, check=False)
    user = "nobody" if os.geteuid() == 0 else ""
    assert done.stdout.startswith(f"FolderUnreachable user {user}"), done
    assert f"can't use {locked / 'data'}: Permission denied" in done.stdout
    assert done.returncode == 73


def test_a_folder_of_another_user_is_refused(place: Path) -> None:
    home = place / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-c", OPEN_IT, str(place / "data")], check=True, timeout=20)
    if os.geteuid() == 0:
        program = unprivileged((sys.executable, "-c", OPEN_IT, str(place / "data")))
    else:
        (place / "data" / "lock").chmod(0o400)
        program = (sys.executable, "-c", OPEN_IT, str(place / "data"))
    done = subprocess.run(program, env=plain_environ(home), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 73, done
    assert "data/lock: Permission denied" in done.stdout


async def test_a_file_in_the_way_is_named(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(FolderUnreachable, match="file"):
        await DataFolder(place / "file").__aenter__()
