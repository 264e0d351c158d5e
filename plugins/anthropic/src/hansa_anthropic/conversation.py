"""Hansa's conversation as the Messages API wants it. Knows nothing of connections.

The API takes the system prompt apart from the messages, wants user and assistant to alternate, all results of one turn's tool
calls in the one user message after it, before any text, and no blank text anywhere.
"""

from typing import Any, cast

import anthropic
import msgspec
from anthropic.types import (
    MessageParam,
    OutputConfigParam,
    TextBlockParam,
    ToolParam,
    ToolResultBlockParam,
    ToolUseBlockParam,
)

from hansa_sdk import LLMRequest, Message, Role

_Block = TextBlockParam | ToolResultBlockParam | ToolUseBlockParam


def system_prompt(request: LLMRequest, *, schema_as_text: bool) -> str:
    """All system messages, and the output schema where the API can't be given it as one."""
    parts = [message.text for message in request.messages if message.role is Role.SYSTEM and message.text.strip()]
    if schema_as_text:
        schema = msgspec.json.encode(request.output_schema).decode()
        parts.append(f"Answer with nothing but JSON that obeys this JSON Schema:\n{schema}")
    return "\n\n".join(parts)


def messages(request: LLMRequest) -> list[MessageParam]:
    """The conversation without its system messages, neighbours of one side joined."""
    joined: list[tuple[str, list[_Block]]] = []
    for message in request.messages:
        blocks = _blocks(message)
        if not blocks:
            continue
        side = "assistant" if message.role is Role.ASSISTANT else "user"
        if joined and joined[-1][0] == side:
            joined[-1][1].extend(blocks)
        else:
            joined.append((side, blocks))
    return [cast("MessageParam", {"role": side, "content": blocks}) for side, blocks in joined]


def tools(request: LLMRequest) -> list[ToolParam]:
    return [{"name": tool.name, "description": tool.description, "input_schema": tool.parameters} for tool in request.tools]


def output_config(schema: dict[str, Any] | None) -> OutputConfigParam | None:
    """The schema for constrained decoding, or None where the API's subset of JSON Schema can't express it."""
    if schema is None:
        return None
    try:
        return {"format": {"type": "json_schema", "schema": anthropic.transform_schema(schema)}}
    except (ValueError, TypeError, AttributeError, AssertionError):
        # The SDK knows no other way to say that a schema holds what the API does not take: a list of types, true, no type.
        return None


def _blocks(message: Message) -> list[_Block]:
    match message.role:
        case Role.SYSTEM:
            return []
        case Role.TOOL:
            result: ToolResultBlockParam = {"type": "tool_result", "tool_use_id": message.tool_call_id or ""}
            if message.text.strip():
                result["content"] = message.text
            if message.is_error:
                result["is_error"] = True
            return [result]
        case Role.USER | Role.ASSISTANT:
            blocks: list[_Block] = []
            if message.text.strip():
                blocks.append({"type": "text", "text": message.text})
            # A malformed call goes back empty: the API takes objects only, and its tool result says what was wrong.
            blocks.extend(
                ToolUseBlockParam(type="tool_use", id=call.id, name=call.name, input=call.arguments) for call in message.tool_calls
            )
            return blocks
