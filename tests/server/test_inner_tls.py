"""Mutual TLS between our processes and their servers: a real NATS that takes nothing else, and a PostgreSQL behind the same."""

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import pytest

from hansa.dev import nats
from server.authority import Authority
from server.front import Front, open_front
from stack import Process, Stack, free_port


class Servers(msgspec.Struct, frozen=True):
    """An authority, the certificate that our processes show, and where the servers are that ask for it."""

    authority: Authority
    shown: tuple[Path, Path]
    nats: str
    postgres: Front


@pytest.fixture(scope="module")
def servers(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """NATS over mutual TLS, and the same before the stack's PostgreSQL."""
    folder = tmp_path_factory.mktemp("inner")
    authority = Authority(folder)
    certificate, key = authority.issue("server")
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca_file)
    trust.load_cert_chain(certificate, key)
    trust.verify_mode = ssl.CERT_REQUIRED
    port = free_port()
    tls = {"cert_file": str(certificate), "key_file": str(key), "ca_file": str(authority.ca_file), "verify": True}
    configuration, said = folder / "nats.conf", folder / "nats.log"
    configuration.write_bytes(msgspec.json.encode({"host": "127.0.0.1", "port": port, "jetstream": {"store_dir": str(folder)}, "tls": tls}))
    with (
        said.open("ab") as log,
        subprocess.Popen([nats.program(), "--config", configuration], stderr=log) as server,
        open_front(stack.servers.postgres.port, trust) as front,
    ):
        try:
            while b"Server is ready" not in said.read_bytes():
                assert server.poll() is None, said.read_text()
                time.sleep(0.05)
            yield Servers(authority, authority.issue("hansa"), f"tls://localhost:{port}", front)
        finally:
            server.terminate()


def over_tls(url: str, servers: Servers) -> str:
    """A database URL that insists on mutual TLS, as the documentation has it."""
    parts = urlsplit(url)
    options = {"sslmode": "verify-full", "sslrootcert": str(servers.authority.ca_file)}
    options |= {"sslcert": str(servers.shown[0]), "sslkey": str(servers.shown[1])}
    place = f"{parts.netloc.rpartition('@')[0]}@localhost:{servers.postgres.port}"
    return parts._replace(netloc=place, query=urlencode(options)).geturl()


def environ(stack: Stack, servers: Servers) -> dict[str, str]:
    """Everything over mutual TLS."""
    return {
        **{each: over_tls(stack.environ[each], servers) for each in ("HANSA_DATABASE_APP_URL", "HANSA_DATABASE_SYSTEM_URL")},
        "HANSA_NATS_URL": servers.nats,
        "HANSA_NATS_TOKEN_FILE": "",
        "HANSA_NATS_CREDS_FILE": "",
        "HANSA_NATS_OPERATOR_FILE": "",
        "HANSA_NATS_CA_FILE": str(servers.authority.ca_file),
        "HANSA_NATS_CERT_FILE": str(servers.shown[0]),
        "HANSA_NATS_KEY_FILE": str(servers.shown[1]),
    }


async def test_control_plane_and_worker_reach_their_servers_by_mutual_tls(stack: Stack, servers: Servers) -> None:
    process = stack.serve(**environ(stack, servers))
    async with stack.client(process) as client:
        checks = {each["name"]: each["ok"] for each in (await client.get("/readyz")).json()["checks"]}
        assert checks["nats"]
        assert checks["postgres"]
    before = len(servers.postgres.seen)
    worker = stack.worker(**environ(stack, servers))
    assert len(servers.postgres.seen) > before
    assert set(servers.postgres.seen) == {"hansa"}
    worker.stop()
    process.stop()


def test_hansa_migrates_over_tls(stack: Stack, servers: Servers) -> None:
    env = {**stack.environ, "HANSA_DATABASE_URL": over_tls(stack.admin_url, servers)}
    process = Process("migrate", env, stack.folder / "migrate-tls.log")
    assert process.wait(60) == 0, process.log.read_text()


def wrong(stack: Stack, servers: Servers, stranger: Path) -> dict[str, dict[str, str]]:
    """Environments in each of which something is missing, or is a stranger's."""
    right = {**stack.environ, **environ(stack, servers), "HANSA_SERVER_PORT": "0", "HANSA_DATABASE_TIMEOUT_SECONDS": "1"}
    url = urlsplit(right["HANSA_DATABASE_APP_URL"])
    query = dict(parse_qsl(url.query))
    queries = {
        "database-plain": {"sslmode": "disable"},
        "database-authority": {**query, "sslrootcert": str(stranger)},
        "database-certificate": {name: value for name, value in query.items() if name not in ("sslcert", "sslkey")},
    }
    return {
        **{name: {**right, "HANSA_DATABASE_APP_URL": url._replace(query=urlencode(each)).geturl()} for name, each in queries.items()},
        "nats-authority": {**right, "HANSA_NATS_CA_FILE": str(stranger)},
        "nats-certificate": {**right, "HANSA_NATS_CERT_FILE": ""},
        "nats-key": {**right, "HANSA_NATS_KEY_FILE": "nowhere.pem"},
    }


def test_without_a_certificate_or_with_another_authority_nothing_is_reached(stack: Stack, servers: Servers, tmp_path: Path) -> None:
    environs = wrong(stack, servers, Authority(tmp_path).ca_file)
    processes = {name: Process("serve", env, stack.folder / f"{name}.log") for name, env in environs.items()}  # side by side: they wait
    for name, process in processes.items():
        assert process.wait(40) in (69, 78), f"{name}: {process.log.read_text()}"
        assert ("PostgreSQL" if name.startswith("database") else "NATS") in process.log.read_text(), name
