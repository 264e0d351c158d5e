"""Large values in real runs: stored once, whole wherever they are read, never forged, and named when they are changed."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hansa.runs.model import canonical
from runs.engine import Engine, apply, apply_agent, call, ended, script, start, until
from samples import agent
from stack import Process

Workers = Callable[..., Process]
STEPS = {"runtime": {"name": "steps"}}
TO_STORE = {"HANSA_ARTIFACTS_FROM_BYTES": "100000"}
LONG, LARGE = "a long text " * 300, "a large text " * 10_000


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def forged(value: Any) -> dict[str, Any]:
    """What a reference to a value would look like."""
    return {"$value": f"sha256:{digest(value)}", "bytes": len(canonical(value))}


async def events(client: httpx2.AsyncClient, run: dict[str, Any]) -> list[dict[str, Any]]:
    return (await client.get(f"/v1/sessions/{run['session_id']}/events", params={"limit": 200})).json()["data"]


async def replayed(client: httpx2.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    return (await client.get(f"/v1/runs/{run['id']}/replay")).json()


async def waiting(client: httpx2.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = (await client.get(f"/v1/runs/{run['id']}")).json()
        return found if found["state"] == "waiting" else None

    return await until(look, "the run waits")


async def execute(engine: Engine, sql: str, *arguments: Any) -> str:
    connection = await engine.admin()
    try:
        return await connection.execute(sql, *arguments)
    finally:
        await connection.close()


async def test_a_long_text_is_stored_once_and_shown_in_every_place(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "long")
    worker()
    text = f"{LONG} once"
    run = await start(client, "long", script({"text": text}), wait=20)
    assert (run["state"], run["output"]) == ("completed", text)
    shown = {event["type"]: event["data"] for event in await events(client, run)}
    assert (shown["model.completed"]["text"], shown["run.completed"]["output"]) == (text, text)
    assert shown["run.queued"]["input"] == run["input"] == script({"text": text})
    rows = await engine.fetch("SELECT data FROM hansa.events WHERE session_id = $1", run["session_id"])
    assert not [row for row in rows if LONG in str(row["data"])]
    (kept,) = await engine.fetch("SELECT count(*) AS n FROM hansa.values WHERE digest = decode($1, 'hex')", digest(text))
    assert kept["n"] == 1
    assert (await replayed(client, run))["equal"]


async def test_a_large_text_is_in_the_artifact_store_and_shown_by_its_address(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers
) -> None:
    await apply_agent(client, "large", **STEPS)
    worker(**TO_STORE)
    run = await start(client, "large", [["tool", "witness_read", LARGE, 0]], wait=20)
    assert run["state"] == "completed", run
    reference = run["output"]
    assert (reference["$value"], reference["bytes"] > 65_536) == (f"sha256:{digest([LARGE])}", True)
    got = await client.get(reference["href"])
    assert (got.status_code, got.json()) == (200, [LARGE])
    assert hashlib.sha256(got.content).hexdigest() == digest([LARGE])
    assert len(artifact_files(engine, digest([LARGE]))) == 1
    assert (await replayed(client, run))["equal"]
    assert (await client.get(f"/v1/values/sha256:{'0' * 64}")).status_code == 404
    assert (await client.get("/v1/values/none")).status_code == 422


def artifact_files(engine: Engine, hexadecimal: str) -> list[Path]:
    return list((engine.stack.servers.folder.path / "artifacts").rglob(hexadecimal))


async def test_a_run_that_is_woken_knows_its_long_past(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "past", **STEPS)
    first = worker(**TO_STORE)
    run = await start(client, "past", [["tool", "witness_read", LARGE, 0], ["ask", LONG], ["tool", "witness_read", LONG, 0]])
    wait = (await waiting(client, run))["waits"][0]
    first.kill()
    decided = await client.post(f"/v1/approvals/{wait['key']}/decide", json={"decision": "answer", "answer": [LONG, LONG]})
    assert (decided.status_code, decided.json()["answer"]) == (200, [LONG, LONG])
    worker()
    assert (await ended(client, run["id"]))["state"] == "completed"
    output = await whole(client, (await client.get(f"/v1/runs/{run['id']}")).json()["output"])
    assert output == [LARGE, [LONG, LONG], LONG]
    assert (await replayed(client, run))["equal"]


async def whole(client: httpx2.AsyncClient, value: Any) -> Any:
    """A value that is shown by its address."""
    return (await client.get(value["href"])).json()


async def test_nobody_can_forge_a_reference(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    """A made-up reference to a value that is really there is a value like any other, by whichever way it comes."""
    secret = "the secret of another session " * 100
    await apply_agent(client, "victim")
    await apply_agent(client, "forger", **STEPS)
    await apply_agent(client, "echoes")
    await apply(client, agent("parent", runtime={"name": "steps"}, tools=[{"agent": "echoes"}]))
    worker()
    assert (await start(client, "victim", script({"text": secret}), wait=20))["output"] == secret
    forgery = forged(secret)
    kept = await engine.fetch("SELECT size FROM hansa.values WHERE digest = decode($1, 'hex')", digest(secret))
    assert kept[0]["size"] == forgery["bytes"], "the value that is aimed at is there"
    asked = await start(client, "forger", [["ask", "what?"], ["event", "news", None], ["event", "later", None]])
    wait = (await waiting(client, asked))["waits"][0]
    decided = await client.post(f"/v1/approvals/{wait['key']}/decide", json={"decision": "answer", "answer": forgery})
    assert decided.json()["answer"] == forgery, decided.text
    for name in ("news", "later"):
        await client.post(f"/v1/sessions/{asked['session_id']}/events/{name}", json={"data": forgery})
    listening = await start(client, "forger", [["event", "spread", None]])
    await waiting(client, listening)
    spread = await start(client, "forger", [["publish", "spread", forgery]])
    told = await start(client, "forger", forgery)
    called = await start(client, "parent", [["call", "echoes", forgery]])
    for run, output in ((asked, [forgery] * 3), (listening, [forgery]), (spread, ["published"])):
        found = await ended(client, run["id"])
        assert (found["state"], found["output"]) == ("completed", output), found
        assert secret[:40] not in str(await events(client, run))
        assert (await replayed(client, run))["equal"]
    found = await ended(client, told["id"])
    assert found["input"] == forgery
    assert secret[:40] not in str([found, *await events(client, told)])
    assert secret[:40] not in str([await ended(client, called["id"]), *await events(client, called)])
    children = (await client.get("/v1/runs", params={"agent": "echoes"})).json()["data"]
    assert [child["input"] for child in children] == [forgery]


@pytest.mark.parametrize("where", ["database", "artifacts"])
async def test_a_replay_names_the_step_whose_value_was_changed(
    engine: Engine, client: httpx2.AsyncClient, worker: Workers, where: str
) -> None:
    await apply_agent(client, "touched", **STEPS)
    worker(**TO_STORE)
    mark = f"{where} {LONG if where == 'database' else LARGE}"
    run = await start(client, "touched", [["tool", "witness_read", "first", 0], ["tool", "witness_read", mark, 0]], wait=20)
    assert run["state"] == "completed"
    assert (await replayed(client, run))["equal"]
    if where == "database":
        changed = "UPDATE hansa.values SET body = replace(body, 'long', 'lonk') WHERE digest = decode($1, 'hex')"
        assert await execute(engine, changed, digest(mark)) == "UPDATE 1"
    else:
        (path,) = artifact_files(engine, digest(mark))
        path.write_bytes(path.read_bytes().replace(b"large", b"larke"))
    found = await replayed(client, run)
    assert (found["equal"], found["diverged_at"]["step"]) == (False, "2"), found
    assert digest(mark) in found["diverged_at"]["got"]
    shown = next(event for event in await events(client, run) if event["type"] == "tool.completed" and event["step"] == "2")
    answer = await client.get(f"/v1/values/{shown['data']['content']['$value']}")
    assert (answer.status_code, answer.json()["code"]) == (500, "damaged")


async def test_a_run_whose_past_was_changed_fails_and_says_so(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "hurt", **STEPS)
    worker()
    mark = f"hurt {LONG}"
    run = await start(client, "hurt", [["tool", "witness_read", mark, 0], ["event", "go", None]])
    await waiting(client, run)
    await execute(engine, "DELETE FROM hansa.values WHERE digest = decode($1, 'hex')", digest(mark))
    await client.post(f"/v1/sessions/{run['session_id']}/events/go", json={"data": 1})
    found = await ended(client, run["id"])
    assert (found["state"], found["error"]["code"]) == ("failed", "damaged")
    assert digest(mark) in found["error"]["detail"]


async def test_what_a_called_agent_said_outlives_its_session(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "child")
    await apply(client, agent("caller", runtime={"name": "steps"}, tools=[{"agent": "child"}]))
    worker()
    text = f"child {LONG}"
    run = await start(client, "caller", [["call", "child", script({"text": text})]])
    found = await ended(client, run["id"])
    assert found["output"] == [text], found
    rows = await engine.fetch("SELECT session_id FROM hansa.value_refs WHERE digest = decode($1, 'hex')", digest(text))
    assert run["session_id"] in {str(row["session_id"]) for row in rows}
    assert len(rows) == 2
    assert (await replayed(client, run))["equal"]


async def test_a_fork_refers_to_what_it_took_over(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "forked", **STEPS)
    worker()
    mark = f"forked {LONG}"
    run = await start(client, "forked", [["tool", "witness_read", mark, 0]], wait=20)
    last = (await events(client, run))[-1]["seq"]
    fork = (await client.post(f"/v1/runs/{run['id']}/fork", json={"at": last - 1})).json()
    assert (await ended(client, fork["id"]))["output"] == [mark]
    rows = await engine.fetch("SELECT session_id FROM hansa.value_refs WHERE digest = decode($1, 'hex')", digest(mark))
    assert {str(row["session_id"]) for row in rows} == {run["session_id"], fork["session_id"]}


async def test_every_reference_of_every_log_is_kept(engine: Engine, client: httpx2.AsyncClient, worker: Workers) -> None:
    """Over all that these tests have written: no event refers to a value that its session does not keep."""
    await apply_agent(client, "one")
    worker()
    await start(client, "one", script({"text": LONG}), wait=20)
    references = """
        SELECT e.tenant_id, e.session_id, decode(substr(f.value ->> '$value', 8), 'hex') AS digest
        FROM hansa.events e, json_each(e.data) AS f WHERE json_typeof(f.value) = 'object' AND f.value ->> '$value' IS NOT NULL"""
    kept = "SELECT FROM hansa.value_refs k WHERE k.tenant_id = r.tenant_id AND k.session_id = r.session_id AND k.digest = r.digest"
    assert await engine.fetch(f"SELECT * FROM ({references}) r WHERE NOT EXISTS ({kept})") == []
    (found,) = await engine.fetch(f"SELECT count(*) AS n FROM ({references}) r")
    assert found["n"] > 0


async def test_a_live_reader_sees_values_whole(client: httpx2.AsyncClient, worker: Workers) -> None:
    await apply_agent(client, "live")
    worker()
    run = await start(client, "live", script(call("read", "look"), {"text": LONG}))
    lines: list[str] = []
    url = f"/v1/sessions/{run['session_id']}/events/stream"
    async with asyncio.timeout(20), client.stream("GET", url, params={"until": run["id"]}) as stream:
        async for line in stream.aiter_lines():
            lines.append(line)
    assert [line for line in lines if line.startswith("data:") and '"run.completed"' in line and LONG in line]
    assert not [line for line in lines if "$value" in line]
