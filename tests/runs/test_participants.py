"""A tenant's own programs send events to its runs over NATS: kept before they are answered, delivered once, never another tenant's."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from nats.errors import Error as NatsError

from hansa.bus import subjects
from hansa.bus.accounts import logging_in
from hansa.tenants.service import tenant_id
from messaging.parties import Program, accounts_of, apply_tenant, credentials, logged_in, program
from runs.engine import Engine, apply_agent, ended, start, until
from runs.test_waits import STEPS, waiting
from samples import SCRIPTED, agent
from stack import Process

pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture
async def north(engine: Engine, client: httpx2.AsyncClient, tmp_path: Path) -> AsyncIterator[Program]:
    """A program of tenant default, whose runs `client` starts."""
    await apply_agent(client, "waiter", **STEPS)
    async with program(tmp_path, await credentials(client, "default")) as opened:
        yield opened


async def send(sender: Program, subject: str, data: Any, message_id: str = "", *, seconds: float = 10) -> dict[str, Any]:
    """Send, and what was answered; a new id unless one is given."""
    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    headers = {"Nats-Msg-Id": message_id or uuid4().hex}
    return json.loads((await sender.client.request(subject, payload, timeout=seconds, headers=headers)).data)


async def test_an_event_wakes_every_run_of_the_tenant_that_waits_for_it(client: httpx2.AsyncClient, north: Program) -> None:
    runs = [await start(client, "waiter", [["event", "order.paid", 30]]) for _ in range(2)]
    for run in runs:
        await waiting(client, run)
    answer = await send(north, subjects.own_event("order.paid"), {"order": 7})
    UUID(answer["id"])
    for run in runs:
        assert (await ended(client, run["id"]))["output"] == [{"order": 7}]


async def test_an_event_for_a_session_is_kept_until_its_run_waits_for_it(client: httpx2.AsyncClient, north: Program) -> None:
    session = (await client.post("/v1/sessions", json={"agent": "waiter"})).json()["id"]
    await send(north, subjects.own_session_event(session, "go"), "now")
    run = (await client.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": [["event", "go", 30]]})).json()
    assert (await ended(client, run["id"]))["output"] == ["now"]


async def test_a_message_that_comes_again_under_its_id_counts_once(client: httpx2.AsyncClient, north: Program) -> None:
    session = (await client.post("/v1/sessions", json={"agent": "waiter"})).json()["id"]
    subject, once = subjects.own_session_event(session, "go"), uuid4().hex
    first = await send(north, subject, 1, once)
    assert [await send(north, subject, 1, once) for _ in range(5)] == [first] * 5
    steps = [["event", "go", 30], ["event", "go", 1]]
    run = (await client.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": steps})).json()
    (got, missing) = (await ended(client, run["id"]))["output"]
    assert got == 1
    assert missing.startswith("wait_expired")
    assert await send(north, subject, 1, once) == first, "also once it was received"


async def test_the_tenant_is_that_of_the_account_and_nothing_in_a_message_changes_it(
    engine: Engine, client: httpx2.AsyncClient, north: Program, tmp_path: Path
) -> None:
    await apply_tenant(client, "south")
    south = {"hansa-tenant": "south"}
    objects = [{"manifest": each} for each in (SCRIPTED, agent("waiter", **STEPS))]
    assert (await client.post("/v1/objects:apply", json={"objects": objects}, headers=south)).json()["failed"] == 0
    theirs = (await client.post("/v1/agents/waiter/runs", json={"input": [["event", "secret", 2]]}, headers=south)).json()
    lying = {"tenant_id": theirs["id"], "tenant": "south", "session_id": theirs["session_id"], "account": "south"}
    await send(north, subjects.own_event("secret"), lying)
    answer = await send(north, subjects.own_session_event(theirs["session_id"], "secret"), lying)
    missing = await send(north, subjects.own_session_event(uuid4(), "secret"), lying)
    assert (answer["error"]["code"], missing["error"]["code"]) == ("not_found", "not_found")
    assert theirs["session_id"] in answer["error"]["detail"]

    async def look() -> dict[str, Any] | None:
        found = (await client.get(f"/v1/runs/{theirs['id']}", headers=south)).json()
        return found if found["state"] == "completed" else None

    assert (await until(look, "the run gave up waiting"))["output"][0].startswith("wait_expired")


@pytest.mark.parametrize(
    ("subject", "payload", "said"),
    [
        ("event.x", b"1", "Nats-Msg-Id"),
        ("event.x", b"[", "not valid JSON"),
        ("event.x", b'"\\ud800"', "not valid JSON"),
        ("event.x", b"[" * 65 + b"]" * 65, "deeper than 64"),
        ("event.x", b"[" * 20000, "not valid JSON"),
        (f"event.{'x' * 201}", b"1", "1 to 200 characters, got 201"),
        ("event.a\x00b", b"1", "no NUL"),
        ("session.north.x", b"1", "not an id"),
        ("session", b"1", "neither `event.<name>` nor"),
        ("runs.x", b"1", "neither `event.<name>` nor"),
    ],
)
async def test_what_is_not_right_is_refused_with_the_reason(
    engine: Engine, north: Program, subject: str, payload: bytes, said: str
) -> None:
    """Sent with all that the account can: what its programs get lets them send less."""
    if said == "Nats-Msg-Id":
        answer = json.loads((await north.client.request(subjects.own_event("x"), payload, timeout=5)).data)
    else:
        async with accounts_of(engine.stack) as accounts:
            key = accounts.operator.account(tenant_id("default"))
        async with logged_in(engine.stack.servers.nats.url, **logging_in(key, "whole")) as whole:
            answer = await send(whole, subjects.OWN_SENDING.replace(">", subject), payload)
    assert said in answer["error"]["detail"]
    assert not answer["error"]["retryable"]


async def test_what_nobody_can_read_stops_nobody_from_reading_on(north: Program) -> None:
    """A worker that stopped at it would hear nothing for seconds, of any tenant: its client does, by itself."""
    await send(north, subjects.own_event("before"), 1)
    subject = subjects.own_event("x").encode()
    for headers in (b"NATS/1.0 \xff\r\n: x\r\n\r\n", b"NATS/1.0\r\nNats-Msg-Id: \xff\xfe\r\n\r\n", b"NATS/1.0 503\r\n\r\n"):
        sent = b"HPUB %b %d %d\r\n%b1\r\n" % (subject, len(headers), len(headers) + 1, headers)
        north.client._transport.write(sent)
    for name in (b"\xff\xfe", b"a\x0b1"):
        north.client._transport.write(b"PUB " + subjects.own_event("").encode() + name + b" 1\r\n1\r\n")
    for number in range(5):
        assert "id" in await send(north, subjects.own_event("after"), number, seconds=1.5)


async def test_participants_are_counted_among_the_tenants_requests(client: httpx2.AsyncClient, north: Program, tmp_path: Path) -> None:
    await apply_tenant(client, "paced", quotas={"requestsPerSecond": 2})
    async with program(tmp_path, await credentials(client, "paced")) as paced:
        answers = [await send(paced, subjects.own_event("x"), number) for number in range(8)]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert refused
    assert all(error["code"] == "limit_exceeded" and error["retry_after"] > 0 for error in refused)


async def test_a_program_hears_the_news_of_its_sessions_and_of_no_others(
    client: httpx2.AsyncClient, north: Program, tmp_path: Path
) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []

    async def received(message: Any) -> None:
        heard.append((message.subject, json.loads(message.data)))

    await north.client.subscribe(subjects.own_news("*"), cb=received)
    await north.client.flush()
    run = await start(client, "waiter", [["event", "news", 30]])
    await waiting(client, run)
    await send(north, subjects.own_event("news"), "read all about it")
    body = await ended(client, run["id"])
    last = (await client.get(f"/v1/sessions/{run['session_id']}")).json()["last_seq"]

    async def look() -> bool | None:
        return any(news.get("seq") == last for _, news in heard) or None

    await until(look, "the last number was heard of")
    assert body["state"] == "completed"
    assert subjects.own_news(run["session_id"]) in {subject for subject, _ in heard}


async def test_nobody_is_answered_before_it_is_kept(
    client: httpx2.AsyncClient, north: Program, worker: Callable[..., Process], engine: Engine, steady: Process
) -> None:
    """The worker that answers dies at any moment: whoever was not answered sends again, and each event counts once."""
    sent = 20
    session = (await client.post("/v1/sessions", json={"agent": "waiter"})).json()["id"]
    victims = [worker(), worker()]

    async def insist(number: int) -> None:
        while True:
            try:
                answer = await send(north, subjects.own_session_event(session, "count"), number, f"{session} {number}", seconds=1)
            except NatsError:  # no answer in time, or nobody there to answer
                answer = {}
            if "id" in answer:
                return
            await asyncio.sleep(0.05)

    async def hurt() -> None:
        for victim in victims:
            await asyncio.sleep(0.1)
            victim.kill()

    await asyncio.gather(hurt(), *(insist(number) for number in range(sent)))
    steps = [["event", "count", 30] for _ in range(sent)] + [["event", "count", 1]]
    run = (await client.post(f"/v1/sessions/{session}/events", json={"type": "user.message", "content": steps})).json()
    *got, none = (await ended(client, run["id"], seconds=40))["output"]
    assert sorted(got) == list(range(sent))
    assert none.startswith("wait_expired")
