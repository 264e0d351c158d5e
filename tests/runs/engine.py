"""The engine's own platform for tests: a control plane and workers with the witness plugin, over servers that may be hurt.

Workers of these tests must be the only ones over their database, hence not the session's common stack.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from samples import SCRIPTED, agent
from stack import Process, Stack

DOUBLES = Path(__file__).resolve().parents[1] / "doubles"
LEASE = 2.0
QUICK = {
    "HANSA_WORKER_LEASE_SECONDS": str(LEASE),
    "HANSA_WORKER_RENEW_SECONDS": "0.5",
    "HANSA_WORKER_POLL_SECONDS": "0.2",
    "HANSA_WORKER_GRACE_SECONDS": "0.2",
}
TOOLS = [{"plugin": "witness"}]
ENDED = frozenset({"completed", "failed", "canceled", "needs_review"})


class Engine:
    """A stack, its control plane and the witness file."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.witness_file = stack.folder / "witness.jsonl"
        self.witness_file.touch()
        path = os.pathsep.join(filter(None, (str(DOUBLES), os.environ.get("PYTHONPATH"))))
        self._env = {"PYTHONPATH": path, "HANSA_TOOL_WITNESS": str(self.witness_file)}
        self.control_plane = self.replica()

    def replica(self) -> Process:
        """One more control plane."""
        return self.stack.serve(**self._env, HANSA_TOOL_FICKLE="elsewhere")

    def worker(self, **extra: str) -> Process:
        """One more worker, with a short lease."""
        return self.stack.worker(**self._env, **{**QUICK, **extra})

    def client(self, process: Process | None = None) -> httpx2.AsyncClient:
        return self.stack.client(process or self.control_plane)

    def witness(self) -> list[dict[str, Any]]:
        """What the tools have told so far."""
        return [json.loads(line) for line in self.witness_file.read_text().splitlines()]

    def pid(self, server: str) -> int:
        """The process of `postgres` or `nats`."""
        return int((self.stack.servers.folder.run / f"{server}.pid").read_text())

    def is_back(self, server: str, dead: int) -> bool:
        """Whether the supervisor has started a server again after process `dead`."""
        try:
            return self.pid(server) != dead
        except FileNotFoundError:
            return False

    def kill_server(self, server: str) -> None:
        """kill -9; the supervisor starts it again."""
        os.kill(self.pid(server), signal.SIGKILL)

    async def admin(self) -> asyncpg.Connection:
        """A superuser's connection, which sees everything."""
        return await asyncpg.connect(self.stack.admin_url)

    async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """Rows as the superuser sees them; JSON columns decoded."""
        connection = await self.admin()
        try:
            await connection.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
            return [dict(row) for row in await connection.fetch(sql, *arguments)]
        finally:
            await connection.close()

    async def facts(self, ids: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Runs and events of the sessions of these runs, as the oracle wants them."""
        runs = await self.fetch(
            "SELECT id, session_id, state, epoch, takeovers FROM hansa.runs WHERE id = ANY($1::uuid[]) ORDER BY id", ids
        )
        events = await self.fetch(
            "SELECT session_id, run_id, seq, type, step, data FROM hansa.events "
            "WHERE session_id = ANY($1::uuid[]) ORDER BY session_id, seq",
            [run["session_id"] for run in runs],
        )
        return runs, events


def script(*turns: dict[str, Any]) -> str:
    """An input that makes the scripted model do these turns."""
    return "#script " + json.dumps(turns)


def call(name: str, mark: str, *, seconds: float = 0.0, rest: float = 0.0) -> dict[str, Any]:
    """A turn that calls one tool of the witness, which takes `seconds` to its effect and rests after it."""
    return {"tool_calls": [{"name": f"witness_{name}", "arguments": {"mark": mark, "seconds": seconds, "rest": rest}}]}


async def apply(client: httpx2.AsyncClient, *manifests: dict[str, Any]) -> None:
    """Apply manifests, the scripted model among them."""
    answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in (SCRIPTED, *manifests)]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["failed"] == 0, answer.text


async def apply_agent(client: httpx2.AsyncClient, name: str, **spec: Any) -> None:
    """Apply an agent that may use the witness's tools."""
    await apply(client, agent(name, **{"tools": TOOLS, **spec}))


async def start(client: httpx2.AsyncClient, name: str, run_input: Any, **more: Any) -> dict[str, Any]:
    """Start a run; it may have ended when this returns only with `wait`."""
    wait = {"wait": more.pop("wait")} if "wait" in more else {}
    answer = await client.post(f"/v1/agents/{name}/runs", params=wait, json={"input": run_input, **more})
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


async def ended(client: httpx2.AsyncClient, run_id: str, *, seconds: float = 20.0) -> dict[str, Any]:
    """The run once it has ended."""

    async def look() -> dict[str, Any] | None:
        answer = await client.get(f"/v1/runs/{run_id}")
        run = answer.json() if answer.status_code == 200 else {"state": answer.text}
        return run if run["state"] in ENDED else None

    return await until(look, f"run {run_id} has ended", seconds=seconds)


async def until(look: Callable[[], Awaitable[Any] | Any], what: str, *, seconds: float = 20.0) -> Any:
    """What `look` gives once that is not empty. It looks less often the longer it waits, to leave the processors to what it waits for."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(min(0.05 + (time.monotonic() - begun) / 20, 0.2))
    raise AssertionError(f"after {seconds} s it is not so that {what}")
