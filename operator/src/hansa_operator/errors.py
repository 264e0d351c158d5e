"""Why something could not be done, by what follows from it. All of it is caught by whoever drives reconciles."""

from typing import Any


class OperatorError(Exception):
    """What the operator can say about a failure."""

    code: str = "operator"


class Misconfigured(OperatorError):
    """A setting is missing or wrong; the message names its variable."""

    code = "operator_misconfigured"


class Away(OperatorError):
    """The control plane or the API server can't answer now. Passing: tried again, after `retry_after` seconds if it said so.

    `busy`: it is there, and has more to do than it can (429).
    """

    code = "operator_away"

    def __init__(self, server: str, why: str, *, retry_after: float | None = None, busy: bool = False) -> None:
        super().__init__(f"{server}: {why}")
        self.server = server
        self.retry_after = retry_after
        self.busy = busy


class Refused(OperatorError):
    """An answer that asking again does not change: its status, and the body as decoded from JSON if it is an object."""

    code = "operator_refused"

    def __init__(self, server: str, status: int, message: str, *, body: dict[str, Any] | None = None) -> None:
        super().__init__(f"{server}: {message}")
        self.server = server
        self.status = status
        self.message = message
        self.body = body or {}


class Missing(Refused):
    """It is not there (404)."""

    code = "operator_missing"


class Clash(Refused):
    """It was changed by someone else meanwhile, or is there already (409)."""

    code = "operator_clash"


class Denied(Refused):
    """The credential does not allow it (401, 403)."""

    code = "operator_denied"
