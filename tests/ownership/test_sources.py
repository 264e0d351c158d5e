"""A source tells what it saw, and whoever asks is told the newest of it."""

import asyncio
from typing import Any

import httpx2

from api.keys import issue
from api.problem import problem
from hansa import clock
from hansa.db.pool import open_owner
from hansa.tenants.service import tenant_id
from isolation.neighbours import applied, keys_of
from isolation.neighbours import tenant as with_bindings
from ownership.asking import git
from stack import Process, Stack, plain_client


def told(name: str, second: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "origin": git(name)["origin"],
        "ref": "main",
        "commit": "c0ffee",
        "state": "synced",
        "seen_at": f"2026-01-01T00:00:{second:02}Z",
        **more,
    }


async def test_what_a_source_tells_is_kept_and_listed(api: httpx2.AsyncClient, reconciler: httpx2.AsyncClient, name: str) -> None:
    wrong = {"file": "a.yaml", "line": 3, "column": 7, "path": "spec.modle", "code": "unknown_field", "message": "unknown field"}
    put = await reconciler.put(f"/v1/sources/{name}", json=told(name, errors=[wrong], applied_at="2026-01-01T00:00:00Z"))
    assert put.status_code == 200, put.text
    (found,) = [each for each in (await api.get("/v1/sources", params={"limit": 200})).json()["data"] if each["id"] == name]
    assert found == put.json()
    assert (found["state"], found["commit"], found["errors"]) == ("synced", "c0ffee", [wrong])
    assert found["told_by"].startswith("key:")


async def test_what_comes_late_does_not_undo_what_is_newer(api: httpx2.AsyncClient, name: str) -> None:
    first = told(name, 5, applied_at="2026-01-01T00:00:05Z")
    for body, state in ((first, "synced"), (told(name, 3, state="late"), "synced"), (told(name, 7, state="unreachable"), "unreachable")):
        assert (await api.put(f"/v1/sources/{name}", json=body)).json()["state"] == state
    (found,) = [each for each in (await api.get("/v1/sources", params={"limit": 200})).json()["data"] if each["id"] == name]
    assert found["applied_at"].startswith("2026-01-01T00:00:05"), "when something was last applied stays known"


async def test_a_source_whose_clock_was_ahead_is_heard_once_it_is_right(api: httpx2.AsyncClient, name: str) -> None:
    await api.put(f"/v1/sources/{name}", json=told(name, seen_at="2099-01-01T00:00:00Z"))
    after = (await api.put(f"/v1/sources/{name}", json=told(name, state="right", seen_at=f"{clock.now():%Y-%m-%dT%H:%M:%S.%fZ}"))).json()
    assert after["state"] == "right"
    assert after["seen_at"] < "2099"


async def test_a_source_is_forgotten_once(api: httpx2.AsyncClient, name: str) -> None:
    await api.put(f"/v1/sources/{name}", json=told(name))
    assert (await api.delete(f"/v1/sources/{name}")).status_code == 204
    problem(await api.delete(f"/v1/sources/{name}"), 404, "not_found")


async def test_a_source_of_a_tenant_is_nobody_elses_business(
    api: httpx2.AsyncClient, stack: Stack, control_plane: Process, name: str
) -> None:
    await api.put(f"/v1/sources/{name}", json=told(name))
    key = await issue(stack, "other", name="of another tenant", roles=["tenant-admin"])
    async with plain_client(control_plane.url, headers=key) as other:
        assert name not in (await other.get("/v1/sources", params={"limit": 200})).text
        problem(await other.delete(f"/v1/sources/{name}"), 404, "not_found")


async def test_what_no_source_says_is_refused_with_its_place(api: httpx2.AsyncClient, name: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "origin"),
        (told(name, seen_at="yesterday"), "seen_at"),
        (told(name, state="two words"), "state"),
        (told(name, errors=[{"line": 1}]), "errors[0].message"),
        (told(name, errors=[{"message": "m"}] * 201), "errors"),
        (told(name, colour="red"), "colour"),
        (told(name, origin="https://token@git.example/x.git//"), "origin"),
    ]
    for body, place in wrong:
        found = problem(await api.put(f"/v1/sources/{name}", json=body), 422, "invalid")
        assert place in [each["path"] for each in found["errors"]], found
    problem(await api.put(f"/v1/sources/{name}%20x", json=told(name)), 422, "invalid")
    viewer = (await api.post("/v1/api-keys", json={"name": name, "roles": ["viewer"]})).json()["key"]
    refused = await api.put(f"/v1/sources/{name}", json=told(name), headers={"authorization": f"Bearer {viewer}"})
    assert "objects:write" in problem(refused, 403, "forbidden")["detail"]


def heading(answer: httpx2.Response) -> dict[str, str]:
    assert answer.status_code == 201, answer.text
    return {"authorization": f"Bearer {answer.json()['key']}"}


