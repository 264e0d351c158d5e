"""What people do with runs from the command line, over the whole platform: decide, answer, hold, resume, fork, send, and watch."""

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest

from cli.command import Ended, hansa, on_terminal, start
from runs.engine import TOOLS, Engine, apply
from samples import agent
from stack import Process, open_stack

pytestmark = pytest.mark.timeout(120)
T = TypeVar("T")
STEPS = {"runtime": {"name": "steps"}, "tools": TOOLS}
CAREFUL = {**STEPS, "tools": [{"plugin": "witness", "requireApproval": ["witness_keyed"]}]}
PAY = [["tool", "witness_keyed", "pay\u202eme", 0]]
SHOWN = r'witness_keyed {"mark":"pay\u202eme","seconds":0}'
NOBODY = "00000000-0000-7000-8000-000000000000"


class Platform:
    """The platform, a worker, and agents: `steps` does what its input lists, `careful` asks before it pays, `fickle` changes its mind."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.worker: Process = engine.worker()
        self.env = {"HANSA_URL": engine.control_plane.url, "HANSA_API_KEY": engine.stack.key}
        headers = {"authorization": f"Bearer {engine.stack.key}"}
        self.client = httpx2.Client(base_url=engine.control_plane.url, headers=headers, trust_env=False, timeout=30)

    def begin(self, name: str, steps: Any, state: str) -> dict[str, Any]:
        """A run, once it is in a state."""
        answer = self.client.post(f"/v1/agents/{name}/runs", json={"input": steps})
        assert answer.status_code == 202, answer.text
        return self.until(answer.json()["id"], state)

    def until(self, run_id: str, state: str) -> dict[str, Any]:
        """A run once it is in a state."""
        return eventually(lambda: run if (run := self.run(run_id))["state"] == state else None)

    def run(self, run_id: str) -> dict[str, Any]:
        return self.client.get(f"/v1/runs/{run_id}").json()

    def newest(self, name: str) -> dict[str, Any]:
        return self.client.get("/v1/runs", params={"agent": name, "limit": "1"}).json()["data"][0]


def eventually(look: Callable[[], T | None], seconds: float = 20.0) -> T:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not so after {seconds} s")


@pytest.fixture(scope="module")
def platform(migrated: Path) -> Iterator[Platform]:
    folder = Path(tempfile.mkdtemp(prefix="hansa-people-"))
    with open_stack(folder, like=migrated) as stack:
        engine = Engine(stack)
        found = Platform(engine)

        async def prepare() -> None:
            async with engine.client() as client:
                await apply(
                    client,
                    agent("steps", **STEPS),
                    agent("careful", **CAREFUL),
                    agent("fickle", **{**STEPS, "runtime": {"name": "fickle"}}),
                )

        asyncio.run(prepare())
        with found.client:
            yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cli(platform: Platform, tmp_path: Path) -> Callable[..., Ended]:
    """`hansa` with the platform's address and key."""
    return lambda *arguments: hansa(*arguments, cwd=tmp_path, **platform.env)


def approval_of(run: dict[str, Any]) -> str:
    (wait,) = run["waits"]
    return wait["key"]


def test_a_call_is_shown_whole_and_is_made_once_approved(platform: Platform, cli: Callable[..., Ended]) -> None:
    run = platform.begin("careful", PAY, "waiting")
    approval = approval_of(run)
    listed = cli("approvals", "--state", "pending")
    assert listed.status == 0
    assert re.search(rf"^{approval} +pending +careful +{re.escape(SHOWN)} ", listed.out, re.MULTILINE)
    assert f"waits for approval {approval}" in cli("runs", "--agent", "careful").out
    shown = cli("approvals", "show", approval)
    assert shown.out.startswith(f"call: {SHOWN}\nagent: careful\nrun: {run['id']}, step 1\nstate: pending\nexpires in: 23h\n")
    assert f"hansa approve {approval}" in shown.err
    assert json.loads(cli("approvals", "show", approval, "-o", "json").out)["subject"]["arguments"]["mark"] == "pay\u202eme"

    wrong = cli("answer", approval, "yes")
    assert (wrong.status, "decision must be approve or deny" in wrong.err) == (65, True)
    decided = cli("approve", approval, "--comment", "go")
    assert (decided.status, decided.err) == (0, f"{approval} approved; run {run['id']} goes on\n")
    assert platform.until(run["id"], "completed")["output"] == ["pay\u202eme"]
    again = cli("deny", approval)
    assert (again.status, f"approval {approval} is approved already" in again.err) == (75, True)
    assert "comment: go\n" in cli("approvals", "show", approval).out
    log = cli("logs", run["id"]).out
    assert SHOWN in log
    assert re.search(r"approval\.decided 1 approved \S+ go$", log, re.MULTILINE)


