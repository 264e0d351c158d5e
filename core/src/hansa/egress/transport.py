"""The HTTP transport of the egress door: judges each request, caps each answer.

Built on the public parts of httpcore2 instead of patching the transport of httpx2: were a private name there to change, requests
would go out unjudged, and nobody would see it.
"""

import contextlib
import ssl
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterator, Mapping
from typing import Any, Protocol, cast

import httpcore2
import httpx2

from hansa.egress.dial import JudgedDialer, Resolver
from hansa.egress.judge import judge_url
from hansa.egress.narrowing import judge_lists
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressTooLarge

_MEANINGS: dict[type[Exception], type[httpx2.TransportError]] = {
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.ReadTimeout: httpx2.ReadTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.PoolTimeout: httpx2.PoolTimeout,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.ReadError: httpx2.ReadError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.LocalProtocolError: httpx2.LocalProtocolError,
    httpcore2.RemoteProtocolError: httpx2.RemoteProtocolError,
    httpcore2.UnsupportedProtocol: httpx2.UnsupportedProtocol,
}


class _Answer(Protocol):
    """What an answer of httpcore2 has; its own class leaves half of the types open."""

    status: int
    headers: list[tuple[bytes, bytes]]
    stream: AsyncIterable[bytes]
    extensions: Mapping[str, Any]


class JudgedTransport(httpx2.AsyncBaseTransport):
    """Owns the connections; closed with its client."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver, tls: ssl.SSLContext) -> None:
        self._policy = policy
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=JudgedDialer(policy, resolver),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        judge_lists(judge_url(request.url, self._policy))
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _spoken_as_httpx2():
            answer = cast(_Answer, await self._pool.handle_async_request(asked))
        headers = httpx2.Headers(answer.headers)
        stream = CappedStream(answer.stream, host=request.url.host, limit=self._policy.max_bytes)
        if request.method != "HEAD" and answer.status not in (204, 304):
            try:
                _prepare_body(headers, stream)
            except httpx2.RequestError:
                await stream.aclose()
                raise
        return httpx2.Response(answer.status, headers=headers, stream=stream, extensions=dict(answer.extensions))

    async def aclose(self) -> None:
        await self._pool.aclose()


class CappedStream(httpx2.AsyncByteStream):
    """A body that ends in `EgressTooLarge` past the limit. It unpacks gzip itself: a client would do so in one go, however much it is."""

    def __init__(self, source: AsyncIterable[bytes], *, host: str, limit: int) -> None:
        self._source = source
        self.host = host
        self.limit = limit
        self.packed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        on_wire = given = 0
        unpacker = _Gunzip() if self.packed else None
        with _spoken_as_httpx2():
            async for part in self._source:
                on_wire += len(part)
                if on_wire > self.limit:
                    raise EgressTooLarge(self.host, self.limit)
                for piece in [part] if unpacker is None else unpacker.feed(part):
                    given += len(piece)
                    if given > self.limit:
                        raise EgressTooLarge(self.host, self.limit)
                    yield piece
        if unpacker is not None and unpacker.inside:
            raise httpx2.RemoteProtocolError("the answer ends in the middle of its gzip data")

    async def aclose(self) -> None:
        close = getattr(self._source, "aclose", None)
        if close is not None:
            with _spoken_as_httpx2():
                await close()


class _Gunzip:
    """Unpacks in pieces of bounded size."""

    _PIECE = 256 * 1024

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)
        self.inside = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more:
            self.inside = True
            try:
                piece = self._inflater.decompress(data, self._PIECE)
            except zlib.error as error:
                raise httpx2.DecodingError(f"the answer is not the gzip it says: {error}") from error
            if piece:
                yield piece
            data = self._inflater.unconsumed_tail
            if self._inflater.eof:
                data = self._inflater.unused_data
                self._inflater = zlib.decompressobj(wbits=31)
                self.inside = False
                more = bool(data)
            else:
                # A full piece may leave output behind although all input is consumed.
                more = bool(data) or len(piece) == self._PIECE


def _prepare_body(headers: httpx2.Headers, stream: CappedStream) -> None:
    """Refuse early what says itself that it is too large, or is packed in a way that nobody asked for."""
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > stream.limit:
        raise EgressTooLarge(stream.host, stream.limit)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("gzip", "x-gzip"):
        stream.packed = True
        del headers["content-encoding"]
        headers.pop("content-length", None)
    elif encoding not in ("", "identity"):
        raise httpx2.DecodingError(f"the answer is packed as {encoding[:40]!r}; only gzip was asked for")


@contextlib.contextmanager
def _spoken_as_httpx2() -> Generator[None]:
    try:
        yield
    except tuple(_MEANINGS) as error:
        raise _MEANINGS[type(error)](str(error)) from error
