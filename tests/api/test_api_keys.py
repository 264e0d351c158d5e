"""API keys: shown once, bound to what their maker may, rotated with two live ones, revoked at once in every process."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

from api.keys import Keys
from api.problem import problem
from hansa import ids
from stack import Process, Stack, plain_client

Made = dict[str, Any]


def bearing(made: Made) -> dict[str, str]:
    return {"authorization": f"Bearer {made['key']}"}


async def make(api: httpx2.AsyncClient, *, status: int = 201, headers: dict[str, str] | None = None, **body: Any) -> Made:
    answer = await api.post("/v1/api-keys", json={"name": "of the test", "roles": ["viewer"], **body}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def may(api: httpx2.AsyncClient, made: Made) -> int:
    """How a request with the key is answered."""
    return (await api.get("/v1/agents", headers=bearing(made))).status_code


async def test_a_key_does_what_its_roles_and_scopes_leave_it(api: httpx2.AsyncClient, echo: str) -> None:
    wide = await make(api, roles=["operator"])
    narrow = await make(api, roles=["operator"], scopes=["runs:start", "self:read"])
    assert (wide["roles"], wide["scopes"], wide["used_at"], wide["expires_at"]) == (["operator"], None, None, None)
    for made, reading in ((wide, 200), (narrow, 403)):
        started = await api.post(f"/v1/agents/{echo}/runs", json={"input": 1}, headers=bearing(made))
        assert (started.status_code, await may(api, made)) == (202, reading)
    found = (await api.get("/v1/whoami", headers=bearing(narrow))).json()
    assert (found["name"], found["tenant"]) == (f"key:{narrow['id']}", "default")
    assert (found["roles"], found["permissions"]) == (["operator"], ["runs:start", "self:read"])


async def test_the_secret_is_shown_once_and_kept_nowhere(api: httpx2.AsyncClient, stack: Stack) -> None:
    key = {"idempotency-key": str(ids.new_id())}
    first = await make(api, headers=key)
    again = await make(api, headers=key)
    assert (again["id"], "key" in again) == (first["id"], False)
    shown = (await api.get(f"/v1/api-keys/{first['id']}")).text + (await api.get("/v1/api-keys", params={"limit": 200})).text
    assert first["id"] in shown
    secret = first["key"].rpartition("_")[2][:-6]
    connection = await asyncpg.connect(stack.admin_url)
    try:
        rows = await connection.fetch("SELECT k::text AS row FROM hansa.api_keys k UNION ALL SELECT i::text FROM hansa.idempotency_keys i")
    finally:
        await connection.close()
    stored = "".join(row["row"] for row in rows)
    assert first["id"] in stored, "the search would find nothing"
    assert secret not in shown + stored
    assert hashlib.sha256(secret.encode()).hexdigest() not in stored, "without the pepper"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"roles": ["admin"]}, "roles[0]"),
        ({"roles": []}, "roles"),
        ({"scopes": ["runs:fly"]}, "scopes[0]"),
        ({"scopes": ["runs:start"]}, "scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"role": ["viewer"]}, "role"),
    ],
    ids=str,
)
async def test_a_key_that_makes_no_sense_is_refused_with_its_place(api: httpx2.AsyncClient, body: dict[str, Any], path: str) -> None:
    refused = problem(await api.post("/v1/api-keys", json={"name": "n", "roles": ["viewer"], **body}), 422, "invalid")
    assert [each["path"] for each in refused["errors"]] == [path]


async def test_no_key_may_more_than_its_maker(api: httpx2.AsyncClient, keys: Keys) -> None:
    maker = keys.of_role["tenant-admin"]
    beyond = await api.post("/v1/api-keys", json={"name": "n", "roles": ["platform-admin"]}, headers=maker)
    assert "tenants:act" in problem(beyond, 403, "forbidden")["detail"]
    within = await make(api, headers=maker, roles=["platform-admin"], scopes=["keys:write", "runs:read"])
    above = await api.post("/v1/api-keys", json={"name": "n", "roles": ["viewer"]}, headers=bearing(within))
    assert "agents:read" in problem(above, 403, "forbidden")["detail"]
    strong = await make(api, roles=["platform-admin"])
    rotated = await api.post(f"/v1/api-keys/{strong['id']}/rotate", json={}, headers=maker)
    assert problem(rotated, 403, "forbidden")
    for role in ("viewer", "approver", "operator", "developer"):
        refused = await api.post("/v1/api-keys", json={"name": "n", "roles": ["viewer"]}, headers=keys.of_role[role])
        assert "keys:write" in problem(refused, 403, "forbidden")["detail"]


async def test_a_revoked_key_is_refused_at_once_by_every_replica(api: httpx2.AsyncClient, stack: Stack) -> None:
    replica = stack.serve()
    times: list[float] = []
    async with plain_client(replica.url) as elsewhere:
        for _ in range(5):
            made = await make(api)
            assert (await may(api, made), await may(elsewhere, made)) == (200, 200)
            begun = time.monotonic()
            assert (await api.delete(f"/v1/api-keys/{made['id']}")).status_code == 204
            assert await may(api, made) == 401
            while await may(elsewhere, made) == 200:
                assert time.monotonic() - begun < 5
            times.append(time.monotonic() - begun)
            refused = await elsewhere.get("/v1/agents", headers=bearing(made))
            assert "revoked" in problem(refused, 401, "unauthenticated")["detail"]
            assert (await api.delete(f"/v1/api-keys/{made['id']}")).status_code == 204
    assert sorted(times)[2] < 1.0, f"not told, but asked again when the memory of it was old: {times}"
    problem(await api.delete("/v1/api-keys/nothing"), 404, "not_found")


async def test_both_keys_are_good_until_the_grace_is_over(api: httpx2.AsyncClient, stack: Stack) -> None:
    old = await make(api, roles=["operator"], scopes=["agents:read"])
    rotated = await api.post(f"/v1/api-keys/{old['id']}/rotate", json={"grace_seconds": 4})
    new = rotated.json()
    assert (rotated.status_code, new["name"], new["roles"], new["scopes"]) == (201, old["name"], old["roles"], old["scopes"])
    assert (await may(api, old), await may(api, new)) == (200, 200)
    ends = datetime.fromisoformat((await api.get(f"/v1/api-keys/{old['id']}")).json()["expires_at"])
    assert timedelta(0) < ends - datetime.now(UTC) <= timedelta(seconds=4)
    async with asyncio.timeout(20):
        while await may(api, old) == 200:
            assert await may(api, new) == 200
            await asyncio.sleep(0.1)
    assert "expired" in problem(await api.get("/v1/agents", headers=bearing(old)), 401, "unauthenticated")["detail"]
    assert await may(api, new) == 200
    ended = problem(await api.post(f"/v1/api-keys/{old['id']}/rotate", json={}), 409, "conflict")
    assert "expired" in ended["detail"]


async def test_a_rotation_lengthens_no_life(api: httpx2.AsyncClient) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    old = await make(api, expires_at=soon)
    new = (await api.post(f"/v1/api-keys/{old['id']}/rotate", json={"grace_seconds": 86400})).json()
    seen = (await api.get(f"/v1/api-keys/{old['id']}")).json()
    assert datetime.fromisoformat(seen["expires_at"]) == datetime.fromisoformat(new["expires_at"]) == datetime.fromisoformat(soon)


async def test_the_last_use_of_a_key_is_told(api: httpx2.AsyncClient) -> None:
    made = await make(api)
    assert await may(api, made) == 200
    used = datetime.fromisoformat((await api.get(f"/v1/api-keys/{made['id']}")).json()["used_at"])
    assert abs(datetime.now(UTC) - used) < timedelta(seconds=30)


async def test_nobody_of_a_tenant_locks_the_platforms_own_people_out(api: httpx2.AsyncClient, control_plane: Process) -> None:
    admin, theirs = await make(api, roles=["tenant-admin"]), await make(api, roles=["platform-admin"], scopes=["tenants:read"])
    account = f"platform-{theirs['id'].lower()}"
    assert (await api.post("/v1/service-accounts", json={"name": account, "roles": ["reconciler"]})).status_code == 201
    its = (await api.post("/v1/api-keys", json={"name": "its", "service_account": account})).json()
    async with plain_client(control_plane.url, headers=bearing(admin)) as client:
        for path in (f"/v1/api-keys/{theirs['id']}", f"/v1/api-keys/{its['id']}", f"/v1/service-accounts/{account}"):
            assert "platform:write" in problem(await client.delete(path), 403, "forbidden")["detail"]
            assert (await api.get(path)).status_code == 200
        assert (await client.delete(f"/v1/api-keys/{admin['id']}")).status_code == 204, "one's own, as any of the tenant"
    assert await may(api, its) == 200
    for path in (f"/v1/api-keys/{theirs['id']}", f"/v1/service-accounts/{account}"):
        assert (await api.delete(path)).status_code == 204


async def test_another_tenants_key_and_a_missing_one_are_answered_alike(api: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
    made = await make(api)
    for verb, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        body: dict[str, Any] = {"json": {}} if verb == "POST" else {}
        theirs = problem(await other.request(verb, f"/v1/api-keys/{made['id']}{path}", **body), 404, "not_found")
        nobodys = problem(await other.request(verb, f"/v1/api-keys/{'0' * 12}{path}", **body), 404, "not_found")
        assert theirs["detail"].replace(made["id"], "0" * 12) == nobodys["detail"]
    assert await may(api, made) == 200
