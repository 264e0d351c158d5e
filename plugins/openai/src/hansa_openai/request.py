"""The body of a `/chat/completions` request. Knows nothing of connections."""

from typing import Any, cast

import msgspec

from hansa_sdk import LLMRequest, Message, Role, ToolSpec

_LOOSE_KEYWORDS = frozenset({"allOf", "oneOf", "not", "if", "then", "else", "patternProperties", "prefixItems", "definitions"})


def encode_request(request: LLMRequest, *, limit_field: str) -> bytes:
    """The JSON body. `limit_field` is what this server calls the bound on the answer's tokens."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        limit_field: request.max_tokens,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.output_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            # A server with strict decoding refuses schemas outside its subset, so it is asked only where it can.
            "json_schema": {"name": "output", "schema": request.output_schema, "strict": allows_strict(request.output_schema)},
        }
    return msgspec.json.encode(body)


def allows_strict(schema: Any) -> bool:
    """Whether the schema stays in the strict subset: every object closed, all its properties required, `anyOf` the only union."""
    if not isinstance(schema, dict):
        return False
    fields = cast("dict[str, Any]", schema)
    if not _LOOSE_KEYWORDS.isdisjoint(fields):
        return False
    properties: dict[str, Any] = fields.get("properties", {})
    is_object = fields.get("type") == "object" or "properties" in fields
    if is_object and (fields.get("additionalProperties") is not False or set(fields.get("required", ())) != set(properties)):
        return False
    definitions: dict[str, Any] = fields.get("$defs", {})
    nested: list[Any] = [*properties.values(), *definitions.values(), *fields.get("anyOf", ())]
    if "items" in fields:
        nested.append(fields["items"])
    return all(allows_strict(part) for part in nested)


def _message(message: Message) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.role is Role.TOOL:
        entry["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        entry["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                # Many servers parse old arguments again and fail on broken ones, so a malformed call goes back empty;
                # the tool message after it tells the model what was wrong.
                "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
            }
            for call in message.tool_calls
        ]
    return entry


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}
