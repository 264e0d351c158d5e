"""Rows of a tenant in every table, to be kept from another one."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import asyncpg

A, B = UUID(int=0xA), UUID(int=0xB)
ROWS: dict[str, dict[str, Any]] = {
    "api_keys": {"id": "k", "name": "n", "digest": b"d", "roles": ["viewer"]},
    "request_rates": {"due": 0.0},
    "tenant_conditions": {"type": "t", "status": "True", "reason": "r", "message": "secret of b", "observed_generation": 1},
    "tenant_workers": {"worker": "w"},
    "messaging_accounts": {"connections": 5},
    "message_counts": {"day": date(2026, 1, 1), "sent": 1},
    "limit_levels": {"name": "secret of b", "level": 1},
    "service_accounts": {"name": "s", "roles": ["viewer"], "description": "secret of b"},
    "issuers": {"issuer": "https://issuer.example", "audience": "secret of b", "entry": "{}"},
    "budgets": {
        "currency": "EUR",
        "period": "day",
        "on_limit": "reject",
        "charges_lost": True,
        "warn_at": 80,
        "begun": date(2026, 1, 1),
        "day": date(2026, 1, 1),
    },
    "reservations": {"run_id": UUID(int=2), "step": "1", "epoch": 1, "agent": "a", "model": "secret of b", "cost": 1, "tokens": 1},
    "storage": {"shard": 99, "bytes": 1},
    "usage": {
        "day": date(2026, 1, 1),
        "agent": "a",
        "model": "secret of b",
        "shard": 1,
        "calls": 1,
        "input_tokens": 1,
        "output_tokens": 1,
        "cost": 1,
        "lost_calls": 0,
        "lost_tokens": 0,
        "lost_cost": 0,
    },
    "data_keys": {"generation": 1, "kek": "file", "key_id": "k", "wrapped": b"d"},
    "secrets": {"name": "s", "version": 1, "generation": 1, "sealed": b"d", "made_by": "secret of b"},
    "objects": {"kind": "Agent", "name": "a", "generation": 1, "manager": "m", "manifest": "{}", "digest": b"d"},
    "namespaces": {"name": "n"},
    "sources": {
        "id": "s",
        "origin": "secret of b",
        "ref": "main",
        "commit": "c",
        "state": "synced",
        "message": "secret of b",
        "errors": "[]",
        "seen_at": datetime.now(UTC),
        "told_by": "p",
    },
    "agent_revisions": {"agent": "a", "revision": 1, "digest": b"d", "manifest": "{}"},
    "sessions": {"id": UUID(int=1), "agent": "a", "last_seq": 1},
    "runs": {
        "id": UUID(int=2),
        "session_id": UUID(int=1),
        "queued_seq": 1,
        "agent": "a",
        "revision": 1,
        "state": "queued",
        "input": '"secret of b"',
    },
    "agents": {"name": "a", "revision": 1, "suspended": False, "concurrency": "Enqueue", "pool": "default"},
    "rollouts": {
        "agent": "a",
        "revision": 1,
        "digest": b"d",
        "state": "refused",
        "reason": "r",
        "message": "secret of b",
        "seconds": 1,
        "concurrency": "Enqueue",
        "pool": "default",
    },
    "waits": {"run_id": UUID(int=2), "step": "1", "kind": "timer"},
    "approvals": {"id": UUID(int=3), "run_id": UUID(int=2), "step": "1", "kind": "tool", "subject": '"secret of b"'},
    "mailbox": {"session_id": UUID(int=1), "id": UUID(int=4), "name": "e", "data": '"secret of b"'},
    "events": {"session_id": UUID(int=1), "seq": 1, "run_id": UUID(int=2), "type": "log", "data": '"secret of b"'},
    "values": {"digest": b"d" * 32, "size": 13, "in_store": False, "body": '"secret of b"'},
    "value_refs": {"session_id": UUID(int=1), "digest": b"d" * 32},
    "idempotency_keys": {"principal": "p", "route": "r", "key": "k", "digest": b"d", "status": 202, "answer": "{}"},
    "outbox": {"id": UUID(int=3), "kind": "k", "payload": '"secret of b"'},
    "inbox": {"id": UUID(int=3)},
    "dead_letters": {
        "id": UUID(int=4),
        "kind": "k",
        "payload": '"secret of b"',
        "attempts": 5,
        "reason": "r",
        "created_at": datetime.now(UTC),
    },
    "audit_heads": {"seq": 1, "at": datetime.now(UTC), "hash": b"d" * 32},
    "audit_owed": {"id": UUID(int=9), "event": '{"action":"secret of b"}'},
    "audit_taken": {"id": UUID(int=9)},
    "audit_events": {"seq": 1, "event": '{"action":"secret of b"}', "hash": b"d" * 32},
}
"""One row of each table that belongs to tenants, in an order in which they can be written."""
ONE_A_TENANT = ("request_rates", "message_counts", "messaging_accounts", "audit_heads", "budgets", "storage", "data_keys")
NAMES = ("id", "name", "agent", "key", "principal", "type", "worker", "issuer")
"""Columns whose texts name something: they are told apart by a number."""


async def insert(connection: Any, table: str, tenant: UUID, **changes: Any) -> None:
    """Write the row of a table, with changes."""
    values = {"tenant_id": tenant, **ROWS[table], **changes}
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await connection.execute(f"INSERT INTO hansa.{table} ({', '.join(values)}) VALUES ({places})", *values.values())


async def fill(connection: asyncpg.Connection, tenant: UUID, *, word: str, rows: int = 3) -> None:
    """Write several rows into every table, which say `word` wherever they can."""
    await connection.execute("UPDATE hansa.tenants SET display_name = $2 WHERE tenant_id = $1", tenant, word)
    for number in range(rows):
        for table, values in ROWS.items():
            if table in ONE_A_TENANT and number:
                continue  # has one row a tenant
            await insert(connection, table, tenant, **{column: _varied(column, value, word, number) for column, value in values.items()})


def _varied(column: str, value: Any, word: str, number: int) -> Any:
    match value:
        case UUID():
            return UUID(int=value.int + 16 * number)
        case bytes():
            return bytes([number]) + value[1:]
        case str():
            told = value.replace("secret of b", word)
            return f"{told} {word} {number}" if column in NAMES else told
        case _:
            return value
