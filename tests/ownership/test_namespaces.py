"""A namespace leads to one tenant: the one that claims it, or the one of that name."""

import asyncio
import json
from typing import Any

import asyncpg
import httpx2

from api.problem import problem
from hansa.db.pool import open_owner
from hansa.tenants.service import tenant_id
from isolation.neighbours import keys_of
from isolation.neighbours import tenant as with_bindings
from ownership.asking import actions, answer, apply, error, git, kubernetes, tenant, within
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client


async def made(api: httpx2.AsyncClient, name: str, *namespaces: str, **more: Any) -> str:
    """A tenant with namespaces and a model, for all of which Git answers."""
    results = await apply(api, tenant(name, namespaces=list(namespaces), **more), within(name, SCRIPTED), owner=git(name))
    assert set(actions(results)) <= {"created", "configured", "unchanged"}, results
    return name


async def test_an_object_belongs_to_the_tenant_that_claims_its_namespace(reconciler: httpx2.AsyncClient, name: str) -> None:
    await made(reconciler, name, f"{name}-dev", f"{name}-prod")
    results = await apply(reconciler, within(f"{name}-dev", agent("one")), within(name, agent("two")), owner=git(name))
    assert [(each["action"], each["tenant"]) for each in results] == [("created", name)] * 2
    there = {"hansa-tenant": name}
    assert [each["name"] for each in (await reconciler.get("/v1/agents", headers=there)).json()["data"]] == ["one", "two"]
    for namespace, expected in ((f"{name}-dev", ["one"]), (f"{name}-prod", []), (name, ["two", "scripted"])):
        found = (await reconciler.get("/v1/objects", params={"namespace": namespace})).json()["data"]
        assert [each["name"] for each in found] == expected, found
    assert (await reconciler.get("/v1/objects/Agent/one", params={"namespace": f"{name}-dev"})).json()["origin"] == git(name)["origin"]


async def test_a_tenant_and_what_is_in_its_namespaces_may_come_together(api: httpx2.AsyncClient, name: str) -> None:
    objects = [within(f"{name}-ns", agent("a")), within(f"{name}-ns", SCRIPTED), tenant(name, namespaces=[f"{name}-ns"])]
    assert [(each["action"], each["tenant"]) for each in await apply(api, *objects)] == [("created", name)] * 3


async def test_a_second_claim_is_refused_with_the_one_who_has_it(api: httpx2.AsyncClient, name: str) -> None:
    await made(api, f"{name}-a", f"{name}-ns")
    claiming = tenant(f"{name}-b", namespaces=[f"{name}-free", f"{name}-ns"])
    refused, lost = await apply(api, claiming, within(f"{name}-ns", agent("mine")))
    assert (error(refused)["path"], error(refused)["code"]) == ("spec.namespaces[1]", "duplicate")
    assert f"tenant '{name}-a' has it" in error(refused)["message"]
    assert error(lost)["path"] == "metadata.namespace", "it is not written into the tenant that has the namespace"
    problem(await api.get(f"/v1/tenants/{name}-b"), 404, "not_found")
    assert actions(await apply(api, tenant(f"{name}-c", namespaces=[f"{name}-free"]))) == ["created"], "a refused claim claims nothing"


async def test_the_name_of_a_tenant_is_claimed_by_itself(api: httpx2.AsyncClient, name: str) -> None:
    await made(api, f"{name}-a", f"{name}-ns")
    (refused,) = await apply(api, tenant(f"{name}-b", namespaces=[f"{name}-a"]))
    assert f"tenant '{name}-a' has it" in error(refused)["message"]
    (named,) = await apply(api, tenant(f"{name}-ns"))
    assert error(named)["path"] == "metadata.name"
    (own,) = await apply(api, tenant(f"{name}-d", namespaces=[f"{name}-d"]))
    assert own["action"] == "created"
    assert error((await apply(api, tenant(f"{name}-e", namespaces=["default"])))[0])["code"] == "duplicate"


async def test_of_two_claims_at_the_same_time_one_is_taken(api: httpx2.AsyncClient, name: str) -> None:
    for turn in range(5):
        claims = [tenant(f"{name}-{which}{turn}", namespaces=[f"{name}-ns{turn}"]) for which in "ab"]
        results = [each[0] for each in await asyncio.gather(*(apply(api, claim) for claim in claims))]
        assert sorted(actions(results)) == ["created", "failed"]


