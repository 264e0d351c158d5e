"""ToolServers over the whole platform: applied, found out about, used by runs, and taken up again after a crash."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from doubles.mcp_server import McpServer, Trouble, echo_tool, mcp_server
from samples import SCRIPTED, agent
from stack import Process, Stack, free_port, open_stack

pytestmark = pytest.mark.timeout(90)
TOKEN = {"DOUBLE_TOKEN": "a-token-for-tests"}
LEASES = {"HANSA_WORKER_LEASE_SECONDS": "2", "HANSA_WORKER_RENEW_SECONDS": "0.5", "HANSA_WORKER_POLL_SECONDS": "0.2"}


class Platform:
    """Servers and a control plane that may reach one port, and the workers of a test."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.port = free_port()
        self.environ = {"HANSA_EGRESS_ALLOW": f"127.0.0.1:{self.port}", **TOKEN}
        self.control_plane = stack.serve(**self.environ)
        self.workers: list[Process] = []

    async def worker(self) -> Process:
        """One more worker, until the test ends."""
        self.workers.append(await asyncio.to_thread(lambda: self.stack.worker(**self.environ, **LEASES)))
        return self.workers[-1]


@pytest.fixture(scope="module")
def shared(migrated: Path) -> Iterator[Platform]:
    folder = Path(tempfile.mkdtemp(prefix="hansa-stack-"))
    with open_stack(folder, like=migrated) as stack:
        yield Platform(stack)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def platform(shared: Platform) -> Iterator[Platform]:
    yield shared
    for process in shared.workers:
        process.stop()
    shared.workers.clear()


@pytest.fixture
async def server(platform: Platform) -> AsyncIterator[McpServer]:
    async with mcp_server(stateless=True, with_session=True, port=platform.port) as it:
        it.token = TOKEN["DOUBLE_TOKEN"]
        yield it


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx2.AsyncClient]:
    """Of the control plane, in which there are no agents and no tool servers yet."""
    async with platform.stack.client(platform.control_plane) as it:
        for kind in ("Agent", "ToolServer"):
            for each in (await it.get("/v1/objects", params={"kind": kind})).json()["data"]:
                assert (await it.delete(f"/v1/objects/{kind}/{each['name']}")).status_code == 204
        yield it


def tool_server(server: McpServer, name: str = "double", **spec: Any) -> dict[str, Any]:
    fields = {"endpoint": server.url, "credentials": {"env": "DOUBLE_TOKEN"}, **spec}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": name}, "spec": fields}


def caller(name: str = "caller", *tools: dict[str, Any]) -> dict[str, Any]:
    return agent(name, tools=list(tools) or [{"toolServer": "double"}])


async def apply(client: httpx2.AsyncClient, *manifests: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in (SCRIPTED, *manifests)]})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][1:]


async def status_of(client: httpx2.AsyncClient) -> dict[str, Any]:
    return (await client.get("/v1/objects/ToolServer/double")).json()["status"]


def script(*calls: dict[str, Any]) -> dict[str, str]:
    turns = [*({"tool_calls": [call]} for call in calls), {"text": "done"}]
    return {"input": f"#script {json.dumps(turns)}"}


async def run(client: httpx2.AsyncClient, *calls: dict[str, Any], wait: int = 30) -> dict[str, Any]:
    return (await client.post("/v1/agents/caller/runs", params={"wait": wait}, json=script(*calls))).json()


