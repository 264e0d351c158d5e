"""What the two LLM protocols look like on the wire, seen from the server: OpenAI chat completions and Anthropic messages.

Makes bytes only; knows nothing of sockets and must not import any provider, whose reading of the protocols it checks.
"""

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

INPUT_TOKENS = 11
"""What every answer says it read; for Anthropic 3 fresh, 3 written to and 5 read from the cache."""
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


class Protocol(StrEnum):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Call(msgspec.Struct, frozen=True):
    """A tool call; `arguments` is sent as it stands, valid or not."""

    id: str
    name: str
    arguments: str


class Reply(msgspec.Struct, frozen=True):
    """What the model says. `stop` is one of end, tool, max, refusal."""

    model: str
    text: str = ""
    calls: tuple[Call, ...] = ()
    stop: str = "end"

    @property
    def output_tokens(self) -> int:
        return max(1, len(self.text.split()) + len(self.calls))


def stream(protocol: Protocol, reply: Reply) -> list[bytes]:
    """The events of a whole streamed answer, the terminator last."""
    return list(_openai_stream(reply) if protocol is Protocol.OPENAI else _anthropic_stream(reply))


def filler(protocol: Protocol) -> bytes:
    """One more piece of text, for answers that never end."""
    return _openai_chunk("m", {"content": "and on "}) if protocol is Protocol.OPENAI else _text_delta("and on ")


def keep_alive(protocol: Protocol) -> bytes:
    return b": keep-alive\n\n" if protocol is Protocol.OPENAI else _event({"type": "ping"})


def stream_error(protocol: Protocol) -> bytes:
    """An error in the middle of a stream: the server got overloaded."""
    if protocol is Protocol.OPENAI:
        return _data({"error": {"message": "the engine died", "type": "server_error", "code": 500}})
    return _event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


def whole(protocol: Protocol, reply: Reply) -> bytes:
    """The answer to a request that does not stream."""
    return json.dumps(_openai_whole(reply) if protocol is Protocol.OPENAI else _anthropic_whole(reply)).encode()


def error(protocol: Protocol, status: int, said: str) -> bytes:
    kind = _TYPES.get(status, "api_error")
    if protocol is Protocol.OPENAI:
        return json.dumps({"error": {"message": said, "type": kind, "param": None, "code": None}}).encode()
    return json.dumps({"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_double"}).encode()


def odd_openai_stream(reply: Reply) -> bytes:
    """The same answer as other servers frame it: comments, CRLF, bare CR, event fields, one JSON over several data lines."""
    framed = [b"\xef\xbb\xbf: hello\r\n\r\n"]
    for number, event in enumerate(_openai_stream(reply)):
        data = event.removeprefix(b"data: ").rstrip(b"\n")
        if data != b"[DONE]":
            data = b"\r\ndata:".join(json.dumps(json.loads(data), indent=1).encode().splitlines())
        end = b"\r" if number % 2 else b"\r\n"
        framed.append(b": keep-alive\n\nevent: message\nid: 7\nretry: 10\ndata: " + data + end + end)
    return b"".join(framed)


def whole_calls_openai_stream(reply: Reply) -> list[bytes]:
    """The same answer as servers send it that know neither pieces nor ids nor indexes of calls, and stop with "stop"."""
    chunks = [_openai_chunk(reply.model, {"role": "assistant", "content": ""})]
    for call in reply.calls:
        part = {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        chunks.append(_openai_chunk(reply.model, {"tool_calls": [part]}))
    return [*chunks, _openai_chunk(reply.model, {}, finish="stop"), b"data: [DONE]\n\n"]


def words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


# -- OpenAI


def _openai_stream(reply: Reply) -> Iterator[bytes]:
    yield _openai_chunk(reply.model, {"role": "assistant", "content": "", "refusal": None})
    for word in words(reply.text):
        yield _openai_chunk(reply.model, {"refusal" if reply.stop == "refusal" else "content": word})
    for index, call in enumerate(reply.calls):
        function = {"name": call.name, "arguments": ""}
        yield _openai_chunk(reply.model, {"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        for piece in _pieces(call.arguments):
            yield _openai_chunk(reply.model, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield _openai_chunk(reply.model, {}, finish=_openai_finish(reply))
    yield _data(
        {"id": "chatcmpl-double", "object": "chat.completion.chunk", "model": reply.model, "choices": [], "usage": _openai_usage(reply)}
    )
    yield b"data: [DONE]\n\n"


def _openai_chunk(model: str, delta: dict[str, Any], *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-double", "object": "chat.completion.chunk", "created": 1, "model": model, "usage": None}
    return _data({**head, "choices": [choice]})


def _openai_whole(reply: Reply) -> dict[str, Any]:
    calls = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in reply.calls]
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _openai_finish(reply)}
    head = {"id": "chatcmpl-double", "object": "chat.completion", "created": 1, "model": reply.model}
    return {**head, "choices": [choice], "usage": _openai_usage(reply)}


def _openai_finish(reply: Reply) -> str:
    return {"end": "stop", "tool": "tool_calls", "max": "length", "refusal": "stop"}[reply.stop]


def _openai_usage(reply: Reply) -> dict[str, int]:
    output = reply.output_tokens
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": output, "total_tokens": INPUT_TOKENS + output}


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


# -- Anthropic


def _anthropic_stream(reply: Reply) -> Iterator[bytes]:
    message: dict[str, Any] = {**_anthropic_whole(reply), "content": [], "stop_reason": None, "usage": _anthropic_usage(1)}
    yield _event({"type": "message_start", "message": message})
    yield _event({"type": "ping"})
    index = 0
    if reply.text:
        yield _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        for word in words(reply.text):
            yield _text_delta(word)
        yield _event({"type": "content_block_stop", "index": 0})
        index = 1
    for number, call in enumerate(reply.calls, index):
        block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield _event({"type": "content_block_start", "index": number, "content_block": block})
        for piece in ("", *_pieces(call.arguments)):
            delta = {"type": "input_json_delta", "partial_json": piece}
            yield _event({"type": "content_block_delta", "index": number, "delta": delta})
        yield _event({"type": "content_block_stop", "index": number})
    ended = {"stop_reason": _anthropic_stop(reply), "stop_sequence": None}
    yield _event({"type": "message_delta", "delta": ended, "usage": {"output_tokens": reply.output_tokens}})
    yield _event({"type": "message_stop"})


def _text_delta(text: str) -> bytes:
    return _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


def _anthropic_whole(reply: Reply) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    content += [
        {"type": "tool_use", "id": c.id, "name": c.name, "input": json.loads(c.arguments)} for c in reply.calls if _is_json(c.arguments)
    ]
    head = {"id": "msg_double", "type": "message", "role": "assistant", "model": reply.model}
    ended = {"stop_reason": _anthropic_stop(reply), "stop_sequence": None}
    return {**head, "content": content, **ended, "usage": _anthropic_usage(reply.output_tokens)}


def _anthropic_stop(reply: Reply) -> str:
    return {"end": "end_turn", "tool": "tool_use", "max": "max_tokens", "refusal": "refusal"}[reply.stop]


def _anthropic_usage(output: int) -> dict[str, int]:
    cached = {"cache_creation_input_tokens": 3, "cache_read_input_tokens": 5}
    return {"input_tokens": INPUT_TOKENS - 8, **cached, "output_tokens": output}


def _event(value: dict[str, Any]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\ndata: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _pieces(text: str) -> list[str]:
    return [text[start : start + 5] for start in range(0, len(text), 5)]
