"""The door over real sockets: what may not be reached sees no connection, what may be reached is spoken to properly."""

import asyncio
import gzip
import ssl

import httpx2
import msgspec
import pytest

from egress.doubles import ListedResolver, Loopback, ok, redirect
from hansa.egress.client import open_client
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressRefused, EgressTooLarge, Rule


def _admitting(server: Loopback, **changes: float) -> EgressPolicy:
    """Admits the server's address, so that names which resolve to it work as names of the public Internet do."""
    policy = EgressPolicy(allow_http=True, ports=(server.port,), allow=(f"{server.host}:{server.port}",))
    return msgspec.structs.replace(policy, **changes)


async def test_the_oracle_sees_a_hit_of_a_client_without_a_door(loopback: Loopback) -> None:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as plain:
        assert (await plain.get(f"{loopback.url}/")).text == "hit"
    assert loopback.connections == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost", "inside.test", "0.0.0.0"]
)
async def test_a_refused_address_sees_no_connection(loopback: Loopback, host: str) -> None:
    resolver = ListedResolver(inside_test=[["127.0.0.1"]], localhost=[["127.0.0.1"]])
    policy = EgressPolicy(allow_http=True, allow_literals=True, ports=(loopback.port,))
    async with open_client(policy, resolver) as client:
        with pytest.raises(EgressRefused):
            await client.get(f"http://{host}:{loopback.port}/")
        with pytest.raises(EgressRefused):
            await client.send(httpx2.Request("GET", f"http://{host}:{loopback.port}/"))
    await asyncio.sleep(0.05)
    assert loopback.connections == 0


async def test_an_address_listed_by_the_operator_is_reached(loopback: Loopback) -> None:
    async with open_client(EgressPolicy(allow=(f"127.0.0.1:{loopback.port}",))) as client:
        answer = await client.get(f"{loopback.url}/")
    assert (answer.status_code, answer.text, loopback.connections) == (200, "hit", 1)


async def test_a_listed_address_opens_no_other_port(loopback: Loopback) -> None:
    async with open_client(EgressPolicy(allow=("127.0.0.1:1",))) as client:
        with pytest.raises(EgressRefused):
            await client.get(f"{loopback.url}/")
    assert loopback.connections == 0


async def test_a_listed_name_may_answer_with_a_private_address_and_not_with_a_metadata_one(loopback: Loopback) -> None:
    resolver = ListedResolver(models_svc=[["127.0.0.1"], ["169.254.169.254"]])
    async with open_client(EgressPolicy(allow=(f"*.svc:{loopback.port}",)), resolver) as client:
        loopback.answers["/"] = ok(b"hit", "Connection: close")
        assert (await client.get(f"http://models.svc:{loopback.port}/")).text == "hit"
        with pytest.raises(EgressRefused, match="link-local"):
            await client.get(f"http://models.svc:{loopback.port}/")


async def test_the_server_is_told_the_name_and_not_the_address(loopback: Loopback) -> None:
    resolver = ListedResolver(api_test=[["127.0.0.1"]])
    async with open_client(_admitting(loopback), resolver) as client:
        await client.get(f"http://api.test:{loopback.port}/x")
    assert f"host: api.test:{loopback.port}\r\n" in loopback.heads[0].lower()
    assert resolver.lookups == ["api.test"]


