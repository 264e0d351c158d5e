"""What can be done with runs and sessions: start, cancel, suspend, resume, fork, read. Rules and errors here, SQL in `store`."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from hansa import clock, ids
from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.idempotency import Answer, IdempotencyKey, in_flight, once, reused
from hansa.auth.model import Principal
from hansa.bus.connection import Bus
from hansa.bus.subjects import runs_ready, runs_told
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, FieldError, HansaError, Invalid, LimitExceeded, NotFound, Unavailable
from hansa.runs import store
from hansa.runs.acceptor import Acceptor
from hansa.runs.admitting import store as lists
from hansa.runs.admitting.service import admit, admit_agent, admit_agent_here, missing, missing_agent
from hansa.runs.budget import store as budget_store
from hansa.runs.budget.metering import refusal_of, unsent_refusal
from hansa.runs.log import store as log_store
from hansa.runs.log.keeping import Values, full
from hansa.runs.log.showing import Kind, shown
from hansa.runs.model import RESTING_STATES, STATES
from hansa.runs.timers import ring_for
from hansa.runs.values import split_whole

READING, STARTING, STOPPING = "runs:read", "runs:start", "runs:cancel"
DECISIONS = ("done", "retry", "fail")
WORDS = {Action.RUN_CANCELED: "cancel", Action.RUN_SUSPENDED: "suspend"}
"""What the worker that has the run is told."""
Verb = Callable[[Connection, UUID, UUID], Awaitable[str | None]]


class Page(msgspec.Struct, frozen=True):
    """One page of a list: JSON texts, and the id of the last one when there are more."""

    data: list[str]
    last: UUID | int | None


class Start(msgspec.Struct, frozen=True):
    """A run to be started: `agent` None: the session's; `session_id` None: a session of its own. `start_at`: not before that time."""

    agent: str | None
    input: Any
    session_id: UUID | None = None
    revision: int | None = None
    priority: int = 0
    start_at: datetime | None = None


