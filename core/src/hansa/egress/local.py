"""The client to one's own control plane, for the command line: whoever runs it chose the address, so nothing judges it.

Must not be used for an address that came from anywhere else than the person at the terminal. Warning: it follows no redirects
and obeys no proxy of the environment, since every request carries the person's API key.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2
import msgspec

from hansa.errors import Invalid, Unavailable

MAX_EVENT_BYTES = 16 * 1024 * 1024


class Answer(msgspec.Struct, frozen=True):
    """An answer that was read to its end; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class ServerEvent(msgspec.Struct, frozen=True):
    """One server-sent event. `id` is the last id that the stream has sent, empty while there was none."""

    type: str
    id: str
    data: str


class LocalClient:
    """HTTP to one server. Raises `Unavailable` whenever the server can't be reached or breaks off."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def __enter__(self) -> "LocalClient":
        return self

    def __exit__(self, *failure: object) -> None:
        self._client.close()

    def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and read the whole answer, whatever its status is."""
        with self._faults():
            answer = self._client.request(method, path, params=_present(query), content=body or None, headers=dict(headers or {}))
            return Answer(answer.status_code, _lowered(answer.headers), answer.content)

    @contextmanager
    def events(
        self, path: str, *, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[Answer | Iterator[ServerEvent]]:
        """Open a stream of server-sent events; a refusal is handed out instead, read to its end."""
        sent = {"accept": "text/event-stream", "cache-control": "no-store", **(headers or {})}
        with self._faults(), self._client.stream("GET", path, params=_present(query), headers=sent) as answer:
            if answer.is_success:
                yield _events(answer)
            else:
                yield Answer(answer.status_code, _lowered(answer.headers), answer.read())

    @contextmanager
    def download(self, path: str, *, query: Mapping[str, str] | None = None) -> Iterator[Answer | Iterator[bytes]]:
        """Read an answer of any length piece by piece; a refusal is handed out instead, read to its end."""
        with self._faults(), self._client.stream("GET", path, params=_present(query)) as answer:
            if answer.is_success:
                yield answer.iter_bytes()
            else:
                yield Answer(answer.status_code, _lowered(answer.headers), answer.read())

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unavailable(f"nothing answers at {self._client.base_url}: {_said(error)}") from error
        except httpx2.HTTPError as error:
            raise Unavailable(f"the connection to {self._client.base_url} broke off: {_said(error)}") from error


class Trust(msgspec.Struct, frozen=True):
    """For https addresses, PEM files: the authorities to believe (empty: those of the system), and who to be to a server that asks."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


SYSTEM = Trust()


def open_local_client(base_url: str, headers: Mapping[str, str], timeout: float, *, trust: Trust = SYSTEM) -> LocalClient:
    """A client for `base_url`, to be used with `with`. `timeout` bounds each wait for bytes, in seconds. Raises `Invalid`."""
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise Invalid(f"{base_url!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Invalid(f"{base_url!r} is not an http or https URL", hint="It looks like http://127.0.0.1:7420.")
    client = httpx2.Client(
        base_url=url,
        headers={"user-agent": "hansa-cli", **headers},
        timeout=httpx2.Timeout(timeout, connect=min(timeout, 5.0)),
        trust_env=False,
        follow_redirects=False,
        # Without https nothing is encrypted: a context that trusts nobody then saves the time of reading all certificates.
        verify=_context(trust) if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        limits=httpx2.Limits(max_connections=None),
    )
    return LocalClient(client)


def _context(trust: Trust) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=trust.ca_file) if trust.ca_file else httpx2.create_ssl_context()
        if trust.cert_file:
            context.load_cert_chain(trust.cert_file, trust.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(
            f"the certificates for https can't be used: {error}",
            hint="Check HANSA_CA_FILE, HANSA_CLIENT_CERT_FILE and HANSA_CLIENT_KEY_FILE.",
        ) from error
    return context


def _events(answer: httpx2.Response) -> Iterator[ServerEvent]:
    for event in httpx2.EventSource(answer, MAX_EVENT_BYTES):
        yield ServerEvent(event.event, event.id, event.data)


def _present(query: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (query or {}).items() if value}


def _lowered(headers: httpx2.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
