"""A tenant's NATS account: there as soon as its Tenant object is applied, bounded by the server, gone when the tenant may work no more."""

import asyncio
import contextlib
import hashlib
import shutil
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest
from nats.errors import Error as NatsError

from api.problem import problem
from db.scratch import open_scratch
from hansa.bus import claims, subjects
from hansa.bus.accounts import Accounts, Refused, combined, logging_in, open_accounts
from hansa.bus.claims import Account
from hansa.bus.keys import Kind, Operator, new_key
from hansa.db.pool import open_database
from hansa.errors import Misconfigured
from hansa.tenants.messaging import store
from hansa.tenants.messaging.service import Messaging
from hansa.tenants.probing import Prober
from hansa.tenants.service import tenant_id
from messaging.parties import LIMITS, A, B, account, accounts_of, apply_tenant, credentials, logged_in, program, until
from stack import Stack


async def test_an_applied_tenant_has_an_account_and_its_programs_are_let_in(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "north")
    found = await account(api, "north")
    assert (found["ready"], found["reason"]) == (True, "AccountReady")
    assert (found["connections"], found["subscriptions"], found["payload_bytes"]) == (100, 100, 65_536)
    made = await credentials(api, "north", ttl_seconds=60)
    assert made["account"] == found["account"]
    async with program(tmp_path, made) as north:
        assert north.client.is_connected


async def test_credentials_are_shown_once_and_last_an_hour_at_most(api: httpx2.AsyncClient) -> None:
    await apply_tenant(api, "north")
    headers = {"hansa-tenant": "north", "idempotency-key": uuid4().hex}
    first = await api.post("/v1/nats-credentials", json={"name": "once"}, headers=headers)
    again = await api.post("/v1/nats-credentials", json={"name": "once"}, headers=headers)
    assert "BEGIN USER NKEY SEED" in first.json()["creds"]
    assert (again.status_code, again.json()["creds"], again.headers["idempotency-replayed"]) == (201, None, "true")
    assert "SEED" not in again.text
    refused = await api.post("/v1/nats-credentials", json={"name": "for ever", "ttl_seconds": 3601}, headers={"hansa-tenant": "north"})
    assert problem(refused, 422, "invalid")["errors"][0]["path"] == "ttl_seconds"


async def test_credentials_that_have_expired_are_of_no_use(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "north")
    async with program(tmp_path, await credentials(api, "north", ttl_seconds=1)) as north:
        await north.cut_off()


async def test_the_server_refuses_what_goes_beyond_the_tenants_bounds(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "bounded", quotas={"messaging": {"connections": 2, "subscriptions": 3, "payloadBytes": 500}})
    made = await credentials(api, "bounded")
    async with program(tmp_path, made) as first, program(tmp_path, made) as second:
        with pytest.raises(NatsError, match="maximum account active connections exceeded"):
            async with program(tmp_path, made):
                pass
        with contextlib.suppress(NatsError):
            for _ in range(6):
                await first.client.subscribe(subjects.own_news("*"))
        await first.cut_off()  # by itself, once the server has refused
        assert "maximum subscriptions exceeded" in str(first.client.last_error)
        await second.client.publish(subjects.own_event("big"), b"x" * 501)
        await second.cut_off()
    await apply_tenant(api, "bounded", quotas={"messaging": {"connections": 0}})
    with pytest.raises(NatsError, match="maximum account active connections exceeded"):
        async with program(tmp_path, made):
            pass


async def test_revoked_programs_are_cut_off_and_come_back_with_new_credentials_only(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "north")
    await apply_tenant(api, "south")
    made, others = await credentials(api, "north"), await credentials(api, "south")
    async with program(tmp_path, made) as north, program(tmp_path, others) as south:
        assert (await api.delete("/v1/nats-credentials", headers={"hansa-tenant": "north"})).status_code == 204
        await north.cut_off()
        assert south.client.is_connected
    with pytest.raises(NatsError, match=r"(?i)authorization|revoked"):
        async with program(tmp_path, made):
            pass
    async with program(tmp_path, await credentials(api, "north")) as back:
        assert back.client.is_connected


