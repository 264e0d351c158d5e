"""Git over https, through the egress door: dulwich speaks the protocol, and every request it makes is judged and sent by our client.

Blocks: for threads alone; the client lives on the event loop, where each request is carried out whole, into a file.
"""

import asyncio
import base64
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast
from urllib.parse import urlsplit

from dulwich.client import AbstractHttpGitClient, FetchPackResult, LsRemoteResult

from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.location import Location, is_loopback
from hansa.apply.repository.packs import MAX_PACK_BYTES
from hansa.apply.repository.settings import GitSettings, login
from hansa.egress.client import HttpClient, RequestFailed, open_client, trusting
from hansa.egress.judge import is_covered, target_of
from hansa.egress.policy import EgressPolicy, entries, parse_entry
from hansa.egress.refusal import EgressRefused, EgressTooLarge
from hansa.errors import Invalid

ANSWER_SECONDS = 120.0
"""Longest time for one answer, however it trickles in."""
SILENCE_SECONDS = 20.0
_IN_MEMORY = 8 * 1024 * 1024
_AGENT = "git/2.40 (hansa)"
"""Some servers speak Git only with what calls itself so."""
_TRUST = "HANSA_GIT_CA_FILE names the certificate authority, if it is a private one."
_CREDENTIALS = "Credentials come from HANSA_GIT_PASSWORD_FILE and HANSA_GIT_USERNAME."


def open_http(location: Location, settings: GitSettings, *, silence: float = SILENCE_SECONDS) -> HttpClient:
    """The client for a repository; use it with `async with`. Raises `Invalid`, `Misconfigured`."""
    return open_client(_policy(location, settings, silence), tls=trusting(settings.ca_file))


def _policy(location: Location, settings: GitSettings, silence: float) -> EgressPolicy:
    """What may be asked: the host of the URL, which an operator wrote, and where it redirects to by the rules of the door."""
    port = location.port or (443 if location.scheme == "https" else 80)
    own, allowed = f"{location.host}:{port}", entries(settings.allow)
    target = target_of(location.url)
    listed = any(is_covered(target, parse_entry(entry)) for entry in allowed)
    if location.scheme == "http" and not is_loopback(location) and not listed:
        hint = "Use https. If nobody can stand in between, list the host in HANSA_GIT_ALLOW."
        raise Invalid(f"{location.shown} is plain http, which anybody in between may change", hint=hint)
    return EgressPolicy(allow=(own, *allowed), max_redirects=3, max_bytes=MAX_PACK_BYTES, connect_timeout=10.0, read_timeout=silence)


