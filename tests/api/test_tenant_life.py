"""A tenant says how it is, is archived and comes back, and is deleted until nothing is left of it: exported before, if it wants."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx2
import pytest

from api.keys import Keys
from api.problem import problem
from hansa import ids
from hansa.tenants.conditions import CONDITIONS
from hansa.tenants.service import tenant_id
from samples import SCRIPTED, agent
from stack import Stack

Manifest = dict[str, Any]
LONG = "mine " * 60_000
"""An input that goes to the artifact store."""


@pytest.fixture
def name() -> str:
    """A tenant that nobody has made."""
    return f"t-{ids.new_id().hex[-10:]}"


def tenant(name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


async def apply(api: httpx2.AsyncClient, *manifests: Manifest) -> list[dict[str, Any]]:
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


async def furnished(api: httpx2.AsyncClient, name: str, **spec: Any) -> tuple[str, str]:
    """A tenant with an agent, a run in it, and a key: (the run's session, the key)."""
    inside = [{**each, "metadata": {**each["metadata"], "namespace": name}} for each in (SCRIPTED, agent("echo"))]
    results = await apply(api, tenant(name, **spec), *inside)
    assert {each["action"] for each in results} == {"created"}, results
    there = {"hansa-tenant": name}
    run = (await api.post("/v1/agents/echo/runs", params={"wait": 20}, json={"input": LONG}, headers=there)).json()
    assert run["state"] == "completed", run
    key = (await api.post("/v1/api-keys", json={"name": "theirs", "roles": ["tenant-admin"]}, headers=there)).json()["key"]
    return run["session_id"], key


async def until(look: Callable[[], Awaitable[Any]], what: str, *, seconds: float = 30.0) -> Any:
    """What `look` finds, once it finds something."""
    for _ in range(int(seconds / 0.1)):
        found = await look()
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"not so after {seconds:g} s: {what}")


async def completed(api: httpx2.AsyncClient, run_id: str, headers: dict[str, str]) -> None:
    """Once the run is."""

    async def look() -> bool:
        return (await api.get(f"/v1/runs/{run_id}", headers=headers)).json()["state"] == "completed"

    await until(look, f"run {run_id} is completed")


async def gone(api: httpx2.AsyncClient, name: str) -> dict[str, Any]:
    """The deletion of a tenant, once it is done."""

    async def look() -> dict[str, Any] | None:
        found = (await api.get("/v1/deletions", params={"limit": 200})).json()["data"]
        return next((each for each in found if each["tenant"] == name and each["finished_at"]), None)

    return await until(look, f"tenant {name} is gone")


async def residue(stack: Stack, name: str) -> dict[str, int]:
    """Rows of a tenant in any table, as a superuser sees them, and its files."""
    admin = await asyncpg.connect(stack.admin_url)
    try:
        tables = await admin.fetch(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        )
        found = {
            each["relname"]: await admin.fetchval(f"SELECT count(*) FROM hansa.{each['relname']} WHERE tenant_id = $1", tenant_id(name))
            for each in tables
        }
    finally:
        await admin.close()
    for place in ("artifacts", "workspaces"):
        found[place] = int((stack.servers.folder.path / place / str(tenant_id(name))).exists())
    return {place: count for place, count in found.items() if count}


def unaudited(found: dict[str, int]) -> dict[str, int]:
    """Without the audit trail, which grows with whatever is done or refused."""
    return {place: count for place, count in found.items() if not place.startswith("audit_")}


def conditions(view: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in view["conditions"]}


async def test_only_who_may_is_told_of_tenants_and_deletes_one_by_its_name(api: httpx2.AsyncClient, keys: Keys, name: str) -> None:
    await apply(api, tenant(name, preventDeletion=True))
    problem(await api.delete(f"/v1/tenants/{name}-not", params={"confirm": f"{name}-not"}), 404, "not_found")
    for role, key in keys.of_role.items():
        if role not in ("platform-admin", "reconciler"):
            refused = problem(await api.delete(f"/v1/tenants/{name}", params={"confirm": name}, headers=key), 403, "forbidden")
            assert "platform:write" in refused["detail"]
    for confirm in ({}, {"confirm": "default"}):
        assert problem(await api.delete(f"/v1/tenants/{name}", params=confirm), 422, "invalid")["errors"][0]["path"] == "confirm"
    assert "preventDeletion" in problem(await api.delete(f"/v1/tenants/{name}", params={"confirm": name}), 409, "conflict")["hint"]
    problem(await api.delete("/v1/tenants/default", params={"confirm": "default"}), 409, "conflict")
    refused = problem(await api.delete(f"/v1/tenants/{name}", params={"confirm": name, "policy": "Shred"}), 422, "invalid")
    assert refused["errors"][0]["path"] == "policy"
    assert "/v1/tenants" in problem(await api.delete(f"/v1/objects/Tenant/{name}"), 409, "conflict")["hint"]
    assert (await api.get(f"/v1/tenants/{name}")).json()["state"] == "active"