async def test_one_program_is_cut_off_by_its_public_key_and_the_others_stay(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "north")
    await apply_tenant(api, "south")
    made, others, foreign = await credentials(api, "north"), await credentials(api, "north"), await credentials(api, "south")
    there = {"hansa-tenant": "north"}
    async with program(tmp_path, made) as one, program(tmp_path, others) as other, program(tmp_path, foreign) as south:
        for user in (foreign["user"], made["user"], made["user"]):  # what is not of the tenant is nobody's, and twice is once
            assert (await api.delete("/v1/nats-credentials", params={"user": user}, headers=there)).status_code == 204
        await one.cut_off()
        assert (other.client.is_connected, south.client.is_connected) == (True, True)
        await apply_tenant(api, "north", quotas={"messaging": {"connections": 7}})  # said anew, it stays revoked
        assert (other.client.is_connected, (await account(api, "north"))["connections"]) == (True, 7)
    with pytest.raises(NatsError, match=r"(?i)authorization|revoked"):
        async with program(tmp_path, made):
            pass
    async with program(tmp_path, others) as back:
        assert back.client.is_connected
    for wrong in ("", "*", made["account"], made["user"].lower()):
        problem(await api.delete("/v1/nats-credentials", params={"user": wrong}, headers=there), 422, "invalid")


async def test_revoked_users_are_forgotten_once_their_credentials_have_ended_and_are_bounded(stack: Stack, api: httpx2.AsyncClient) -> None:
    await apply_tenant(api, "turned")
    turned, users = tenant_id("turned"), [new_key(Kind.USER).public for _ in range(4)]
    async with open_database(stack.settings.database) as database, database.tenant(turned) as connection:
        assert await store.revoke_user(connection, turned, users[0], seconds=-1, most=2)
        assert [await store.revoke_user(connection, turned, user, seconds=60, most=2) for user in users[1:]] == [True, True, False]
        assert await store.revoke_user(connection, turned, users[1], seconds=60, most=2), "again is no other"
    async with open_database(stack.settings.database) as database:
        known = await store.one(database, turned)
    assert known is not None
    assert known.revoked_users.keys() == set(users[1:3])


async def test_a_suspended_tenants_programs_are_cut_off_and_its_old_credentials_stay_dead(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "held")
    made = await credentials(api, "held")
    async with program(tmp_path, made) as held:
        await apply_tenant(api, "held", suspend=True)
        await held.cut_off()
    assert (await account(api, "held"))["reason"] == "AccountBlocked"
    refused = await api.post("/v1/nats-credentials", json={"name": "x"}, headers={"hansa-tenant": "held"})
    assert "suspended" in problem(refused, 409, "conflict")["detail"]
    await apply_tenant(api, "held")
    with pytest.raises(NatsError, match=r"(?i)authorization|revoked"):
        async with program(tmp_path, made):
            pass
    async with program(tmp_path, await credentials(api, "held")) as back:
        assert back.client.is_connected


async def test_an_account_that_another_operator_has_signed_is_of_no_use(server: Accounts) -> None:
    foreign, forged = Operator(new_key(Kind.OPERATOR)), Account(uuid4(), 1, LIMITS)
    await server.push(claims.tenant(foreign, forged, "local"))  # the resolver keeps it, for only the control plane can push at all
    with pytest.raises(NatsError, match="Authorization Violation"):
        async with logged_in(server.url, **logging_in(foreign.account(forged.tenant_id), "forged")):
            pass


async def test_an_account_that_names_anothers_part_is_refused(server: Accounts) -> None:
    evil, heard = Account(uuid4(), 1, LIMITS), subjects.session_live("local", A, "*")
    honest = claims.read(server.token(evil))["nats"]["imports"]
    assert all(part in str(honest) for part in (server.public(evil.tenant_id), evil.tenant_id.hex))
    of_north = claims.read(await server.lookup(server.public(A)))["nats"]["imports"]
    stolen = [each for each in of_north if each["type"] == "stream"]
    with pytest.raises(Refused, match="activation token doesn't match account"):
        await server.push(claims.account_of(server.operator, evil, stolen))
    widened = [{**each, "subject": heard} for each in honest if each["type"] == "stream"]
    with pytest.raises(Refused, match="activation token import subject"):
        await server.push(claims.account_of(server.operator, evil, widened))


async def test_a_deleted_account_lets_nobody_in(server: Accounts) -> None:
    key = server.operator.account(A)
    async with logged_in(server.url, **logging_in(key, "gone")) as left:
        await server.forget([server.public(A)])
        await left.cut_off()
    await server.forget([server.public(A)])
    with pytest.raises(NatsError, match="Authorization Violation"):
        async with logged_in(server.url, **logging_in(key, "gone")):
            pass


