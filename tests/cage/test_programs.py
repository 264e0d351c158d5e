"""The tools `python` and `shell`, as tools and in runs: over the workspace of the run, in the cage and nowhere else."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from cage.conftest import narrow
from hansa.tools.cage.service import Cages, Narrower, RunCage
from hansa.tools.model import Policy
from hansa.tools.service import CallContext, Surroundings
from hansa_sdk import Effect, Tool, ToolFailed
from hansa_tools.caged.programs import python, shell
from runs.engine import script
from samples import agent
from stack import Process


class Bench:
    """Calls tools as a worker does."""

    def __init__(self, workspace: Path, cages: Cages | None) -> None:
        http = httpx2.AsyncClient(trust_env=False, verify=False)
        self._surroundings = Surroundings(workspace, http, {}, cages)

    async def call(self, tool: Tool, **arguments: object) -> dict[str, Any]:
        context = CallContext(self._surroundings, "run:1", tool, Policy())
        return await tool.run(context, msgspec.convert(arguments, tool.arguments, strict=True))


@pytest.fixture
def bench(workspace: Path, cages: Cages) -> Bench:
    return Bench(workspace, cages)


def test_the_plugin_brings_both_and_says_what_they_may_do() -> None:
    (point,) = entry_points(group="hansa.plugins", name="cage")
    found = {tool.name: tool for tool in point.load().hansa_tools()}
    assert sorted(found) == ["python", "shell"]
    for tool in found.values():
        assert (tool.effect, tool.untrusted) == (Effect.UNSAFE, True)
        assert all("maxLength" in schema and schema["description"] for schema in tool.parameters["properties"].values())


async def test_where_there_is_no_cage_nothing_is_run(workspace: Path) -> None:
    with pytest.raises(ToolFailed, match="no cage"):
        await Bench(workspace, None).call(shell, script="echo ran > ran")
    unsafe = Cages(narrow(), without=("mount-namespace", "landlock"))
    with pytest.raises(ToolFailed, match="does not hold files"):
        await Bench(workspace, unsafe).call(shell, script="echo ran > ran")
    assert list(workspace.iterdir()) == []


async def test_a_program_that_is_too_large_is_refused(bench: Bench) -> None:
    with pytest.raises(ToolFailed, match="65538 bytes"):
        await bench.call(python, code="#" + "ä" * 32768 + "\n")
    with pytest.raises(msgspec.ValidationError):
        await bench.call(shell, script="")


async def test_what_a_program_prints_is_the_answer(bench: Bench) -> None:
    told = await bench.call(python, code="import sys\nprint(sum(map(int, sys.stdin)))\nprint('hm', file=sys.stderr)", stdin="1\n2\n")
    assert {**told, "seconds": 0} == {"status": 0, "stdout": "3\n", "stderr": "hm\n", "seconds": 0}


async def test_a_broken_program_says_where(bench: Bench) -> None:
    told = await bench.call(python, code="x = 1\nx / 0")
    assert told["status"] == 1
    assert "line 2" in told["stderr"]
    assert "ZeroDivisionError" in told["stderr"]


async def test_how_a_program_was_ended_is_said(bench: Bench, workspace: Path) -> None:
    assert (await bench.call(shell, script="kill -9 $$"))["status"] == 137
    flood = await bench.call(python, code="while True: print('x' * 1000)")
    assert "too much output" in flood["stopped"]
    slow = await RunCage(Cages(narrow(seconds=0.2)), workspace, Narrower()).run(["sleep", "9"])
    assert slow.stopped == "time"


async def test_a_run_writes_a_program_runs_it_and_reads_its_file(api: httpx2.AsyncClient) -> None:
    tools = [{"plugin": "cage", "allow": ["shell", "python"]}, {"plugin": "tools", "allow": ["files_write", "files_read"]}]
    manifest = agent("programmer", tools=tools)
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["failed"] == 0
    code = "open('squares', 'w').write(str([n * n for n in map(int, open('numbers').read().split())])); open('/etc/passwd')"
    turns = [
        {"tool_calls": [{"name": "files_write", "arguments": {"path": "numbers", "text": "1 2 3"}}]},
        {"tool_calls": [{"name": "python", "arguments": {"code": code}}]},
        {"tool_calls": [{"name": "files_read", "arguments": {"path": "squares"}}]},
        {"text": "Done."},
    ]
    answer = await api.post("/v1/agents/programmer/runs", params={"wait": 20}, json={"input": script(*turns)})
    run = answer.json()
    assert run["state"] == "completed", answer.text
    events = (await api.get(f"/v1/sessions/{run['session_id']}/events", params={"limit": 100})).json()["data"]
    intents = [event["data"] for event in events if event["type"] == "tool.called"]
    outcomes = [event["data"] for event in events if event["type"] == "tool.completed"]
    assert [(intent["name"], intent["effect"]) for intent in intents] == [("files_write", "idempotent"), ("python", "unsafe")]
    assert "No such file or directory: '/etc/passwd'" in outcomes[1]["content"]["stderr"]
    assert outcomes[2]["content"]["text"] == "[1, 4, 9]"


async def test_an_agent_with_the_common_tools_has_no_programs(api: httpx2.AsyncClient) -> None:
    listed = (await api.get("/v1/tools", params={"limit": 100})).json()["data"]
    assert {tool["name"] for tool in listed if tool["plugin"] == "cage"} == {"python", "shell"}
    assert not {"python", "shell"} & {tool["name"] for tool in listed if tool["plugin"] == "tools"}


def test_a_worker_knows_what_its_cage_holds_before_anybody_has_a_workspace(shared_worker: Process) -> None:
    assert shared_worker.ready().alive
    assert b"cage_refuses" not in shared_worker.log.read_bytes()