class Runs:
    """Runs and sessions of this region."""

    def __init__(self, database: Database, bus: Bus, region: str, acceptor: Acceptor, *, values: Values) -> None:
        self._database = database
        self._values = values
        self._bus = bus
        self._region = region
        self._acceptor = acceptor

    async def start(self, principal: Principal, start: Start, *, key: IdempotencyKey | None) -> Answer:
        """Accept a run; durable when this returns. Raises what the admission says: not found, conflict, unavailable."""
        if start.start_at is not None and start.session_id is not None:
            raise Invalid("a run with start_at begins a session of its own", hint="Leave session_id or start_at out.")
        new = store.NewRun(
            id=ids.new_id(),
            new_session_id=ids.new_id(),
            agent=start.agent,
            revision=start.revision,
            session_id=start.session_id,
            priority=start.priority,
            start_at=_in_utc(start.start_at).isoformat() if start.start_at else None,
            started_by=principal.starter,
            within=await self._within(principal, start),
        )
        run_input, taken = split_whole(start.input)
        await self._values.keep(principal.tenant_id, taken)
        outcome, answer = await self._acceptor.accept(store.Accept(principal, new, run_input.decode(), key))
        if outcome in ("accepted", "replayed") and answer is not None:
            return await self._answer(principal, Answer(202, answer, replayed=outcome == "replayed"))
        raise refusal(outcome, new, answer)

    async def _within(self, principal: Principal, start: Start) -> tuple[str, ...] | None:
        """The namespaces in which the caller may start it; None: all. Asked here too: a repeated answer is not for everybody."""
        reach = principal.reach(STARTING)
        if reach is None:
            return None
        if start.session_id is not None:
            await admit(self._database, principal, STARTING, what="session", id=start.session_id)
        if start.agent is not None:
            await admit_agent(self._database, principal, STARTING, start.agent)
        return tuple(sorted(reach))

    async def cancel(self, principal: Principal, run_id: UUID, *, key: IdempotencyKey | None) -> Answer:
        """Cancel a run: at once when it waits, else its worker is told. A finished run stays as it is."""
        return await self._change(principal, run_id, key=key, verb=store.cancel, action=Action.RUN_CANCELED)

    async def suspend(self, principal: Principal, run_id: UUID, *, key: IdempotencyKey | None) -> Answer:
        """Hold a run until it is resumed: at once when it waits, else its worker is told. A finished run stays as it is."""
        return await self._change(principal, run_id, key=key, verb=store.suspend, action=Action.RUN_SUSPENDED)

    async def _change(self, principal: Principal, run_id: UUID, *, key: IdempotencyKey | None, verb: Verb, action: Action) -> Answer:
        await self._admit(principal, STOPPING, run_id)

        async def operation(connection: Connection) -> tuple[int, str]:
            body = await verb(connection, principal.tenant_id, run_id)
            if body is None:
                raise missing("run", run_id)
            await record(connection, principal.did(action, f"Run/{run_id}", after={"state": _state(body)}))
            return 202, body

        answer = await once(self._database, principal, key, operation)
        await self._bus.ring(runs_told(self._region), f"{WORDS[action]} {run_id}".encode())
        await self._ready(principal)  # what it held up may go on
        return await self._answer(principal, answer)

    async def _admit(self, principal: Principal, permission: str, run_id: UUID) -> None:
        await admit(self._database, principal, permission, what="run", id=run_id)

    async def _ready(self, principal: Principal) -> None:
        await self._bus.ring(runs_ready(self._region), self._database.of(principal.tenant_id).bell)

    async def resume(self, principal: Principal, run_id: UUID, *, decision: str | None, answer: Any, key: IdempotencyKey | None) -> Answer:
        """Let a suspended run go on, or decide about a call in doubt: `done` (with what it answered), `retry` or `fail`."""
        if decision is not None and decision not in DECISIONS:
            raise Invalid(f"as must be one of {', '.join(DECISIONS)}, got {decision!r}")
        await self._admit(principal, STOPPING, run_id)
        content, taken = split_whole(answer)
        await self._values.keep(principal.tenant_id, taken)

        async def operation(connection: Connection) -> tuple[int, str]:
            outcome, body = await store.resume(connection, principal, run_id, decision=decision, answer=content.decode())
            if outcome != "resumed" or body is None:
                raise _not_resumed(outcome, run_id)
            now = {"state": _state(body), "as": decision} if decision is not None else {"state": _state(body)}
            await record(connection, principal.did(Action.RUN_RESUMED, f"Run/{run_id}", after=now))
            return 202, body

        told = await once(self._database, principal, key, operation)
        await self._ready(principal)
        return await self._answer(principal, told)

    async def fork(self, principal: Principal, run_id: UUID, *, at: int, key: IdempotencyKey | None) -> Answer:
        """A new run, in a session of its own, that has done what this one had up to event `at` and goes on by itself from there."""

        await self._admit(principal, STARTING, run_id)

        async def operation(connection: Connection) -> tuple[int, str]:
            new = store.NewRun(id=ids.new_id(), new_session_id=ids.new_id())
            outcome, body = await store.fork(connection, principal, run_id, region=self._region, at=at, new=(new.id, new.new_session_id))
            if outcome == "no_run" or body is None:
                raise missing("run", run_id)
            if outcome not in ("accepted", "at_outside"):
                agent = msgspec.json.decode(body)
                await admit_agent_here(connection, principal, STARTING, agent)
                raise refusal(outcome, msgspec.structs.replace(new, agent=agent), None)
            if outcome != "accepted":
                first, last = msgspec.json.decode(body, type=tuple[int, int])
                raise Invalid(
                    f"the events of run {run_id} are numbered {first} to {last}, there is none {at}", hint="GET its session's events."
                )
            await admit_agent_here(connection, principal, STARTING, msgspec.json.decode(body, type=_State).agent)
            await record(connection, principal.did(Action.RUN_FORKED, f"Run/{run_id}", after={"run": new.id, "at": at}))
            return 202, body

        answer = await once(self._database, principal, key, operation)
        await self._ready(principal)
        return await self._answer(principal, answer)

    async def send_event(self, principal: Principal, session_id: UUID, name: str, *, data: Any, key: IdempotencyKey | None) -> Answer:
        """Give an event to the session's run that waits for it, or keep it for the next one that will."""
        told: list[tuple[str, str]] = []
        await admit(self._database, principal, STARTING, what="session", id=session_id)
        text, taken = split_whole(data)
        await self._values.keep(principal.tenant_id, taken)

        async def operation(connection: Connection) -> tuple[int, str]:
            event_id = ids.new_id()
            outcome, run_id = await store.send_event(connection, principal.tenant_id, session_id, event_id, name=name, data=text.decode())
            if outcome == "no_session":
                raise missing("session", session_id)
            limit = await budget_store.count_message_here(connection, principal.tenant_id, event_id)
            if limit is not None:
                raise unsent_refusal(limit)
            told.append((outcome, str(run_id)))
            delivered = {"name": name, "delivered": outcome != "kept", "run_id": run_id}
            return 202, msgspec.json.encode(delivered).decode()

        answer = await once(self._database, principal, key, operation)
        for outcome, run_id in told:
            await ring_for(self._bus, self._region, outcome, run_id, bell=self._database.of(principal.tenant_id).bell)
        return answer

    async def get(self, principal: Principal, run_id: UUID, *, permission: str = READING) -> str:
        """A run as JSON text. `permission`: for which it is shown, `STARTING` to whoever has just started it."""
        await self._admit(principal, permission, run_id)
        async with self._database.tenant(principal.tenant_id) as connection:
            body = await store.find_run(connection, run_id)
        if body is None:
            raise missing("run", run_id)
        return (await shown(self._values, principal.tenant_id, Kind.RUN, [body]))[0]

    async def page(self, principal: Principal, filters: dict[str, Any], *, before: UUID | None, limit: int) -> Page:
        """Runs, newest first."""
        if filters.get("state") not in (None, *STATES):
            raise Invalid(f"state {filters['state']!r} is not one of {', '.join(STATES)}")
        asked = (filters.get("agent"), filters.get("state"), filters.get("session_id"))
        async with self._database.tenant(principal.tenant_id) as connection:
            found = await lists.page(connection, lists.RUNS, *asked, before=before, limit=limit, within=principal.reach(READING))
        return Page(await shown(self._values, principal.tenant_id, Kind.RUN, found.data), found.last)

    async def open_session(self, principal: Principal, agent: str, *, key: IdempotencyKey | None) -> Answer:
        """Make an empty session."""

        await admit_agent(self._database, principal, STARTING, agent)

        async def operation(connection: Connection) -> tuple[int, str]:
            new = store.NewRun(id=ids.new_id(), new_session_id=ids.new_id(), agent=agent)
            outcome, body = await store.insert_session(connection, new.new_session_id, agent)
            if outcome != "opened" or body is None:
                raise refusal(outcome, new, body)
            await admit_agent_here(connection, principal, STARTING, agent)
            return 201, body

        return await once(self._database, principal, key, operation)

    async def get_session(self, principal: Principal, session_id: UUID) -> str:
        """A session as JSON text."""
        await admit(self._database, principal, READING, what="session", id=session_id)
        async with self._database.tenant(principal.tenant_id) as connection:
            body = await store.find_session(connection, session_id)
        if body is None:
            raise missing("session", session_id)
        return body

    async def list_sessions(self, principal: Principal, agent: str | None, *, before: UUID | None, limit: int) -> Page:
        """Sessions, newest first."""
        async with self._database.tenant(principal.tenant_id) as connection:
            found = await lists.page(connection, lists.SESSIONS, agent, before=before, limit=limit, within=principal.reach(READING))
        return Page(found.data, found.last)

    async def list_events(self, principal: Principal, session_id: UUID, *, after: int, limit: int) -> Page:
        """Events of a session, oldest first."""
        await admit(self._database, principal, READING, what="session", id=session_id)
        rows = await store.list_events(self._database, principal.tenant_id, session_id, after=after, limit=limit + 1)
        if not rows:
            async with self._database.tenant(principal.tenant_id) as connection:
                if await store.find_session(connection, session_id) is None:
                    raise missing("session", session_id)
        data = await shown(self._values, principal.tenant_id, Kind.EVENT, [row["body"] for row in rows[:limit]])
        return Page(data, rows[limit - 1]["seq"] if len(rows) > limit else None)

    async def value(self, principal: Principal, digest: bytes) -> bytes:
        """A value that the tenant's log refers to, as canonical JSON. Raises `NotFound`, or `Damaged` when it was changed."""
        body = (await self._values.load(principal.tenant_id, [digest]))[digest]
        if isinstance(body, bytes):
            return body
        async with self._database.tenant(principal.tenant_id) as connection:
            if not await log_store.find_values(connection, [digest]):
                raise NotFound(f"there is no value sha256:{digest.hex()}")
        raise body

    async def _answer(self, principal: Principal, answer: Answer) -> Answer:
        (body,) = await shown(self._values, principal.tenant_id, Kind.RUN, [answer.body])
        return Answer(answer.status, body, replayed=answer.replayed)