async def test_a_namespace_in_which_objects_stand_is_not_dropped(api: httpx2.AsyncClient, name: str) -> None:
    await made(api, name, f"{name}-old")
    await apply(api, within(f"{name}-old", agent("a")), within(f"{name}-old", agent("b")), owner=kubernetes(name))
    (refused,) = await apply(api, tenant(name, namespaces=[f"{name}-new"]), owner=git(name))
    assert (error(refused)["path"], error(refused)["code"]) == ("spec.namespaces", "in_use")
    assert f"2 in '{name}-old' (Agent/a, ...)" in error(refused)["message"]
    body = {**kubernetes(name), "objects": [{"kind": "Agent", "name": each, "namespace": f"{name}-old"} for each in "ab"]}
    assert actions((await answer(api, "delete", body))["results"]) == ["deleted", "deleted"]
    assert actions(await apply(api, tenant(name, namespaces=[f"{name}-new"]), owner=git(name))) == ["configured"]
    (gone,) = await apply(api, within(f"{name}-old", agent("a")), owner=kubernetes(name))
    assert "there is no tenant" in error(gone)["message"]
    assert actions(await apply(api, tenant(f"{name}-heir", namespaces=[f"{name}-old"]))) == ["created"]


async def test_a_namespace_that_is_just_being_dropped_takes_no_object(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await made(api, name, f"{name}-old")
    key = (await api.post("/v1/api-keys", json={"name": name, "roles": ["developer"]}, headers={"hansa-tenant": name})).json()["key"]
    body = {"objects": [{"manifest": within(f"{name}-old", agent("late"))}]}
    admin = await asyncpg.connect(stack.admin_url)
    try:
        async with admin.transaction():  # what applying the Tenant does
            await admin.execute("SELECT FROM hansa.tenants WHERE tenant_id = $1 FOR NO KEY UPDATE", tenant_id(name))
            await admin.execute("DELETE FROM hansa.namespaces WHERE name = $1", f"{name}-old")
            late = asyncio.create_task(api.post("/v1/objects:apply", json=body, headers={"authorization": f"Bearer {key}"}))
            assert not (await asyncio.wait([late], timeout=0.3))[0], "it waits"
    finally:
        await admin.close()
    assert error((await late).json()["results"][0])["path"] == "metadata.namespace"


async def test_a_name_is_used_once_in_a_tenant_and_not_moved_by_accident(api: httpx2.AsyncClient, name: str) -> None:
    await made(api, name, f"{name}-dev", f"{name}-prod")
    await apply(api, within(f"{name}-dev", agent("same")), owner=git(name))
    (refused,) = await apply(api, within(f"{name}-prod", agent("same")), owner=git(name))
    assert (error(refused)["path"], error(refused)["code"]) == ("metadata.namespace", "conflict")
    assert f"stands in the namespace '{name}-dev'" in error(refused)["message"]
    twice = await apply(api, *(within(f"{name}-{each}", agent("twin")) for each in ("dev", "prod")), owner=git(name))
    assert actions(twice) == ["created", "failed"]
    body = {**git(name), "objects": [{"kind": "Agent", "name": "same", "namespace": f"{name}-prod"}]}
    assert actions((await answer(api, "delete", body))["results"]) == ["absent"], "that one stands elsewhere"
    (moved,) = await apply(api, within(f"{name}-prod", agent("same")), owner=git(name), force=True)
    assert moved["action"] == "configured"


async def test_one_who_acts_in_its_own_tenant_only_uses_all_of_its_namespaces(api: httpx2.AsyncClient, name: str) -> None:
    await made(api, name, f"{name}-dev")
    await made(api, f"{name}-x", f"{name}-y")
    key = (await api.post("/v1/api-keys", json={"name": name, "roles": ["developer"]}, headers={"hansa-tenant": name})).json()["key"]
    theirs = {"authorization": f"Bearer {key}"}
    objects = [{"manifest": within(each, agent(f"a-{each}"))} for each in (f"{name}-dev", name, f"{name}-y", f"{name}-x", f"{name}-none")]
    results = (await api.post("/v1/objects:apply", json={"objects": objects}, headers=theirs)).json()["results"]
    assert actions(results) == ["created", "created", "failed", "failed", "failed"]
    said = {error(each)["message"] for each in results[2:]}
    assert said == {f"this key belongs to tenant '{name}'; leave namespace out or write that"}, "alike whether it is there or not"
    for namespace, many in ((f"{name}-dev", 1), (f"{name}-y", 0), (f"{name}-none", 0)):
        listed = await api.get("/v1/objects", params={"kind": "Agent", "namespace": namespace}, headers=theirs)
        assert len(listed.json()["data"]) == many


async def test_tool_servers_of_one_name_are_asked_each_for_its_own_tenant(reconciler: httpx2.AsyncClient, name: str) -> None:
    tenants = [f"{name}-{which}" for which in "ab"]
    servers = [
        {
            "apiVersion": "hansa.dev/v1alpha1",
            "kind": "ToolServer",
            "metadata": {"name": "same", "namespace": each},
            "spec": {"endpoint": f"http://127.0.0.{number}:9/mcp"},
        }
        for number, each in enumerate(tenants, 1)
    ]
    results = await apply(reconciler, *map(tenant, tenants), *servers, owner=git(name))
    assert actions(results) == ["created"] * 4
    assert ["127.0.0.1" in results[2]["note"], "127.0.0.2" in results[3]["note"]] == [True, True], results


async def test_all_that_one_owner_has_is_listed_over_all_tenants_in_pages(
    api: httpx2.AsyncClient, reconciler: httpx2.AsyncClient, name: str
) -> None:
    for which in "abc":
        await made(reconciler, f"{name}-{which}")  # owners of their own
    objects = [within(f"{name}-{which}", agent(f"x-{number}")) for which in "acb" for number in range(3)]
    await apply(reconciler, *objects, owner=git(name))
    asked: dict[str, Any] = {"manager": "git", "origin": git(name)["origin"], "namespace": "*"}
    whole = [f"{name}-{which}/x-{number}" for which in "abc" for number in range(3)]
    for size in (1, 3, 4, 9, 200):
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = (await reconciler.get("/v1/objects", params={**asked, "limit": size, **after})).json()
            found += [f"{each['manifest']['metadata']['namespace']}/{each['name']}" for each in page["data"]]
            assert len(page["data"]) <= size
            if not page["has_more"]:
                break
            after = {"after": page["next"]}
        assert found == whole, size
    problem(await reconciler.get("/v1/objects", params={"namespace": "*", "manager": "git"}), 422, "invalid")
    key = (await api.post("/v1/api-keys", json={"name": name, "roles": ["viewer"]}, headers={"hansa-tenant": f"{name}-b"})).json()["key"]
    own = (await reconciler.get("/v1/objects", params=asked, headers={"authorization": f"Bearer {key}"})).json()["data"]
    assert [each["manifest"]["metadata"]["namespace"] for each in own] == [f"{name}-b"] * 3


async def test_a_tenant_that_is_gone_leaves_its_namespaces(api: httpx2.AsyncClient, name: str) -> None:
    await made(api, name, f"{name}-ns")
    await api.post(f"/v1/objects/Tenant/{name}/takeover", json={}, headers={"hansa-tenant": name})
    assert (await api.delete(f"/v1/tenants/{name}", params={"confirm": name, "policy": "Delete"})).status_code == 202
    async with asyncio.timeout(30):
        while (await api.get(f"/v1/tenants/{name}")).status_code != 404:
            await asyncio.sleep(0.1)
    assert actions(await apply(api, tenant(f"{name}-heir", namespaces=[f"{name}-ns", name]))) == ["created"]


async def test_a_binding_in_another_tenants_name_opens_nothing_there(
    api: httpx2.AsyncClient, stack: Stack, control_plane: Process, name: str
) -> None:
    """No Tenant says such a thing. A namespace that was given up and is a tenant's name a moment later does, and so may whoever looks after
    a tenant's own database."""
    (created,) = await apply(api, with_bindings(name, ["tenant-admin"]))
    assert created["action"] == "created", created
    bindings = [
        {
            "roles": ["tenant-admin"],
            "serviceAccounts": ["tenant-admin-west", "tenant-admin-east"],
            "namespaces": ["default", f"{name}-west"],
        }
    ]
    async with open_owner(stack.settings.database) as connection:
        await connection.execute("SELECT set_config('hansa.tenant', $1, true)", str(tenant_id(name)))
        await connection.execute("UPDATE hansa.tenants SET role_bindings = $1 WHERE name = $2", json.dumps(bindings), name)
    async with plain_client(control_plane.url, headers={"authorization": f"Bearer {stack.key}", "hansa-tenant": name}) as owner:
        keys = await keys_of(owner, ["tenant-admin"])
    async with plain_client(control_plane.url, headers=keys["tenant-admin@west"]) as west:
        assert {each["namespace"] for each in (await west.get("/v1/whoami")).json()["namespaces"]} == {"default", f"{name}-west"}
        model = {**SCRIPTED, "metadata": {"name": name}}
        for force in (False, True):
            there, here = await apply(west, within("default", model), within(f"{name}-west", model), force=force)
            assert (error(there)["path"], error(there)["code"]) == ("metadata.namespace", "reference")
            assert here["action"] in ("created", "unchanged"), "the control: where it is bound it may"
        named = {"objects": [{"kind": "ModelProvider", "name": "scripted", "namespace": "default"}]}
        (kept,) = (await answer(west, "delete", named))["results"]
        assert error(kept)["code"] == "reference"
    problem(await api.get(f"/v1/objects/ModelProvider/{name}"), 404, "not_found")
