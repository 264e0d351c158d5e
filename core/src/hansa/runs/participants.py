"""What tenants' own programs send over NATS: events for runs that wait for them. Answered once it is kept, never before.

The tenant is that of the account, which NATS itself puts into the subject; nothing in a message can name another one. A message that comes
again under its id, because the answer was lost or NATS was away, counts once.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid5

import msgspec
import structlog

from hansa import clock
from hansa.auth.model import Principal
from hansa.bus.connection import Asked
from hansa.bus.subjects import PARTICIPANT_TOKEN, messages_ready, participant
from hansa.db.gathering import carrying
from hansa.errors import HansaError, Invalid, LimitExceeded, Malformed, NotFound, TooLarge
from hansa.messages.model import MAX_PAYLOAD_BYTES, Message
from hansa.messages.service import send
from hansa.runs.budget import store as budget_store
from hansa.runs.budget.metering import unsent_refusal
from hansa.runs.consumer import EventPublished, EventSent
from hansa.runs.equipment import Equipment
from hansa.runs.log import store as log_store
from hansa.tenants.messaging import store as messaging_store
from hansa.tenants.messaging.model import Sender
from hansa.tenants.rates import Rates

log = structlog.stdlib.get_logger("hansa.participants")
NAMESPACE = UUID("5c2f8a55-0a8e-5f3e-8b0e-3f6b0b6f4a52")
GROUP = "workers"
AT_ONCE, AT_ONCE_OF_TENANT = 64, 8
KNOWN, KNOWN_SECONDS = 10_000, 10.0
MAX_NAME, MAX_ID, MAX_DEPTH = 200, 200, 64


class Kept(msgspec.Struct, frozen=True):
    """The answer: the message is kept and will be delivered. `id` is the same whenever it comes again."""

    id: UUID


class Wrong(msgspec.Struct, frozen=True):
    """Why a message is not kept; `retryable`: sending it again, under its id, may help, after `retry_after` seconds."""

    code: str
    detail: str
    hint: str
    retryable: bool
    retry_after: float | None


class Participants:
    """Receives while its context is open, see `open_participants`."""

    def __init__(self, equipment: Equipment, rates: Rates) -> None:
        self._equipment = equipment
        self._rates = rates
        self._senders: dict[str, tuple[Sender, float]] = {}
        self._busy: Counter[str] = Counter()

    async def answer(self, asked: Asked, busy: bool) -> bytes:  # noqa: FBT001 - as the bus calls it
        """Keep what was sent; what its sender is told, as JSON."""
        account = asked.subject.split(".")[PARTICIPANT_TOKEN - 1]
        if busy or self._busy[account] >= AT_ONCE_OF_TENANT:
            return _told(LimitExceeded("too many messages at once", hint="Wait for answers before you send more.", retry_after=0.1))
        self._busy[account] += 1
        try:
            return msgspec.json.encode(Kept(await self._keep(account, asked)))
        except HansaError as error:
            return _told(error)
        # A defect of ours must not leave the sender without an answer, nor end the receiving.
        except Exception:
            log.exception("participants.failed")
            return _told(HansaError("something went wrong on our side", hint="Send it again under its id."))
        finally:
            self._busy[account] -= 1
            if not self._busy[account]:
                del self._busy[account]

    async def _keep(self, account: str, asked: Asked) -> UUID:
        sender = await self._sender(account)
        message_id = uuid5(NAMESPACE, f"{sender.tenant_id} {_checked_id(asked.message_id)}")
        session, name = _addressed(asked.subject)
        data = _data(asked.payload)
        if session is None:
            kind, key, body = "event.published", name, msgspec.json.encode(EventPublished(name, data))
        else:
            kind, key, body = "event.sent", f"session {session}", msgspec.json.encode(EventSent(session, name, data))
        await self._rates.admit(Principal(sender.tenant_id, sender.tenant, "nats", (), rated=sender.rated))
        async with self._equipment.database.tenant(sender.tenant_id) as connection:
            if session is not None and not await log_store.session_exists(connection, session):
                raise NotFound(f"there is no session {session}")
            if await send(connection, Message(sender.tenant_id, message_id, kind, key, body.decode())):
                limit = await budget_store.count_message_here(connection, sender.tenant_id, message_id)
                if limit is not None:
                    raise unsent_refusal(limit)
        await self._equipment.bus.ring(messages_ready(self._equipment.region), self._equipment.database.of(sender.tenant_id).bell)
        return message_id

    async def _sender(self, account: str) -> Sender:
        """Whose account it is; that never changes, so it is looked up now and then only."""
        known = self._senders.get(account)
        if known is not None and known[1] > clock.monotonic():
            return known[0]
        found = await messaging_store.sender(self._equipment.database, account)
        if found is None:
            raise NotFound("the account is no tenant's", hint="Try again shortly, if it was just made.")
        if len(self._senders) >= KNOWN:
            self._senders.clear()
        self._senders[account] = (found, clock.monotonic() + KNOWN_SECONDS)
        return found


@asynccontextmanager
async def open_participants(equipment: Equipment) -> AsyncIterator[None]:
    """Receive what participants send until the context ends."""
    rates = Rates(equipment.database)
    participants = Participants(equipment, rates)
    subject = participant(equipment.region, "*")
    async with carrying(rates.gatherer), equipment.bus.answering(subject, GROUP, participants.answer, at_once=AT_ONCE):
        yield


def _told(error: HansaError) -> bytes:
    told = Wrong(error.code, error.detail, error.hint, error.retryable or error.code == "internal", error.retry_after)
    return msgspec.json.encode({"error": told})


def _checked_id(text: str) -> str:
    if not 1 <= len(text) <= MAX_ID or not text.isascii() or not text.isprintable():
        raise Invalid(
            f"the header Nats-Msg-Id is not 1 to {MAX_ID} printable ASCII characters",
            hint="Give each message an id of its own, and the same one when you send it again: then it counts once.",
        )
    return text


def _addressed(subject: str) -> tuple[UUID | None, str]:
    """The session that an event is for, if it is for one, and the event's name."""
    kind, *rest = subject.split(".")[PARTICIPANT_TOKEN:]
    session: UUID | None = None
    if kind == "session" and rest:
        try:
            session = UUID(rest.pop(0))
        except ValueError:
            raise Invalid("the part of the subject after `session` is not an id (a UUID)") from None
    elif kind != "event":
        raise Invalid("the subject is neither `event.<name>` nor `session.<id>.<name>`", hint="docs/participants.md shows both.")
    name = ".".join(rest)
    if not 1 <= len(name) <= MAX_NAME:
        raise Invalid(f"an event's name has 1 to {MAX_NAME} characters, got {len(name)}")
    if "\x00" in name:
        raise Invalid("an event's name holds no NUL character")
    return session, name


def _data(payload: bytes) -> Any:
    """The JSON value of a payload, null for none."""
    if len(payload) > MAX_PAYLOAD_BYTES // 2:
        raise TooLarge(f"the message has {len(payload)} bytes, the most is {MAX_PAYLOAD_BYTES // 2}")
    try:
        value = msgspec.json.decode(payload) if payload.strip() else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the payload is not valid JSON: {str(error) or type(error).__name__}") from None
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for each in level for inner in _inner(each)]
    if level:
        raise Malformed(f"the payload is nested deeper than {MAX_DEPTH} levels")
    return value


def _inner(value: Any) -> list[Any]:
    """What lies in a value; something also in an empty one, for that is a level too."""
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values()) or [None]
    return (cast("list[Any]", value) or [None]) if isinstance(value, list) else []
