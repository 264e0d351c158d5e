"""`hansa demo` on the real stack, with a model that follows a script: it starts everything, counts honestly, and leaves nothing behind."""

import json
import signal
import time
from pathlib import Path

import pytest

from cli.command import hansa, start

pytestmark = pytest.mark.timeout(180)

MANIFESTS = """\
apiVersion: hansa.dev/v1alpha1
kind: Agent
metadata: {name: review-triage}
spec:
  instructions: Say whether the review is positive or negative.
  model: {alias: small}
  limits: {tokens: LIMIT}
  outputSchema:
    type: object
    properties: {sentiment: {enum: [positive, negative]}}
    required: [sentiment]
---
apiVersion: hansa.dev/v1alpha1
kind: ModelProvider
metadata: {name: scripted}
spec: {plugin: scripted, models: [{name: s, aliases: [small]}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to be in, with manifests."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "all.yaml").write_text(MANIFESTS.replace("LIMIT", "0"))
    return tmp_path


def demo(folder: Path, *more: str) -> tuple[int, list[dict[str, object]], str]:
    ended = hansa("demo", "--once", "--manifests", "m", "--port", "0", "-o", "json", *more, cwd=folder, HANSA_API_KEY="")
    return ended.status, json.loads(ended.out or "[]"), ended.err


def test_once_counts_the_agreement_stops_everything_and_keeps_the_runs(folder: Path) -> None:
    status, rows, said = demo(folder, "--limit", "10")
    assert status == 0, said
    assert [row["hansa"] for row in rows] == ["positive"] * 10
    assert [row["agree"] for row in rows] == [row["people"] == "positive" for row in rows]
    assert "agreement with people: 5 of 10 (5 of 5 positive, 0 of 5 negative)" in said
    assert hansa("status", cwd=folder).status == 3

    status, again, said = demo(folder, "--limit", "2")
    assert status == 0, said
    assert len(again) == 2
    assert hansa("up", "--detach", "--port", "0", cwd=folder).status == 0
    try:
        listed = json.loads(hansa("runs", "--limit", "100", "-o", "json", cwd=folder, HANSA_API_KEY="").out)
    finally:
        assert hansa("down", cwd=folder).status == 0
    assert {run["id"] for run in listed} == {row["run_id"] for row in [*rows, *again]}


def test_a_row_without_a_sentiment_out_of_the_schema_is_named_and_makes_the_status_1(folder: Path) -> None:
    (folder / "m" / "all.yaml").write_text(MANIFESTS.replace("LIMIT", "1"))
    status, rows, said = demo(folder, "--limit", "2")
    assert status == 1
    assert [row["hansa"] for row in rows] == [None, None]
    assert said.count("no sentiment out of the schema for") == 2
    assert hansa("status", cwd=folder).status == 3


def test_it_serves_on_until_ctrl_c_and_then_stops_everything(folder: Path) -> None:
    child = start("demo", "--manifests", "m", "--port", "0", "--limit", "2", cwd=folder, HANSA_API_KEY="")
    ready = folder / ".hansa" / "ready.json"
    assert child.stderr is not None
    said = ""
    deadline = time.monotonic() + 120
    while "doctor" not in said and time.monotonic() < deadline:
        said += child.stderr.readline()
    assert "goes on at" in said
    assert json.loads(ready.read_text())["url"] in said
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "REVIEW" in out
    assert hansa("status", cwd=folder).status == 3
