"""The database of one tenant is away: its tenant waits, nobody else notices, and what was under way is done once when it is back."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.problem import problem
from dedicated.city import QUICK, City, applied, conditions, inside, open_server, tenant
from hansa.db.revision import HEAD
from runs.engine import until
from stack import free_port, open_stack

THERE = {"hansa-tenant": "remote"}


@pytest.fixture
def city(migrated: Path) -> Iterator[City]:
    folder = Path(tempfile.mkdtemp(prefix="hansa-city-"))
    with open_stack(folder, like=migrated) as stack:
        found = City(stack)
        yield found
        found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def server(city: City, tmp_path: Path) -> AsyncIterator["Away"]:
    away = Away(tmp_path / "remote", free_port())
    await away.begin()
    city.name({"remote": away.url})
    await city.migrate()
    yield away
    await away.end()


class Away:
    """A server of one tenant's own, that can be stopped and started."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.url = ""

    async def begin(self) -> None:
        up = asyncio.Event()
        self._stop.clear()

        async def run() -> None:
            async with open_server(self._folder, self._port) as self.url:
                up.set()
                await self._stop.wait()

        self._task = asyncio.create_task(run())
        waiting = asyncio.create_task(up.wait())
        await asyncio.wait([self._task, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert up.is_set(), await self._task

    async def end(self) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task
            self._task = None


async def start(client: httpx2.AsyncClient, run_input: Any, **headers: str) -> httpx2.Response:
    return await client.post("/v1/agents/stem/runs", json={"input": run_input}, headers=headers, params={"wait": 0})


async def state(client: httpx2.AsyncClient, run: dict[str, Any], **headers: str) -> str:
    answer = await client.get(f"/v1/runs/{run['id']}", headers=headers)
    return answer.json()["state"] if answer.status_code == 200 else str(answer.status_code)


@pytest.mark.timeout(90)
async def test_one_that_is_away_stops_no_other_and_loses_nothing(city: City, server: Away) -> None:
    city.start()
    engine = city.running
    async with engine.client() as client:
        results = await applied(client, tenant("remote"), *inside("remote"), *inside("default"))
        assert "failed" not in {each["action"] for each in results}, results
        slow = (
            await start(client, [["tool", "witness_keyed", "one", 1.5], ["sleep", 0.5], ["tool", "witness_keyed", "two", 0]], **THERE)
        ).json()
        await until(lambda: [line for line in engine.witness() if line["mark"] == "one"], "the run is under way")
        await server.end()

        async def away() -> bool:
            return conditions((await client.get("/v1/tenants/remote")).json())["DatabaseReady"] == ("False", "Unreachable")

        await until(away, "the control plane has noticed", seconds=10)
        problem(await start(client, "no", **THERE), 503, "unavailable")
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert "1 own databases of tenants" in ready.text
        assert "remote" not in ready.text
        # Others go on, in no more time than ever; and a request of many tenants fails for this one alone.
        began = time.monotonic()
        ours = [(await start(client, [["tool", "witness_keyed", f"{n}", 0], ["call", "leaf", []]])).json() for n in range(8)]
        for run in ours:

            async def done(run: dict[str, Any] = run) -> bool:
                return await state(client, run) == "completed"

            await until(done, "a neighbour's run has ended", seconds=10)
        assert time.monotonic() - began < 8
        results = await applied(client, *inside("remote"), *inside("default"), tenant("another", database="Shared"))
        assert [each["action"] == "failed" for each in results] == [True] * 3 + [False] * 4
        assert {each["errors"][0]["code"] for each in results[:3]} == {"unavailable"}
        city.workers[0].kill()  # and whoever starts now starts without it
        city.workers.append(engine.worker(**QUICK))
        await server.begin()

        async def ended() -> bool:
            return await state(client, slow, **THERE) == "completed"

        await until(ended, "its run goes on where it was", seconds=25)
        marks = [line["mark"] for line in engine.witness() if line["phase"] == "effect" and line["key"].startswith(slow["id"])]
        assert sorted(set(marks)) == ["one", "two"]
        assert marks.count("two") == 1
        replay = (await client.get(f"/v1/runs/{slow['id']}/replay", headers=THERE)).json()
        assert replay["equal"], replay
        assert (await client.get("/readyz")).json()["status"] == "ok"
        assert (await start(client, [], **THERE)).status_code in (200, 202)


async def test_one_that_is_not_migrated_is_not_used_and_says_so(city: City) -> None:
    await city.admin('CREATE DATABASE "remote"')
    city.name({"remote": city.url("remote")})
    await city.migrate()
    city.start()
    async with city.running.client() as client:
        assert (await applied(client, tenant("remote")))[0]["action"] == "created"
    await city.fetch("remote", "UPDATE hansa.alembic_version SET version_num = '0002'")
    city.start()
    async with city.running.client() as client:
        view = (await client.get("/v1/tenants/remote")).json()
        assert conditions(view)["DatabaseReady"] == ("False", "NotUsable")
        (result,) = await applied(client, tenant("remote", displayName="Far"))
        assert (result["action"], result["errors"][0]["code"]) == ("failed", "unavailable")
        assert "run `hansa migrate`" in result["errors"][0]["message"]
        await city.fetch("remote", "UPDATE hansa.alembic_version SET version_num = $1", HEAD)

        async def changed() -> bool:
            return (await applied(client, tenant("remote", displayName="Far")))[0]["action"] == "configured"

        await until(changed, "it is used once it is in order", seconds=10)
