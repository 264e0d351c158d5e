"""From a commit to what runs: a real repository, the real control plane and worker, and the real command."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.command import Ended
from hansa.apply.repository.failures import Reason
from hansa.apply.sync.model import DELETION_REFUSED, FAILING, NO_MANIFESTS, SYNCED
from hansa.cli.application import main
from hansa.cli.client import Api
from isolation.neighbours import HUSHED, build, manifest
from repository.repos import GitRepo, agent, agents
from samples import SCRIPTED
from samples import agent as sample
from stack import Process, Stack, free_port
from sync.platform import clear, names, open_api, passed, speaking, spoken, told

MODEL = {"plugin": "scripted", "models": [{"name": "echo", "aliases": [HUSHED]}]}
SLOW = json.dumps([{"text": "done", "delay": 0.5}])


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo(tmp_path / "upstream")


@pytest.fixture
def plane(stack: Stack, control_plane: Process, api: httpx2.AsyncClient, repo: GitRepo) -> Iterator[Api]:
    """The control plane, from which everything that `repo` brought is taken again."""
    with open_api(stack, control_plane) as found:
        yield found
        clear(found, repo)


async def test_what_a_repository_says_is_there_and_what_it_no_longer_says_is_gone(plane: Api, repo: GitRepo) -> None:
    commit = repo.commit(agents("sync-a", "sync-b"))
    report = await passed(plane, repo)
    assert (report.record.state, [outcome.action for outcome in report.outcomes]) == (SYNCED, ["created", "created"])
    kept = plane.get("/v1/objects/Agent/sync-a")
    assert (kept["manager"], kept["origin"], kept["commit"]) == ("git", f"file://{repo.folder}//", commit)
    assert (kept["source"]["file"], kept["source"]["line"]) == ("agents/sync-a.yaml", 1)
    repo.commit({"agents/sync-a.yaml": None, "agents/sync-c.yaml": agent("sync-c")})
    report = await passed(plane, repo)
    assert sorted((outcome.name, outcome.action) for outcome in report.outcomes) == [("sync-a", "deleted"), ("sync-c", "created")]
    assert names(plane, repo) == {"Agent/sync-b", "Agent/sync-c"}
    known = told(plane, repo)
    assert (known["state"], known["commit"], known["ref"], known["errors"]) == (SYNCED, repo.head, "main", [])


async def test_the_last_good_state_stays_while_the_repository_is_unsigned_rewritten_empty_or_gone(
    plane: Api, repo: GitRepo, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    (tmp_path / "signers").write_text(f"a@example.org {(tmp_path / 'key.pub').read_text()}")
    repo.git("config", "gpg.format", "ssh")
    repo.git("config", "user.signingkey", str(tmp_path / "key"))
    good = repo.commit(agents("sync-s"), "-S")
    signers = str(tmp_path / "signers")
    assert (await passed(plane, repo, verify="all", signers=signers)).record.state == SYNCED
    smuggled = repo.commit({"agents/sync-s.yaml": agent("sync-s", "Smuggled.")})
    repo.commit({}, "-S")
    report = await passed(plane, repo, verify="all", signers=signers)
    known = told(plane, repo)
    assert (report.record.state, known["state"], known["commit"]) == (Reason.SIGNATURE_INVALID, Reason.SIGNATURE_INVALID, good)
    assert smuggled in known["message"]
    repo.git("reset", "--hard", "--quiet", good)
    rewritten = repo.commit({"agents/sync-s.yaml": agent("sync-s", "Rewritten.")}, "-S", "--amend")
    report = await passed(plane, repo, verify="head", signers=signers)
    assert (report.record.state, report.record.commit, "history was rewritten" in report.record.message) == (SYNCED, rewritten, True)
    for files, state in (({"agents/sync-s.yaml": None}, NO_MANIFESTS), ({"agents/sync-s.yaml": "kind: [\n"}, NO_MANIFESTS)):
        repo.commit(files)
        assert (await passed(plane, repo, allow_mass_delete=True)).record.state == state
    (repo.folder / ".git").rename(tmp_path / "away")
    assert (await passed(plane, repo)).record.state == Reason.NOT_A_REPOSITORY
    assert plane.get("/v1/objects/Agent/sync-s")["manifest"]["spec"]["instructions"] == "Rewritten."


async def test_what_is_wrong_is_told_with_its_place_and_waits_while_the_rest_is_applied(plane: Api, repo: GitRepo) -> None:
    repo.commit({**agents("sync-d"), "agents/e.yaml": "# waits\n" + agent("sync-e", alias="nowhere"), "agents/f.yaml": "kind: [Agent\n"})
    report = await passed(plane, repo)
    assert report.record.state == FAILING
    assert sorted((error.file, error.line) for error in report.record.errors) == [("agents/e.yaml", 9), ("agents/f.yaml", 2)]
    assert names(plane, repo) == {"Agent/sync-d"}
    repo.commit({"agents/e.yaml": agent("sync-e"), "agents/f.yaml": None})
    assert (await passed(plane, repo)).record.state == SYNCED
    assert names(plane, repo) == {"Agent/sync-d", "Agent/sync-e"}


async def test_many_deletions_are_refused_by_both_sides_without_a_yes(plane: Api, repo: GitRepo) -> None:
    repo.commit({f"{number}.yaml": agent(f"sync-m{number}") for number in range(12)})
    await passed(plane, repo)
    repo.commit({f"{number}.yaml": None for number in range(11)})
    assert (await passed(plane, repo)).record.state == DELETION_REFUSED
    assert len(names(plane, repo)) == 12
    assert (await passed(plane, repo, allow_mass_delete=True)).record.state == SYNCED
    assert names(plane, repo) == {"Agent/sync-m11"}


async def test_a_repository_holds_tenants_and_what_belongs_to_them(plane: Api, repo: GitRepo) -> None:
    tenant = "apiVersion: hansa.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: sync-acme\nspec:\n  deletionPolicy: Delete\n"
    provider = (
        "apiVersion: hansa.dev/v1alpha1\nkind: ModelProvider\nmetadata:\n  name: scripted\n  namespace: sync-acme\n"
        "spec:\n  plugin: scripted\n  models:\n  - name: echo\n    aliases: [scripted]\n"
    )
    bot = agent("bot", namespace="sync-acme")
    repo.commit(
        {"acme/bot.yaml": bot, "acme/other.yaml": agent("other", namespace="sync-acme"), "acme/tenant.yaml": f"{tenant}---\n{provider}"}
    )
    report = await passed(plane, repo)
    assert (report.record.state, report.record.errors) == (SYNCED, ())
    assert [outcome.kind for outcome in report.outcomes] == ["Tenant", "ModelProvider", "Agent", "Agent"]
    repo.commit({"acme/other.yaml": None})
    report = await passed(plane, repo)
    assert [(outcome.name, outcome.action) for outcome in report.outcomes] == [("other", "deleted")]
    repo.commit({"acme/bot.yaml": None, "acme/tenant.yaml": None, "keep.yaml": agent("sync-keep")})
    report = await passed(plane, repo)
    assert (report.record.state, "sync-acme" in report.record.message) == (DELETION_REFUSED, True)
    assert (await passed(plane, repo, allow_mass_delete=True)).record.state == SYNCED


async def listed(api: httpx2.AsyncClient) -> list[dict[str, Any]]:
    answer = await api.get("/v1/runs", params={"agent": "sync-runner", "limit": "200"})
    return answer.json()["data"]


async def test_a_commit_serves_its_revert_serves_and_no_run_fails(
    api: httpx2.AsyncClient, plane: Api, repo: GitRepo, tmp_path: Path
) -> None:
    """A service at an interval of 1 s, a hundred runs all the while."""
    repo.commit({"runner.yaml": agent("sync-runner", "One."), **agents("sync-x", "sync-y")})
    port, env = free_port(), spoken(plane, tmp_path / "data")
    command = ["sync", "--git", str(repo.folder), "--ref", "main", "--interval", "1", "--webhook", f"127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen([sys.executable, "-m", "hansa", *command], env=env, cwd=tmp_path, stderr=log)

    async def serving(revision: int) -> float:
        started = time.monotonic()
        async with asyncio.timeout(20):
            while (answer := await api.get("/v1/agents/sync-runner")).status_code != 200 or answer.json()["revision"] < revision:
                await asyncio.sleep(0.05)
        return time.monotonic() - started

    try:
        await serving(1)
        runs: list[str] = []
        for number in range(100):
            if number == 30:
                repo.commit({"runner.yaml": agent("sync-runner", "Two.")})
                assert await serving(2) < 10
            if number == 60:
                repo.git("revert", "--no-edit", "HEAD")
                assert await serving(3) < 10
            started = await api.post("/v1/agents/sync-runner/runs", json={"input": f"#script {SLOW}"})
            assert started.status_code in (200, 201, 202), started.text
            runs.append(started.json()["id"])
        manifest = (await api.get("/v1/agents/sync-runner")).json()["manifest"]
        assert manifest["spec"]["instructions"] == "One."
        async with asyncio.timeout(60):
            while open_runs := [run for run in await listed(api) if run["state"] in ("queued", "running")]:
                assert len(open_runs) <= 100
                await asyncio.sleep(0.2)
        ended = [run for run in await listed(api) if run["id"] in runs]
        assert (len(ended), {run["state"] for run in ended}) == (100, {"completed"})
        async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/readyz")).json()["state"] == SYNCED
    finally:
        service.terminate()
        assert service.wait(15) == 0, (tmp_path / "log").read_text()


@pytest.fixture
def typed(plane: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command line, in this process: its imports cost more than all that it does here."""
    for name, value in spoken(plane, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def type_in(*words: str) -> Ended:
        capsys.readouterr()
        status, said = main(words), capsys.readouterr()
        return Ended(status, said.out, said.err)

    return type_in


def test_plan_says_by_its_status_what_would_be_done(plane: Api, repo: GitRepo, typed: Callable[..., Ended]) -> None:
    source = ["--git", str(repo.folder), "--ref", "main"]
    repo.commit({**agents("sync-p", "sync-q")})
    planned = typed("plan", *source, "--output", "json")
    assert (planned.status, json.loads(planned.out)["counts"]["created"]) == (2, 2), planned.err
    assert typed("sync", *source, "--once").status == 0
    assert typed("plan", *source).status == 0
    lost = {"manager": "git", "origin": f"file://{repo.folder}//", "objects": [{"kind": "Agent", "name": "sync-q"}]}
    plane.post("/v1/objects:delete", lost)
    assert [typed(*words, *source).status for words in (["plan"], ["sync", "--once"], ["plan"])] == [2, 0, 0], "the commit is the same"
    repo.commit(
        {"agents/sync-p.yaml": agent("sync-p", "A | pipe, `code` and <b>."), "agents/sync-q.yaml": None, "new.yaml": agent("sync-n")}
    )
    shown = typed("plan", *source, "--output", "markdown")
    assert shown.status == 2
    assert "1 to create, 1 to change, 1 to delete" in shown.out
    assert "| change | `agent/sync-p` | `spec.instructions`: `Be brief.` → `A \\| pipe, 'code' and <b>.` |" in shown.out
    diff = typed("diff", *source)
    assert (diff.status, "- spec.instructions: Be brief." in diff.out, "- agent/sync-q" in diff.out) == (2, True, True)
    repo.commit({"bad.yaml": "kind: [\n"})
    failed = typed("plan", *source)
    assert (failed.status, "bad.yaml:2:1" in failed.err) == (1, True)
    assert names(plane, repo) == {"Agent/sync-p", "Agent/sync-q"}


def test_an_export_applies_again_to_the_same(plane: Api, tmp_path: Path, typed: Callable[..., Ended]) -> None:
    texts = [
        "no",
        "1e3",
        "0x10",
        "~",
        "line one\n  line two\n",
        "a: b # c",
        "- x",
        "'quoted\" both",
        "ünïcödé \U0001f600",
        " padded ",
        "2026-01-01",
        "\t tab",
    ]
    manifests = [
        {
            "apiVersion": "hansa.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": f"sync-e{number}"},
            "spec": {"instructions": text, "model": {"alias": "scripted"}},
        }
        for number, text in enumerate(texts)
    ]
    applied = plane.post("/v1/objects:apply", {"objects": [{"manifest": each} for each in manifests]})
    assert applied["failed"] == 0, applied
    exported = typed("export", *(f"agent/sync-e{number}" for number in range(len(texts))))
    (tmp_path / "exported.yaml").write_text(exported.out)
    again = typed("apply", "exported.yaml", "--output", "json")
    assert again.status == 0, again.err
    assert {each["action"] for each in json.loads(again.out)["results"]} == {"unchanged"}
    for number in range(len(texts)):
        plane.delete(f"/v1/objects/Agent/sync-e{number}")
    assert typed("wait", "agent/sync-e0", "--for", "delete", "--timeout", "5").status == 0
    assert typed("wait", "agent/sync-e0", "--for", "revision=1", "--timeout", "0.3").status == 1


