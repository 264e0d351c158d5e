"""A followed session shows each event once, in order and none missing, whatever happens to the connection."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.scripted_server import Reply, ScriptedServer, as_json, delta, event, events, page, problem, run
from hansa.cli.client import Api
from hansa.cli.connection import Target
from hansa.cli.following import DROPPED, follow
from hansa.cli.transcript import NOTHING, Shown, Transcript
from hansa.egress.local import open_local_client
from hansa.errors import NotFound, Unavailable

STREAM = "GET /v1/sessions/session-1/events/stream"
RUN = "GET /v1/runs/run-1"
EVENTS = "GET /v1/sessions/session-1/events"
FIRST = event(1, "run.queued")
SECOND = event(2, "run.started")
LAST = event(3, "run.completed", {"output": "done"})


def seen(api: Api, *, patience: float = 5.0) -> list[tuple[str, int]]:
    return [(each.type, each.seq) for each in follow(api, "session-1", after=0, until="run-1", patience=patience)]


def test_a_stream_that_stays_up_is_passed_on(server: ScriptedServer, api: Api) -> None:
    server.on(STREAM, events(": hello\n\n", FIRST, SECOND, delta("hé"), LAST))
    assert seen(api) == [("run.queued", 1), ("run.started", 2), ("delta", 0), ("run.completed", 3)]
    assert server.seen(STREAM)[0].query == {"after": "0", "until": "run-1"}
    assert "last-event-id" not in server.seen(STREAM)[0].headers


def test_a_stream_cut_within_an_event_goes_on_after_the_last_whole_one(server: ScriptedServer, api: Api) -> None:
    server.on(RUN, as_json(run("running")))
    server.on(STREAM, events(FIRST, SECOND[:40], cut=True), events(SECOND, LAST))
    assert seen(api) == [("run.queued", 1), (DROPPED, 0), ("run.started", 2), ("run.completed", 3)]
    assert server.seen(STREAM)[1].headers["last-event-id"] == "1"


def test_events_that_are_sent_again_are_not_shown_again(server: ScriptedServer, api: Api) -> None:
    server.on(RUN, as_json(run("running")))
    server.on(STREAM, events(FIRST, SECOND, cut=True), events(FIRST, SECOND, LAST))
    assert seen(api) == [("run.queued", 1), ("run.started", 2), (DROPPED, 0), ("run.completed", 3)]


def test_a_stream_that_ends_early_without_a_fault_is_opened_again(server: ScriptedServer, api: Api) -> None:
    server.on(RUN, as_json(run("running")))
    server.on(STREAM, events(FIRST), events(SECOND), events(LAST))
    assert [kind for kind, _ in seen(api) if kind != DROPPED] == ["run.queued", "run.started", "run.completed"]


def test_a_server_that_is_away_for_a_while_loses_nothing() -> None:
    with ScriptedServer() as first:
        port = first.port
        first.on(STREAM, events(FIRST, SECOND, cut=True))
        with open_local_client(first.url, {}, 5.0) as client:
            following = follow(Api(client, Target(first.url, "", "", "")), "session-1", after=0, until="run-1", patience=20)
            found = [next(following).seq, next(following).seq]
            first.stop()
            second = ScriptedServer(port).on(STREAM, events(LAST))
            threading.Timer(0.7, second.__enter__).start()
            found += [each.seq for each in following if each.type != DROPPED]
            second.stop()
    assert found == [1, 2, 3]


def test_a_server_that_answers_503_is_asked_again(server: ScriptedServer, api: Api) -> None:
    server.on(STREAM, problem(503, "unavailable", "starting"), events(FIRST, LAST))
    assert [kind for kind, _ in seen(api) if kind != DROPPED] == ["run.queued", "run.completed"]


def test_patience_ends_and_says_so(server: ScriptedServer, api: Api) -> None:
    server.on(STREAM, events(cut=True))
    server.on(RUN, as_json(run("running")))
    began = time.monotonic()
    with pytest.raises(Unavailable, match="broke off"):
        seen(api, patience=0.6)
    assert time.monotonic() - began < 5
    assert len(server.seen(STREAM)) >= 3


def test_a_refusal_is_final(server: ScriptedServer, api: Api) -> None:
    server.on(STREAM, problem(404, "not_found", "there is no session session-1"))
    with pytest.raises(NotFound, match="there is no session session-1"):
        seen(api)
    assert len(server.seen(STREAM)) == 1


def test_a_run_that_was_over_before_is_not_waited_for(server: ScriptedServer, api: Api) -> None:
    server.on(STREAM, events())
    server.on(RUN, as_json(run("completed")))
    server.on(EVENTS, page())
    assert seen(api) == []


def test_the_end_of_a_run_that_the_stream_lost_is_fetched(server: ScriptedServer, api: Api) -> None:
    server.on(STREAM, events(FIRST, SECOND), events(LAST))
    server.on(RUN, as_json(run("completed")))
    server.on(EVENTS, page({"seq": 3, "run_id": "run-1", "type": "run.completed"}))
    assert seen(api)[-1] == ("run.completed", 3)


def test_something_that_is_not_a_stream_is_no_reason_to_wait_for_ever(server: ScriptedServer, api: Api) -> None:
    server.on(STREAM, Reply(200, "<html>", (), "text/html"))
    with pytest.raises(Unavailable):
        seen(api, patience=0.3)


class Screen:
    """What stands on a screen: a restart voids what was shown of the answer that is being written."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.current = ""
        self.answers: list[str] = []

    def take(self, shown: tuple[str, bool]) -> None:
        self.current = ("" if shown[1] else self.current) + shown[0]

    def delta(self, step: str, text: str, offset: int | None = None) -> None:
        found = self.transcript.delta(step, text, offset)
        self.take((found.text, found.restart))

    def recorded(self, step: str, text: str) -> None:
        found = self.transcript.recorded(step, text)
        self.take((found.text, found.restart))
        self.answers.append(self.current)
        self.current = ""


