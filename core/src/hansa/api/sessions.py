"""/v1/sessions: sessions, their events and the live stream of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.response import Stream

from hansa import clock, ids
from hansa.api import answers, bodies, requests
from hansa.api.admission import still_admitted
from hansa.api.runs import Run
from hansa.api.services import IN_THE_LOG, STANDING, AnyRequest, services
from hansa.api.streams import Place
from hansa.auth.model import Principal
from hansa.errors import Invalid
from hansa.runs.model import RESTING_STATES
from hansa.runs.service import Start
from hansa.runs.stream import Reading, Sent, follow

KEEP_ALIVE_SECONDS = 5
ADMITTED_SECONDS = 2.0
"""Between two looks whether a reader would still be let in, at least."""
LARGEST_SEQ = 2**53
MAX_EVENT_NAME = 200
AgentName = Annotated[str, msgspec.Meta(max_length=253, pattern=r"^[^\x00]*$")]
"""Any text that could name an agent; whether one has the name is seen later."""


class OpenSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session to be opened with an agent."""

    agent: AgentName


class UserMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message to the session's agent: starts a run, after those that the session has already."""

    type: Literal["user.message"]
    content: Any


class NamedEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data of an event that a run may wait for."""

    data: Any = None


class Delivered(msgspec.Struct, frozen=True):
    """What became of an event: given to run `run_id`, or kept until a run of the session waits for one of this name."""

    name: str
    delivered: bool
    run_id: UUID | None


class Session(msgspec.Struct, frozen=True):
    """A session as the API shows it. `namespace`: in which its agent stood when it was opened; null: not known.
    `revision`: what its runs are on; null: it is of an earlier version, and has had no run since. `smoke`: it checks that revision of its
    agent."""

    id: UUID
    agent: str
    namespace: str | None
    revision: int | None
    smoke: bool
    created_at: str
    last_seq: int
    active_run: UUID | None


class Event(msgspec.Struct, frozen=True):
    """An event of a session's log; `seq` counts from 1 without a gap."""

    seq: int
    session_id: UUID
    run_id: UUID
    type: str
    step: str | None
    data: Any
    at: str


