"""Who owns an object, on the command line: shown, said, taken over; and what sources tell."""

import time
from pathlib import Path
from typing import Any

from cli.command import hansa
from cli.scripted_server import ScriptedServer, as_json, page, problem

HEAD = "apiVersion: hansa.dev/v1alpha1\nkind: Region\nmetadata: {name: local}\nspec: {}\n"
ORIGIN = "https://git.example/agents.git//owned"
KEPT: dict[str, Any] = {
    "kind": "Agent",
    "name": "greeter",
    "generation": 3,
    "manager": "git",
    "origin": ORIGIN,
    "commit": "0123456789abcdef",
    "applied_by": "service:sync",
    "source": {"file": "agents/greeter.yaml", "line": 7, "column": 1},
    "manifest": {"kind": "Agent"},
    "status": None,
    "updated_at": "2026-01-02T03:04:05Z",
}
SOURCE: dict[str, Any] = {
    "id": "agents",
    "origin": ORIGIN,
    "ref": "main",
    "commit": "0123456789abcdef",
    "state": "failing",
    "message": "1 error",
    "errors": [{"file": "a.yaml", "line": 3, "message": "wrong"}],
    "seen_at": "2026-01-02T03:04:05Z",
    "applied_at": None,
    "told_by": "service:sync",
}


