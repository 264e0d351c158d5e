"""`hansa run --each-line`: each line is run once, so many at once, and every failed one is named."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cli.command import Ended, hansa, start
from cli.scripted_server import Reply, Request, ScriptedServer, as_json, problem, run
from hansa.cli.batch import Terms, make_jobs, run_all
from hansa.cli.client import Api
from hansa.cli.usage import UsageError

START = "POST /v1/agents/triage/runs"


def answer(request: Request) -> Reply:
    text = str(request.body["input"])
    if text == "bad":
        return as_json(run("failed", id=f"run-{text}", error={"code": "x", "detail": "the model broke", "hint": ""}))
    if text == "refused":
        return problem(422, "invalid", "input is not allowed")
    return as_json(run(id=f"run-{text}", output={"sentiment": "positive", "length": len(text)}))


def each_line(server: ScriptedServer, folder: Path, content: str, *more: str) -> Ended:
    (folder / "lines.txt").write_text(content)
    return hansa("run", "triage", "--each-line", "lines.txt", *more, cwd=folder, HANSA_URL=server.url)


def test_every_line_that_is_not_empty_is_run_and_shown_with_the_fields_of_its_output(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, answer)
    ended = each_line(server, tmp_path, "one\n\n  \r\nthree\n")
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert lines[0].split() == ["#", "INPUT", "SENTIMENT", "LENGTH", "STATE", "SECONDS"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["1", "one", "positive", "3", "completed"],
        ["4", "three", "positive", "5", "completed"],
    ]
    assert "2 of 2 completed" in ended.err
    assert sorted(request.body["input"] for request in server.seen(START)) == ["one", "three"]


def test_failed_lines_are_named_and_the_others_are_done(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, answer)
    ended = each_line(server, tmp_path, "good\nbad\nrefused\n")
    assert ended.status == 1
    assert "1 of 3 completed" in ended.err
    assert "line 2: failed: the model broke" in ended.err
    assert "line 3: refused: input is not allowed" in ended.err


def test_json_stands_alone_on_stdout(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, answer)
    ended = each_line(server, tmp_path, "one\nbad\n", "-o", "json")
    rows = json.loads(ended.out)
    assert [(row["line"], row["input"], row["state"], row["error"]) for row in rows] == [
        (1, "one", "completed", None),
        (2, "bad", "failed", "the model broke"),
    ]
    assert rows[0]["output"] == {"sentiment": "positive", "length": 3}


def test_only_the_columns_that_are_asked_for_are_shown(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, answer)
    ended = each_line(server, tmp_path, "one\n", "--column", "sentiment")
    assert ended.out.splitlines()[0].split() == ["#", "INPUT", "SENTIMENT", "STATE", "SECONDS"]


def test_lines_come_from_stdin_too(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, answer)
    ended = hansa("run", "triage", "--each-line", "-", "-o", "json", cwd=tmp_path, stdin="a\nb\n", HANSA_URL=server.url)
    assert [row["input"] for row in json.loads(ended.out)] == ["a", "b"]


def test_each_line_has_a_key_of_its_own_and_keeps_it_when_it_is_repeated(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, Reply(200, "{", cut=True), problem(503, "unavailable", "restarting"), answer)
    assert each_line(server, tmp_path, "same\nsame\nsame\n", "--concurrency", "1").status == 0
    keys = [request.headers["idempotency-key"] for request in server.seen(START)]
    assert len(keys) == 5
    assert len(set(keys)) == 3


def test_the_same_file_again_is_new_runs(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, answer)
    each_line(server, tmp_path, "one\n")
    each_line(server, tmp_path, "one\n")
    assert len({request.headers["idempotency-key"] for request in server.seen(START)}) == 2


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "no line"), (b"\n \n", "no line"), (b"a\nb\xff\n", ":2 is not UTF-8: byte 0xff at offset 3")]
)
def test_a_file_without_lines_to_run_is_refused(server: ScriptedServer, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "lines.txt").write_bytes(content)
    ended = hansa("run", "triage", "--each-line", "lines.txt", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 65
    assert said in ended.err
    assert server.requests == []


def inputs(*values: Any) -> list[tuple[int, Any]]:
    return list(enumerate(values, start=1))


def test_never_more_run_at_once_than_are_allowed(server: ScriptedServer, api: Api) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def slow(request: Request) -> Reply:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return answer(request)

    server.on(START, slow)
    outcomes = list(run_all(api, "triage", list(make_jobs(inputs(*range(12)), "x")), terms=Terms(3)))
    assert {outcome.state for outcome in outcomes} == {"completed"}
    assert sorted(outcome.job.number for outcome in outcomes) == list(range(1, 13))
    assert most == 3


def test_a_run_that_is_not_over_yet_is_asked_for_until_it_is(server: ScriptedServer, api: Api) -> None:
    server.on(START, as_json(run("queued"), 202))
    server.on("GET /v1/runs/run-1", as_json(run("running")), problem(503, "unavailable", "x"), as_json(run(output="done")))
    (outcome,) = run_all(api, "triage", list(make_jobs(inputs("x"), "x")), terms=Terms(2))
    assert outcome.run is not None
    assert (outcome.state, outcome.run["output"]) == ("completed", "done")


def test_ctrl_c_says_what_goes_on_and_how_to_end_it(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(START, answer, Reply(hold=True))
    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    child = start("run", "triage", "--each-line", "lines.txt", "--concurrency", "1", cwd=tmp_path, HANSA_URL=server.url)
    deadline = time.monotonic() + 30
    while len(server.seen(START)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (130, "")
    assert "stopped at 1 of 3 lines" in err
    assert "hansa runs --agent triage" in err
    assert "hansa runs cancel RUN" in err


@pytest.mark.parametrize("concurrency", [0, -1, 257])
def test_a_concurrency_out_of_range_is_wrong_usage(api: Api, concurrency: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 256"):
        list(run_all(api, "triage", list(make_jobs(inputs("x"), "x")), terms=Terms(concurrency)))
