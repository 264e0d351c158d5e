"""The relay: publishes what is in the outbox. Any number of them, in any number of processes, may run side by side.

What to publish is decided in the database, a batch at a time; a relay that dies or fails leaves rows that are due again.
"""

import asyncio
import contextlib

import msgspec
import structlog

from hansa.bus.queue import Queue
from hansa.bus.subjects import messages_sent
from hansa.db.pool import Database
from hansa.errors import Unavailable
from hansa.messages import store
from hansa.messages.model import Due, Envelope
from hansa.settings import MessageSettings

log = structlog.stdlib.get_logger("hansa.messages")
BATCH = 200
PAUSE_SECONDS = 0.2


class Relay:
    """One relay, of one database. `wake` makes it look at once instead of after the poll interval."""

    def __init__(self, database: Database, queue: Queue, settings: MessageSettings, *, region: str) -> None:
        self._database = database
        self._queue = queue
        self._settings = settings
        self._region = region
        self._wake = asyncio.Event()
        self._told = ""
        self._begun = queue.begun

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            try:
                more = await self._round()
                self._told = ""
            except Unavailable as error:
                self._tell(error.detail)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            # Whatever is wrong with a tenant's own database ends nobody else's messages; with the platform's the process ends of it.
            except Exception:
                if not self._database.name:
                    raise
                log.exception("messages.relay_broke", database=self._database.name)
                more = False
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.poll_seconds):
                        await self._wake.wait()

    async def _round(self) -> bool:
        """Publish a batch; whether there is more to do at once. Raises `Unavailable`."""
        if not self._queue.connected:
            raise Unavailable("NATS is not connected")  # nothing is claimed that could not be sent
        await self._queue.ensure()
        begun = self._queue.begun
        if begun != self._begun:
            await store.rewind(self._database)
            self._begun = begun
        claimed = await store.claim(self._database, limit=BATCH, window=self._settings.window)
        results = await asyncio.gather(*(self._publish(each) for each in claimed.due), return_exceptions=True)
        published = [each for each, failed in zip(claimed.due, results, strict=True) if failed is None]
        if published:
            await self.acknowledged(published)
        for failed in results:
            if failed is not None:
                raise failed
        return claimed.more

    async def acknowledged(self, published: list[Due]) -> None:
        """NATS has taken these. That is no reason to forget them: it may lose them a moment later."""
        await store.sent(self._database, published, patience=self._settings.resend_seconds)

    async def _publish(self, due: Due) -> None:
        payload = msgspec.json.encode(Envelope(due.tenant_id, due.id, self._database.name))
        await self._queue.publish(messages_sent(self._region, due.tenant_id.hex), payload, message_id=due.publication)

    def _tell(self, detail: str) -> None:
        if detail != self._told:  # the same one each try is said once
            self._told = detail
            log.warning("messages.relay_waits", error=detail)
