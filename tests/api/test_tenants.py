"""One who may act in any tenant makes them and works in them; nobody else reaches further than the own one."""

import asyncio
from typing import Any, cast

import httpx2
import pytest

from api.keys import Keys
from api.problem import problem
from hansa import ids
from hansa.auth.model import Principal
from hansa.db.pool import Database
from hansa.errors import Conflict
from hansa.tenants.service import Tenants, tenant_id
from samples import SCRIPTED, agent

Manifest = dict[str, Any]


@pytest.fixture
def name() -> str:
    """A tenant that nobody has made."""
    return f"t-{ids.new_id().hex[-10:]}"


def tenant(name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def within(namespace: str, manifest: Manifest) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


async def apply(api: httpx2.AsyncClient, *manifests: Manifest, **options: Any) -> list[dict[str, Any]]:
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]}, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


async def test_one_request_makes_a_tenant_with_all_that_is_in_it(api: httpx2.AsyncClient, name: str) -> None:
    results = await apply(api, within(name, agent("echo")), within(name, SCRIPTED), tenant(name, displayName="Acme", weight=3))
    assert [(each["action"], each["tenant"]) for each in results] == [("created", name)] * 3
    found = (await api.get(f"/v1/tenants/{name}")).json()
    assert (found["display_name"], found["weight"], found["suspended"]) == ("Acme", 3, False)
    there = {"hansa-tenant": name}
    run = await api.post("/v1/agents/echo/runs", params={"wait": 10}, json={"input": "hello"}, headers=there)
    assert (run.json()["state"], run.json()["output"]) == ("completed", "hello")
    problem(await api.get(f"/v1/runs/{run.json()['id']}"), 404, "not_found")
    assert (await api.get(f"/v1/runs/{run.json()['id']}", headers=there)).status_code == 200
    assert [each["action"] for each in await apply(api, tenant(name, displayName="Acme", weight=3))] == ["unchanged"]


async def test_two_tenants_have_agents_of_one_name_and_neither_sees_the_others(api: httpx2.AsyncClient, name: str) -> None:
    names = [f"{name}-a", f"{name}-b"]
    manifests = [within(each, agent("same", description=each)) for each in names]
    results = await apply(api, *map(tenant, names), *(within(each, SCRIPTED) for each in names), *manifests)
    assert {each["action"] for each in results} == {"created"}
    for each in names:
        (found,) = (await api.get("/v1/agents", headers={"hansa-tenant": each})).json()["data"]
        assert found["description"] == each
    problem(await api.get("/v1/agents/same"), 404, "not_found")


async def test_an_object_in_a_tenant_that_is_not_there_is_refused_with_its_place(api: httpx2.AsyncClient, name: str) -> None:
    refused, kept = await apply(api, within(name, agent("lost")), agent("kept"))
    assert [(each["path"], each["code"]) for each in refused["errors"]] == [("metadata.namespace", "reference")]
    assert name in refused["errors"][0]["message"]
    assert kept["action"] in ("created", "unchanged")
    problem(await api.get("/v1/agents", headers={"hansa-tenant": name}), 404, "not_found")


async def test_nobody_else_acts_in_another_tenant_and_learns_whether_it_is_there(api: httpx2.AsyncClient, keys: Keys, name: str) -> None:
    await apply(api, tenant(name))
    for role, key in keys.of_role.items():
        if role in ("platform-admin", "reconciler", "delegate"):  # may, or may not even read agents
            continue
        there = await api.get("/v1/agents", headers={**key, "hansa-tenant": name})
        nowhere = await api.get("/v1/agents", headers={**key, "hansa-tenant": f"{name}-not"})
        assert "tenants:act" in problem(there, 403, "forbidden")["detail"]
        assert problem(there, 403, "forbidden")["detail"] == problem(nowhere, 403, "forbidden")["detail"]
        assert (await api.get("/v1/agents", headers={**key, "hansa-tenant": "default"})).status_code == 200
        problem(await api.get(f"/v1/tenants/{name}", headers=key), 403, "forbidden")
    (made, moved) = await apply(api, tenant(f"{name}-mine"), within(name, SCRIPTED), headers=keys.of_role["tenant-admin"])
    assert (made["errors"][0]["path"], moved["errors"][0]["path"]) == ("kind", "metadata.namespace")
    problem(await api.get(f"/v1/tenants/{name}-mine"), 404, "not_found")


async def test_a_key_that_was_made_in_a_tenant_is_its_own(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, tenant(name), within(name, SCRIPTED), within(name, agent("echo")))
    made = await api.post("/v1/api-keys", json={"name": "theirs", "roles": ["tenant-admin"]}, headers={"hansa-tenant": name})
    theirs = {"authorization": f"Bearer {made.json()['key']}"}
    assert (await api.get("/v1/whoami", headers=theirs)).json()["tenant"] == name
    assert [each["name"] for each in (await api.get("/v1/agents", headers=theirs)).json()["data"]] == ["echo"]
    assert [each["name"] for each in (await api.get("/v1/objects", params={"kind": "Tenant"}, headers=theirs)).json()["data"]] == [name]
    problem(await api.get("/v1/agents", headers={**theirs, "hansa-tenant": "default"}), 403, "forbidden")
    assert made.json()["id"] not in (await api.get("/v1/api-keys", params={"limit": 200})).text


async def test_requests_that_write_in_each_others_tenants_do_not_wait_for_each_other(api: httpx2.AsyncClient, name: str) -> None:
    one, two = f"{name}-a", f"{name}-b"
    await apply(api, tenant(one), tenant(two), within(one, SCRIPTED), within(two, SCRIPTED))

    async def write(number: int) -> list[dict[str, Any]]:
        mine, theirs = (one, two) if number % 2 else (two, one)
        return await apply(api, tenant(mine, displayName=str(number)), within(theirs, agent("echo", description=str(number))))

    answers = await asyncio.gather(*map(write, range(12)))
    assert {each["action"] for answer in answers for each in answer} <= {"created", "configured", "unchanged"}


async def test_all_tenants_are_listed_by_name_in_pages(api: httpx2.AsyncClient, name: str) -> None:
    names = [f"{name}-{number}" for number in range(3)]
    await apply(api, *map(tenant, names))
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (await api.get("/v1/tenants", params={"limit": 2, **after})).json()
        found += [each["name"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["next"]}
    assert [each for each in found if each.startswith(name)] == names
    assert found == sorted(set(found))
    assert "default" in found


class Closing:
    """A database in which the tenant is closed just after somebody has read that it is open."""

    def __init__(self) -> None:
        self.tenants = Tenants(cast(Database, self), "local", stale_seconds=60.0)
        self._states = ["active", "archived"]

    async def system(self, *_: Any) -> list[dict[str, Any]]:
        state = self._states.pop(0)
        if state == "active":
            await self.tenants.forget()
        return [{"tenant_id": tenant_id("acme"), "state": state, "database": "Shared"}]

    def expect(self, *_: Any) -> None:
        """It is where it is."""


async def test_a_tenant_that_is_closed_while_it_is_looked_up_is_looked_up_again() -> None:
    """Else it would be known as open for two seconds more."""
    tenants = Closing().tenants
    principal = Principal(tenant_id=tenant_id("default"), tenant="default", name="key:people", roles=("platform-admin",))
    assert (await tenants.acting(principal, "acme")).tenant == "acme"
    with pytest.raises(Conflict, match="archived"):
        await tenants.acting(principal, "acme")
