"""What an agent may call in a run."""

from collections.abc import Mapping

import msgspec

from hansa.tools.cage.service import Narrower
from hansa_crds import ArgumentRule, SecretRef
from hansa_sdk import Tool

CALL_SCHEMA = {
    "type": "object",
    "properties": {"input": {"description": "What the agent is asked: text, or any JSON value it understands."}},
    "required": ["input"],
    "additionalProperties": False,
}
"""Parameters of an agent that is called as a tool."""


class Policy(msgspec.Struct, frozen=True):
    """What an agent says of one tool, or of an agent that it may call, beside its effect. `egress`: where its requests may go; None:
    anywhere. `secrets`: what it gives the tool, under the names that the tool has for them."""

    rules: tuple[ArgumentRule, ...] = ()
    approval: bool = False
    untrusted: bool = False
    cage: Narrower = Narrower()
    egress: tuple[str, ...] | None = None
    secrets: Mapping[str, SecretRef] = {}


class Selection(msgspec.Struct, frozen=True):
    """Tools by name, each with where it comes from; descriptions of callable agents by name; policies of both by name.

    `taint`: after an untrusted answer a person must approve writes. `writers`: the only tools that are called although they do more than
    read; None: all are.
    """

    tools: Mapping[str, tuple[str, Tool]]
    agents: Mapping[str, str] = {}
    policies: Mapping[str, Policy] = {}
    taint: bool = False
    writers: frozenset[str] | None = None
