"""A source tells what it saw, and whoever asks is told the newest of it."""

from typing import Any

import httpx2

from api.keys import issue
from api.problem import problem
from hansa import clock
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
