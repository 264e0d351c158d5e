"""`hansa demo`: the whole platform at work in one command, on real reviews with a real, small model, and an honest count.

Must not know how anything works: it uses what every user has, the local stack, manifests and the API.
"""

import asyncio
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

from cyclopts import Parameter

from hansa import clock
from hansa.cli.applying import apply_paths
from hansa.cli.batch import Outcome, Terms, make_jobs, run_all, with_progress
from hansa.cli.client import Api, Json, open_api, part
from hansa.cli.connection import Connection, Ready, data_dir, read_ready
from hansa.cli.output import Column, Output, OutputFlag, field, say, short, show, write
from hansa.cli.reviews import Review, sample
from hansa.cli.stack import data_flag
from hansa.dev import instance, ports
from hansa.dev.failures import PortTaken
from hansa.dev.up import UpOptions
from hansa.errors import Invalid, Misconfigured

AGENT = "review-triage"
FIELD = "sentiment"
CONCURRENCY = 2
_PORT = 7420
_LOCAL = "local"


@Parameter(name="*")
@dataclass(frozen=True)
class DemoOptions:
    """What `hansa demo` does."""

    once: Annotated[bool, Parameter(negative=(), help="Stop everything after the table instead of serving on.")] = False
    limit: Annotated[int, Parameter(help="How many reviews.")] = 50
    concurrency: Annotated[int, Parameter(help="How many at once.")] = CONCURRENCY
    data: Annotated[str, Parameter(help="Data folder (HANSA_DATA_DIR), by default .hansa.")] = ""
    port: Annotated[int | None, Parameter(help="TCP port of the API, by default 7420 or, when that is taken, any free one.")] = None
    manifests: Annotated[Path, Parameter(help="Folder with the objects to apply.")] = Path("gitops/tenants/default")


def demo(*, options: DemoOptions | None = None, output: OutputFlag = "table") -> int:
    """Start everything, apply the example agents, and triage film reviews that people have labelled."""
    options = options or DemoOptions()
    if options.limit < 1:
        raise Invalid(f"--limit must be at least 1, got {options.limit}")
    if not options.manifests.is_dir():
        raise Misconfigured(f"there is no folder {options.manifests}", hint="Run this in a clone of Hansa, or name one with --manifests.")
    began = clock.monotonic()
    reviews = sample(options.limit)
    signal.signal(signal.SIGTERM, _interrupt)
    with _running_stack(options) as (ready, folder):
        url = ready.url
        say(f"Hansa is ready at {url} after {clock.monotonic() - began:.1f} s")
        with open_api(Connection(url=url, api_key_file=ready.api_key_file)) as api:
            if apply_paths(api, [options.manifests], quiet=output != "table").failed:
                return 1
            status = _triage(api, reviews, options=options, output=output)
        say(f"all of it took {clock.monotonic() - began:.1f} s")
        if not options.once:
            _serve_on(url, folder)
    return status


@contextmanager
def _running_stack(options: DemoOptions) -> Iterator[tuple[Ready, Path]]:
    """A local stack: the one that runs over the data folder, or a new one that is stopped in the end."""
    folder = data_dir(Connection(data=options.data))
    running = read_ready(folder) if instance.status(folder).ready else None
    if running is not None:
        yield running, folder
        return
    say(f"starting PostgreSQL, NATS and Hansa over {folder} ...")
    started = asyncio.run(instance.detach(UpOptions(data=folder, port=_port(options.port), environ=dict(os.environ))))
    try:
        yield Ready(started.url, started.api_key_file), folder
    finally:
        say("stopping ...")
        how = asyncio.run(instance.down(folder))
        say(f"{how.value}; the runs stay in {folder}")