async def test_tls_asks_for_the_name_and_not_for_the_address() -> None:
    hellos: list[bytes] = []

    async def keep_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(keep_hello, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    policy = EgressPolicy(ports=(port,), allow=(f"127.0.0.1:{port}",))
    async with server, open_client(policy, ListedResolver(api_test=[["127.0.0.1"]]), tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"https://api.test:{port}/")
    assert b"api.test" in hellos[0]
    assert b"127.0.0.1" not in hellos[0]


async def test_a_rebinding_name_is_looked_up_once_and_reached_where_it_was_judged(loopback: Loopback, neighbour: Loopback) -> None:
    resolver = ListedResolver(rebind_test=[["127.0.0.2"], ["127.0.0.1"]])
    neighbour.answers["/"] = ok(b"judged", "Connection: close")
    async with open_client(_admitting(neighbour), resolver) as client:
        assert (await client.get(f"http://rebind.test:{neighbour.port}/")).text == "judged"
        assert (resolver.lookups, neighbour.connections) == (["rebind.test"], 1)
        with pytest.raises(EgressRefused, match=r"127\.0\.0\.1"):
            await client.get(f"http://rebind.test:{neighbour.port}/")
    assert (neighbour.connections, loopback.connections) == (1, 0)


async def test_the_next_address_is_tried_when_the_first_is_closed(loopback: Loopback) -> None:
    resolver = ListedResolver(two_test=[["127.0.0.3", "127.0.0.1"]])
    policy = EgressPolicy(allow_http=True, ports=(loopback.port,), allow=(f"127.0.0.0/8:{loopback.port}",))
    async with open_client(policy, resolver) as client:
        assert (await client.get(f"http://two.test:{loopback.port}/")).text == "hit"


async def test_a_proxy_of_the_environment_is_ignored(loopback: Loopback, neighbour: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, neighbour.url)
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    async with httpx2.AsyncClient(verify=False) as plain:
        await plain.get("http://elsewhere.test/")
    assert neighbour.connections == 1
    async with open_client(_admitting(loopback)) as client:
        await client.get(f"{loopback.url}/")
    assert (loopback.connections, neighbour.connections) == (1, 1)


async def test_a_netrc_file_gives_no_credentials(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with open_client(_admitting(loopback)) as client:
        await client.get(f"{loopback.url}/")
    assert "authorization" not in loopback.heads[0].lower()


async def test_cookies_are_not_kept(loopback: Loopback) -> None:
    loopback.answers["/"] = ok(b"", "Set-Cookie: session=1; Path=/")
    async with open_client(_admitting(loopback)) as client:
        await client.get(f"{loopback.url}/")
        await client.get(f"{loopback.url}/")
    assert len(loopback.heads) == 2
    assert "cookie" not in loopback.heads[1].lower()


@pytest.mark.parametrize("length", ["", f"Content-Length: {100 * 1024 * 1024}\r\n"], ids=("unannounced", "announced"))
async def test_an_endless_answer_is_cut_at_the_cap(loopback: Loopback, length: str) -> None:
    written = 0

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        for _ in range(1600):
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    loopback.handlers["/flood"] = flood
    async with open_client(_admitting(loopback, max_bytes=1024 * 1024)) as client:
        with pytest.raises(EgressTooLarge) as cut:
            await client.get(f"{loopback.url}/flood")
    assert (cut.value.status, cut.value.limit) == (413, 1024 * 1024)
    assert written < 50 * 1024 * 1024


async def test_an_answer_of_exactly_the_cap_is_whole(loopback: Loopback) -> None:
    loopback.answers["/"] = ok(b"x" * 1000)
    async with open_client(_admitting(loopback, max_bytes=1000)) as client:
        assert len((await client.get(f"{loopback.url}/")).content) == 1000


async def test_a_packed_answer_is_unpacked(loopback: Loopback) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000)).encode()
    loopback.answers["/"] = ok(gzip.compress(text[:400_000]) + gzip.compress(text[400_000:]), "Content-Encoding: gzip")
    async with open_client(_admitting(loopback)) as client:
        assert (await client.get(f"{loopback.url}/")).content == text
    assert "accept-encoding: gzip\r\n" in loopback.heads[0].lower()


async def test_a_packed_bomb_is_cut_at_the_cap(loopback: Loopback) -> None:
    bomb = gzip.compress(b"\0" * 100 * 1024 * 1024)
    assert len(bomb) < 1024 * 1024
    loopback.answers["/"] = ok(bomb, "Content-Encoding: gzip")
    async with open_client(_admitting(loopback, max_bytes=1024 * 1024)) as client:
        with pytest.raises(EgressTooLarge):
            await client.get(f"{loopback.url}/")


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        (b"not packed", "gzip", httpx2.DecodingError),
        (gzip.compress(b"half" * 100)[:-9], "gzip", httpx2.RemoteProtocolError),
        (b"whatever", "br", httpx2.DecodingError),
    ],
    ids=("never packed", "cut off", "unknown"),
)
async def test_badly_packed_answers_are_errors(loopback: Loopback, body: bytes, encoding: str, error: type[Exception]) -> None:
    loopback.answers["/"] = ok(body, f"Content-Encoding: {encoding}")
    async with open_client(_admitting(loopback)) as client:
        with pytest.raises(error):
            await client.get(f"{loopback.url}/")


