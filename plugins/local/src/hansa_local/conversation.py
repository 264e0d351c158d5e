"""The conversation as llama.cpp takes it, tools and all: this model has learnt no tools, so they are told in plain words.

A model this small repeats itself: a tool is offered once for a user's message, and after two rounds only an answer is left. It
seldom sees by itself that a tool is called for, so one that the user's message names has to be called.
"""

import re
from typing import Any

import msgspec

from hansa_local.constraint import FREE, Constraint, Offer, obeying, tool_or_answer
from hansa_sdk import LLMRequest, Message, Role, ToolCall, ToolSpec

_TOOL_ROUNDS = 2
_SPECIAL = re.compile(r"<\|(\w+)\|>")
_HELLO = (("user", "Hello!"), ("assistant", '{"answer":"Hello! How can I help you?"}'))
"""One exchange that shows the form; without it the model calls tools for a mere thank-you."""


def constraint_of(request: LLMRequest, *, exact: bool = True) -> Constraint:
    """What the next answer may look like; `exact` also in what is inside of arguments and outputs."""
    if request.tools:
        return tool_or_answer(_offer(request), exact=exact)
    return FREE if request.output_schema is None else obeying(request.output_schema, exact=exact)


def question_of(request: LLMRequest, constraint: Constraint) -> dict[str, Any]:
    """The body of a streamed chat completion."""
    messages = _messages(request)
    if constraint.prefix:
        # A last message of the assistant is not taken for a turn: the model goes on writing it.
        messages.append(_said("assistant", constraint.prefix))
    question: dict[str, Any] = {
        "messages": messages,
        "temperature": 0.0 if request.temperature is None else request.temperature,
        "max_tokens": max(1, request.max_tokens),
        "stream": True,
        "stream_options": {"include_usage": True},
        # Chunks while the prompt is read, too: only between chunks can a question be cancelled.
        "return_progress": True,
    }
    return question if constraint.grammar is None else {**question, "grammar": constraint.grammar}


def _offer(request: LLMRequest) -> Offer:
    asked = max((at for at, message in enumerate(request.messages) if message.role is Role.USER), default=0)
    rounds = [message.tool_calls for message in request.messages[asked:] if message.tool_calls]
    called = {call.name for calls in rounds for call in calls}
    left = tuple(tool for tool in request.tools if tool.name not in called and len(rounds) < _TOOL_ROUNDS)
    named = tuple(tool for tool in left if _names(request.messages[asked].text, tool.name))
    return Offer(named or left, bool(named), request.output_schema)


def _names(text: str, tool: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(tool)}(?!\w)", text, re.IGNORECASE) is not None


def _messages(request: LLMRequest) -> list[dict[str, Any]]:
    system = [message.text for message in request.messages if message.role is Role.SYSTEM]
    if request.tools:
        system.append(_explained(request.tools))
    names = {call.id: call.name for message in request.messages for call in message.tool_calls}
    said = [_said("system", "\n\n".join(system))] if system else []
    if request.tools and request.output_schema is None:
        said.extend(_said(role, text) for role, text in _HELLO)
    for message in request.messages:
        if message.role is not Role.SYSTEM:
            said.extend(_spoken(message, names, wrapped=bool(request.tools) and request.output_schema is None))
    return said


def _spoken(message: Message, names: dict[str, str], *, wrapped: bool) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        what = "Error" if message.is_error else "Result"
        return [_said("user", f"{what} of {names.get(message.tool_call_id or '', 'the tool')}: {message.text}")]
    if message.role is Role.USER:
        return [_said("user", message.text)]
    texts = [_text({"answer": message.text}) if wrapped else message.text] if message.text or not message.tool_calls else []
    return [_said("assistant", "\n".join([*texts, *map(_called, message.tool_calls)]))]


def _called(call: ToolCall) -> str:
    return call.malformed if call.malformed is not None else _text({"tool": call.name, "arguments": call.arguments})


def _explained(tools: tuple[ToolSpec, ...]) -> str:
    lines = [f"{tool.description.split('. ')[0].rstrip('.')}: {_call_shown(tool)}" for tool in tools]
    return "\n".join(["Answer with JSON, one of:", *lines, 'Anything else: {"answer":"..."}'])


def _call_shown(tool: ToolSpec) -> str:
    return _text({"tool": tool.name, "arguments": dict.fromkeys(tool.parameters.get("required", ()), "...")})


def _said(role: str, text: str) -> dict[str, Any]:
    """One message. What would read as the end of a message, or is no text at all, is taken apart."""
    return {"role": role, "content": _SPECIAL.sub(r"<| \1 |>", text.encode("utf-8", "replace").decode("utf-8"))}


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
