"""What an answer may look like: a grammar for llama.cpp, and what surrounds the part that the model writes.

Knows the language of the grammars (llguidance) and nothing of conversations.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import msgspec

from hansa_local.schema import choices, loosened
from hansa_sdk import ToolSpec

_OPTIONS = {"whitespace_flexible": False, "lenient": True, "coerce_one_of": True}
"""No white space, which costs tokens; keywords it does not know are ignored instead of the whole schema."""
_OPENING, _CLOSING = '":[{,', '"]}'


class Constraint(msgspec.Struct, frozen=True):
    """`grammar` holds for what the model writes (None: anything) between `prefix` and `suffix`, which are certain.

    What the model writes begins with `opening`: where it does not, the grammar did not compile, and llama.cpp said nothing.
    """

    grammar: str | None = None
    prefix: str = ""
    suffix: str = ""
    opening: str = ""


FREE = Constraint()
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


def obeying(schema: dict[str, Any], *, exact: bool = True) -> Constraint:
    """JSON that obeys a schema, as far as a grammar can see to it; any object if not `exact`.

    Where the schema allows a few answers only, the model is asked for nothing but what tells them apart.
    """
    loose = loosened(schema) if exact else _ANY_OBJECT
    answers = choices(loose)
    if len(answers) > 1:
        return _choosing(answers)
    return Constraint(_json(loose), opening="{" if loose.get("type") == "object" else "")


class Offer(msgspec.Struct, frozen=True):
    """What a conversation with tools may go on with: a call of one of `tools`, or, unless one `is_due`, an answer."""

    tools: tuple[ToolSpec, ...]
    is_due: bool
    output_schema: dict[str, Any] | None


def tool_or_answer(offer: Offer, *, exact: bool = True) -> Constraint:
    """`{"tool":NAME,"arguments":{...}}` or `{"answer":...}`: text, or what obeys the schema; any objects if not `exact`."""
    schemas = {f"arguments{number}": {**tool.parameters, "type": "object"} for number, tool in enumerate(offer.tools)}
    options = [_object(tool={"const": tool.name}, arguments=_defined(name)) for tool, name in zip(offer.tools, schemas, strict=True)]
    if not offer.is_due and offer.output_schema is None:
        options.append(_object(answer={"type": "string", "minLength": 1}))
    elif not offer.is_due and offer.output_schema is not None:
        schemas["answer"] = offer.output_schema
        options.append(_object(answer=_defined("answer")))
    definitions = {name: loosened(schema, base=f"#/$defs/{name}") if exact else _ANY_OBJECT for name, schema in schemas.items()}
    return Constraint(_json({"$defs": definitions, "anyOf": options}), opening="{")


def _defined(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _json(schema: dict[str, Any]) -> str:
    return f"%llguidance {{}}\nstart: %json {_text({**schema, 'x-guidance': _OPTIONS})}"


def _choosing(answers: tuple[str, ...]) -> Constraint:
    """Split where JSON does, not within a word: the model knows words by their tokens."""
    prefix = _shared(answers)
    prefix = prefix[: 1 + max(prefix.rfind(character) for character in _OPENING)]
    rests = [answer[len(prefix) :] for answer in answers]
    suffix = _shared([rest[::-1] for rest in rests])[::-1]
    suffix = suffix[min((at for at in map(suffix.find, _CLOSING) if at >= 0), default=len(suffix)) :]
    middles = [rest[: len(rest) - len(suffix)] for rest in rests]
    if not all(middles):
        # An empty choice is no token to choose: let the model write what follows it, too.
        middles, suffix = rests, ""
    return Constraint(f"%llguidance {{}}\nstart: {' | '.join(map(_text, middles))}", prefix, suffix)


def _shared(texts: Sequence[str]) -> str:
    """The beginning that all texts have in common."""
    return "".join(characters[0] for characters in takewhile(lambda found: len(set(found)) == 1, zip(*texts, strict=False)))


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
