"""What can be done with runs and sessions: start, cancel, read. Rules and errors here, SQL in `store`."""

from typing import Any
from uuid import UUID

import msgspec

from hansa import ids
from hansa.auth.idempotency import Answer, IdempotencyKey, in_flight, once, reused
from hansa.auth.model import Principal
from hansa.bus.connection import Bus
from hansa.bus.subjects import runs_cancel, runs_ready
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, HansaError, Invalid, NotFound, Unavailable
from hansa.runs import store
from hansa.runs.model import FINAL_STATES, STATES


class Page(msgspec.Struct, frozen=True):
    """One page of a list: JSON texts, and the id of the last one when there are more."""

    data: list[str]
    last: UUID | int | None


class Runs:
    """Runs and sessions of this region."""

    def __init__(self, database: Database, bus: Bus, region: str) -> None:
        self._database = database
        self._bus = bus
        self._region = region

    async def start(
        self,
        principal: Principal,
        agent: str | None,
        run_input: Any,
        *,
        session_id: UUID | None,
        revision: int | None,
        key: IdempotencyKey | None,
    ) -> Answer:
        """Accept a run; durable when this returns. Raises what the admission says: not found, conflict, unavailable."""
        new = store.NewRun(ids.new_id(), agent, revision, session_id, ids.new_id(), msgspec.json.encode(run_input).decode())
        outcome, answer = await store.start(self._database, principal, self._region, new=new, key=key)
        if outcome in ("accepted", "replayed") and answer is not None:
            await self._bus.ring(runs_ready(self._region))
            return Answer(202, answer, replayed=outcome == "replayed")
        raise _refusal(outcome, new, answer)

    async def cancel(self, principal: Principal, run_id: UUID, *, key: IdempotencyKey | None) -> Answer:
        """Cancel a run: at once when it waits, else its worker is told. A finished run stays as it is."""

        async def operation(connection: Connection) -> tuple[int, str]:
            body = await store.cancel(connection, principal.tenant_id, run_id)
            if body is None:
                raise NotFound(f"there is no run {run_id}")
            return 202, body

        answer = await once(self._database, principal, key, operation)
        await self._bus.ring(runs_cancel(self._region), str(run_id).encode())
        return answer

    async def get(self, principal: Principal, run_id: UUID) -> str:
        """A run as JSON text."""
        async with self._database.tenant(principal.tenant_id) as connection:
            body = await store.find_run(connection, run_id)
        if body is None:
            raise NotFound(f"there is no run {run_id}")
        return body

    async def page(self, principal: Principal, filters: dict[str, Any], *, before: UUID | None, limit: int) -> Page:
        """Runs, newest first."""
        if filters.get("state") not in (None, *STATES):
            raise Invalid(f"state {filters['state']!r} is not one of {', '.join(STATES)}")
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.list_runs(connection, filters, before, limit + 1)
        return Page([row["body"] for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None)

    async def open_session(self, principal: Principal, agent: str, *, key: IdempotencyKey | None) -> Answer:
        """Make an empty session."""

        async def operation(connection: Connection) -> tuple[int, str]:
            body = await store.insert_session(connection, ids.new_id(), agent)
            if body is None:
                raise NotFound(f"there is no agent {agent!r}", hint="`hansa get agents` lists them.")
            return 201, body

        return await once(self._database, principal, key, operation)

    async def get_session(self, principal: Principal, session_id: UUID) -> str:
        """A session as JSON text."""
        async with self._database.tenant(principal.tenant_id) as connection:
            body = await store.find_session(connection, session_id)
        if body is None:
            raise NotFound(f"there is no session {session_id}")
        return body

    async def list_sessions(self, principal: Principal, agent: str | None, *, before: UUID | None, limit: int) -> Page:
        """Sessions, newest first."""
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await store.list_sessions(connection, agent, before, limit + 1)
        return Page([row["body"] for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None)

    async def list_events(self, principal: Principal, session_id: UUID, *, after: int, limit: int) -> Page:
        """Events of a session, oldest first."""
        async with self._database.tenant(principal.tenant_id) as connection:
            if await store.find_session(connection, session_id) is None:
                raise NotFound(f"there is no session {session_id}")
            rows = await store.list_events(connection, session_id, after, limit + 1)
        return Page([row["body"] for row in rows[:limit]], rows[limit - 1]["seq"] if len(rows) > limit else None)


def is_final(run: str) -> bool:
    """Whether a run, as JSON text, has ended."""
    return msgspec.json.decode(run, type=_State).state in FINAL_STATES


class _State(msgspec.Struct):
    state: str


def _refusal(outcome: str, new: store.NewRun, detail: str | None) -> HansaError:
    told = msgspec.json.decode(detail) if detail else None
    agent = f"agent {new.agent!r}" if new.agent is not None else f"agent of session {new.session_id}"
    match outcome:
        case "no_agent":
            return NotFound(f"there is no {agent}", hint="`hansa get agents` lists them; `hansa apply -f` makes one.")
        case "no_revision":
            return NotFound(f"agent {new.agent!r} has no revision {new.revision}", hint="GET /v1/agents/{name}/revisions lists them.")
        case "no_session":
            return NotFound(f"there is no session {new.session_id}")
        case "other_agent":
            return Conflict(
                f"session {new.session_id} belongs to agent {told!r}, not to {new.agent!r}", hint="Leave session_id out for a new session."
            )
        case "agent_suspended":
            return Conflict(f"{agent} is suspended and takes no new runs", hint="Set spec.suspend to false and apply it.")
        case "tenant_suspended":
            return Conflict("the tenant is suspended and starts no new runs", hint="Set spec.suspend of the Tenant to false.")
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