async def test_failures_to_connect_are_errors_of_the_client(loopback: Loopback) -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    loopback.handlers["/silent"] = silent
    policy = EgressPolicy(allow=("127.0.0.0/8:1", f"127.0.0.1:{loopback.port}"), read_timeout=0.2)
    async with open_client(policy, ListedResolver()) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("http://127.0.0.1:1/")
        with pytest.raises(httpx2.ConnectError, match=r"gone\.test"):
            await client.get("https://gone.test/")
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(f"{loopback.url}/silent")


async def test_a_slow_resolver_is_given_up() -> None:
    async def slow(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(30)
        return []

    async with open_client(EgressPolicy(connect_timeout=0.1), slow) as client:
        with pytest.raises(httpx2.ConnectTimeout):
            await client.get("https://slow.test/")


async def test_a_redirect_is_handed_to_the_caller_by_default(loopback: Loopback) -> None:
    loopback.answers["/"] = redirect("/further")
    async with open_client(_admitting(loopback)) as client:
        assert (await client.get(f"{loopback.url}/")).status_code == 302
        with pytest.raises(httpx2.TooManyRedirects):
            await client.get(f"{loopback.url}/", follow_redirects=True)
    assert len(loopback.heads) == 2


async def test_redirects_are_followed_up_to_the_limit(loopback: Loopback) -> None:
    loopback.answers |= {f"/{hop}": redirect(f"/{hop + 1}") for hop in range(4)}
    async with open_client(_admitting(loopback, max_redirects=3)) as client:
        answer = await client.get(f"{loopback.url}/1", headers={"x-api-key": "made-up"})
        assert (answer.text, [str(past.url.path) for past in answer.history]) == ("hit", ["/1", "/2", "/3"])
        with pytest.raises(httpx2.TooManyRedirects):
            await client.get(f"{loopback.url}/0")
    assert "x-api-key: made-up" in loopback.heads[3].lower()


@pytest.mark.parametrize(
    ("location", "rule"),
    [
        ("http://169.254.169.254/", Rule.ADDRESS),
        ("http://127.0.0.2:{port}/", Rule.ADDRESS),
        ("http://user:pw@example.com/", Rule.USERINFO),
        ("file:///etc/passwd", Rule.SCHEME),
        ("//localhost:{port}/", Rule.RESERVED_NAME),
    ],
)
async def test_every_hop_is_judged(loopback: Loopback, neighbour: Loopback, location: str, rule: Rule) -> None:
    loopback.answers["/"] = redirect(location.format(port=loopback.port))
    resolver = ListedResolver(redirect_test=[["127.0.0.1"]])
    async with open_client(_admitting(loopback, max_redirects=3), resolver) as client:
        with pytest.raises(EgressRefused) as refused:
            await client.get(f"http://redirect.test:{loopback.port}/")
    assert refused.value.rule is rule
    assert (loopback.connections, neighbour.connections, resolver.lookups) == (1, 0, ["redirect.test"])


async def test_another_origin_gets_no_credentials_and_no_body(loopback: Loopback, neighbour: Loopback) -> None:
    policy = EgressPolicy(allow=(f"127.0.0.0/8:{loopback.port}",), max_redirects=3)
    loopback.answers |= {"/get": redirect(f"{neighbour.url}/"), "/keep": redirect(f"{neighbour.url}/", 307)}
    secrets = {"authorization": "Bearer made-up", "x-api-key": "made-up", "cookie": "made=up", "accept": "text/plain"}
    async with open_client(policy) as client:
        assert (await client.get(f"{loopback.url}/get", headers=secrets)).text == "hit"
        with pytest.raises(EgressRefused) as refused:
            await client.post(f"{loopback.url}/keep", headers=secrets, content=b"made-up")
    assert refused.value.rule is Rule.REDIRECT_BODY
    assert "made-up" in loopback.heads[0]
    assert len(neighbour.heads) == 1
    assert "made" not in neighbour.heads[0]
    assert "accept: text/plain\r\n" in neighbour.heads[0].lower()
    assert f"host: 127.0.0.2:{neighbour.port}\r\n" in neighbour.heads[0].lower()


async def test_a_refusal_reads_as_a_failed_request_to_who_knows_only_the_client() -> None:
    async with open_client(EgressPolicy()) as client:
        with pytest.raises(httpx2.RequestError) as refused:
            await client.get("https://10.0.0.1/")
    assert not isinstance(refused.value, httpx2.TransportError)
