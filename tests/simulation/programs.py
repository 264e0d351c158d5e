"""What simulated runs do: programs drawn from a seed, the runtime that performs them, tools that tell a witness, a model that answers."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from random import Random
from typing import Any, cast
from uuid import UUID

import msgspec

from hansa.artifacts.content import Artifacts
from hansa.artifacts.folder import Folder
from hansa.egress.client import HttpClient
from hansa.llm.metering import Meter, Target
from hansa.llm.model import LiveText
from hansa.llm.service import Gateway
from hansa.plugins.model import Plugins
from hansa.runs.model import World
from hansa.runs.worlds import Prepared, Worlds, prepare
from hansa.secrets.variables import Variables
from hansa.tenants.secrets.lookup import Lookup
from hansa.tools.servers import Connections, ToolServers
from hansa.tools.service import Surroundings
from hansa_sdk import (
    CallFailed,
    Completion,
    Effect,
    LLMRequest,
    LLMResponse,
    Message,
    ProviderUnavailable,
    Role,
    RunContext,
    StopReason,
    Tool,
    ToolContext,
    ToolFailed,
    Usage,
    WaitExpired,
    tool,
)


class Line(msgspec.Struct, frozen=True):
    """What a tool has told."""

    phase: str
    effect: str
    key: str
    mark: str


WITNESS: ContextVar[list[Line]] = ContextVar("witness")
TROUBLE: ContextVar[Random] = ContextVar("trouble")
PAUSES = (0.0, 0.0, 0.01, 0.3, 2.0, 7.0)


def _act(effect: Effect) -> Tool:
    async def act(context: ToolContext, *, mark: str, seconds: float = 0.0, rest: float = 0.0, fail: bool = False) -> str:
        """Act."""
        witness = WITNESS.get()
        witness.append(Line("begin", effect.value, context.idempotency_key, mark))
        await asyncio.sleep(seconds)
        witness.append(Line("effect", effect.value, context.idempotency_key, mark))
        await asyncio.sleep(rest)
        if fail:
            raise ToolFailed("it did not work")
        return mark

    return tool(effect=effect, name=f"do_{effect.value}")(act)


class Program:
    """Does what its input lists; its output is the list of what that gave."""

    name = "program"

    async def run(self, context: RunContext) -> Any:
        return await self._all(context, context.input)

    async def _all(self, context: RunContext, steps: list[Any]) -> list[Any]:
        return [await self._one(context, *step) for step in steps]

    async def _one(self, context: RunContext, word: str, *more: Any) -> Any:
        try:
            match word:
                case "tool":
                    outcome = await context.tool(more[0], more[1])
                    return [outcome.content, outcome.is_error]
                case "model":
                    return (await context.llm(LLMRequest((Message(Role.USER, more[0]),), max_tokens=MOST_TOKENS))).text
                case "sleep":
                    await context.sleep(more[0])
                    return "slept"
                case "ask":
                    return await context.ask(more[0])
                case "event":
                    return await context.wait_event(more[0], seconds=more[1])
                case "publish":
                    await context.publish(more[0], more[1])
                    return "published"
                case "call":
                    return await context.call(more[0], more[1])
                case "values":
                    context.log("drawn")
                    return [context.now().isoformat(), str(context.uuid()), context.random() < 0.5]
                case "toss":
                    return await self._all(context, more[0] if context.random() < 0.5 else more[1])
                case _:
                    return await context.gather(*(self._all(context, branch) for branch in more))
        except (CallFailed, WaitExpired) as error:
            return f"{error.code}: {error.detail}"


MOST_TOKENS, USED = 4, Usage(1, 2)
"""What an answer may have at most, and has. A token of it costs a millionth."""
AWAY, BROKEN_OFF = 0.15, 0.07
"""How often the model is not asked, and how often it has answered and nobody knows."""


class Model(Gateway):
    """Answers with what it is told, sometimes late, sometimes not at all."""

    def __init__(self, bill: list[int]) -> None:
        """It has no providers to open. `bill`: what it was asked for, in millionths, whoever heard the answer."""
        self._bill = bill

    async def complete(
        self, tenant_id: UUID, targets: Sequence[Target], request: LLMRequest, live: LiveText, *, meter: Meter
    ) -> Completion:
        trouble = TROUBLE.get()
        await meter.begin(targets[0], request)
        draw, pause = trouble.random(), trouble.choice(PAUSES)
        if draw >= AWAY:
            self._bill.append(USED.output_tokens)
        await asyncio.sleep(pause)
        if draw < AWAY + BROKEN_OFF:
            meter.failed(lost=draw >= AWAY)
            raise ProviderUnavailable("the model is away")
        response = LLMResponse(request.messages[-1].text, StopReason.END, "m", usage=USED)
        return Completion(response, "p", 1, meter.answered(response))


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"instructions": "Be.", "model": {"alias": "m"}, "runtime": {"name": "program"}}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": {**base, **spec}}


PROVIDER = {
    "apiVersion": "hansa.dev/v1alpha1",
    "kind": "ModelProvider",
    "metadata": {"name": "p"},
    "spec": {"plugin": "p", "models": [{"name": "m", "aliases": ["m"], "prices": {"output": 1.0}}]},
}
ACTS = [{"plugin": "acts"}]
MANIFESTS = {
    "plain": manifest("plain", tools=[*ACTS, {"agent": "child"}, {"agent": "nobody"}]),
    "careful": manifest(
        "careful",
        tools=[{"plugin": "acts", "requireApproval": ["do_unsafe", "do_keyed"]}, {"agent": "child", "requireApproval": ["child"]}],
        limits={"approvalSeconds": 4},
    ),
    "stubborn": manifest("stubborn", tools=ACTS, retry={"attempts": 3, "backoffSeconds": 1.0}),
    "child": manifest("child", tools=ACTS),
}


class Catalog:
    """What all worlds share: decoded manifests, plugins, and a stage for replays."""

    def __init__(self) -> None:
        acts = {each.name: ("acts", each) for each in map(_act, Effect)}
        self.plugins = Plugins((), acts, {}, {"program": ("program", Program())})
        self.tool_servers = ToolServers(cast(HttpClient, None), Lookup(Variables({}, ())))
        self.surroundings = Surroundings(Path("none"), cast(HttpClient, None), {})
        self.artifacts = Artifacts(Folder(Path("none")))
        self.connections = Connections(self.tool_servers, UUID(int=0))
        names = [{"name": name, "description": ""} for name in MANIFESTS]
        self.worlds = {
            name: msgspec.convert({"version": 1, "manifest": each, "providers": [PROVIDER], "tool_servers": [], "agents": names}, World)
            for name, each in MANIFESTS.items()
        }
        self.prepared = {name: prepare(world, 1, self.plugins) for name, world in self.worlds.items()}


class KnownWorlds(Worlds):
    """The real interface, over a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def get(self, tenant_id: UUID, agent: str, revision: int, *, version: int) -> Prepared:
        return self._catalog.prepared[agent]


