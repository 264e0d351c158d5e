"""What runs are sent: calls of agents by agents, their returns and cancellations, checks of revisions, published events. One transaction
each.

Receivers may be given the same message again after a crash; what they do goes through the message's own transaction, so it is done
once.
"""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from hansa import ids
from hansa.apply.rollout import store as rollout_store
from hansa.auth.bindings import places_of
from hansa.auth.model import Principal, Starter
from hansa.bus.subjects import runs_ready, runs_told
from hansa.db.pool import Connection
from hansa.messages.model import Message, Receivers, Ring
from hansa.runs import store
from hansa.runs.calls import elsewhere
from hansa.runs.log import store as log_store
from hansa.runs.service import refusal
from hansa.runs.smoke import STARTER
from hansa.runs.values import columns, split_whole

CALLER = "agent-call"
"""Name of the principal that starts the runs of called agents."""


class RunCall(msgspec.Struct, frozen=True):
    """An agent is called by a run."""

    id: UUID
    agent: str
    input: Any
    parent_run: UUID
    parent_step: str
    depth: int
    priority: int
    started_by: Starter | None = None


class RolloutBegun(msgspec.Struct, frozen=True):
    """A revision of an agent is to be checked, by a run whose id is that of the message."""

    agent: str
    revision: int


class RunCanceled(msgspec.Struct, frozen=True):
    """A run's caller has no use for it any more."""

    id: UUID


class EventPublished(msgspec.Struct, frozen=True):
    """An event for every run of the tenant that waits for one of its name; `within`: in sessions of these namespaces only, None: in all."""

    name: str
    data: Any
    within: list[str] | None = None


class EventSent(msgspec.Struct, frozen=True):
    """An event for one session: its run that waits for it goes on, or the next one that will."""

    session: UUID
    name: str
    data: Any


async def kept(connection: Connection, tenant_id: UUID, value: Any) -> str:
    """A value as the log has it, what is large kept in the caller's transaction. None is too large for the database: no message is."""
    text, taken = split_whole(value)
    if taken:
        await log_store.put_values(connection, tenant_id, columns(taken))
    return text.decode()


def receivers(region: str, new_id: Callable[[], UUID] = ids.new_id) -> Receivers:
    """Who receives what, by kind of message."""
    ready = Ring(runs_ready(region))

    def woken(outcome: str, run_id: object) -> Sequence[Ring]:
        if outcome == "queued":
            return (ready,)
        return (Ring(runs_told(region), f"look {run_id}".encode()),) if outcome == "running" else ()

    async def call(connection: Connection, message: Message) -> Sequence[Ring]:
        asked = msgspec.json.decode(message.payload, type=RunCall)
        new = store.NewRun(
            id=asked.id,
            new_session_id=new_id(),
            agent=asked.agent,
            priority=asked.priority,
            parent_run=asked.parent_run,
            parent_step=asked.parent_step,
            depth=asked.depth,
            started_by=asked.started_by,
            within=places_of("runs:start", asked.started_by.may) if asked.started_by and asked.started_by.may is not None else None,
        )
        caller = Principal(message.tenant_id, "", CALLER, (), kind="agent")
        run_input = await kept(connection, message.tenant_id, asked.input)
        outcome, answer = await store.start_here(connection, region, store.Accept(caller, new, run_input, None))
        if outcome == "accepted":
            return (ready,)
        told = refusal(outcome, new, answer)
        error = {"code": told.code, "detail": told.detail, "hint": told.hint}
        if outcome == "elsewhere":
            error = elsewhere(asked.agent, new.within or ())
        returned = {"id": str(asked.id), "state": "failed", "output": None, "error": error, "usage": {}}
        became = await store.resolve(connection, message.tenant_id, asked.parent_run, step=asked.parent_step, data=returned)
        return woken(became, asked.parent_run)

    async def returned(connection: Connection, message: Message) -> Sequence[Ring]:
        told = msgspec.json.decode(message.payload)
        parent = UUID(told.pop("parent_run"))
        return woken(await store.resolve(connection, message.tenant_id, parent, step=told.pop("parent_step"), data=told), parent)

    async def cancel(connection: Connection, message: Message) -> Sequence[Ring]:
        child = msgspec.json.decode(message.payload, type=RunCanceled).id
        await store.cancel(connection, message.tenant_id, child)
        return (Ring(runs_told(region), f"cancel {child}".encode()), ready)

    async def check(connection: Connection, message: Message) -> Sequence[Ring]:
        asked = msgspec.json.decode(message.payload, type=RolloutBegun)
        manifest = await rollout_store.manifest(connection, asked.agent, asked.revision)
        if manifest is None:
            return ()  # it went with its tenant
        run_input = await kept(connection, message.tenant_id, manifest["spec"]["rollout"]["smoke"]["input"])
        by = msgspec.json.encode(STARTER).decode()
        place = (asked.agent, asked.revision)
        wanted = await rollout_store.start(connection, place, run=message.id, session=new_id(), input=run_input, by=by)
        return (ready,) if wanted else ()

    async def published(connection: Connection, message: Message) -> Sequence[Ring]:
        event = msgspec.json.decode(message.payload, type=EventPublished)
        data = await kept(connection, message.tenant_id, event.data)
        woke = await store.publish(connection, message.tenant_id, event.name, data, within=event.within)
        return [ring for outcome, run_id in woke for ring in woken(outcome, run_id)]

    async def sent(connection: Connection, message: Message) -> Sequence[Ring]:
        event = msgspec.json.decode(message.payload, type=EventSent)
        data = await kept(connection, message.tenant_id, event.data)
        outcome, run_id = await store.send_event(connection, message.tenant_id, event.session, message.id, name=event.name, data=data)
        return woken(outcome, run_id)  # a session that is gone by now needs no event

    runs = {"run.call": call, "run.returned": returned, "run.cancel": cancel, "rollout.begin": check}
    return {**runs, "event.published": published, "event.sent": sent}
