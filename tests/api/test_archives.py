"""A session out of one tenant and into another: the same log to the byte, the same replay, all of it or nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from api.keys import Keys, issue
from api.problem import problem
from cli.command import hansa
from hansa import clock, ids
from hansa.runs.log.archive import FORMAT, Writer
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client

LONG = "a long answer " * 200


async def converse(api: httpx2.AsyncClient, name: str, *inputs: Any) -> tuple[str, list[dict[str, Any]]]:
    """A session with a run for each input; its id, and the runs."""
    session = (await api.post("/v1/sessions", json={"agent": name})).json()["id"]
    runs = [
        (await api.post(f"/v1/agents/{name}/runs", params={"wait": 20}, json={"input": each, "session_id": session})).json()
        for each in inputs
    ]
    return session, runs


async def exported(api: httpx2.AsyncClient, session: str) -> bytes:
    answer = await api.get(f"/v1/sessions/{session}/export")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "application/jsonl"), answer.text
    return answer.content


async def imported(api: httpx2.AsyncClient, archive: bytes, **headers: str) -> httpx2.Response:
    return await api.post("/v1/sessions:import", content=archive, headers=headers)


async def shown(api: httpx2.AsyncClient, session: str, runs: list[dict[str, Any]]) -> list[Any]:
    """All that the API tells of a session."""
    events = (await api.get(f"/v1/sessions/{session}/events", params={"limit": 200})).json()["data"]
    return [events, [(await api.get(f"/v1/runs/{run['id']}")).json() | {"epoch": 0} for run in runs]]


@pytest.fixture
async def stranger(stack: Stack, control_plane: Process, api: httpx2.AsyncClient) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a tenant of this test's own, which has nothing."""
    key = await issue(stack, f"t{ids.new_id().hex[-12:]}", name="k", roles=["platform-admin"])
    async with plain_client(control_plane.url, headers=key) as client:
        yield client


def made_up(**changes: Any) -> tuple[str, bytes]:
    """An archive of a session without runs, and its id."""
    writer, session = Writer(), changes.pop("id", ids.new_id())
    head = {
        "format": FORMAT,
        "id": session,
        "agent": "none",
        "created_at": clock.now(),
        "last_seq": 0,
        "forked_from": None,
        "forked_seq": None,
        **changes,
    }
    return str(session), writer.line("session", head) + writer.end()


async def test_a_session_goes_to_another_tenant_and_is_the_same(api: httpx2.AsyncClient, echo: str, stranger: httpx2.AsyncClient) -> None:
    session, runs = await converse(api, echo, "hello", LONG, {"a": [1, 2.5, None, "ü\x7f\u0000"], "$value": "no"})
    archive = await exported(api, session)
    answer = await imported(stranger, archive)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["id"], answer.json()["last_seq"]) == (session, (await api.get(f"/v1/sessions/{session}")).json()["last_seq"])
    assert await shown(stranger, session, runs) == await shown(api, session, runs)
    for run in runs:
        here, there = [(await client.get(f"/v1/runs/{run['id']}/replay")).json() for client in (api, stranger)]
        assert here == there
        assert there["equal"]
    assert await exported(stranger, session) == archive


async def test_a_long_value_stands_in_the_archive_once(api: httpx2.AsyncClient, echo: str) -> None:
    session, _ = await converse(api, echo, *[LONG] * 5)
    assert (await exported(api, session)).count(LONG.encode()) == 1


async def test_a_session_that_is_here_is_not_changed(api: httpx2.AsyncClient, echo: str) -> None:
    session, runs = await converse(api, echo, "hello")
    archive, before = await exported(api, session), await shown(api, session, runs)
    assert session in problem(await imported(api, archive), 409, "conflict")["detail"]
    assert await shown(api, session, runs) == before


