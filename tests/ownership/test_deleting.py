"""What an owner no longer has goes: only its own, what others need last, and never many by mistake."""

import asyncpg
import httpx2
import pytest

from api.problem import problem
from audit.trails import end, trail
from hansa.tenants.service import tenant_id
from ownership.asking import actions, answer, apply, delete, error, git, kubernetes, provider, stored, tenant, within
from samples import SCRIPTED, agent
from stack import Stack


async def test_objects_go_in_reverse_order_whatever_order_they_are_named_in(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, provider(name, name), agent(name, model={"alias": name}), owner=git(name))
    assert actions(await delete(api, ("ModelProvider", name), ("Agent", name), owner=git(name))) == ["deleted", "deleted"]
    assert actions(await delete(api, ("ModelProvider", name), ("Agent", name), owner=git(name))) == ["absent", "absent"]


async def test_what_agents_still_use_stays_and_the_rest_goes(api: httpx2.AsyncClient, name: str) -> None:
    both = [provider(f"{name}-{each}", name) for each in "ab"]
    await apply(api, *both, agent(f"{name}-user", model={"alias": name}), agent(f"{name}-other"), owner=git(name))
    names = [("ModelProvider", f"{name}-a"), ("ModelProvider", f"{name}-b"), ("Agent", f"{name}-other")]
    results = await delete(api, *names, owner=git(name))
    assert actions(results) == ["deleted", "failed", "deleted"], "one of two that bring a model may go, not both"
    assert (error(results[1])["code"], f"{name}-user" in error(results[1])["message"]) == ("in_use", True)


async def test_what_an_agent_misses_already_keeps_nothing_else(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, provider(f"{name}-a", name), provider(f"{name}-b", f"{name}-other"), owner=git(name))
    await apply(api, agent(name, model={"alias": name}), owner=git(name))
    assert actions(await apply(api, provider(f"{name}-a", f"{name}-renamed"), owner=git(name))) == ["configured"]
    assert actions(await delete(api, ("ModelProvider", f"{name}-b"), owner=git(name))) == ["deleted"]
    assert actions(await delete(api, ("Agent", name), ("ModelProvider", f"{name}-a"), owner=git(name))) == ["deleted", "deleted"]


async def test_what_lies_in_a_database_that_is_not_known_here_is_not_said_to_be_gone(
    api: httpx2.AsyncClient, stack: Stack, name: str
) -> None:
    await apply(api, tenant(name), within(name, SCRIPTED), within(name, agent("echo")), owner=git(name))
    body = {**git(name), "objects": [{"kind": "Agent", "name": "echo", "namespace": name}]}
    where = "UPDATE hansa.tenants SET database = $1 WHERE tenant_id = $2"
    admin = await asyncpg.connect(stack.admin_url)
    try:
        await admin.execute(where, "Dedicated", tenant_id(name))
        (refused,) = (await answer(api, "delete", body))["results"]
        for path in ("/v1/objects", "/v1/objects/Agent/echo"):
            problem(await api.get(path, params={"namespace": name}), 503, "unavailable")
        await admin.execute(where, "Shared", tenant_id(name))
    finally:
        await admin.close()
    assert error(refused)["code"] == "unavailable"
    assert actions((await answer(api, "delete", body))["results"]) == ["deleted"]


async def test_only_its_own_objects_go(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(f"{name}-people"))
    await apply(api, agent(f"{name}-other"), owner=git(f"{name}-other"))
    await apply(api, agent(f"{name}-mine"), owner=git(name))
    names = [("Agent", f"{name}-{each}") for each in ("people", "other", "mine", "none")]
    results = await delete(api, *names, owner=git(name))
    assert actions(results) == ["failed", "failed", "deleted", "absent"]
    assert [error(each)["code"] for each in results[:2]] == ["conflict", "conflict"]
    for each in ("people", "other"):
        assert (await stored(api, "Agent", f"{name}-{each}"))["generation"] == 1


@pytest.mark.parametrize(("have", "gone", "done"), [(11, 10, True), (11, 11, False), (40, 12, True), (40, 13, False)])
async def test_the_guard_lets_ten_go_and_thirty_of_a_hundred(
    api: httpx2.AsyncClient, name: str, have: int, gone: int, *, done: bool
) -> None:
    names = [("Agent", f"{name}-{number}") for number in range(have)]
    await apply(api, *(agent(each) for _, each in names), owner=git(name))
    await apply(api, agent(f"{name}-others"), owner=kubernetes(name))  # counts for nobody but its owner
    body = {**git(name), "objects": [{"kind": kind, "name": each} for kind, each in names[:gone]]}
    answered = await api.post("/v1/objects:delete", json=body)
    left = (await api.get("/v1/objects", params={"origin": git(name)["origin"], "limit": 200})).json()["data"]
    if done:
        assert actions(answered.json()["results"]) == ["deleted"] * gone
    else:
        assert f"{gone} of {have} Agents" in problem(answered, 409, "mass_deletion")["detail"]
        assert actions((await answer(api, "delete", {**body, "allow_mass_delete": True}))["results"]) == ["deleted"] * gone
    assert len(left) == (have - gone if done else have)


