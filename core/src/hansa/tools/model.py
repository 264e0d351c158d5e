"""What an agent may call in a run."""

from collections.abc import Mapping

import msgspec

from hansa_crds import SecretRef
from hansa_sdk import Tool

CALL_SCHEMA = {
    "type": "object",
    "properties": {"input": {"description": "What the agent is asked: text, or any JSON value it understands."}},
    "required": ["input"],
    "additionalProperties": False,
}
"""Parameters of an agent that is called as a tool."""


class Selection(msgspec.Struct, frozen=True):
    """Tools by name, each with where it comes from; descriptions of callable agents by name; names that need a person's approval.

    `secrets`: by tool, what the agent gives it under the names it asks for.
    """

    tools: Mapping[str, tuple[str, Tool]]
    agents: Mapping[str, str] = {}
    approvals: frozenset[str] = frozenset()
    secrets: Mapping[str, Mapping[str, SecretRef]] = {}
