"""The live stream of a session: every event once and in order, whoever reads and however often the connection breaks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from api.keys import bearer
from api.problem import problem
from api.sse import FINAL, Message, events, numbered, opened, read
from hansa import ids
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client


def script(*turns: dict[str, Any]) -> str:
    """An input that the scripted model follows."""
    return f"#script {json.dumps(turns)}"


TOOLS = script(
    {"text": "first I look at the clock ", "tool_calls": [{"name": "clock", "arguments": {}}], "delay": 0.3},
    {"text": "then I say what there is to say", "delay": 0.3},
)
SLOW = script({"text": " ".join(str(number) for number in range(40)), "delay": 1.2})


@pytest.fixture
async def name(api: httpx2.AsyncClient) -> str:
    """An agent with a tool."""
    manifest = agent("streamer", tools=[{"plugin": "tools", "allow": ["clock"]}])
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["failed"] == 0
    return "streamer"


@pytest.fixture(scope="module")
def second_plane(stack: Stack) -> Process:
    """Another control plane of the same platform."""
    return stack.serve()


@pytest.fixture
async def replica(stack: Stack, second_plane: Process) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the other control plane."""
    async with stack.client(second_plane) as client:
        yield client


async def start(api: httpx2.AsyncClient, name: str, text: Any, **more: Any) -> tuple[str, str]:
    """Start a run: its session and id."""
    answer = await api.post(f"/v1/agents/{name}/runs", json={"input": text, **more})
    assert answer.status_code == 202, answer.text
    return answer.json()["session_id"], answer.json()["id"]


async def log(api: httpx2.AsyncClient, session: str, limit: int = 200) -> list[Any]:
    """The events of a session, all on one page."""
    page = (await api.get(f"/v1/sessions/{session}/events", params={"limit": limit})).json()
    assert not page["has_more"]
    return page["data"]


def said(messages: list[Message], step: str) -> str:
    """The joined pieces of a step's text, as a reader joins them who obeys resets."""
    text = ""
    for message in messages:
        if message.type == "delta.reset" and message.data["step"] == step:
            text = ""
        elif message.type == "delta" and message.data["step"] == step:
            text += message.data["text"]
    return text


async def test_the_stream_holds_the_whole_log_numbered_from_one(api: httpx2.AsyncClient, name: str) -> None:
    session, run = await start(api, name, TOOLS)
    messages = await read(api, session, run)
    assert numbered(messages) == list(range(1, len(numbered(messages)) + 1))
    assert events(messages) == await log(api, session)
    for message in messages:
        if message.id is not None:
            assert (message.type, int(message.id)) == (message.data["type"], message.data["seq"])
    assert [event["type"] for event in events(messages)] == [
        "run.queued",
        "run.started",
        "model.completed",
        "tool.completed",
        "model.completed",
        "run.completed",
    ]


async def test_pieces_of_text_have_no_number_and_join_to_the_text(api: httpx2.AsyncClient, name: str) -> None:
    session = (await api.post("/v1/sessions", json={"agent": name})).json()["id"]
    async with opened(api, session) as reader:
        assert (await reader.next()).type == ""
        await asyncio.sleep(0.2)
        answer = await api.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": TOOLS})
        assert answer.status_code == 202, answer.text
        messages = await reader.until(*FINAL)
    pieces = [message for message in messages if message.type == "delta"]
    assert len(pieces) > 4
    assert all(message.id is None and message.data.keys() == {"run_id", "step", "text"} for message in pieces)
    completed = [event for event in events(messages) if event["type"] == "model.completed"]
    assert [said(messages, event["step"]) for event in completed] == [event["data"]["text"] for event in completed]
    assert "".join(message.data["text"] for message in pieces) == "first I look at the clock then I say what there is to say"


async def test_a_step_is_said_before_it_is_in_the_log(api: httpx2.AsyncClient, name: str) -> None:
    session, run = await start(api, name, SLOW)
    messages = await read(api, session, run)
    (completed,) = (number for number, message in enumerate(messages) if message.type == "model.completed")
    spoken = [number for number, message in enumerate(messages) if message.type == "delta"]
    assert spoken, "a run of two seconds is heard live by a reader who comes at once"
    assert max(spoken) < completed


