"""A plan is what is done then, to the letter, and changes nothing itself."""

import random
from typing import Any

import httpx2
import pytest

from api.problem import problem
from audit.trails import end
from ownership.asking import Manifest, Result, actions, answer, apply, at, delete, error, git, kubernetes, provider, stored, tenant
from samples import agent
from stack import Stack


async def plan(
    api: httpx2.AsyncClient, manifests: list[Manifest], *, owner: dict[str, Any] | None = None, gone: list[tuple[str, str]] | None = None
) -> dict[str, Any]:
    objects = [{"manifest": each} for each in manifests]
    names = [{"kind": kind, "name": name} for kind, name in gone or []]
    return await answer(api, "plan", {**(owner or {}), "objects": objects, "delete": names})


async def test_a_plan_says_what_would_change_and_changes_nothing(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await apply(api, agent(f"{name}-a", description="old", limits={"turns": 5}), agent(f"{name}-b"), agent(f"{name}-d"))
    before, last = await stored(api, "Agent", f"{name}-a"), await end(stack)
    wanted = [agent(f"{name}-a", description="new"), agent(f"{name}-b"), agent(f"{name}-c"), agent(f"{name}-e", modle={})]
    said = await plan(api, wanted, gone=[("Agent", f"{name}-d"), ("Agent", f"{name}-none")])
    assert actions(said["results"]) == ["configured", "unchanged", "created", "failed", "deleted", "absent"]
    assert said["results"][0]["changes"] == [
        {"path": "spec.description", "before": "old", "after": "new"},
        {"path": "spec.limits", "before": {"turns": 5}, "after": None},
    ]
    assert (said["results"][0]["generation"], said["guard"]) == (2, "")
    assert await stored(api, "Agent", f"{name}-a") == before
    problem(await api.get(f"/v1/agents/{name}-c"), 404, "not_found")
    assert (await api.get(f"/v1/agents/{name}-d")).status_code == 200
    assert await end(stack) == last


async def test_changes_are_named_down_to_the_entry_of_a_list(api: httpx2.AsyncClient, name: str) -> None:
    one = {"plugin": "tools", "allow": ["clock"]}
    await apply(api, agent(name, tools=[one]))
    (result,) = (await plan(api, [agent(name, tools=[{**one, "allow": ["clock", "calculator"]}])]))["results"]
    assert result["changes"] == [{"path": "spec.tools[0].allow[1]", "before": None, "after": "calculator"}]


async def test_a_plan_also_says_what_would_be_refused(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(name), owner=git(name), places=[at("a.yaml", 2)])
    said = await plan(api, [agent(name)], gone=[("Agent", name)])
    assert "a.yaml:2" in error(said["results"][0])["message"]
    assert error(said["results"][1])["code"] == "conflict"


async def test_the_guard_speaks_in_a_plan_and_does_not_refuse_it(api: httpx2.AsyncClient, name: str) -> None:
    names = [f"{name}-{number}" for number in range(11)]
    await apply(api, *map(agent, names), owner=git(name))
    said = await plan(api, [], owner=git(name), gone=[("Agent", each) for each in names])
    assert actions(said["results"]) == ["deleted"] * 11
    assert "11 of 11 Agents" in said["guard"]


async def test_a_planned_tenant_is_not_made_and_a_planned_end_of_one_is_none(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, tenant(f"{name}-old"))
    said = await plan(api, [tenant(name, displayName="New", namespaces=[f"{name}-ns"])], gone=[("Tenant", f"{name}-old")])
    assert [(each["action"], each["tenant"]) for each in said["results"]] == [("created", name), ("deleted", f"{name}-old")]
    assert f"the Tenant '{name}-old'" in said["guard"]
    problem(await api.get(f"/v1/tenants/{name}"), 404, "not_found")
    assert (await api.get(f"/v1/tenants/{name}-old")).json()["state"] == "active"
    assert actions(await apply(api, tenant(f"{name}-other", namespaces=[f"{name}-ns"]))) == ["created"]


def disagreement(planned: list[Result], done: list[Result]) -> list[str]:
    """Where what was done is not what was planned."""
    if len(planned) != len(done):
        return [f"{len(planned)} planned, {len(done)} done"]
    apart = {"changes": None, "status": None}  # a plan tells changes, and what is done how it stands then
    pairs = [({**one, **apart}, {**other, **apart}) for one, other in zip(planned, done, strict=True)]
    return [f"planned {one}, done {other}" for one, other in pairs if one != other]


def test_a_disagreement_is_found() -> None:
    done = {"kind": "Agent", "name": "a", "action": "created", "generation": 1}
    assert disagreement([done], [done]) == []
    assert disagreement([{**done, "action": "configured"}], [done])
    assert disagreement([{**done, "generation": 2}], [done])
    assert disagreement([done], [])


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_planned_is_what_is_done(api: httpx2.AsyncClient, name: str, seed: int) -> None:
    """Any requests, right and wrong ones, by three owners on a few objects: each is planned twice, and then done."""
    drawn = random.Random(seed)
    owners: list[dict[str, Any]] = [{}, git(name), kubernetes(name)]

    def manifest() -> Manifest:
        which = f"{name}-{drawn.randrange(5)}"
        match drawn.randrange(8):
            case 0:
                return provider(which, which)
            case 1:
                return agent(which, model={"alias": f"{name}-{drawn.randrange(5)}"})
            case 2:
                return agent(which, modle={})
            case 3:
                return {"kind": "Agnet"}
            case _:
                return agent(which, description=str(drawn.randrange(3)))

    for _ in range(12):
        owner = drawn.choice(owners)
        manifests = [manifest() for _ in range(drawn.randrange(5))]
        gone = [(drawn.choice(["Agent", "ModelProvider"]), f"{name}-{drawn.randrange(5)}") for _ in range(drawn.randrange(4))]
        first = await plan(api, manifests, owner=owner, gone=gone)
        assert (await plan(api, manifests, owner=owner, gone=gone)) == first, "a plan changed something"
        applied = await apply(api, *manifests, owner=owner)
        assert disagreement(first["results"], [*applied, *await delete(api, *gone, owner=owner)]) == []


async def test_a_plan_is_answered_again_by_its_key(api: httpx2.AsyncClient, name: str) -> None:
    body = {"objects": [{"manifest": agent(name)}]}
    answers = [await api.post("/v1/objects:plan", json=body, headers={"idempotency-key": name}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"
    problem(await api.get(f"/v1/agents/{name}"), 404, "not_found")
