"""Service accounts: programs with a name of their own, whose keys come and go; never more than their maker, unless the tenant binds it."""

from typing import Any

import httpx2
import pytest

from api.keys import bearer, issue
from api.problem import problem
from hansa import ids
from identity.place import Town, issuer, tenant
from stack import Process, Stack, plain_client

Json = dict[str, Any]


@pytest.fixture
def name() -> str:
    return f"a-{ids.new_id().hex[-10:]}"


async def account(api: httpx2.AsyncClient, name: str, *roles: str, **options: Any) -> httpx2.Response:
    return await api.post("/v1/service-accounts", json={"name": name, "roles": list(roles)}, **options)


async def key_of(api: httpx2.AsyncClient, name: str, **more: Any) -> dict[str, str]:
    made = await api.post("/v1/api-keys", json={"name": f"key of {name}", "service_account": name, **more})
    assert made.status_code == 201, made.text
    return bearer(made.json()["key"])


async def test_nobody_makes_an_account_that_may_do_more(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    admin = await issue(stack, "default", name="an admin", roles=["tenant-admin"])
    refused = problem(await account(api, name, "platform-admin", headers=admin), 403, "forbidden")
    assert "platform:write" in refused["detail"]
    assert problem(await account(api, name, "king"), 422, "invalid")["errors"][0]["path"] == "roles[0]"
    assert (await account(api, name, "viewer", headers=admin)).status_code == 201
    problem(await account(api, name, "viewer"), 409, "conflict")


async def test_nobody_makes_a_key_of_an_account_that_may_do_more(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await account(api, name, "platform-admin")
    admin = await issue(stack, "default", name="an admin", roles=["tenant-admin"])
    asked = {"name": "k", "service_account": name}
    problem(await api.post("/v1/api-keys", json=asked, headers=admin), 403, "forbidden")
    assert (await api.post("/v1/api-keys", json={**asked, "scopes": ["runs:read"]}, headers=admin)).status_code == 201


@pytest.mark.parametrize("asked", [{}, {"roles": ["viewer"], "service_account": "x"}, {"service_account": "nobody-of-this-name"}])
async def test_a_key_has_roles_or_an_account(api: httpx2.AsyncClient, asked: Json) -> None:
    problem(await api.post("/v1/api-keys", json={"name": "k", **asked}), 422, "invalid")


async def test_all_keys_of_an_account_are_the_account(api: httpx2.AsyncClient, name: str, echo: str) -> None:
    await account(api, name, "operator")
    one, other = await key_of(api, name), await key_of(api, name, scopes=["runs:start", "runs:read"])
    repeated = {"idempotency-key": f"once-{name}"}
    runs = [
        (await api.post(f"/v1/agents/{echo}/runs", json={"input": "hi"}, headers={**key, **repeated})).json()["id"] for key in (one, other)
    ]
    assert runs[0] == runs[1]  # one caller, whichever key it uses
    run = (await api.get(f"/v1/runs/{runs[0]}")).json()
    assert (run["started_by"]["name"], run["started_by"]["kind"]) == (f"service:{name}", "service")
    problem(await api.get("/v1/agents", headers=other), 403, "forbidden")
    rotated = next(each for each in (await api.get("/v1/api-keys")).json()["data"] if each["service_account"] == name)
    successor = (await api.post(f"/v1/api-keys/{rotated['id']}/rotate", json={})).json()
    assert successor["service_account"] == name


async def test_an_account_that_is_deleted_takes_its_keys_along(api: httpx2.AsyncClient, name: str) -> None:
    await account(api, name, "viewer")
    key = await key_of(api, name)
    assert (await api.get("/v1/agents", headers=key)).status_code == 200
    assert (await api.delete(f"/v1/service-accounts/{name}")).status_code == 204
    problem(await api.get("/v1/agents", headers=key), 401, "unauthenticated")
    problem(await api.get(f"/v1/service-accounts/{name}"), 404, "not_found")
    problem(await api.delete(f"/v1/service-accounts/{name}"), 404, "not_found")


async def test_an_account_is_its_tenants_own(api: httpx2.AsyncClient, other: httpx2.AsyncClient, name: str) -> None:
    await account(api, name, "viewer")
    problem(await other.get(f"/v1/service-accounts/{name}"), 404, "not_found")
    problem(await other.delete(f"/v1/service-accounts/{name}"), 404, "not_found")
    problem(await other.post("/v1/api-keys", json={"name": "k", "service_account": name}), 422, "invalid")
    assert (await account(other, name, "operator")).status_code == 201  # the same name is another account
    assert (await api.get(f"/v1/service-accounts/{name}")).json()["roles"] == ["viewer"]


async def test_a_tenant_binds_more_to_an_account(town: Town) -> None:
    place = await town.make()
    there = {"hansa-tenant": place}
    await account(town.client, "ci", "viewer", headers=there)
    made = await town.client.post("/v1/api-keys", json={"name": "k", "service_account": "ci"}, headers=there)
    key = bearer(made.json()["key"])
    problem(await town.client.post("/v1/agents/echo/runs", json={"input": "hi"}, headers=key), 403, "forbidden")
    bound = [{"roles": ["operator"], "serviceAccounts": ["ci"]}]
    await town.apply(tenant(place, issuer(town.provider, place), bindings=bound))
    assert (await town.client.post("/v1/agents/echo/runs", json={"input": "hi"}, headers=key)).status_code == 202


async def test_what_somebody_may_is_shown_to_those_who_may_know(town: Town) -> None:
    place = await town.make({"roles": ["operator"], "groups": ["corp:crew"]}, {"roles": ["auditor"], "users": ["corp:ada"]})
    ada, eve = (town.provider.mint(claims={"aud": place}, user=user, groups=["crew"]) for user in ("ada", "eve"))
    problem(await town.ask(eve, "/v1/access?subject=user:corp:ada"), 403, "forbidden")
    found = (await town.ask(ada, "/v1/access?subject=user:corp:bob&groups=corp:crew,corp:cooks")).json()
    assert found["roles"] == ["operator"]
    assert "runs:start" in found["permissions"]
    assert (await town.ask(ada, "/v1/access?subject=user:corp:bob")).json()["permissions"] == []
    me = (await town.ask(ada, "/v1/access")).json()
    assert (me["subject"], me["roles"]) == ("user:corp:ada", ["operator", "auditor"])
    for subject in ("ada", "user:", "agent:x"):
        problem(await town.ask(ada, f"/v1/access?subject={subject}"), 422, "invalid")
    for subject in ("service:nobody", "key:000000000000"):
        problem(await town.ask(ada, f"/v1/access?subject={subject}"), 404, "not_found")


async def test_what_a_key_may_is_shown(api: httpx2.AsyncClient, control_plane: Process, stack: Stack, name: str) -> None:
    made = (await api.post("/v1/api-keys", json={"name": "k", "roles": ["operator"], "scopes": ["runs:read"]})).json()
    assert (await api.get("/v1/access", params={"subject": f"key:{made['id']}"})).json()["permissions"] == ["runs:read"]
    await account(api, name, "operator")
    its = (await api.post("/v1/api-keys", json={"name": "k", "service_account": name, "scopes": ["runs:start"]})).json()
    assert (await api.get("/v1/access", params={"subject": f"key:{its['id']}"})).json()["permissions"] == ["runs:start"]
    await api.delete(f"/v1/service-accounts/{name}")
    problem(await api.get("/v1/access", params={"subject": f"key:{its['id']}"}), 404, "not_found")
    await api.delete(f"/v1/api-keys/{made['id']}")
    assert (await api.get("/v1/access", params={"subject": f"key:{made['id']}"})).json()["permissions"] == []
    foreign = await issue(stack, "other", name="an admin", roles=["tenant-admin"])
    async with plain_client(control_plane.url, headers=foreign) as client:
        problem(await client.get("/v1/access", params={"subject": f"key:{made['id']}"}), 404, "not_found")
    async with plain_client(control_plane.url, headers={**dict(api.headers), "hansa-tenant": "other"}) as visitor:
        assert "tenants:act" in (await visitor.get("/v1/access")).json()["permissions"]
