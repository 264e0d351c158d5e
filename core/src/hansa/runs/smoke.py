"""The run that checks a new revision of an agent: how it is known, and whether its answer is what the agent's manifest says. Pure.

A replay judges as well, so that it ends as the run did.
"""

from typing import Any

import msgspec

from hansa.auth.model import Starter
from hansa.runs.model import canonical
from hansa.tools import expressions
from hansa.tools.schemas import wrong_value
from hansa_crds import Agent
from hansa_sdk import RunFailed

STARTER = Starter("rollout", "rollout", may=())
"""Who starts such a run. It may nothing, so the run calls no agents and publishes no events."""
SHOWN = 200


def is_smoke(starter: Starter | None) -> bool:
    """Whether a run checks a revision."""
    return starter is not None and starter.kind == STARTER.kind


def writers(agent: Agent, starter: Starter | None) -> frozenset[str] | None:
    """The tools that a run may call although they do more than read; None: all of its agent's."""
    if not is_smoke(starter):
        return None
    return frozenset(agent.spec.rollout.smoke.allow) if agent.spec.rollout is not None else frozenset()


def judge(agent: Agent, starter: Starter | None, output: Any) -> None:
    """Raises `RunFailed` where a run that checks a revision has not answered as it must."""
    if not is_smoke(starter):
        return
    flaw = _flaw(agent, output)
    if flaw:
        raise RunFailed(
            f"the answer {_short(output)} is not what is expected: {flaw}", code="smoke_failed", hint="See spec.rollout.smoke of the agent."
        )


def _flaw(agent: Agent, output: Any) -> str:
    if agent.spec.output_schema is not None and (wrong := wrong_value(agent.spec.output_schema, output)):
        return f"it does not obey outputSchema: {wrong}"
    if agent.spec.rollout is None:
        return ""
    expect = agent.spec.rollout.smoke.expect
    text = _text(output).casefold()
    for each in expect.contains:
        if each.casefold() not in text:
            return f"it does not contain {each!r}"
    if expect.cel is None:
        return ""
    holds, trouble = expressions.answer_holds(expect.cel, output)
    if trouble:
        return f"{expect.cel!r} can't be evaluated: {trouble}"
    return "" if holds else f"{expect.cel!r} does not hold"


def _text(output: Any) -> str:
    return output if isinstance(output, str) else canonical(output).decode()


def _short(output: Any) -> str:
    text = msgspec.json.encode(output).decode()
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
