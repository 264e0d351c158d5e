"""Turns what a server says when it fails into the two errors of the SDK. Knows nothing of connections.

Warning: texts made here are shown to users, so the credential is taken out of whatever the server echoes, and a refused
credential's message is never quoted: some servers repeat part of the key in it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from hansa_sdk import ProviderConfig, ProviderError, ProviderRefused, ProviderUnavailable
from hansa_sdk.wire import quoted, retry_after

_PASSING = frozenset({408, 409, 425, 429})
_PASSING_WORDS = ("rate_limit", "overloaded", "server_error", "timeout", "unavailable")
_REFUSING_WORDS = ("invalid", "authentication", "permission", "not_found", "unsupported", "context_length")


def status_fault(config: ProviderConfig, model: str, *, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The error for an answer that is not a success. `body` may be cut short."""
    said = "" if status == 401 else message_of(body, config)
    what = f"provider {config.name!r} answered {status}" + (f": {said}" if said else "")
    if status >= 500 or status in _PASSING:
        return ProviderUnavailable(what, status=status, retry_after=retry_after(headers))
    return ProviderRefused(what, status=status, hint=_hint(config, model, status))


def stream_fault(config: ProviderConfig, model: str, error: Any) -> ProviderError:
    """The error for an `error` object inside a stream that began as a success."""
    fields = _members(error)
    code = fields.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 0
    words = f"{code} {fields.get('type')}".lower()
    said = quoted(str(fields.get("message") or error), config)
    what = f"provider {config.name!r} broke its answer off: {said}"
    refused = 400 <= status < 500 and status not in _PASSING
    if not status and not any(word in words for word in _PASSING_WORDS):
        refused = any(word in words for word in _REFUSING_WORDS)
    if refused:
        return ProviderRefused(what, status=status, hint=_hint(config, model, status))
    return ProviderUnavailable(what, status=status)


def message_of(body: bytes, config: ProviderConfig) -> str:
    """What a person wants to read of an error body: OpenAI's form, FastAPI's, a plain `message`, or the text itself."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return quoted(body.decode("utf-8", "replace"), config)
    for key in ("error", "message", "detail"):
        found = _members(found).get(key) or found
    text = found if isinstance(found, str) else msgspec.json.encode(found).decode()
    return quoted(text, config)


def _members(value: Any) -> dict[str, Any]:
    try:
        return msgspec.convert(value, dict[str, Any])
    except msgspec.ValidationError:
        return {}


def _hint(config: ProviderConfig, model: str, status: int) -> str:
    match status:
        case 401 if config.credential is None:
            return f"This endpoint wants a key: give ModelProvider {config.name!r} a credential."
        case 401:
            return f"Check the credential of ModelProvider {config.name!r}: the endpoint does not accept it."
        case 403:
            return f"The credential of ModelProvider {config.name!r} may not use model {model!r}."
        case 404:
            return f"Either there is no model {model!r} there, or the endpoint is wrong: it must end where /chat/completions begins."
        case 413:
            return "The conversation is too large for this endpoint: shorten it."
        case status if 300 <= status < 400:
            return f"The endpoint redirects; write its final address into ModelProvider {config.name!r}."
        case _:
            return f"Check model {model!r}, the agent's tools and its output schema against what this endpoint supports."