async def test_a_reader_goes_on_exactly_where_it_left(api: httpx2.AsyncClient, name: str) -> None:
    session, run = await start(api, name, TOOLS)
    whole = events(await read(api, session, run))
    for last in range(len(whole) + 1):
        assert events(await read(api, session, run, last=str(last))) == whole[last:]
        assert events(await read(api, session, run, after=last)) == whole[last:]
    assert events(await read(api, session, run, last="3", after=1)) == whole[3:], "the header is newer than the address"


async def test_events_come_once_across_reconnects_to_other_replicas(
    api: httpx2.AsyncClient, replica: httpx2.AsyncClient, name: str
) -> None:
    session = (await api.post("/v1/sessions", json={"agent": name})).json()["id"]
    talk = [await start(api, name, TOOLS, session_id=session) for _ in range(4)]
    collected: list[Any] = []
    connections = 0
    last, final = None, talk[-1][1]
    async with asyncio.timeout(30):
        while not collected or collected[-1]["run_id"] != final or collected[-1]["type"] not in FINAL:
            connections += 1
            client = (api, replica)[connections % 2]
            async with opened(client, session, last=last) as reader:
                # The connection breaks after every second event, while the runs go on.
                for _ in range(2):
                    message = await reader.next()
                    while message.id is None:
                        message = await reader.next()
                    collected.append(message.data)
                    last = message.id
                    if message.data["run_id"] == final and message.type in FINAL:
                        break
    assert connections > 8
    assert [event["seq"] for event in collected] == list(range(1, len(collected) + 1))
    assert collected == await log(replica, session)


async def test_several_readers_see_the_same(api: httpx2.AsyncClient, replica: httpx2.AsyncClient, name: str) -> None:
    session, run = await start(api, name, SLOW)
    readings = await asyncio.gather(*(read(client, session, run) for client in (api, api, replica, replica)))
    assert all(events(reading) == events(readings[0]) for reading in readings)
    assert len(events(readings[0])) == 4


async def test_until_closes_after_that_run_and_not_before(api: httpx2.AsyncClient, name: str) -> None:
    session, first = await start(api, name, "one")
    _, second = await start(api, name, SLOW, session_id=session)
    messages = events(await read(api, session, first))
    assert (messages[-1]["type"], messages[-1]["run_id"]) == ("run.completed", first)
    messages = events(await read(api, session, second))
    assert (messages[-1]["type"], messages[-1]["run_id"]) == ("run.completed", second)
    assert events(await read(api, session, first, last=str(messages[-1]["seq"]))) == []


async def test_until_another_sessions_run_is_refused(api: httpx2.AsyncClient, name: str) -> None:
    session, _ = await start(api, name, "one")
    _, elsewhere = await start(api, name, "two")
    path = f"/v1/sessions/{session}/events/stream"
    assert elsewhere in problem(await api.get(path, params={"until": elsewhere}), 422, "invalid")["detail"]
    problem(await api.get(path, params={"until": str(ids.new_id())}), 404, "not_found")
    problem(await api.get(path, params={"until": "soon"}), 422, "invalid")


@pytest.mark.parametrize("last", ["-1", "abc", "1.0", "", "1e3", "0" * 30 + "1", "9" * 5000, "٣"])
async def test_a_number_that_no_stream_gave_is_refused(api: httpx2.AsyncClient, name: str, last: str) -> None:
    session, _ = await start(api, name, "one")
    path = f"/v1/sessions/{session}/events/stream"
    answer = await api.get(path, headers=[(b"last-event-id", last.encode())])
    assert "Last-Event-ID" in problem(answer, 422, "invalid")["detail"]
    if len(last) < 100:
        assert "after" in problem(await api.get(path, params={"after": last}), 422, "invalid")["detail"]


async def test_a_number_beyond_the_end_of_the_log_is_refused_with_the_end(api: httpx2.AsyncClient, name: str) -> None:
    session, run = await start(api, name, "one")
    await read(api, session, run)
    path = f"/v1/sessions/{session}/events/stream"
    for answer in (await api.get(path, headers={"last-event-id": "5"}), await api.get(path, params={"after": 2**53})):
        assert "ends at 4" in problem(answer, 422, "invalid")["detail"]


