"""What is changed is audited in the transaction of the change, in one chain a tenant; what is refused is audited too."""

import asyncio
import hashlib
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from api.keys import OTHER_TENANT, Keys
from api.problem import problem
from audit.trails import end, rows, trail
from db.rows import A, B
from db.scratch import Scratch
from hansa import ids
from hansa.audit.model import Action, Actor, AuditEvent
from hansa.audit.service import record
from hansa.db.pool import Database, open_database
from samples import agent
from stack import Process, Stack, plain_client

WRITERS, EACH = 16, 20


def event(note: str, action: Action = Action.OBJECT_CHANGED) -> AuditEvent:
    return AuditEvent(action=action, actor=Actor(name="key:x"), target=f"Agent/{note}")


async def write(database: Database, tenant: UUID, *notes: str) -> None:
    async with database.tenant(tenant) as connection:
        await record(connection, *(event(note) for note in notes))


async def test_what_was_refused_is_in_the_trail_with_who_and_why(
    api: httpx2.AsyncClient, stack: Stack, control_plane: Process, keys: Keys
) -> None:
    last, last_of_other = await end(stack), await end(stack, OTHER_TENANT)
    async with plain_client(control_plane.url, headers=keys.of_role["viewer"]) as viewer:
        denied = problem(await viewer.delete("/v1/objects/Agent/none"), 403, "forbidden")
        for _ in range(2):
            problem(await viewer.delete("/v1/objects/Agent/none"), 403, "forbidden")
        problem(await viewer.get("/v1/runs", headers={"hansa-tenant": OTHER_TENANT}), 403, "forbidden")
        problem(await viewer.get("/v1/tenants"), 403, "forbidden")
    found = [each for each in await trail(stack, after=last) if each["action"] == Action.ACCESS_REFUSED]
    assert [(each["target"], each["outcome"]) for each in found] == [
        ("DELETE /v1/objects/Agent/none", "refused"),
        ("GET /v1/runs", "refused"),
        ("GET /v1/tenants", "refused"),
    ], "each once: what is repeated is counted"
    assert found[0]["reason"] == denied["detail"]
    assert found[0]["actor"]["name"].startswith("key:")
    assert found[0]["actor"]["roles"] == ["viewer"]
    assert found[0]["origin"]["address"] == "127.0.0.1"
    assert found[0]["origin"]["request_id"] == denied["request_id"]
    assert found[1]["after"] == {"tenant": OTHER_TENANT}
    assert await trail(stack, OTHER_TENANT, after=last_of_other) == [], "the other tenant is not told who wanted in"


async def test_a_key_of_the_tenant_that_is_let_in_no_more_is_in_its_trail(
    api: httpx2.AsyncClient, stack: Stack, control_plane: Process
) -> None:
    made = (await api.post("/v1/api-keys", json={"name": "short", "roles": ["viewer"]})).json()
    assert (await api.delete(f"/v1/api-keys/{made['id']}")).status_code == 204
    last = await end(stack)
    async with plain_client(control_plane.url, headers={"authorization": f"Bearer {made['key']}"}) as gone:
        for _ in range(2):
            problem(await gone.get("/v1/whoami"), 401, "unauthenticated")
    (found,) = await trail(stack, after=last)
    assert (found["action"], found["actor"]["name"], found["reason"]) == (
        Action.LOGIN_REFUSED,
        f"key:{made['id']}",
        "the API key has been revoked",
    )


async def test_who_changed_what_is_there_and_what_it_was_before(api: httpx2.AsyncClient, stack: Stack) -> None:
    name, last = f"audited-{ids.new_id().hex[-8:]}", await end(stack)
    trace = ids.new_id().hex
    for description in ("one", "two", "two"):
        headers = {"x-request-id": trace}
        applied = await api.post(
            "/v1/objects:apply", json={"objects": [{"manifest": agent(name, description=description)}]}, headers=headers
        )
        assert applied.json()["failed"] == 0, applied.text
    assert (await api.delete(f"/v1/objects/Agent/{name}")).status_code == 204
    created, changed, deleted = await trail(stack, after=last)
    assert [each["action"] for each in (created, changed, deleted)] == ["object.created", "object.changed", "object.deleted"]
    assert {each["target"] for each in (created, changed, deleted)} == {f"Agent/{name}"}
    assert "before" not in created
    assert created["after"]["spec"]["description"] == "one"
    assert (changed["before"], changed["after"]) == ({"spec": {"description": "one"}}, {"spec": {"description": "two"}})
    assert deleted["before"]["spec"]["description"] == "two"
    assert created["origin"]["request_id"] == trace
    assert created["actor"]["roles"] == ["platform-admin"]


async def test_what_the_platform_does_in_a_tenant_is_in_both_trails(api: httpx2.AsyncClient, stack: Stack) -> None:
    name, last = f"t-{ids.new_id().hex[-10:]}", await end(stack)
    made = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {"weight": 2}}
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": made}]})).json()["failed"] == 0
    there = {"hansa-tenant": name}
    assert (await api.post("/v1/api-keys", json={"name": "k", "roles": ["viewer"]}, headers=there)).status_code == 201
    theirs = await trail(stack, name)
    assert [each["action"] for each in theirs] == ["tenant.created", "key.made"]
    assert {each["actor"]["tenant"] for each in theirs} == {"default"}
    ours = await trail(stack, after=last)
    assert [(each["action"], each["target"]) for each in ours] == [("tenant.created", f"Tenant/{name}")]


