"""Errors a plugin may raise; anything else it raises is treated as its own defect and shown with its name.

    PluginError
    ├── ToolFailed           the tool could not do it: the model is told and may try something else
    ├── ProviderError
    │   ├── ProviderUnavailable   down, slow, 429, 5xx, broken stream: worth a retry or the next model
    │   └── ProviderRefused       bad request, wrong credentials, unknown model: no retry helps
    ├── CallFailed           an agent that was called did not complete: the caller may do something else
    ├── SecretError
    │   ├── SecretUnavailable     a key provider or secret source is away, sealed or busy: worth a retry
    │   └── SecretRefused         it answers no, or what it was given is damaged: someone must mend something
    ├── WaitExpired          what was waited for did not come in time
    └── RunFailed            the runtime gives the run up for a reason the caller should read

Every error has a `code` (snake_case, stable), a `detail` for people and a `hint` that says what to do.
"""

from typing import ClassVar


class PluginError(Exception):
    """Root of what plugins raise. `detail` is shown to users: no secrets in it."""

    code: ClassVar[str] = "plugin_error"

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class ToolFailed(PluginError):
    """A tool could not do what was asked; the text goes back to the model as a typed error."""

    code: ClassVar[str] = "tool_failed"


class ProviderError(PluginError):
    """An LLM provider did not answer as it should. `status` is the HTTP status where there was one, else 0.

    `in_doubt`: it was asked, and may have answered and be paid for it, though nobody has the answer: a broken stream, a time-out.
    """

    code: ClassVar[str] = "provider_error"

    def __init__(self, detail: str, *, hint: str = "", status: int = 0, retry_after: float | None = None, in_doubt: bool = False) -> None:
        super().__init__(detail, hint=hint)
        self.in_doubt = in_doubt
        self.status = status
        self.retry_after = retry_after


class ProviderUnavailable(ProviderError):
    """A passing fault: retry after `retry_after` seconds (None: by the caller's backoff) or use the next model."""

    code: ClassVar[str] = "provider_unavailable"


class ProviderRefused(ProviderError):
    """The request can't succeed as it is: wrong key, unknown model, bad parameters."""

    code: ClassVar[str] = "provider_refused"


class SecretError(PluginError):
    """A key provider or a secret source could not do what was asked. No part of a key or secret in its text."""

    code: ClassVar[str] = "secret_error"


class SecretUnavailable(SecretError):
    """A passing fault: away, sealed, too many requests. `retry_after` is in seconds (None: by the caller's backoff)."""

    code: ClassVar[str] = "secret_unavailable"

    def __init__(self, detail: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class SecretRefused(SecretError):
    """No retry helps: no permission, no such key or path, a wrong key, damaged data."""

    code: ClassVar[str] = "secret_refused"


class CallFailed(PluginError):
    """A called agent's run failed or was canceled; `reason` is its error's code."""

    code: ClassVar[str] = "call_failed"

    def __init__(self, detail: str, *, reason: str, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.reason = reason


class WaitExpired(PluginError):
    """An event or an answer did not come within its time."""

    code: ClassVar[str] = "wait_expired"


class RunFailed(PluginError):
    """The runtime ends the run as failed. `code` names the reason: limit_turns, output_invalid, tool_arguments_invalid ..."""

    def __init__(self, detail: str, *, code: str = "run_failed", hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.reason = code