async def test_a_tenant_says_how_it_is_why_and_since_when(api: httpx2.AsyncClient, name: str) -> None:
    (made,) = await apply(api, tenant(name, quotas={"concurrentRuns": 3}))
    assert made["generation"] == 1

    async def verified() -> dict[str, Any] | None:  # the first probe of the session's worker
        view = (await api.get(f"/v1/tenants/{name}")).json()
        return view if view["ready"] else None

    view = await until(verified, "the tenant is ready")
    assert conditions(view) == {
        "DatabaseReady": ("True", "Provisioned"),
        "MessagingReady": ("True", "AccountReady"),
        "IdentityReady": ("True", "ApiKeys"),
        "QuotaReady": ("True", "InForce"),
        "RegionsReady": ("True", "Serving"),
        "IsolationVerified": ("True", "ProbesPassed"),
        "Ready": ("True", "AllReady"),
    }
    assert {each["observedGeneration"] for each in view["conditions"]} == {1}
    assert all(each["message"] and each["lastTransitionTime"] for each in view["conditions"])
    assert "concurrentRuns 3" in next(each["message"] for each in view["conditions"] if each["type"] == "QuotaReady")
    await apply(api, tenant(name, suspend=True))
    view = (await api.get(f"/v1/tenants/{name}")).json()
    assert (conditions(view)["Ready"], view["generation"], view["ready"]) == (("False", "Suspended"), 2, False)
    listed = (await api.get("/v1/tenants", params={"limit": 200})).json()["data"]
    assert next(each for each in listed if each["name"] == name)["conditions"] == view["conditions"]
    own = (await api.get(f"/v1/objects/Tenant/{name}", headers={"hansa-tenant": name})).json()
    assert own["status"] == {"observedGeneration": 2, "state": "active", "conditions": view["conditions"]}
    assert all(each["reason"] in CONDITIONS[each["type"]] for each in view["conditions"])


