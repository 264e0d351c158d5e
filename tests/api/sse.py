"""A reader of server-sent events that is as strict as the standard, and as impatient as a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msgspec

FINAL = ("run.completed", "run.failed", "run.canceled", "run.needs_review")


class Message(msgspec.Struct, frozen=True):
    """One event, or a comment (`type` is empty, `data` its text)."""

    type: str
    id: str | None
    data: Any


class Reader:
    """Messages of one open stream."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self._messages = _messages(answer)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages

    async def next(self, seconds: float = 15.0) -> Message:
        """The next message. Raises `TimeoutError` or `StopAsyncIteration`."""
        return await asyncio.wait_for(anext(self._messages), seconds)

    async def until(self, *types: str, seconds: float = 15.0) -> list[Message]:
        """Messages up to the first one of these types."""
        found: list[Message] = []
        async with asyncio.timeout(seconds):
            async for message in self:
                found.append(message)
                if message.type in types:
                    return found
        raise AssertionError(f"the stream ended before {types}: {[message.type for message in found]}")

    async def rest(self, seconds: float = 15.0) -> list[Message]:
        """Messages up to the end of the stream."""
        async with asyncio.timeout(seconds):
            return [message async for message in self]


@asynccontextmanager
async def opened(api: httpx2.AsyncClient, session: str, *, last: str | None = None, **query: Any) -> AsyncIterator[Reader]:
    """A stream of a session; `last` is the Last-Event-ID."""
    headers = {"last-event-id": last} if last is not None else {}
    async with api.stream("GET", f"/v1/sessions/{session}/events/stream", params=query, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
        yield Reader(answer)


async def read(api: httpx2.AsyncClient, session: str, run: str, **options: Any) -> list[Message]:
    """All messages of a session up to the end of a run."""
    async with opened(api, session, until=run, **options) as reader:
        return await reader.rest()


def numbered(messages: list[Message]) -> list[int]:
    """The ids, as numbers."""
    return [int(message.id) for message in messages if message.id is not None]


def events(messages: list[Message]) -> list[Any]:
    """What carries a number: the events of the log."""
    return [message.data for message in messages if message.id is not None]


async def _messages(answer: httpx2.Response) -> AsyncIterator[Message]:
    buffer = b""
    async for chunk in answer.aiter_raw():
        buffer += chunk
        while b"\n\n" in buffer:
            block, buffer = buffer.split(b"\n\n", 1)
            yield _message(block.decode())
    assert not buffer, f"the stream ended within a message: {buffer[-100:]!r}"


def _message(block: str) -> Message:
    fields: dict[str, str] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        assert name not in fields, f"{name} twice: {block[:200]}"
        fields[name] = value.removeprefix(" ")
    if "" in fields:
        assert fields.keys() == {""}
        return Message("", None, fields[""])
    assert fields.keys() <= {"id", "event", "data"}, block[:200]
    return Message(fields["event"], fields.get("id"), msgspec.json.decode(fields["data"]))
