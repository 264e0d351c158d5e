"""Drives one claimed run until it ends, waits or is taken away: calls the runtime, writes how it went on.

Warning: it never lets an exception of a plugin out; what goes wrong becomes the run's error.
"""

import asyncio
from enum import StrEnum
from typing import Any

import msgspec
import structlog

from hansa.auth.bindings import authority_of
from hansa.bus.subjects import session_live
from hansa.egress.narrowing import narrowed
from hansa.errors import Damaged, HansaError, Unavailable
from hansa.llm.service import CredentialAway
from hansa.runs import smoke, store
from hansa.runs.budget import store as budget_store
from hansa.runs.budget.metering import Held
from hansa.runs.calls import NeedsReview
from hansa.runs.context import DurableContext
from hansa.runs.equipment import Equipment, Place, make_context, model_of, surroundings_of
from hansa.runs.journal import DatabaseJournal, Journal
from hansa.runs.log.joining import DamagedPast, join_loaded, join_results
from hansa.runs.model import Claim, End, Entry, EventType, Loaded, Past, Wait, plain
from hansa.runs.voice import BusVoice
from hansa.runs.waiting import Waiting
from hansa.runs.worlds import Prepared
from hansa.tenants.allowance import WHOSE
from hansa.tools.servers import Connections
from hansa_crds import Agent
from hansa_sdk import PluginError, ProviderUnavailable, RunFailed

log = structlog.stdlib.get_logger("hansa.runs")
MAX_TAKEOVERS = 5
LONGEST_BACKOFF = 86_400.0
AWAY_SECONDS, LONGEST_AWAY = 2.0, 60.0
"""Between looks whether what keeps secrets is back: a run must not lie still for long once it is."""
LOOK_AGAIN_SECONDS = 0.2
STOP_SECONDS = 3.0
"""How long a runtime is given to stop that was told to, or whose time is over; then its run is left to its lease."""
FINAL_EVENT = {
    "completed": EventType.RUN_COMPLETED,
    "failed": EventType.RUN_FAILED,
    "canceled": EventType.RUN_CANCELED,
    "needs_review": EventType.RUN_NEEDS_REVIEW,
}


class Wish(StrEnum):
    """What someone wants of a run, or why its worker has to let go of it."""

    CANCEL = "cancel"
    SUSPEND = "suspend"
    SUSPEND_AGENT = "suspend_agent"
    SUSPEND_TENANT = "suspend_tenant"
    PARK = "park"
    LEAVE = "leave"


