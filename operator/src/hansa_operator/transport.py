"""HTTP: the one place that asks servers over the network, and answers probes. aiohttp is here and nowhere else.

Knows neither Kubernetes nor the control plane: an answer is a status, headers and bytes. What the network does is an `Away`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from hansa_operator.errors import Away, Misconfigured

TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
LINE_BYTES = 16 * 1024 * 1024
"""Longest line of a stream: an object of the API server, which keeps none above 3 MiB."""


class Answer(msgspec.Struct, frozen=True):
    """What a server has answered."""

    status: int
    body: bytes
    retry_after: float | None = None

    def json(self) -> Any:
        """The body as plain data; None if it is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None


class Http:
    """Requests to one server. `headers` are asked for each time, so that a token may change. Use `open_http`."""

    def __init__(self, name: str, url: str, session: aiohttp.ClientSession, headers: Callable[[], Mapping[str, str]]) -> None:
        self.name = name
        self.url = url
        self._session = session
        self._headers = headers

    async def ask(
        self, method: str, path: str, *, value: Any = None, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> Answer:
        """Send `value`, if there is one, as JSON. Raises `Away` when there is no answer."""
        sent = {**self._headers(), **({"content-type": "application/json"} if value is not None else {}), **(headers or {})}
        body = msgspec.json.encode(value) if value is not None else None
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)
        try:
            async with self._session.request(method, self.url + path, data=body, headers=sent, timeout=limit) as answer:
                return Answer(answer.status, await answer.read(), _seconds(answer.headers.get("retry-after")))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Away(self.name, f"no answer ({type(error).__name__})") from None

    async def lines(self, path: str, *, silence: float) -> AsyncIterator[bytes]:
        """The lines of an answer as they come, until it ends or nothing has come for `silence` seconds. Raises `Away` if it is no 200."""
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence)
        try:
            async with self._session.get(self.url + path, headers=self._headers(), timeout=limit) as answer:
                if answer.status != 200:
                    raise Away(self.name, f"answered {answer.status}", retry_after=_seconds(answer.headers.get("retry-after")))
                async for line in answer.content:
                    yield line
        except TimeoutError:
            return
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Away(self.name, f"the stream broke ({type(error).__name__})") from None


@asynccontextmanager
async def open_http(
    name: str, url: str, *, headers: Callable[[], Mapping[str, str]], trust: ssl.SSLContext | None, connections: int
) -> AsyncIterator[Http]:
    """A client of one server. Proxies of the environment are not used, redirects are not followed out of it."""
    connector = aiohttp.TCPConnector(limit=connections, ssl=trust if trust is not None else True)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=LINE_BYTES // 8) as session:
        yield Http(name, url.rstrip("/"), session, headers)


def trusting(ca_file: str) -> ssl.SSLContext:
    """TLS with the authorities of a file, or those of the system. Raises `Misconfigured`."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise Misconfigured(f"HANSA_OPERATOR_CA_FILE={ca_file} can't be used: {error}") from None


Page = Callable[[], Awaitable[tuple[int, str, bytes]]]
"""Gives status, content type and body."""


@asynccontextmanager
async def serve(host: str, port: int, pages: Mapping[str, Page]) -> AsyncIterator[int]:
    """Answer GET of each path; yields the port. Raises `Misconfigured` when nothing can be served there."""

    def handler(page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            status, kind, body = await page()
            return web.Response(status=status, body=body, headers={"content-type": kind, "cache-control": "no-store"})

        return answer

    app = web.Application()
    app.add_routes([web.get(path, handler(page)) for path, page in pages.items()])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            why = f"HANSA_OPERATOR_HOST={host}, HANSA_OPERATOR_PORT={port}: {error.strerror}"
            raise Misconfigured(f"{why}; take another port for metrics and probes, or 0 for a free one") from error
        yield int(runner.addresses[0][1])
    finally:
        async with asyncio.timeout(5):
            await runner.cleanup()


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
