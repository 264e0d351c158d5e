"""TLS in front of a PostgreSQL that was built without it: asks for it as the server does (SSLRequest), then hands bytes on.

What PostgreSQL's own TLS, or a pooler's, is to a client.
"""

import asyncio
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SSL_REQUEST = struct.pack("!II", 8, 80877103)


class Front:
    """Where it listens, and whom it let in: the names in their certificates."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self.port = 0
        self.seen = list[str]()
        self._behind = port
        self._trust = trust

    async def serve(self, started: threading.Event, ended: threading.Event) -> None:
        async with await asyncio.start_server(self._take, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await asyncio.to_thread(ended.wait)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                writer.close()  # plain text is not spoken here
                return
            writer.write(b"S")
            await writer.start_tls(self._trust)
            subject = writer.get_extra_info("peercert")["subject"]
            self.seen.append(dict(each[0] for each in subject)["commonName"])
            inner = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(_hand_on(reader, inner[1]), _hand_on(inner[0], writer))


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextmanager
def open_front(port: int, trust: ssl.SSLContext) -> Iterator[Front]:
    """Listen on a thread of its own, in front of a port."""
    front, started, ended = Front(port, trust), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(front.serve(started, ended)), name="front")
    thread.start()
    try:
        assert started.wait(10)
        yield front
    finally:
        ended.set()
        thread.join(10)