@contextmanager
def told(witness: list[Line], trouble: Random) -> Iterator[None]:
    """Within it, and in what is begun within it, tools tell this witness, and the model has this trouble."""
    tokens = WITNESS.set(witness), TROUBLE.set(trouble)
    try:
        yield
    finally:
        WITNESS.reset(tokens[0])
        TROUBLE.reset(tokens[1])


class Author:
    """Draws programs; each call of a tool has a mark of its own. `spends`: they ask the model a lot."""

    spends = False

    def __init__(self, random: Random) -> None:
        self._random = random
        self._marks = 0

    def program(self, agent: str, *, depth: int = 0) -> list[Any]:
        """Steps for an agent."""
        return [self._step(agent, depth) for _ in range(self._random.randint(1, 2 if depth else 3))]

    def _step(self, agent: str, depth: int) -> list[Any]:
        draw, pause = self._random.random(), self._random.choice(PAUSES)
        if self.spends and self._random.random() < 0.4:
            many = [["model", f"say {n} {pause}"] for n in range(self._random.choice((1, 1, 2, 3)))]
            return ["gather", *([each] for each in many)] if len(many) > 1 else many[0]
        if draw < 0.45:
            self._marks += 1
            effect = self._random.choice(list(Effect)).value
            more = {"seconds": pause, "rest": self._random.choice(PAUSES), "fail": self._random.random() < 0.1}
            return ["tool", f"do_{effect}", {"mark": f"m{self._marks}", **more}]
        if draw < 0.62 and depth < 2:
            return ["gather", *(self.program(agent, depth=depth + 1) for _ in range(self._random.randint(1, 3)))]
        if draw < 0.67 and agent == "plain":
            return ["call", "child", self.program("child", depth=2)]
        if draw < 0.69 and agent == "plain":
            return ["call", "nobody", None]
        simple: list[list[Any]] = [
            ["sleep", pause],
            ["ask", "what now?"],
            ["event", self._random.choice("ab"), self._random.choice((None, 3.0))],
            ["publish", self._random.choice("ab"), {"n": 1}],
            ["values"],
            ["model", f"say {pause}"],
            ["toss", [["sleep", 1.0]], [["values"]]],
        ]
        return self._random.choice(simple)
