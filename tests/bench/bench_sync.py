"""What `hansa sync` costs: one changed file among a thousand objects, from the commit to what serves, and what is sent for it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from bench.figures import Figures
from doubles.git_server import GitServer, serving
from repository.repos import GitRepo, agent
from samples import SCRIPTED
from stack import Process, Stack

OBJECTS = 1000
CHANGES = 10
WITHIN = 3.0
PROXY_PIECE = 65_536


class Counter:
    """Stands before the control plane, hands everything on, and counts requests and bytes that come in."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self.port = 0
        self.requests = 0
        self.received = 0

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        try:
            await asyncio.gather(self._count(reader, inner_writer), _hand_on(inner_reader, writer))
        finally:
            for each in (writer, inner_writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PROXY_PIECE):
                self.requests += piece.count(b" HTTP/1.1\r\n")
                self.received += len(piece)
                writer.write(piece)
                await writer.drain()
        writer.close()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PROXY_PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextlib.contextmanager
def syncing(stack: Stack, url: str, server: GitServer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`hansa sync` over https's protocol, looking each second."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}
    env |= {"HANSA_URL": url, "HANSA_API_KEY": stack.key, "HANSA_DATA_DIR": str(folder), "HANSA_LOG_LEVEL": "warning"}
    command = ["sync", "--git", f"{server.url}/upstream/.git", "--ref", "main", "--interval", "1", "--resync", "86400"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "hansa", *command], env=env, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


async def serves(client: httpx2.AsyncClient, name: str, text: str) -> float:
    """When an agent serves what it was changed to."""
    async with asyncio.timeout(120):
        while True:
            answer = await client.get(f"/v1/agents/{name}")
            if answer.status_code == 200 and answer.json()["manifest"]["spec"]["instructions"] == text:
                return time.perf_counter()
            await asyncio.sleep(0.01)


def test_sync_one_change(bench_stack: Stack, figures: Figures, tmp_path: Path) -> None:
    """A commit with one changed file, in a repository of 1,000 objects behind a Git server."""
    repo = GitRepo(tmp_path / "upstream")
    repo.commit({f"agents/{number // 50}/a{number}.yaml": agent(f"a{number}", f"Be {number} times brief.") for number in range(OBJECTS)})
    control_plane = bench_stack.serve(HANSA_LOG_LEVEL="warning")
    with serving(tmp_path) as server:
        asyncio.run(measured(bench_stack, control_plane, server, repo, figures))


async def measured(stack: Stack, control_plane: Process, server: GitServer, repo: GitRepo, figures: Figures) -> None:
    counter = Counter(control_plane.port)
    folder = repo.folder.parent / "data"
    folder.mkdir()
    async with await counter.serve(), stack.client(control_plane) as client:
        await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}]})
        started = time.perf_counter()
        with syncing(stack, f"http://127.0.0.1:{counter.port}", server, folder) as process:
            figures.report("sync_first_1000", [await serves(client, "a999", "Be 999 times brief.") - started], unit="s")
            await asyncio.sleep(3)
            seen: list[float] = []
            sent: list[float] = []
            asked: list[float] = []
            for change in range(CHANGES):
                repo.write({f"agents/7/a{350 + change}.yaml": agent(f"a{350 + change}", f"Changed {change}.")})
                repo.git("add", "--all")
                repo.git("commit", "--quiet", "--message", "a change")
                committed, counter.received, counter.requests = time.perf_counter(), 0, 0
                seen.append(await serves(client, f"a{350 + change}", f"Changed {change}.") - committed)
                await asyncio.sleep(1.0 + change / CHANGES)
                sent.append(counter.received)
                asked.append(counter.requests)
            figures.report("sync_one_change_bytes_sent", sent, unit="bytes", at_most=16_384)
            figures.report("sync_one_change_requests", asked, unit="", at_most=4)
            server.sent = 0
            await asyncio.sleep(5)
            figures.report("sync_look_bytes_received", [server.sent / 5], unit="bytes/s")
            figures.report("sync_memory", [resident_of(process.pid) / 1024 / 1024], unit="MiB")
            assert figures.report("sync_one_change", seen, unit="s", at_most=WITHIN) <= WITHIN


def resident_of(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