async def test_workers_of_a_tenants_own_take_its_runs_and_no_others(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    await furnished(api, name)
    there = {"hansa-tenant": name}
    await apply(api, tenant(name, isolation={"workers": "Dedicated"}))
    view = (await api.get(f"/v1/tenants/{name}")).json()
    assert conditions(view)["WorkersReady"] == ("False", "NoWorker")
    assert conditions(view)["Ready"] == ("False", "NotReady")
    waiting = (await api.post("/v1/agents/echo/runs", params={"wait": 2}, json={"input": "hello"}, headers=there)).json()
    assert waiting["state"] == "queued", "a worker of all has taken it"
    await apply(api, tenant(name))
    await completed(api, waiting["id"], there)
    await apply(api, tenant(name, isolation={"workers": "Dedicated"}))
    own = stack.worker(HANSA_WORKER_TENANT=name, HANSA_WORKER_POLL_SECONDS="0.2")
    try:
        run = (await api.post("/v1/agents/echo/runs", params={"wait": 20}, json={"input": "hello"}, headers=there)).json()
        assert run["state"] == "completed"
        forked = (await api.post(f"/v1/runs/{waiting['id']}/fork", json={"at": 1}, headers=there)).json()
        await completed(api, forked["id"], there)  # the run that it was forked from stood in another pool
        assert conditions((await api.get(f"/v1/tenants/{name}")).json())["WorkersReady"] == ("True", "Serving")
        events = (await api.get(f"/v1/sessions/{run['session_id']}/events", headers=there)).json()["data"]
        worker = next(each["data"]["worker"] for each in events if each["type"] == "run.started")
        assert str(own.pid) in worker
    finally:
        own.stop()
        await apply(api, tenant(name))


async def test_an_archived_tenant_keeps_all_lets_nobody_in_and_comes_back(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    session, key = await furnished(api, name, displayName="Acme")
    theirs = {"authorization": f"Bearer {key}"}
    assert (await api.get("/v1/whoami", headers=theirs)).status_code == 200
    before = await residue(stack, name)
    archived = await api.delete(f"/v1/tenants/{name}", params={"confirm": name})
    assert (archived.status_code, archived.json()["state"], conditions(archived.json())["Ready"]) == (
        202,
        "archived",
        ("False", "Archived"),
    )
    assert "archived" in problem(await api.get("/v1/whoami", headers=theirs), 403, "forbidden")["detail"]
    assert "archived" in problem(await api.get("/v1/agents", headers={"hansa-tenant": name}), 409, "conflict")["detail"]
    (refused,) = await apply(api, tenant(name, displayName="Another"))
    assert (refused["action"], refused["errors"][0]["code"]) == ("failed", "closed")
    (inside,) = await apply(api, {**agent("echo"), "metadata": {"name": "echo", "namespace": name}})
    assert inside["errors"][0]["path"] == "metadata.namespace"
    assert (await api.delete(f"/v1/tenants/{name}", params={"confirm": name})).json()["state"] == "archived"
    assert unaudited(await residue(stack, name)) == unaudited(before)
    restored = await api.post(f"/v1/tenants/{name}/restore")
    assert (restored.status_code, restored.json()["state"], restored.json()["suspended"]) == (200, "active", False)
    assert (await api.get("/v1/whoami", headers=theirs)).status_code == 200
    assert (await api.get(f"/v1/sessions/{session}", headers=theirs)).status_code == 200
    run = await api.post("/v1/agents/echo/runs", params={"wait": 20}, json={"input": "again"}, headers=theirs)
    assert run.json()["state"] == "completed"


async def test_nothing_is_left_of_a_deleted_tenant_and_its_name_is_free(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    _, key = await furnished(api, name, deletionPolicy="Delete")
    await furnished(api, f"{name}-neighbour")
    theirs = {"authorization": f"Bearer {key}"}
    neighbours = await residue(stack, f"{name}-neighbour")
    workspace = stack.servers.folder.path / "workspaces" / str(tenant_id(name)) / "some-run"
    workspace.mkdir(parents=True)
    assert {"tenants", "runs", "events", "artifacts", "workspaces"} <= (await residue(stack, name)).keys()
    deleting = await api.delete(f"/v1/tenants/{name}", params={"confirm": name})
    assert (deleting.status_code, deleting.json()["state"], conditions(deleting.json())["Ready"]) == (
        202,
        "deleting",
        ("False", "Deleting"),
    )
    problem(await api.get("/v1/whoami", headers=theirs), 401, "unauthenticated")
    problem(await api.get("/v1/agents", headers={"hansa-tenant": name}), 409, "conflict")
    problem(await api.post(f"/v1/tenants/{name}/restore"), 409, "conflict")
    done = await gone(api, name)
    assert (done["step"], done["policy"], done["residue"], done["exported"]) == ("done", "Delete", {}, False)
    assert await residue(stack, name) == {}
    problem(await api.get(f"/v1/tenants/{name}"), 404, "not_found")
    problem(await api.get(f"/v1/deletions/{done['id']}/export"), 404, "not_found")
    assert unaudited(await residue(stack, f"{name}-neighbour")) == unaudited(neighbours)
    (made,) = await apply(api, tenant(name))
    assert made["action"] == "created"
    assert (await api.get("/v1/agents", headers={"hansa-tenant": name})).json()["data"] == []


async def test_an_export_is_whole_and_makes_the_tenant_again_elsewhere(api: httpx2.AsyncClient, stack: Stack, name: str) -> None:
    session, _ = await furnished(api, name, deletionPolicy="Export", displayName="Acme", weight=3)
    there = {"hansa-tenant": name}
    events = (await api.get(f"/v1/sessions/{session}/events", headers=there)).json()["data"]
    live = (await api.get(f"/v1/tenants/{name}/export")).content
    await api.delete(f"/v1/tenants/{name}", params={"confirm": name})
    done = await gone(api, name)
    assert (done["exported"], await residue(stack, name)) == (True, {})
    kept = (await api.get(f"/v1/deletions/{done['id']}/export")).content
    for bundle, as_name in ((kept, ""), (live, f"{name}-copy")):
        made = await api.post("/v1/tenants:import", params={"name": as_name} if as_name else {}, content=bundle)
        assert made.status_code == 201, made.text
        told = made.json()
        assert (told["tenant"], told["sessions"], told["present"], told["failed"], told["keys"]) == (as_name or name, 1, 0, 0, 1), told
        there = {"hansa-tenant": told["tenant"]}
        found = (await api.get(f"/v1/sessions/{session}/events", headers=there)).json()["data"]
        assert found == events
        run = await api.post("/v1/agents/echo/runs", params={"wait": 20}, json={"input": "again"}, headers=there)
        assert run.json()["state"] == "completed"
        assert (await api.get(f"/v1/tenants/{told['tenant']}")).json()["weight"] == 3
    again = (await api.post("/v1/tenants:import", content=kept)).json()
    assert (again["sessions"], again["present"], again["failed"]) == (0, 1, 0)


async def test_a_damaged_export_makes_nothing(api: httpx2.AsyncClient, name: str) -> None:
    await furnished(api, name)
    whole = (await api.get(f"/v1/tenants/{name}/export")).content
    halves = {"cut off": whole[: len(whole) // 2], "changed": whole.replace(b"echo", b"ohce", 1), "empty": b"", "no tar": b"x" * 2000}
    for what, damaged in halves.items():
        refused = await api.post("/v1/tenants:import", params={"name": f"{name}-copy"}, content=damaged)
        assert "no whole export" in problem(refused, 422, "invalid")["detail"], what
        problem(await api.get(f"/v1/tenants/{name}-copy"), 404, "not_found")
