"""A server on loopback that counts who connects, and resolvers that answer from a list."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Loopback:
    """Speaks raw HTTP/1.1: `answers` maps a path to the bytes sent for it. What arrives is kept in `connections` and `heads`."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 0
        self.connections = 0
        self.heads: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.answers: dict[str, bytes] = {}
        self.handlers: dict[str, Handler] = {}

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head)
                path = head.split(" ")[1]
                if path in self.handlers:
                    await self.handlers[path](reader, writer)
                    return
                writer.write(self.answers.get(path, ok(b"hit")))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def ok(body: bytes, *headers: str) -> bytes:
    """A 200 answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: int = 302) -> bytes:
    """An answer that sends elsewhere."""
    return f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


class ListedResolver:
    """Answers each look-up of a name with the next of its listed answers; the last one stays. Counts the look-ups."""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self.names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise OSError("name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]