async def test_a_source_is_whose_it_was_first(api: httpx2.AsyncClient, stack: Stack, control_plane: Process, name: str) -> None:
    keys = [await issue(stack, "default", name=f"{name}-{team}", roles=["developer"]) for team in ("ours", "theirs")]
    async with plain_client(control_plane.url, headers=keys[0]) as ours, plain_client(control_plane.url, headers=keys[1]) as theirs:
        put = (await ours.put(f"/v1/sources/{name}", json=told(name))).json()
        assert put["owner"] == f"default/{put['told_by']}"
        lie = told(name, 9, state="lie")
        refused = problem(await theirs.put(f"/v1/sources/{name}", json=lie), 409, "conflict")
        assert put["owner"] in refused["detail"]
        assert f"hansa sources forget {name}" in refused["hint"]
        problem(await theirs.delete(f"/v1/sources/{name}"), 409, "conflict")
        assert (await api.put(f"/v1/sources/{name}", json=told(name, 2, state="seen"))).json()["state"] == "seen", "has objects:takeover"
        assert (await ours.put(f"/v1/sources/{name}", json=told(name, 3))).json()["owner"] == put["owner"]
        assert (await api.delete(f"/v1/sources/{name}")).status_code == 204
        assert (await theirs.put(f"/v1/sources/{name}", json=lie)).json()["state"] == "lie", "it was let go"
        problem(await ours.delete(f"/v1/sources/{name}"), 409, "conflict")
        assert (await theirs.delete(f"/v1/sources/{name}")).status_code == 204


async def test_of_two_who_tell_of_a_new_source_at_once_one_has_it(stack: Stack, control_plane: Process, name: str) -> None:
    keys = [await issue(stack, "default", name=f"{name}-{team}", roles=["developer"]) for team in ("ours", "theirs")]
    async with plain_client(control_plane.url, headers=keys[0]) as ours, plain_client(control_plane.url, headers=keys[1]) as theirs:
        for turn in range(5):
            each = [client.put(f"/v1/sources/{name}-{turn}", json=told(name)) for client in (ours, theirs)]
            assert sorted(answer.status_code for answer in await asyncio.gather(*each)) == [200, 409]


async def test_a_rotated_key_goes_on_and_so_does_every_key_of_a_service_account(
    api: httpx2.AsyncClient, control_plane: Process, name: str
) -> None:
    account = {"name": name, "roles": ["developer"]}
    assert (await api.post("/v1/service-accounts", json=account)).status_code == 201
    first = await api.post("/v1/api-keys", json={"name": name, "roles": ["developer"]})
    second = await api.post(f"/v1/api-keys/{first.json()['id']}/rotate", json={})
    third = await api.post(f"/v1/api-keys/{second.json()['id']}/rotate", json={})
    lines = {
        "key": [heading(each) for each in (first, second, third)],
        "account": [heading(await api.post("/v1/api-keys", json={"name": name, "service_account": name})) for _ in range(2)],
    }
    for line, keys in lines.items():
        for second_of, key in enumerate(keys):
            async with plain_client(control_plane.url, headers=key) as client:
                answer = await client.put(f"/v1/sources/{name}-{line}", json=told(name, second_of, commit=f"{second_of}"))
                assert answer.status_code == 200, answer.text
        async with plain_client(control_plane.url, headers=lines["account" if line == "key" else "key"][0]) as other:
            problem(await other.put(f"/v1/sources/{name}-{line}", json=told(name, 9)), 409, "conflict")


async def test_who_acts_in_another_tenant_is_nobody_of_that_one(
    api: httpx2.AsyncClient, stack: Stack, control_plane: Process, name: str
) -> None:
    there = {"hansa-tenant": name}
    manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {}}
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["failed"] == 0
    keys: list[dict[str, str]] = []
    for tenant, role in (("default", "reconciler"), (name, "developer")):
        made = {"hansa-tenant": tenant}
        assert (await api.post("/v1/service-accounts", json={"name": name, "roles": [role]}, headers=made)).status_code == 201
        keys.append(heading(await api.post("/v1/api-keys", json={"name": name, "service_account": name}, headers=made)))
    async with plain_client(control_plane.url, headers=keys[0]) as platform, plain_client(control_plane.url, headers=keys[1]) as inside:
        assert (await platform.put(f"/v1/sources/{name}", json=told(name), headers=there)).json()["owner"] == f"default/service:{name}"
        problem(await inside.put(f"/v1/sources/{name}", json=told(name, 2)), 409, "conflict")
    assert (await api.delete(f"/v1/tenants/{name}", params={"confirm": name, "policy": "Delete"})).status_code == 202


async def test_a_source_that_is_nobodys_is_not_theirs_who_are_bound_in_a_namespace(
    api: httpx2.AsyncClient, stack: Stack, control_plane: Process, name: str
) -> None:
    """Those of earlier releases have no owner: they are the whole tenant's."""
    (made,) = await applied(api, with_bindings(name, ["developer"]))
    assert made["action"] == "created", made
    there = {"authorization": f"Bearer {stack.key}", "hansa-tenant": name}
    async with plain_client(control_plane.url, headers=there) as owner:
        bound = await keys_of(owner, ["developer"])
        assert (await owner.put(f"/v1/sources/{name}", json=told(name, 5, message="hush"))).status_code == 200
        async with open_owner(stack.settings.database) as connection:
            await connection.execute("SELECT set_config('hansa.tenant', $1, true)", str(tenant_id(name)))
            await connection.execute("UPDATE hansa.sources SET owner = '' WHERE id = $1", name)
        async with plain_client(control_plane.url, headers=bound["developer@east"]) as east:
            for second in (1, 9):
                refused = problem(await east.put(f"/v1/sources/{name}", json=told(name, second)), 409, "conflict")
                assert "hush" not in str(refused)
            problem(await east.delete(f"/v1/sources/{name}"), 404, "not_found")
            assert (await east.get("/v1/sources")).json()["data"] == []
        (found,) = (await owner.get("/v1/sources")).json()["data"]
        assert (found["owner"], found["message"]) == ("", "hush")
        assert (await owner.put(f"/v1/sources/{name}", json=told(name, 6))).json()["owner"].startswith("default/")
