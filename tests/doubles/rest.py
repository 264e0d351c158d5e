"""An HTTP/1.1 server for doubles that answer with JSON, on the loop of the test: what was asked is kept, what is answered is a function."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """A request as it arrived; header names are in lower case, `body` is decoded JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Said(msgspec.Struct, frozen=True):
    """An answer. `body` None: none at all."""

    status: int
    body: Any = None
    headers: dict[str, str] = {}


Answering = Callable[[Asked], Said]


async def _serve(answering: Answering, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            raw = await reader.readexactly(int(headers.get("content-length", "0")))
            method, path, _ = head[0].split(" ")
            said = answering(Asked(method, path, headers, json.loads(raw) if raw else None))
            content = b"" if said.body is None else json.dumps(said.body).encode()
            fields = {"content-type": "application/json", "content-length": str(len(content)), **said.headers}
            lines = [f"HTTP/1.1 {said.status} Said", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
            writer.write("\r\n".join(lines).encode() + content)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def rest_server(answering: Answering) -> AsyncIterator[int]:
    """Serve on loopback; gives the port."""
    open_connections = set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(_serve(answering, reader, writer))
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(open_connections):
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)
