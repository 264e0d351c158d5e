"""What ends a run before its answer: its limits, a model that will not do, a provider that is away. Each with its own code."""

import json
from typing import Any

import httpx2
import pytest

from runs.engine import Engine, apply, apply_agent, call, script, start
from samples import SCRIPTED

pytestmark = pytest.mark.usefixtures("steady")

NUMBERS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WRONG_CALL = {"tool_calls": [{"name": "witness_read", "arguments": {"mark": 5}}]}
MALFORMED = {"tool_calls": [{"name": "witness_read", "malformed": "{mark:"}]}
NO_TOOL: dict[str, Any] = {"tool_calls": [{"name": "no_such_tool", "arguments": {}}]}


@pytest.mark.parametrize(
    ("spec", "run_input", "code"),
    [
        ({"limits": {"turns": 2}}, script(call("read", "a"), call("read", "b"), call("read", "c")), "limit_turns"),
        ({"limits": {"tokens": 10}}, script(call("read", "a"), {"text": "one two three"}), "limit_tokens"),
        ({"limits": {"timeoutSeconds": 1}}, script({"text": "late", "delay": 30}), "limit_timeout"),
        ({"limits": {"timeoutSeconds": 1}}, script(call("keyed", "pay", seconds=25), {"text": "late"}), "limit_timeout"),
        ({}, script(WRONG_CALL, MALFORMED, NO_TOOL, {"text": "never said"}), "tool_arguments_invalid"),
        ({"outputSchema": NUMBERS}, script({"text": "no"}, {"text": '{"n": "x"}'}, {"text": "{}"}, {"text": '{"n": 1}'}), "output_invalid"),
        ({}, script({"error": "unavailable"}), "provider_unavailable"),
        ({}, script({"error": "refused"}), "provider_refused"),
        ({}, "#script not json", "provider_refused"),
        ({"runtime": {"config": {"odd": 1}}}, "x", "runtime_config"),
    ],
)
async def test_a_run_that_cannot_succeed_fails_with_its_reason(
    client: httpx2.AsyncClient, spec: dict[str, Any], run_input: str, code: str
) -> None:
    await apply_agent(client, "limits", **spec)
    run = await start(client, "limits", run_input, wait=20)
    assert (run["state"], run["error"]["code"], run["output"]) == ("failed", code, None), run["error"]
    assert run["error"]["detail"]
    assert run["error"]["hint"] or code == "runtime_config"
    assert (await client.get(f"/v1/runs/{run['id']}/replay")).json()["equal"]


async def test_a_run_costs_what_its_models_prices_say_and_no_more_than_its_limit(client: httpx2.AsyncClient) -> None:
    model = {"name": "dear", "prices": {"input": 0, "output": 1_000_000}}
    priced = {**SCRIPTED, "metadata": {"name": "priced"}, "spec": {"plugin": "scripted", "models": [model]}}
    await apply(client, priced)
    for bound, state in ((0, "completed"), (1000, "completed"), (2, "failed")):
        await apply_agent(client, "costly", model={"ref": "priced/dear"}, limits={"cost": bound})
        run = await start(client, "costly", script({"text": "one two three"}), wait=20)
        assert run["state"] == state, run
        events = (await client.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"]
        spent = run["usage"]["output_tokens"] * 1_000_000
        assert spent > 2_000_000
        (answer,) = [event["data"] for event in events if event["type"] == "model.completed"]
        assert answer["cost"] == events[-1]["data"]["usage"]["cost"] == spent
        assert bound != 2 or run["error"]["code"] == "limit_cost"
        assert (await client.get(f"/v1/runs/{run['id']}/replay")).json()["equal"]


async def test_two_wrong_calls_and_two_wrong_answers_are_forgiven(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "limits", outputSchema=NUMBERS)
    turns = (WRONG_CALL, NO_TOOL, call("read", "fine"), {"text": "no"}, {"text": "[]"}, {"text": '{"n": 1}'})
    run = await start(client, "limits", script(*turns), wait=20)
    assert (run["state"], run["output"]) == ("completed", {"n": 1})
    assert [line["mark"] for line in engine.witness() if line["key"].startswith(run["id"])] == ["fine", "fine"]


async def test_a_passing_outage_of_the_provider_is_waited_out(engine: Engine, client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "limits")
    run = await start(client, "limits", script({"error": "unavailable", "times": 2, "text": "here again"}), wait=20)
    assert (run["state"], run["output"]) == ("completed", "here again")
    _, events = await engine.facts([run["id"]])
    (answer,) = [event["data"] for event in events if event["type"] == "model.completed"]
    assert (answer["attempts"], answer["provider"]) == (3, "scripted")


async def test_a_model_that_cannot_be_used_is_stood_in_for(engine: Engine, client: httpx2.AsyncClient) -> None:
    spec = {"plugin": "openai", "models": [{"name": "large"}], "credentials": {"env": "NO_SUCH_TOKEN_FOR_TESTS"}}
    paid = {"apiVersion": "hansa.dev/v1alpha1", "kind": "ModelProvider", "metadata": {"name": "paid"}, "spec": spec}
    await apply(client, paid)
    await apply_agent(client, "limits", model={"ref": "paid/large", "fallbacks": [{"alias": "scripted"}]})
    run = await start(client, "limits", "hello", wait=20)
    assert (run["state"], run["output"]) == ("completed", "hello")
    await apply_agent(client, "limits", model={"ref": "paid/large"})
    run = await start(client, "limits", "hello", wait=20)
    assert (run["state"], run["error"]["code"]) == ("failed", "provider_refused")
    assert "paid: " in run["error"]["detail"]
    assert "credential" in run["error"]["detail"]


async def test_the_streamed_text_is_the_answer_once(client: httpx2.AsyncClient) -> None:
    await apply_agent(client, "limits")
    said = " ".join(f"word{number}" for number in range(40))
    # The long wait is before the text, so that the stream is surely open when it comes.
    run = await start(client, "limits", script(call("read", "wait", seconds=1.0), {"text": said, "delay": 1.0, "chunks": 40}))
    heard, kind, last = "", "", {}
    async with client.stream("GET", f"/v1/sessions/{run['session_id']}/events/stream", params={"until": run["id"]}) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
                heard += last["text"] if kind == "delta" else ""
    assert heard == said
    assert last["data"]["output"] == said
