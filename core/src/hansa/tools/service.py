"""An agent's tools within one run: allow-list, arguments checked before the tool sees them, deadline, answer capped.

A tool's failure is an outcome that the model is told. Must not know the log: whoever calls `run` has written the intent.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog

from hansa import clock
from hansa.egress.client import HttpClient
from hansa.egress.narrowing import narrowed, narrowing_within
from hansa.errors import HansaError
from hansa.tenants.secrets.lookup import Lookup
from hansa.tools.cage.service import Cages, RunCage
from hansa.tools.model import CALL_SCHEMA, Policy, Selection
from hansa.tools.policies import broken_rule
from hansa.tools.schemas import wrong_arguments
from hansa_crds import SecretRef
from hansa_sdk import Effect, Tool, ToolCall, ToolFailed, ToolOutcome, ToolSpec

log = structlog.stdlib.get_logger("hansa.tools")
MAX_ANSWER_BYTES = 262_144
EGRESS_OF_AGENT = "the agent's list (spec.egress)"
NO_POLICY = Policy()
WRITES = frozenset({Effect.KEYED, Effect.UNSAFE})
"""Effects that a person must approve once untrusted text was read, where the agent says so."""


class ToolSecrets:
    """The secrets of one tenant, as its tools are given them, and struck out of what they answer."""

    def __init__(self, lookup: Lookup, tenant_id: UUID) -> None:
        self._lookup = lookup
        self._tenant_id = tenant_id

    async def value(self, ref: SecretRef) -> str:
        """What a secret holds now."""
        return await self._lookup.secret(self._tenant_id, ref)

    def clean(self, outcome: ToolOutcome) -> ToolOutcome:
        """An outcome without any secret of the tenant."""
        return msgspec.structs.replace(outcome, content=self._lookup.redactor.value(self._tenant_id, outcome.content))


class Surroundings(msgspec.Struct, frozen=True):
    """What the tools of one run may touch. Without `cages` no program is run, without `secrets` there are none."""

    workspace: Path
    http: HttpClient
    settings: Mapping[str, str]
    cages: Cages | None = None
    secrets: ToolSecrets | None = None


class CallContext:
    """Implements `hansa_sdk.ToolContext` for one call, as the agent's policy says."""

    def __init__(self, surroundings: Surroundings, idempotency_key: str, tool: Tool, policy: Policy) -> None:
        self._surroundings = surroundings
        self._key = idempotency_key
        self._tool = tool
        self._policy = policy

    @property
    def idempotency_key(self) -> str:
        return self._key

    @property
    def workspace(self) -> Path:
        self._surroundings.workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._surroundings.workspace

    @property
    def http(self) -> HttpClient:
        return self._surroundings.http

    @property
    def cage(self) -> RunCage:
        if self._surroundings.cages is None:
            raise ToolFailed("there is no cage in this process")
        return RunCage(self._surroundings.cages, self.workspace, self._policy.cage)

    @property
    def settings(self) -> Mapping[str, str]:
        return self._surroundings.settings

    def now(self) -> datetime:
        return clock.now()

    async def secret(self, name: str) -> str:
        if name not in self._tool.secrets:
            raise ToolFailed(f"{self._tool.name} does not declare a secret {name!r}", hint="Its @tool(secrets=...) must name it.")
        ref = self._policy.secrets.get(name)
        if ref is None or self._surroundings.secrets is None:
            hint = "The agent's spec.tools must give it one by `secrets`."
            raise ToolFailed(f"{self._tool.name} wants a secret {name!r}, and the agent gives it none", hint=hint)
        try:
            return await self._surroundings.secrets.value(ref)
        except HansaError as error:
            # The model is told that it can't be had, the operator why.
            log.warning("tool.secret_not_had", tool=self._tool.name, secret=ref.secret, code=error.code, reason=error.detail)
            raise ToolFailed(f"the secret {ref.secret!r} can't be had now; {self._tool.name} did nothing") from error