async def test_a_run_that_is_here_in_another_session_is_not_taken_over(
    api: httpx2.AsyncClient, echo: str, stranger: httpx2.AsyncClient
) -> None:
    session, _ = await converse(api, echo, "hello")
    archive = await exported(api, session)
    assert (await imported(stranger, archive)).status_code == 201
    writer, other, again = Writer(), str(ids.new_id()), b""
    for line in archive.splitlines()[:-1]:
        ((kind, body),) = [(kind, body) for kind, body in json.loads(line).items() if kind != "sha256"]
        again += writer.line(kind, {**body, "id": other} if kind == "session" else body)
    problem(await imported(stranger, again + writer.end()), 409, "conflict")
    assert (await stranger.get(f"/v1/sessions/{other}")).status_code == 404


async def test_a_touched_archive_is_refused_with_its_line_and_leaves_nothing(
    api: httpx2.AsyncClient, echo: str, stranger: httpx2.AsyncClient
) -> None:
    session, _ = await converse(api, echo, "hello", LONG)
    lines = (await exported(api, session)).splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines, start=1) if b"run.completed" in line)
    for archive, told in (
        (b"".join(lines).replace(b'"hello"', b'"jello"', 1), "line 3"),
        (b"".join([*lines[: number - 1], *lines[number:]]), f"line {number}"),
        (b"".join(lines[:-1]), "breaks off"),
        (b"", "breaks off"),
        (b"not an archive", "line 1"),
    ):
        assert told in problem(await imported(stranger, archive), 422, "invalid")["detail"]
        assert (await stranger.get(f"/v1/sessions/{session}")).status_code == 404
    assert (await imported(stranger, b"".join(lines))).status_code == 201


async def test_a_run_that_has_not_ended_is_canceled_by_the_import(api: httpx2.AsyncClient, echo: str, stranger: httpx2.AsyncClient) -> None:
    slow = '#script [{"text": "late", "delay": 20}]'
    session = (await api.post("/v1/sessions", json={"agent": echo})).json()["id"]
    started = [(await api.post(f"/v1/agents/{echo}/runs", json={"input": slow, "session_id": session})).json() for _ in range(2)]
    archive = await exported(api, session)
    answer = await imported(stranger, archive)
    assert answer.status_code == 201, answer.text
    for run in started:
        there = (await stranger.get(f"/v1/runs/{run['id']}")).json()
        assert (there["state"], there["finished_at"] is not None) == ("canceled", True)
        await api.post(f"/v1/runs/{run['id']}/cancel")
    events = (await stranger.get(f"/v1/sessions/{session}/events")).json()["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["run_id"] for event in events if event["type"] == "run.canceled"] == [run["id"] for run in started]
    assert answer.json()["last_seq"] == len(events)
    assert answer.json()["active_run"] is None


async def test_an_agent_that_is_here_gets_no_revision_by_an_import(
    api: httpx2.AsyncClient, other: httpx2.AsyncClient, stranger: httpx2.AsyncClient
) -> None:
    same = agent("new-to-all")
    for client, manifest in ((api, same), (other, same), (stranger, agent("new-to-all", instructions="Another one."))):
        applied = await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}, {"manifest": manifest}]})
        assert applied.json()["failed"] == 0, applied.text
    session, _ = await converse(api, "new-to-all", "hello")
    archive = await exported(api, session)
    assert "another" in problem(await imported(stranger, archive), 409, "conflict")["detail"]
    assert (await stranger.get(f"/v1/sessions/{session}")).status_code == 404
    assert (await imported(other, archive)).status_code == 201, "the tenant with the very same revision takes it"