def _port(wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    try:
        ports.require_free(_PORT)
    except PortTaken as error:
        say(f"{error.detail}: taking any free one")
        return 0
    return _PORT


def _triage(api: Api, reviews: Sequence[Review], *, options: DemoOptions, output: Output) -> int:
    agent: Json = api.get(f"/v1/agents/{AGENT}")
    allowed = _allowed(agent)
    say(f"triaging {len(reviews)} reviews, {options.concurrency} at once ...")
    began = clock.monotonic()
    jobs = list(make_jobs(enumerate((review.text for review in reviews), start=1), AGENT))
    outcomes = with_progress(run_all(api, AGENT, jobs, terms=Terms(options.concurrency)), total=len(jobs), title=AGENT)
    took = clock.monotonic() - began
    rows = [_row(review, outcome) for review, outcome in zip(reviews, outcomes, strict=True)]
    show(rows, _COLUMNS, output)
    agreed = [row for row in rows if row["agree"]]
    line = f"agreement with people: {len(agreed)} of {len(rows)} ({_by_label(rows)})"
    if output == "table":
        write(f"\n{line}\n")
    else:
        say(line)
    say(f"{took:.1f} s, {took / len(rows):.2f} s a review")
    _say_what_that_means(agent, api.get("/v1/models")["data"])
    outside = [row for row in rows if row["hansa"] not in allowed]
    for row in outside:
        say(f"no {FIELD} out of the schema for {short(str(row['review']), 40)!r}: {row['error'] or row['hansa']}", style="red")
    return 1 if outside else 0


def _allowed(agent: Json) -> list[str]:
    """The words that the agent's output schema allows for a sentiment."""
    schema = part(part(part(agent, "manifest"), "spec"), "outputSchema")
    words = part(part(schema, "properties"), FIELD).get("enum")
    if not words:
        raise Misconfigured(f"the agent {AGENT} has no outputSchema that lists the values of {FIELD}")
    return list(words)


def _row(review: Review, outcome: Outcome) -> Json:
    said = part(outcome.run or {}, "output").get(FIELD)
    return {
        "review": review.text,
        "people": review.sentiment,
        "hansa": said,
        "agree": said == review.sentiment,
        "seconds": round(outcome.seconds, 2),
        "run_id": (outcome.run or {}).get("id"),
        "error": outcome.error or None,
    }


_COLUMNS = (
    Column("REVIEW", lambda row: short(str(row["review"]), 70)),
    field("PEOPLE SAID", "people"),
    field("HANSA SAID", "hansa"),
    field("AGREE", "agree"),
    Column("SECONDS", lambda row: f"{row['seconds']:.1f}"),
)


def _by_label(rows: Sequence[Json]) -> str:
    parts: list[str] = []
    for label in sorted({str(row["people"]) for row in rows}, reverse=True):
        of_label = [row for row in rows if row["people"] == label]
        parts.append(f"{sum(bool(row['agree']) for row in of_label)} of {len(of_label)} {label}")
    return ", ".join(parts)


def _say_what_that_means(agent: Json, models: Sequence[Json]) -> None:
    """Name the model, and say plainly what a small one is and how to take another."""
    wanted = part(part(part(agent, "manifest"), "spec"), "model")
    name = wanted.get("alias") or wanted.get("ref")
    used = next((model for model in models if name == model["ref"] or name in model["aliases"]), None)
    if used is None or used["plugin"] != _LOCAL:
        say(f"model: {used['ref'] if used else name}")
        return
    say(
        f"The model is {used['ref']}: 135 million parameters, on this machine's processor, without key or network. That is about a "
        "thousandth of a large model. It obeys the schema because it can write nothing else, and its judgement is modest: tossing a "
        "coin would agree in half of the cases.\n"
        f"For a better one change one line in gitops/tenants/default/review-triage.yaml, `alias: {name}`, to `alias: claude` (with "
        "ANTHROPIC_API_KEY set), or to the alias of your Ollama or vLLM, for which model-providers.yaml has lines to uncomment."
    )


def _serve_on(url: str, folder: Path) -> None:
    program, flag = _program(), data_flag(folder)
    try:
        say(
            f"\nHansa goes on at {url} (documentation: {url}/docs) until Ctrl-C. In another terminal:\n"
            f'  {program} run assistant "What is 17 * 23, and what time is it?"{flag}\n'
            f"  {program} runs --agent {AGENT}{flag}\n"
            f"  {program} doctor{flag}"
        )
        threading.Event().wait()
    except KeyboardInterrupt:
        say("")


def _program() -> str:
    """How this program is called from here."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"{sys.executable} -m hansa"
    if shutil.which("hansa"):
        return "hansa"
    return os.path.relpath(path)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
