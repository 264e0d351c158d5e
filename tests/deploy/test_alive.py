"""How a cluster learns that a worker hangs: its event loop touches a file, and the probe of the chart looks how old that is."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from deploy.charts import chart, named
from hansa.telemetry.alive import beating
from stack import Stack


def command(file: Path) -> list[str]:
    """What the kubelet is told to start in the worker's container, for a file elsewhere."""
    (container,) = named(chart("defaults"), "Deployment", "hansa-worker-default")["spec"]["template"]["spec"]["containers"]
    program, *options = container["livenessProbe"]["exec"]["command"]
    assert program == "python3"
    told = [each.replace("/var/lib/hansa/run/worker.alive", str(file)) for each in options]
    assert told != options
    return [sys.executable, *told]


def lives(file: Path) -> bool:
    return subprocess.run(command(file), check=False, capture_output=True, timeout=30).returncode == 0


def test_a_worker_is_alive_as_long_as_it_touches_its_file(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "run/worker.alive"
    assert not lives(file), "nobody has started yet"
    worker = stack.worker(HANSA_DATA_DIR=str(tmp_path))
    assert lives(file)
    worker.freeze()
    old = time.time() - 61
    os.utime(file, (old, old))
    assert not lives(file)
    worker.thaw()
    worker.terminate()


async def test_a_file_is_touched_while_the_event_loop_turns(tmp_path: Path) -> None:
    file = tmp_path / "run/alive"
    async with beating(file, seconds=0.01):
        await asyncio.sleep(0.05)
        os.utime(file, (0, 0))
        time.sleep(0.05)  # the loop stands still
        assert file.stat().st_mtime == 0
        await asyncio.sleep(0.05)
        assert file.stat().st_mtime > 0
    os.utime(file, (0, 0))
    await asyncio.sleep(0.05)
    assert file.stat().st_mtime == 0, "nobody touches it when all has ended"


async def test_a_place_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")
    async with beating(tmp_path / "run" / "alive", seconds=0.01):
        await asyncio.sleep(0.03)
        (tmp_path / "run").unlink()
        await asyncio.sleep(0.05)
        assert (tmp_path / "run" / "alive").exists()