class Driven:
    """One run that this process drives."""

    def __init__(self, equipment: Equipment, claim: Claim, loaded: Loaded) -> None:
        self.claim = claim
        self._equipment = equipment
        self._loaded = loaded
        self._waiting = Waiting(self._idle)
        self._voice = BusVoice(equipment.bus, session_live(equipment.region, claim.tenant_id, claim.session_id), claim.id)
        self._journal = DatabaseJournal(
            equipment.writer, claim, written=self._voice.wrote, fenced=lambda: self.want(Wish.LEAVE), metered=loaded.metered
        )
        self._wish: Wish | None = Wish(loaded.wish) if loaded.wish else None
        self._stop_by: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._parking: asyncio.Task[None] | None = None

    @property
    def wish(self) -> Wish | None:
        return self._wish

    @property
    def is_stuck(self) -> bool:
        """Whether its runtime should have stopped and has not: whoever takes the run over does what is wanted of it."""
        return self._stop_by is not None and asyncio.get_running_loop().time() > self._stop_by

    def want(self, wish: Wish) -> None:
        """Stop the run for a reason; the first one counts, but that it be canceled counts more."""
        if self._wish is None or (wish is Wish.CANCEL and self._wish is not Wish.LEAVE):
            self._wish = wish
            if self._stop_by is not None:
                self._stop_by = min(self._stop_by, asyncio.get_running_loop().time() + STOP_SECONDS)
            if self._task is not None:
                self._task.cancel()

    async def drive(self) -> None:
        """Drive the run. Returns also when it was left; raises CancelledError only when the worker stops, and `Unavailable` when what
        the run needs can't be had for now."""
        self._loaded = await join_loaded(self._equipment.values, self.claim.tenant_id, self._loaded)
        self._task = asyncio.current_task()
        resumed = EventType.RUN_STARTED if self.claim.epoch == 1 else EventType.RUN_RESUMED
        self._journal.put(Entry(resumed, {"epoch": self.claim.epoch, "worker": self._equipment.worker}))
        try:
            if self._loaded.takeovers >= MAX_TAKEOVERS:
                await self._give_up()
            elif self._loaded.damage:
                error = {"code": Damaged.code, "detail": self._loaded.damage, "hint": "Restore what is missing, then fork the run."}
                await _end(self._journal, End("failed", error=error), None)
            elif self._wish is not None:
                await self._stopped()
            else:
                await self._run()
        finally:
            if self._parking is not None:
                self._parking.cancel()
            await self._journal.close()

    async def _give_up(self) -> None:
        lost = f"{self._loaded.takeovers} workers were lost in a row at the same step"
        error = {"code": "worker_lost", "detail": lost, "hint": "Look into the workers' logs: memory?"}
        await _end(self._journal, End("failed", error=error), None)

    async def _stopped(self) -> None:
        """What follows when the run was stopped for a wish."""
        self._task = None  # what follows is not stopped for another: the database knows of both
        match self._wish:
            case Wish.CANCEL:
                await _end(self._journal, End("canceled"), None)
            case Wish.SUSPEND | Wish.SUSPEND_AGENT | Wish.SUSPEND_TENANT:
                await self._journal.close()
                await store.hold(self._equipment.database, self.claim)
            case _:
                pass  # it waits, or someone else has it

    async def _run(self) -> None:
        context: DurableContext | None = None
        prepared: Prepared | None = None
        try:
            run = self._loaded.run
            prepared = await self._equipment.worlds.get(self.claim.tenant_id, run.agent, run.revision, version=self._loaded.world)
            async with self._equipment.tool_servers.connections(self.claim.tenant_id) as connections:
                context = self._context(prepared, connections)
                with narrowed(WHOSE, prepared.egress):
                    output = plain(await self._in_time(prepared, context))
                smoke.judge(prepared.spec, self._loaded.started_by, output)
                end = End("completed", output=output)
        except NeedsReview as review:
            await self._journal.write(Entry(EventType.RUN_NEEDS_REVIEW, {"step": review.step, **review.call}), end=End("needs_review"))
            return
        except Held as held:
            await self._journal.close()
            await budget_store.hold_for_budget(self._equipment.database, self.claim, held.told)
            return
        except asyncio.CancelledError:
            if self._wish is None:
                raise
            _forget_cancel()
            await self._stopped()
            return
        except Unavailable:
            raise  # the database is away: the run is left to its lease
        # Whatever a runtime raises ends the run with an error that says so; it is logged, and the worker goes on.
        except Exception as error:
            if prepared is None and not isinstance(error, RunFailed | msgspec.MsgspecError):
                raise  # no runtime has begun: what went wrong is ours, and the run is left to its lease
            if prepared is not None and await self._retries(prepared.spec, error):
                return
            end = End("failed", error=failure(error, context))
            if end.error and end.error["code"] in ("runtime_error", "internal"):
                log.exception("run.broke", run_id=str(self.claim.id), agent=self._loaded.run.agent)
        await _end(self._journal, end, context)

    async def _in_time(self, prepared: Prepared, context: DurableContext) -> Any:
        """What the runtime gives, within what is left of the run's time."""
        left = prepared.definition.limits.timeout - self._loaded.active
        if left <= 0:
            raise TimeoutError
        self._stop_by = asyncio.get_running_loop().time() + left + STOP_SECONDS
        try:
            async with asyncio.timeout(left):
                return await prepared.runtime.run(context)
        finally:
            self._stop_by = None

    def _context(self, prepared: Prepared, connections: Connections) -> DurableContext:
        run, past = self._loaded.run, Past(self._loaded.history, self._loaded.steps)
        place = Place(
            journal=self._journal,
            voice=self._voice,
            waiting=self._waiting,
            connections=connections,
            model=model_of(self._equipment, prepared, self.claim.tenant_id),
            surroundings=surroundings_of(self._equipment, self.claim.tenant_id, run),
            depth=self._loaded.depth,
            sources=self._equipment.sources,
            may=authority_of(prepared.may, self._loaded.started_by),
            writers=smoke.writers(prepared.spec, self._loaded.started_by),
        )
        return make_context(prepared, run, past=past, place=place)

    async def _retries(self, agent: Agent, error: Exception) -> bool:
        """Whether the run goes on later from the step that failed, as its agent's retry policy says; however often, when what keeps its
        tenant's secrets is away."""
        retry, away = agent.spec.retry, isinstance(error, CredentialAway)
        if not isinstance(error, ProviderUnavailable) or (not away and self._loaded.attempt >= retry.attempts):
            return False
        first, longest = (AWAY_SECONDS, LONGEST_AWAY) if away else (retry.backoff_seconds, LONGEST_BACKOFF)
        seconds = min(first * 2 ** min(self._loaded.attempt - 1, 100), longest)
        told = {"attempt": self._loaded.attempt, "seconds": seconds, "error": failure(error, None)}
        wait = Wait(f"retry.{self._loaded.attempt}", "retry", seconds=seconds)
        state = await self._journal.write(Entry(EventType.RUN_RETRYING, told), wait=wait, end=End("waiting"))
        while state == "running":  # something else that it waited for had come: the replay will find it
            state = await self._journal.write(end=End("waiting"))
        return True

    def _idle(self) -> None:
        if self._parking is None or self._parking.done():
            self._parking = asyncio.get_running_loop().create_task(self._park(), name=f"park {self.claim.id}")

    async def _park(self) -> None:
        """Let the run go once all that is left is waiting, unless what it waits for has come meanwhile."""
        while self._waiting.idle:
            state = await self._journal.write(end=End("waiting"))
            if state != "running":  # it waits, or was canceled or held at that moment
                self.want(Wish.PARK)
                return
            await self._look_patiently()

    async def _look_patiently(self) -> None:
        """The database will not say again that something has come: so this look must succeed before the run is let go."""
        while True:
            try:
                return await self.look()
            except Unavailable as error:
                log.warning("run.look_waits", run_id=str(self.claim.id), error=error.detail)
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def look(self) -> None:
        """See what has come of that which is waited for."""
        steps = self._waiting.steps()
        if not steps:
            return
        try:
            found = await store.results(self._equipment.database, self.claim, steps)
            for event in await join_results(self._equipment.values, self.claim.tenant_id, found):
                self._waiting.deliver(event.step, (event.type, event.data))
        except DamagedPast as error:
            log.warning("run.damaged", run_id=str(self.claim.id), error=error.detail)
            self.want(Wish.LEAVE)  # whoever loads it again sees the damage and ends it
        except Unavailable:
            raise
        # A defect of ours, logged: nobody would look again, so the run is left to its lease.
        except Exception:
            log.exception("run.look_failed", run_id=str(self.claim.id))
            self.want(Wish.LEAVE)


async def _end(journal: Journal, end: End, context: DurableContext | None) -> None:
    data: dict[str, Any] = {"output": end.output} if end.state == "completed" else {"error": end.error} if end.error else {}
    if context is not None:
        data["usage"] = {**msgspec.to_builtins(context.usage), "cost": context.cost}
    await journal.write(Entry(FINAL_EVENT[end.state], data), end=end)


def _forget_cancel() -> None:
    """The cancellation was ours and has done its work: what is written now must not be interrupted by it."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def failure(error: Exception, context: DurableContext | None) -> dict[str, str]:
    """What a run's error says of an exception: code, detail, hint."""
    match error:
        case RunFailed():
            return {"code": error.reason, "detail": error.detail, "hint": error.hint}
        case PluginError() | HansaError():
            return {"code": error.code, "detail": error.detail, "hint": error.hint}
        case TimeoutError() if context is not None:
            bound = context.agent.limits.timeout
            return {
                "code": "limit_timeout",
                "detail": f"the run took longer than its {bound:g} s",
                "hint": "Raise spec.limits.timeoutSeconds.",
            }
        case _:
            return {
                "code": "runtime_error",
                "detail": f"the runtime broke: {type(error).__name__}: {error}",
                "hint": "The worker's log has more.",
            }
