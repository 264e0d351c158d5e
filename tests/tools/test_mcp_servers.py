"""Tool servers as the platform sees them: what is found out about them, and what the tools of a run do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from doubles.mcp_server import WITH_SESSION, McpServer, Trouble, echo_tool, mcp_server
from hansa.apply.model import KnownServer, ToolServerStatus
from hansa.egress.client import HttpClient, open_client
from hansa.egress.policy import EgressPolicy
from hansa.secrets.variables import admitted
from hansa.tenants.secrets.lookup import Lookup
from hansa.tools.model import Selection
from hansa.tools.servers import ToolServers
from hansa.tools.service import Surroundings, ToolBox
from hansa_crds import ToolServer
from hansa_sdk import Effect, ToolCall, ToolOutcome

TENANT = UUID(int=1)
pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def server() -> AsyncIterator[McpServer]:
    async with mcp_server(stateless=True, with_session=True) as it:
        yield it


@pytest.fixture
async def http(server: McpServer) -> AsyncIterator[HttpClient]:
    async with open_client(EgressPolicy(allow=(f"127.0.0.1:{server.port}",))) as it:
        yield it


def manifest(server: McpServer, **spec: Any) -> ToolServer:
    fields = {"kind": "ToolServer", "apiVersion": "hansa.dev/v1alpha1", "metadata": {"name": "double"}}
    return msgspec.convert({**fields, "spec": {"endpoint": server.url, **spec}}, ToolServer)


async def found(server: McpServer, http: HttpClient, **spec: Any) -> ToolServerStatus:
    return await ToolServers(http, Lookup(admitted({}, "DOUBLE_TOKEN"))).discover(TENANT, manifest(server, **spec))


async def outcome(
    server: McpServer, http: HttpClient, name: str = "echo", *, environ: dict[str, str] | None = None, **spec: Any
) -> ToolOutcome:
    """What a run is told that calls a tool of the server, as it was found before."""
    servers, asked = ToolServers(http, Lookup(admitted(environ or {}, "DOUBLE_TOKEN"))), manifest(server, **spec)
    status = await ToolServers(http, Lookup(admitted({"DOUBLE_TOKEN": server.token}, "DOUBLE_TOKEN"))).discover(TENANT, asked)
    async with servers.connections(TENANT) as connections:
        tools = {tool: ("double", made) for tool, made in connections.tools(KnownServer(asked, status)).items()}
        box = ToolBox(Selection(tools), Surroundings(Path("workspace"), http, {}))
        call = ToolCall(id="run-1:2", name=name, arguments={"text": "ahoy"})
        return box.refusal(name, call.arguments) or await box.run(call)


async def test_tools_are_found_with_what_a_model_needs(server: McpServer, http: HttpClient) -> None:
    status = await found(server, http)
    (tool,) = status.tools
    assert (status.reachable, status.reason, status.protocol, status.left_out) == (True, "", "2026-07-28", ())
    assert (tool.name, tool.description, tool.input_schema) == ("echo", "Answers what echo is told.", server.tools[0]["inputSchema"])
    assert status.checked_at.startswith("20")


async def test_a_server_of_the_older_era_is_found_and_its_session_ended(server: McpServer, http: HttpClient) -> None:
    server.stateless = False
    status = await found(server, http)
    assert (status.reachable, status.protocol) == (True, WITH_SESSION)
    assert server.methods() == ["tools/list", "initialize", "notifications/initialized", "tools/list", "DELETE"]


async def test_only_allowed_tools_are_taken_and_missing_ones_are_told(server: McpServer, http: HttpClient) -> None:
    server.tools = [echo_tool("one"), echo_tool("two"), echo_tool("three")]
    status = await found(server, http, allow=["two", "four"], effects={"two": "read", "five": "read"})
    assert [tool.name for tool in status.tools] == ["two"]
    assert [(each.name, each.reason) for each in status.left_out] == [
        ("four", "named in spec.allow, not offered by the server"),
        ("five", "named in spec.effects, not among the tools"),
    ]


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("echo", "describes it wrongly"),
        ({"name": "has blank", "inputSchema": {"type": "object"}}, "describes it wrongly"),
        ({"name": "bare"}, "inputSchema"),
        ({"name": "null", "inputSchema": None}, "describes it wrongly"),
        ({"name": "list", "inputSchema": {"type": "array"}}, "not of type object"),
        ({"name": "broken", "inputSchema": {"type": "object", "required": 5}}, "not valid"),
        (echo_tool("good"), "lists it twice"),
    ],
)
async def test_a_bad_tool_is_left_out_with_a_reason_and_the_others_stay(server: McpServer, http: HttpClient, tool: Any, told: str) -> None:
    server.tools = [echo_tool("good"), tool]
    status = await found(server, http)
    assert [tool.name for tool in status.tools] == ["good"]
    (left_out,) = status.left_out
    assert told in left_out.reason


async def test_tools_that_are_too_large_together_are_left_out(server: McpServer, http: HttpClient) -> None:
    server.tools = [echo_tool(f"tool-{n}", text={"type": "string", "description": "x" * 60_000}) for n in range(12)]
    status = await found(server, http)
    assert (len(status.tools), len(status.left_out)) == (8, 4)
    assert "spec.allow" in status.left_out[0].reason


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(Trouble.UNAUTHORIZED, "HTTP 401"), (Trouble.HTML, "text/html"), (Trouble.CUT_STREAM, "broke off"), (Trouble.HUGE, "larger than")],
)
async def test_a_server_that_fails_is_not_reachable_for_that_reason(
    server: McpServer, http: HttpClient, trouble: Trouble, reason: str
) -> None:
    server.misbehave("tools/list", trouble)
    status = await found(server, http)
    assert (status.reachable, status.tools) == (False, ())
    assert reason in status.reason


async def test_a_missing_credential_is_told_and_nothing_is_sent(server: McpServer, http: HttpClient) -> None:
    status = await found(server, http, credentials={"env": "DOUBLE_TOKEN"})
    assert not status.reachable
    assert "environment variable DOUBLE_TOKEN" in status.reason
    assert server.requests == []


async def test_a_secret_of_the_platform_is_never_sent(server: McpServer, http: HttpClient) -> None:
    servers = ToolServers(http, Lookup(admitted({"HANSA_DATABASE_APP_URL": "made-up"}, "*")))
    status = await servers.discover(TENANT, manifest(server, credentials={"env": "HANSA_DATABASE_APP_URL"}))
    assert "the platform's own" in status.reason
    assert server.requests == []


async def test_a_variable_that_the_operator_does_not_admit_is_never_sent(server: McpServer, http: HttpClient) -> None:
    asked = manifest(server, credentials={"env": "DEPLOY_TOKEN"})
    status = await ToolServers(http, Lookup(admitted({"DEPLOY_TOKEN": "made-up"}, "DOUBLE_TOKEN"))).discover(TENANT, asked)
    assert not status.reachable
    assert "HANSA_CREDENTIALS_ALLOW admits DOUBLE_TOKEN" in status.reason
    assert server.requests == []


async def test_a_token_reaches_the_server(server: McpServer, http: HttpClient) -> None:
    server.token = "a-token-for-tests"
    told = await outcome(server, http, environ={"DOUBLE_TOKEN": server.token}, credentials={"env": "DOUBLE_TOKEN"})
    assert (told.content, told.is_error) == ('{"text": "ahoy"}', False)


async def test_a_worker_without_the_token_tells_the_model(server: McpServer, http: HttpClient) -> None:
    server.token = "a-token-for-tests"
    told = await outcome(server, http, environ={}, credentials={"env": "DOUBLE_TOKEN"})
    assert told.is_error
    assert "environment variable DOUBLE_TOKEN" in told.content
    assert "tools/call" not in server.methods()


async def test_effects_are_those_of_the_spec_and_else_unsafe(server: McpServer, http: HttpClient) -> None:
    server.tools = [{**echo_tool("one"), "annotations": {"readOnlyHint": True}}, echo_tool("two")]
    asked = manifest(server, effects={"two": "keyed"})
    servers = ToolServers(http, Lookup(admitted({}, "DOUBLE_TOKEN")))
    async with servers.connections(TENANT) as connections:
        tools = connections.tools(KnownServer(asked, await servers.discover(TENANT, asked)))
    assert {name: tool.effect for name, tool in tools.items()} == {"one": Effect.UNSAFE, "two": Effect.KEYED}


async def test_wrong_arguments_never_reach_the_server(server: McpServer, http: HttpClient) -> None:
    server.tools = [echo_tool("echo", text={"type": "integer"})]
    told = await outcome(server, http)
    assert (told.is_error, told.invalid_arguments) == (True, True)
    assert 'is not of type "integer" (at text)' in told.content
    assert "tools/call" not in server.methods()


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"content": [{"type": "text", "text": "{}"}], "structuredContent": {"n": [1]}}, {"n": [1]}),
        ({"content": [{"type": "image", "data": "QUJDRA==", "mimeType": "image/png"}]}, "[image, image/png, about 6 bytes, not shown]"),
        ({"content": [{"type": "resource_link", "uri": "file:///a", "name": "a"}]}, "[link to file:///a]"),
        ({"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}}]}, "inside"),
        (
            {"content": [{"type": "resource", "resource": {"uri": "file:///a", "blob": "QQ=="}}]},
            "[resource file:///a, not text, not shown]",
        ),
        ({"content": [{"type": "hologram"}, "odd"]}, "[content of type 'hologram', not shown]"),
        ({}, ""),
        ({"content": "odd"}, ""),
    ],
)
async def test_results_are_told_as_data_or_text(server: McpServer, http: HttpClient, result: dict[str, Any], content: Any) -> None:
    server.results["echo"] = result
    told = await outcome(server, http)
    assert (told.content, told.is_error) == (content, False)


@pytest.mark.parametrize(
    ("content", "told"),
    [([{"type": "text", "text": "no such town"}], "no such town"), ([], "echo failed and did not say why")],
)
async def test_a_failed_tool_is_an_error_for_the_model(server: McpServer, http: HttpClient, content: list[Any], told: str) -> None:
    server.results["echo"] = {"content": content, "isError": True, "structuredContent": {"not": "told"}}
    answer = await outcome(server, http)
    assert (answer.content, answer.is_error, answer.invalid_arguments) == (told, True, False)


async def test_a_server_that_breaks_off_is_an_error_for_the_model(server: McpServer, http: HttpClient) -> None:
    server.misbehave("tools/call", Trouble.CUT_STREAM)
    told = await outcome(server, http)
    assert told.is_error
    assert told.content.startswith("ToolServer 'double': 127.0.0.1")


async def test_an_answer_too_large_for_a_model_is_told_as_such(server: McpServer, http: HttpClient) -> None:
    server.results["echo"] = {"content": [{"type": "text", "text": "x" * 300_000}]}
    told = await outcome(server, http)
    assert told.is_error
    assert "the most that is taken" in told.content


async def test_mirrored_arguments_are_sent_in_headers(server: McpServer, http: HttpClient) -> None:
    server.tools = [echo_tool("echo", text={"type": "string", "x-mcp-header": "Text"})]
    assert (await outcome(server, http)).content == '{"text": "ahoy"}'
    assert server.requests[-1].headers["mcp-param-text"] == "ahoy"


async def test_calls_of_one_run_share_a_session_and_runs_do_not(server: McpServer, http: HttpClient) -> None:
    server.stateless = False
    servers, asked = ToolServers(http, Lookup(admitted({}, "DOUBLE_TOKEN"))), manifest(server)
    known = KnownServer(asked, await servers.discover(TENANT, asked))
    server.requests.clear()
    context: Any = Surroundings(Path("workspace"), http, {})
    for _ in range(2):
        async with servers.connections(TENANT) as connections:
            box = ToolBox(Selection({"echo": ("double", connections.tools(known)["echo"])}), context)
            calls = [ToolCall(id=f"run:{n}", name="echo", arguments={}) for n in range(3)]
            assert [told.content for told in await asyncio.gather(*map(box.run, calls))] == ["{}"] * 3
    assert server.methods() == ["initialize", "notifications/initialized", *["tools/call"] * 3, "DELETE"] * 2
