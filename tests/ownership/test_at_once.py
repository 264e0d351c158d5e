"""Many change the same objects and tenants at once, in every order that requests may name them: each waits for the other, none is told to
come again, and nothing is lost or done twice."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx2
import pytest

from samples import SCRIPTED, agent
from stack import Stack

ROUNDS = 12
Manifest = dict[str, Any]


def tenant(name: str, *namespaces: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "hansa.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {**spec, "namespaces": list(namespaces)},
    }


def standing(manifest: Manifest, namespace: str) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


async def deadlocks(stack: Stack) -> int:
    """How many PostgreSQL has ended by now; what a session has seen is told when it is idle."""
    connection = await asyncpg.connect(stack.admin_url)
    try:
        return await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    finally:
        await connection.close()


class Crowd:
    """Sends requests from many sides at once. Use `all`."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.answered: Counter[int] = Counter()
        self.actions: Counter[str] = Counter()

    async def ask(self, verb: str, body: Any, headers: dict[str, str] | None = None) -> None:
        answer = await self._client.post(f"/v1/objects:{verb}", json=body, headers=headers or {})
        self.answered[answer.status_code] += 1
        for each in answer.json().get("results", ()):
            self.actions[each["action"]] += 1

    async def all(self, *asks: Callable[[int], Awaitable[None]]) -> None:
        async def lane(ask: Callable[[int], Awaitable[None]]) -> None:
            for turn in range(ROUNDS):
                await ask(turn)

        async with asyncio.timeout(60):
            await asyncio.gather(*map(lane, asks))


async def test_who_applies_and_deletes_the_same_at_once_is_never_told_to_come_again(
    api: httpx2.AsyncClient, stack: Stack, name: str
) -> None:
    first = await api.post("/v1/objects:apply", json={"objects": [{"manifest": tenant(name, f"{name}-ns", quotas={"agents": 50})}]})
    assert first.json()["failed"] == 0, first.text
    inside, crowd, before = {"hansa-tenant": name}, Crowd(api), await deadlocks(stack)
    names = ["a", "b", "c"]

    def written(turn: int, namespace: str | None) -> list[Manifest]:
        manifests = [SCRIPTED, *(agent(each, instructions=f"{turn}", limits={"concurrentRuns": 3}) for each in names)]
        return [standing(each, namespace) if namespace else each for each in manifests]

    def apply(namespace: str | None, headers: dict[str, str] | None, *more: Manifest) -> Callable[[int], Awaitable[None]]:
        def ask(turn: int) -> Awaitable[None]:
            objects = [{"manifest": each} for each in (*written(turn, namespace), *more)]
            return crowd.ask("apply", {"objects": objects, "force": True}, headers)

        return ask

    def delete(namespace: str | None, headers: dict[str, str] | None) -> Callable[[int], Awaitable[None]]:
        kinds = [("ModelProvider", "scripted"), *(("Agent", each) for each in names)]
        objects = [{"kind": kind, "name": each, **({"namespace": namespace} if namespace else {})} for kind, each in kinds]
        return lambda _: crowd.ask("delete", {"objects": objects, "allow_mass_delete": True}, headers)

    await crowd.all(
        apply(None, inside),
        apply(name, None),
        apply(name, inside, tenant(name, f"{name}-ns", displayName="changed", quotas={"agents": 50})),
        delete(None, inside),
        delete(name, None),
    )
    assert set(crowd.answered) == {200}, crowd.answered
    assert await deadlocks(stack) == before
    rows = await _trail(api, inside)
    counted = Counter(each["action"] for each in rows if each["target"].partition("/")[0] in ("Agent", "ModelProvider"))
    left = (await api.get("/v1/objects", params={"namespace": name})).json()["data"]
    standing_now = [each for each in left if each["kind"] in ("Agent", "ModelProvider")]
    assert counted["object.created"] - counted["object.deleted"] == len(standing_now), "what was made and not deleted is there"
    assert crowd.actions["created"] == counted["object.created"], "each was told once"
    assert crowd.actions["deleted"] == counted["object.deleted"]


async def test_tenants_that_claim_each_others_namespaces_at_once_wait_for_each_other(
    api: httpx2.AsyncClient, stack: Stack, name: str
) -> None:
    crowd, before = Crowd(api), await deadlocks(stack)

    def claims(order: tuple[int, ...]) -> Callable[[int], Awaitable[None]]:
        def ask(turn: int) -> Awaitable[None]:
            manifests = [tenant(f"{name}-{which}", f"{name}-ns{(which + turn * place) % 3}") for place, which in enumerate(order)]
            return crowd.ask("apply", {"objects": [{"manifest": each} for each in manifests]})

        return ask

    await crowd.all(*map(claims, itertools.permutations(range(3))))
    assert set(crowd.answered) == {200}, crowd.answered
    assert await deadlocks(stack) == before


async def test_a_deadlock_would_be_counted(own: asyncpg.Connection, other: asyncpg.Connection, stack: Stack) -> None:
    before = await deadlocks(stack)
    for connection, key in ((own, 1), (other, 2)):
        await connection.execute("BEGIN; SET LOCAL deadlock_timeout = '20ms'")
        await connection.execute(f"SELECT pg_advisory_xact_lock(77, {key})")
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await asyncio.gather(own.execute("SELECT pg_advisory_xact_lock(77, 2)"), other.execute("SELECT pg_advisory_xact_lock(77, 1)"))
    for connection in (own, other):
        await connection.close()
    async with asyncio.timeout(10):
        while await deadlocks(stack) == before:
            await asyncio.sleep(0.05)


@pytest.fixture
async def own(stack: Stack) -> asyncpg.Connection:
    return await asyncpg.connect(stack.admin_url)


@pytest.fixture
async def other(stack: Stack) -> asyncpg.Connection:
    return await asyncpg.connect(stack.admin_url)


async def _trail(api: httpx2.AsyncClient, headers: dict[str, str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"limit": 200} | ({"after": cursor} if cursor else {})
        page = (await api.get("/v1/audit-events", params=params, headers=headers)).json()
        rows += page["data"]
        cursor = page["next"]
        if not cursor:
            return rows
