"""HTTP by hand: what no client library would send, and what comes back, answer by answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from stack import Process


class Answered(msgspec.Struct, frozen=True):
    """One answer: header names in lower case, a value each."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self, status: int, code: str) -> dict[str, Any]:
        """The body of a refusal, which must be a whole problem of this status and code."""
        assert self.status == status, self
        assert self.headers["content-type"] == "application/problem+json"
        found = msgspec.json.decode(self.body)
        assert found.keys() >= {"type", "title", "status", "detail", "instance", "code", "retryable", "trace_id", "request_id"}
        assert (found["status"], found["code"], found["type"]) == (status, code, f"urn:hansa:error:{code}")
        assert found["request_id"] == self.headers["x-request-id"]
        return found


class Wire:
    """An open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def answer(self, seconds: float = 10.0) -> Answered:
        """The next answer, whole."""
        async with asyncio.timeout(seconds):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
            assert len(headers) == len([line for line in lines if line]), f"a header twice: {lines}"
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readline(), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readline()
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            return Answered(int(status.split()[1]), headers, body)

    async def ended(self, seconds: float = 10.0) -> bytes:
        """What comes until the other side closes the connection."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def dialled(process: Process, **options: Any) -> AsyncIterator[Wire]:
    """A connection to a control plane."""
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port, **options)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def get(path: str = "/livez", *headers: str) -> bytes:
    """A GET."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: hansa", *headers, "", ""]).encode("latin-1")
