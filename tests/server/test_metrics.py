"""What Prometheus is told: counted by route and never by what stands in its place, on a port where nothing else is answered."""

import asyncio
import contextlib
import json
from uuid import uuid4

import httpx2
import pytest

from hansa.errors import Misconfigured
from hansa.telemetry.metrics import METRICS, Metrics
from hansa.telemetry.scraping import CONNECTIONS, showing
from hansa.telemetry.settings import load
from isolation.labels import labels_of, scrape
from routes import GUARDED, path_of
from samples import agent
from stack import Process, free_port


async def samples(process: Process) -> dict[str, float]:
    """Every sample that a process shows, as it is written: name and labels -> value."""
    page = await scrape(process)
    assert page.status_code == 200, page.text
    lines = (line.rpartition(" ") for line in page.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_requests_are_counted_by_route_and_never_by_what_stands_in_its_place(control_plane: Process, api: httpx2.AsyncClient) -> None:
    before = await samples(control_plane)
    run, nowhere = uuid4(), f"/v1/metrics-of-{uuid4()}"
    await api.get(f"/v1/runs/{run}")
    await api.get(nowhere)
    after = await samples(control_plane)
    grown = {name for name, value in after.items() if name.startswith("hansa_requests_total") and value > before.get(name, 0)}
    assert 'hansa_requests_total{method="GET",route="/v1/runs/{run_id}",status="4xx"}' in grown, grown
    assert 'hansa_requests_total{method="GET",route="none",status="4xx"}' in grown
    assert after['hansa_request_seconds_count{route="none"}'] > before.get('hansa_request_seconds_count{route="none"}', 0)
    text = json.dumps(list(after))
    assert [each for each in (str(run), nowhere) if each in text] == []
    known = {path_of(handler) for _, handler in GUARDED}
    routes = {value for label, value in labels_of((await scrape(control_plane)).text) if label.endswith("{route}")}
    assert {each for each in routes if each.startswith("/v1/") and each != "/v1/openapi.json"} <= known


async def test_a_worker_tells_what_it_has_claimed_and_what_waits(shared_worker: Process, api: httpx2.AsyncClient) -> None:
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("metered-by-prometheus")}]})
    assert applied.json()["failed"] == 0, applied.text
    before = await samples(shared_worker)
    done = await api.post("/v1/agents/metered-by-prometheus/runs", params={"wait": 10}, json={"input": "hello"})
    assert done.json()["state"] == "completed", done.text
    after = await samples(shared_worker)
    assert after["hansa_runs_claimed_total"] > before["hansa_runs_claimed_total"]
    assert (after["hansa_runs_in_flight"] >= 0, after["hansa_outbox_messages"] >= 0) == (True, True)
    assert {name.removesuffix("_total") for name in METRICS} >= {"hansa_runs_claimed", "hansa_runs_in_flight", "hansa_outbox_messages"}


async def test_nothing_but_the_page_is_answered_and_nobody_holds_the_port() -> None:
    port, metrics = free_port(), Metrics()
    async with showing(metrics, "127.0.0.1", port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        one_more = await asyncio.open_connection("127.0.0.1", port)
        assert await one_more[0].read() == b"", "one too many is closed"
        for _, writer in (*idle, one_more):
            writer.close()
            await writer.wait_closed()
        for asked in (b"GET / HTTP/1.1", b"POST /metrics HTTP/1.1", b"GET /metrics/v1 HTTP/1.1", b"nonsense"):
            assert b" 404 " in (await raw(port, asked + b"\r\n\r\n"))[:20], asked
        assert await raw(port, b"x" * 10_000) == b""
        assert (await raw(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        assert b"hansa_runs_in_flight 0.0" in await raw(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(Misconfigured, match="can't show metrics"):
            async with showing(metrics, "127.0.0.1", port):
                pass


def test_a_method_that_a_caller_made_up_makes_no_label() -> None:
    metrics = Metrics()
    metrics.request("BREW", "/v1/runs", 405, 0.1)
    assert 'hansa_requests_total{method="_OTHER",route="/v1/runs",status="4xx"} 1.0' in metrics.page().decode()


async def raw(port: int, sent: bytes) -> bytes:
    """What is answered until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_port_that_is_none_is_refused_and_without_one_nothing_listens() -> None:
    with pytest.raises(Misconfigured, match="HANSA_METRICS_WORKER_PORT"):
        load({"HANSA_METRICS_WORKER_PORT": "many"})
    with pytest.raises(Misconfigured, match="can't show metrics"):
        async with showing(Metrics(), "127.0.0.1", 70_000):
            pass
    settings = load({})
    assert (settings.host, settings.serve_port, settings.worker_port) == ("127.0.0.1", 0, 0)