async def test_objects_that_someone_may_not_apply_are_in_its_own_trail(
    stack: Stack, control_plane: Process, keys: Keys, api: httpx2.AsyncClient
) -> None:
    last, theirs = await end(stack), await end(stack, OTHER_TENANT)
    foreign = agent("x")
    foreign["metadata"] = {"name": "x", "namespace": OTHER_TENANT}
    async with plain_client(control_plane.url, headers=keys.of_role["developer"]) as developer:
        answer = await developer.post("/v1/objects:apply", json={"objects": [{"manifest": foreign}]})
    assert answer.json()["failed"] == 1
    (found,) = await trail(stack, after=last)
    assert (found["action"], found["outcome"], found["target"]) == (Action.ACCESS_REFUSED, "refused", "Agent/x")
    assert found["after"] == {"tenant": OTHER_TENANT}
    assert await end(stack, OTHER_TENANT) == theirs


async def test_a_request_that_is_repeated_under_its_key_is_one_change(api: httpx2.AsyncClient, stack: Stack) -> None:
    last = await end(stack)
    for _ in range(2):
        answer = await api.post("/v1/api-keys", json={"name": "once", "roles": ["viewer"]}, headers={"idempotency-key": f"audit-{last}"})
        assert answer.status_code == 201
    assert [each["action"] for each in await trail(stack, after=last)] == ["key.made"]


async def changed_and_lost(database: Database) -> None:
    async with database.tenant(A) as connection:
        await connection.execute("UPDATE hansa.tenants SET display_name = 'changed'")
        await record(connection, event("lost"))
        raise ZeroDivisionError


async def test_a_change_that_is_rolled_back_leaves_no_row_and_no_gap(scratch: Scratch) -> None:
    await scratch.add_tenant(A, "a")
    async with open_database(scratch.settings.database) as database:
        await write(database, A, "first")
        with pytest.raises(ZeroDivisionError):
            await changed_and_lost(database)
        await write(database, A, "second")
    assert [(each["seq"], each["target"]) for each in await rows(scratch.settings.database.url, A)] == [
        (1, "Agent/first"),
        (2, "Agent/second"),
    ]
    assert (await scratch.fetch("SELECT display_name FROM hansa.tenants WHERE tenant_id = $1", A))[0]["display_name"] == ""


async def test_a_change_that_cannot_be_audited_is_not_made(stack: Stack, api: httpx2.AsyncClient) -> None:
    """For every way of changing something: the trail is out of order, so nothing changes and the answer is an error."""
    made = (await api.post("/v1/api-keys", json={"name": "stays", "roles": ["viewer"]})).json()
    owner = await asyncpg.connect(stack.admin_url)
    await owner.execute("ALTER FUNCTION hansa.audit_append(text[]) RENAME TO audit_append_away")
    try:
        applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent("unaudited")}]})
        revoked = await api.delete(f"/v1/api-keys/{made['id']}")
    finally:
        await owner.execute("ALTER FUNCTION hansa.audit_append_away(text[]) RENAME TO audit_append")
        await owner.close()
    problem(applied, 500, "internal")
    problem(revoked, 500, "internal")
    problem(await api.get("/v1/objects/Agent/unaudited"), 404, "not_found")
    assert (await api.get(f"/v1/api-keys/{made['id']}")).json()["revoked_at"] is None


async def test_writers_side_by_side_make_one_chain_without_a_gap_or_a_fork(scratch: Scratch) -> None:
    for tenant, name in ((A, "a"), (B, "b")):
        await scratch.add_tenant(tenant, name)

    async with open_database(scratch.settings.database) as database:

        async def writer(number: int) -> None:
            for turn in range(EACH):
                await write(database, A if number % 2 else B, f"{number}-{turn}", "and another")

        await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    for tenant in (A, B):
        found = await scratch.fetch(
            "SELECT seq, at, hash, hansa.audit_text(tenant_id, seq, at, event) AS text FROM hansa.audit_events "
            "WHERE tenant_id = $1 ORDER BY seq",
            tenant,
        )
        assert [row["seq"] for row in found] == list(range(1, WRITERS * EACH + 1))
        assert [row["at"] for row in found] == sorted(row["at"] for row in found)
        before = bytes(32)
        for row in found:
            before = hashlib.sha256(before + row["text"].encode()).digest()
            assert before == row["hash"], row["seq"]


async def test_what_was_written_stays_also_for_the_owner(scratch: Scratch) -> None:
    await scratch.add_tenant(A, "a")
    async with open_database(scratch.settings.database) as database:
        await write(database, A, "kept")
    partition = (await scratch.fetch("SELECT tableoid::regclass::text AS name FROM hansa.audit_events"))[0]["name"]
    for table in ("hansa.audit_events", partition):
        for sql in (f"UPDATE {table} SET event = '{{}}'", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            transaction = scratch.owner.transaction()
            await transaction.start()
            await scratch.execute("SET LOCAL ROLE hansa_owner")
            await scratch.execute("SELECT set_config('hansa.tenant', $1, true)", str(A))
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await scratch.execute(sql)
            await transaction.rollback()
    assert len(await rows(scratch.settings.database.url, A)) == 1


async def test_the_clock_may_go_back_and_the_trail_does_not(scratch: Scratch) -> None:
    await scratch.add_tenant(A, "a")
    async with open_database(scratch.settings.database) as database:
        await write(database, A, "one")
        await scratch.execute("UPDATE hansa.audit_heads SET at = at + interval '1 hour'")
        await write(database, A, "two", "three")
    found: list[Any] = [row["at"] for row in await scratch.fetch("SELECT at FROM hansa.audit_events ORDER BY seq")]
    assert found == sorted(found)
    assert (found[1] - found[0]).total_seconds() > 3000
