"""Scripts: found in a conversation, decoded, and the place in them that a conversation has reached.

Nothing is remembered between calls: the place follows from the messages alone, so a run that is taken up again after a crash
finds the same turn.
"""

from typing import Any, Literal

import msgspec

from hansa_sdk import Message, ProviderRefused, Role

_MARK = "#script "


class ScriptedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    malformed: str | None = None


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn. With `error`, the error comes `times` times (None: always) before the turn's answer, if it has one."""

    text: str | None = None
    tool_calls: tuple[ScriptedCall, ...] = ()
    error: Literal["unavailable", "refused", "hang"] | None = None
    times: int | None = None
    delay: float = 0.0
    chunks: int | None = None

    @property
    def answers(self) -> bool:
        return self.text is not None or bool(self.tool_calls)


class Place(msgspec.Struct, frozen=True):
    """Where a conversation stands: errors that come first, then the answer (None: the script ends with errors)."""

    number: int
    errors: tuple[Turn, ...]
    answer: Turn | None


def find_place(messages: tuple[Message, ...]) -> Place | None:
    """The place in the newest script of the conversation; None without a script.

    Raises `ProviderRefused` for a script that can't be read or is over.
    """
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        line = _script_line(message.text) if message.role is Role.USER else None
        if line is not None:
            said = sum(later.role is Role.ASSISTANT for later in messages[position + 1 :])
            return _place(_decode(line), said)
    return None


def _script_line(text: str) -> str | None:
    return next((line.removeprefix(_MARK) for line in text.splitlines() if line.startswith(_MARK)), None)


def _decode(line: str) -> tuple[Turn, ...]:
    try:
        return msgspec.json.decode(line, type=tuple[Turn, ...])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProviderRefused(
            f"the script can't be read: {error}",
            hint='Write it in one line: #script [{"text": "..."}, {"tool_calls": [{"name": "...", "arguments": {}}]}]',
        ) from error


def _place(turns: tuple[Turn, ...], said: int) -> Place:
    number, errors = 0, list[Turn]()
    for turn in turns:
        if turn.error is not None:
            errors.append(turn)
        if not turn.answers:
            continue
        if number == said:
            return Place(number, tuple(errors), turn)
        number += 1
        errors.clear()
    if errors and number == said:
        return Place(number, tuple(errors), None)
    raise ProviderRefused(f"the script has {number} turns, and turn {said + 1} was asked for", hint="Add a turn to the script.")