async def test_a_repository_of_one_namespace_keeps_to_it(
    stack: Stack, control_plane: Process, shared_worker: Process, repo: GitRepo
) -> None:
    assert shared_worker.alive
    house = await build(stack, control_plane, roles=["developer"])
    ours, theirs = {"namespace": house.west, "model": HUSHED}, {"namespace": house.east, "model": HUSHED}
    model = json.dumps(manifest({**SCRIPTED, "metadata": {"name": "ours"}, "spec": MODEL}, house.west))
    repo.commit(
        {
            "model.json": model,
            "a.json": _placed("ours-a", **ours),
            "b.json": _placed("ours-b", **ours),
            "c.json": _placed("theirs", **theirs),
        }
    )
    with speaking(control_plane.url, house.bound["developer@west"]["authorization"].split()[1]) as west:
        report = await passed(west, repo)
        assert sorted((each.name, each.action) for each in report.outcomes) == [
            ("ours", "created"), ("ours-a", "created"), ("ours-b", "created"), ("theirs", "failed"),
        ]  # fmt: skip
        assert names(west, repo) == {"ModelProvider/ours", "Agent/ours-a", "Agent/ours-b"}
        with speaking(control_plane.url, stack.key) as all_of_it:  # the same repository, as another one brought it elsewhere
            body = {
                "manager": "git",
                "origin": f"file://{repo.folder}//",
                "objects": [{"manifest": json.loads(_placed("foreign", **theirs))}],
            }
            assert all_of_it.post("/v1/objects:apply", body)["failed"] == 0
            repo.commit({"b.json": None, "c.json": None})
            report = await passed(west, repo)
            assert [(each.name, each.action) for each in report.outcomes if each.action != "unchanged"] == [("ours-b", "deleted")]
            assert told(west, repo)["state"] == SYNCED
            found = all_of_it.get("/v1/objects/Agent/foreign", {"namespace": house.east})
            assert found["manager"] == "git", "what the key does not see is not pruned"


def _placed(name: str, *, namespace: str, model: str) -> str:
    return json.dumps(manifest(sample(name, model={"alias": model}), namespace))
