"""TLS of the control plane: what is spoken, how a certificate is renewed without closing anything, who is asked for one."""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from api.sse import opened
from cli.command import hansa
from samples import SCRIPTED, agent
from server.authority import Authority
from server.wire import Answered, Wire, dialled, get
from stack import Process, Stack


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> tuple[Path, Path]:
    """The server's certificate and key, which tests replace."""
    return authority.issue("first", to="server")


@pytest.fixture(scope="module")
def plane(stack: Stack, authority: Authority, files: tuple[Path, Path]) -> Process:
    """A control plane that speaks TLS."""
    return stack.serve_over_tls(
        authority.trust(),
        HANSA_SERVER_TLS_CERT_FILE=str(files[0]),
        HANSA_SERVER_TLS_KEY_FILE=str(files[1]),
        HANSA_SERVER_TLS_LOOK_SECONDS="0.1",
    )


@pytest.fixture(scope="module")
def strict(stack: Stack, authority: Authority, files: tuple[Path, Path]) -> Process:
    """One that lets in only whom its authority knows, and looks for other files only when it is told to."""
    return stack.serve_over_tls(
        authority.trust(shown=authority.issue("prober")),
        HANSA_SERVER_TLS_CERT_FILE=str(authority.issue("strict")[0]),
        HANSA_SERVER_TLS_KEY_FILE=str(authority.ca_file.with_name("strict.key")),
        HANSA_SERVER_TLS_CLIENT_CA_FILE=str(authority.ca_file),
        HANSA_SERVER_TLS_LOOK_SECONDS="3600",
    )


@asynccontextmanager
async def greeted(process: Process, trust: ssl.SSLContext) -> AsyncIterator[tuple[Wire, str]]:
    """A connection over TLS, and the name in the certificate that was shown."""
    async with dialled(process, ssl=trust) as wire:
        subject = wire.writer.get_extra_info("peercert")["subject"]
        yield wire, dict(each[0] for each in subject)["commonName"]


async def shows(process: Process, trust: ssl.SSLContext, name: str) -> None:
    """Wait until new connections are greeted with a certificate."""
    async with asyncio.timeout(10):
        while True:
            async with greeted(process, trust) as (_, found):
                if found == name:
                    return
            await asyncio.sleep(0.05)


async def test_answers_over_tls_bind_browsers_to_it(plane: Process, authority: Authority, api: httpx2.AsyncClient) -> None:
    async with greeted(plane, authority.trust()) as (wire, _):
        await wire.send(get())
        assert (await wire.answer()).headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"
    assert "strict-transport-security" not in (await api.get("/livez")).headers


