"""The API as the command line sees it: JSON in, JSON out, refusals as the errors they came from.

Must not know commands. Has nothing to say to people but that it waits for a server that is away.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import quote

import msgspec

from hansa import clock, ids
from hansa.cli.connection import Connection, Target, find
from hansa.cli.output import say
from hansa.cli.usage import UsageError
from hansa.egress.local import Answer, LocalClient, ServerEvent, open_local_client
from hansa.errors import (
    Conflict,
    FieldError,
    Forbidden,
    HansaError,
    Invalid,
    LimitExceeded,
    Malformed,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

Json = dict[str, Any]

PAGE = 200
"""Most entries that one answer may hold."""
ANSWER_SECONDS = 75.0
"""Longest silence before an answer: longer than the longest `?wait=`, and than several keep-alives of a stream."""
ACT_SECONDS = 30.0
"""Patience with a server that is away while something is asked of it: a restart takes seconds."""
_KINDS = (Invalid, Malformed, TooLarge, Unauthenticated, Forbidden, NotFound, Conflict, LimitExceeded, Unavailable)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_UNHEARD_SECONDS = 10.0
"""Patience with a server that has not answered once: an address that is wrong stays wrong."""
_SILENT_SECONDS = 1.0


class _Problem(msgspec.Struct, frozen=True):
    """RFC 9457 as the API writes it."""

    code: str = ""
    title: str = ""
    detail: str = ""
    hint: str = ""
    errors: tuple[FieldError, ...] = ()


class Backoff:
    """Pauses that double, within a patience in seconds that begins anew with each sign of life.

    With `tell`, people are told once what is waited for, when it takes longer than a moment.
    """

    def __init__(self, patience: float, *, tell: Callable[[str], None] | None = None) -> None:
        self._patience = patience
        self._tell = tell
        self.alive()

    def alive(self) -> None:
        """Something worked: be patient again."""
        self._pause = _FIRST_PAUSE
        self._until = clock.monotonic() + self._patience

    def wait(self, failure: HansaError) -> None:
        """Sleep before the next try, or raise `failure` when patience is at an end."""
        pause = max(self._pause, min(failure.retry_after or 0.0, 30.0))
        left = self._until - clock.monotonic()
        if pause > left:
            raise failure
        if self._tell is not None and self._patience - left + pause >= _SILENT_SECONDS:
            self._tell(f"{failure.detail}; trying again for {left:.0f} s")
            self._tell = None
        time.sleep(pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


class Api:
    """One server. A request that may be repeated safely is repeated for `patience` seconds while the server is away."""

    def __init__(self, client: LocalClient, target: Target) -> None:
        self._client = client
        self._answered = False
        self.target = target

    def get(self, path: str, query: Mapping[str, str] | None = None, *, patience: float = 0.0) -> Any:
        """What is at `path`."""
        return self._send("GET", path, query=query, patience=patience)

    def delete(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Delete what is at `path`."""
        return self._send("DELETE", path, query=query)

    def post(self, path: str, body: Any, *, query: Mapping[str, str] | None = None, key: str = "", patience: float = 0.0) -> Any:
        """Post `body`; only with an idempotency `key` is it ever sent twice."""
        headers = {"content-type": "application/json"}
        if key:
            headers["idempotency-key"] = key
        return self._send("POST", path, query=query, body=msgspec.json.encode(body), headers=headers, patience=patience if key else 0.0)

    def put(self, path: str, body: Any) -> Any:
        """Put `body` at `path`."""
        return self._send("PUT", path, body=msgspec.json.encode(body), headers={"content-type": "application/json"})

    def act(self, path: str, body: Any) -> Any:
        """Post `body` so that it counts once, also when the server is away for a while or its answer is lost on the way."""
        return self.post(path, body, key=str(ids.new_id()), patience=ACT_SECONDS)

    def entries(self, path: str, query: Mapping[str, str], limit: int | None) -> list[Json]:
        """Up to `limit` entries of a list (None: all of them), over as many pages as that takes."""
        found: list[Json] = []
        after = ""
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            page = self.get(path, {**query, "limit": str(size), "after": after})
            found.extend(page["data"])
            after = str(page.get("next") or "")
            if not page.get("has_more") or not after:
                break
        return found[:limit]

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str], *, last_id: str = "") -> Iterator[Iterator[ServerEvent]]:
        """Open a stream of events. Raises what the server refused, or `Unavailable` when it breaks off."""
        headers = {"last-event-id": last_id} if last_id else {}
        with self._client.events(path, query=query, headers=headers) as stream:
            if isinstance(stream, Answer):
                raise refusal(stream, self.target)
            yield stream

    @contextmanager
    def download(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Iterator[bytes]]:
        """The bytes of what is at `path`. Raises what the server refused, or `Unavailable` when it breaks off."""
        with self._client.download(path, query=query) as pieces:
            if isinstance(pieces, Answer):
                raise refusal(pieces, self.target)
            yield pieces

    def upload(self, path: str, body: bytes, kind: str, query: Mapping[str, str] | None = None) -> Any:
        """Post a body that is not JSON."""
        return self._send("POST", path, query=query, body=body, headers={"content-type": kind})

    def _send(self, method: str, path: str, *, patience: float = 0.0, **parts: Any) -> Any:
        backoff = Backoff(patience if self._answered else min(patience, _UNHEARD_SECONDS), tell=say)
        while True:
            try:
                answer = self._client.request(method, path, **parts)
                self._answered = True
                if answer.status < 300:
                    return _decoded(answer, self.target)
                raise refusal(answer, self.target)
            except HansaError as error:
                if not error.retryable or not patience:
                    raise _explained(error, self.target) from error
                backoff.wait(_explained(error, self.target))


