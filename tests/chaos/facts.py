"""Reads what the oracle judges: rows and logs as the superuser sees them, and the witness's file."""

import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from chaos.oracle import Event, Facts, Run

NONCE = re.compile(r"s\d+-u\d+-\d+-\d+")
RUNS = (
    "SELECT id, session_id, queued_seq, state, input::text AS input, output::text AS output, error ->> 'code' AS error, "
    "coalesce(parent_run || ' ' || parent_step, '') AS parent FROM hansa.runs"
)
EVENTS = (
    "SELECT session_id, run_id, seq, type, step, at, coalesce(data ->> 'effect', '') AS effect FROM hansa.events ORDER BY session_id, seq"
)


def witness(path: Path) -> list[dict[str, Any]]:
    """What the tools have told so far."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def read(connection: asyncpg.Connection, told: Path) -> Facts:
    """Everything, at one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        runs = [_run(row) for row in await connection.fetch(RUNS)]
        events = [
            Event(
                session=str(row["session_id"]),
                run=str(row["run_id"]),
                seq=row["seq"],
                type=row["type"],
                step=row["step"],
                at=row["at"],
                effect=row["effect"],
            )
            for row in await connection.fetch(EVENTS)
        ]
    return Facts(runs=runs, events=events, witness=witness(told))


def _run(row: asyncpg.Record) -> Run:
    nonce = NONCE.search(row["input"])
    return Run(
        id=str(row["id"]),
        session=str(row["session_id"]),
        queued=row["queued_seq"],
        state=row["state"],
        nonce=nonce[0] if nonce and not row["parent"] else "",
        output=None if row["output"] is None else msgspec.json.decode(row["output"]),
        error=row["error"] or "",
        parent=row["parent"],
    )
