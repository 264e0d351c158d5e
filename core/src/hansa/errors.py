"""The errors of Hansa's core, one tree: what API, CLI and object status say is made from these.

    HansaError                      500  internal
    ├── Invalid                     422  invalid                 a value that breaks a rule; `errors` names each place
    ├── Malformed                   400  malformed               not decodable: not JSON, not UTF-8, bad cursor
    ├── TooLarge                    413  too_large
    ├── Unauthenticated             401  unauthenticated
    ├── Forbidden                   403  forbidden
    ├── NotFound                    404  not_found               missing and foreign ids alike
    ├── Conflict                    409  conflict
    ├── LimitExceeded               429  limit_exceeded
    ├── Unavailable                 503  unavailable             a part we need is away: retry
    ├── Damaged                     500  damaged                 something kept is gone or changed behind our back
    └── Misconfigured               500  misconfigured           the process must not start; exit status 78

Must not know HTTP frameworks or the database. `detail` and `hint` are shown to users: no secrets in them.
"""

from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One wrong place: `path` is like `spec.limits.turns`; `code` is one of unknown_field, type, range, pattern, required, reference ..."""

    path: str
    code: str
    message: str
    suggestion: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None


class HansaError(Exception):
    """Root of the tree. `hint` says what the reader can do; `retry_after` is in seconds."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    exit_code: int = 70
    """Of the command line; a class has its own, and one error may have that of a process that it tells of."""

    def __init__(self, detail: str, *, hint: str = "", errors: tuple[FieldError, ...] = (), retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.errors = errors
        self.retry_after = retry_after


class Invalid(HansaError):
    """The request was understood and breaks a rule."""

    code, status, title, exit_code = "invalid", 422, "Invalid value", 65


class Malformed(HansaError):
    """The request can't be decoded."""

    code, status, title, exit_code = "malformed", 400, "Malformed request", 65


class TooLarge(HansaError):
    """A body over its limit."""

    code, status, title, exit_code = "too_large", 413, "Too large", 65


class Unauthenticated(HansaError):
    """No credential, or one that is not valid; says which check failed, never the credential."""

    code, status, title, exit_code = "unauthenticated", 401, "Not authenticated", 77


class Forbidden(HansaError):
    """The credential is valid and lacks a permission, which `detail` names."""

    code, status, title, exit_code = "forbidden", 403, "Not permitted", 77


class NotFound(HansaError):
    """No such thing for this tenant; the same answer for another tenant's id."""

    code, status, title, exit_code = "not_found", 404, "Not found", 66


class Conflict(HansaError):
    """The state does not allow it."""

    code, status, title, exit_code = "conflict", 409, "Conflict", 75


class LimitExceeded(HansaError):
    """A rate, quota or budget; `retry_after` is always set."""

    code, status, title, retryable, exit_code = "limit_exceeded", 429, "Limit exceeded", True, 75


class Unavailable(HansaError):
    """PostgreSQL, NATS or a provider is away for now."""

    code, status, title, retryable, exit_code = "unavailable", 503, "Unavailable for now", True, 69


class Damaged(HansaError):
    """Something that was kept is missing or was changed behind Hansa's back; `detail` names it."""

    code, status, title, exit_code = "damaged", 500, "Stored data is damaged", 74


class Misconfigured(HansaError):
    """A start-up check failed: the process exits instead of serving unsafely."""

    code, status, title, exit_code = "misconfigured", 500, "Misconfigured", 78
