"""Drives one claimed run from load to end: sets up its world from the agent revision, calls the runtime, writes how it ended.

Warning: it never lets an exception of a plugin out; what goes wrong becomes the run's error.
"""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hansa.apply.model import KnownServer
from hansa.bus.connection import Bus
from hansa.bus.subjects import session_live
from hansa.db.pool import Database
from hansa.egress.client import HttpClient
from hansa.errors import HansaError
from hansa.llm.service import AgentModel, Gateway, LiveText, resolve
from hansa.plugins.model import Plugins
from hansa.runs import store
from hansa.runs.context import DurableContext, NeedsReview, Parts, Voice
from hansa.runs.journal import DatabaseJournal, Journal
from hansa.runs.model import Claim, End, Entry, EventType, Loaded, RunContextData, RunView, plain
from hansa.runs.steps import StepLog
from hansa.runs.voice import BusVoice
from hansa.tools.selection import select
from hansa.tools.servers import Connections, ToolServers
from hansa.tools.service import Surroundings, ToolBox
from hansa_crds import Agent, ModelProvider
from hansa_sdk import AgentDefinition, Completion, Example, Limits, LLMRequest, Message, PluginError, Role, RunFailed, Runtime

log = structlog.stdlib.get_logger("hansa.runs")
MAX_TAKEOVERS = 5
FINAL_EVENT = {
    "completed": EventType.RUN_COMPLETED,
    "failed": EventType.RUN_FAILED,
    "canceled": EventType.RUN_CANCELED,
    "needs_review": EventType.RUN_NEEDS_REVIEW,
}


class Equipment(msgspec.Struct, frozen=True):
    """What a process lends to all its runs."""

    database: Database
    bus: Bus
    plugins: Plugins
    gateway: Gateway
    http: HttpClient
    tool_servers: ToolServers
    region: str
    worker: str
    workspaces: Path
    tool_settings: dict[str, str]
    lease: float


class NoModel:
    """Stands for an agent's model that nobody offers: it is an error only once it is asked, for a replay never asks."""

    def __init__(self, missing: list[str]) -> None:
        self._missing = missing

    async def complete(self, request: LLMRequest, live: LiveText) -> Completion:
        raise RunFailed(
            "; ".join(self._missing), code="model_missing", hint="Apply a ModelProvider that has it; `hansa models` lists what there is."
        )


class Canceling:
    """Tells why a run's task was cancelled: because someone wants the run canceled, or because the worker stops."""

    def __init__(self) -> None:
        self.wanted = False


async def execute(equipment: Equipment, claim: Claim, canceling: Canceling) -> None:
    """Load, drive and end a claimed run. Returns also when fenced; raises only CancelledError, when the worker stops."""
    loaded = await store.load(equipment.database, claim, equipment.worker)
    if loaded is None:
        return
    voice = BusVoice(equipment.bus, session_live(equipment.region, claim.tenant_id, loaded.run.session_id), claim.id)
    await voice.wrote(loaded.seq)
    journal = DatabaseJournal(equipment.database, claim, equipment.lease, voice.wrote)
    if loaded.cancel:
        await _end(journal, End("canceled"), None)
        return
    if loaded.takeovers >= MAX_TAKEOVERS:
        lost = {
            "code": "worker_lost",
            "detail": f"{loaded.takeovers} workers were lost in a row at the same step",
            "hint": "Look into the workers' logs: memory?",
        }
        await _end(journal, End("failed", error=lost), None)
        return
    async with equipment.tool_servers.connections() as connections:
        await _drive(equipment, loaded, connections, journal, voice, canceling)


async def _drive(
    equipment: Equipment, loaded: Loaded, connections: Connections, journal: Journal, voice: Voice, canceling: Canceling
) -> None:
    context: DurableContext | None = None
    try:
        runtime, context = prepare(equipment, loaded.run, loaded.context, connections, journal=journal, voice=voice)
        async with asyncio.timeout(max(0.0, context.agent.limits.timeout - loaded.elapsed)):
            end = End("completed", output=plain(await runtime.run(context)))
    except NeedsReview as review:
        entry = Entry(EventType.RUN_NEEDS_REVIEW, {"step": review.step, "name": review.name, "arguments": review.arguments})
        await journal.write(entry, end=End("needs_review"))
        return
    except asyncio.CancelledError:
        if not canceling.wanted:
            raise
        end = End("canceled")
    # Whatever a runtime raises ends the run with an error that says so; it is logged, and the worker goes on.
    except Exception as error:
        end = End("failed", error=failure(error, context))
        if end.error and end.error["code"] in ("runtime_error", "internal"):
            log.exception("run.broke", run_id=str(loaded.run.id), agent=loaded.run.agent)
    await _end(journal, end, context)


