"""The MCP client against a server that speaks either era, or neither, or badly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from doubles.mcp_server import STATELESS, WITH_SESSION, McpServer, Trouble, echo_tool, mcp_server
from hansa.egress.client import HttpClient, open_client
from hansa.egress.policy import EgressPolicy
from hansa.tools.failures import ToolServerError, ToolServerRefused, ToolServerUnavailable, ToolServerUnreadable
from hansa.tools.mcp import KEY_FIELD, MAX_PAGES, McpClient

pytestmark = pytest.mark.timeout(30)
ERAS = pytest.mark.parametrize("era", ["stateless", "session", "both"])


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[McpServer]:
    """Of the era that the test's parameter names, else stateless."""
    callspec = getattr(request.node, "callspec", None)
    era = callspec.params.get("era", "stateless") if callspec else "stateless"
    async with mcp_server(stateless=era != "session", with_session=era != "stateless") as it:
        yield it


@pytest.fixture
async def http(server: McpServer) -> AsyncIterator[HttpClient]:
    async with open_client(EgressPolicy(allow=(f"127.0.0.1:{server.port}",))) as it:
        yield it


def client_of(server: McpServer, http: HttpClient, protocol: str = "") -> McpClient:
    return McpClient(http, server.url, protocol=protocol)


async def call(client: McpClient, text: str = "ahoy") -> str:
    result = await client.call_tool("echo", {"text": text}, idempotency_key="run-1:3")
    return result["content"][0]["text"]


@ERAS
@pytest.mark.parametrize("as_events", [False, True])
async def test_tools_are_listed_and_called_in_each_era(server: McpServer, http: HttpClient, *, era: str, as_events: bool) -> None:
    server.as_events = as_events
    client = client_of(server, http)
    assert [tool["name"] for tool in await client.list_tools()] == ["echo"]
    assert await call(client) == '{"text": "ahoy"}'
    assert client.protocol == (WITH_SESSION if era == "session" else STATELESS)


@ERAS
async def test_a_call_carries_its_idempotency_key_twice(server: McpServer, http: HttpClient, era: str) -> None:
    await call(client_of(server, http))
    sent = server.requests[-1]
    assert (sent.headers["idempotency-key"], sent.message["params"]["_meta"][KEY_FIELD]) == ("run-1:3", "run-1:3")


async def test_a_stateless_server_is_never_greeted(server: McpServer, http: HttpClient) -> None:
    client = client_of(server, http)
    await client.list_tools()
    await call(client)
    await client.close()
    assert server.methods() == ["tools/list", "tools/call"]


@pytest.mark.parametrize("era", ["session"])
async def test_a_session_is_opened_once_and_ended(server: McpServer, http: HttpClient, era: str) -> None:
    client = client_of(server, http, WITH_SESSION)
    assert await asyncio.gather(*(call(client, str(n)) for n in range(5))) == [f'{{"text": "{n}"}}' for n in range(5)]
    await client.close()
    assert server.methods() == ["initialize", "notifications/initialized", *["tools/call"] * 5, "DELETE"]
    assert server.sessions == {}


@pytest.mark.parametrize("era", ["session"])
async def test_a_forgotten_session_is_opened_again_and_the_call_made_once(server: McpServer, http: HttpClient, era: str) -> None:
    client = client_of(server, http)
    await client.list_tools()
    server.misbehave("tools/call", Trouble.FORGOTTEN_SESSION)
    assert await call(client) == '{"text": "ahoy"}'
    assert server.methods()[-4:] == ["tools/call", "initialize", "notifications/initialized", "tools/call"]


@pytest.mark.parametrize("era", ["session"])
async def test_a_server_that_forgets_every_session_is_given_up(server: McpServer, http: HttpClient, era: str) -> None:
    server.misbehave("tools/call", *[Trouble.FORGOTTEN_SESSION] * 5)
    with pytest.raises(ToolServerRefused, match="HTTP 404"):
        await call(client_of(server, http, WITH_SESSION))
    assert server.methods().count("tools/call") == 2


@pytest.mark.parametrize(("era", "believed"), [("session", STATELESS), ("stateless", WITH_SESSION)])
async def test_a_server_that_changed_its_era_is_still_understood(server: McpServer, http: HttpClient, era: str, believed: str) -> None:
    assert await call(client_of(server, http, believed)) == '{"text": "ahoy"}'


@pytest.mark.parametrize("era", ["session"])
async def test_an_unknown_version_is_refused_by_name(server: McpServer, http: HttpClient, era: str) -> None:
    server.version = "2031-01-01"
    with pytest.raises(ToolServerRefused, match="2031-01-01"):
        await client_of(server, http).list_tools()


async def test_all_pages_of_tools_are_read(server: McpServer, http: HttpClient) -> None:
    server.tools, server.pages = [echo_tool(f"tool-{n}") for n in range(7)], 3
    assert [tool["name"] for tool in await client_of(server, http).list_tools()] == [f"tool-{n}" for n in range(7)]
    assert server.methods() == ["tools/list"] * 3


@pytest.mark.parametrize(
    ("trouble", "told"), [(Trouble.ONE_CURSOR, "one cursor twice"), (Trouble.EVER_NEW_CURSORS, f"more than {MAX_PAGES}")]
)
async def test_an_endless_list_is_given_up(server: McpServer, http: HttpClient, trouble: Trouble, told: str) -> None:
    server.misbehave("tools/list", *[trouble] * (MAX_PAGES + 5))
    with pytest.raises(ToolServerUnreadable, match=told):
        await client_of(server, http).list_tools()
    assert len(server.requests) <= MAX_PAGES


