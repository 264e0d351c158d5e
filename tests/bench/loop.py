"""Requests over a few connections that stay open, as cheap for the asker as can be: latencies in milliseconds."""

import asyncio
import statistics
import time
from collections.abc import Sequence

from stack import Process


async def p50(process: Process, requests: Sequence[bytes], *, clients: int, seconds: float) -> float:
    """The median latency of these requests in turns, after a warm-up of half a second."""
    begin = time.perf_counter() + 0.5
    spent: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        turn = number
        while (start := time.perf_counter()) < begin + seconds:
            writer.write(requests[turn % len(requests)])
            turn += clients
            head = await reader.readuntil(b"\r\n\r\n")
            assert head[9:10] == b"2", head
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if start >= begin:
                spent.append((time.perf_counter() - start) * 1000)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return statistics.median(spent)


def request(method: str, path: str, key: str, body: bytes = b"", *headers: str) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {key}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def resident(process: Process) -> int:
    """The memory of a process, in bytes."""
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
