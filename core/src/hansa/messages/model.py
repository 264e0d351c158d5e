"""Messages, and when they are tried again. Pure: no clock, no database, no NATS."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from uuid import UUID

import msgspec

from hansa.db.pool import Connection

MAX_PAYLOAD_BYTES = 1_048_576
LONGEST_PAUSE = 60.0


class Message(msgspec.Struct, frozen=True):
    """A message as its receiver gets it. `payload` is JSON text; messages of one `key` come one after the other, in order."""

    tenant_id: UUID
    id: UUID
    kind: str
    key: str | None
    payload: str


class Ring(msgspec.Struct, frozen=True):
    """A doorbell to be rung once the receiver's transaction is committed."""

    subject: str
    payload: bytes = b""


Receiver = Callable[[Connection, Message], Awaitable[Sequence[Ring]]]
"""Does what a message asks for, in a transaction of the message's tenant that also marks it as received: both happen or neither. Only
what goes through that connection is done once; a receiver that raises is tried again."""
Receivers = Mapping[str, Receiver]
"""By kind of message."""


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """What travels within a region: which message, and not what it says. Its content never leaves the database. `database`: the tenant in
    whose own one it is; empty: the platform's."""

    tenant_id: UUID
    id: UUID
    database: str = ""


class Due(msgspec.Struct, frozen=True, array_like=True):
    """A message to be published now; `position` is that of its row, a new one each time it is put into the outbox."""

    tenant_id: UUID
    id: UUID
    position: int
    tries: int

    @property
    def publication(self) -> str:
        """What NATS knows a second publication by."""
        return f"{self.id}.{self.position}"


class Claimed(msgspec.Struct, frozen=True):
    """What a relay is to publish, and whether there is more to ask for at once."""

    due: list[Due]
    more: bool


class Outcome(StrEnum):
    """What a message is when its receiver's transaction opens."""

    NEW = "new"
    DONE = "done"
    BUSY = "busy"


class Accepted(msgspec.Struct, frozen=True):
    """A receiver's transaction is open; `message` is there when it is new. `followed`: others of its key wait for it."""

    outcome: Outcome
    message: Message | None
    followed: bool


def pause(attempts: int, first: float) -> float:
    """Seconds to wait after so many failures: `first`, doubled each time, a minute at most."""
    return min(first * 2 ** (max(attempts, 1) - 1), LONGEST_PAUSE)