async def test_all_accounts_are_compared_by_one_hash(server: Accounts) -> None:
    known = {account: hashlib.sha256((await server.lookup(account)).encode()).digest() for account in await server.listed()}
    assert len(known) == 4
    assert await server.otherwise(known) == {}
    assert await server.holds(combined(known.values()))
    other = server.token(Account(B, 2, LIMITS))
    await server.push(other)
    assert await server.otherwise(known) == {server.public(B): other}
    assert not await server.holds(combined(known.values()))
    del known[server.public(A)]
    assert (await server.otherwise(known)).keys() == {server.public(A), server.public(B)}


async def test_what_nats_was_told_behind_our_back_is_a_hole_and_put_right(stack: Stack, server: Accounts, tmp_path: Path) -> None:
    async with open_scratch(stack, tmp_path) as scratch, open_database(scratch.settings.database) as database:
        for tenant, name in ((A, "north"), (B, "south")):
            await scratch.add_tenant(tenant, name)
        messaging, prober = Messaging(database, server), Prober(database, "local", 0.0)
        prober.also(lambda: store.holes(database, "local"))
        assert await messaging.look() == 3, "with the tenant that every installation has"
        assert await messaging.look() == 0
        assert await prober.look() == []
        right, platform = await server.lookup(server.public(A)), server.operator.platform.public
        offered = claims.read(await server.lookup(platform))["nats"]["exports"]
        strangers = [Account(uuid4(), 1, LIMITS), Account(uuid4(), 1, LIMITS)]
        await server.push(server.token(strangers[0]))
        await server.push(claims.tenant(Operator(new_key(Kind.OPERATOR)), strangers[1], "local"))
        await server.push(claims.account_of(server.operator, Account(A, 9, LIMITS), []))
        await server.push(claims.platform(server.operator, 9, exports=(claims.NEWS,)))
        await messaging.look()
        (holes,) = await store.holes(database, "local")
        assert f"what the account of tenant {A} may reach" in holes
        assert "what the platform's account offers" in holes
        assert await prober.look() == [holes], "and IsolationVerified is made of that"
        assert await server.lookup(server.public(A)) == right
        assert claims.read(await server.lookup(platform))["nats"]["exports"] == offered
        known = {known.account for known in await store.every(database)}
        assert await server.listed() == known | {platform, server.operator.system.public}, "those of no tenant are removed"
        assert await messaging.look() == 0
        assert await store.holes(database, "local") == [holes], "it stands for a minute"
        await scratch.execute("UPDATE hansa.messaging_looks SET found_at = now() - interval '61 seconds'")
        assert await messaging.look() == 0
        assert await store.holes(database, "local") == []


async def test_any_number_of_accounts_is_told_and_probed_in_turns(stack: Stack, server: Accounts, tmp_path: Path) -> None:
    async with open_scratch(stack, tmp_path) as scratch, open_database(scratch.settings.database) as database:
        tenants = [uuid4() for _ in range(9)]
        for tenant in tenants:
            await scratch.add_tenant(tenant, f"t-{tenant.hex[:8]}")
        messaging = Messaging(database, server, page=3)
        assert await messaging.look() == len(tenants) + 1
        assert {server.public(tenant) for tenant in tenants} <= await server.listed()
        await server.forget([server.public(tenants[0])])
        assert (await messaging.look(), await messaging.look()) == (1, 0)
        await scratch.execute("UPDATE hansa.messaging_accounts SET blocked = true WHERE tenant_id = $1", tenants[0])
        open_to = sorted({*(known.tenant_id for known in await store.every(database)), tenant_id("default")} - {tenants[0]})
        last, probed = UUID(int=0), list[UUID]()
        for _ in open_to:
            (last, following) = await store.pair(database, last)
            probed.append(last)
            assert following == open_to[(open_to.index(last) + 1) % len(open_to)]
        assert sorted(probed) == open_to


async def test_a_tenant_that_is_deleted_is_cut_off_at_once(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "leaving", deletionPolicy="Retain")
    async with program(tmp_path, await credentials(api, "leaving")) as left:
        assert (await api.delete("/v1/tenants/leaving", params={"confirm": "leaving"})).status_code == 202
        await left.cut_off()
    assert (await api.post("/v1/tenants/leaving/restore")).status_code == 200
    async with program(tmp_path, await credentials(api, "leaving")) as back:
        assert back.client.is_connected


