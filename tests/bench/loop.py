"""Requests over a few connections that stay open, as cheap for the asker as can be, to several servers in turns: each client asks one
after the other, so that whatever else the machine does hits all of them alike.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Mapping, Sequence

import msgspec

from stack import Process


class Way(msgspec.Struct, frozen=True):
    """Whom to ask, and what, in turns."""

    process: Process
    requests: Sequence[bytes]


async def side_by_side(ways: Mapping[str, Way], *, clients: int, seconds: float) -> dict[str, float]:
    """The median latency of each way, in milliseconds, after a warm-up of half a second."""
    begin = time.perf_counter() + 0.5
    spent: dict[str, list[float]] = {name: [] for name in ways}

    async def client(number: int) -> None:
        opened = {name: await asyncio.open_connection("127.0.0.1", way.process.port) for name, way in ways.items()}
        chooser, turn = random.Random(number), number
        while time.perf_counter() < begin + seconds:
            for name in chooser.sample(sorted(ways), len(ways)):
                reader, writer = opened[name]
                asked = ways[name].requests[turn % len(ways[name].requests)]
                start = time.perf_counter()
                writer.write(asked)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head[9:10] == b"2", head
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
                if start >= begin:
                    spent[name].append((time.perf_counter() - start) * 1000)
            turn += clients
        for _, writer in opened.values():
            writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return {name: statistics.median(found) for name, found in spent.items()}


def request(method: str, path: str, key: str, body: bytes = b"", *headers: str) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {key}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def resident(process: Process) -> int:
    """The memory of a process, in bytes."""
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
