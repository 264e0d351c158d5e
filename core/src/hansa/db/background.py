"""Work that goes on beside, while a context is open: named tasks, which are ended and waited for with it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def background(work: Iterable[tuple[str, Coroutine[Any, Any, None]]]) -> AsyncIterator[None]:
    """Have each piece of work done as a task of this name. Whoever leaves the context finds them all ended; what one of them raised is its
    own to tell."""
    tasks = [asyncio.create_task(each, name=name) for name, each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