async def tool_events(client: httpx2.AsyncClient, run: dict[str, Any]) -> list[dict[str, Any]]:
    events = (await client.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"]
    return [event["data"] for event in events if event["type"] == "tool.completed"]


@pytest.mark.parametrize("stateless", [True, False])
async def test_a_run_calls_a_tool_of_a_server(
    platform: Platform, client: httpx2.AsyncClient, server: McpServer, *, stateless: bool
) -> None:
    server.stateless = stateless
    results = await apply(client, caller(), tool_server(server, effects={"echo": "keyed"}))
    assert [(each["kind"], each["action"]) for each in results] == [("Agent", "created"), ("ToolServer", "created")]
    await platform.worker()
    ended = await run(client, {"name": "echo", "arguments": {"text": 5}}, {"name": "echo", "arguments": {"text": "ahoy"}})
    assert (ended["state"], ended["output"]) == ("completed", "done"), ended
    wrong, right = await tool_events(client, ended)
    assert (wrong["is_error"], wrong["invalid_arguments"]) == (True, True)
    assert (right["content"], right["is_error"]) == ('{"text": "ahoy"}', False)
    (call,) = [request for request in server.requests if request.method == "tools/call"]
    assert call.headers["idempotency-key"].startswith(f"{ended['id']}:")
    assert (await client.get(f"/v1/runs/{ended['id']}/replay")).json()["equal"]


async def test_the_tools_of_a_server_are_kept_with_it_and_looked_at_anew(client: httpx2.AsyncClient, server: McpServer) -> None:
    (first,) = await apply(client, tool_server(server))
    assert (first["action"], "note" in first) == ("created", False)
    status = await status_of(client)
    assert (status["reachable"], status["protocol"], [tool["name"] for tool in status["tools"]]) == (True, "2026-07-28", ["echo"])
    server.tools = [echo_tool("other")]
    (again,) = await apply(client, tool_server(server))
    assert (again["action"], again["generation"]) == ("unchanged", 1)
    assert [tool["name"] for tool in (await status_of(client))["tools"]] == ["other"]
    listed = (await client.get("/v1/objects", params={"kind": "ToolServer"})).json()["data"]
    assert [each["status"]["reachable"] for each in listed] == [True]


async def test_an_agent_on_a_server_that_is_away_is_refused_with_the_reason(client: httpx2.AsyncClient, server: McpServer) -> None:
    server.misbehave("tools/list", Trouble.HTML)
    refused, stored = await apply(client, caller(), tool_server(server))
    assert stored["action"] == "created"
    assert "text/html" in stored["note"]
    assert (await status_of(client))["reachable"] is False
    (error,) = refused["errors"]
    assert (error["path"], error["code"]) == ("spec.tools[0].toolServer", "reference")
    assert "text/html" in error["message"]


async def test_references_that_lead_nowhere_are_refused(client: httpx2.AsyncClient, server: McpServer) -> None:
    server.tools = [echo_tool("echo"), echo_tool("clock")]
    results = await apply(
        client,
        tool_server(server),
        tool_server(server, "twin"),
        caller("a", {"toolServer": "nowhere"}),
        caller("b", {"toolServer": "double", "allow": ["echo", "shout"]}),
        caller("c", {"toolServer": "double"}, {"toolServer": "twin", "allow": ["echo"]}),
        caller("d", {"toolServer": "double"}, {"plugin": "tools"}),
        caller("e", {"toolServer": "double", "allow": ["echo"]}, {"toolServer": "twin", "allow": ["clock"]}),
    )
    told = {each["name"]: [(error["path"], error["code"]) for error in each.get("errors", [])] for each in results}
    assert told == {
        "double": [],
        "twin": [],
        "a": [("spec.tools[0].toolServer", "reference")],
        "b": [("spec.tools[0].allow[1]", "reference")],
        "c": [("spec.tools[1].toolServer", "duplicate")],
        "d": [("spec.tools[1].plugin", "duplicate")],
        "e": [],
    }
    (clash,) = results[4]["errors"]
    assert "ToolServer 'twin' and ToolServer 'double' both bring a tool 'echo'" in clash["message"]


async def test_a_server_that_agents_use_is_not_deleted(client: httpx2.AsyncClient, server: McpServer) -> None:
    await apply(client, tool_server(server), caller())
    kept = await client.delete("/v1/objects/ToolServer/double")
    assert (kept.status_code, "caller" in kept.json()["detail"]) == (409, True)
    await client.delete("/v1/objects/Agent/caller")
    assert (await client.delete("/v1/objects/ToolServer/double")).status_code == 204


async def test_a_server_that_is_away_for_a_while_keeps_its_tools(platform: Platform, client: httpx2.AsyncClient, server: McpServer) -> None:
    await apply(client, tool_server(server), caller())
    server.misbehave("tools/list", Trouble.HTML)
    (away,) = await apply(client, tool_server(server))
    assert "not reachable" in away["note"]
    status = await status_of(client)
    assert (status["reachable"], [tool["name"] for tool in status["tools"]]) == (False, ["echo"])
    await platform.worker()
    ended = await run(client, {"name": "echo", "arguments": {"text": "still here"}})
    assert [each["content"] for each in await tool_events(client, ended)] == ['{"text": "still here"}']


async def test_a_tool_that_is_gone_ends_the_run_with_a_reason(platform: Platform, client: httpx2.AsyncClient, server: McpServer) -> None:
    await apply(client, tool_server(server), caller("caller", {"toolServer": "double", "allow": ["echo"]}))
    server.tools = [echo_tool("other")]
    await apply(client, tool_server(server))
    await platform.worker()
    ended = await run(client)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "tool_missing")
    assert "ToolServer 'double' does not bring echo (it brings: other)" in ended["error"]["detail"]


@pytest.mark.parametrize(("effect", "state", "calls"), [("unsafe", "needs_review", 1), ("keyed", "completed", 2)])
async def test_a_call_cut_by_a_crash_is_repeated_only_if_its_effect_allows(
    platform: Platform, client: httpx2.AsyncClient, server: McpServer, *, effect: str, state: str, calls: int
) -> None:
    await apply(client, tool_server(server, effects={"echo": effect}), caller())
    server.misbehave("tools/call", Trouble.HANG)
    first = await platform.worker()
    started = await run(client, {"name": "echo", "arguments": {"text": "once"}}, wait=0)
    while "tools/call" not in server.methods():
        await asyncio.sleep(0.05)
    first.kill()
    await platform.worker()
    ended = started
    while ended["state"] not in ("completed", "failed", "needs_review"):
        await asyncio.sleep(0.1)
        ended = (await client.get(f"/v1/runs/{started['id']}")).json()
    assert ended["state"] == state, ended
    keys = [request.headers["idempotency-key"] for request in server.requests if request.method == "tools/call"]
    assert (len(keys), len(set(keys))) == (calls, 1)
