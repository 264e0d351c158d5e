"""What benches leave: a line each while they run, a table at the end, and `bench.json` at the root for machines.

A figure is the median of its rounds, with the least and the most of them. Figures of other runs stay in `bench.json` until they
are measured again; each says when and on what it was measured.
"""

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[2] / "bench.json"


def machine() -> dict[str, Any]:
    """The machine, as far as it explains a figure."""
    models = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


class Figures:
    """The figures of one run of the benches."""

    def __init__(self) -> None:
        self._machine = machine()
        self._kept: dict[str, dict[str, Any]] = {}

    def report(
        self, name: str, values: Sequence[float], *, unit: str, at_most: float | None = None, at_least: float | None = None
    ) -> float:
        """Keep and say a figure; the median. `at_most` or `at_least` is what is promised of it."""
        median = statistics.median(values)
        promise = {"at_most": at_most} if at_most is not None else {"at_least": at_least} if at_least is not None else {}
        self._kept[name] = {"median": median, "min": min(values), "max": max(values), "rounds": len(values), "unit": unit, **promise}
        print(_line(name, self._kept[name]), flush=True)
        return median

    def close(self) -> None:
        """Print the table and write it down."""
        if not self._kept:
            return
        print(f"\n{_told(self._machine)}\n" + "\n".join(_line(name, figure) for name, figure in sorted(self._kept.items())))
        known: dict[str, Any] = json.loads(BENCH.read_text()) if BENCH.exists() else {}
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        known.update({name: {**figure, "at": at, "machine": self._machine} for name, figure in self._kept.items()})
        BENCH.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def _line(name: str, figure: dict[str, Any]) -> str:
    spread = f"{figure['min']:.2f} to {figure['max']:.2f} in {figure['rounds']}"
    line = f"{name:36} {figure['median']:10.2f} {figure['unit']:9} {spread:32}"
    for word, holds in (
        ("at_most", figure["median"] <= figure.get("at_most", 0)),
        ("at_least", figure["median"] >= figure.get("at_least", 0)),
    ):
        if word in figure:
            line += f" {word.replace('_', ' ')} {figure[word]:g}: {'holds' if holds else 'MISSED'}"
    return line.rstrip()


def _told(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, load {machine['load']} at the start; median, then least to most of the rounds"
    )