@contextmanager
def open_api(connection: Connection) -> Iterator[Api]:
    """The API that the options, the environment or the data folder name."""
    target = find(connection)
    more = {"hansa-tenant": target.tenant, "hansa-on-behalf-of": target.on_behalf_of}
    headers = {"authorization": f"Bearer {target.key}"} | {name: value for name, value in more.items() if value}
    with open_local_client(target.url, headers, ANSWER_SECONDS, trust=target.trust) as client:
        yield Api(client, target)


def segment(name: str) -> str:
    """A name as one part of a path, whatever is in it. Raises `UsageError` for what would be another path."""
    if name in ("", ".", ".."):
        raise UsageError(f"{name!r} is no name and no id", hint="Is a variable of your script empty?")
    return quote(name, safe="")


def part(value: Json, name: str) -> Json:
    """The object that a field holds, or an empty one."""
    found = value.get(name)
    return cast(Json, found) if isinstance(found, dict) else {}


def refusal(answer: Answer, target: Target) -> HansaError:
    """The error that an answer tells of."""
    try:
        problem = msgspec.json.decode(answer.body, type=_Problem)
    except msgspec.DecodeError:
        return _stranger(answer, target)
    kinds = {kind.code: kind for kind in _KINDS} | {str(kind.status): kind for kind in _KINDS}
    fallback = HansaError if answer.status >= HansaError.status else Malformed
    kind = kinds.get(problem.code) or kinds.get(str(answer.status), fallback)
    detail = problem.detail or problem.title or f"the server answered {answer.status}"
    return kind(detail, hint=problem.hint, errors=problem.errors, retry_after=_retry_after(answer))


def _decoded(answer: Answer, target: Target) -> Any:
    if not answer.body:
        return None
    try:
        return msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        raise _stranger(answer, target) from None


def _stranger(answer: Answer, target: Target) -> HansaError:
    kind = answer.headers.get("content-type", "no content type")
    detail = f"{target.url} (from {target.url_source}) answered {answer.status} with {kind} instead of JSON"
    return Unavailable(detail, hint="Is this the address of a Hansa server?", retry_after=_retry_after(answer))


def _explained(error: HansaError, target: Target) -> HansaError:
    """Add what only the command line knows: where the address and the key came from."""
    if isinstance(error, Unauthenticated):
        hint = f"The key came from {target.key_source}." + (f" {error.hint}" if error.hint else "")
        return Unauthenticated(error.detail, hint=hint, errors=error.errors)
    if isinstance(error, Unavailable) and not error.hint:
        hint = f"The address came from {target.url_source}. `hansa status` and `hansa doctor` say more; `hansa up` starts a server."
        return Unavailable(error.detail, hint=hint, errors=error.errors, retry_after=error.retry_after)
    return error


def _retry_after(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", value) else None