PIECES = st.lists(st.text("ab c\n", min_size=1, max_size=4), min_size=1, max_size=8)


@given(st.lists(PIECES, min_size=1, max_size=4), st.data())
def test_each_answer_stands_there_once_and_whole_or_not_at_all(answers: list[list[str]], draw: st.DataObject) -> None:
    with_offsets = draw.draw(st.booleans())
    screen = Screen()
    for index, pieces in enumerate(answers):
        step, position = str(index), 0
        if draw.draw(st.booleans()):
            # A first attempt that came to nothing.
            screen.delta(step, "nonsense", 0 if with_offsets else None)
            found = screen.transcript.reset(step)
            screen.take((found.text, found.restart))
        for piece in pieces:
            fate = draw.draw(st.sampled_from(["comes", "comes", "comes", "is lost", "drops the stream", "comes too late"]))
            if fate == "drops the stream":
                screen.transcript.dropped()
            elif fate == "comes too late" and index:
                screen.delta(str(index - 1), piece)
            elif fate == "comes":
                screen.delta(step, piece, position if with_offsets else None)
            position += len(piece)
        screen.recorded(step, "".join(pieces))
    for shown, pieces in zip(screen.answers, answers, strict=True):
        assert shown in ("", "".join(pieces))


def test_deltas_are_shown_as_they_come_and_the_record_adds_nothing() -> None:
    transcript = Transcript()
    assert [transcript.delta("1", text).text for text in ("Hel", "lo")] == ["Hel", "lo"]
    assert transcript.recorded("1", "Hello").text == ""
    assert transcript.whole == "Hello"


def test_after_a_drop_the_rest_comes_from_the_record() -> None:
    transcript = Transcript()
    transcript.delta("1", "Hel")
    transcript.dropped()
    assert transcript.delta("1", "rld").text == ""
    assert transcript.recorded("1", "Hello world").text == "lo world"


def test_an_overlap_after_a_reconnect_is_cut_off_by_the_offset() -> None:
    transcript = Transcript()
    transcript.delta("1", "Hello", 0)
    assert transcript.delta("1", "lo world", 3).text == " world"


def test_a_gap_that_the_offset_tells_of_holds_back_the_rest() -> None:
    transcript = Transcript()
    transcript.delta("1", "Hello", 0)
    assert transcript.delta("1", "ld", 9).text == ""
    assert transcript.recorded("1", "Hello world") == Shown(" world")


def test_a_delta_that_its_recorded_answer_overtook_is_not_shown() -> None:
    transcript = Transcript()
    transcript.delta("1", "Hel")
    transcript.recorded("1", "Hello")
    assert transcript.delta("1", "lo") == NOTHING
    assert transcript.reset("1") == NOTHING
    assert transcript.delta("2", "Next") == Shown("Next")
