"""`hansa run`: what stands on stdout, what on stderr, with which exit status, through whatever happens to the stream."""

import json
import signal
import time
from pathlib import Path

import pytest

from cli.command import hansa, on_terminal, start
from cli.scripted_server import Reply, ScriptedServer, as_json, delta, event, events, problem, reset, run

START = "POST /v1/agents/echo/runs"
STREAM = "GET /v1/sessions/session-1/events/stream"
RUN = "GET /v1/runs/run-1"
QUEUED = event(1, "run.queued", {"input": "hi"})
ANSWER = event(3, "model.completed", {"text": "Hello world", "tool_calls": []}, step="1")
DONE = event(4, "run.completed", {"output": "Hello world"})


@pytest.fixture
def echo(server: ScriptedServer) -> ScriptedServer:
    """Answers `Hello world` in two pieces."""
    server.on(START, as_json(run("queued"), 202))
    server.on(STREAM, events(QUEUED, delta("Hello "), delta("world"), ANSWER, DONE))
    return server.on(RUN, as_json(run(output="Hello world")))


def test_the_output_alone_stands_on_stdout(echo: ScriptedServer, tmp_path: Path) -> None:
    ended = hansa("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url)
    assert (ended.status, ended.out, ended.err) == (0, "Hello world\n", "")
    request = echo.seen(START)[0]
    assert request.body == {"input": "hi"}
    assert request.headers["authorization"] == "Bearer key-of-the-test"
    assert len(request.headers["idempotency-key"]) >= 32


def test_an_output_that_is_no_text_is_printed_as_json(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on(RUN, as_json(run(output={"sentiment": "positive"})))
    ended = hansa("run", "echo", "--input-json", '{"a": [1]}', cwd=tmp_path, HANSA_URL=echo.url)
    assert json.loads(ended.out) == {"sentiment": "positive"}
    assert echo.seen(START)[0].body == {"input": {"a": [1]}}


def test_a_terminal_sees_the_answer_once_and_tools_beside_it(echo: ScriptedServer, tmp_path: Path) -> None:
    called = event(2, "tool.called", {"name": "clock", "arguments": {"zone": "UTC"}})
    echo.on(STREAM, events(QUEUED, called, delta("Hello "), delta("world"), ANSWER, DONE))
    status, seen = on_terminal("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url, NO_COLOR="1")
    assert status == 0
    assert seen.count("Hello world") == 1
    assert 'clock({"zone":"UTC"})' in seen


def test_a_stream_cut_in_the_middle_of_an_answer_doubles_no_text(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on(STREAM, events(QUEUED, delta("Hello wo"), cut=True), events(delta("ld"), ANSWER, DONE))
    status, seen = on_terminal("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url, NO_COLOR="1")
    assert status == 0
    assert seen == "Hello wo\nconnection lost, trying again\nrld\n"
    assert echo.seen(STREAM)[1].headers["last-event-id"] == "1"


def test_a_model_that_is_asked_again_is_said_to_begin_anew(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on(STREAM, events(QUEUED, delta("Nons"), reset(), delta("Hello world"), ANSWER, DONE))
    _, seen = on_terminal("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url, NO_COLOR="1")
    assert seen == "Nons\n(the model began its answer anew)\nHello world\n"


def test_an_answer_without_deltas_is_shown_at_its_end(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on(STREAM, events(QUEUED, ANSWER, DONE))
    _, seen = on_terminal("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url)
    assert seen == "Hello world\n"


def test_nothing_that_a_model_says_can_command_the_terminal(echo: ScriptedServer, tmp_path: Path) -> None:
    text = "\x1b]0;owned\x07\x1b[2Jred\x9b31m"
    echo.on(STREAM, events(QUEUED, delta(text), event(3, "model.completed", {"text": text}, step="1"), DONE))
    echo.on(RUN, as_json(run(output=text)))
    _, seen = on_terminal("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url, NO_COLOR="1")
    assert seen == "]0;owned[2Jred31m\n"


def test_events_of_other_runs_in_the_session_are_not_shown(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on("GET /v1/sessions/session-1", as_json({"id": "session-1", "agent": "echo", "last_seq": 7}))
    other = delta("other", run="run-0")
    echo.on(
        STREAM,
        events(other, delta("Hello world"), event(9, "model.completed", {"text": "Hello world"}, step="1"), event(10, "run.completed")),
    )
    _, seen = on_terminal("run", "echo", "hi", "--session", "session-1", cwd=tmp_path, HANSA_URL=echo.url)
    assert seen == "Hello world\n"
    assert echo.seen(START)[0].body == {"input": "hi", "session_id": "session-1"}
    assert echo.seen(STREAM)[0].query["after"] == "7"


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_json_and_yaml_stand_alone_on_stdout(echo: ScriptedServer, tmp_path: Path, output: str) -> None:
    echo.on(STREAM, events(QUEUED, cut=True), events(ANSWER, DONE))
    ended = hansa("run", "echo", "hi", "-o", output, cwd=tmp_path, HANSA_URL=echo.url)
    if output == "json":
        assert json.loads(ended.out) == run(output="Hello world")
    assert ended.out.count("output: Hello world") == (output == "yaml")
    assert "connection lost" in ended.err


def test_a_failed_run_says_why_and_what_to_do_and_ends_with_1(echo: ScriptedServer, tmp_path: Path) -> None:
    error = {"code": "provider_unavailable", "detail": "no model answered", "hint": "set ANTHROPIC_API_KEY"}
    echo.on(STREAM, events(QUEUED, event(2, "run.failed", {"error": error})))
    echo.on(RUN, as_json(run("failed", error=error)))
    ended = hansa("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url)
    assert (ended.status, ended.out) == (1, "")
    for said in ("run-1 failed", "no model answered", "set ANTHROPIC_API_KEY"):
        assert said in ended.err


def test_no_wait_starts_the_run_and_says_how_to_follow_it(echo: ScriptedServer, tmp_path: Path) -> None:
    for flag in ("--no-wait", "--detached"):
        ended = hansa("run", "echo", "hi", flag, cwd=tmp_path, HANSA_URL=echo.url)
        assert (ended.status, ended.out) == (0, "run-1\n")
        assert "hansa logs run-1 --follow" in ended.err
    assert echo.seen(STREAM) == []


def test_ctrl_c_leaves_the_run_going_and_says_how_to_go_on(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on(STREAM, events(QUEUED, delta("Hel"), hold=True))
    child = start("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url)
    deadline = time.monotonic() + 20
    while not echo.seen(STREAM) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "left running: run-1" in err
    assert "hansa runs cancel run-1" in err
    assert "Traceback" not in err + out
    assert [request for request in echo.requests if "cancel" in request.path] == []


def test_an_unknown_agent_ends_with_the_status_of_not_found(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on(START, problem(404, "not_found", "there is no agent ecko", hint="did you mean echo?"))
    ended = hansa("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url)
    assert ended.status == 66
    assert ended.err == "error: there is no agent ecko\nhint: did you mean echo?\n"


def test_a_start_whose_answer_is_lost_is_repeated_with_the_same_key(echo: ScriptedServer, tmp_path: Path) -> None:
    echo.on(START, Reply(202, '{"id"', cut=True), as_json(run("queued"), 202))
    assert hansa("run", "echo", "hi", cwd=tmp_path, HANSA_URL=echo.url).status == 0
    keys = {request.headers["idempotency-key"] for request in echo.seen(START)}
    assert len(echo.seen(START)) == 2
    assert len(keys) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "echo"),
        ("run", "echo", "hi", "--input-json", "1"),
        ("run", "echo", "--input-json", "{"),
        ("run", "echo", "--each-line", "x", "--no-wait"),
        ("run",),
    ],
)
def test_a_run_without_exactly_one_input_is_wrong_usage(echo: ScriptedServer, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = hansa(*arguments, cwd=tmp_path, HANSA_URL=echo.url)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err
    assert echo.requests == []
