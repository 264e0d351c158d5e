"""What an agent's manifest says of its tools is obeyed in runs: taint, rules on arguments, effects, egress, bounds of the cage."""

import asyncio
import itertools
from typing import Any

import httpx2
import pytest

from hansa import ids
from runs.engine import script
from samples import agent

NUMBERS = itertools.count()
Json = dict[str, Any]
CAGE: Json = {"plugin": "cage", "allow": ["shell"]}
TOOLS: Json = {"plugin": "tools", "allow": ["clock", "files_write", "http_get"]}
TIME: Json = {"name": "clock", "arguments": {}}
NOTE: Json = {"name": "files_write", "arguments": {"path": "note", "text": "x"}}
FETCH: Json = {"name": "http_get", "arguments": {"url": "https://example.com/"}}
Run = Json


def shell(line: str) -> dict[str, Any]:
    return {"name": "shell", "arguments": {"script": line}}


def turns(*calls: dict[str, Any]) -> str:
    return script(*({"tool_calls": [each]} for each in calls), {"text": "Done."})


class People:
    """Who applies agents, starts runs and decides about their calls."""

    def __init__(self, api: httpx2.AsyncClient) -> None:
        self.api = api

    async def apply(self, *tools: dict[str, Any], **spec: Any) -> str:
        name = f"narrow-{ids.new_id().hex[-8:]}-{next(NUMBERS)}"
        answer = await self.api.post("/v1/objects:apply", json={"objects": [{"manifest": agent(name, tools=list(tools), **spec)}]})
        assert answer.json()["failed"] == 0, answer.text
        return name

    async def run(self, name: str, *calls: dict[str, Any]) -> Run:
        """A run once it has ended or waits for a person."""
        run = (await self.api.post(f"/v1/agents/{name}/runs", json={"input": turns(*calls)})).json()
        return await self.settled(run)

    async def settled(self, run: Run) -> Run:
        for _ in range(400):
            found = (await self.api.get(f"/v1/runs/{run['id']}")).json()
            if found["state"] not in ("queued", "running") and (found["state"] != "waiting" or await self.asked(run)):
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"run {run['id']} does not settle")

    async def asked(self, run: Run) -> list[dict[str, Any]]:
        found = (await self.api.get("/v1/approvals", params={"state": "pending", "limit": 100})).json()["data"]
        return [each for each in found if each["run_id"] == run["id"]]

    async def decide(self, run: Run, decision: str) -> Run:
        (approval,) = await self.asked(run)
        answer = await self.api.post(f"/v1/approvals/{approval['id']}/decide", json={"decision": decision})
        assert answer.status_code in (200, 202), answer.text
        for _ in range(400):
            if approval["id"] not in [each["id"] for each in await self.asked(run)]:
                return await self.settled(run)
            await asyncio.sleep(0.05)
        raise AssertionError("the decision is not taken")

    async def events(self, run: Run, *types: str) -> list[dict[str, Any]]:
        found = (await self.api.get(f"/v1/sessions/{run['session_id']}/events", params={"limit": 200})).json()["data"]
        return [each["data"] for each in found if each["type"] in types]

    async def told(self, run: Run) -> list[Any]:
        """What the model was told of its calls."""
        return [event["content"] for event in await self.events(run, "tool.completed")]

    async def replays(self, run: Run) -> bool:
        return (await self.api.get(f"/v1/runs/{run['id']}/replay")).json()["equal"]


@pytest.fixture
def people(api: httpx2.AsyncClient) -> People:
    return People(api)


