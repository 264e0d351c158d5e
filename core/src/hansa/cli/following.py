"""A session's events as they happen, across dropped streams and restarts of the server: each event once, in order, none missing.

Must not know what is done with the events.
"""

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from hansa.cli.client import Api, Backoff, Json, segment
from hansa.egress.local import ServerEvent
from hansa.errors import HansaError, Unavailable

FINAL_STATES = frozenset({"completed", "failed", "canceled"})
RESTING_STATES = frozenset({*FINAL_STATES, "needs_review", "suspended"})
"""States that nothing but a person changes."""
_RESTING_EVENTS = {f"run.{state}": state for state in RESTING_STATES}
DROPPED = "stream.dropped"
"""Type of the event that stands for a dropped stream: deltas may be missing from here on."""


class Happening(msgspec.Struct, frozen=True):
    """An event of the log (`seq` is its number), a delta, or `DROPPED` (`seq` 0)."""

    type: str
    seq: int
    data: Json


def follow(api: Api, session: str, *, after: int, until: str = "", patience: float = 120.0) -> Iterator[Happening]:
    """Yield what happens in a session after event `after`, and end when run `until` has ended or is held (empty: never).

    A stream that breaks off is opened again at the last event seen, for `patience` seconds without any sign of life.
    """
    backoff = Backoff(patience)
    last = after
    while True:
        try:
            for happening in _once(api, session, last, until):
                backoff.alive()
                last = max(last, happening.seq)
                yield happening
                if until and happening.data.get("run_id") == until and _rests(api, until, happening.type, patience):
                    return
            if until and api.get(f"/v1/runs/{segment(until)}")["state"] in RESTING_STATES and not _missed(api, session, last, until):
                return
            failure: HansaError = Unavailable("the stream of events ends before the run does")
        except HansaError as error:
            if not error.retryable:
                raise
            failure = error
        backoff.wait(failure)
        yield Happening(DROPPED, 0, {})


def _rests(api: Api, run: str, event: str, patience: float) -> bool:
    """Whether an event is the last one of a run for now: one that was held may have gone on since."""
    state = _RESTING_EVENTS.get(event)
    return state is not None and (state in FINAL_STATES or api.get(f"/v1/runs/{segment(run)}", patience=patience)["state"] == state)


def _once(api: Api, session: str, after: int, until: str) -> Iterator[Happening]:
    query = {"after": str(after), "until": until}
    with api.stream(f"/v1/sessions/{segment(session)}/events/stream", query, last_id=str(after) if after else "") as events:
        for event in events:
            data = _data(event)
            if event.type.startswith("delta"):
                yield Happening(event.type, 0, data)
                continue
            sequence = int(data.get("seq") or 0)
            # What was seen before the stream dropped may be sent again.
            if sequence > after:
                after = sequence
                yield Happening(event.type, sequence, data)


def _missed(api: Api, session: str, last: int, until: str) -> bool:
    """Whether events of run `until` are still to come although it is over, as when the stream broke off just before them."""
    page = api.get(f"/v1/sessions/{segment(session)}/events", {"after": str(last), "limit": "200"})
    return any(event["run_id"] == until for event in page["data"])


def _data(event: ServerEvent) -> Json:
    try:
        data: Any = msgspec.json.decode(event.data)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the stream sent an event that is not JSON: {error}") from error
    return cast(Json, data) if isinstance(data, dict) else {}