async def test_tenants_are_probed_by_name_unless_one_lets_nobody_in(stack: Stack, api: httpx2.AsyncClient) -> None:
    for name in ("north", "south"):
        await apply_tenant(api, name)
    await apply_tenant(api, "held", suspend=True)
    async with accounts_of(stack) as accounts, open_database(stack.settings.database) as database:
        messaging, north = Messaging(database, accounts), tenant_id("north")
        found = await messaging.probe(north, tenant_id("south"))
        assert found is not None
        assert found.whole
        assert await messaging.probe(north, tenant_id("held")) is None
        assert await Messaging(database, None).probe(north, tenant_id("south")) is None


async def test_accounts_are_made_again_when_nats_has_lost_its_disk(own_stack: Stack, tmp_path: Path) -> None:
    serving = own_stack.serve()
    async with own_stack.client(serving) as api:
        await apply_tenant(api, "north")
        made = await credentials(api, "north")
        nats, dead = own_stack.servers.folder.nats, own_stack.pid("nats")
        own_stack.freeze_server("nats")
        shutil.rmtree(nats)
        own_stack.kill_server("nats")
        await until(lambda: own_stack.pid("nats") not in (0, dead), "NATS is started again", seconds=20)
        async with asyncio.timeout(20):
            while True:
                try:
                    async with program(tmp_path, made) as back:
                        assert back.client.is_connected
                        break
                except (NatsError, OSError):
                    await asyncio.sleep(0.05)


async def test_without_an_operator_no_accounts_are_made_and_everyone_is_told_so(stack: Stack, api: httpx2.AsyncClient) -> None:
    plain = stack.serve(HANSA_NATS_OPERATOR_FILE="")
    try:
        async with stack.client(plain) as client:
            await apply_tenant(client, "unserved")
            found = await account(client, "unserved")
            assert (found["ready"], found["reason"]) == (False, "AccountsNotConfigured")
            for method in ("POST", "DELETE"):
                refused = await client.request(method, "/v1/nats-credentials", json={"name": "x"}, headers={"hansa-tenant": "unserved"})
                assert "no operator is configured" in problem(refused, 409, "conflict")["detail"]
    finally:
        plain.stop()


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "SUAM", new_key(Kind.ACCOUNT).seed, new_key(Kind.OPERATOR).seed[:-1] + "!"],
    ids=["nothing", "nonsense", "short", "account", "damaged"],
)
async def test_a_file_that_holds_no_operators_seed_is_refused_and_not_shown(text: str, tmp_path: Path, stack: Stack) -> None:
    path = tmp_path / "operator"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"HANSA_NATS_OPERATOR_FILE .* not the seed of a NATS") as refused:
        await _open(stack, path)
    assert not text or text not in refused.value.detail


async def test_the_operator_of_another_server_is_refused_at_the_start(tmp_path: Path, stack: Stack) -> None:
    path = tmp_path / "operator"
    path.write_text(new_key(Kind.OPERATOR).seed)
    with pytest.raises(Misconfigured, match="refuses the login"):
        await _open(stack, path)


async def _open(stack: Stack, path: Path) -> None:
    settings = stack.settings.nats
    async with open_accounts(type(settings)(url=settings.url, operator_file=str(path)), "local", name="test"):
        pass


def test_all_keys_follow_from_the_operators_and_tell_nothing_of_each_other() -> None:
    one, other, tenant = new_key(Kind.OPERATOR), new_key(Kind.OPERATOR), uuid4()
    publics = [
        *(Operator(key).account(tenant).public for key in (one, other)),
        Operator(one).account(uuid4()).public,
        Operator(one).platform.public,
        Operator(one).system.public,
    ]
    assert len(set(publics)) == len(publics)
    assert Operator(one).account(tenant).public == publics[0]


async def test_the_same_account_is_said_in_the_same_bytes(stack: Stack) -> None:
    operator, same = Operator(new_key(Kind.OPERATOR)), Account(uuid4(), 7, LIMITS)
    assert claims.tenant(operator, same, "local") == claims.tenant(operator, same, "local") != claims.tenant(operator, same, "other")