def test_a_denied_call_is_not_made_and_the_agent_is_told_why(platform: Platform, cli: Callable[..., Ended]) -> None:
    run = platform.begin("careful", PAY, "waiting")
    assert json.loads(cli("deny", approval_of(run), "--comment", "too much", "-o", "json").out)["state"] == "denied"
    (output,) = platform.until(run["id"], "completed")["output"]
    assert "a person did not approve the call" in output
    assert "too much" in output


def test_a_question_is_answered_with_a_text_or_with_json(platform: Platform, cli: Callable[..., Ended]) -> None:
    first, second = (platform.begin("steps", [["ask", "How many?"]], "waiting") for _ in range(2))
    assert "question: How many?\n" in cli("approvals", "show", approval_of(first)).out
    assert cli("approve", approval_of(first)).status == 65
    assert cli("answer", approval_of(first), "7").status == 0
    broken = cli("answer", approval_of(second), "--json", "{seven}")
    assert (broken.status, "--json is not JSON" in broken.err) == (2, True)
    assert cli("answer", approval_of(second)).status == 2
    assert cli("answer", approval_of(second), "--json", '{"n": 7}').status == 0
    assert platform.until(first["id"], "completed")["output"] == ["7"]
    assert platform.until(second["id"], "completed")["output"] == [{"n": 7}]


