"""The example of docs/examples at work: installed with pip beside the platform, used by an agent in a run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from samples import SCRIPTED, agent
from stack import Stack

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/hansa-dice"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder into which pip has installed the example."""
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path / "site"), str(source)]
    subprocess.run(command, check=True, timeout=50)
    return tmp_path / "site"


@pytest.mark.timeout(120)
async def test_an_agent_uses_the_tool_of_a_stranger(own_stack: Stack, site: Path) -> None:
    control_plane = own_stack.serve(PYTHONPATH=str(site))
    own_stack.worker(PYTHONPATH=str(site))
    turns = [{"tool_calls": [{"name": "roll_dice", "arguments": {"count": 3, "sides": 6}}]}, {"text": "done"}]
    async with own_stack.client(control_plane) as client:
        gambler = agent("gambler", tools=[{"plugin": "dice", "allow": ["roll_dice"]}])
        applied = await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}, {"manifest": gambler}]})
        assert applied.json()["failed"] == 0, applied.text
        answer = await client.post("/v1/agents/gambler/runs", params={"wait": 30}, json={"input": f"#script {json.dumps(turns)}"})
        run = answer.json()
        assert (run["state"], run["output"]) == ("completed", "done"), answer.text
        events = (await client.get(f"/v1/sessions/{run['session_id']}/events")).json()["data"]
        (rolled,) = [event["data"] for event in events if event["type"] == "tool.completed"]
        assert not rolled["is_error"]
        assert len(rolled["content"]["rolled"]) == 3


async def test_without_the_package_the_agent_is_refused_with_what_would_bring_it(api: httpx2.AsyncClient) -> None:
    manifest = agent("gambler", tools=[{"plugin": "dice"}])
    (refused,) = (await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["results"]
    (error,) = refused["errors"]
    assert error["path"] == "spec.tools[0].plugin"
    assert "hansa-dice" in error["message"]
