"""Where benchmarks leave their figures: a table on the terminal, and `bench.json` at the root for machines."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[2] / "bench.json"


def report(name: str, values: Sequence[float], *, unit: str, bound: float | None = None) -> float:
    """Print and keep the median and spread of a figure; the median. `bound` is the most that is promised."""
    median = statistics.median(values)
    told = f"{name:32} {median:9.2f} {unit:6} (of {len(values)}: {min(values):.2f} to {max(values):.2f})"
    print(told + (f", promised: at most {bound:g}" if bound is not None else ""))
    kept: dict[str, Any] = json.loads(BENCH.read_text()) if BENCH.exists() else {}
    kept["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    kept[name] = {"median": median, "min": min(values), "max": max(values), "rounds": len(values), "unit": unit, "bound": bound}
    BENCH.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    return median
