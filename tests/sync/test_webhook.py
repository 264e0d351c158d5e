"""Calls that say that something is new: refused without the secret, harmless with it. Behind the server of the control plane."""

import asyncio
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from hansa.apply.sync.model import CONTROL_PLANE_AWAY, SYNCED, Record, Report
from hansa.apply.sync.service import Pace, Service
from hansa.cli.webhook import Receiver
from hansa.errors import Misconfigured
from hansa.server.listening import serve_http
from hansa.settings import ServerSettings, Settings

SECRET = "a secret of twenty bytes"


class Passes:
    """Never asked."""

    async def once(self, *, full: bool = False) -> Report:
        raise AssertionError


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET + "\n")
    return tmp_path / "secret"


@pytest.fixture
def service() -> Service:
    return Service(Passes(), Pace(), drawn=lambda: 0.5)


@pytest.fixture
async def client(service: Service, secret: Path) -> AsyncIterator[httpx2.AsyncClient]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = Settings(server=msgspec.structs.replace(ServerSettings(), fd=listener.detach()))
    stopping = asyncio.Event()
    serving = asyncio.create_task(serve_http(Receiver(service, str(secret), max_body=1000), settings, stopping))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as found:
        yield found
    stopping.set()
    await serving


def signed(body: bytes, key: str = SECRET) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}


async def test_a_call_with_the_secret_makes_us_look_and_again_does_no_harm(client: httpx2.AsyncClient, service: Service) -> None:
    body = b'{"ref": "refs/heads/main"}'
    for headers in (signed(body), signed(body), {"x-gitlab-token": SECRET}):
        service.news.clear()
        answer = await client.post("/webhook", content=body, headers=headers)
        assert (answer.status_code, service.news.is_set()) == (202, True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(b"other"),
        signed(b"{}", "another secret of bytes"),
        {"x-hub-signature-256": "sha256="},
        {"x-hub-signature-256": ""},
        {"x-hub-signature": "sha1=0"},
        {"x-gitlab-token": ""},
        {"x-gitlab-token": SECRET[:-1]},
        {"x-gitlab-token": SECRET.upper()},
        {"authorization": f"Bearer {SECRET}"},
    ],
)
async def test_a_call_without_the_secret_is_refused_and_wakes_nobody(
    client: httpx2.AsyncClient, service: Service, headers: dict[str, str]
) -> None:
    answer = await client.post("/webhook", content=b"{}", headers=headers)
    assert (answer.status_code, service.news.is_set()) == (403, False)
    assert SECRET not in answer.text


async def test_a_body_that_is_too_large_is_refused_while_it_comes(client: httpx2.AsyncClient, service: Service) -> None:
    body = b"x" * 1001

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert (await client.post("/webhook", content=body, headers=signed(body))).status_code == 413
    assert (await client.post("/webhook", content=pieces(), headers=signed(body))).status_code == 413
    assert not service.news.is_set()
    assert (await client.post("/webhook", content=body[1:], headers=signed(body[1:]))).status_code == 202


async def test_a_renewed_secret_counts_from_the_next_call_on(client: httpx2.AsyncClient, secret: Path) -> None:
    secret.write_text("another secret of bytes")
    assert (await client.post("/webhook", content=b"{}", headers=signed(b"{}"))).status_code == 403
    assert (await client.post("/webhook", content=b"{}", headers=signed(b"{}", "another secret of bytes"))).status_code == 202
    secret.unlink()
    assert (await client.post("/webhook", content=b"{}", headers=signed(b"{}"))).status_code == 503


async def test_probes_say_how_it_is_and_other_paths_are_not_there(client: httpx2.AsyncClient, service: Service) -> None:
    assert [(await client.get(path)).status_code for path in ("/livez", "/readyz", "/", "/metrics", "/webhook")] == [
        200,
        503,
        404,
        404,
        405,
    ]
    service.report = Report(record=Record(origin="o", state=SYNCED, commit="c"), waiting=("one",), files=2, objects=3)
    assert (await client.get("/readyz")).json() == {"state": SYNCED, "commit": "c", "files": 2, "objects": 3, "errors": 0, "waiting": 1}
    service.report = Report(record=Record(origin="o", state=CONTROL_PLANE_AWAY))
    assert [(await client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 503]


def test_a_secret_that_is_none_is_refused_at_the_start(service: Service, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short\n")
    for path in ("short", "gone"):
        with pytest.raises(Misconfigured):
            Receiver(service, str(tmp_path / path))
