"""What one tenant reaches of another and of the platform over NATS: nothing, by all that its account can and what its programs get."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from hansa.bus import claims, subjects
from hansa.bus.accounts import Accounts, logging_in, now
from hansa.bus.claims import Account
from hansa.bus.connection import connected
from hansa.bus.reach import probe
from hansa.errors import Unavailable
from messaging.parties import LIMITS, A, B, accounts_of, apply_tenant, credentials, logged_in, program, until
from stack import Stack


async def test_a_tenant_reaches_nothing_of_another_and_nothing_of_the_platform(server: Accounts) -> None:
    for a, b in ((A, B), (B, A)):
        found = await probe(server, a, b)
        assert found.whole, found
        assert found.probes > 40


async def test_nothing_is_reached_while_the_platform_works(both: None, stack: Stack) -> None:
    async with accounts_of(stack) as accounts:
        found = await probe(accounts, A, B)
        assert found.whole, found


async def test_a_subject_does_not_say_to_which_subscription_it_belongs(server: Accounts) -> None:
    """The client of nats-py divides what stands in front of a message at all blanks of Python, the server at spaces and tabs."""
    sent = subjects.participant(server.region, server.public(A))
    async with connected(server.server, "test", logging_in(server.operator.platform, "platform")) as client:
        platform: Any = client  # its stubs leave a future untyped
        other, own = await platform.subscribe("hansa.other"), await platform.subscribe(sent)
        await platform.flush()
        async with logged_in(server.url, **logging_in(server.operator.account(A), "a")) as program:
            for blank in (b"\x0b", b"\x0c"):
                for number in range(6):
                    program.client._transport.write(b"PUB %b%b%d 1\r\n1\r\n" % (subjects.own_event("x").encode(), blank, number))
            await program.client.flush()
        heard = [(await own.next_msg(timeout=5)).subject for _ in range(12)]
        assert {subject[-3:] for subject in heard} == {f"x{blank}{number}" for blank in "\x0b\x0c" for number in range(6)}
        assert other.pending_msgs == 0


async def _unbound(accounts: Accounts) -> None:
    """The platform offers to all what it offers to one: nothing is bound to an account's key any more."""
    loose = ({**claims.SENDING, "account_token_position": 0}, {**claims.NEWS, "token_req": False})
    await accounts.push(claims.platform(accounts.operator, now(), exports=loose))


async def _import(accounts: Accounts, *imports: dict[str, Any]) -> None:
    named = [{"account": accounts.operator.platform.public, "name": each["subject"], **each} for each in imports]
    await accounts.push(claims.account_of(accounts.operator, Account(A, 2, LIMITS), named))


@pytest.mark.parametrize(
    ("widened", "told"),
    [
        ({"type": "stream", "subject": subjects.sessions_all(), "local_subject": "news.*.*.*"}, "tenant a hears the platform on news."),
        (
            {"type": "service", "subject": "hansa.local.participants.B.>", "local_subject": subjects.OWN_SENDING},
            "the platform hears a on hansa.local.participants.",
        ),
    ],
    ids=["news", "sending"],
)
async def test_a_widened_import_is_found(server: Accounts, widened: dict[str, Any], told: str) -> None:
    """The broken control."""
    widened = {**widened, "subject": widened["subject"].replace(".B.", f".{server.public(B)}.")}
    await _import(server, widened)
    assert (await probe(server, A, B)).leaks == (), "the server does not honour it: it is not bound to the account"
    await _unbound(server)
    await _import(server, widened)
    found = await probe(server, A, B)
    assert any(leak.startswith(told) for leak in found.leaks), found
    assert not found.whole


async def test_a_tenant_that_is_let_into_the_platforms_jetstream_is_found(server: Accounts) -> None:
    """The broken control of what a server serves."""
    offered: dict[str, Any] = {"name": "js", "type": "service", "subject": "$JS.API.>"}
    await server.push(claims.platform(server.operator, now(), exports=(*claims.EXPORTS, offered)))
    await _import(server, {"type": "service", "subject": "$JS.API.>", "local_subject": "$JS.API.>"})
    found = await probe(server, A, B)
    assert any(leak.startswith("tenant a is answered on $JS.API.") for leak in found.leaks), found