async def test_once_untrusted_text_was_read_every_write_needs_a_person_and_reads_do_not(people: People) -> None:
    name = await people.apply(CAGE, TOOLS, taint="RequireApproval")
    run = await people.run(name, TIME, shell("echo first"), TIME, NOTE, shell("echo second"), shell("echo third"))
    (approval,) = await people.asked(run)
    assert approval["subject"]["because"] == "the run has read untrusted text: shell at step 4"
    assert [call["name"] for call in await people.events(run, "tool.completed")] == ["clock", "shell", "clock", "files_write"]
    # It was let go while it waited: who goes on with it knows of the taint from the log alone.
    run = await people.decide(run, "approve")
    (approval,) = await people.asked(run)
    assert approval["subject"]["arguments"] == {"script": "echo third"}
    run = await people.decide(run, "deny")
    assert run["state"] == "completed"
    *_, second, third = await people.told(run)
    assert (second["stdout"], "did not approve" in third) == ("second\n", True)
    assert len(await people.events(run, "tool.called")) == 3
    assert await people.replays(run)


async def test_without_taint_nobody_is_asked(people: People) -> None:
    run = await people.run(await people.apply(CAGE, TOOLS), shell("echo first"), shell("echo second"))
    assert run["state"] == "completed"
    assert [answer["stdout"] for answer in await people.told(run)] == ["first\n", "second\n"]


async def test_who_vouches_for_a_tool_is_taken_at_their_word(people: People) -> None:
    name = await people.apply({**CAGE, "untrusted": False}, TOOLS, taint="RequireApproval")
    run = await people.run(name, shell("echo first"), shell("echo second"), FETCH, shell("echo third"))
    assert (run["state"], len(await people.told(run))) == ("waiting", 3)
    assert (await people.asked(run))[0]["subject"]["because"].startswith("the run has read untrusted text: http_get")
    name = await people.apply(CAGE, {**TOOLS, "untrusted": True}, taint="RequireApproval")
    assert (await people.run(name, TIME, shell("echo first")))["state"] == "waiting"


async def test_agents_are_asked_about_and_their_answers_taint(people: People) -> None:
    callee = await people.apply(CAGE)
    name = await people.apply(CAGE, {"agent": callee}, taint="RequireApproval")
    ask = {"name": callee, "arguments": {"input": "hello"}}
    run = await people.run(name, ask, shell("echo first"))
    assert (await people.asked(run))[0]["subject"]["name"] == "shell"
    run = await people.run(name, shell("echo first"), ask)
    assert (await people.asked(run))[0]["subject"]["name"] == callee
    run = await people.decide(run, "approve")
    assert (run["state"], await people.replays(run)) == ("completed", True)
    trusting = await people.apply(CAGE, {"agent": callee, "untrusted": False}, taint="RequireApproval")
    run = await people.run(trusting, ask, shell("echo first"))
    assert run["state"] == "completed"


async def test_a_call_that_breaks_a_rule_is_never_made(people: People) -> None:
    rules = [
        {"cel": "!args.script.contains('rm ')", "message": "Nothing is deleted here."},
        {"tools": ["shell"], "cel": "size(args.script) < 30"},
    ]
    name = await people.apply({**CAGE, "arguments": rules}, {**TOOLS, "arguments": [{"schema": {"type": "object", "maxProperties": 2}}]})
    run = await people.run(name, shell("rm -r /"), shell("echo ok"), shell("echo " + "x" * 40), NOTE)
    removed, okay, long, noted = await people.told(run)
    assert removed == "this agent may not call shell so: Nothing is deleted here."
    assert (okay["stdout"], noted["size"]) == ("ok\n", 1)
    assert "size(args.script) < 30" in long
    assert len(await people.events(run, "tool.called")) == 2
    assert await people.replays(run)


async def test_an_effect_is_what_the_agent_says_it_is(people: People) -> None:
    name = await people.apply({**CAGE, "effect": "idempotent"}, {**TOOLS, "effect": "unsafe"}, taint="RequireApproval")
    run = await people.run(name, shell("echo first"), shell("echo second"), TIME)
    assert [call["effect"] for call in await people.events(run, "tool.called")] == ["idempotent", "idempotent"]
    assert (await people.asked(run))[0]["subject"]["name"] == "clock"


