"""Turns what the Messages API says when it fails into the two errors of Hansa's SDK.

Warning: texts made here are shown to users, so the credential is taken out of whatever the other side echoes.
"""

import anthropic

from hansa_sdk import ProviderConfig, ProviderError, ProviderRefused, ProviderUnavailable
from hansa_sdk.wire import quoted, retry_after

_PASSING = frozenset({408, 409, 425, 429})
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def status_fault(config: ProviderConfig, model: str, error: anthropic.APIStatusError) -> ProviderError:
    """The error for an answer that is not a success."""
    said = error.api_message or (error.body if isinstance(error.body, str) else "")
    return _fault(config, model, status=error.status_code, said=said, wait=retry_after(error.response.headers))


def stream_fault(config: ProviderConfig, model: str, *, kind: str, said: str) -> ProviderError:
    """The error for an `error` event inside a stream that began as a success."""
    return _fault(config, model, status=_STATUS_OF_TYPE.get(kind, 500), said=said or kind, wait=None)


def _fault(config: ProviderConfig, model: str, *, status: int, said: str, wait: float | None) -> ProviderError:
    # What is said about a refused key may repeat part of it.
    said = "" if status == 401 else quoted(said, config)
    what = f"provider {config.name!r} answered {status}" + (f": {said}" if said else "")
    if status >= 500 or status in _PASSING:
        return ProviderUnavailable(what, status=status, retry_after=wait)
    return ProviderRefused(what, status=status, hint=_hint(config, model, status))


def _hint(config: ProviderConfig, model: str, status: int) -> str:
    match status:
        case 401:
            return f"Check the credential of ModelProvider {config.name!r}: the API does not accept it."
        case 402:
            return "The account behind this credential can't pay: see its billing page."
        case 403:
            return f"The credential of ModelProvider {config.name!r} may not use model {model!r}."
        case 404:
            return f"Either there is no model {model!r}, or the endpoint is wrong: write it without /v1."
        case 413:
            return "The conversation is too large for the API: shorten it."
        case status if 300 <= status < 400:
            return f"The endpoint redirects; write its final address into ModelProvider {config.name!r}."
        case _:
            return f"Check model {model!r}, the agent's tools and its output schema against what the API supports."
