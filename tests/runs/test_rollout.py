"""A new revision serves once it has passed its check; until then, and when it is refused, the last good one does. The status says both."""

import asyncio
import hashlib
from typing import Any

import httpx2
import pytest

from runs.checks import QUICK, SLOW, check_of, decided, is_said, put, revisions, rollout, status
from runs.engine import Engine, call, ended, script, start, until

pytestmark = pytest.mark.usefixtures("steady")
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}


async def test_the_last_good_revision_serves_until_the_new_one_has_passed(client: httpx2.AsyncClient) -> None:
    first = await put(client, "checked-fresh")
    assert (first["revision"], first["status"]["revision"]) == (1, {"desired": 1, "serving": 1})
    second = await put(client, "checked-fresh", rollout=rollout(SLOW, contains=["WELL"], cel="size(output) == 11"))
    assert second["status"]["revision"] == {"desired": 2, "serving": 1}
    assert "revision 2 is being checked" in second["note"]
    assert (await start(client, "checked-fresh", "hello"))["revision"] == 1, "a run was begun on a revision that is still being checked"
    now = await status(client, "checked-fresh")
    assert (now["ready"]["status"], now["ready"]["reason"]) == ("Unknown", "Checking")
    assert now["ready"]["message"].endswith("revision 1 serves meanwhile")
    after = await decided(client, "checked-fresh")
    assert (after["desired"], after["serving"], after["ready"]["status"]) == (2, 2, "True")
    assert (await start(client, "checked-fresh", "hello"))["revision"] == 2
    assert {each["state"] for each in (await revisions(client, "checked-fresh")).values()} == {"serving", "served"}


@pytest.mark.parametrize(
    ("expect", "answer", "said"),
    [
        ({"contains": ["well", "ill"]}, {"text": "all is well"}, "it does not contain 'ill'"),
        ({"cel": "output == 'ill'"}, {"text": "all is well"}, "does not hold"),
        ({"cel": "output.mood == 'ill'"}, {"text": "all is well"}, "can't be evaluated"),
        ({}, {"error": "refused"}, "provider_refused"),
    ],
    ids=["contains", "cel", "cel-on-another-type", "model-fails"],
)
async def test_a_revision_that_does_not_answer_as_it_must_is_refused_and_the_last_good_one_serves(
    client: httpx2.AsyncClient, expect: dict[str, Any], answer: dict[str, Any], said: str
) -> None:
    name = f"wrong-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
    await put(client, name)
    await put(client, name, rollout=rollout(script(answer), **expect))
    after = await decided(client, name)
    assert (after["desired"], after["serving"]) == (2, 1)
    assert (after["ready"]["status"], after["ready"]["reason"]) == ("False", "Refused")
    assert said in after["ready"]["message"]
    assert "revision 1 serves meanwhile" in after["ready"]["message"]
    assert (await start(client, name, "hello"))["revision"] == 1
    run = await check_of(client, name, 2)
    assert run["state"] == "failed"
    assert (await client.get(f"/v1/runs/{run['id']}/replay")).json()["equal"], "a replay comes to another end than the check did"
    refused = await client.post(f"/v1/agents/{name}/runs", json={"input": "hello", "revision": 2})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "was refused" in refused.json()["detail"]


async def test_an_answer_that_is_no_text_is_judged_as_it_is(client: httpx2.AsyncClient) -> None:
    good = rollout(script({"text": '{"mood":"good"}'}), cel="output.mood == 'good'", contains=['"mood":"good"'])
    await put(client, "checked-shaped", outputSchema=SCHEMA, rollout=good)
    assert (await decided(client, "checked-shaped"))["serving"] == 1


async def test_the_first_revision_serves_nothing_until_it_has_passed(client: httpx2.AsyncClient) -> None:
    made = await put(client, "checked-firstborn", rollout=rollout(SLOW))
    assert made["status"]["revision"] == {"desired": 1, "serving": None}
    assert (await client.get("/v1/agents/checked-firstborn")).json()["revision"] is None
    for path, body in (("/v1/agents/checked-firstborn/runs", {"input": 1}), ("/v1/sessions", {"agent": "checked-firstborn"})):
        refused = await client.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict"), refused.text
        assert refused.json()["detail"] == "revision 1 of agent 'checked-firstborn' does not serve: it is being checked"
        assert "hansa rollout status checked-firstborn" in refused.text
    assert (await decided(client, "checked-firstborn"))["serving"] == 1
    assert (await start(client, "checked-firstborn", "hello"))["revision"] == 1


