"""/v1/agents/{name}/runs and /v1/runs."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post

from hansa.api import answers, bodies, requests
from hansa.api.services import IN_THE_LOG, STANDING, AnyRequest, services
from hansa.audit.model import Action
from hansa.auth.idempotency import Answer
from hansa.auth.model import Principal, Starter
from hansa.runs.replay import Replay, replay
from hansa.runs.service import STARTING, Start, is_final
from hansa.runs.stream import Reading, follow

MAX_WAIT = 60
Revision = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class StartRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run to be started: `input` is any JSON value; without `session_id` in a session of its own."""

    input: Any
    session_id: UUID | None = None
    revision: Revision | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    start_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class ResumeRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a run goes on: nothing for a suspended one; `as` done (with the call's `answer`), retry or fail for one that needs review."""

    decision: Literal["done", "retry", "fail"] | None = msgspec.field(name="as", default=None)
    answer: Any = msgspec.UNSET


class ForkRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a fork begins: `at` is the number of the last event that it takes over."""

    at: Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class RunWait(msgspec.Struct, frozen=True):
    """What a run waits for. `kind`: start, timer, retry, child, approval, event; `key`: id of the child or approval, the event's name."""

    kind: str
    step: str
    key: str | None
    until: str | None


class Named(msgspec.Struct, frozen=True):
    """What is read of an answer that is passed on as it is."""

    id: UUID
    session_id: UUID


class Run(msgspec.Struct, frozen=True):
    """A run as the API shows it."""

    id: UUID
    session_id: UUID
    agent: str
    revision: int
    state: str
    priority: int
    input: Any
    output: Any
    error: dict[str, str] | None
    usage: dict[str, int]
    epoch: int
    attempt: int
    parent_run: UUID | None
    suspended_by: str | None
    started_by: Starter | None
    waits: list[RunWait]
    created_at: str
    started_at: str | None
    finished_at: str | None


@post(
    "/v1/agents/{name:str}/runs",
    status_code=202,
    opt={"unaudited": IN_THE_LOG, "permission": "runs:start", "within": STANDING, "body": StartRun, "answer": Run, "query": {"wait": int}},
)
async def start_run(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """Start a run of an agent. Durable once answered; `?wait=SECONDS` answers 200 with the ended run if it ends in that time."""
    wait = requests.number(request, "wait", 0, most=MAX_WAIT)
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, StartRun)
    start = Start(name, asked.input, asked.session_id, asked.revision, asked.priority, asked.start_at)
    answer = await services(request).runs.start(principal, start, key=key)
    run = msgspec.json.decode(answer.body, type=Named)
    if wait:
        ended = await _ended(request, principal, run, wait)
        if ended is not None:
            answer = Answer(200, ended, replayed=answer.replayed)
    return answers.kept(answer, {"location": f"/v1/runs/{run.id}"})


async def _ended(request: AnyRequest, principal: Principal, run: Named, wait: int) -> str | None:
    """The run once it has ended, or None when that takes longer than `wait` seconds."""
    equipment = services(request).equipment
    try:
        async with asyncio.timeout(wait):
            stream = follow(equipment, principal, Reading(run.session_id, until=run.id))
            async for _ in stream:
                pass
    except TimeoutError:
        pass
    body = await services(request).runs.get(principal, run.id, permission=STARTING)
    return body if is_final(body) else None


@get(
    "/v1/runs",
    opt={"permission": "runs:read", "within": STANDING, "answer": list[Run], "query": {"agent": str, "state": str, "session_id": UUID}},
)
async def list_runs(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Runs, newest first."""
    asked = requests.query(request)
    filters: dict[str, Any] = {"agent": asked.get("agent"), "state": asked.get("state")}
    if "session_id" in asked:
        filters["session_id"] = requests.uuid(asked["session_id"], "session_id")
    before = requests.cursor(request, principal)
    page = await services(request).runs.page(principal, filters, before=UUID(before) if before else None, limit=requests.limit(request))
    return answers.page(request, principal, page.data, page.last)


@get("/v1/runs/{run_id:str}", opt={"permission": "runs:read", "within": STANDING, "answer": Run})
async def get_run(request: AnyRequest, principal: Principal, run_id: str) -> Response[bytes]:
    """One run."""
    return answers.text(await services(request).runs.get(principal, requests.uuid(run_id, "run")))


@post(
    "/v1/runs/{run_id:str}/cancel",
    status_code=202,
    opt={"audit": Action.RUN_CANCELED, "permission": "runs:cancel", "within": STANDING, "answer": Run},
)
async def cancel_run(request: AnyRequest, principal: Principal, run_id: str) -> Response[bytes]:
    """Cancel a run. A waiting one is canceled at once, a running one as soon as its worker has heard."""
    key = await requests.idempotency_key(request)
    return answers.kept(await services(request).runs.cancel(principal, requests.uuid(run_id, "run"), key=key))


@post(
    "/v1/runs/{run_id:str}/suspend",
    status_code=202,
    opt={"audit": Action.RUN_SUSPENDED, "permission": "runs:cancel", "within": STANDING, "answer": Run},
)
async def suspend_run(request: AnyRequest, principal: Principal, run_id: str) -> Response[bytes]:
    """Hold a run until it is resumed; one that is worked on as soon as its worker has heard."""
    key = await requests.idempotency_key(request)
    return answers.kept(await services(request).runs.suspend(principal, requests.uuid(run_id, "run"), key=key))


@post(
    "/v1/runs/{run_id:str}/resume",
    status_code=202,
    opt={"audit": Action.RUN_RESUMED, "permission": "runs:cancel", "within": STANDING, "body": ResumeRun, "answer": Run},
)
async def resume_run(request: AnyRequest, principal: Principal, run_id: str) -> Response[bytes]:
    """Let a suspended run go on, or decide about a call of which nobody knows whether it was made."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, ResumeRun)
    run = requests.uuid(run_id, "run")
    answer = bodies.answer_of(asked.answer, wanted=asked.decision == "done", decision="as: done")
    return answers.kept(await services(request).runs.resume(principal, run, decision=asked.decision, answer=answer, key=key))


@post(
    "/v1/runs/{run_id:str}/fork",
    status_code=202,
    opt={"audit": Action.RUN_FORKED, "permission": "runs:start", "within": STANDING, "body": ForkRun, "answer": Run},
)
async def fork_run(request: AnyRequest, principal: Principal, run_id: str) -> Response[bytes]:
    """A new run, in a session of its own, that takes over what this one had done up to an event and goes on by itself."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, ForkRun)
    return answers.kept(await services(request).runs.fork(principal, requests.uuid(run_id, "run"), at=asked.at, key=key))


@get("/v1/runs/{run_id:str}/replay", opt={"permission": "runs:read", "within": STANDING, "answer": Replay})
async def replay_run(request: AnyRequest, principal: Principal, run_id: str) -> Response[bytes]:
    """Run the runtime again over the run's log, touching nothing outside; names the first step that differs."""
    return answers.value(await replay(services(request).equipment, principal, requests.uuid(run_id, "run")))


HANDLERS = (start_run, list_runs, get_run, cancel_run, suspend_run, resume_run, fork_run, replay_run)
