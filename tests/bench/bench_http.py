"""The control plane over HTTP, seen by a load generator outside: runs accepted, and events to many readers."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from bench.engine import PLUGINS, manifests
from bench.figures import Figures
from bench.participant import program
from bench.peers.floor_app import prepare
from stack import Process, Stack, free_port

ROUNDS = 3
SECONDS = 4.0
AT_ONCE = 16
READERS = 1000
STEPS = 20
WORKLOAD = {"HANSA_PLUGINS": PLUGINS}
BODY = {"input": {"steps": 2, "note": "Summarise the incident report of last night and open a ticket for each action item in it."}}


def accepted(loadgen: Path, url: str, *, token: str = "") -> dict[str, float]:
    """Accepts of a server, as the load generator saw them."""
    command = [loadgen, "post", "-url", url, "-body", json.dumps(BODY), "-clients", str(AT_ONCE), "-seconds", str(SECONDS)]
    done = subprocess.run(command, env={**os.environ, "LOADGEN_TOKEN": token}, check=True, stdout=subprocess.PIPE, timeout=60)
    return json.loads(done.stdout)


@contextmanager
def floor(stack: Stack) -> Iterator[str]:
    """The floor's server, ready; the URL to post to."""
    asyncio.run(prepare(stack.admin_url))
    parts, port = urlsplit(stack.admin_url), free_port()
    environ = {"BENCH_DATABASE": parts._replace(netloc=f"floor:floor@{parts.netloc.rpartition('@')[2]}").geturl(), "BENCH_PORT": str(port)}
    with (stack.folder / "floor.log").open("ab") as sink, program("floor_app.py", environ, stderr=sink) as process:
        url = f"http://127.0.0.1:{port}/runs"
        deadline = time.monotonic() + 20
        while not _listens(url):
            assert process.poll() is None, (stack.folder / "floor.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
        process.terminate()


def _listens(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False, timeout=2).status_code == 405
    except httpx2.TransportError:
        return False


async def posted(stack: Stack, server: Process, path: str, body: Any) -> dict[str, Any]:
    """The answer to one POST."""
    async with stack.client(server) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code in (200, 201, 202), answer.text
    return answer.json()


def ready_server(stack: Stack) -> Process:
    """A control plane with the workload's agents."""
    server = stack.serve(**WORKLOAD, HANSA_LOG_LEVEL="warning")
    applied = asyncio.run(posted(stack, server, "/v1/objects:apply", {"objects": [{"manifest": each} for each in manifests()]}))
    assert applied["failed"] == 0, applied
    return server


def test_accept_vs_floor(bench_stack: Stack, figures: Figures, loadgen: Path) -> None:
    """Runs accepted durably by one control plane, key and idempotency checked, against a bare insert behind the same web server."""
    server = ready_server(bench_stack)
    ours: list[float] = []
    bare: list[float] = []
    with floor(bench_stack) as url:
        for _ in range(ROUNDS):
            bare.append(accepted(loadgen, url)["per_second"])
            ours.append(accepted(loadgen, f"{server.url}/v1/agents/counted/runs", token=bench_stack.key)["per_second"])
    figures.report("accept_hansa", ours, unit="runs/s")
    figures.report("accept_floor", bare, unit="runs/s")
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    assert figures.report("accept_vs_floor", ratios, unit="x", at_least=0.8) >= 0.8


def test_events_to_readers(bench_stack: Stack, figures: Figures, loadgen: Path) -> None:
    """Events per second to 1,000 readers of one session over one control plane, while a worker drives its run."""
    server = ready_server(bench_stack)
    bench_stack.worker(**WORKLOAD)
    rates: list[float] = []
    for _ in range(ROUNDS):
        session = asyncio.run(posted(bench_stack, server, "/v1/sessions", {"agent": "counted"}))["id"]
        url = f"{server.url}/v1/sessions/{session}/events/stream"
        command = [loadgen, "read", "-url", url, "-readers", str(READERS), "-until", "run.completed"]
        with subprocess.Popen(command, env={**os.environ, "LOADGEN_TOKEN": bench_stack.key}, stdout=subprocess.PIPE, text=True) as reading:
            assert reading.stdout is not None
            assert json.loads(reading.stdout.readline()) == {"connected": READERS}
            message = {"type": "user.message", "content": {"steps": STEPS}}
            asyncio.run(posted(bench_stack, server, f"/v1/sessions/{session}/events", message))
            seen = json.loads(reading.stdout.readline())
        assert seen["broken"] == 0, f"{seen}\n{server.log.read_text()[-4000:]}"
        rates.append(seen["events"] / seen["seconds"])
    figures.report("events_to_1000_readers", rates, unit="events/s")