async def test_names_that_are_not_there_do_not_count_for_the_guard(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(name), owner=git(name))
    names = [("Agent", name), *(("Agent", f"{name}-none-{number}") for number in range(50)), ("Agent", name)]
    assert actions(await delete(api, *names, owner=git(name))) == ["deleted", *["absent"] * 51]


async def test_a_tenant_goes_only_with_a_yes_and_the_way_it_says(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await apply(api, tenant(name), within(name, SCRIPTED), within(name, agent("echo")), owner=git(name))
    body = {**git(name), "objects": [{"kind": "Tenant", "name": name}, {"kind": "Agent", "name": "echo", "namespace": name}]}
    assert f"the Tenant '{name}'" in problem(await api.post("/v1/objects:delete", json=body), 409, "mass_deletion")["detail"]
    assert (await api.get("/v1/agents/echo", headers={"hansa-tenant": name})).status_code == 200
    last = await end(stack)
    results = (await answer(api, "delete", {**body, "allow_mass_delete": True}))["results"]
    assert [(each["action"], each["tenant"]) for each in results] == [("deleted", name)] * 2
    assert (await api.get(f"/v1/tenants/{name}")).json()["state"] == "archived"
    problem(await api.get("/v1/agents", headers={"hansa-tenant": name}), 409, "conflict")
    assert [each["action"] for each in await trail(stack, after=last)] == ["tenant.archived"]
    assert [each["action"] for each in await trail(stack, name)][-2:] == ["object.deleted", "tenant.archived"]
    assert actions((await answer(api, "delete", {**body, "allow_mass_delete": True}))["results"])[0] == "absent"


async def test_a_tenant_that_is_not_to_be_deleted_stays(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, tenant(name, preventDeletion=True), owner=git(name))
    (refused,) = await delete(api, ("Tenant", name), owner=git(name), allow_mass_delete=True)
    assert (error(refused)["code"], "spec.preventDeletion" in error(refused)["suggestion"]) == ("prevented", True)
    assert (await api.get(f"/v1/tenants/{name}")).json()["state"] == "active"


async def test_a_reconciler_deletes_in_any_tenant_and_a_developer_in_its_own(
    api: httpx2.AsyncClient, reconciler: httpx2.AsyncClient, name: str
) -> None:
    made = [tenant(name), within(name, SCRIPTED), within(name, agent("echo"))]
    assert set(actions(await apply(reconciler, *made, owner=kubernetes(name)))) == {"created"}
    named = {"kind": "Agent", "name": "echo", "namespace": name}
    (gone,) = (await answer(reconciler, "delete", {**kubernetes(name), "objects": [named]}))["results"]
    assert (gone["action"], gone["tenant"]) == ("deleted", name)
    key = (await api.post("/v1/api-keys", json={"name": name, "roles": ["developer"]})).json()["key"]
    body = {"objects": [named, {"kind": "Tenant", "name": name}, {"kind": "Agnet", "name": "x"}]}
    refused = (await api.post("/v1/objects:delete", json=body, headers={"authorization": f"Bearer {key}"})).json()["results"]
    assert [(error(each)["path"], error(each)["code"]) for each in refused] == [
        ("namespace", "reference"),
        ("kind", "forbidden"),
        ("kind", "reference"),
    ]


async def test_a_deletion_that_is_asked_again_by_its_key_is_answered_as_the_first(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(name), owner=git(name))
    body = {**git(name), "objects": [{"kind": "Agent", "name": name}]}
    for replayed in (False, True):
        found = await api.post("/v1/objects:delete", json=body, headers={"idempotency-key": name})
        assert actions(found.json()["results"]) == ["deleted"]
        assert ("idempotency-replayed" in found.headers) == replayed


async def test_an_object_that_comes_back_goes_on_counting_its_revisions(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(name), owner=git(name))
    await delete(api, ("Agent", name), owner=git(name))
    (again,) = await apply(api, agent(name, description="back"))
    assert (again["action"], again["generation"], again["revision"]) == ("created", 1, 2)


async def test_too_many_names_are_refused_with_the_most(api: httpx2.AsyncClient) -> None:
    body = {"objects": [{"kind": "Agent", "name": "x"}] * 5001}
    assert "5000" in problem(await api.post("/v1/objects:delete", json=body), 422, "invalid")["detail"]
