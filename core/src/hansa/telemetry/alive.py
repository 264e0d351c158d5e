"""Shows to those outside that a process's event loop turns: a file that it touches. For workers, which answer no requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

BEAT_SECONDS = 10.0


@asynccontextmanager
async def beating(file: Path, *, seconds: float = BEAT_SECONDS) -> AsyncIterator[None]:
    """Touch a file, now and every so many seconds, until the end. Where it can't be written it grows old, and that is all."""
    task = asyncio.create_task(_beat(file, seconds), name="alive")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat(file: Path, seconds: float) -> None:
    while True:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        await asyncio.sleep(seconds)