def speaking(authority: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks one version only."""
    trust = authority.trust()
    trust.set_ciphers("DEFAULT:@SECLEVEL=0")
    trust.minimum_version = trust.maximum_version = version
    return trust


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
async def test_tls_is_spoken(plane: Process, authority: Authority, version: ssl.TLSVersion) -> None:
    async with greeted(plane, speaking(authority, version)) as (wire, _):
        assert wire.writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_before_1_2_is_not_spoken(plane: Process, authority: Authority) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await whoami(plane, speaking(authority, ssl.TLSVersion.TLSv1_1))


async def whoami(process: Process, trust: ssl.SSLContext) -> Answered:
    """The answer to a request without a key."""
    async with greeted(process, trust) as (wire, _):
        await wire.send(get("/v1/whoami"))
        return await wire.answer()


async def test_who_speaks_plain_http_gets_no_answer(plane: Process) -> None:
    async with dialled(plane) as wire:
        await wire.send(get())
        assert b"HTTP" not in await wire.ended()


async def test_a_new_certificate_is_shown_and_no_stream_breaks(
    plane: Process, authority: Authority, stack: Stack, shared_worker: Process
) -> None:
    async with stack.client(plane) as client:
        objects = [{"manifest": SCRIPTED}, {"manifest": agent("renewed")}]
        assert (await client.post("/v1/objects:apply", json={"objects": objects})).json()["failed"] == 0
        session = (await client.post("/v1/sessions", json={"agent": "renewed"})).json()["id"]
        async with opened(client, session) as stream:
            for name in ("second", "third"):
                authority.issue(name, to="server")
                await shows(plane, authority.trust(), name)
            await client.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": "hello"})
            assert [message.type for message in await stream.until("run.completed")][-1] == "run.completed"


async def test_requests_go_on_while_certificates_are_renewed(plane: Process, authority: Authority) -> None:
    """New connections all the time: each is met by one certificate or the other."""
    stopping = asyncio.Event()

    async def dial() -> int:
        count = 0
        while not stopping.is_set():
            async with greeted(plane, authority.trust()) as (wire, _):
                await wire.send(get())
                assert (await wire.answer()).status == 200
            count += 1
        return count

    dialling = [asyncio.create_task(dial()) for _ in range(4)]
    for number in range(4):
        authority.issue(f"of turn {number}", to="server")
        await shows(plane, authority.trust(), f"of turn {number}")
    stopping.set()
    assert sum(await asyncio.gather(*dialling)) > 8


async def test_a_certificate_that_can_not_be_used_changes_nothing(plane: Process, authority: Authority, files: tuple[Path, Path]) -> None:
    authority.issue("good", to="server")
    await shows(plane, authority.trust(), "good")
    other = authority.issue("other")
    for number, content in enumerate((b"rubbish", other[0].read_bytes()), start=1):
        files[0].write_bytes(content)
        async with asyncio.timeout(10):
            while plane.log.read_text().count("server.certificate_kept") < number:
                await asyncio.sleep(0.05)
        async with greeted(plane, authority.trust()) as (_, name):
            assert name == "good"
    authority.issue("mended", to="server")
    await shows(plane, authority.trust(), "mended")


async def test_sighup_renews_at_once(strict: Process, authority: Authority) -> None:
    shown = authority.issue("somebody")
    authority.issue("told", to="strict")
    os.kill(strict.pid, signal.SIGHUP)
    await shows(strict, authority.trust(shown=shown), "told")


async def test_who_shows_no_certificate_of_the_authority_is_not_let_in(strict: Process, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path).issue("stranger")
    for trust in (authority.trust(), authority.trust(shown=stranger)):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await whoami(strict, trust)
    (await whoami(strict, authority.trust(shown=authority.issue("known")))).problem(401, "unauthenticated")


async def test_the_command_line_speaks_to_both(
    strict: Process, plane: Process, authority: Authority, stack: Stack, tmp_path: Path, files: tuple[Path, Path]
) -> None:
    certificate, key = authority.issue("command")
    env = {"HANSA_API_KEY": stack.key, "HANSA_CA_FILE": str(authority.ca_file)}
    assert hansa("auth", "whoami", "--url", plane.url, cwd=tmp_path, **env).status == 0
    refused = hansa("auth", "whoami", "--url", plane.url, cwd=tmp_path, HANSA_API_KEY=stack.key)
    assert refused.status == 69
    assert "certificate verify failed" in refused.err
    shown = {"HANSA_CLIENT_CERT_FILE": str(certificate), "HANSA_CLIENT_KEY_FILE": str(key)}
    assert hansa("auth", "whoami", "--url", strict.url, cwd=tmp_path, **env).status == 69
    assert hansa("auth", "whoami", "--url", strict.url, cwd=tmp_path, **env, **shown).status == 0
    missing = hansa("auth", "whoami", "--url", strict.url, cwd=tmp_path, **{**env, "HANSA_CA_FILE": "nowhere.pem"})
    assert "HANSA_CA_FILE" in missing.err


def test_up_needs_a_certificate_to_ask_its_own_control_plane_with(authority: Authority, files: tuple[Path, Path], tmp_path: Path) -> None:
    env = {"HANSA_SERVER_TLS_CERT_FILE": str(files[0]), "HANSA_SERVER_TLS_CLIENT_CA_FILE": str(authority.ca_file)}
    refused = hansa("up", "--data", "data", "--port", "0", cwd=tmp_path, **env)
    assert refused.status == 78
    assert "HANSA_CLIENT_CERT_FILE" in refused.err + refused.out


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"HANSA_SERVER_TLS_CERT_FILE": "nowhere.pem"}, "nowhere.pem"),
        ({"HANSA_SERVER_TLS_KEY_FILE": "server.key"}, "HANSA_SERVER_TLS_CERT_FILE is not"),
        ({"HANSA_SERVER_CORS_ORIGINS": "*"}, "'*' is no origin"),
        ({"HANSA_SERVER_CORS_ORIGINS": "https://a.example/path"}, "is no origin"),
        ({"HANSA_SERVER_PROXIES": "everyone"}, "HANSA_SERVER_PROXIES"),
    ],
)
def test_what_can_not_be_served_safely_is_not_served(stack: Stack, env: dict[str, str], said: str) -> None:
    process = Process("serve", {**stack.environ, "HANSA_SERVER_PORT": "0", **env}, stack.folder / "unsafe.log")
    assert process.wait(30) == 78
    assert said in process.log.read_text()