async def test_a_silent_stream_is_kept_alive(api: httpx2.AsyncClient, name: str) -> None:
    session = (await api.post("/v1/sessions", json={"agent": name})).json()["id"]
    async with opened(api, session) as reader:
        assert (await reader.next(2)).type == "", "headers and a first comment come at once, so that proxies pass the stream on"
        begun = time.monotonic()
        message = await reader.next(15)
    assert (message.type, message.data) == ("", "keep-alive")
    assert time.monotonic() - begun < 15
    assert reader.answer.headers["cache-control"] == "no-store"


async def test_dropping_every_reader_cancels_nothing(api: httpx2.AsyncClient, name: str) -> None:
    session, run = await start(api, name, SLOW)
    for _ in range(3):
        async with opened(api, session) as reader:
            await reader.until("run.started")
    messages = events(await read(api, session, run))
    assert messages[-1]["type"] == "run.completed"
    assert not any("cancel" in event["type"] for event in messages)


async def test_a_megabyte_in_an_event_is_named_in_it_and_comes_whole_from_where_it_says(api: httpx2.AsyncClient, name: str) -> None:
    large = "".join(chr(0x20 + number % 0x5F) for number in range(1_000_000)).replace('"', "'").replace("\\", "/")
    session, run = await start(api, name, large[:1_040_000])
    messages = events(await read(api, session, run))
    shown = messages[0]["data"]["input"]
    assert shown["bytes"] > 1_000_000
    assert (await api.get(shown["href"])).json() == large
    assert messages == await log(api, session)


async def test_line_ends_in_texts_break_no_message(api: httpx2.AsyncClient, name: str) -> None:
    text = "a\nb\r\nc\rd\n\ne\u2028f\u0085g: h\ndata: i\nid: 99"
    session, run = await start(api, name, text)
    messages = await read(api, session, run)
    assert numbered(messages) == [1, 2, 3, 4]
    assert events(messages)[0]["data"]["input"] == events(messages)[-1]["data"]["output"] == text


async def test_a_session_that_is_not_there_has_no_stream(api: httpx2.AsyncClient) -> None:
    problem(await api.get(f"/v1/sessions/{ids.new_id()}/events/stream"), 404, "not_found")


async def test_many_readers_come_and_go_and_the_platform_stays_quick(api: httpx2.AsyncClient, name: str) -> None:
    session, run = await start(api, name, SLOW)

    async def hurried() -> None:
        async with opened(api, session) as reader:
            await reader.next()

    await asyncio.gather(*(hurried() for _ in range(40)))
    begun = time.monotonic()
    assert (await api.get("/v1/runs", params={"limit": 1})).status_code == 200
    assert time.monotonic() - begun < 3
    assert events(await read(api, session, run))[-1]["type"] == "run.completed"


async def quiet_session(api: httpx2.AsyncClient, name: str, headers: dict[str, str]) -> str:
    answer = await api.post("/v1/sessions", json={"agent": name}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize("why", ["revoked", "expired", "closed", "kept"])
async def test_a_stream_ends_when_its_reader_is_let_in_no_more(api: httpx2.AsyncClient, control_plane: Process, why: str) -> None:
    """Kept is the control: nothing happens to the reader, and the stream goes on."""
    tenant = f"w-{ids.new_id().hex[-10:]}"
    acting = {"hansa-tenant": tenant}
    manifests = [{"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": tenant}}]
    manifests += [{**each, "metadata": {**each["metadata"], "namespace": tenant}} for each in (SCRIPTED, agent("streamer"))]
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
    assert applied.json()["failed"] == 0, applied.text
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    asked = {"name": "reader", "roles": ["viewer"], **({"expires_at": soon} if why == "expired" else {})}
    key = (await api.post("/v1/api-keys", json=asked, headers=acting)).json()
    session = await quiet_session(api, "streamer", acting)
    async with plain_client(control_plane.url, headers=bearer(key["key"])) as client, opened(client, session) as reader:
        await reader.next()
        if why == "revoked":
            assert (await api.delete(f"/v1/api-keys/{key['id']}", headers=acting)).status_code == 204
        elif why == "closed":
            assert (await api.delete(f"/v1/tenants/{tenant}", params={"confirm": tenant})).status_code == 202
        if why == "kept":
            with pytest.raises(TimeoutError):
                await reader.rest(4.5)
        else:
            await reader.rest(8.0)
