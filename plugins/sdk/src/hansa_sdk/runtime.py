"""What an agent runtime is given and what it implements. No database, no messaging, no vendor: plain `async` code.

Everything a runtime does through its `RunContext` is a step in the run's log. After a crash the runtime is started again
from the top and each step that is already in the log answers from the log, so between steps a runtime must be
deterministic: time, ids and random numbers only from the context.
"""

from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from hansa_sdk.llm import LLMRequest, LLMResponse, Message, ToolSpec

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one run: model turns, total tokens (input + output; 0: none), seconds of work, seconds until
    an approval or a question expires (0: never), cost in millionths of the prices' currency (0: none)."""

    turns: int = 16
    tokens: int = 0
    timeout: float = 600.0
    approval: float = 86400.0
    cost: int = 0


class Example(msgspec.Struct, frozen=True):
    """One exchange shown to the model before the conversation: `output` is text or any JSON value."""

    input: str
    output: Any


class AgentDefinition(msgspec.Struct, frozen=True):
    """The agent revision a run was started with."""

    name: str
    revision: int
    instructions: str
    examples: tuple[Example, ...] = ()
    input_template: str | None = None
    output_schema: dict[str, Any] | None = None
    max_tokens: int = 1024
    temperature: float | None = None
    limits: Limits = Limits()
    runtime_config: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class ToolOutcome(msgspec.Struct, frozen=True):
    """What came of a tool call: `content` is JSON data, or the error's text when `is_error`.

    `invalid_arguments` tells a call the platform refused before the tool saw it.
    """

    content: Any
    is_error: bool = False
    invalid_arguments: bool = False


class RunContext(Protocol):
    """A runtime's whole world."""

    @property
    def run_id(self) -> UUID: ...

    @property
    def session_id(self) -> UUID: ...

    @property
    def agent(self) -> AgentDefinition: ...

    @property
    def input(self) -> Any:
        """What the run was started with: any JSON value."""
        ...

    @property
    def history(self) -> tuple[Message, ...]:
        """The session's earlier turns, oldest first: inputs as user, outputs as assistant."""
        ...

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The tools this agent may use."""
        ...

    async def llm(self, request: LLMRequest) -> LLMResponse:
        """Ask the agent's model (with its fallbacks); text is streamed to whoever watches.

        Raises `ProviderError` when no model answered.
        """
        ...

    async def tool(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Call a tool; its failure is an outcome, not an exception."""
        ...

    async def call(self, agent: str, input: Any) -> Any:
        """Run another agent, one that this agent's tools name, and give its output. While it works this run costs nothing.

        Raises `CallFailed` when it failed, was canceled or could not be started.
        """
        ...

    async def ask(self, question: str) -> Any:
        """Ask a person; the answer is any JSON value. Raises `WaitExpired` when nobody answered in time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; while it does the run costs nothing."""
        ...

    async def wait_event(self, name: str, *, seconds: float | None = None) -> Any:
        """Wait for an event of this name sent to the session, or published; give its data.

        Events sent to the session before are kept for it. Raises `WaitExpired` after `seconds`.
        """
        ...

    async def publish(self, name: str, data: Any) -> None:
        """Send an event to every run of the tenant that waits for this name now."""
        ...

    async def gather(self, *branches: Awaitable[T]) -> list[T]:
        """Run branches side by side; step ids stay the same whatever order they finish in."""
        ...

    def now(self) -> datetime:
        """The time, recorded: a replay sees the same."""
        ...

    def uuid(self) -> UUID:
        """A fresh id, recorded."""
        ...

    def random(self) -> float:
        """A number in [0, 1), recorded."""
        ...

    def log(self, message: str) -> None:
        """A line for people, shown with the run."""
        ...


class Runtime(Protocol):
    """An agent runtime. `run` returns the run's output as JSON data, or raises `RunFailed`."""

    @property
    def name(self) -> str: ...

    async def run(self, context: RunContext) -> Any: ...