class HttpsRemote(AbstractHttpGitClient):
    """A repository at a server, as dulwich asks it. Raises `RepositoryAway`, `RepositoryRefused`."""

    def __init__(
        self,
        location: Location,
        settings: GitSettings,
        http: HttpClient,
        loop: asyncio.AbstractEventLoop,
        *,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        super().__init__(location.url, dumb=False)
        self._location = location
        self._settings = settings
        self._http = http
        self._loop = loop
        self._seconds = seconds
        self._answers: list[_Answer] = []

    def get_refs(self, *arguments: Any, **options: Any) -> LsRemoteResult:
        with self._closing():
            return super().get_refs(*arguments, **options)

    def fetch_pack(self, *arguments: Any, **options: Any) -> FetchPackResult:
        with self._closing():
            return super().fetch_pack(*arguments, **options)

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """No answer stays open, however dulwich leaves it."""
        try:
            yield
        finally:
            while self._answers:
                self._answers.pop().close()

    def _http_request(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        data: bytes | Iterator[bytes] | None = None,
        raise_for_status: bool = True,  # noqa: FBT001, FBT002  dulwich calls it so
    ) -> tuple[Any, Callable[[int], bytes]]:
        """One request for dulwich: an answer with the few names that it uses of urllib3's, and how to read its body."""
        body = data if data is None or isinstance(data, bytes) else b"".join(data)
        sent = {"user-agent": _AGENT, "pragma": "no-cache", **(headers or {}), **self._credential(url)}
        asking = asyncio.run_coroutine_threadsafe(self._ask(url, sent, body), self._loop)
        try:
            answer = asking.result()
        except CancelledError:
            raise RepositoryAway(Reason.UNREACHABLE, f"{self._location.shown} was left: the process ends") from None
        self._answers.append(answer)
        return answer, answer.read

    def _credential(self, url: str) -> dict[str, str]:
        """The password goes where the operator pointed, and nowhere that a server redirects to."""
        known = login(self._settings)
        if known is None or _place(url) != _place(self._location.url):
            return {}
        if self._location.scheme == "http" and not is_loopback(self._location):
            raise RepositoryRefused(Reason.DENIED, f"no password is sent to {self._location.shown} by plain http", hint="Use https.")
        return {"authorization": "Basic " + base64.b64encode(f"{known.username}:{known.password}".encode()).decode()}

    async def _ask(self, url: str, headers: dict[str, str], body: bytes | None) -> "_Answer":
        shown = self._location.shown
        kept = cast(IO[bytes], SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  lives on in the answer
        given = ""
        try:
            async with asyncio.timeout(self._seconds):
                request = self._http.build_request("GET" if body is None else "POST", url, headers=headers, content=body)
                answer = await self._http.send(request, stream=True)
                try:
                    self._check(answer.status_code, answer.headers.get("content-type", ""))
                    async for piece in answer.aiter_bytes():
                        kept.write(piece)
                finally:
                    await answer.aclose()
                given = str(answer.url)
                kept.seek(0)
                return _Answer(kept, answer.headers.get("content-type"), "" if given == url else given)
        except TimeoutError:
            raise RepositoryAway(Reason.UNREACHABLE, f"{shown} did not answer within {self._seconds:g} s") from None
        except EgressRefused as error:
            hint = f"{error.hint} Here that is HANSA_GIT_ALLOW." if "allow-list" in error.hint else error.hint
            raise RepositoryRefused(Reason.ADDRESS_REFUSED, f"{shown} can't be asked: {error.detail}", hint=hint) from error
        except EgressTooLarge as error:
            raise RepositoryRefused(Reason.TOO_LARGE, f"{shown} sends too much: {error.detail}") from error
        except RequestFailed as error:
            why = str(error) or type(error).__name__
            raise RepositoryAway(
                Reason.UNREACHABLE, f"{shown} can't be reached: {why}", hint=_TRUST if "CERTIFICATE" in why else ""
            ) from error
        finally:
            if not given:
                kept.close()

    def _check(self, status: int, kind: str) -> None:
        shown = self._location.shown
        if status == 200:
            if kind.startswith("text/html"):
                hint = f"Is the URL that of the repository, and not of its page? A log-in may answer so too. {_CREDENTIALS}"
                raise RepositoryRefused(Reason.NOT_A_REPOSITORY, f"{shown} answers with a web page, not as a Git server does", hint=hint)
            return
        if status in (401, 403):
            detail = "wants other credentials" if login(self._settings) else "wants credentials"
            raise RepositoryRefused(Reason.DENIED, f"{shown} {detail} ({status})", hint=_CREDENTIALS)
        if status in (404, 410):
            hint = f"Servers say so too of what a credential may not see. {_CREDENTIALS}"
            raise RepositoryRefused(Reason.GONE, f"there is no repository at {shown} ({status})", hint=hint)
        if status in (408, 425, 429) or status >= 500:
            raise RepositoryAway(Reason.UNREACHABLE, f"{shown} answers {status}")
        raise RepositoryRefused(Reason.NOT_A_REPOSITORY, f"{shown} answers {status}, as no Git server does")


class _Answer:
    """As much of urllib3's answer as dulwich looks at."""

    def __init__(self, body: IO[bytes], content_type: str | None, redirect_location: str) -> None:
        self.content_type = content_type
        self.redirect_location = redirect_location
        self._body = body

    def read(self, size: int = -1) -> bytes:
        return self._body.read(size)

    def close(self) -> None:
        self._body.close()


def _place(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
