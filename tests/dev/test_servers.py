"""The embedded servers: real ones, whole after every kind of death, closed to strangers, for root and others alike."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dev.stand_ins import eventually, plain_environ, unprivileged
from hansa.bus.keys import Kind, parse_seed
from hansa.dev import account, postgres, processes
from hansa.dev.failures import FolderDamaged, FolderUnreachable, PortTaken
from hansa.dev.folder import CURRENT, DataFolder
from hansa.dev.launch import Launch, run_to_end
from hansa.dev.nats import EmbeddedNats
from hansa.dev.ports import listen
from hansa.dev.postgres import EmbeddedPostgres
from hansa.dev.servers import Servers, embedded_servers
from hansa.dev.supervisor import Supervisor

CAP_DAC_READ_SEARCH = 1 << 2

RUN_THEM = """
import asyncio, os, sys
from pathlib import Path
from hansa.dev.servers import embedded_servers

async def main():
    async with embedded_servers(Path(sys.argv[1])) as servers:
        print("ready", os.geteuid(), Path(sys.argv[1], "postgres", "data").stat().st_uid, flush=True)
        await asyncio.sleep(float(sys.argv[2]))

asyncio.run(main())
"""


@asynccontextmanager
async def database(servers: Servers) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(servers.postgres.url(password=True), timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


class Wire:
    """NATS as bytes: what a client would say and hear."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def login(self, credentials: str = "", **options: str) -> bytes:
        """The answer to a login, with a credentials file if there is one, and a ping."""
        info = json.loads((await self.reader.readline()).removeprefix(b"INFO "))
        if credentials:
            token, seed = (line for line in credentials.splitlines() if line and not line.startswith("-"))
            signature = base64.b64encode(parse_seed(seed, Kind.USER).sign(info["nonce"].encode())).decode()
            options |= {"jwt": token, "sig": signature}
        self.writer.write(b"CONNECT " + json.dumps({"verbose": False, **options}).encode() + b"\r\nPING\r\n")
        return await self.reader.readline()

    async def ask(self, subject: str, payload: bytes) -> Any:
        """The JSON answer to a request."""
        self.writer.write(b"SUB inbox 1\r\nUNSUB 1 1\r\nPUB %s inbox %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
        header = await self.reader.readline()
        assert header.startswith(b"MSG inbox"), header
        return json.loads(await self.reader.readexactly(int(header.split()[-1]) + 2))


@asynccontextmanager
async def wire(servers: Servers) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", servers.nats.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def messaging(servers: Servers) -> AsyncIterator[Wire]:
    async with wire(servers) as connection:
        assert await connection.login(servers.nats.credentials_file.read_text()) == b"PONG\r\n"
        yield connection


def pid_of(servers: Servers, name: str) -> int:
    return int((servers.folder.run / f"{name}.pid").read_text())


async def restarted(servers: Servers, name: str, before: int) -> None:
    path = servers.folder.run / f"{name}.pid"
    await eventually(lambda: path.exists() and int(path.read_text()) != before)
    await (servers.postgres if name == "postgres" else servers.nats).ready()


async def test_a_killed_postgresql_is_back_on_its_port_with_its_data(warm: Path) -> None:
    async with embedded_servers(warm) as servers:
        async with database(servers) as connection:
            await connection.execute("CREATE TABLE kept (n int)")
            await connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
            busy = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
            await asyncio.sleep(0.05)
            before, port = pid_of(servers, "postgres"), servers.postgres.port
            os.kill(before, signal.SIGKILL)
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await busy
        await restarted(servers, "postgres", before)
        assert servers.postgres.port == port
        async with database(servers) as connection:
            assert await connection.fetchval("SELECT count(*) FROM kept") == 1000
            assert await connection.fetchval("SELECT inet_server_port()") == port


async def test_a_killed_nats_is_back_on_its_port_with_its_messages(warm: Path) -> None:
    async with embedded_servers(warm) as servers:
        async with messaging(servers) as connection:
            made = await connection.ask("$JS.API.STREAM.CREATE.KEPT", b'{"name": "KEPT", "subjects": ["kept.>"], "storage": "file"}')
            assert "error" not in made
            for number in range(1, 21):
                assert (await connection.ask(f"kept.{number}", b"x"))["seq"] == number
            before, port = pid_of(servers, "nats"), servers.nats.port
            os.kill(before, signal.SIGKILL)
        await restarted(servers, "nats", before)
        assert servers.nats.port == port
        async with messaging(servers) as connection:
            assert (await connection.ask("$JS.API.STREAM.INFO.KEPT", b""))["state"]["messages"] == 20


async def test_data_outlives_a_stop_and_a_start(warm: Path) -> None:
    async with embedded_servers(warm) as servers, database(servers) as connection:
        await connection.execute("CREATE TABLE kept (n int)")
    async with embedded_servers(warm) as servers, database(servers) as connection:
        assert await connection.fetchval("SELECT count(*) FROM kept") == 0
        assert await connection.fetchval("SELECT pg_is_in_recovery()") is False
    assert "not properly shut down" not in (warm / "logs" / "postgres.log").read_text()


async def test_postgresql_is_durable_closed_and_speaks_utf8(warm: Path) -> None:
    async with embedded_servers(warm) as servers:
        async with database(servers) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
                assert await connection.fetchval(f"SHOW {setting}") == "on", setting
            assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
            assert await connection.fetchval("SHOW unix_socket_directories") == ""
            assert await connection.fetchval("SHOW shared_buffers") == "32MB"
            assert await connection.fetchval("SELECT datcollate || datlocale FROM pg_database WHERE datname = 'postgres'") == "CC.UTF-8"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            assert await connection.fetchval("SELECT upper('ö')") == "Ö"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(servers.postgres.url(password=False), password="guess", timeout=10)
        assert servers.folder.secret("postgres-password") not in servers.postgres.url(password=False)
        assert not (warm / "postgres" / "initdb-password").exists()


async def test_nats_asks_for_its_credentials_and_keeps_its_limits(warm: Path) -> None:
    async with embedded_servers(warm) as servers:
        async with messaging(servers) as connection:
            assert (await connection.ask("$JS.API.INFO", b""))["type"] == "io.nats.jetstream.api.v1.account_info_response"
            connection.writer.write(b"PUB big %d\r\n" % ((1 << 20) + 1))
            assert await connection.reader.readline() == b"-ERR 'Maximum Payload Violation'\r\n"
        async with wire(servers) as stranger:
            assert await stranger.login(auth_token="guess") == b"-ERR 'Authorization Violation'\r\n"
        for private in (servers.nats.credentials_file, servers.nats.operator_file):
            assert private.stat().st_mode & 0o777 == 0o600
        assert (warm / "nats" / "nats.conf").stat().st_mode & 0o777 == 0o600


async def test_a_folder_of_a_version_with_one_account_for_all_goes_on_in_operator_mode(warm: Path) -> None:
    token, streams = warm / "secrets" / "nats-token", warm / "nats" / "jetstream" / "$G" / "streams" / "hansa-local-messages"
    for new in ("nats-operator", "nats-platform.creds"):
        (warm / "secrets" / new).unlink()
    shutil.rmtree(warm / "nats" / "accounts")
    token.write_text("guess")
    streams.mkdir(parents=True)
    async with embedded_servers(warm) as servers:
        async with messaging(servers) as connection:
            assert (await connection.ask("$JS.API.INFO", b""))["streams"] == 0
        assert not token.exists()
        assert not streams.parents[1].exists()


async def test_the_keys_of_nats_are_made_once_and_outlive_the_loss_of_all_else(warm: Path) -> None:
    operator = warm / "secrets" / "nats-operator"
    made = operator.read_text()
    shutil.rmtree(warm / "nats")
    (warm / "secrets" / "nats-platform.creds").unlink()
    async with embedded_servers(warm) as servers, messaging(servers):
        assert operator.read_text() == made
    operator.write_text("not a seed")
    with pytest.raises(FolderDamaged, match="nats-operator: not the seed of a NATS key"):
        async with embedded_servers(warm):
            pass


async def test_the_folder_version_names_the_postgresql_that_is_installed() -> None:
    status, output = await run_to_end(Launch(argv=(str(postgres.binaries() / "postgres"), "--version"), env={}))
    assert status == 0
    assert f"(PostgreSQL) {CURRENT.postgres}." in output


async def test_an_interrupted_initdb_is_made_anew(place: Path) -> None:
    data = place / "data"
    program = (sys.executable, "-c", RUN_THEM, str(data), "60")
    first = await asyncio.create_subprocess_exec(*program)
    try:
        await eventually(lambda: bool([*data.glob("postgres/initdb-*.unfinished/base")]))
    finally:
        first.kill()
        await first.wait()
    assert not (data / "postgres" / "data").exists()
    async with embedded_servers(data) as servers, database(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    assert [path.name for path in (data / "postgres").iterdir()] == ["data"]


async def test_a_postgresql_left_behind_is_ended_first(warm: Path) -> None:
    place = warm / "postgres"
    program = postgres.binaries() / "postgres"
    become = account.server_account(place, program=program)
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    launch = Launch(argv=(str(program), "-D", str(place / "data"), "-p", str(port)), env={"LC_ALL": "C"}, account=become)
    left = asyncio.create_task(run_to_end(launch))
    await eventually(lambda: postgres.accepts_logins(port))
    assert len(processes.working_in(place / "data", program="postgres")) > 1
    async with embedded_servers(warm) as servers, database(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1
        status, output = await asyncio.wait_for(left, 10)
        assert "immediate shutdown" in output, (status, output)


async def test_a_pid_file_that_names_another_process_is_not_believed(warm: Path) -> None:
    place = warm / "postgres"
    become = account.server_account(place, program=postgres.binaries() / "postgres")
    argv = ("sh", "-c", 'cd "$0" && exec sleep 30', str(place))
    other = asyncio.create_task(run_to_end(Launch(argv=argv, env=dict(os.environ), account=become)))
    await eventually(lambda: bool(processes.working_in(place, program="sleep")))
    (pid,) = processes.working_in(place, program="sleep")
    stale = warm / "postgres" / "data" / "postmaster.pid"
    stale.write_text(f"{pid}\n{warm}/postgres/data\n1700000000\n5432\n\n127.0.0.1\n1 1\nready\n")
    async with embedded_servers(warm) as servers, database(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    assert not other.done()
    other.cancel()
    await asyncio.wait({other})


async def test_a_database_without_its_password_is_refused(warm: Path) -> None:
    (warm / "secrets" / "postgres-password").unlink()
    with pytest.raises(FolderDamaged, match="postgres-password, is not"):
        async with embedded_servers(warm):
            pass
    assert not (warm / "secrets" / "postgres-password").exists()


@pytest.mark.parametrize("server", [EmbeddedPostgres, EmbeddedNats])
async def test_a_chosen_port_that_is_taken_is_refused(warm: Path, server: type[EmbeddedPostgres] | type[EmbeddedNats]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        async with DataFolder(warm) as folder, Supervisor(folder, report=lambda _stage, _detail: None) as supervisor:
            with pytest.raises(PortTaken, match=str(port)):
                await server(folder, supervisor, port=port).start()


async def test_a_folder_below_a_private_one_works(place: Path) -> None:
    private = place / "private"
    private.mkdir(mode=0o700)
    async with embedded_servers(private / "data") as servers, database(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1
        owner = (private / "data" / "postgres" / "data").stat().st_uid
        assert owner != 0
        assert private.stat().st_mode & 0o777 == 0o700


async def test_the_capability_to_pass_is_given_only_where_a_folder_is_in_the_way(warm: Path) -> None:
    program = postgres.binaries() / "postgres"
    for mode in (0o755, 0o700):
        warm.parent.chmod(mode)
        become = account.server_account(warm / "postgres", program=program)
        passes = become is not None and become.passes
        assert passes or os.geteuid() != 0 or mode == 0o755
        async with embedded_servers(warm) as servers:
            lines = Path(f"/proc/{pid_of(servers, 'postgres')}/status").read_text().splitlines()
        (effective,) = (int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
        assert effective == (CAP_DAC_READ_SEARCH if passes else 0)


async def test_root_without_a_way_to_pass_is_told_which_folder_is_in_the_way(warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = postgres.binaries() / "postgres"
    monkeypatch.setenv("PATH", "/nowhere")
    if os.geteuid() != 0:
        assert account.server_account(warm / "postgres", program=program) is None
        return
    with pytest.raises(FolderUnreachable, match=r"user nobody, as whom it would run, can't pass through /") as refused:
        account.server_account(warm / "postgres", program=program)
    assert "chmod o+x" in refused.value.hint


def test_a_user_that_is_not_root_runs_them_as_itself(place: Path) -> None:
    home = place / "home"
    home.mkdir()
    if os.geteuid() == 0:
        place.chmod(0o755)
        shutil.chown(home, "nobody")
    argv = unprivileged((sys.executable, "-c", RUN_THEM, str(home / "data"), "0"))
    done = subprocess.run(argv, env=plain_environ(home), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done
    word, user, owner = done.stdout.split()
    assert word == "ready"
    assert user == owner != "0"