async def test_a_check_only_reads_unless_the_object_lets_it_do_more(engine: Engine, client: httpx2.AsyncClient) -> None:
    marks = ("seen", "set", "paid", "sent")
    turns = [call(name, f"check-{mark}") for name, mark in zip(("read", "idempotent", "keyed", "unsafe"), marks, strict=True)]
    await put(client, "checked-harmless", rollout=rollout(script(*turns, {"text": "done"}), allow=("witness_keyed",)))
    assert (await decided(client, "checked-harmless"))["serving"] == 1
    run = await check_of(client, "checked-harmless", 1)
    done = {line["mark"] for line in engine.witness() if line["key"].startswith(run["id"])}
    assert done == {"check-seen", "check-paid"}
    _, events = await engine.facts([run["id"]])
    told = {each["data"]["name"]: each["data"]["content"] for each in events if each["type"] == "tool.completed"}
    assert "was not called: this run only checks the agent" in told["witness_unsafe"]
    ordinary = await start(client, "checked-harmless", script(call("unsafe", "for-a-customer"), {"text": "done"}), wait=20)
    assert any(line["mark"] == "for-a-customer" for line in engine.witness() if line["key"].startswith(ordinary["id"])), "nor may others"


async def test_a_check_calls_no_agents(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-callee")
    asks = script({"tool_calls": [{"name": "checked-callee", "arguments": {"input": "hello"}}]}, {"text": "done"})
    await put(client, "checked-caller", tools=[{"agent": "checked-callee"}], rollout=rollout(asks))
    assert (await decided(client, "checked-caller"))["serving"] == 1
    run = await check_of(client, "checked-caller", 1)
    children = (await client.get("/v1/runs", params={"agent": "checked-callee"})).json()["data"]
    assert not [each for each in children if each["parent_run"] == run["id"]]


async def test_a_check_is_known_as_one_and_nobody_speaks_in_its_session(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-marked", rollout=rollout())
    await decided(client, "checked-marked")
    run = await check_of(client, "checked-marked", 1)
    assert run["started_by"] == {"name": "rollout", "kind": "rollout", "may": []}
    session = (await client.get(f"/v1/sessions/{run['session_id']}")).json()
    assert (session["smoke"], session["revision"]) == (True, 1)
    events = (await client.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"]
    assert events[0]["data"]["by"]["kind"] == "rollout"
    said = await client.post(f"/v1/sessions/{run['session_id']}/events", json={"type": "user.message", "content": "hello"})
    forked = await client.post(f"/v1/runs/{run['id']}/fork", json={"at": 1})
    assert (said.status_code, forked.status_code) == (409, 409)
    assert "only checks a revision" in said.json()["detail"]
    mine = await start(client, "checked-marked", "hello", wait=20)
    assert (await client.get(f"/v1/sessions/{mine['session_id']}")).json()["smoke"] is False


async def test_what_was_applied_last_decides_and_the_check_before_it_is_stopped(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-hasty")
    await put(client, "checked-hasty", rollout=rollout(script({"text": "late", "delay": 20}), contains=["late"]))
    stopped = await check_of(client, "checked-hasty", 2)
    await put(client, "checked-hasty", rollout=rollout(QUICK))
    assert (await decided(client, "checked-hasty"))["serving"] == 3
    assert (await ended(client, stopped["id"]))["state"] == "canceled"
    assert (await revisions(client, "checked-hasty"))[2]["state"] == "superseded"
    await put(client, "checked-hasty", rollout=rollout(script({"text": "later", "delay": 20})))
    unchecked = await put(client, "checked-hasty", description="without a check")
    assert unchecked["status"]["revision"] == {"desired": 5, "serving": 5}
    assert (await revisions(client, "checked-hasty"))[4]["state"] == "superseded"


async def test_going_back_to_what_has_passed_is_immediate(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-back", rollout=rollout(QUICK))
    await decided(client, "checked-back")
    await put(client, "checked-back", rollout=rollout(script({"text": "ill"}), contains=["well"]))
    assert (await decided(client, "checked-back"))["serving"] == 1
    again = await put(client, "checked-back", rollout=rollout(QUICK))
    assert again["status"]["revision"] == {"desired": 3, "serving": 3}
    assert (await revisions(client, "checked-back"))[3]["reason"] == "PassedBefore"


async def test_applying_the_same_again_neither_tries_again_nor_makes_it_serve(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-patient")
    wrong = rollout(script({"text": "ill"}), contains=["well"])
    await put(client, "checked-patient", rollout=wrong)
    run = (await check_of(client, "checked-patient", 2))["id"]
    assert (await decided(client, "checked-patient"))["ready"]["reason"] == "Refused"
    again = await put(client, "checked-patient", rollout=wrong)
    assert (again["action"], again["status"]["revision"]) == ("unchanged", {"desired": 2, "serving": 1})
    assert "was refused" in again["note"]
    manifest = (await client.get("/v1/agents/checked-patient")).json()["manifest"]
    manifest["metadata"]["labels"] = {"of": "interest"}
    answer = (await client.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["results"][0]
    assert (answer["action"], answer["status"]["revision"]) == ("configured", {"desired": 2, "serving": 1})
    assert (await revisions(client, "checked-patient"))[2]["smoke_run"] == run


async def test_a_refused_revision_is_tried_again_when_somebody_asks_for_it(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-retried", rollout=rollout(script({"text": "ill"}), contains=["well"]))
    assert (await decided(client, "checked-retried"))["ready"]["reason"] == "Refused"
    first = (await check_of(client, "checked-retried", 1))["id"]
    key = {"idempotency-key": "once"}
    answer = await client.post("/v1/agents/checked-retried/rollout/retry", headers=key)
    assert answer.status_code == 202, answer.text
    assert answer.json()["conditions"][-1]["reason"] == "Checking"
    assert (await client.post("/v1/agents/checked-retried/rollout/retry", headers=key)).text == answer.text
    await decided(client, "checked-retried")
    assert (await revisions(client, "checked-retried"))[1]["smoke_run"] != first
    await put(client, "checked-retried", description="no check any more")
    refused = await client.post("/v1/agents/checked-retried/rollout/retry")
    assert (refused.status_code, refused.json()["detail"].partition(":")[0]) == (
        409,
        "revision 2 of agent 'checked-retried' was not refused",
    )
    assert (await client.post("/v1/agents/nobody/rollout/retry")).status_code == 404


async def test_suspending_an_agent_waits_for_no_check(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-braked", rollout=rollout(QUICK))
    await decided(client, "checked-braked")
    held = await put(client, "checked-braked", suspend=True, description="changed", rollout=rollout(QUICK))
    assert held["status"]["conditions"][-1]["reason"] == "Suspended"
    refused = await client.post("/v1/agents/checked-braked/runs", json={"input": 1})
    assert refused.status_code == 409
    run = await check_of(client, "checked-braked", 2)

    async def look() -> bool:
        return (await client.get(f"/v1/runs/{run['id']}")).json()["state"] == "suspended"

    await until(look, "the check is held with its agent")
    await put(client, "checked-braked", description="changed", rollout=rollout(QUICK))
    assert (await decided(client, "checked-braked"))["serving"] == 3


async def test_a_check_that_takes_too_long_is_refused_as_expired(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-slow", rollout=rollout(script({"text": "late", "delay": 30}), seconds=1))
    after = await decided(client, "checked-slow")
    assert after["ready"]["reason"] == "Refused"
    assert "had not ended after 1 s; it was worked on" in after["ready"]["message"]
    assert (await ended(client, (await check_of(client, "checked-slow", 1))["id"]))["state"] == "canceled"


async def test_a_check_somebody_cancels_is_refused(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-stopped", rollout=rollout(script({"text": "late", "delay": 30})))
    run = await check_of(client, "checked-stopped", 1)
    await client.post(f"/v1/runs/{run['id']}/cancel")
    assert "was canceled" in (await decided(client, "checked-stopped"))["ready"]["message"]


async def test_large_inputs_and_those_that_look_like_references_are_what_the_check_is_given(client: httpx2.AsyncClient) -> None:
    large, odd = "well " * 2000, {"$value": f"sha256:{'0' * 64}", "bytes": 1}
    await put(client, "checked-large", rollout=rollout(large))
    await put(client, "checked-odd", rollout=rollout(odd))
    assert [(await decided(client, name))["serving"] for name in ("checked-large", "checked-odd")] == [1, 1]
    assert [(await check_of(client, name, 1))["input"] for name in ("checked-large", "checked-odd")] == [large, odd]


async def test_an_agent_deleted_while_it_is_checked_is_gone_and_begins_anew(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-gone", rollout=rollout(script({"text": "late", "delay": 30})))
    run = await check_of(client, "checked-gone", 1)
    assert (await client.delete("/v1/agents/checked-gone")).status_code == 204
    assert (await ended(client, run["id"]))["state"] == "canceled"
    assert (await client.post("/v1/agents/checked-gone/runs", json={"input": 1})).status_code == 404
    await put(client, "checked-gone", rollout=rollout(script({"text": "late", "delay": 30})))
    assert (await revisions(client, "checked-gone"))[1]["state"] == "checking", "the same spec, which never passed, serves unchecked"
    await put(client, "checked-gone", rollout=rollout(QUICK))
    assert (await decided(client, "checked-gone"))["serving"] == 2


async def test_settings_of_a_revision_come_into_force_with_it(engine: Engine, client: httpx2.AsyncClient) -> None:
    await put(client, "checked-settled", limits={"concurrentRuns": 7})
    await put(client, "checked-settled", limits={"concurrentRuns": 3}, concurrency="Reject", rollout=rollout(SLOW))
    sql = "SELECT bound, concurrency, revision, checking FROM hansa.agents WHERE name = 'checked-settled'"
    (row,) = await engine.fetch(sql)
    assert list(row.values()) == [7, "Enqueue", 1, True]
    await decided(client, "checked-settled")
    (row,) = await engine.fetch(sql)
    assert list(row.values()) == [3, "Reject", 2, False]


async def test_a_check_of_a_busy_agent_takes_the_next_slot(client: httpx2.AsyncClient) -> None:
    await put(client, "checked-busy", limits={"concurrentRuns": 1})
    runs = [await start(client, "checked-busy", script({"text": "done", "delay": 0.4})) for _ in range(6)]
    await put(client, "checked-busy", limits={"concurrentRuns": 1}, rollout=rollout(QUICK))
    await asyncio.gather(decided(client, "checked-busy"), is_said(client, "checked-busy", "serves"))
    left = [(await client.get(f"/v1/runs/{run['id']}")).json()["state"] for run in runs]
    assert left.count("queued") >= 2, "the check waited for all that were queued before it"
