"""One connection and what a stranger may do with it: how long its headers, how many, how slow, how many of one address.

Each refusal is RFC 9457 and ends the connection. Must not know any route. Warning: callbacks run within the parser, which hands on
whatever they raise as an error of its own.
"""

import asyncio
import ipaddress
import math
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hansa.server.problem import Refusal
from hansa.settings import ServerSettings

BODY_BYTES_PER_SECOND = 16_384
TOLD = 64
"""So many connections above the bound are told why; those above them are closed without a word, or the bound would be none."""
TOLD_SECONDS = 2.0
HEAD, BODY, ANSWER = "head", "body", "answer"
MALFORMED = Refusal(400, "Malformed request", "this is not HTTP/1.1 as RFC 9112 describes it")


class _Refused(Exception):
    """Raised within the parser, to stop it."""


class Door:
    """All connections of a server together: how many there are of each address, and which of them are late."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.all = set[Connection]()
        self.refused: dict[str, int] = {}
        """How many were refused, by code, since it was last told."""
        self._of_address: dict[str, int] = {}

    def enter(self, connection: "Connection") -> Refusal | None:
        """Count a new connection; why it is turned away, if it is."""
        self.all.add(connection)
        here = self._of_address[connection.address] = self._of_address.get(connection.address, 0) + 1
        settings = self.settings
        if len(self.all) > settings.connections:
            detail = f"this server holds the most connections that it may, {settings.connections}"
            return Refusal(503, "Unavailable for now", detail, "Try again shortly.", 1)
        if 0 < settings.connections_per_address < here:
            detail = f"your address has the most connections at once that it may, {settings.connections_per_address}"
            return Refusal(429, "Limit exceeded", detail, "Use connections again, or close some.", 1)
        return None

    def leave(self, connection: "Connection") -> None:
        """It is closed."""
        if connection not in self.all:
            return
        self.all.remove(connection)
        left = self._of_address[connection.address] - 1
        if left:
            self._of_address[connection.address] = left
        else:
            del self._of_address[connection.address]

    def crowded(self, connection: "Connection") -> bool:
        """Whether there are so many that no more of them are told why."""
        settings = self.settings
        most = settings.connections_per_address
        return len(self.all) > settings.connections + TOLD or 0 < most < self._of_address[connection.address] - TOLD

    def sweep(self, now: float) -> None:
        """End what is late."""
        for connection in [each for each in self.all if each.deadline < now or each.stuck_until < now]:
            connection.expire(now)

    def count(self, code: str) -> None:
        """Remember that something was refused."""
        self.refused[code] = self.refused.get(code, 0) + 1


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with bounds."""

    def __init__(self, door: Door, **parts: Any) -> None:
        super().__init__(**parts)
        self.door = door
        self.address = ""
        self.deadline = math.inf
        """When (loop time) what is being received must have come."""
        self.stuck_until = math.inf
        """When the other side must have taken something of what is sent."""
        self._phase = HEAD
        self._asked = False
        self._begun = False
        self._received = 0
        self._count = 0
        self._header_bytes = 0
        self._ended = False
        self._refusal = MALFORMED
        self.timeout_keep_alive = door.settings.keep_alive_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.address = unit(self.client[0] if self.client else "")
        refusal = self.door.enter(self)
        self.deadline = self.loop.time() + self.door.settings.header_seconds
        if refusal is not None:
            self.door.count(refusal.code)
            if self.door.crowded(self):
                transport.abort()
                return
            self.deadline = self.loop.time() + TOLD_SECONDS
            self.app = _Turned(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self)
        self.deadline = self.stuck_until = math.inf
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._unset_keepalive_if_required()
        if self._phase is ANSWER and self.cycle.response_complete:
            self._begin()
        if self._phase is HEAD:
            self._received += len(data)
        parser: Any = self.parser  # None once the connection is lost, when nothing is received any more
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # there is nothing to upgrade to: it is answered as what it is without
        except httptools.HttpParserError:
            self._end(self._refusal)
            return
        if self._phase is HEAD and self._received > self.door.settings.header_bytes + self.door.settings.address_bytes:
            self._end(_too_many_headers(self.door.settings))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._phase is not HEAD:
            self._begin()
        self._begun = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        most = self.door.settings.address_bytes
        if len(self.url) > most:
            self._stop(Refusal(414, "Address too long", f"the address is longer than the {most} bytes that are taken"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is HEAD:  # what comes behind a body is no header: nobody in front of us looks there (RFC 9110, 6.5.1)
            super().on_header(name, value)
        self._count += 1
        self._header_bytes += len(name) + len(value)
        settings = self.door.settings
        if self._count > settings.header_count or self._header_bytes > settings.header_bytes:
            self._stop(_too_many_headers(settings))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version() if self.parser is not None else ""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in ("1.0", "1.1") or hosts > 1 or (version == "1.1" and not hosts) or any(map(_is_packed, self.headers)):
            self._stop(MALFORMED)
        self._phase = BODY
        self._begun = False
        self._received = 0
        self.deadline = self.loop.time() + self.door.settings.body_seconds
        super().on_headers_complete()
        self._asked = True

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        self.deadline += len(body) / BODY_BYTES_PER_SECOND
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = ANSWER
        self.deadline = math.inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._begun:
            self._unset_keepalive_if_required()  # the next request has begun

    def pause_writing(self) -> None:
        self.stuck_until = self.loop.time() + self.door.settings.send_seconds
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stuck_until = math.inf
        super().resume_writing()

    def expire(self, now: float) -> None:
        """Something did not come, or was not taken, in time."""
        if self.stuck_until < now:
            self.door.count("stuck")
            self.transport.abort()
        elif self.flow.read_paused:
            self.deadline = now + self.door.settings.body_seconds  # it is we who do not read on
        elif (not self._begun) if self._phase is HEAD else self.cycle.response_complete:
            self.deadline = math.inf  # nothing was asked, or what was asked has its answer: there is nothing to say
            self.transport.close()
        else:
            what = "headers" if self._phase is HEAD else "body"
            self._end(Refusal(408, "Request timeout", f"the request's {what} did not come in time", retry_after=1))

    def _begin(self) -> None:
        """A further request."""
        self._phase = HEAD
        self._received = self._count = self._header_bytes = 0
        self.deadline = self.loop.time() + self.door.settings.header_seconds

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _Refused

    def _end(self, refusal: Refusal) -> None:
        """Refuse and close. Where an answer is under way it is broken off: anything written now would be taken for a part of it."""
        self._ended = True
        self.deadline = math.inf
        self.door.count(refusal.code)
        answering = self.cycle if self._asked and not self.cycle.response_complete else None
        if answering is not None:
            answering.disconnected = True
            answering.message_event.set()
        if answering is None or not (answering.response_started or self._phase is HEAD):
            headers, body = refusal.answer(self.headers or (), (self.url or b"/").partition(b"?")[0][:200].decode("latin-1"))
            lines = [name + b": " + value + b"\r\n" for name, value in (*self.server_state.default_headers, *headers)]
            self.transport.write(b"".join((STATUS_LINE[refusal.status], *lines, b"\r\n", body)))
        self.transport.close()


class _Turned:
    """The application of a connection that is one too many."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers, body = self._refusal.answer(scope["headers"], scope["path"])
        await send({"type": "http.response.start", "status": self._refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def unit(address: str) -> str:
    """Whom an address stands for: itself, or of IPv6 the /64 that one subscriber has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def _is_packed(header: tuple[bytes, bytes]) -> bool:
    """Whether a body would have to be unpacked to be found: we send nothing of the kind, and would take it as it came."""
    return header[0] == b"transfer-encoding" and header[1].strip().lower() != b"chunked"


def _too_many_headers(settings: ServerSettings) -> Refusal:
    detail = f"the request has more than the {settings.header_count} headers or the {settings.header_bytes} bytes of them that are taken"
    return Refusal(431, "Headers too large", detail)