async def test_a_probe_that_could_reach_nothing_at_all_is_not_believed(server: Accounts) -> None:
    await _import(server)
    found = await probe(server, A, B)
    assert (len(found.broken), found.leaks, found.whole) == (2, (), False)
    with pytest.raises(Unavailable, match=r"a can't be probed over NATS: .*Authorization"):
        await probe(server, uuid4(), B)


@pytest.fixture
async def both(api: httpx2.AsyncClient) -> None:
    """The two tenants on the session's platform, whose accounts NATS knows: they can log in."""
    for name in ("north", "south"):
        await apply_tenant(api, name)
        await credentials(api, name)


async def test_a_program_may_do_what_it_is_for_and_nothing_else(both: None, stack: Stack, api: httpx2.AsyncClient, tmp_path: Path) -> None:
    made = await credentials(api, "north")
    session = uuid4()
    async with accounts_of(stack) as accounts:
        foreign = [
            ">",
            "anything",
            subjects.session_live("local", B, "*"),
            subjects.participant("local", accounts.public(B)),
            subjects.participant("local", made["account"], "event.x"),
            subjects.runs_told("local"),
            subjects.messages_sent("local"),
            *subjects.server_services(accounts.public(B), subjects.messages_queue("local")),
        ]
        may = {
            "publish": [subjects.own_event("a.b"), subjects.own_session_event(session, "a")],
            "subscribe": [subjects.own_news("*"), subjects.own_news(session), "_INBOX.x"],
        }
        async with program(tmp_path, made) as north:
            for action in ("publish", "subscribe"):
                for subject in (*foreign, *may["publish"], *may["subscribe"]):
                    north.told.clear()
                    if action == "publish" and not (subject.endswith((">", "*"))):
                        await north.client.publish(subject, b"")
                    elif action == "subscribe":
                        await (await north.client.subscribe(subject)).unsubscribe()
                    else:
                        continue
                    await north.client.flush()
                    if subject in may[action]:
                        assert north.told == [], (action, subject)
                    else:
                        await until(lambda: "permissions violation" in "".join(north.told), f"{action} {subject} is refused")


async def test_credentials_may_do_no_more_than_their_maker(both: None, api: httpx2.AsyncClient, tmp_path: Path, stack: Stack) -> None:
    body = {"name": "sender", "roles": ["operator"], "scopes": ["runs:start", "messages:join"]}
    key = (await api.post("/v1/api-keys", json=body, headers={"hansa-tenant": "north"})).json()["key"]
    async with httpx2.AsyncClient(
        base_url=api.base_url, headers={"authorization": f"Bearer {key}"}, trust_env=False, verify=False
    ) as maker:
        made = (await maker.post("/v1/nats-credentials", json={"name": "x"})).json()
    async with program(tmp_path, made) as sender:
        await sender.client.publish(subjects.own_event("a"), b"")
        await sender.client.flush()
        assert sender.told == []
        await sender.client.subscribe(subjects.own_news("*"))
        await sender.client.flush()
        assert "permissions violation" in sender.told[0]


async def test_messages_of_one_tenant_are_not_heard_by_another(both: None, api: httpx2.AsyncClient, tmp_path: Path) -> None:
    north, south = await credentials(api, "north"), await credentials(api, "south")
    heard: list[str] = []

    async def received(message: Any) -> None:
        heard.append(message.subject)

    async with program(tmp_path, south) as other:
        for subject in (subjects.own_news("*"), "_INBOX.>"):
            await other.client.subscribe(subject, cb=received)
        await other.client.flush()
        async with program(tmp_path, north) as sender:
            answer = await sender.client.request(subjects.own_event("x"), b"[", timeout=5)
            assert b'"error"' in answer.data
            await sender.client.flush()
        await asyncio.sleep(0.1)
    assert heard == []
