"""`hansa up` as a whole: real servers and stand-ins for Hansa's processes, started, killed and stopped like a user would."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
from pathlib import Path

import asyncpg
import msgspec
import pytest

from dev.stand_ins import SERVE, all_gone, commands, environ, eventually
from hansa.dev import processes
from hansa.dev.environment import role_url, shown
from hansa.dev.failures import FolderInUse, FolderTooNew, PortTaken, ServerDied
from hansa.dev.folder import DataFolder, ReadyFile
from hansa.dev.instance import Down, Status, detach, down, status
from hansa.dev.invocation import command_line
from hansa.dev.ports import listen
from hansa.dev.up import UpOptions, readiness, up


def reap(pid: int) -> None:
    """A detached stack is nobody's child but ours, for we started it."""
    os.waitpid(pid, 0)


def address(ready: ReadyFile) -> tuple[str, int]:
    host, _, port = ready.url.removeprefix("http://").partition(":")
    return host, int(port)


def pids(found: Status) -> dict[str, int]:
    return {child.name: child.pid for child in found.children}


def seen(options: UpOptions, name: str) -> dict[str, str]:
    return json.loads((options.data / f"seen-{name}.json").read_text())


async def query(options: UpOptions, ready: ReadyFile, sql: str) -> object:
    password = DataFolder(options.data).secret("postgres-password")
    connection = await asyncpg.connect(ready.postgres, password=password, timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close(timeout=5)


async def test_a_detached_stack_is_ready_tells_of_itself_and_stops_whole(options: UpOptions) -> None:
    ready = await detach(msgspec.structs.replace(options, workers=2))
    assert await readiness(*address(ready))
    assert ready.api_key_file == str(options.data / "api-key")
    assert json.loads((options.data / "ready.json").read_text()).keys() == {
        *("url", "api_key_file", "postgres", "nats", "pid", "started_at"),
    }
    found = status(options.data)
    assert found.running
    assert found.ready
    assert found.url == ready.url
    assert found.pid == ready.pid
    assert 5_000_000 < found.rss < 31_000_000
    assert [child.name for child in found.children] == ["nats", "postgres", "serve", "worker-1", "worker-2"]
    assert all(child.alive and child.restarts == 0 and child.rss > 0 and 0 <= child.uptime < 60 for child in found.children)
    assert os.getsid(ready.pid) == ready.pid

    assert await down(options.data) == Down.STOPPED
    reap(ready.pid)
    await all_gone(pids(found).values())
    assert not (options.data / "ready.json").exists()
    assert list((options.data / "run").iterdir()) == []
    assert await down(options.data) == Down.NOT_RUNNING
    assert status(options.data) == Status(running=False, ready=False, pid=0, url="", rss=0, started_at=None, children=())
    assert "database system is shut down" in (options.data / "logs" / "postgres.log").read_text()


async def test_a_second_stack_over_the_folder_is_refused(options: UpOptions) -> None:
    ready = await detach(options)
    with pytest.raises(FolderInUse, match=f"in use by process {ready.pid}"):
        await detach(options)
    with pytest.raises(FolderInUse, match=f"in use by process {ready.pid}"):
        await up(options, lambda _stage, _detail: None)
    assert await readiness(*address(ready))
    await down(options.data)
    reap(ready.pid)


async def test_a_killed_supervisor_takes_everything_with_it_and_the_next_start_recovers(options: UpOptions) -> None:
    ready = await detach(options)
    await query(options, ready, "CREATE TABLE kept AS SELECT generate_series(1, 100) n")
    found = pids(status(options.data))
    assert len(found) == 4
    os.kill(ready.pid, signal.SIGKILL)
    reap(ready.pid)
    await all_gone(found.values())
    assert (options.data / "ready.json").exists()
    assert not status(options.data).running
    assert await down(options.data) == Down.NOT_RUNNING

    again = await detach(options)
    assert again.pid != ready.pid
    assert await query(options, again, "SELECT count(*) FROM kept") == 100
    await down(options.data)
    reap(again.pid)


async def test_everything_killed_at_once_comes_up_again(options: UpOptions) -> None:
    ready = await detach(options)
    await query(options, ready, "CREATE TABLE kept AS SELECT generate_series(1, 100) n")
    for pid in (ready.pid, *pids(status(options.data)).values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # Not waited for: the next start meets whatever is still dying.
    again = await detach(options)
    reap(ready.pid)
    assert await query(options, again, "SELECT count(*) FROM kept") == 100
    await down(options.data)
    reap(again.pid)


async def test_each_killed_process_is_back_and_the_ports_stay(options: UpOptions) -> None:
    ready = await detach(options)
    before = pids(status(options.data))
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        now = status(options.data).children
        return len(now) == 4 and all(child.alive and child.pid != before[child.name] for child in now)

    await eventually(back)
    await eventually(lambda: readiness(*address(ready)))
    with socket.create_connection(address(ready), timeout=5) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert client.recv(4096).endswith(str(pids(status(options.data))["serve"]).encode())

    async def answers() -> bool:
        try:
            return await query(options, ready, "SELECT 1") == 1
        except (OSError, asyncpg.PostgresError):
            return False

    await eventually(answers)
    assert all(child.restarts == 1 for child in status(options.data).children)
    await down(options.data)
    reap(ready.pid)


async def test_the_admin_url_is_for_migrate_alone_and_the_rest_is_for_all(options: UpOptions) -> None:
    chosen = msgspec.structs.replace(options, environ=environ(ANTHROPIC_API_KEY="made-up", HANSA_REGION="north", HANSA_API_KEY_FILE="/x"))
    ready = await detach(chosen)
    await eventually(lambda: (options.data / "seen-worker.json").exists())
    migrate, serve, worker = (seen(options, name) for name in ("migrate", "serve", "worker"))
    await down(options.data)
    reap(ready.pid)
    secrets = options.data / "secrets"
    assert migrate["HANSA_DATABASE_URL"] == ready.postgres.replace("postgres@", f"postgres:{(secrets / 'postgres-password').read_text()}@")
    for env in (migrate, serve, worker):
        app, system = ((secrets / f"{name}-password").read_text() for name in ("app", "system"))
        assert env["HANSA_DATABASE_APP_URL"] == ready.postgres.replace("postgres@", f"hansa_app:{app}@")
        assert env["HANSA_DATABASE_SYSTEM_URL"] == ready.postgres.replace("postgres@", f"hansa_system:{system}@")
        assert env["HANSA_NATS_URL"] == ready.nats
        assert env["HANSA_NATS_CREDS_FILE"] == str(secrets / "nats-platform.creds")
        assert env["HANSA_KEY_PEPPER_FILE"] == str(secrets / "key-pepper")
        assert env["HANSA_API_KEY_FILE"] == str(options.data / "api-key")
        assert env["HANSA_DATA_DIR"] == str(options.data)
        assert env["HANSA_REGION"] == "north"
        assert env["ANTHROPIC_API_KEY"] == "made-up"
    for env in (serve, worker):
        assert "HANSA_DATABASE_URL" not in env
        assert (secrets / "postgres-password").read_text() not in "".join(env.values())
    assert serve["HANSA_NATS_OPERATOR_FILE"] == str(secrets / "nats-operator")
    assert "HANSA_NATS_OPERATOR_FILE" not in worker
    assert "HANSA_SERVER_FD" in serve
    assert "HANSA_SERVER_FD" not in worker


async def test_servers_of_your_own_are_used_instead(place: Path) -> None:
    own = environ(
        HANSA_DATABASE_URL="postgresql://me:word@db.example:5433/shop?sslmode=require", HANSA_NATS_URL="nats://me:word@mq.example:4222"
    )
    options = UpOptions(data=place / "data", port=0, environ=own, commands=commands(), ready_seconds=15)
    ready = await detach(options)
    await eventually(lambda: (options.data / "seen-worker.json").exists())
    names = list(pids(status(options.data)))
    migrate, serve = seen(options, "migrate"), seen(options, "serve")
    await down(options.data)
    reap(ready.pid)
    assert names == ["serve", "worker-1"]
    assert ready.postgres == "postgresql://me@db.example:5433/shop?sslmode=require"
    assert ready.nats == "nats://me@mq.example:4222"
    assert migrate["HANSA_DATABASE_URL"] == own["HANSA_DATABASE_URL"]
    app = (options.data / "secrets" / "app-password").read_text()
    assert serve["HANSA_DATABASE_APP_URL"] == f"postgresql://hansa_app:{app}@db.example:5433/shop?sslmode=require"
    assert serve["HANSA_NATS_URL"] == own["HANSA_NATS_URL"]
    assert not any(name in serve for name in ("HANSA_NATS_TOKEN_FILE", "HANSA_NATS_CREDS_FILE", "HANSA_NATS_OPERATOR_FILE"))
    assert "HANSA_DATABASE_URL" not in serve


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40ss@h:1/d", "postgresql://u@h:1/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("nats://token@h:4222", "nats://token@h:4222"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_a_role_url_keeps_the_place_and_changes_the_user() -> None:
    assert role_url("postgresql://u:p@[::1]:5/d?x=1", "hansa_app", "s") == "postgresql://hansa_app:s@[::1]:5/d?x=1"


async def test_a_taken_port_is_refused_before_anything_is_started(options: UpOptions) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken by process {os.getpid()}"):
            await up(msgspec.structs.replace(options, port=port), lambda _stage, _detail: None)
        with pytest.raises(ServerDied, match=f"^port {port} on 127.0.0.1 is taken") as refused:
            await detach(msgspec.structs.replace(options, port=port))
    assert refused.value.exit_code == 69
    assert not (options.data / "seen-migrate.json").exists()


async def test_a_failed_migration_ends_it_with_the_same_exit_status_and_its_last_words(options: UpOptions) -> None:
    failing = commands(migrate="import sys; print('column is missing', file=sys.stderr); sys.exit(65)")
    told: list[str] = []
    assert await up(msgspec.structs.replace(options, commands=failing), lambda stage, detail: told.append(f"{stage}: {detail}")) == 65
    assert told[-1].startswith("migrate: failed with exit status 65")
    assert told[-1].endswith("column is missing")
    assert not DataFolder(options.data).holder()


async def test_a_detached_start_fails_with_the_words_and_the_exit_status_of_the_foreground_and_none_of_an_older_start(
    options: UpOptions,
) -> None:
    (options.data / "version.json").write_text('{"format": 99, "postgres": 18}')
    (options.data / "logs").mkdir(exist_ok=True)
    (options.data / "logs" / "up.log").write_text("2026-01-02T03:04:05Z failed: an older start\n")
    with pytest.raises(FolderTooNew) as foreground:
        await up(options, lambda _stage, _detail: None)
    with pytest.raises(ServerDied) as detached:
        await detach(options)
    assert (detached.value.detail, detached.value.hint) == (foreground.value.detail, foreground.value.hint)
    assert detached.value.exit_code == foreground.value.exit_code == 78

    (options.data / "version.json").unlink()
    (options.data / "postgres").rename(options.data / "elsewhere")
    failing = commands(migrate="import sys; print('column is missing', file=sys.stderr); sys.exit(65)")
    with pytest.raises(ServerDied, match=r"exit status 65; its last lines:[\s\S]*column is missing") as migrating:
        await detach(msgspec.structs.replace(options, commands=failing))
    assert migrating.value.exit_code == 65
    assert "older start" not in migrating.value.detail


async def test_a_detached_start_that_is_broken_off_leaves_nothing_running(options: UpOptions) -> None:
    late = commands(serve=SERVE.replace('b"200 OK" if', 'b"200 OK" if os.path.exists("/nowhere/at/all") and'))
    starting = asyncio.create_task(detach(msgspec.structs.replace(options, commands=late)))
    await eventually(lambda: len(pids(status(options.data))) == 4)
    begun = pids(status(options.data)).values()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not status(options.data).running
    await all_gone(begun)


async def test_a_control_plane_that_refuses_to_start_ends_it_with_its_reason(options: UpOptions) -> None:
    refusing = commands(
        serve="import sys; sys.exit('row-level security is off') if 0 else print('row-level security is off'); sys.exit(78)"
    )
    with pytest.raises(ServerDied, match="serve ended with exit status 78; its last lines:\n  row-level security is off"):
        await up(msgspec.structs.replace(options, commands=refusing), lambda _stage, _detail: None)
    assert not DataFolder(options.data).holder()
    assert processes.working_in(options.data / "postgres" / "data", program="postgres") == []


async def test_it_is_not_ready_before_the_control_plane_says_so(options: UpOptions) -> None:
    late = commands(serve=SERVE.replace('b"200 OK" if', 'b"200 OK" if os.path.exists(os.environ["HANSA_DATA_DIR"] + "/go") and'))
    starting = asyncio.create_task(detach(msgspec.structs.replace(options, commands=late)))
    await eventually(lambda: len(pids(status(options.data))) == 4)
    await asyncio.sleep(0.3)
    now = status(options.data)
    assert now.running
    assert not now.ready
    assert not starting.done()
    (options.data / "go").touch()
    ready = await starting
    assert status(options.data).ready
    await down(options.data)
    reap(ready.pid)


@pytest.mark.parametrize("moment", ["postgres/initdb-*", "run/postgres.pid", "seen-migrate.json", "seen-serve.json"])
async def test_told_to_stop_at_any_moment_of_its_start_it_stops_whole(options: UpOptions, moment: str) -> None:
    if moment == "postgres/initdb-*":
        shutil.rmtree(options.data / "postgres")
    process = await asyncio.create_subprocess_exec(*command_line(options), stdout=asyncio.subprocess.PIPE)
    await eventually(lambda: bool([*options.data.glob(moment)]))
    process.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert b"stop: everything has stopped" in output
    assert list((options.data / "run").iterdir()) == []
    assert processes.working_in(options.data / "postgres" / "data", program="postgres") == []


async def test_a_stack_that_does_not_stop_in_time_is_killed(options: UpOptions) -> None:
    deaf = commands(worker="import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(60)")
    ready = await detach(msgspec.structs.replace(options, commands=deaf, grace_seconds=60))
    found = pids(status(options.data))
    await asyncio.sleep(0.2)
    assert await down(options.data, grace=0.5) == Down.KILLED
    reap(ready.pid)
    await all_gone(found.values())
