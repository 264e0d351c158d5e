"""Idempotency keys for writes that are one transaction: the answer is kept with the change itself, or neither is.

Starting a run does the same within its own SQL function.
"""

import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from hansa.auth import store
from hansa.auth.model import Principal
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, Invalid


class IdempotencyKey(msgspec.Struct, frozen=True):
    """A key as sent with one request; `route` and the caller are its scope, `digest` that of the body."""

    route: str
    key: str
    digest: bytes


class Answer(msgspec.Struct, frozen=True):
    """What goes back to the caller: `body` is JSON text; `replayed` when an earlier request made it."""

    status: int
    body: str
    replayed: bool = False


def digest(body: bytes) -> bytes:
    """What is compared of two bodies sent under one key."""
    return hashlib.sha256(body).digest()


class KeyInFlight(Conflict):
    """The first request under an idempotency key is still being worked on."""

    code, title, retryable = "key_in_flight", "Request under way", True


def in_flight() -> KeyInFlight:
    """The refusal while the first request is still being worked on."""
    return KeyInFlight(
        "a request with this Idempotency-Key is being worked on", hint="Try again shortly; the first answer will be given.", retry_after=1.0
    )


def reused(first_use: str) -> Invalid:
    """The refusal of one key for two bodies."""
    return Invalid(f"this Idempotency-Key was first used at {first_use} with another body", hint="Use a new key for a new request.")


async def once(
    database: Database, principal: Principal, key: IdempotencyKey | None, operation: Callable[[Connection], Awaitable[tuple[int, str]]]
) -> Answer:
    """Do `operation` in one transaction of the tenant, or give the answer that an earlier request with this key got."""
    async with database.tenant(principal.tenant_id) as connection:
        if key is None:
            status, body = await operation(connection)
            return Answer(status, body)
        if not await store.lock_idempotency(connection, "\x1f".join((str(principal.tenant_id), principal.name, key.route, key.key))):
            raise in_flight()
        known = await store.find_answer(connection, principal.name, key.route, key.key)
        if known is not None:
            if known["digest"] != key.digest:
                raise reused(store.first_use(known["created_at"]))
            return Answer(known["status"], known["answer"], replayed=True)
        status, body = await operation(connection)
        scope = (principal.tenant_id, principal.name, key.route, key.key)
        await store.keep_answer(connection, scope, key.digest, status=status, answer=body)
        return Answer(status, body)