def is_final(run: str) -> bool:
    """Whether a run, as JSON text, has ended or waits for a person's decision."""
    return _state(run) in RESTING_STATES


def _state(run: str) -> str:
    return msgspec.json.decode(run, type=_State).state


class _State(msgspec.Struct):
    state: str
    agent: str = ""


def _in_utc(start_at: datetime) -> datetime:
    """The same moment, as the database takes it: it knows no offset of a day, and no year without four digits."""
    try:
        return start_at.astimezone(UTC)
    except OverflowError as error:
        message = f"{start_at.isoformat()} lies outside of the years 1 to 9999 in UTC"
        raise Invalid(f"start_at: {message}", errors=(FieldError("start_at", "range", message),)) from error


def _not_resumed(outcome: str, run_id: UUID) -> HansaError:
    match outcome:
        case "no_run":
            return missing("run", run_id)
        case "agent_suspended":
            return Conflict(
                f"the agent of run {run_id} is suspended", hint="Set its spec.suspend to false; its runs then go on by themselves."
            )
        case "tenant_suspended":
            return Conflict(f"the tenant of run {run_id} is suspended", hint="Once its spec.suspend is false its runs go on by themselves.")
        case "as_missing":
            return Invalid(
                f"run {run_id} has made a call of which nobody knows whether it was done: say what to do",
                hint="as: done (it was, with its answer), retry (make it again) or fail.",
            )
        case "as_unasked":
            return Invalid(f"run {run_id} is suspended, nothing is to be decided", hint="Leave `as` out.")
        case _:
            return Conflict(f"run {run_id} is {outcome}: only a suspended run or one that needs review can be resumed")