async def test_requests_go_only_where_the_agent_says(people: People) -> None:
    elsewhere = await people.apply(TOOLS, egress=["*.example.org"])
    (told,) = await people.told(await people.run(elsewhere, FETCH))
    assert "not_listed" in told
    assert "the agent's list (spec.egress)" in told
    assert "Listed are: *.example.org." in told
    (told,) = await people.told(await people.run(await people.apply(TOOLS, egress=[]), FETCH))
    assert "Listed are: none." in told


async def test_a_program_is_held_to_the_bounds_of_its_entry(people: People) -> None:
    brief, small = await people.apply({**CAGE, "cage": {"seconds": 0.3}}), await people.apply({**CAGE, "cage": {"memoryMebibytes": 64}})
    (slow,) = await people.told(await people.run(brief, shell("sleep 20")))
    assert "took too long" in slow["stopped"]
    (bound,) = await people.told(await people.run(small, shell("ulimit -v")))
    assert bound["stdout"] == f"{2 * 64 * 1024}\n"


async def test_a_program_with_a_network_goes_through_the_door(people: People) -> None:
    ask = "import urllib.request, urllib.error\ntry:\n    urllib.request.urlopen('http://example.com/')\nexcept OSError as error:\n"
    code = f"{ask}    print(getattr(error, 'code', error), error.read().decode() if hasattr(error, 'read') else '')"
    call = {"name": "python", "arguments": {"code": code}}
    listed = await people.apply({"plugin": "cage", "cage": {"network": True}}, egress=["*.example.org"])
    (told,) = await people.told(await people.run(listed, call))
    assert told["stdout"].startswith("403 http://example.com:80 is refused (not_listed): it is not on the agent's list (spec.egress)")
    (told,) = await people.told(await people.run(await people.apply({"plugin": "cage"}), call))
    assert "403" not in told["stdout"]


NOT_OBEYED: list[tuple[Json, Json, str, str]] = [
    ({**CAGE, "arguments": [{"cel": "args.x <"}]}, {}, "spec.tools[0].arguments[0].cel", "Syntax error"),
    ({**CAGE, "arguments": [{"cel": "amount < 3"}]}, {}, "spec.tools[0].arguments[0].cel", "undeclared reference to 'amount'"),
    ({**CAGE, "arguments": [{}]}, {}, "spec.tools[0].arguments[0]", "exactly one of"),
    (
        {**CAGE, "arguments": [{"schema": {"type": "object", "minimum": "x"}}]},
        {},
        "spec.tools[0].arguments[0].schema",
        "not a valid JSON",
    ),
    ({**CAGE, "arguments": [{"tools": ["shel"], "cel": "true"}]}, {}, "spec.tools[0].arguments[0].tools", "names shel"),
    ({**CAGE, "requireApproval": ["shel"]}, {}, "spec.tools[0].requireApproval", "names shel"),
    ({"agent": "other", "effect": "read"}, {}, "spec.tools[0].effect", "may not be set where `agent` is"),
    ({"agent": "other", "cage": {"seconds": 1}}, {}, "spec.tools[0].cage", "may not be set where `agent` is"),
    ({**CAGE, "cage": {"seconds": 0}}, {}, "spec.tools[0].cage.seconds", "0.1"),
    (CAGE, {"egress": ["10.0.0.1/8"]}, "spec.egress[0]", "host bits"),
    (CAGE, {"egress": ["https://example.com"]}, "spec.egress[0]", "a host"),
    (CAGE, {"taint": "Maybe"}, "spec.taint", "RequireApproval"),
]


@pytest.mark.parametrize(("tools", "spec", "path", "words"), NOT_OBEYED)
async def test_what_cannot_be_obeyed_is_refused_with_its_place(
    people: People, tools: dict[str, Any], spec: dict[str, Any], path: str, words: str
) -> None:
    manifest = agent("refused", tools=[tools], **spec)
    (result,) = (await people.api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["results"]
    assert result["action"] == "failed"
    assert [error["path"] for error in result["errors"]] == [path]
    assert words in result["errors"][0]["message"]
