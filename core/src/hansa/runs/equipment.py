"""What a process lends to all its runs, and how one run's context is made of it."""

from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from hansa.artifacts.content import Artifacts
from hansa.auth.model import IN_RUNS
from hansa.bus.connection import Bus
from hansa.db.pool import Database
from hansa.egress.client import HttpClient
from hansa.llm.metering import Meter
from hansa.llm.model import LiveText
from hansa.llm.service import AgentModel, Gateway
from hansa.plugins.model import Plugins
from hansa.runs.context import DurableContext, Model, Parts, Sources, Voice
from hansa.runs.journal import Journal, Writer
from hansa.runs.log.keeping import Values
from hansa.runs.log.retention import Retention
from hansa.runs.model import Past, RunView
from hansa.runs.steps import StepLog
from hansa.runs.waiting import Waiting
from hansa.runs.worlds import Prepared, Worlds
from hansa.telemetry.metrics import Metrics
from hansa.tenants.secrets.lookup import Lookup
from hansa.tenants.secrets.service import TenantSecrets
from hansa.tools.cage.service import Cages
from hansa.tools.servers import Connections, ToolServers
from hansa.tools.service import Surroundings, ToolBox, ToolSecrets
from hansa_sdk import Completion, LLMRequest, Message, Role, RunFailed


class Equipment(msgspec.Struct, frozen=True):
    """What a process lends to all its runs."""

    database: Database
    bus: Bus
    plugins: Plugins
    gateway: Gateway
    http: HttpClient
    tool_servers: ToolServers
    worlds: Worlds
    writer: Writer
    values: Values
    artifacts: Artifacts
    secrets: TenantSecrets
    lookup: Lookup
    retention: Retention
    region: str
    worker: str
    workspaces: Path
    tool_settings: dict[str, str]
    cages: Cages | None = None
    sources: Sources = Sources()
    metrics: Metrics = msgspec.field(default_factory=Metrics)


class Place(msgspec.Struct, frozen=True):
    """Where one run's context stands: what it writes to, speaks to, waits in, asks and may touch. `writers`: see `Selection`."""

    journal: Journal
    voice: Voice
    waiting: Waiting
    connections: Connections
    model: Model
    surroundings: Surroundings
    depth: int = 0
    sources: Sources = Sources()
    may: frozenset[str] = IN_RUNS
    writers: frozenset[str] | None = None


class NoModel:
    """Stands for an agent's model that nobody offers: it is an error only once it is asked, for a replay never asks."""

    def __init__(self, missing: list[str]) -> None:
        self._missing = missing

    async def complete(self, request: LLMRequest, live: LiveText, meter: Meter) -> Completion:
        raise RunFailed(
            "; ".join(self._missing), code="model_missing", hint="Apply a ModelProvider that has it; `hansa models` lists what there is."
        )


def model_of(equipment: Equipment, prepared: Prepared, tenant_id: UUID) -> Model:
    """The model of an agent's revision, bound to this process's providers."""
    return AgentModel(equipment.gateway, tenant_id, prepared.targets) if prepared.targets else NoModel(prepared.missing)


def surroundings_of(equipment: Equipment, tenant_id: UUID, run: RunView) -> Surroundings:
    """What the tools of a run may touch in this process."""
    secrets = ToolSecrets(equipment.lookup, tenant_id)
    workspace = equipment.workspaces / str(tenant_id) / str(run.id)
    return Surroundings(workspace, equipment.http, equipment.tool_settings, equipment.cages, secrets)


def make_context(prepared: Prepared, run: RunView, *, past: Past, place: Place) -> DurableContext:
    """The context of a run. Raises `RunFailed` when a tool that its agent names is not there."""
    selection = prepared.select(place.connections)
    if place.writers is not None:
        selection = msgspec.structs.replace(selection, writers=place.writers)
    parts = Parts(
        agent=prepared.definition,
        history=tuple(message for turn in past.history for message in _turn(turn)),
        tools=ToolBox(selection, place.surroundings),
        model=place.model,
        voice=place.voice,
        journal=place.journal,
        waiting=place.waiting,
        depth=place.depth,
        sources=place.sources,
        may=place.may,
    )
    return DurableContext(run, StepLog(past.steps), parts)


def _turn(turn: tuple[Any, Any]) -> tuple[Message, Message]:
    answer = "(interrupted)" if turn[1] is None else as_text(turn[1])
    return Message(Role.USER, as_text(turn[0])), Message(Role.ASSISTANT, answer)


def as_text(value: Any) -> str:
    """How a JSON value is put before a model: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
