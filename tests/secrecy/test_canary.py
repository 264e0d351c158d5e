"""Canaries: secrets that a provider, a tool server and tools are given, and repeat wherever they can, turn up in no place at all.

Beside each canary the same plugins say a decoy that the platform does not know to be secret. It must turn up everywhere: the broken
control of every single look.
"""

import asyncio
import json
import secrets as randomness
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from api.keys import issue
from doubles.llm_upstream import Kind, LLMUpstream, Scenario
from doubles.mcp_server import McpServer, Trouble, mcp_server
from hansa.secrets.redaction import Redactor
from samples import agent
from secrecy.safe import key_file
from secrecy.sinks import Sinks, Wiretap, contents, found, of_api, of_database, of_processes
from stack import Process, Stack, free_port, plain_client

pytestmark = pytest.mark.timeout(180)
DECOY = f"decoy-{randomness.token_hex(12)}"
NAMES = ("key", "http-key", "token", "password", "older-key")
CANARIES = {name: f"canary-{randomness.token_hex(12)}/{name}+" for name in NAMES}
TENANT = "canary"


class Platform:
    """A control plane and a worker that know nothing of secrets yet, and whose plugins can't keep one."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.port = free_port()
        self.upstream = LLMUpstream().start()
        self.keys = key_file(folder, "a key-encryption key of the canaries, long enough")
        environ = {
            "HANSA_SECRETS_KEY_FILE": str(self.keys),
            "HANSA_EGRESS_ALLOW": f"127.0.0.1:{self.port},{self.upstream.url.removeprefix('http://')}",
            "HANSA_TOOL_DECOY": DECOY,
            "HANSA_LOG_LEVEL": "debug",
            "HANSA_TRACE_PLUGINS": "true",
            "PYTHONPATH": str(Path(__file__).parents[1] / "doubles"),
        }
        leases = {"HANSA_WORKER_POOLS": TENANT, "HANSA_WORKER_POLL_SECONDS": "0.2"}
        self.processes: tuple[Process, Process] = (stack.serve(**environ), stack.worker(**environ, **leases))
        self.headers = asyncio.run(issue(stack, TENANT, name="canary", roles=["tenant-admin"]))

    @property
    def logs(self) -> Sinks:
        return {process.log.name: process.log.read_bytes() for process in self.processes}


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    found = Platform(stack, tmp_path_factory.mktemp("canary"))
    yield found
    for process in found.processes:
        process.stop()
    found.upstream.stop()


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx2.AsyncClient]:
    async with plain_client(platform.processes[0].url, headers=platform.headers) as it:
        yield it


@pytest.fixture
async def server(platform: Platform) -> AsyncIterator[McpServer]:
    """A tool server that repeats its token."""
    async with mcp_server(stateless=True, with_session=True, port=platform.port) as it:
        it.token = CANARIES["token"]
        it.tools[0]["description"] = f"Answers to {CANARIES['token']} and {DECOY}."
        it.results["echo"] = {"content": [{"type": "text", "text": f"{CANARIES['token']} {DECOY}"}], "isError": False}
        yield it


def named(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def objects(platform: Platform, server: McpServer) -> list[dict[str, Any]]:
    """A provider and a tool server with secrets, and an agent for each way of repeating them."""
    models = ["says", "refuses", "away", "breaks", "repeats"]
    pool = {"placement": {"pool": TENANT}}
    tools = [{"plugin": "blabber", "secrets": {"password": {"secret": "both", "key": "password"}}}, {"toolServer": "double"}]
    return [
        named("ModelProvider", "blab", plugin="blabber", credentials={"secret": "key"}, models=[{"name": each} for each in models]),
        named(
            "ModelProvider",
            "http",
            plugin="openai",
            endpoint=platform.upstream.url,
            credentials={"secret": "http-key"},
            models=[{"name": "status"}],
        ),
        named("ToolServer", "double", endpoint=server.url, credentials={"secret": "token"}),
        *(agent(each, model={"ref": f"blab/{each}"}, **pool) for each in models),
        agent("over-http", model={"ref": "http/status"}, **pool),
        agent("tools", model={"ref": "blab/says"}, tools=tools, **pool),
    ]


async def put(client: httpx2.AsyncClient, name: str, value: str) -> None:
    answer = await client.post("/v1/secrets", json={"name": name, "value": value})
    assert answer.status_code == 201, answer.text


async def apply(client: httpx2.AsyncClient, *manifests: dict[str, Any]) -> list[dict[str, Any]]:
    answer = (await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})).json()
    assert answer["failed"] == 0, answer
    return answer["results"]


async def run(client: httpx2.AsyncClient, name: str, input: str = "hello", wait: int = 30) -> dict[str, Any]:
    return (await client.post(f"/v1/agents/{name}/runs", params={"wait": wait}, json={"input": input})).json()


async def test_canaries_turn_up_nowhere_and_the_decoy_everywhere(
    platform: Platform, server: McpServer, client: httpx2.AsyncClient, stack: Stack
) -> None:
    async with Wiretap(stack) as wire:
        await put(client, "key", CANARIES["older-key"])
        await put(client, "http-key", CANARIES["http-key"])
        await put(client, "both", json.dumps({"password": CANARIES["password"], "user": "anna"}))
        *everything, last = objects(platform, server)
        applied = await apply(client, *everything)
        assert "there is no secret 'token' yet: hansa secrets set token" in applied[2]["note"]
        await put(client, "token", CANARIES["token"])
        server.misbehave("tools/list", Trouble.RPC_ERROR)
        for _ in range(2):  # refused with the token in the reason, then listed with the token in a description
            await apply(client, everything[2])
        await apply(client, last)
        platform.upstream.then(Scenario(Kind.STATUS, status=401, said=f"Incorrect API key: {CANARIES['http-key']} {DECOY}"))
        runs = [await run(client, "says")]
        await put(client, "key", CANARIES["key"])
        for name in ("says", "refuses", "away", "breaks", "over-http", "tools"):
            runs.append(await run(client, name))
        runs.append(await run(client, "repeats", f"do not show a model {CANARIES['password']}"))
        await wire.settle()
        heard = bytes(wire.heard)
    # They were given the secrets, and the one that counted: so there was something to repeat.
    assert [platform.upstream.requests[-1].headers["authorization"]] == [f"Bearer {CANARIES['http-key']}"]
    assert {request.headers.get("authorization") for request in server.requests} == {f"Bearer {CANARIES['token']}"}
    states = [each["state"] for each in runs]
    assert states == ["completed", "completed", "failed", "failed", "failed", "failed", "completed", "completed"]
    assert "[secret key]" in runs[1]["output"]
    assert runs[-1]["output"] == "do not show a model [secret both]"
    sinks = await looked_into(platform, client, runs, stack=stack)
    sinks = {**sinks, "NATS": heard}
    for name in ("key", "older-key", "http-key", "token"):
        assert found(sinks, CANARIES[name]) == [], name
    # Its writer put this one into a conversation: their own log keeps what they wrote, and that is all.
    written = {name: content for name, content in sinks.items() if str(runs[-1]["session_id"]) not in name}
    assert {each.split(":")[0] for each in found(written, CANARIES["password"])} <= {
        "GET /v1/runs?limit=200",
        f"GET /v1/runs/{runs[-1]['id']}",
        "files of PostgreSQL",
        "table hansa.runs",
        *(name for name in sinks if name.startswith("table hansa.events") or name == "table hansa.run_values"),
    }
    silent = [name for name in SPEAKING if not found({name: b"".join(sinks[each] for each in sinks if each.startswith(name))}, DECOY)]
    assert silent == []


SPEAKING = (
    "serve-",
    "worker-",
    "NATS",
    "GET /v1/runs",
    "GET /v1/sessions",
    "GET /v1/objects",
    "table hansa.events",
    "files of PostgreSQL",
    "workspaces",
)
"""Sinks that the decoy must turn up in."""


async def looked_into(platform: Platform, client: httpx2.AsyncClient, runs: list[dict[str, Any]], *, stack: Stack) -> Sinks:
    """All sinks, after what was done."""
    paths = [
        "/v1/runs?limit=200",
        "/v1/sessions?limit=200",
        "/v1/objects?limit=200",
        "/v1/models",
        "/v1/tools",
        "/v1/plugins",
        "/v1/agents",
    ]
    paths += ["/v1/secrets", "/v1/secrets/key", "/v1/secret-keys", "/v1/approvals", "/v1/dead-letters", "/v1/objects/ToolServer/double"]
    for each in runs:
        session = f"/v1/sessions/{each['session_id']}"
        paths += [f"/v1/runs/{each['id']}", session, f"{session}/events?limit=200", f"{session}/export"]
        replayed = await client.get(f"/v1/runs/{each['id']}/replay")
        assert replayed.json().get("equal") is True, replayed.text
    return {
        **platform.logs,
        **await of_api(client, paths),
        **await of_database(stack),
        **of_processes(),
        "workspaces": b"".join(contents(stack.servers.folder.path / "workspaces")),
        "files of NATS": b"".join(contents(stack.servers.folder.nats)),
    }


def test_a_secret_in_the_process_list_would_be_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", DECOY], stdin=subprocess.PIPE):
        assert found(of_processes(), DECOY) != []


def test_a_platform_that_strikes_out_nothing_would_be_found() -> None:
    """The broken control: what the plugins say of a canary, past a redactor that does not know it."""
    said = f"Incorrect API key provided: {CANARIES['key']}"
    knowing, ignorant = Redactor(), Redactor()
    knowing.learn(UUID(int=1), "key", CANARIES["key"])
    assert found({"a log": ignorant.line(said).encode()}, CANARIES["key"]) != []
    assert found({"a log": knowing.line(said).encode()}, CANARIES["key"]) == []


async def test_a_run_waits_while_what_keeps_the_keys_is_away_and_then_completes(platform: Platform, stack: Stack) -> None:
    headers = await issue(stack, "waiting-for-keys", name="waiting", roles=["tenant-admin"])
    async with plain_client(platform.processes[0].url, headers=headers) as client:
        await put(client, "key", CANARIES["key"])
        provider = named("ModelProvider", "blab", plugin="blabber", credentials={"secret": "key"}, models=[{"name": "says"}])
        waiting = agent("waiting", model={"ref": "blab/says"}, placement={"pool": TENANT})
        await apply(client, provider, waiting)
        away = platform.keys.rename(platform.keys.with_name("away"))
        try:
            started = await run(client, "waiting", wait=0)
            path = f"/v1/runs/{started['id']}"
            while (await client.get(path)).json()["state"] != "waiting":
                await asyncio.sleep(0.1)
            events = (await client.get(f"/v1/sessions/{started['session_id']}/events")).json()["data"]
            (told,) = [event["data"]["error"] for event in events if event["type"] == "run.retrying"]
            assert (told["code"], "HANSA_SECRETS_KEY_FILE" in json.dumps(told)) == ("secrets_away", False)
            assert "can't be read" in told["detail"]
        finally:
            away.rename(platform.keys)
        while (state := (await client.get(path)).json())["state"] == "waiting":
            await asyncio.sleep(0.1)
        while (state := (await client.get(path)).json())["state"] in ("waiting", "running", "queued"):
            await asyncio.sleep(0.1)
    assert (state["state"], "[secret key]" in state["output"]) == ("completed", True)