def _unserved(outcome: str, new: store.NewRun, told: Mapping[str, Any]) -> HansaError:
    """Why nothing is begun on a revision: it is not there, or does not serve."""
    if outcome == "no_revision":
        return NotFound(f"agent {new.agent!r} has no revision {new.revision}", hint="GET /v1/agents/{name}/revisions lists them.")
    if outcome == "smoke_session":
        return Conflict(
            "this session only checks a revision of its agent: nobody speaks in it, and its run is not forked",
            hint="Leave session_id out for a new session.",
        )
    state = {"checking": "it is being checked", "refused": f"it was refused: {told.get('message')}"}.get(
        told["state"], "it was not checked"
    )
    name = told["agent"]
    return Conflict(f"revision {told['revision']} of agent {name!r} does not serve: {state}", hint=f"See `hansa rollout status {name}`.")


def refusal(outcome: str, new: store.NewRun, detail: str | None) -> HansaError:
    told = msgspec.json.decode(detail) if detail else None
    agent = f"agent {new.agent!r}" if new.agent is not None else f"agent of session {new.session_id}"
    match outcome:
        case "no_agent" | "elsewhere" if new.agent is not None:
            return missing_agent(new.agent)
        case "no_agent" | "elsewhere":
            return NotFound(f"there is no {agent}", hint="`hansa get agents` lists them; `hansa apply -f` makes one.")
        case "no_session" if new.session_id is not None:
            return missing("session", new.session_id)
        case "other_agent":
            return Conflict(
                f"session {new.session_id} belongs to agent {told!r}, not to {new.agent!r}", hint="Leave session_id out for a new session."
            )
        case "no_revision" | "not_served" | "smoke_session":
            return _unserved(outcome, new, told or {})
        case "session_busy":
            return Conflict(
                f"session {new.session_id} has run {told} under way, and agent {new.agent!r} takes one at a time",
                hint="Wait for it, cancel it, or set spec.concurrency of the agent.",
            )
        case "agent_suspended":
            return Conflict(f"{agent} is suspended and takes no new runs", hint="Set spec.suspend to false and apply it.")
        case "tenant_suspended":
            return Conflict("the tenant is suspended and starts no new runs", hint="Set spec.suspend of the Tenant to false.")
        case "budget_spent" if told is not None and told["limit"] == "storageBytes":
            return full(told)
        case "budget_spent":
            text, resets_at = refusal_of(told)
            hint = "Raise quotas of the Tenant, or wait; `hansa budget` shows what is left."
            return LimitExceeded(text, hint=hint, retry_after=max(1.0, (resets_at - clock.now()).total_seconds()))
        case "region_cordoned":
            return Unavailable(
                "this region is cordoned and takes no new runs", hint="Use another region, or set spec.cordoned to false.", retry_after=30.0
            )
        case "key_in_flight":
            return in_flight()
        case "key_reused":
            return reused(str(told))
        case _:
            return HansaError(f"the run was not accepted: {outcome}")
