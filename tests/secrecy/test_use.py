"""Secrets where they are used: looked up for each call, never shared between tenants, and what happens when they can't be had."""

import asyncio
import secrets as randomness
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doubles.mcp_server import mcp_server
from hansa.apply.model import KnownServer
from hansa.auth.model import Principal
from hansa.egress.client import HttpClient, open_client
from hansa.egress.policy import EgressPolicy
from hansa.llm.metering import FreeMeter, Target
from hansa.llm.service import CredentialAway, Gateway, open_gateway
from hansa.plugins.model import Plugins
from hansa.secrets.variables import admitted
from hansa.tenants.secrets.lookup import Lookup
from hansa.tools.model import Policy, Selection
from hansa.tools.servers import ToolServers
from hansa.tools.service import Surroundings, ToolBox, ToolSecrets
from hansa_crds import ModelProvider, SecretRef, ToolServer
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    ProviderConfig,
    ProviderKind,
    ProviderRefused,
    ProviderServices,
    Role,
    StopReason,
    TextSink,
    ToolCall,
    ToolContext,
    tool,
)
from secrecy.safe import Safe

CANARY = f"canary-{randomness.token_hex(16)}"
ASK = LLMRequest((Message(Role.USER, "hello"),), timeout=10.0)


class Speaker:
    """A provider that says its key, letter by letter, when it is let go on."""

    def __init__(self, key: str, events: list[str], gate: asyncio.Event) -> None:
        self._key = key
        self._events = events
        self._gate = gate

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        self._events.append(f"asked with {self._key}")
        await self._gate.wait()
        for letter in f"it is {self._key}":
            on_text(letter)
        return LLMResponse(f"it is {self._key}", StopReason.END, request.model)


