"""Whole runs over a bucket: large values are kept there, a server that is away holds runs up and loses none."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from artifacts.s3 import CREDENTIALS, open_s3
from samples import SCRIPTED, agent
from stack import Stack

pytestmark = pytest.mark.timeout(600)  # the first build of the server

LARGE = "a-large-text-" * 30_000
SCRIPT = "#script " + json.dumps([{"text": LARGE}])


async def ended(client: httpx2.AsyncClient, run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (found := (await client.get(f"/v1/runs/{run_id}")).json())["state"] in ("queued", "running"):
            await asyncio.sleep(0.2)
    return found


async def test_a_run_waits_for_its_bucket_and_goes_on(own_stack: Stack) -> None:
    folder = Path(tempfile.mkdtemp(dir=own_stack.folder))
    with open_s3(folder) as s3:
        settings = s3.settings()
        where = {"HANSA_ARTIFACTS_URL": settings.url, "HANSA_ARTIFACTS_ENDPOINT": settings.endpoint, "HANSA_ARTIFACTS_TIMEOUT_SECONDS": "2"}
        control_plane = own_stack.serve(**where, **CREDENTIALS)
        async with own_stack.client(control_plane) as client:
            applied = await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}, {"manifest": agent("echo")}]})
            assert applied.json()["failed"] == 0, applied.text
            run = (await client.post("/v1/agents/echo/runs", json={"input": SCRIPT})).json()
            assert [path.stat().st_size for path in s3.folder.rglob("*") if path.is_file()] == [len(json.dumps(SCRIPT))]
            s3.kill()
            refused = await client.post("/v1/agents/echo/runs", json={"input": LARGE + "!"})
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            beside = (await client.post("/v1/agents/echo/runs", json={"input": "claimed together with it"})).json()
            own_stack.worker(**where, **CREDENTIALS, HANSA_WORKER_LEASE_SECONDS="2", HANSA_WORKER_POLL_SECONDS="0.2")
            later = (await client.post("/v1/agents/echo/runs", json={"input": "claimed later"})).json()
            for small in (beside, later):
                assert (await ended(client, small["id"]))["state"] == "completed", "a run that needs no bucket is not held up"
            assert (await client.get(f"/v1/runs/{run['id']}")).json()["state"] == "running"
            s3.restart()
            found = await ended(client, run["id"])
            assert found["state"] == "completed", found
            for field, value in (("input", SCRIPT), ("output", LARGE)):
                assert (await client.get(found[field]["href"])).json() == value
            assert (await client.get(f"/v1/runs/{run['id']}/replay")).json()["equal"]
