"""Replays a finished run from its log: the runtime is run again and every step must ask what it asked then.

Nothing outside is touched: no model, no tool, no write. What the log holds of a canceled or failed run may end within a step.
"""

from uuid import UUID

import msgspec

from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Conflict, NotFound
from hansa.plugins.model import Plugins
from hansa.runs import smoke, store
from hansa.runs.admitting.service import admit
from hansa.runs.context import DurableContext
from hansa.runs.equipment import Equipment, NoModel, Place, make_context, surroundings_of
from hansa.runs.executor import failure
from hansa.runs.journal import ReplayEnded, ReplayJournal
from hansa.runs.log.joining import DamagedPast, join_past
from hansa.runs.log.keeping import Values
from hansa.runs.model import RESTING_STATES, End, Past, RunView, World, plain
from hansa.runs.steps import Diverged, digest
from hansa.runs.voice import Silence
from hansa.runs.waiting import Waiting
from hansa.runs.worlds import find_world, prepare
from hansa.tools.servers import Connections
from hansa.tools.service import Surroundings


class Divergence(msgspec.Struct, frozen=True):
    """The first step that differs."""

    step: str
    expected: str
    got: str


class Replay(msgspec.Struct, frozen=True):
    """What a replay showed. `steps` is the number of recorded steps; digests are of the run's end."""

    equal: bool
    steps: int
    recorded_digest: str
    digest: str
    diverged_at: Divergence | None = None


class History(msgspec.Struct, frozen=True):
    """A run that has ended, with all that its replay needs. Kept in files too: later versions must read what earlier ones wrote."""

    run: RunView
    world: World
    past: Past


async def find_history(database: Database, tenant_id: UUID, run_id: UUID) -> History:
    """The history of a run, as it stands in the log. Raises `NotFound`, or `Conflict` while the run goes on."""
    async with database.tenant(tenant_id) as connection:
        found = await store.find_past(connection, run_id)
        if found is None:
            raise NotFound(f"there is no run {run_id}")
        run, past = found
        if run.state not in RESTING_STATES:
            raise Conflict(f"run {run_id} is {run.state}: only a run that has ended can be replayed", hint="Wait for it or cancel it.")
        return History(run, await find_world(connection, run.agent, run.revision), past)


async def join_history(values: Values, tenant_id: UUID, history: History) -> History:
    """The history with the values that the log refers to in their places. Raises `DamagedPast`."""
    run, past = await join_past(values, tenant_id, history.run, history.past)
    return History(run, history.world, past)


async def replay(equipment: Equipment, principal: Principal, run_id: UUID) -> Replay:
    """Replay a run of this region. Raises as `find_history`."""
    await admit(equipment.database, principal, "runs:read", what="run", id=run_id)
    history = await find_history(equipment.database, principal.tenant_id, run_id)
    try:
        history = await join_history(equipment.values, principal.tenant_id, history)
    except DamagedPast as error:
        return Replay(False, _steps(history), "", "", Divergence(error.step, "what was recorded", error.detail))
    surroundings = surroundings_of(equipment, principal.tenant_id, history.run)
    return await replay_history(history, equipment.plugins, surroundings, Connections(equipment.tool_servers, principal.tenant_id))


async def replay_history(history: History, plugins: Plugins, surroundings: Surroundings, connections: Connections) -> Replay:
    """Replay a whole history with the runtimes and tools of this process. Neither `surroundings` nor `connections` are used, only shown."""
    run, past, steps = history.run, history.past, _steps(history)
    then = End(run.state, run.output, run.error)
    recorded = _digest(then)
    context: DurableContext | None = None
    try:
        # What a tenant may use now says nothing of what it did then.
        prepared = prepare(msgspec.structs.replace(history.world, allowed=None), run.revision, plugins)
        place = Place(
            journal=ReplayJournal(),
            voice=Silence(),
            waiting=Waiting(lambda: None),
            connections=connections,
            model=NoModel(["a replay asks no model"]),
            surroundings=surroundings,
        )
        context = make_context(prepared, run, past=past, place=place)
        output = plain(await prepared.runtime.run(context))
        smoke.judge(prepared.spec, run.started_by, output)
        now = End("completed", output=output)
    except Diverged as error:
        return Replay(False, steps, recorded, "", Divergence(error.step, error.expected, error.got))
    except ReplayEnded as ended:
        if run.state != "completed":
            return Replay(True, steps, recorded, recorded)  # the log ends where the run was ended
        return Replay(False, steps, recorded, "", Divergence("end", _told(then), str(ended)))
    # Whatever a runtime raises now is held against what it raised then.
    except Exception as error:
        now = End("failed", error=failure(error, context))
    again = _digest(now)
    if run.state in ("completed", "failed") and _told(then) != _told(now):
        return Replay(False, steps, recorded, again, Divergence("end", _told(then), _told(now)))
    unasked = context.unasked() if context is not None and run.state == "completed" else None
    if unasked is not None:
        return Replay(False, steps, recorded, again, Divergence(*unasked, "not asked for"))
    return Replay(True, steps, recorded, again)


def _steps(history: History) -> int:
    return len({event.step for event in history.past.steps})


def _digest(end: End) -> str:
    return digest(end.output if end.state == "completed" else end.error)


def _told(end: End) -> str:
    """An end as divergences name it. Of an error only the code counts: the text may hold an address or a line number."""
    if end.state == "completed":
        return f"completed with output {_digest(end)}"
    return f"{end.state} with {end.error['code'] if end.error else 'no error'}"
