"""One run for each of many inputs: so many at once, repeated safely while the server is away, ended by a table.

Must not know where the inputs come from, except for `each_line`.
"""

import hashlib
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hansa import clock, ids
from hansa.cli.client import Api, Json, part, segment
from hansa.cli.following import RESTING_STATES
from hansa.cli.output import Column, Output, plain, say, short, show
from hansa.cli.usage import UsageError
from hansa.cli.waits import STANDING_STATUS, is_asking, standing, ways_on
from hansa.errors import HansaError, Invalid

PATIENCE_SECONDS = 120.0
WAIT_SECONDS = "20"
WAITING_SECONDS = 300.0
_POLL_PAUSES = (0.2, 0.4, 0.8)
MAX_CONCURRENCY = 256
_LISTED = 20


class Job(msgspec.Struct, frozen=True):
    """One input: `number` counts from 1, `key` makes its start safe to repeat."""

    number: int
    input: Any
    key: str


class Terms(msgspec.Struct, frozen=True):
    """How jobs are run: so many at once; one whose run has only waited for `patience` seconds is left alone; `body`: what is sent
    beside the input."""

    concurrency: int
    patience: float = WAITING_SECONDS
    body: Json = {}


class Outcome(msgspec.Struct, frozen=True):
    """What became of a job: `run` is None when it could not even be started, and `error` says why."""

    job: Job
    run: Json | None
    error: str
    seconds: float

    @property
    def state(self) -> str:
        """State of the run, or `refused` when there is none."""
        return str(self.run["state"]) if self.run is not None else "refused"

    @property
    def has_failed(self) -> bool:
        """Whether the job is over without a result: not completed, and not standing still until someone does something."""
        return self.state in ("refused", "failed", "canceled")


class Table(msgspec.Struct, frozen=True):
    """How to show the outcomes; no `columns`: all fields that an output has."""

    output: Output
    columns: tuple[str, ...] = ()


def each_line(api: Api, agent: str, file: str, *, terms: Terms, table: Table) -> int:
    """Run the agent on each line of a file, show the table, and return the exit status: 1 when a line failed, else
    `STANDING_STATUS` when one has not ended."""
    jobs = list(_lines(file))
    if not jobs:
        raise Invalid(f"{file} has no line with anything in it")
    done: list[Outcome] = []
    try:
        outcomes = with_progress(_noted(run_all(api, agent, jobs, terms=terms), done), total=len(jobs), title=agent)
    except KeyboardInterrupt:
        say(
            f"\nstopped at {len(done)} of {len(jobs)} lines; of the others no more are started, and runs that were accepted go on\n"
            f"list them: hansa runs --agent {agent}\ncancel one: hansa runs cancel RUN"
        )
        raise
    _show(outcomes, table)
    others = [outcome for outcome in outcomes if outcome.state != "completed"]
    _summarize(outcomes, others)
    if any(outcome.has_failed for outcome in others):
        return 1
    return STANDING_STATUS if others else 0


def _noted(outcomes: Iterable[Outcome], done: list[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        done.append(outcome)
        yield outcome


def run_all(api: Api, agent: str, jobs: Sequence[Job], *, terms: Terms) -> Iterator[Outcome]:
    """Run the agent on every job, so many at once; yields outcomes as they come in."""
    if not 1 <= terms.concurrency <= MAX_CONCURRENCY:
        raise UsageError(f"--concurrency must be from 1 to {MAX_CONCURRENCY}, got {terms.concurrency}")
    waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Outcome | Exception] = queue.SimpleQueue()
    for job in [*jobs, *[None] * terms.concurrency]:
        waiting.put(job)

    def run(job: Job) -> Outcome:
        return _run(api, agent, job, terms)

    for number in range(min(terms.concurrency, len(jobs))):
        # Daemons: Ctrl-C ends the program without waiting for answers that nobody will read.
        threading.Thread(target=_work, args=(run, waiting, finished), name=f"line-{number}", daemon=True).start()
    for _ in jobs:
        outcome = finished.get()
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


def with_progress(outcomes: Iterable[Outcome], *, total: int, title: str) -> list[Outcome]:
    """Collect outcomes in the order of their jobs, with a bar on stderr where that is a terminal."""
    found: list[Outcome] = []
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=total)
        for outcome in outcomes:
            found.append(outcome)
            bar.advance(task)
    return sorted(found, key=lambda outcome: outcome.job.number)