class Heard:
    """What a viewer was shown."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def text(self, piece: str) -> None:
        self.pieces.append(piece)

    def reset(self) -> None:
        self.pieces.clear()


class House:
    """A gateway whose provider tells what becomes of it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def kind(self) -> ProviderKind:
        @asynccontextmanager
        async def opened(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
            self.events.append(f"opened with {config.credential}")
            yield Speaker(config.credential or "nothing", self.events, self.gate)
            self.events.append(f"closed with {config.credential}")

        return ProviderKind("speaker", opened, requires_credential=True)


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
async def gateway(safe: Safe, house: House, tmp_path: Path) -> AsyncIterator[Gateway]:
    plugins = Plugins((), {}, {"speaker": ("speaker", house.kind())}, {})
    lookup = Lookup(admitted({}, "*"), safe.secrets, safe.redactor)
    async with open_client(EgressPolicy()) as http, open_gateway(plugins, http, tmp_path, lookup=lookup) as found:
        yield found


def whole(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def target(secret: str, key: str | None = None) -> Target:
    spec = {"plugin": "speaker", "models": [{"name": "m"}], "credentials": {"secret": secret, "key": key}}
    return Target(msgspec.convert(whole("ModelProvider", "p", spec), ModelProvider), "m")


async def ask(gateway: Gateway, who: Principal, *targets: Target) -> str:
    heard = Heard()
    done = await gateway.complete(who.tenant_id, targets, ASK, heard, meter=FreeMeter())
    assert "".join(heard.pieces) == done.response.text
    return done.response.text


async def test_a_secret_that_is_not_there_is_named_with_what_to_do(gateway: Gateway, mine: Principal) -> None:
    with pytest.raises(ProviderRefused, match=r"there is no secret 'claude'. Set it: hansa secrets set claude"):
        await ask(gateway, mine, target("claude"))
    assert "hansa secrets set claude" in gateway.usable(target("claude").provider, ())
    assert gateway.usable(target("claude").provider, ("claude",)) == ""


async def test_a_key_that_the_secret_lacks_is_named(gateway: Gateway, safe: Safe, mine: Principal) -> None:
    await safe.put(mine, "claude", f'{{"key": "{CANARY}"}}')
    with pytest.raises(ProviderRefused, match="has no key 'kye'") as refused:
        await ask(gateway, mine, target("claude", "kye"))
    assert CANARY not in str(refused.value)
    assert await ask(gateway, mine, target("claude", "key")) == "it is [secret claude]"


async def test_a_new_version_is_used_by_the_next_call_and_the_old_provider_closed_after_its_last(
    gateway: Gateway, house: House, safe: Safe, mine: Principal
) -> None:
    await safe.put(mine, "claude", "first-version")
    house.gate.clear()
    under_way = asyncio.create_task(ask(gateway, mine, target("claude")))
    while "asked with first-version" not in house.events:
        await asyncio.sleep(0.01)
    await safe.put(mine, "claude", "second-version")
    after = asyncio.create_task(ask(gateway, mine, target("claude")))
    while "asked with second-version" not in house.events:
        await asyncio.sleep(0.01)
    assert "closed with first-version" not in house.events
    house.gate.set()
    assert await asyncio.gather(under_way, after) == ["it is [secret claude]"] * 2
    await ask(gateway, mine, target("claude"))
    opened = [event for event in house.events if not event.startswith("asked")]
    assert opened == ["opened with first-version", "opened with second-version", "closed with first-version"]


async def test_two_tenants_never_share_a_provider_that_has_a_secret(
    gateway: Gateway, house: House, safe: Safe, mine: Principal, theirs: Principal
) -> None:
    for who in (mine, theirs):
        await safe.put(who, "claude", "one and the same value")
        await ask(gateway, who, target("claude"))
        await ask(gateway, who, target("claude"))
    assert [event for event in house.events if event.startswith("opened")] == ["opened with one and the same value"] * 2


async def test_while_the_keys_are_away_a_fallback_answers_and_without_one_the_run_is_told_to_wait(
    gateway: Gateway, safe: Safe, mine: Principal, keys: Path
) -> None:
    await safe.put(mine, "claude", CANARY)
    safe.secrets.keys.forget()
    away = keys.rename(keys.with_name("away"))
    with pytest.raises(CredentialAway, match=r"p: file: the file .* can't be read"):
        await ask(gateway, mine, target("claude"))
    plain = msgspec.structs.replace(target("claude").provider.spec, credentials=None, plugin="free")
    with pytest.raises(CredentialAway):  # one that can never answer changes nothing
        await ask(gateway, mine, target("claude"), Target(msgspec.structs.replace(target("claude").provider, spec=plain), "m"))
    away.rename(keys)
    assert await ask(gateway, mine, target("claude")) == "it is [secret claude]"


@tool(effect="read", secrets=("password",))
async def asks(context: ToolContext, *, name: str) -> str:
    """Ask for a secret."""
    return f"it is {await context.secret(name)}"


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with open_client(EgressPolicy()) as found:
        yield found


def box(safe: Safe, who: Principal, http: HttpClient, given: dict[str, SecretRef]) -> ToolBox:
    secrets = ToolSecrets(Lookup(admitted({}, "*"), safe.secrets, safe.redactor), who.tenant_id)
    selection = Selection({"asks": ("ours", asks)}, policies={"asks": Policy(secrets=given)})
    return ToolBox(selection, Surroundings(Path("none"), http, {}, secrets=secrets))


@pytest.mark.parametrize(
    ("asked", "given", "told"),
    [
        ("username", {}, "asks does not declare a secret 'username'"),
        ("password", {}, "asks wants a secret 'password', and the agent gives it none. The agent's spec.tools must give it"),
        ("password", {"password": SecretRef(secret="gone")}, "the secret 'gone' can't be had now; asks did nothing"),
        ("password", {"password": SecretRef(secret="theirs")}, "the secret 'theirs' can't be had now; asks did nothing"),
    ],
)
async def test_a_tool_gets_no_secret_but_what_it_declares_and_the_agent_gives(
    safe: Safe, mine: Principal, theirs: Principal, http: HttpClient, asked: str, given: dict[str, SecretRef], told: str
) -> None:
    await safe.put(theirs, "theirs", CANARY)
    outcome = await box(safe, mine, http, given).run(ToolCall("c", "asks", {"name": asked}))
    assert (outcome.is_error, told in outcome.content) == (True, True), outcome.content


async def test_a_tool_is_given_a_secret_and_the_model_is_not_told(safe: Safe, mine: Principal, http: HttpClient) -> None:
    await safe.put(mine, "smtp", f'{{"password": "{CANARY}"}}')
    outcome = await box(safe, mine, http, {"password": SecretRef(secret="smtp", key="password")}).run(
        ToolCall("c", "asks", {"name": "password"})
    )
    assert (outcome.is_error, outcome.content) == (False, "it is [secret smtp]")


async def test_a_tool_server_gets_the_token_as_it_is_now(safe: Safe, mine: Principal) -> None:
    async with (
        mcp_server(stateless=True, with_session=True) as server,
        open_client(EgressPolicy(allow=(f"127.0.0.1:{server.port}",))) as http,
    ):
        servers = ToolServers(http, Lookup(admitted({}, "*"), safe.secrets, safe.redactor))
        spec: dict[str, Any] = {"endpoint": server.url, "credentials": {"secret": "token"}}
        asked = msgspec.convert(whole("ToolServer", "double", spec), ToolServer)
        status = await servers.discover(mine.tenant_id, asked)
        assert "there is no secret 'token'" in status.reason
        assert server.requests == []
        await safe.put(mine, "token", "first-token")
        known = KnownServer(asked, await servers.discover(mine.tenant_id, asked))
        async with servers.connections(mine.tenant_id) as connections:
            tools = {name: ("double", each) for name, each in connections.tools(known).items()}
            calling = ToolBox(Selection(tools), Surroundings(Path("none"), http, {}))
            for value in ("first-token", "first-token", "second-token"):
                await safe.put(mine, "token", value)
                assert not (await calling.run(ToolCall("c", "echo", {}))).is_error
                assert server.requests[-1].headers["authorization"] == f"Bearer {value}"


@tool(effect="unsafe", secrets=("password",))
async def sends(context: ToolContext, *, url: str, asking: str) -> str:
    """Send a secret somewhere."""
    if asking:
        found = context.secret("password")
        await (asyncio.ensure_future(found) if asking == "a task of its own" else found)
    return str((await context.http.get(url)).status_code)


@pytest.mark.parametrize("asking", ["the tool", "a task of its own"])
@pytest.mark.parametrize(("hosts", "goes"), [(("127.0.0.1",), True), (("api.example.org",), False), (("127.0.0.1:1",), False), ((), True)])
async def test_a_tool_sends_requests_only_where_the_secret_may_go_that_it_was_given(
    safe: Safe, mine: Principal, hosts: tuple[str, ...], asking: str, *, goes: bool
) -> None:
    await safe.put(mine, "smtp", CANARY, hosts)
    async with mcp_server() as server, open_client(EgressPolicy(allow=(f"127.0.0.1:{server.port}",))) as http:
        secrets = ToolSecrets(Lookup(admitted({}, "*"), safe.secrets, safe.redactor), mine.tenant_id)
        given = {"sends": Policy(secrets={"password": SecretRef(secret="smtp")})}
        calling = ToolBox(Selection({"sends": ("ours", sends)}, policies=given), Surroundings(Path("none"), http, {}, secrets=secrets))
        outcome = await calling.run(ToolCall("c", "sends", {"url": server.url, "asking": asking}))
        assert outcome.is_error != goes, outcome.content
        assert goes or "it is not on the list of the secret 'smtp' (hosts)" in outcome.content
        other = await calling.run(ToolCall("d", "sends", {"url": server.url, "asking": ""}))
        assert not other.is_error, "the next call is as free as before"


async def test_a_token_that_is_tied_to_other_hosts_does_not_reach_a_tool_server(safe: Safe, mine: Principal) -> None:
    async with (
        mcp_server(stateless=True, with_session=True) as server,
        open_client(EgressPolicy(allow=(f"127.0.0.1:{server.port}",))) as http,
    ):
        servers = ToolServers(http, Lookup(admitted({}, "*"), safe.secrets, safe.redactor))
        spec: dict[str, Any] = {"endpoint": server.url, "credentials": {"secret": "token"}}
        asked = msgspec.convert(whole("ToolServer", "double", spec), ToolServer)
        await safe.put(mine, "token", "first-token", ("tools.example.org",))
        status = await servers.discover(mine.tenant_id, asked)
        assert "it is not on the list of the secret 'token' (hosts)" in status.reason, status
        assert server.requests == []
        await safe.put(mine, "token", "first-token", ("127.0.0.1",))
        known = KnownServer(asked, await servers.discover(mine.tenant_id, asked))
        await safe.put(mine, "token", "second-token", ("tools.example.org",))
        count = len(server.requests)
        async with servers.connections(mine.tenant_id) as connections:
            tools = {name: ("double", each) for name, each in connections.tools(known).items()}
            outcome = await ToolBox(Selection(tools), Surroundings(Path("none"), http, {})).run(ToolCall("c", "echo", {}))
        assert (outcome.is_error, len(server.requests)) == (True, count), outcome