@pytest.mark.parametrize("wrong", [UUID(int=5), UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"), UUID("0198c0de-0000-4000-8000-000000000000")])
async def test_an_id_that_is_no_time_of_the_past_is_refused(stranger: httpx2.AsyncClient, wrong: UUID) -> None:
    _, archive = made_up(id=wrong)
    assert str(wrong) in problem(await imported(stranger, archive), 422, "invalid")["detail"]


async def test_an_import_that_is_sent_twice_is_done_once(stranger: httpx2.AsyncClient) -> None:
    session, archive = made_up()
    first, again = [await imported(stranger, archive, **{"idempotency-key": "same"}) for _ in range(2)]
    assert (first.status_code, again.status_code, again.headers.get("idempotency-replayed")) == (201, 201, "true")
    assert first.json()["id"] == again.json()["id"] == session
    problem(await imported(stranger, made_up()[1], **{"idempotency-key": "same"}), 422, "invalid")


async def test_many_imports_of_one_session_make_one(stranger: httpx2.AsyncClient) -> None:
    session, archive = made_up()
    answers = await asyncio.gather(*(imported(stranger, archive) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]
    assert (await stranger.get(f"/v1/sessions/{session}")).status_code == 200


async def test_an_archive_has_a_bound_of_its_own(stack: Stack, keys: Keys) -> None:
    bound = 3_000_000
    process = stack.serve(HANSA_SERVER_IMPORT_BYTES=str(bound))
    async with plain_client(process.url, headers=keys.of_role["platform-admin"]) as client:
        writer = Writer()
        head = {
            "format": FORMAT,
            "id": ids.new_id(),
            "agent": "none",
            "created_at": clock.now(),
            "last_seq": 0,
            "forked_from": None,
            "forked_seq": None,
        }
        archive = writer.line("session", head) + writer.line("value", {"digest": "sha256:0", "body": "x" * 2_000_000}) + writer.end()
        assert "line 2" in problem(await imported(client, archive), 422, "invalid")["detail"], "larger than any other body is taken"
        assert str(bound) in problem(await imported(client, b"x" * (bound + 1)), 413, "too_large")["detail"]
    process.stop()


async def test_a_damaged_value_ends_the_export_and_is_named(api: httpx2.AsyncClient, stack: Stack, echo: str, tmp_path: Path) -> None:
    session, _ = await converse(api, echo, f"damage {ids.new_id()} {LONG}")
    admin = await asyncpg.connect(stack.admin_url)
    changed = await admin.execute(
        "UPDATE hansa.values v SET body = replace(body, 'long', 'lonk') FROM hansa.value_refs f "
        "WHERE f.tenant_id = v.tenant_id AND f.digest = v.digest AND f.session_id = $1",
        session,
    )
    await admin.close()
    assert changed != "UPDATE 0"
    last = json.loads((await exported(api, session)).splitlines()[-1])
    assert (last["error"]["code"], "has been changed" in last["error"]["detail"]) == ("damaged", True)
    told = hansa("sessions", "export", session, cwd=tmp_path, HANSA_URL=str(api.base_url), HANSA_API_KEY=stack.key)
    assert (told.status, "has been changed" in told.err) == (69, True), told


async def test_the_command_line_takes_a_session_out_and_in(api: httpx2.AsyncClient, stack: Stack, echo: str, tmp_path: Path) -> None:
    session, _ = await converse(api, echo, "hello")
    mine = {"HANSA_URL": str(api.base_url), "HANSA_API_KEY": stack.key}
    key = (await issue(stack, f"t{ids.new_id().hex[-12:]}", name="k", roles=["platform-admin"]))["authorization"].removeprefix("Bearer ")
    out = hansa("sessions", "export", session, cwd=tmp_path, **mine)
    assert (out.status, out.out.encode()) == (0, await exported(api, session))
    (tmp_path / "session.jsonl").write_text(out.out)
    there = hansa("sessions", "import", "session.jsonl", cwd=tmp_path, **{**mine, "HANSA_API_KEY": key})
    assert (there.status, f"session {session}: " in there.err) == (0, True), there
    again = hansa("sessions", "import", "-", cwd=tmp_path, stdin=out.out, **{**mine, "HANSA_API_KEY": key})
    assert (again.status, "is here already" in again.err) == (75, True), again
    missing = hansa("sessions", "import", "nothing.jsonl", cwd=tmp_path, **mine)
    assert (missing.status, "nothing.jsonl can't be read" in missing.err) == (65, True), missing
