"""A work queue in JetStream: published with an acknowledgement, pulled by many, each message by one at a time.

The queue may lose everything at any moment: whoever publishes keeps the original until the receiver has it. It is made when it is
missing and put right when it is not as it should be. Must not know what is carried.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MsgAlreadyAckdError
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from hansa.errors import Unavailable

log = structlog.stdlib.get_logger("hansa.bus")
PUBLISH_SECONDS = 2.0
MANAGE_SECONDS = 5.0
CHECK_SECONDS = 60.0
PAUSE_SECONDS = 0.2
MAX_AGE_SECONDS = 3600.0
"""What was not pulled for an hour is dropped: it has been sent again long since, or its sender is gone."""
DUPLICATE_SECONDS = 10.0
"""How long a second publication of one id is dropped. Short: if the queue lost a part, it can be filled again after this time."""


class QueueSpec(msgspec.Struct, frozen=True):
    """What a queue is like. `subjects`: what it takes in; `ack_seconds`: how long one who has pulled a message may be silent."""

    name: str
    subjects: str
    ack_seconds: float
    max_bytes: int
    replicas: int = 1


class Delivery:
    """A message pulled from a queue. Unless it is acknowledged it comes again; none of the answers here is sure to arrive."""

    def __init__(self, message: Msg) -> None:
        self._message = message

    @property
    def payload(self) -> bytes:
        return self._message.data

    @property
    def repeated(self) -> bool:
        """Whether it was handed out before."""
        return self._message.metadata.num_delivered > 1

    async def ack(self) -> None:
        """Done: it does not come again."""
        await self._answer(self._message.ack())

    async def retry(self, delay: float) -> None:
        """It shall come again after `delay` seconds."""
        await self._answer(self._message.nak(delay))

    async def _answer(self, sending: Any) -> None:
        try:
            await sending
        except (NatsError, OSError) as error:
            if not isinstance(error, MsgAlreadyAckdError):
                log.info("bus.answer_lost", error=str(error))


class Queue:
    """One queue over the process's connection."""

    def __init__(self, client: Client, spec: QueueSpec) -> None:
        self._client = client
        self._spec = spec
        untyped: Any = client  # its stubs leave options untyped
        self._stream: Any = untyped.jetstream(timeout=MANAGE_SECONDS)
        self._mending = asyncio.Lock()
        self._checked: float | None = None
        self.begun = 0
        """How often it was found new and empty."""

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    async def publish(self, subject: str, payload: bytes, *, message_id: str) -> None:
        """Publish and wait for the acknowledgement. Raises `Unavailable`: away, full, or gone (then it is made again)."""
        try:
            await self._stream.publish(subject, payload, timeout=PUBLISH_SECONDS, headers={"Nats-Msg-Id": message_id})
        except (NatsError, OSError, TimeoutError) as error:
            self._checked = None
            raise Unavailable(f"NATS does not take the message: {_told(error)}") from error

    async def ensure(self) -> bool:
        """Make the queue, or put it right, if that was not looked at lately; whether it is new and empty."""
        loop = asyncio.get_running_loop()
        async with self._mending:
            if self._checked is not None and loop.time() - self._checked < CHECK_SECONDS:
                return False
            try:
                async with asyncio.timeout(2 * MANAGE_SECONDS):
                    fresh = await self._make()
            except (NatsError, OSError, TimeoutError) as error:
                raise Unavailable(f"JetStream does not make the queue {self._spec.name}: {_told(error)}") from error
            self._checked = loop.time()
            self.begun += fresh
            return fresh

    async def purge(self, subject: str) -> None:
        """Remove what waits under a subject. Raises `Unavailable`."""
        await self._managed(self._stream.purge_stream(self._spec.name, subject=subject))

    async def count(self, subject: str) -> int:
        """How much waits under a subject. Raises `Unavailable`."""
        info = await self._managed(self._stream.stream_info(self._spec.name, subjects_filter=subject))
        subjects: dict[str, int] = {} if info is None else info.state.subjects or {}
        return sum(subjects.values())

    async def _managed(self, asked: Awaitable[Any]) -> Any:
        """What the server answers; None when there is no such queue."""
        try:
            async with asyncio.timeout(MANAGE_SECONDS):
                return await asked
        except NotFoundError:
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"JetStream does not answer for the queue {self._spec.name}: {_told(error)}") from error

    def lost(self) -> None:
        """Something is wrong with it: the next `ensure` looks."""
        self._checked = None

    async def _make(self) -> bool:
        config = self._stream_config()
        try:
            info = await self._stream.stream_info(self._spec.name)
        except NotFoundError:
            info = await self._stream.add_stream(config)
            log.info("bus.queue_made", queue=self._spec.name)
        else:
            if drifted(info.config, config):
                log.warning("bus.queue_put_right", queue=self._spec.name)
                info = await self._stream.update_stream(config)
        try:
            await self._stream.add_consumer(self._spec.name, self._consumer_config())
        except APIError as error:
            # It is there and can't be changed to what it must be: it holds nothing that is not also elsewhere.
            log.warning("bus.consumer_made_again", queue=self._spec.name, error=_told(error))
            with contextlib.suppress(NotFoundError):
                await self._stream.delete_consumer(self._spec.name, self._spec.name)
            await self._stream.add_consumer(self._spec.name, self._consumer_config())
        return info.state.last_seq == 0

    def _stream_config(self) -> StreamConfig:
        return StreamConfig(
            name=self._spec.name,
            subjects=[self._spec.subjects],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self._spec.max_bytes,
            max_age=MAX_AGE_SECONDS,
            duplicate_window=DUPLICATE_SECONDS,
            num_replicas=self._spec.replicas,
        )

    def _consumer_config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self._spec.name,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._spec.ack_seconds,
            max_deliver=-1,
            max_ack_pending=-1,
        )

    @asynccontextmanager
    async def pull(self) -> AsyncIterator["Pull"]:
        """The way to receive, for one reader at a time."""
        subscription: Any = await self._stream.pull_subscribe_bind(self._spec.name, self._spec.name)
        try:
            yield Pull(self, subscription)
        finally:
            with contextlib.suppress(NatsError, OSError):
                await subscription.unsubscribe()


class Pull:
    """Receives one message at a time. Use `Queue.pull`."""

    def __init__(self, queue: Queue, subscription: Any) -> None:
        self._queue = queue
        self._subscription = subscription

    async def next(self, seconds: float) -> Delivery | None:
        """The next message, or None if none came in that time; a queue that is gone is made again by the next `Queue.ensure`."""
        try:
            messages = await self._subscription.fetch(1, timeout=seconds)
        except TimeoutError:
            return None
        except (NatsError, OSError) as error:
            if isinstance(error, APIError):
                log.info("bus.queue_lost", error=_told(error))
                self._queue.lost()
            await asyncio.sleep(PAUSE_SECONDS)
            return None
        return Delivery(messages[0])


def drifted(found: StreamConfig, wanted: StreamConfig) -> bool:
    """Whether a stream is not as it must be, in what we say of it; the server fills in the rest."""
    names = ("subjects", "retention", "storage", "discard", "max_bytes", "max_age", "duplicate_window", "num_replicas")
    return any(getattr(found, name) != getattr(wanted, name) for name in names)


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