def make_jobs(inputs: Iterable[tuple[int, Any]], source: str) -> Iterator[Job]:
    """Jobs of numbered inputs. Their keys hold for this one call: to run the same inputs again is to want new runs."""
    invocation = ids.new_id()
    for number, value in inputs:
        yield Job(number, value, hashlib.sha256(f"{source}:{number}:{invocation}".encode()).hexdigest())


def _work(
    run: Callable[[Job], Outcome], waiting: "queue.SimpleQueue[Job | None]", finished: "queue.SimpleQueue[Outcome | Exception]"
) -> None:
    while (job := waiting.get()) is not None:
        try:
            finished.put(run(job))
        except Exception as error:
            # Whatever it is, the thread that collects raises it: a thread of its own would only die in silence.
            finished.put(error)


def _run(api: Api, agent: str, job: Job, terms: Terms) -> Outcome:
    start = clock.monotonic()
    run: Json | None = None
    error = ""
    try:
        path = f"/v1/agents/{segment(agent)}/runs"
        run = api.post(path, {**terms.body, "input": job.input}, query={"wait": WAIT_SECONDS}, key=job.key, patience=PATIENCE_SECONDS)
        run = _until_rest(api, run or {}, job, terms.patience)
        error = str(part(run, "error").get("detail", "")) or standing(run)
    except HansaError as failure:
        error = failure.detail
    return Outcome(job, run, error, clock.monotonic() - start)


def _until_rest(api: Api, run: Json, job: Job, patience: float) -> Json:
    """The run once it has ended or is held, or has done nothing but wait for `patience` seconds."""
    pauses = iter(_POLL_PAUSES)
    pause = _POLL_PAUSES[0]
    waiting_since, told = None, False
    while run["state"] not in RESTING_STATES:
        waiting_since = None if run["state"] in ("queued", "running") and not run.get("waits") else waiting_since or clock.monotonic()
        if is_asking(run) and not told:
            told = True
            say("\n".join([f"line {job.number}: run {run['id']} {standing(run)}", *ways_on(run)]))
        if waiting_since is not None and clock.monotonic() - waiting_since >= patience:
            break
        pause = next(pauses, pause)
        threading.Event().wait(pause)
        run = api.get(f"/v1/runs/{segment(run['id'])}", patience=PATIENCE_SECONDS)
    return run


def _lines(file: str) -> Iterator[Job]:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Invalid(f"{file} can't be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Invalid(f"{file}:{line} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}") from error
    lines = enumerate(text.replace("\r\n", "\n").split("\n"), start=1)
    yield from make_jobs(((number, line.strip()) for number, line in lines if line.strip()), hashlib.sha256(content).hexdigest())


def _show(outcomes: Sequence[Outcome], table: Table) -> None:
    rows = [
        {
            "line": outcome.job.number,
            "input": outcome.job.input,
            "output": outcome.run.get("output") if outcome.run else None,
            "state": outcome.state,
            "seconds": round(outcome.seconds, 3),
            "run_id": outcome.run.get("id") if outcome.run else None,
            "error": outcome.error or None,
        }
        for outcome in outcomes
    ]
    fields = table.columns or tuple(dict.fromkeys(name for row in rows for name in _fields_of(row["output"])))
    columns = [Column("#", lambda row: str(row["line"])), Column("INPUT", lambda row: short(str(row["input"])))]
    columns += [Column(name.upper(), _reader(name)) for name in fields] or [Column("OUTPUT", lambda row: short(plain(row["output"]), 80))]
    columns += [Column("STATE", lambda row: str(row["state"])), Column("SECONDS", lambda row: f"{row['seconds']:.1f}")]
    show(rows, columns, table.output)


def _fields_of(output: Any) -> list[str]:
    return list(cast(Json, output)) if isinstance(output, dict) else []


def _reader(name: str) -> Callable[[Any], str]:
    return lambda row: short(plain(row["output"].get(name)), 80) if isinstance(row["output"], dict) else "-"


def _summarize(outcomes: Sequence[Outcome], others: Sequence[Outcome]) -> None:
    seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
    say(f"{len(outcomes) - len(others)} of {len(outcomes)} completed, {seconds:.1f} s each on average")
    for outcome in others[:_LISTED]:
        say(f"line {outcome.job.number}: {outcome.state}: {outcome.error or 'no reason given'}", style="red")
    if len(others) > _LISTED:
        say(f"... and {len(others) - _LISTED} more")