class ToolBox:
    """The tools one run may use, agents that it may call among them."""

    def __init__(self, selection: Selection, surroundings: Surroundings) -> None:
        self._tools = selection.tools
        self._agents = selection.agents
        self._policies = selection.policies
        self._taint = selection.taint
        self._writers = selection.writers
        self._surroundings = surroundings

    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is shown, in the order of names."""
        shown = [ToolSpec(tool.name, tool.description, tool.parameters) for _, tool in self._tools.values()]
        shown += [ToolSpec(name, f"The agent {name}. {text}".strip(), CALL_SCHEMA) for name, text in self._agents.items()]
        return tuple(sorted(shown, key=lambda spec: spec.name))

    def effect(self, name: str) -> Effect:
        """The declared effect of a tool that may be used."""
        return self._tools[name][1].effect

    def is_agent(self, name: str) -> bool:
        """Whether a name is that of an agent that may be called."""
        return name in self._agents

    def needs_approval(self, name: str) -> bool:
        """Whether a person must approve each call."""
        return self._policy(name).approval

    def needs_approval_once_tainted(self, name: str) -> bool:
        """Whether a person must approve calls after the run has read untrusted text: writes, and agents, which may write."""
        return self._taint and (name in self._agents or self.effect(name) in WRITES)

    def is_untrusted(self, name: str) -> bool:
        """Whether answers hold text that strangers wrote."""
        return self._policy(name).untrusted

    def _policy(self, name: str) -> Policy:
        return self._policies.get(name, NO_POLICY)

    def refusal(self, name: str, arguments: dict[str, Any]) -> ToolOutcome | None:
        """Why a call can't be made, as the model will be told; None: it can."""
        if name not in self._tools and name not in self._agents:
            allowed = ", ".join(sorted({*self._tools, *self._agents})) or "none"
            return ToolOutcome(f"there is no tool {name!r} for this agent; the tools are: {allowed}", is_error=True, invalid_arguments=True)
        if name in self._agents:
            wrong = wrong_arguments(CALL_SCHEMA, arguments)
        else:
            tool = self._tools[name][1]
            try:
                wrong = wrong_arguments(tool.parameters, arguments) if tool.arguments is dict else ""
                _read(tool, arguments)
            except msgspec.ValidationError as error:
                wrong = str(error)
        if wrong:
            return ToolOutcome(f"the arguments of {name} are wrong: {wrong}", is_error=True, invalid_arguments=True)
        broken = broken_rule(self._policy(name).rules, ToolCall(id="", name=name, arguments=arguments))
        if broken:
            return ToolOutcome(f"this agent may not call {name} so: {broken}", is_error=True, invalid_arguments=True)
        if self._writers is None or name in self._writers or name in self._agents or self.effect(name) is Effect.READ:
            return None
        return ToolOutcome(
            f"{name} was not called: this run only checks the agent, and makes no call that does more than read", is_error=True
        )

    async def run(self, call: ToolCall) -> ToolOutcome:
        """Make a call that `refusal` lets pass. Cancelling the task stops the tool. No secret of the tenant is in what comes of it."""
        outcome = await self._run(call)
        return outcome if self._surroundings.secrets is None else self._surroundings.secrets.clean(outcome)

    async def _run(self, call: ToolCall) -> ToolOutcome:
        source, tool = self._tools[call.name]
        policy = self._policy(call.name)
        arguments = _read(tool, call.arguments)
        try:
            with narrowed(EGRESS_OF_AGENT, policy.egress), narrowing_within():  # by secrets that are tied to hosts
                async with asyncio.timeout(tool.timeout):
                    answer = await tool.run(CallContext(self._surroundings, call.id, tool, policy), arguments)
            return _outcome(call.name, answer)
        except ToolFailed as error:
            return ToolOutcome(f"{error.detail}. {error.hint}".removesuffix(". "), is_error=True)
        except TimeoutError:
            return ToolOutcome(f"{call.name} did not finish within {tool.timeout:g} s and was stopped", is_error=True)
        # A tool is a stranger's code: its defect is told to the model and logged with where it comes from; the run goes on.
        except Exception as error:
            log.exception("tool.broke", tool=call.name, source=source)
            return ToolOutcome(f"{call.name} broke: {type(error).__name__}: {error}", is_error=True)


def _read(tool: Tool, arguments: dict[str, Any]) -> Any:
    return msgspec.convert(arguments, tool.arguments, strict=True)


def _outcome(name: str, answer: Any) -> ToolOutcome:
    encoded = msgspec.json.encode(answer)
    if len(encoded) > MAX_ANSWER_BYTES:
        return ToolOutcome(f"{name} answered {len(encoded)} bytes; the most that is taken is {MAX_ANSWER_BYTES}", is_error=True)
    return ToolOutcome(msgspec.json.decode(encoded))
