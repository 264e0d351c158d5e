"""What is decided about runs over the API: an answer goes with the decision that has one, and times are such as can be."""

import httpx2
import pytest

from api.asking import asking_run
from api.problem import problem
from samples import agent


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
async def test_a_start_outside_of_all_years_is_refused_by_its_name(api: httpx2.AsyncClient, moment: str) -> None:
    await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("echo")}]})
    refused = problem(await api.post("/v1/agents/echo/runs", json={"input": "a", "start_at": moment}), 422, "invalid")
    assert [each["path"] for each in refused["errors"]] == ["start_at"]


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00-23:59", "0001-01-01T23:59:59+23:59", "1950-06-01T12:00:00+17:30"])
async def test_a_start_in_the_past_of_any_zone_is_now(api: httpx2.AsyncClient, moment: str) -> None:
    await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("echo")}]})
    ended = await api.post("/v1/agents/echo/runs", params={"wait": 20}, json={"input": "a", "start_at": moment})
    assert ended.json()["state"] == "completed", ended.text


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("approvals/{approval}/decide", {"decision": "answer"}),
        ("approvals/{approval}/decide", {"decision": "approve", "answer": 1}),
        ("runs/{run}/resume", {"as": "done"}),
        ("runs/{run}/resume", {"as": "fail", "answer": 1}),
        ("runs/{run}/resume", {"answer": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
async def test_an_answer_goes_with_the_decision_that_has_one(api: httpx2.AsyncClient, route: str, body: dict[str, object]) -> None:
    run, approval = await asking_run(api)
    refused = problem(await api.post(f"/v1/{route.format(run=run['id'], approval=approval['id'])}", json=body), 422, "invalid")
    assert [each["path"] for each in refused["errors"]] == ["answer"]
    assert (await api.get(f"/v1/approvals/{approval['id']}")).json()["state"] == "pending"
    assert (await api.post(f"/v1/runs/{run['id']}/cancel")).status_code == 202