@post(
    "/v1/sessions",
    status_code=201,
    opt={"unaudited": IN_THE_LOG, "permission": "runs:start", "within": STANDING, "body": OpenSession, "answer": Session},
)
async def open_session(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Open a session with an agent."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, OpenSession)
    return answers.kept(await services(request).runs.open_session(principal, asked.agent, key=key))


@get("/v1/sessions", opt={"permission": "runs:read", "within": STANDING, "answer": list[Session], "query": {"agent": str}})
async def list_sessions(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Sessions, newest first."""
    asked = requests.query(request)
    before = requests.cursor(request, principal)
    page = await services(request).runs.list_sessions(
        principal, asked.get("agent"), before=UUID(before) if before else None, limit=requests.limit(request)
    )
    return answers.page(request, principal, page.data, page.last)


@get("/v1/sessions/{session_id:str}", opt={"permission": "runs:read", "within": STANDING, "answer": Session})
async def get_session(request: AnyRequest, principal: Principal, session_id: str) -> Response[bytes]:
    """One session."""
    return answers.text(await services(request).runs.get_session(principal, requests.uuid(session_id, "session")))


@get(
    "/v1/sessions/{session_id:str}/events",
    opt={"permission": "runs:read", "within": STANDING, "answer": list[Event], "query": {"after": int}},
)
async def list_events(request: AnyRequest, principal: Principal, session_id: str) -> Response[bytes]:
    """Events of a session after the number `after`, oldest first. `next` is the number to go on from."""
    after, limit = requests.number(request, "after", 0, most=LARGEST_SEQ), requests.limit(request)
    page = await services(request).runs.list_events(principal, requests.uuid(session_id, "session"), after=after, limit=limit)
    more = "true" if page.last is not None else "false"
    return answers.text(f'{{"data":[{",".join(page.data)}],"has_more":{more},"next":{page.last if page.last is not None else "null"}}}')


@post(
    "/v1/sessions/{session_id:str}/events",
    status_code=202,
    opt={"unaudited": IN_THE_LOG, "permission": "runs:start", "within": STANDING, "body": UserMessage, "answer": Run},
)
async def post_event(request: AnyRequest, principal: Principal, session_id: str) -> Response[bytes]:
    """Say something to the session's agent; the answer is the run that it starts."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, UserMessage)
    start = Start(None, asked.content, requests.uuid(session_id, "session"))
    return answers.kept(await services(request).runs.start(principal, start, key=key))


@post(
    "/v1/sessions/{session_id:str}/events/{event:str}",
    status_code=202,
    opt={"unaudited": IN_THE_LOG, "permission": "runs:start", "within": STANDING, "body": NamedEvent, "answer": Delivered},
)
async def send_event(request: AnyRequest, principal: Principal, session_id: str, event: str) -> Response[bytes]:
    """Send an event to the session: the run that waits for one of this name goes on with it, or the next one that will."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, NamedEvent)
    session = requests.uuid(session_id, "session")
    if not 0 < len(event) <= MAX_EVENT_NAME or "\x00" in event:
        raise Invalid(f"an event's name has 1 to {MAX_EVENT_NAME} characters, got {len(event)}")
    return answers.kept(await services(request).runs.send_event(principal, session, event, data=asked.data, key=key))


@get(
    "/v1/sessions/{session_id:str}/events/stream",
    opt={"permission": "runs:read", "within": STANDING, "answer": "text/event-stream", "query": {"after": int, "until": UUID}},
)
async def stream_events(request: AnyRequest, principal: Principal, session_id: str) -> Stream:
    """The log as server-sent events, from `Last-Event-ID` or `?after=`, then live; `?until=RUN` ends with that run."""
    asked = requests.query(request)
    after = requests.number(request, "after", 0, most=LARGEST_SEQ)
    if "last-event-id" in request.headers:
        after = requests.whole(request.headers["last-event-id"], "Last-Event-ID", most=LARGEST_SEQ)
    equipment, session = services(request).equipment, requests.uuid(session_id, "session")
    found = msgspec.json.decode(await services(request).runs.get_session(principal, session), type=Session)
    last, namespace = found.last_seq, found.namespace
    if after > last:
        raise Invalid(f"the session's log ends at {last}: no number after it was ever given, {after} neither")
    reading = Reading(session, after)
    if "until" in asked:
        run = msgspec.json.decode(await services(request).runs.get(principal, requests.uuid(asked["until"], "until")), type=Run)
        if run.session_id != session:
            raise Invalid(f"until: run {run.id} is in session {run.session_id}, not in this one")
        reading = Reading(session, after, until=run.id, over=run.state in RESTING_STATES)
    place = services(request).streams.enter(principal)
    stream = follow(equipment, principal, reading)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    sent = _server_sent(stream, services(request).stopping, place, partial(still_admitted, request, principal, namespace))
    return Stream(sent, media_type="text/event-stream", headers=headers)


async def _server_sent(
    stream: AsyncIterator[Sent | None], stopping: asyncio.Event, _: Place, admitted: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    yield b": hansa\n\n"
    silence, look_at = 0, _soon()
    async for sent in stream:
        if stopping.is_set():
            return
        if clock.monotonic() >= look_at:
            if not await admitted():
                return
            look_at = _soon()
        if sent is None:
            silence += 1
            if silence % KEEP_ALIVE_SECONDS == 0:
                yield b": keep-alive\n\n"
            continue
        silence = 0
        number = f"id: {sent.seq}\n" if sent.seq else ""
        yield f"{number}event: {sent.type}\ndata: {sent.data}\n\n".encode()


def _soon() -> float:
    """When to look whether a reader is still let in: not all readers at the same moment, or they would all ask the database."""
    return clock.monotonic() + ADMITTED_SECONDS * (1 + ids.new_key(1)[0] / 512)


HANDLERS = (open_session, list_sessions, get_session, list_events, post_event, send_event, stream_events)
