"""Records histories of this version: drives runs of every kind over real servers and workers, and keeps each in a file.

`make histories` before a release. What is recorded again differs in ids and times only; commit it for a version that is not out yet.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2

from hansa.artifacts.content import open_artifacts
from hansa.db.pool import open_database
from hansa.runs.log.keeping import Values
from hansa.runs.replay import find_history, join_history
from hansa.settings import Settings
from histories.corpus import ROOT, write
from runs.engine import Engine, apply, call, ended, script, start, until
from samples import agent
from stack import Process, open_stack

TOOLS = [{"plugin": "witness"}]
NUMBERS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WRONG_CALL = {"tool_calls": [{"name": "witness_read", "arguments": {"mark": 5}}]}
Run = dict[str, Any]


def steps(name: str, **spec: Any) -> dict[str, Any]:
    """An agent that does what its input lists."""
    return agent(name, **{"tools": TOOLS, "runtime": {"name": "steps"}, **spec})


AGENTS = (
    agent("loops", tools=TOOLS),
    agent("numbers", tools=TOOLS, outputSchema=NUMBERS),
    agent("shaped", tools=TOOLS, inputTemplate="Say {input}.", examples=[{"input": "a", "output": "b"}]),
    agent("short", tools=TOOLS, limits={"turns": 2}),
    agent("retries", retry={"attempts": 2, "backoffSeconds": 0.2}),
    agent("broken", runtime={"name": "broken"}),
    agent("fickle", tools=TOOLS, runtime={"name": "fickle"}),
    agent(
        "fan", tools=TOOLS, runtime={"name": "fan", "config": {"calls": [["witness_keyed", "slow", 0.2], ["witness_unsafe", "quick", 0.0]]}}
    ),
    steps("steps"),
    steps("careful", tools=[{"plugin": "witness", "requireApproval": ["witness_unsafe"]}]),
    steps("hasty", tools=[{"plugin": "witness", "requireApproval": ["*"]}], limits={"approvalSeconds": 1}),
    steps("caller", tools=[{"agent": "steps"}, {"agent": "broken"}, {"agent": "nobody"}]),
    steps("asks-first", tools=[{"agent": "steps", "requireApproval": ["steps"]}]),
)


class Recorder:
    """Drives runs and keeps their histories, by the names of the files."""

    def __init__(self, engine: Engine, client: httpx2.AsyncClient) -> None:
        self._engine = engine
        self._client = client
        self.runs: dict[str, str] = {}

    async def begin(self, name: str, agent_name: str, run_input: Any, **more: Any) -> Run:
        """Start a run whose history is kept under a name."""
        run = await start(self._client, agent_name, run_input, **more)
        self.runs[name] = run["id"]
        return run

    async def end(self, run: Run, state: str = "completed") -> Run:
        found = await ended(self._client, run["id"], seconds=40)
        assert found["state"] == state, found
        return found

    async def simply(self, name: str, agent_name: str, run_input: Any, state: str = "completed", **more: Any) -> Run:
        """A run that ends by itself."""
        return await self.end(await self.begin(name, agent_name, run_input, **more), state)

    async def waiting(self, run: Run) -> list[dict[str, Any]]:
        async def look() -> list[dict[str, Any]]:
            found = (await self._client.get(f"/v1/runs/{run['id']}")).json()
            return found["waits"] if found["state"] == "waiting" else []

        return await until(look, "the run waits")

    async def post(self, path: str, **body: Any) -> Run:
        answer = await self._client.post(f"/v1/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def decide(self, run: Run, **decision: Any) -> None:
        (wait,) = await self.waiting(run)
        await self.post(f"approvals/{wait['key']}/decide", **decision)

    async def begun(self, run: Run) -> None:
        """Until the run's tool has told that it begins."""
        await until(lambda: [line for line in self._engine.witness() if line["key"].startswith(run["id"])], "a call is begun")

    async def taken_over(self, name: str, effect: str, worker: list[Process]) -> Run:
        """A run whose worker dies within a call."""
        turns = script(call("read", "look"), call(effect, "act", rest=2.0), {"text": "done"})
        run = await self.begin(name, "loops", turns)
        await until(lambda: any(line["effect"] == effect for line in self._own(run)), "the call is begun")
        worker.pop().kill()
        worker.append(self._engine.worker())
        return run

    def _own(self, run: Run) -> list[dict[str, Any]]:
        return [line for line in self._engine.witness() if line["key"].startswith(run["id"])]


async def models_and_tools(recorder: Recorder) -> None:
    every = [call(effect, effect) for effect in ("read", "idempotent", "keyed", "unsafe")]
    two = {"tool_calls": [*call("read", "one")["tool_calls"], *call("keyed", "two")["tool_calls"]]}
    await recorder.simply("loop", "loops", script(*every, two, {"text": "done"}))
    await recorder.simply("loop-output-schema", "numbers", script(call("read", "a"), {"text": "no"}, WRONG_CALL, {"text": '{"n": 1}'}))
    await recorder.simply("loop-template", "shaped", "hello")
    await recorder.simply("gather", "fan", "go")
    nested = ["gather", [["tool", "witness_read", "a", 0.1], ["gather", [["values"]], [["sleep", 0.1], ["values"]]]], [["values"]]]
    await recorder.simply("gather-nested", "steps", [nested, ["values"]])
    await recorder.simply("fickle-kind-of-step", "fickle", "other kind of step")
    await recorder.simply("fickle-call", "fickle", "other call")
    await recorder.simply("fickle-fewer-steps", "fickle", "fewer steps")
    first = await recorder.simply("session-first", "loops", "hello")
    session = {"session_id": first["session_id"]}
    await recorder.simply("session-second", "loops", script(call("keyed", "two"), {"text": "again"}), **session)
    await recorder.simply("session-third", "loops", {"not": ["text", 3]}, **session)
    forked = await recorder.post(f"runs/{recorder.runs['loop']}/fork", at=6)
    recorder.runs["fork"] = forked["id"]
    await recorder.end(forked)