def test_the_wide_table_shows_manager_repository_commit_file_and_line(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/agents", page({**KEPT, "runtime": "loop", "model": "small", "revision": 2}))
    server.on("GET /v1/objects/Agent/greeter", as_json(KEPT))
    server.on("GET /v1/objects", page({**KEPT, "kind": "ToolServer", "source": None, "origin": ""}))
    words = ("git", ORIGIN, "0123456789ab ", "agents/greeter.yaml:7", "service:sync")
    for command in (("get", "agents"), ("get", "agent", "greeter")):
        wide = hansa(*command, "-o", "wide", cwd=tmp_path, HANSA_URL=server.url)
        assert (wide.status, wide.err, len(wide.out.splitlines())) == (0, "", 2)
        assert [word for word in words if word not in wide.out] == []
        assert ORIGIN not in hansa(*command, cwd=tmp_path, HANSA_URL=server.url).out
    assert "WRITTEN AT" in hansa("get", "toolservers", "-o", "wide", cwd=tmp_path, HANSA_URL=server.url).out


def test_a_pipeline_says_who_it_is_and_people_need_not(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("POST /v1/objects:apply", as_json({"results": [{"kind": "Region", "name": "local", "action": "unchanged"}], "failed": 0}))
    (tmp_path / "a.yaml").write_text(HEAD)
    flags = ("--manager", "git", "--origin", ORIGIN, "--commit", "c0ffee", "--force")
    for given in ((), flags):
        assert hansa("apply", "a.yaml", *given, cwd=tmp_path, HANSA_URL=server.url).status == 0
    said = [
        {key: request.body[key] for key in ("manager", "origin", "commit", "force")} for request in server.seen("POST /v1/objects:apply")
    ]
    assert said == [
        {"manager": "rest", "origin": "", "commit": "", "force": False},
        {"manager": "git", "origin": ORIGIN, "commit": "c0ffee", "force": True},
    ]


def test_a_refused_change_says_whose_it_is_and_how_to_take_it_over(server: ScriptedServer, tmp_path: Path) -> None:
    hint = "to make it yours: hansa takeover region/local"
    flaw = {"path": "metadata.name", "code": "conflict", "message": "Region 'local' is managed by Git (x)", "suggestion": hint}
    result = {"kind": "Region", "name": "local", "action": "failed", "errors": [flaw]}
    server.on("POST /v1/objects:apply", as_json({"results": [result], "failed": 1}))
    (tmp_path / "a.yaml").write_text(HEAD)
    ended = hansa("apply", "a.yaml", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert f"a.yaml:3:18: metadata.name: Region 'local' is managed by Git (x), {hint}" in ended.err


def test_takeover_asks_for_what_was_typed(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("POST /v1/objects/Agent/greeter/takeover", as_json(KEPT))
    mine = hansa("takeover", "agent/greeter", cwd=tmp_path, HANSA_URL=server.url)
    assert (mine.status, mine.err) == (0, "agent/greeter is managed by people now\n")
    theirs = hansa("takeover", "hag/greeter", "--to", "git", "--origin", ORIGIN, cwd=tmp_path, HANSA_URL=server.url)
    assert (theirs.status, theirs.err) == (0, f"agent/greeter is managed by git ({ORIGIN}) now\n")
    bodies = [request.body for request in server.seen("POST /v1/objects/Agent/greeter/takeover")]
    assert bodies == [{"manager": "rest", "origin": ""}, {"manager": "git", "origin": ORIGIN}]
    for wrong, told in (("greeter", "as KIND/NAME"), ("agent/", "as KIND/NAME"), ("run/x", "as KIND/NAME"), ("agnet/x", "'agent'?")):
        ended = hansa("takeover", wrong, cwd=tmp_path, HANSA_URL=server.url)
        assert (ended.status, told in ended.err) == (2, True), ended.err
    detail = "origin: is needed with the manager 'git'"
    flaw = {"path": "origin", "code": "invalid", "message": "is needed with the manager 'git'"}
    server.on("POST /v1/objects/Agent/greeter/takeover", problem(422, "invalid", detail, errors=[flaw]))
    assert hansa("takeover", "agent/greeter", "--to", "git", cwd=tmp_path, HANSA_URL=server.url).err == f"error: {detail}\n"


def test_sources_are_listed_and_forgotten(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/sources", page(SOURCE))
    listed = hansa("sources", cwd=tmp_path, HANSA_URL=server.url)
    assert [word for word in ("agents", "failing", "main", "0123456789ab ", ORIGIN) if word not in listed.out] == []
    assert "1 error" in hansa("sources", "-o", "wide", cwd=tmp_path, HANSA_URL=server.url).out
    assert '"line": 3' in hansa("sources", "-o", "json", cwd=tmp_path, HANSA_URL=server.url).out
    server.on("DELETE /v1/sources/none", problem(404, "not_found", "there is no source 'none'"))
    gone = hansa("sources", "forget", "none", cwd=tmp_path, HANSA_URL=server.url)
    assert (gone.status, "there is no source" in gone.err) == (66, True)


def test_a_tenants_object_is_waited_for_and_exported_where_it_stands(server: ScriptedServer, tmp_path: Path) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "AllReady", "observedGeneration": 3}
    server.on("GET /v1/whoami", as_json({"tenant": "default", "permissions": ["tenants:act"]}))
    server.on("GET /v1/objects/Tenant/acme", as_json({**KEPT, "kind": "Tenant", "status": {"conditions": [ready]}}))
    assert hansa("wait", "tenant/acme", "--timeout", "0", cwd=tmp_path, HANSA_URL=server.url).status == 0
    assert hansa("export", "tenant/acme", cwd=tmp_path, HANSA_URL=server.url).out == "kind: Agent\n"
    assert [request.headers["hansa-tenant"] for request in server.seen("GET /v1/objects/Tenant/acme")] == ["acme"] * 2


def test_a_wait_lasts_as_long_as_it_says_and_tells_of_which_spec_it_speaks(server: ScriptedServer, tmp_path: Path) -> None:
    before = {"type": "Ready", "status": "True", "reason": "Serving", "observedGeneration": 2}
    server.on("GET /v1/objects/Agent/greeter", as_json({**KEPT, "status": {"conditions": [before]}}))
    started = time.monotonic()
    ended = hansa("wait", "agent/greeter", "--timeout", "0.6", cwd=tmp_path, HANSA_URL=server.url)
    assert time.monotonic() - started >= 0.6
    assert (ended.status, "Ready is True: Serving, of what it was before" in ended.err) == (1, True), ended.err
