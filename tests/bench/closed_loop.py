"""The loop that every participant of a comparison is driven by, inside the participant's own process.

A participant reads commands from its standard input, one JSON object a line, and answers each with one on its standard output.
Standard library only: a peer runs it in an environment of its own.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Operation = Callable[[], Awaitable[None]]
WARM_SECONDS = 0.5


async def closed_loop(operation: Operation, *, clients: int, seconds: float) -> dict[str, float]:
    """`clients` side by side, each begins anew as soon as it has ended: ended operations per second, latency in milliseconds."""
    begin = time.perf_counter() + WARM_SECONDS
    end = begin + seconds
    spent: list[float] = []

    async def client() -> None:
        while (start := time.perf_counter()) < end:
            await operation()
            if begin <= (now := time.perf_counter()) <= end:
                spent.append((now - start) * 1000)

    processor = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    processor = time.process_time() - processor
    spent.sort()
    return {
        "per_second": len(spent) / seconds,
        "p50": quantile(spent, 0.5),
        "p99": quantile(spent, 0.99),
        "processor": processor / (time.perf_counter() - begin + WARM_SECONDS),
    }


def quantile(ordered: list[float], part: float) -> float:
    """A quantile of sorted values; 0 of none."""
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


async def obey(operations: Mapping[str, Operation]) -> None:
    """Say that this participant is ready, and measure what is asked until the input ends."""
    _answer({"ready": sorted(operations)})
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked: dict[str, Any] = json.loads(line)
        _answer(await closed_loop(operations[asked["operation"]], clients=asked["clients"], seconds=asked["seconds"]))


def _answer(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
