"""An object has one owner: nobody else changes it, not even to what it is, until it is taken over on purpose."""

import asyncio
from typing import Any

import httpx2
import pytest

from api.keys import issue
from api.problem import problem
from audit.trails import end, trail
from hansa.apply.model import Owner
from hansa.apply.ownership import hint
from ownership.asking import actions, apply, at, delete, error, git, kubernetes, provider, stored, tenant, within
from samples import agent
from stack import Process, Stack, plain_client


async def test_a_change_by_people_of_what_git_has_is_refused_with_commit_file_and_line(api: httpx2.AsyncClient, name: str) -> None:
    (made,) = await apply(api, agent(name), owner=git(name, "0123456789abcdef"), places=[at("agents/a.yaml", 7)])
    assert made["action"] == "created"
    for manifest in (agent(name, description="by hand"), agent(name)):
        (refused,) = await apply(api, manifest)
        found = error(refused)
        assert (found["code"], found["path"]) == ("conflict", "metadata.name")
        for word in (f"Git (https://git.example/{name}.git//", "commit 0123456789ab", "agents/a.yaml:7"):
            assert word in found["message"]
        assert f"hansa takeover agent/{name}" in found["suggestion"]
    assert (await stored(api, "Agent", name))["generation"] == 1


@pytest.mark.parametrize("path", ["/v1/objects/Agent/{name}", "/v1/agents/{name}"], ids=["as an object", "as an agent"])
async def test_a_deletion_by_people_of_what_git_has_is_refused(api: httpx2.AsyncClient, name: str, path: str) -> None:
    await apply(api, agent(name), owner=git(name), places=[at("a.yaml", 1)])
    refused = problem(await api.delete(path.format(name=name)), 409, "conflict")
    assert "a.yaml:1" in refused["detail"]
    assert f"hansa takeover agent/{name}" in refused["hint"]
    assert actions(await delete(api, ("Agent", name), owner=git(name))) == ["deleted"]


async def test_what_people_may_do_without_changing_it_they_still_do(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(name), owner=git(name))
    run = (await api.post(f"/v1/agents/{name}/runs", params={"wait": 10}, json={"input": "hello"})).json()
    assert (run["state"], run["output"]) == ("completed", "hello")
    later = (await api.post(f"/v1/agents/{name}/runs", json={"input": 1, "start_at": "2999-01-01T00:00:00Z"})).json()
    assert (await api.post(f"/v1/runs/{later['id']}/suspend")).status_code == 202
    assert (await api.post(f"/v1/runs/{later['id']}/cancel")).status_code == 202


async def test_what_a_cluster_has_is_refused_with_the_cluster_and_the_name_there(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, {**agent(name), "metadata": {"name": name, "namespace": "default"}}, owner=kubernetes("berlin"))
    (refused,) = await apply(api, agent(name))
    assert f"Kubernetes (cluster berlin, default/{name})" in error(refused)["message"]


