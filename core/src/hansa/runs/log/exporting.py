"""Writes a session as an archive: a snapshot of its log and runs, however long it takes to read, with each value once."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Damaged, NotFound
from hansa.runs.log import store
from hansa.runs.log.archive import FORMAT, Writer
from hansa.runs.log.keeping import Values
from hansa.runs.values import wanted

PAGE = 200


class Snapshot(msgspec.Struct, frozen=True):
    """A session, its runs and the agent's revisions they were on, all as of one moment."""

    id: UUID
    agent: str
    created_at: str
    last_seq: int
    forked_from: str | None
    forked_seq: int | None
    revision: int | None
    smoke: bool
    namespace: str | None
    runs: list[dict[str, Any]]
    revisions: list[dict[str, Any]]


async def snapshot(database: Database, principal: Principal, session_id: UUID) -> Snapshot:
    """What an export begins with. Raises `NotFound`."""
    async with database.tenant(principal.tenant_id) as connection:
        text = await store.session_snapshot(connection, session_id)
    if text is None:
        raise NotFound(f"there is no session {session_id}")
    return msgspec.json.decode(text, type=Snapshot)


async def lines(database: Database, values: Values, principal: Principal, of: Snapshot) -> AsyncIterator[bytes]:
    """The archive, some lines at a time. Raises `Damaged` where a value can't be had: what was written then has no end."""
    writer, told = Writer(), set[bytes]()

    async def value_lines(referring: Sequence[Any]) -> list[bytes]:
        missing = wanted(referring) - told
        told.update(missing)
        found: list[bytes] = []
        for digest, body in sorted((await values.load(principal.tenant_id, missing)).items()):
            if isinstance(body, Damaged):
                raise body
            found.append(writer.line("value", {"digest": f"sha256:{digest.hex()}", "body": msgspec.Raw(body)}))
        return found

    head = {name: value for name, value in msgspec.to_builtins(of).items() if name not in ("runs", "revisions")}
    yield writer.line("session", {"format": FORMAT, **head})
    for revision in of.revisions:
        yield writer.line("revision", revision)
    for run in of.runs:
        yield b"".join([*await value_lines([run["input"], run["output"]]), writer.line("run", run)])
    after = 0
    while after < of.last_seq:
        async with database.tenant(principal.tenant_id) as connection:
            texts = await store.exported_events(connection, of.id, after, min(PAGE, of.last_seq - after))
        events = [msgspec.json.decode(text) for text in texts]
        if not events:
            raise Damaged(f"event {after + 1} of session {of.id} is missing")
        before = await value_lines([value for event in events for value in event["data"].values()])
        yield b"".join([*before, *(writer.line("event", event) for event in events)])
        after = events[-1]["seq"]
    yield writer.end()
