"""Writing to the audit trail, in the transaction of the change: there is no change without its row, and no row without its change.

Warning: from here to the end of the transaction no one else of the tenant is audited, so `record` comes last in it; of several tenants
in the order of their names.
"""

from typing import Any

import msgspec

from hansa.audit import redaction, store
from hansa.audit.model import Actor, AuditEvent, Origin
from hansa.db.pool import Connection


async def record(connection: Connection, *events: AuditEvent) -> None:
    """Write events into the trail of the tenant that the connection acts in. An error fails the transaction, and shall."""
    if events:
        await store.append(connection, [canonical(event) for event in events])


def canonical(event: AuditEvent) -> str:
    """An event as it is kept and hashed: keys in order, nothing between them, no secrets."""
    told = msgspec.structs.replace(
        event,
        actor=_without_secrets(event.actor),
        origin=_without_secrets(event.origin),
        target=redaction.text(event.target),
        reason=redaction.text(event.reason, 2000),
        before=redaction.safe(msgspec.to_builtins(event.before)),
        after=redaction.safe(msgspec.to_builtins(event.after)),
    )
    built: dict[str, Any] = {"origin": {}, "outcome": event.outcome, **msgspec.to_builtins(told)}  # never left out: they are asked for
    return msgspec.json.encode(built, order="sorted").decode()


def _without_secrets(part: Actor | Origin) -> Actor | Origin:
    texts = {name: redaction.text(value) for name, value in msgspec.structs.asdict(part).items() if isinstance(value, str)}
    return msgspec.structs.replace(part, **texts)