async def test_what_people_have_is_theirs_together_and_nobody_elses(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await apply(api, agent(name))
    developer = await issue(stack, "default", name="another person", roles=["developer"])
    async with plain_client(str(api.base_url), headers=developer) as person:
        (theirs,) = await apply(person, agent(name, description="of another person"))
    assert theirs["action"] == "configured"
    kept = await stored(api, "Agent", name)
    assert kept["applied_by"].startswith("key:")
    for owner in (git(name), kubernetes("berlin"), {"origin": "pipeline"}):
        (refused,) = await apply(api, agent(name), owner=owner)
        assert f"the REST API (people, last applied by {kept['applied_by']})" in error(refused)["message"]


async def test_two_repositories_are_two_owners(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(name), owner=git(f"{name}-a"))
    (refused,) = await apply(api, agent(name), owner=git(f"{name}-b"))
    assert f"{name}-a.git" in error(refused)["message"]
    assert error(refused)["suggestion"].endswith(f"hansa takeover agent/{name} --to git --origin https://git.example/{name}-b.git//")
    assert error((await delete(api, ("Agent", name), owner=git(f"{name}-b")))[0])["code"] == "conflict"
    assert actions(await apply(api, agent(name), owner=git(f"{name}-a"))) == ["unchanged"]


async def test_a_refused_object_does_not_hold_up_the_others_of_its_request(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(f"{name}-b"), owner=git(name))
    results = await apply(api, *(agent(f"{name}-{each}") for each in "abc"))
    assert actions(results) == ["created", "failed", "created"]


async def test_two_managers_that_come_first_at_the_same_time_are_one_owner_and_one_refusal(api: httpx2.AsyncClient, name: str) -> None:
    for turn in range(8):
        mine = agent(f"{name}-{turn}")
        (one,), (two,) = await asyncio.gather(apply(api, mine, owner=git(name)), apply(api, mine, owner=kubernetes(name)))
        assert sorted([one["action"], two["action"]]) == ["created", "failed"]
        owner = (await stored(api, "Agent", f"{name}-{turn}"))["manager"]
        assert owner == ("git" if one["action"] == "created" else "kubernetes")
        assert error(two if one["action"] == "created" else one)["code"] == "conflict"
        assert len((await api.get(f"/v1/agents/{name}-{turn}/revisions")).json()["data"]) == 1


async def test_the_commit_is_one_that_has_the_object_where_it_is_said_to_be(api: httpx2.AsyncClient, name: str) -> None:
    first, place = git(name, "aaaa"), at("a.yaml", 3)
    await apply(api, agent(name), owner=first, places=[place])
    steps: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, str, int]]] = [
        ("bbbb", agent(name), place, ("aaaa", "a.yaml:3", 1)),  # another commit, which did not touch it
        ("cccc", agent(name), at("a.yaml", 9), ("cccc", "a.yaml:9", 1)),  # lines were put in before it
        ("dddd", agent(name), at("renamed.yaml", 9), ("dddd", "renamed.yaml:9", 1)),
        ("eeee", agent(name, description="new"), at("renamed.yaml", 9), ("eeee", "renamed.yaml:9", 2)),
    ]
    for commit, manifest, where, expected in steps:
        (result,) = await apply(api, manifest, owner=git(name, commit), places=[where])
        kept = await stored(api, "Agent", name)
        assert (kept["commit"], f"{kept['source']['file']}:{kept['source']['line']}", kept["generation"]) == expected
        assert result["action"] == ("configured" if commit == "eeee" else "unchanged")


