"""`hansa rollout`: waits for what is decided and says it by its status, lists what there was, goes back, tries again."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.command import hansa
from cli.scripted_server import ScriptedServer, as_json, page, problem

MANIFEST = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "a"}, "spec": {"instructions": "one"}}


def agent(desired: int, serving: int | None, reason: str, message: str = "so it is", **more: Any) -> dict[str, Any]:
    """An agent as the API shows it."""
    status = {"Serving": "True", "Checking": "Unknown"}.get(reason, "False")
    ready = {"type": "Ready", "status": status, "reason": reason, "message": message}
    told = {
        "observedGeneration": 1,
        "conditions": [{"type": "Accepted", "status": "True"}, ready],
        "revision": {"desired": desired, "serving": serving},
    }
    return {
        "name": "a",
        "revision": serving,
        "manager": "rest",
        "runtime": "loop",
        "model": "m",
        "status": told,
        "manifest": MANIFEST,
        **more,
    }


def revision(number: int, state: str) -> dict[str, Any]:
    manifest = {**MANIFEST, "spec": {"instructions": f"revision {number}"}}
    return {"revision": number, "state": state, "reason": "", "message": "", "smoke_run": None, "created_at": None, "manifest": manifest}


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (agent(2, 2, "Serving", "revision 2 serves"), 0),
        (agent(2, 1, "Refused", "revision 2 was refused: no; revision 1 serves meanwhile"), 1),
        (agent(1, None, "Checking", "revision 1 is being checked; no revision serves yet"), 4),
        (agent(2, 2, "NotReady", "ResolvedRefs: a model is gone"), 0),
        (agent(2, 1, "Suspended", "spec.suspend is set"), 4),
    ],
    ids=["serves", "refused", "open", "serves-and-lacks-something", "held"],
)
def test_the_status_tells_whether_the_newest_revision_serves(
    server: ScriptedServer, tmp_path: Path, found: dict[str, Any], status: int
) -> None:
    server.on("GET /v1/agents/a", as_json(found))
    ended = hansa("rollout", "status", "a", "--wait", "0", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == status
    assert found["status"]["conditions"][-1]["message"] in ended.out + ended.err
    told = hansa("rollout", "status", "a", "--wait", "0", "-o", "json", cwd=tmp_path, HANSA_URL=server.url)
    assert (told.status, json.loads(told.out)["revision"]) == (status, found["status"]["revision"])


def test_it_waits_until_it_is_decided_and_says_each_step_once(server: ScriptedServer, tmp_path: Path) -> None:
    waiting, serving = agent(2, 1, "Checking", "run r waits"), agent(2, 2, "Serving", "revision 2 serves")
    server.on("GET /v1/agents/a", *map(as_json, (waiting, waiting, serving)))
    ended = hansa("rollout", "status", "a", cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, ended.out, ended.err) == (0, "revision 2 serves\n", "run r waits\n")


def test_a_list_of_agents_shows_what_is_wanted_and_what_serves(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/agents", page(agent(3, 3, "Serving"), agent(4, 3, "Refused"), agent(1, None, "Checking")))
    lines = hansa("get", "agents", cwd=tmp_path, HANSA_URL=server.url).out.splitlines()
    assert lines[0].split()[:6] == ["NAME", "READY", "RUNTIME", "MODEL", "REVISION", "REASON"]
    told = [tuple(line.split()[each] for each in (1, 4, 5)) for line in lines[1:]]
    assert told == [("True", "3", "Serving"), ("False", "4/3", "Refused"), ("Unknown", "1/-", "Checking")]


@pytest.mark.parametrize(
    ("now", "more", "applied"),
    [
        (agent(4, 4, "Serving"), (), "revision 2"),
        (agent(4, 2, "Refused"), (), "revision 2"),
        (agent(4, 4, "Serving"), ("--to-revision", "1"), "revision 1"),
    ],
    ids=["to-the-last-that-served", "to-that-which-serves", "to-one-that-is-named"],
)
def test_undo_applies_what_an_earlier_revision_was(
    server: ScriptedServer, tmp_path: Path, now: dict[str, Any], more: tuple[str, ...], applied: str
) -> None:
    server.on("GET /v1/agents/a", as_json(now))
    states = ((4, "serving"), (3, "refused"), (2, "served"), (1, "served"))
    server.on("GET /v1/agents/a/revisions", page(*(revision(*each) for each in states)))
    result = {"kind": "Agent", "name": "a", "action": "configured", "generation": 5, "revision": 5, "note": "it is being checked"}
    server.on("POST /v1/objects:apply", as_json({"results": [result], "failed": 0}))
    ended = hansa("rollout", "undo", "a", *more, cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 0, ended
    (sent,) = [each for each in server.requests if each.method == "POST"]
    assert sent.body["objects"][0]["manifest"]["spec"]["instructions"] == applied
    assert "revision 5 now" in ended.out
    assert "it is being checked" in ended.err


def test_undo_of_what_git_manages_is_refused_and_says_what_to_do(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/agents/a", as_json(agent(2, 2, "Serving", manager="git")))
    ended = hansa("rollout", "undo", "a", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 2
    assert "Revert the change where it was made" in ended.err
    assert not [each for each in server.requests if each.method == "POST"]


def test_undo_without_an_earlier_revision_says_so(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/agents/a", as_json(agent(1, 1, "Serving")))
    server.on("GET /v1/agents/a/revisions", page(revision(1, "serving")))
    ended = hansa("rollout", "undo", "a", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 2
    assert "no earlier revision" in ended.err
    ended = hansa("rollout", "undo", "a", "--to-revision", "7", cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, "no revision 7" in ended.err) == (66, True)


def test_history_lists_what_became_of_each_revision(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/agents/a/revisions", page(revision(2, "refused") | {"message": "it was wrong"}, revision(1, "serving")))
    lines = hansa("rollout", "history", "a", cwd=tmp_path, HANSA_URL=server.url).out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["2", "refused"], ["1", "serving"]]
    assert "it was wrong" in lines[1]


def test_retry_says_what_happens_or_why_nothing_does(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("POST /v1/agents/a/rollout/retry", as_json(agent(2, 1, "Checking", "revision 2 is being checked")["status"], 202))
    ended = hansa("rollout", "retry", "a", cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, ended.out) == (0, "revision 2 is being checked\n")
    server.on("POST /v1/agents/a/rollout/retry", problem(409, "conflict", "revision 2 was not refused"))
    ended = hansa("rollout", "retry", "a", cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, "was not refused" in ended.err) == (75, True)