@pytest.mark.parametrize(
    "arguments",
    [
        ("approvals", "show", NOBODY),
        ("approve", NOBODY),
        ("deny", NOBODY),
        ("answer", NOBODY, "x"),
        ("runs", "suspend", NOBODY),
        ("runs", "resume", NOBODY),
        ("runs", "fork", NOBODY, "--at", "1"),
        ("sessions", "send", NOBODY, "go"),
    ],
    ids=" ".join,
)
def test_an_id_that_nobody_has_is_named(cli: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
    ended = cli(*arguments)
    assert (ended.status, ended.out) == (66, "")
    assert NOBODY in ended.err


def said_until(child: subprocess.Popen[str], text: str) -> str:
    """What a command says on stderr until a text stands there."""
    assert child.stderr is not None
    said = ""
    while text not in said:
        line = child.stderr.readline()
        assert line, said
        said += line
    return said


def test_a_followed_run_says_what_it_asks_and_goes_on_when_someone_has_decided(
    platform: Platform, cli: Callable[..., Ended], tmp_path: Path
) -> None:
    child = start("run", "careful", "--input-json", json.dumps(PAY), cwd=tmp_path, **platform.env)
    said = said_until(child, "deny it: ")
    assert f"call: {SHOWN}\n" in said
    found = re.search(r"approve it: hansa (approve \S+)", said)
    assert found is not None, said
    assert cli(*found[1].split()).status == 0
    out, err = child.communicate(timeout=30)
    assert (child.returncode, json.loads(out)) == (0, ["pay\u202eme"])
    assert err.startswith("approved by ")
    assert "taken over" not in err


@pytest.mark.parametrize(("typed", "state"), [("y\n", "approved"), ("\n", "denied"), ("what\nn\n", "denied")])
def test_the_person_at_the_terminal_may_decide_there(platform: Platform, tmp_path: Path, typed: str, state: str) -> None:
    arguments = ("run", "careful", "--input-json", json.dumps(PAY))
    answers = [("[y/N] ", line) for line in typed.splitlines(keepends=True)]
    status, seen = on_terminal(*arguments, cwd=tmp_path, answers=answers, NO_COLOR="1", **platform.env)
    assert status == 0
    assert f"{state} here" in seen
    run = platform.newest("careful")
    assert ("a person did not approve" in str(run["output"])) == (state == "denied")


def test_a_terminal_that_asks_sees_that_someone_else_has_answered(platform: Platform, cli: Callable[..., Ended], tmp_path: Path) -> None:
    arguments = ("run", "steps", "--input-json", '[["ask", "Who?"]]')
    child = start(*arguments, cwd=tmp_path, **platform.env)
    said_until(child, "answer it: ")
    assert cli("answer", approval_of(platform.newest("steps")), "Ada").status == 0
    assert json.loads(child.communicate(timeout=30)[0]) == ["Ada"]
    status, seen = on_terminal(*arguments, cwd=tmp_path, answers=[("others): ", "Grace\n")], NO_COLOR="1", **platform.env)
    assert (status, "answered here" in seen, platform.newest("steps")["output"]) == (0, True, ["Grace"])


def test_a_held_run_stands_still_until_it_is_resumed(platform: Platform, cli: Callable[..., Ended], tmp_path: Path) -> None:
    child = start("run", "steps", "--input-json", '[["event", "go", null]]', cwd=tmp_path, **platform.env)
    assert "hansa sessions send" in said_until(child, "waits for event go")
    run = platform.until(platform.newest("steps")["id"], "waiting")
    assert "waits for event go" in cli("runs", "--state", "waiting").out
    held = cli("runs", "suspend", run["id"])
    assert (held.status, held.err) == (0, f"run {run['id']}: suspended\n")
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (4, "")
    assert f"hansa runs resume {run['id']}" in err
    assert "held until it is resumed" in cli("runs", "--state", "suspended").out
    sent = cli("sessions", "send", run["session_id"], "go", '{"now": true}')
    assert (sent.status, sent.err) == (0, f"run {run['id']} goes on with it\n")
    assert platform.run(run["id"])["state"] == "suspended"
    unasked = cli("runs", "resume", run["id"], "--as", "retry")
    assert (unasked.status, "nothing is to be decided" in unasked.err) == (65, True)
    assert cli("runs", "resume", run["id"]).err == f"run {run['id']}: goes on\n"
    assert platform.until(run["id"], "completed")["output"] == [{"now": True}]
    over = cli("runs", "resume", run["id"])
    assert (over.status, "is completed: only a suspended run" in over.err) == (75, True)
    assert cli("runs", "suspend", run["id"]).err == f"run {run['id']}: already completed\n"


def test_an_event_that_nobody_waits_for_is_kept_and_one_that_is_no_json_is_not_sent(platform: Platform, cli: Callable[..., Ended]) -> None:
    run = platform.begin("steps", [["event", "later", None], ["event", "go", None]], "waiting")
    kept = cli("sessions", "send", run["session_id"], "go")
    assert (kept.status, kept.err) == (0, "kept until a run of the session waits for go\n")
    broken = cli("sessions", "send", run["session_id"], "later", "now")
    assert (broken.status, "DATA is not JSON" in broken.err) == (2, True)
    assert json.loads(cli("sessions", "send", run["session_id"], "later", "1", "-o", "json").out)["delivered"] is True
    assert platform.until(run["id"], "completed")["output"] == [1, None]


def test_a_call_in_doubt_is_told_and_decided(platform: Platform, cli: Callable[..., Ended], tmp_path: Path) -> None:
    child = start("run", "steps", "--input-json", '[["tool", "witness_unsafe", "doubt", 30]]', cwd=tmp_path, **platform.env)
    eventually(lambda: True if any(line["mark"] == "doubt" for line in platform.engine.witness()) else None)
    platform.worker.kill()
    platform.worker = platform.engine.worker()
    out, err = child.communicate(timeout=40)
    run = platform.newest("steps")
    assert (child.returncode, out) == (4, "")
    assert f"hansa runs resume {run['id']} --as done --answer JSON" in err
    assert "a person must say whether a call was made" in cli("runs", "--state", "needs_review").out
    missing = cli("runs", "resume", run["id"])
    assert (missing.status, "nobody knows whether it was done" in missing.err) == (65, True)
    assert cli("runs", "resume", run["id"], "--as", "retry", "--answer", "1").status == 2
    assert cli("runs", "resume", run["id"], "--as", "done").status == 2
    assert cli("runs", "resume", run["id"], "--as", "done", "--answer", "paid").status == 2
    assert cli("runs", "resume", run["id"], "--as", "done", "--answer", '"paid"').status == 0
    assert platform.until(run["id"], "completed")["output"] == ["paid"]


def test_a_fork_goes_on_from_the_event_that_was_named(platform: Platform, cli: Callable[..., Ended]) -> None:
    run = platform.begin("steps", [["sleep", 0], ["tool", "witness_keyed", "forked", 0]], "completed")
    events = platform.client.get(f"/v1/sessions/{run['session_id']}/events").json()["data"]
    (fired,) = [event["seq"] for event in events if event["type"] == "timer.fired"]
    forked = cli("runs", "fork", run["id"], "--at", str(fired), "--follow")
    assert (forked.status, json.loads(forked.out)) == (0, ["slept", "forked"])
    assert "taken over" not in forked.err
    began = cli("runs", "fork", run["id"], "--at", str(fired))
    assert platform.until(began.out.strip(), "completed")["session_id"] != run["session_id"]
    forks = {made["id"] for made in platform.client.get("/v1/runs", params={"agent": "steps", "limit": "2"}).json()["data"]}
    own = [line["key"].split(":")[0] for line in platform.engine.witness() if line["mark"] == "forked" and line["phase"] == "effect"]
    assert sorted(own) == sorted([run["id"], *forks])
    outside = cli("runs", "fork", run["id"], "--at", "99999")
    assert (outside.status, "there is none 99999" in outside.err) == (65, True)
    assert cli("runs", "fork", run["id"]).status == 2


def test_a_replay_names_the_step_that_differs(platform: Platform, cli: Callable[..., Ended]) -> None:
    # The control plane that replays has another HANSA_TOOL_FICKLE than the worker that ran it.
    run = platform.begin("fickle", "other call", "completed")
    ended = cli("runs", "replay", run["id"])
    assert ended.status == 1
    assert ended.out.startswith('differs at step 2\nin the log: call of ["witness_read",{"mark":"second"}]\nnow: call of ["witness_read",')
    same = platform.begin("steps", [["sleep", 0]], "completed")
    assert cli("runs", "replay", same["id"]).out.startswith("equal: 1 steps, ")


def test_a_run_starts_not_before_its_time_and_has_its_priority(platform: Platform, cli: Callable[..., Ended]) -> None:
    at = datetime.now(UTC) + timedelta(seconds=4)
    ended = cli("run", "steps", "--input-json", '[["sleep", 0]]', "--start-at", at.isoformat(), "--priority", "7")
    assert (ended.status, "waits for its start in" in ended.err) == (0, True)
    run = platform.newest("steps")
    assert datetime.fromisoformat(run["started_at"]) >= at
    assert run["priority"] == 7
    for wrong in (("--start-at", "soon"), ("--priority", "101")):
        assert cli("run", "steps", "x", *wrong).status == 2
    session = cli("run", "steps", "x", "--session", run["session_id"], "--start-at", "2099-01-01")
    assert (session.status, "begins a session of its own" in session.err) == (65, True)


def test_a_line_whose_run_only_waits_is_told_and_left_alone(platform: Platform, cli: Callable[..., Ended], tmp_path: Path) -> None:
    script = [{"tool_calls": [{"name": "witness_keyed", "arguments": {"mark": "line", "seconds": 0}}]}, {"text": "done"}]
    (tmp_path / "lines.txt").write_text(f"hello\n#script {json.dumps(script)}\n")

    async def prepare() -> None:
        async with platform.engine.client() as client:
            await apply(client, agent("looping", tools=CAREFUL["tools"]))

    asyncio.run(prepare())
    began = time.monotonic()
    ended = cli("run", "looping", "--each-line", "lines.txt", "--patience", "1", "-o", "json")
    assert time.monotonic() - began < 40
    assert ended.status == 4
    rows = json.loads(ended.out)
    assert [row["state"] for row in rows] == ["completed", "waiting"]
    approval = approval_of(platform.run(rows[1]["run_id"]))
    assert f"see what it asks: hansa approvals show {approval}" in ended.err
    assert f"line 2: waiting: waits for approval {approval}" in ended.err