async def _end(journal: Journal, end: End, context: DurableContext | None) -> None:
    data: dict[str, Any] = {"output": end.output} if end.state == "completed" else {"error": end.error} if end.error else {}
    if context is not None:
        data["usage"] = msgspec.to_builtins(context.usage)
    await journal.write(Entry(FINAL_EVENT[end.state], data), end=end)


def failure(error: Exception, context: DurableContext | None) -> dict[str, str]:
    """What a run's error says of an exception: code, detail, hint."""
    match error:
        case RunFailed():
            return {"code": error.reason, "detail": error.detail, "hint": error.hint}
        case PluginError() | HansaError():
            return {"code": error.code, "detail": error.detail, "hint": error.hint}
        case TimeoutError() if context is not None:
            bound = context.agent.limits.timeout
            return {
                "code": "limit_timeout",
                "detail": f"the run took longer than its {bound:g} s",
                "hint": "Raise spec.limits.timeoutSeconds.",
            }
        case _:
            return {
                "code": "runtime_error",
                "detail": f"the runtime broke: {type(error).__name__}: {error}",
                "hint": "The worker's log has more.",
            }


def prepare(
    equipment: Equipment, run: RunView, data: RunContextData, connections: Connections, *, journal: Journal, voice: Voice
) -> tuple[Runtime, DurableContext]:
    """The runtime and the context of a run, from its agent revision. Raises `RunFailed` when something it names is not there."""
    agent = msgspec.convert(data.manifest, Agent)
    known = equipment.plugins.runtimes.get(agent.spec.runtime.name)
    if known is None:
        loaded = ", ".join(sorted(equipment.plugins.runtimes)) or "none"
        raise RunFailed(
            f"the runtime {agent.spec.runtime.name!r} is not loaded (loaded: {loaded})", code="runtime_missing", hint="Install its plugin."
        )
    providers = [msgspec.convert(manifest, ModelProvider) for manifest in data.providers]
    targets, missing = resolve((agent.spec.model, *agent.spec.model.fallbacks), providers)
    servers = msgspec.convert(data.tool_servers, list[KnownServer])
    surroundings = Surroundings(equipment.workspaces / str(run.id), equipment.http, equipment.tool_settings)
    parts = Parts(
        agent=definition(agent, run.revision),
        history=tuple(message for turn in data.history for message in _turn(turn)),
        tools=ToolBox(select(agent, equipment.plugins, servers, connections), surroundings),
        model=AgentModel(equipment.gateway, targets) if targets else NoModel(missing),
        voice=voice,
        journal=journal,
    )
    return known[1], DurableContext(run, StepLog(data.steps), parts)


def definition(agent: Agent, revision: int) -> AgentDefinition:
    """An agent's manifest as its runtime sees it."""
    spec = agent.spec
    return AgentDefinition(
        name=agent.metadata.name,
        revision=revision,
        instructions=spec.instructions,
        examples=tuple(Example(example.input, example.output) for example in spec.examples),
        input_template=spec.input_template,
        output_schema=spec.output_schema,
        max_tokens=spec.model.params.max_tokens or 1024,
        temperature=spec.model.params.temperature,
        limits=Limits(turns=spec.limits.turns, tokens=spec.limits.tokens, timeout=float(spec.limits.timeout_seconds)),
        runtime_config=spec.runtime.config,
    )


def _turn(turn: tuple[Any, Any]) -> tuple[Message, Message]:
    return Message(Role.USER, as_text(turn[0])), Message(Role.ASSISTANT, as_text(turn[1]))


def as_text(value: Any) -> str:
    """How a JSON value is put before a model: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
