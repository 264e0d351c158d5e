"""`hansa apply`: the good objects are applied in order, the bad ones are named by file, line and column."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.command import hansa
from cli.scripted_server import Reply, Request, ScriptedServer, as_json, problem
from hansa import ids
from stack import Process, Stack

APPLY = "POST /v1/objects:apply"
HEAD = "apiVersion: hansa.dev/v1alpha1\n"
PROVIDER = f"{HEAD}kind: ModelProvider\nmetadata: {{name: local}}\nspec: {{plugin: local, models: [{{name: m, aliases: [small]}}]}}\n"


def agent(name: str, field: str = "model") -> str:
    return f"{HEAD}kind: Agent\nmetadata:\n  name: {name}\nspec:\n  instructions: hi\n  {field}: {{alias: small}}\n"


def created(request: Request) -> Reply:
    results: list[dict[str, Any]] = []
    for sent in request.body["objects"]:
        manifest = sent["manifest"]
        result = {"kind": manifest["kind"], "name": manifest["metadata"]["name"], "action": "created", "generation": 1}
        if result["name"] == "toolless":
            errors = [{"path": "spec.model.alias", "code": "reference", "message": "no model has the alias small"}]
            result |= {"action": "failed", "errors": errors}
        if result["kind"] == "ToolServer":
            result["note"] = "not reachable: HTTP 401"
        results.append(result)
    return as_json({"results": results, "failed": 0})


def sent(server: ScriptedServer) -> list[str]:
    return [each["manifest"]["metadata"]["name"] for request in server.seen(APPLY) for each in request.body["objects"]]


def test_objects_are_applied_in_the_order_in_which_they_refer_to_each_other(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, created)
    (tmp_path / "a.yaml").write_text(agent("assistant"))
    (tmp_path / "b.yaml").write_text(PROVIDER)
    ended = hansa("apply", "-f", str(tmp_path), cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, ended.out, ended.err) == (0, "modelprovider/local created\nagent/assistant created\n", "")
    source = server.seen(APPLY)[0].body["objects"][1]["source"]
    assert source == {"file": str(tmp_path / "a.yaml"), "line": 1, "column": 1}


def test_a_wrong_field_is_named_by_its_place_and_the_others_are_still_applied(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, created)
    (tmp_path / "a.yaml").write_text(f"{agent('good')}---\n{agent('bad', 'modle')}---\n{agent('twin')}---\n{agent('twin')}")
    ended = hansa("apply", "-f", "a.yaml", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert sent(server) == ["good"]
    assert ended.out == "agent/good created\n"
    assert "a.yaml:15:3: spec.modle: unknown field `modle`, did you mean `model`?" in ended.err
    assert "a.yaml:20:9: metadata.name: Agent `twin` is also written at a.yaml:28:9" in ended.err
    assert "1 applied, 3 failed" in ended.err


def test_a_note_on_an_applied_object_is_told_to_people(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, created)
    text = f"{HEAD}kind: ToolServer\nmetadata: {{name: search}}\nspec: {{endpoint: 'https://tools.example.org/mcp'}}\n"
    (tmp_path / "a.yaml").write_text(text)
    ended = hansa("apply", "-f", "a.yaml", cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, ended.out, ended.err) == (0, "toolserver/search created\n", "  not reachable: HTTP 401\n")


def test_what_only_the_server_knows_is_shown_at_its_place_too(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, created)
    (tmp_path / "a.yaml").write_text(agent("toolless"))
    ended = hansa("apply", "-f", "a.yaml", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert "agent/toolless failed\n  a.yaml:7:18: spec.model.alias: no model has the alias small\n" in ended.err


def test_json_stands_alone_on_stdout_with_every_error(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, created)
    (tmp_path / "a.yaml").write_text(f"{agent('good')}---\na: 1\na: 2\n")
    ended = hansa("apply", "-f", "a.yaml", "-o", "json", cwd=tmp_path, HANSA_URL=server.url)
    found = json.loads(ended.out)
    assert [result["action"] for result in found["results"]] == ["created"]
    assert [(error["code"], error["line"], error["column"]) for error in found["errors"]] == [("duplicate", 10, 1)]
    assert ended.status == 1


def test_many_objects_go_in_several_requests_below_the_limit_of_the_server(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, created)
    (tmp_path / "a.yaml").write_text("---\n".join(agent(f"agent-{number}") for number in range(250)))
    assert hansa("apply", "-f", "a.yaml", cwd=tmp_path, HANSA_URL=server.url).status == 0
    assert sent(server) == [f"agent-{number}" for number in range(250)]
    assert len(server.seen(APPLY)) == 3
    assert all(int(request.headers["content-length"]) < 1024 * 1024 for request in server.seen(APPLY))


def test_nothing_is_sent_when_nothing_is_good(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    ended = hansa("apply", "-f", "a.yaml", "-f", "missing.yaml", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert server.requests == []
    assert "a.yaml:2:1: not valid YAML" in ended.err
    assert "missing.yaml: no such file or folder" in ended.err


def test_a_refused_request_ends_with_its_own_status(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, problem(403, "forbidden", "permission objects:write is missing"))
    (tmp_path / "a.yaml").write_text(agent("good"))
    ended = hansa("apply", "-f", "a.yaml", cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, ended.out) == (77, "")
    assert "permission objects:write is missing" in ended.err


@pytest.mark.parametrize("word", ["agent", "agents", "hag", "Agent"])
def test_a_kind_goes_by_all_its_names(server: ScriptedServer, tmp_path: Path, word: str) -> None:
    manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "x"}, "spec": {"instructions": "a\nb\n"}}
    server.on("GET /v1/objects/Agent/x", as_json({"kind": "Agent", "name": "x", "manifest": manifest}))
    server.on("DELETE /v1/objects/Agent/x", Reply(204))
    shown = hansa("get", word, "x", cwd=tmp_path, HANSA_URL=server.url)
    assert shown.out.startswith("apiVersion: hansa.dev/v1alpha1\nkind: Agent\n")
    assert "instructions: |\n    a\n    b\n" in shown.out
    assert json.loads(hansa("get", word, "x", "-o", "json", cwd=tmp_path, HANSA_URL=server.url).out) == manifest
    deleted = hansa("delete", word, "x", cwd=tmp_path, HANSA_URL=server.url)
    assert (deleted.status, deleted.err) == (0, "agent/x deleted\n")


def test_an_unknown_kind_is_wrong_usage_and_the_near_one_is_named(server: ScriptedServer, tmp_path: Path) -> None:
    ended = hansa("get", "agnets", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 2
    assert "did you mean 'agents'?" in ended.err
    assert "modelproviders" in ended.err


def test_a_run_is_not_deleted_but_canceled(server: ScriptedServer, tmp_path: Path) -> None:
    ended = hansa("delete", "run", "r1", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 2
    assert "hansa runs cancel r1" in ended.err
    assert server.requests == []


def test_manifests_come_from_stdin_and_from_paths_without_an_option(server: ScriptedServer, tmp_path: Path) -> None:
    server.on(APPLY, created)
    (tmp_path / "a.yaml").write_text(agent("first"))
    text = f"{agent('second')}---\n{agent('bad', 'modle')}"
    for arguments in (("-f", "-", "-f", "a.yaml"), ("-", "a.yaml"), ("a.yaml", "-f", "-")):
        server.requests.clear()
        ended = hansa("apply", *arguments, cwd=tmp_path, stdin=text, HANSA_URL=server.url)
        assert ended.status == 1
        assert sorted(sent(server)) == ["first", "second"]
        assert "-:15:3: spec.modle: unknown field" in ended.err


@pytest.mark.parametrize("broken", ["x: *nowhere\n", "a: [\n", "a: 1\n  b: 2\n"])
def test_what_is_broken_in_a_file_never_holds_up_what_stands_before_it(server: ScriptedServer, tmp_path: Path, broken: str) -> None:
    server.on(APPLY, created)
    (tmp_path / "a.yaml").write_text(f"{agent('first')}---\n{broken}")
    ended = hansa("apply", "a.yaml", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert sent(server) == ["first"]
    assert "a.yaml:" in ended.err


def test_a_manifest_that_is_too_large_for_the_server_is_named(stack: Stack, control_plane: Process, tmp_path: Path) -> None:
    name = f"a-{ids.new_id().hex[-8:]}"
    (tmp_path / "a.yaml").write_text(f"{agent('large')}  outputSchema: {{type: object, title: {'x' * 1_500_000}}}\n")
    (tmp_path / "b.yaml").write_text(PROVIDER.replace("{name: local}", f"{{name: {name}}}"))
    ended = hansa("apply", "-f", ".", cwd=tmp_path, HANSA_URL=control_plane.url, HANSA_API_KEY=stack.key)
    assert ended.status == 1
    assert f"modelprovider/{name} created" in ended.out
    assert "a.yaml:1:1: the body is larger than the 1048576 bytes" in ended.err