async def test_more_tools_than_anyone_can_use_are_refused(server: McpServer, http: HttpClient) -> None:
    server.tools, server.pages = [echo_tool(f"tool-{n}") for n in range(600)], 6
    with pytest.raises(ToolServerUnreadable, match="more than 256 tools"):
        await client_of(server, http).list_tools()
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "error", "told"),
    [
        (Trouble.UNAUTHORIZED, ToolServerRefused, "HTTP 401"),
        (Trouble.BROKEN, ToolServerUnavailable, "HTTP 500"),
        (Trouble.BUSY, ToolServerUnavailable, "HTTP 429"),
        (Trouble.REDIRECT, ToolServerRefused, "redirect"),
        (Trouble.CUT_STREAM, ToolServerUnavailable, "broke off"),
        (Trouble.CUT_JSON, ToolServerUnavailable, "broke off"),
        (Trouble.EMPTY_STREAM, ToolServerUnavailable, "ended its stream"),
        (Trouble.WRONG_ID, ToolServerUnreadable, "another request"),
        (Trouble.NOT_JSON, ToolServerUnreadable, "no message of JSON-RPC"),
        (Trouble.NOT_UTF8, ToolServerUnreadable, "no message of JSON-RPC"),
        (Trouble.DEEP, ToolServerUnreadable, "no message of JSON-RPC"),
        (Trouble.HTML, ToolServerUnreadable, "text/html"),
        (Trouble.HUGE, ToolServerUnreadable, "larger than"),
        (Trouble.HUGE_STREAM, ToolServerUnreadable, "larger than"),
        (Trouble.NEITHER, ToolServerUnreadable, "neither a result nor an error"),
        (Trouble.RPC_ERROR, ToolServerRefused, "error -32603: no,"),
        (Trouble.INPUT_REQUIRED, ToolServerRefused, "input from a person"),
    ],
)
@pytest.mark.parametrize("era", ["stateless", "session"])
async def test_a_call_that_goes_wrong_is_a_typed_error_and_not_repeated(
    server: McpServer, http: HttpClient, *, trouble: Trouble, error: type[ToolServerError], told: str, era: str
) -> None:
    server.misbehave("tools/call", trouble)
    with pytest.raises(error, match=told):
        await call(client_of(server, http, WITH_SESSION if era == "session" else STATELESS))
    assert server.methods().count("tools/call") == 1


async def test_a_call_that_hangs_ends_with_its_callers_patience(server: McpServer, http: HttpClient) -> None:
    server.misbehave("tools/call", Trouble.HANG)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await call(client_of(server, http))


async def test_a_server_that_is_not_there_is_unavailable(server: McpServer, http: HttpClient) -> None:
    async with open_client(EgressPolicy(allow=("127.0.0.1:9",))) as client:
        with pytest.raises(ToolServerUnavailable, match=r"127\.0\.0\.1:9 is not reachable"):
            await McpClient(client, "http://127.0.0.1:9/secret-path").list_tools()


async def test_a_private_address_that_nobody_allowed_is_refused(server: McpServer) -> None:
    async with open_client(EgressPolicy(allow_http=True)) as client:
        with pytest.raises(ToolServerRefused, match="address_not_global") as caught:
            await McpClient(client, server.url).list_tools()
    assert "HANSA_EGRESS_ALLOW" in caught.value.hint
    assert server.requests == []


@pytest.mark.parametrize("trouble", [Trouble.BROKEN, Trouble.RPC_ERROR])
async def test_a_server_that_fails_in_both_eras_says_both(server: McpServer, http: HttpClient, trouble: Trouble) -> None:
    server.misbehave("tools/list", trouble)
    server.misbehave("initialize", Trouble.RPC_ERROR)
    with pytest.raises(ToolServerRefused, match=f"{STATELESS}: .*; {WITH_SESSION}: error -32603"):
        await client_of(server, http).list_tools()


@ERAS
async def test_the_token_is_sent_and_never_told(server: McpServer, http: HttpClient, era: str) -> None:
    server.token = "a-token-for-tests"
    client = McpClient(http, server.url, token=server.token)
    assert len(await client.list_tools()) == 1
    server.misbehave("tools/call", Trouble.RPC_ERROR)
    with pytest.raises(ToolServerRefused, match=r"no, \[token\]"):
        await call(client)
    with pytest.raises(ToolServerRefused, match="HTTP 401") as caught:
        await client_of(server, http).list_tools()
    assert "spec.credentials.env" in caught.value.hint


async def test_mirrored_arguments_reach_the_headers(server: McpServer, http: HttpClient) -> None:
    server.tools = [echo_tool("echo", text={"type": "string", "x-mcp-header": "Text"})]
    client = client_of(server, http)
    with pytest.raises(ToolServerRefused, match="mcp-param-text"):
        await client.call_tool("echo", {"text": "ahoy"}, idempotency_key="k")
    result = await client.call_tool("echo", {"text": "ahoy"}, idempotency_key="k", headers={"Mcp-Param-Text": "ahoy"})
    assert result["content"][0]["text"] == '{"text": "ahoy"}'
