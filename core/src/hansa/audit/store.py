"""All SQL about the audit trail."""

from collections.abc import Sequence

from hansa.db.pool import Connection


async def append(connection: Connection, events: Sequence[str]) -> int:
    """Chain events, as canonical JSON, to those of the connection's tenant; the number of the last one."""
    return await connection.fetchval("SELECT hansa.audit_append($1)", events)
