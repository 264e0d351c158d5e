"""The providers that a process has open: one for each configuration, shared by all calls, opened anew when its credential has changed.

Must not know what is asked of them. Warning: a credential is compared by its hash, and kept by the provider alone.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import msgspec
import structlog

from hansa_crds import ModelProvider
from hansa_sdk import LLMProvider, ProviderConfig, ProviderKind, ProviderServices

log = structlog.stdlib.get_logger("hansa.llm")
KEPT = 1000
"""Most that stay open without being used."""


class _Opened:
    """One open provider, and who uses it."""

    def __init__(self, provider: LLMProvider, slots: asyncio.Semaphore, *, mark: bytes, stack: AsyncExitStack) -> None:
        self.provider = provider
        self.slots = slots
        self.mark = mark
        self.stack = stack
        self.users = 0
        self.retired = False


class ProviderPool:
    """Open providers. Use `open_pool`."""

    def __init__(self, services: ProviderServices) -> None:
        self._services = services
        self._open: OrderedDict[bytes, _Opened] = OrderedDict()
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def borrow(
        self, tenant_id: UUID, provider: ModelProvider, kind: ProviderKind, credential: str | None
    ) -> AsyncIterator[tuple[LLMProvider, asyncio.Semaphore]]:
        """A provider as its object says, and the slots for calls at once; one with an earlier credential is closed when its calls end."""
        spec = provider.spec
        config = ProviderConfig(provider.metadata.name, spec.endpoint, credential or None, tuple(model.name for model in spec.models))
        owner = tenant_id.hex if spec.credentials is not None and spec.credentials.secret is not None else ""
        place = msgspec.structs.replace(config, credential=None)
        name = msgspec.json.encode([owner, spec.plugin, place, spec.max_concurrency, spec.credentials])
        mark = hashlib.sha256((credential or "").encode()).digest()
        async with self._opening:
            found = self._open.get(name)
            if found is None or found.mark != mark:
                stack = AsyncExitStack()
                opened = await stack.enter_async_context(kind.open(config, self._services))
                slots = asyncio.Semaphore(spec.max_concurrency or kind.max_concurrency or 1_000_000)
                if found is not None:
                    log.info("llm.reopened", provider=config.name, reason="its credential has changed")
                    self._retire(found)
                found = self._open[name] = _Opened(opened, slots, mark=mark, stack=stack)
            self._open.move_to_end(name)
            found.users += 1
        try:
            yield found.provider, found.slots
        finally:
            found.users -= 1
            if found.retired and not found.users:
                self._close(found)
            self._forget_idle()

    async def close(self) -> None:
        """Close all; what is still in use, too."""
        for found in self._open.values():
            self._close(found)
        self._open.clear()
        while self._closing:
            await asyncio.wait(self._closing)

    def _retire(self, found: _Opened) -> None:
        found.retired = True
        if not found.users:
            self._close(found)

    def _forget_idle(self) -> None:
        for name in list(self._open)[: max(0, len(self._open) - KEPT)]:
            if not self._open[name].users:
                self._close(self._open.pop(name))

    def _close(self, found: _Opened) -> None:
        task = asyncio.get_running_loop().create_task(_closed(found.stack), name="llm.close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _closed(stack: AsyncExitStack) -> None:
    try:
        await stack.aclose()
    # A provider plugin is a stranger's code: that it can't end well is logged, and holds up nobody.
    except Exception:
        log.exception("llm.close_broke")


@asynccontextmanager
async def open_pool(services: ProviderServices) -> AsyncIterator[ProviderPool]:
    """A pool whose providers are closed at the end."""
    pool = ProviderPool(services)
    try:
        yield pool
    finally:
        await pool.close()