async def test_force_takes_over_and_the_trail_says_from_whom(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await apply(api, agent(name), owner=git(name, "aaaa"), places=[at("a.yaml", 1)])
    last = await end(stack)
    (taken,) = await apply(api, agent(name), force=True)
    assert (taken["action"], taken["generation"], taken["revision"]) == ("configured", 1, 1)
    assert "taken over from Git" in taken["note"]
    kept = await stored(api, "Agent", name)
    assert (kept["manager"], kept["origin"], kept["commit"], kept["source"]) == ("rest", "", "", None)
    (event,) = await trail(stack, after=last)
    assert (event["action"], event["target"]) == ("object.taken_over", f"Agent/{name}")
    assert (event["before"]["manager"], event["before"]["commit"], event["after"]["manager"]) == ("git", "aaaa", "rest")
    (refused,) = await apply(api, agent(name), owner=git(name))
    assert "the REST API" in error(refused)["message"]


async def test_takeover_moves_an_object_back_and_forth(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await apply(api, agent(name, description="as it is"))
    origin, last = git(name)["origin"], await end(stack)
    for _ in range(2):  # the second time it is so already
        moved = await api.post(f"/v1/objects/Agent/{name}/takeover", json={"manager": "git", "origin": origin})
        assert (moved.json()["manager"], moved.json()["origin"], moved.json()["generation"]) == ("git", origin, 1)
    assert [each["action"] for each in await trail(stack, after=last)] == ["object.taken_over"]
    assert error((await apply(api, agent(name)))[0])["code"] == "conflict"
    assert actions(await apply(api, agent(name, description="as it is"), owner=git(name), places=[at("a.yaml", 1)])) == ["unchanged"]
    assert (await stored(api, "Agent", name))["source"]["file"] == "a.yaml"
    assert (await api.post(f"/v1/objects/Agent/{name}/takeover", json={})).json()["manager"] == "rest"
    assert actions(await apply(api, agent(name))) == ["configured"]


async def test_takeover_wants_a_permission_that_neither_developers_nor_reconcilers_have(
    api: httpx2.AsyncClient, stack: Stack, reconciler: httpx2.AsyncClient, control_plane: Process, name: str
) -> None:
    await apply(api, agent(name), owner=git(name))
    key = await issue(stack, "default", name="a developer", roles=["developer"])
    async with plain_client(control_plane.url, headers=key) as developer:
        for client in (developer, reconciler):
            problem(await client.post(f"/v1/objects/Agent/{name}/takeover", json={}), 403, "forbidden")
            forced = await client.post("/v1/objects:apply", json={"objects": [{"manifest": agent(name)}], "force": True})
            assert "objects:takeover" in problem(forced, 403, "forbidden")["detail"]
    admin = await issue(stack, "default", name="an admin", roles=["tenant-admin"])
    async with plain_client(control_plane.url, headers=admin) as person:
        assert (await person.post(f"/v1/objects/Agent/{name}/takeover", json={})).status_code == 200
        problem(await person.post("/v1/objects/Region/local/takeover", json={}), 403, "forbidden")
        problem(await person.post(f"/v1/objects/Agent/{name}-none/takeover", json={}), 404, "not_found")


async def test_a_tenant_that_git_has_is_not_deleted_by_people(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, tenant(name), within(name, provider("x", "x")), owner=git(name), places=[at("tenants.yaml", 1), at("tenants.yaml", 9)])
    (theirs,) = await apply(api, within(name, provider("x", "x")))
    assert error(theirs)["suggestion"].endswith(f"hansa takeover modelprovider/x --tenant {name}")
    refused = problem(await api.delete(f"/v1/tenants/{name}", params={"confirm": name}), 409, "conflict")
    assert "tenants.yaml:1" in refused["detail"]
    assert (await api.get(f"/v1/tenants/{name}")).json()["state"] == "active"
    there = {"hansa-tenant": name}
    assert (await api.post(f"/v1/objects/Tenant/{name}/takeover", json={}, headers=there)).status_code == 200
    assert (await api.delete(f"/v1/tenants/{name}", params={"confirm": name})).status_code == 202


def test_what_makes_an_object_ones_own_can_be_typed_as_it_stands() -> None:
    assert hint("Agent", "a", Owner()) == "to make it yours: hansa takeover agent/a"
    assert hint("Agent", "a", Owner("kubernetes", "u"), tenant="acme").endswith("agent/a --tenant acme --to kubernetes --origin u")
    assert hint("Tenant", "acme", Owner("git", "/my agents//"), tenant="acme").endswith("tenant/acme --to git --origin '/my agents//'")


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ({"manager": "git"}, "origin"),
        ({"manager": "kubernetes"}, "origin"),
        ({"manager": "git", "origin": "https://me:secret@git.example/x.git//"}, "password"),
        ({"manager": "git", "origin": "https://token@git.example/x.git//"}, "password"),
        ({"manager": "git", "origin": "x\u0000"}, "origin"),
        ({"manager": "git", "origin": "x" * 513}, "origin"),
        ({"manager": "git", "origin": "x", "commit": "a b"}, "commit"),
        ({"manager": "flux", "origin": "x"}, "manager"),
    ],
    ids=["no repository", "no cluster", "a password", "a token", "a NUL", "too long", "no commit", "no manager"],
)
async def test_an_owner_that_is_nobody_is_refused(api: httpx2.AsyncClient, owner: dict[str, str], said: str) -> None:
    for verb in ("apply", "plan", "delete"):
        assert said in problem(await api.post(f"/v1/objects:{verb}", json={**owner, "objects": []}), 422, "invalid")["detail"]