async def failures(recorder: Recorder) -> None:
    await recorder.simply("failed-raise", "broken", "raise", "failed")
    await recorder.simply("failed-not-json", "broken", "not json", "failed")
    await recorder.simply("failed-turns", "short", script(*(call("read", f"{n}") for n in range(3))), "failed")
    await recorder.simply("failed-arguments", "loops", script(WRONG_CALL, WRONG_CALL, WRONG_CALL), "failed")
    await recorder.simply("failed-refused", "loops", script({"error": "refused"}), "failed")
    await recorder.simply("failed-after-retries", "retries", script({"error": "unavailable"}), "failed")
    await recorder.simply("retried", "retries", script({"error": "unavailable", "times": 3, "text": "here again"}))
    canceled = await recorder.begin("canceled", "loops", script(call("read", "look"), call("keyed", "pay", seconds=30), {"text": "late"}))
    await recorder.begun(canceled)
    await recorder.post(f"runs/{canceled['id']}/cancel")
    await recorder.end(canceled, "canceled")


async def waits(recorder: Recorder) -> None:
    listed = [["sleep", 0.1], ["event", "paid", None], ["event", "never", 0.2], ["publish", "news", {"n": 1}], ["values"]]
    waits = await recorder.begin("waits", "steps", [*listed, ["ask", "What now?"]])
    await recorder.post(f"sessions/{waits['session_id']}/events/paid", data={"amount": 1})
    await until(lambda: _asks(recorder, waits), "the run asks")
    await recorder.decide(waits, decision="answer", answer={"go": True})
    await recorder.end(waits)
    for name, decision in (("approved", {"decision": "approve"}), ("denied", {"decision": "deny", "comment": "not today"})):
        run = await recorder.begin(f"approval-{name}", "careful", [["tool", "witness_read", "a", 0], ["tool", "witness_unsafe", "b", 0]])
        await recorder.decide(run, **decision)
        await recorder.end(run)
    await recorder.simply("approval-expired", "hasty", [["tool", "witness_keyed", "late", 0]])
    asked = await recorder.begin("approval-of-agent", "asks-first", [["call", "steps", [["values"]]]])
    await recorder.decide(asked, decision="approve")
    await recorder.end(asked)
    calls = ["gather", [["call", "steps", [["tool", "witness_keyed", "one", 0.1]]]], [["sleep", 0.1], ["call", "steps", [["sleep", 0.1]]]]]
    await recorder.simply("children", "caller", [calls, ["call", "broken", "raise"], ["call", "nobody", 1], ["call", "stranger", 1]])
    suspended = await recorder.begin("suspended", "steps", [["event", "go", None]])
    await recorder.waiting(suspended)
    await recorder.post(f"runs/{suspended['id']}/suspend")
    await recorder.post(f"sessions/{suspended['session_id']}/events/go", data=None)
    await recorder.post(f"runs/{suspended['id']}/resume")
    await recorder.end(suspended)


async def _asks(recorder: Recorder, run: Run) -> bool:
    return any(wait["kind"] == "approval" for wait in await recorder.waiting(run))


async def deaths(recorder: Recorder, worker: list[Process]) -> None:
    await recorder.end(await recorder.taken_over("taken-over", "keyed", worker))
    await recorder.end(await recorder.taken_over("review-open", "unsafe", worker), "needs_review")
    for word, state in (("done", "completed"), ("retry", "completed"), ("fail", "failed")):
        run = await recorder.taken_over(f"review-{word}", "unsafe", worker)
        await recorder.end(run, "needs_review")
        await recorder.post(f"runs/{run['id']}/resume", **{"as": word}, **({"answer": "sent"} if word == "done" else {}))
        await recorder.end(run, state)


async def _keep(settings: Settings, tenant: UUID, folder: Path, runs: dict[str, str]) -> None:
    data = Path(settings.place.data_dir)
    async with open_database(settings.database) as database, open_artifacts(settings.artifacts, data) as artifacts:
        values = Values(database, artifacts, settings.artifacts.from_bytes)
        for name, run_id in runs.items():
            found = await find_history(database, tenant, UUID(run_id))
            write(folder / f"{name}.json", await join_history(values, tenant, found))


async def record(engine: Engine, folder: Path) -> None:
    """Drive everything, and write one file a run into `folder`."""
    worker = [engine.worker()]
    async with engine.client() as client:
        await apply(client, *AGENTS)
        recorder = Recorder(engine, client)
        drives: tuple[Callable[[Recorder], Awaitable[None]], ...] = (models_and_tools, failures, waits)
        for drive in drives:
            await drive(recorder)
        await deaths(recorder, worker)
        (row,) = await engine.fetch("SELECT tenant_id FROM hansa.runs LIMIT 1")
        await _keep(engine.stack.settings, row["tenant_id"], folder, recorder.runs)


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp(prefix="hansa-histories-"))
    with open_stack(place) as stack:
        asyncio.run(record(Engine(stack), ROOT / version("hansa")))
    shutil.rmtree(place, ignore_errors=True)
