"""How a new revision of an Agent is checked before it serves."""

from typing import Annotated, Any

from msgspec import Meta

from hansa_crds.parts import Part, ToolName


class SmokeExpect(Part, frozen=True, kw_only=True):
    """What the answer must be, beside obeying the agent's `outputSchema`. All that is written must be so."""

    contains: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1000)], ...],
        Meta(
            max_length=16,
            description="Texts that stand in the answer (in its JSON, when it is no text), whatever the case of their letters.",
        ),
    ] = ()
    cel: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2048)] | None,
        Meta(
            description=(
                "Expression of the Common Expression Language that must give true: `output` is the answer, text or any JSON value. One that"
                " can't be evaluated refuses the revision."
            )
        ),
    ] = None


class AgentSmoke(Part, frozen=True, kw_only=True):
    """One run of the new revision, in a session of its own."""

    input: Annotated[Any, Meta(description="What it is started with: text, or any JSON value.")]
    expect: Annotated[SmokeExpect, Meta(description="What it must answer; left out: that it ends well is enough.")] = SmokeExpect()
    allow: Annotated[
        tuple[ToolName, ...],
        Meta(
            max_length=64,
            description="Tools that it may call although they do more than read; left out: calls of such are not made, and it is told so.",
        ),
    ] = ()


class AgentRollout(Part, frozen=True, kw_only=True):
    """A new revision serves once it has passed its check; until then, and when it is refused, the last good one serves."""

    smoke: Annotated[AgentSmoke, Meta(description="A run that the new revision must get right.")]
    timeout_seconds: Annotated[
        int,
        Meta(
            ge=1, le=86400, description="Most seconds that the check may take; while it waits for a worker, or is held, none are counted."
        ),
    ] = 600
