"""A tenant with a database of its own: everything that it has is there and nothing of anybody else, and it is like any other tenant."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from api.problem import problem
from dedicated.city import City, applied, conditions, inside, open_city, tenant
from hansa.db import walls
from hansa.db.joining import joining
from hansa.db.pool import enter_platform, enter_tenant, open_database
from hansa.errors import Misconfigured
from hansa.tenants.service import tenant_id
from hansa.tenants.warnings import tell
from runs.engine import until
from stack import open_stack, plain_client

PLATFORM = {"tenants", "objects", "messaging_accounts", "budgets", "namespaces"}
"""All that the platform's database may have of such a tenant: what must be known before it is, and its Tenant object."""
WORK: list[Any] = [["tool", "witness_keyed", "a", 0], ["call", "leaf", [["tool", "witness_keyed", "b", 0]]], ["sleep", 0.1]]


@pytest.fixture(scope="module")
def city(migrated: Path) -> Iterator[City]:
    folder = Path(tempfile.mkdtemp(prefix="hansa-city-"))
    with open_stack(folder, like=migrated) as stack, open_city(stack, "acme", "bank", "cargo", "doomed", "mover") as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def client(city: City) -> AsyncIterator[httpx2.AsyncClient]:
    async with city.running.client() as opened:
        yield opened


async def work(client: httpx2.AsyncClient, name: str) -> dict[str, Any]:
    """A run of the tenant that uses a tool, calls another agent and sleeps, done."""
    there = {"hansa-tenant": name}
    started = await client.post("/v1/agents/stem/runs", json={"input": WORK}, headers=there)
    assert started.status_code == 202, started.text

    async def done() -> dict[str, Any] | None:
        run = (await client.get(f"/v1/runs/{started.json()['id']}", headers=there)).json()
        return run if run["state"] in ("completed", "failed") else None

    run = await until(done, "the run has ended")
    assert run["state"] == "completed", run
    return run


async def key_of(client: httpx2.AsyncClient, name: str, **grant: Any) -> httpx2.Response:
    body = {"name": "theirs", "roles": ["tenant-admin"], **grant}
    return await client.post("/v1/api-keys", json=body, headers={"hansa-tenant": name})


async def test_what_it_has_is_in_its_database_and_nowhere_else(city: City, client: httpx2.AsyncClient) -> None:
    results = await applied(client, *inside("acme"), tenant("acme", quotas={"budget": {"amount": 5, "currency": "EUR"}}))
    assert {each["action"] for each in results} == {"created"}, results
    run = await work(client, "acme")
    made = await key_of(client, "acme")
    assert made.status_code == 201, made.text
    secret = await client.post("/v1/secrets", json={"name": "token", "value": "s3cret-of-acme"}, headers={"hansa-tenant": "acme"})
    assert secret.status_code in (200, 201), secret.text
    own, platform = await city.rows("acme", "acme"), await city.rows("", "acme")
    assert platform.keys() <= PLATFORM, platform
    assert {"runs", "events", "sessions", "agents", "api_keys", "audit_events", "secrets", "data_keys", "budgets"} <= own.keys()
    async with plain_client(str(client.base_url), headers={"authorization": f"Bearer {made.json()['key']}"}) as theirs:
        assert (await theirs.get(f"/v1/runs/{run['id']}")).json()["state"] == "completed"
        assert (await theirs.get("/v1/whoami")).json()["tenant"] == "acme"
        trail = (await theirs.get("/v1/audit-events")).json()["data"]
        assert {"tenant.created", "key.made", "secret.set"} <= {each["action"] for each in trail}, trail
        verdict = (await theirs.get("/v1/audit-events:verify")).json()
        assert verdict["ok"], verdict
        assert (await client.delete(f"/v1/api-keys/{made.json()['id']}", headers={"hansa-tenant": "acme"})).status_code == 204
        problem(await theirs.get("/v1/whoami"), 401, "unauthenticated")


async def test_it_says_where_it_is_and_that_its_walls_hold(client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("acme"))

    async def ready() -> dict[str, Any] | None:
        view = (await client.get("/v1/tenants/acme")).json()
        return view if view["ready"] else None

    view = await until(ready, "the tenant is ready")
    assert view["database"] == "Dedicated"
    assert (conditions(view)["DatabaseReady"], conditions(view)["IsolationVerified"]) == (("True", "Dedicated"), ("True", "ProbesPassed"))
    shown = (await client.get("/v1/objects/Tenant/acme", headers={"hansa-tenant": "acme"})).json()
    assert shown["manifest"]["spec"]["isolation"]["database"] == "Dedicated"


async def test_a_limit_that_is_nearly_used_up_shows_wherever_one_looks(city: City, client: httpx2.AsyncClient) -> None:
    await applied(client, *inside("acme"), tenant("acme", quotas={"messagesPerDay": 5}))
    there = {"hansa-tenant": "acme"}

    async def shown() -> tuple[tuple[str, str], tuple[str, str], list[tuple[str, str]]]:
        """The condition of the tenant and of its object, and the limits that are told to it."""
        views = (await client.get("/v1/tenants/acme")).json(), (await client.get("/v1/objects/Tenant/acme", headers=there)).json()["status"]
        limits = (await client.get("/v1/budgets", headers=there)).json()["data"]
        of_view, of_object = (conditions(each)["QuotaReady"] for each in views)
        return of_view, of_object, [(each["limit"], each["state"]) for each in limits]

    async with open_database(city.settings.database) as database:
        own = database.of(tenant_id("acme"))
        own.trouble = None
        for calls, reason, state in ((0, "InForce", "ok"), (4, "Warning", "warning"), (1, "Reached", "reached")):
            for _ in range(calls):
                await work(client, "acme")  # each calls one agent
            await tell(own)
            assert await shown() == (("True", reason), ("True", reason), [("messagesPerDay", state)])
            await tell(database)  # where nothing of it is counted
    trail = (await client.get("/v1/audit-events", headers=there)).json()["data"]
    told = [each["after"]["state"] for each in trail if each["action"] == "limit.crossed"]
    assert told == ["reached", "warning"], "each once, newest first"
    await applied(client, tenant("acme"))


async def test_others_share_as_before(city: City, client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("many", database="Shared"), *inside("many"))
    await work(client, "many")
    assert {"runs", "events"} <= (await city.rows("", "many")).keys()
    for database in city.places:
        assert await city.rows(database, "many") == {}


@pytest.mark.parametrize(
    ("name", "database", "told"),
    [
        ("nobody", "Dedicated", "knows no database for tenant 'nobody'"),
        ("bank", "Shared", "a database of its own is named for tenant 'bank'"),
        ("default", "Dedicated", "with its rows in the platform's database; a tenant is not moved"),
    ],
)
async def test_where_it_is_must_be_named_for_it(client: httpx2.AsyncClient, name: str, database: str, told: str) -> None:
    (result,) = await applied(client, tenant(name, database=database))
    assert (result["action"], result["errors"][0]["path"]) == ("failed", "spec.isolation.database")
    assert told in result["errors"][0]["message"]


async def test_it_is_not_moved_while_it_is_here(client: httpx2.AsyncClient) -> None:
    assert (await applied(client, tenant("acme")))[0]["action"] != "failed"
    (result,) = await applied(client, tenant("acme", database="Shared"))
    assert result["errors"][0]["code"] == "immutable"
    assert "export it, delete it" in result["errors"][0]["message"]


async def test_what_is_undone_in_a_request_is_undone_in_each_database(city: City, client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("acme", displayName="before"), tenant("bank", displayName="before"))
    change = "UPDATE hansa.tenants SET display_name = $1 WHERE tenant_id = (SELECT hansa.tenant())"
    async with open_database(city.settings.database) as database:
        for own in database.own:
            own.trouble = None
        async with database.tenant(tenant_id("default")) as connection, joining(database, connection, database) as joined:
            await enter_tenant(joined, tenant_id("acme"))
            undone = joined.transaction()
            await undone.start()
            for name in ("acme", "bank"):
                await enter_tenant(joined, tenant_id(name))
                await joined.execute(change, "undone")
                await enter_platform(joined, tenant_id(name))
                await joined.execute(change, "undone")
            await undone.rollback()
            await enter_tenant(joined, tenant_id("bank"))
            await joined.execute(change, "kept")
    said = {
        name: [row["display_name"] for row in await city.fetch(name, "SELECT display_name FROM hansa.tenants")] for name in ("acme", "bank")
    }
    assert said == {"acme": ["before"], "bank": ["kept"]}
    names = await city.fetch("", "SELECT display_name FROM hansa.tenants WHERE name IN ('acme', 'bank')")
    assert {row["display_name"] for row in names} == {"before"}


async def test_its_database_takes_no_row_of_anybody_else_whoever_writes_it(city: City, client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("bank"), *inside("bank"))
    with pytest.raises(asyncpg.CheckViolationError, match="own"):
        await city.fetch("bank", "INSERT INTO hansa.tenants (tenant_id, name) VALUES ($1, 'other')", tenant_id("other"))
    async with open_database(city.settings.database) as database:
        own = database.of(tenant_id("bank"))
        own.trouble = None
        probed = await walls.probe_own(own)
        assert (probed.holes, probed.unwritten) == ([], {})
        assert probed.tables > 25
    for table in ("mailbox", "sessions"):
        await city.fetch("bank", f"ALTER TABLE hansa.{table} DROP CONSTRAINT own")

    async def breached() -> bool:
        view = (await client.get("/v1/tenants/bank")).json()
        return conditions(view)["IsolationVerified"] == ("False", "Breached") and "hansa.sessions: takes a row" in str(view["conditions"])

    try:
        await until(breached, "the hole is found", seconds=10)
        other = (await client.get("/v1/tenants/default")).json()
        assert conditions(other)["IsolationVerified"] == ("True", "ProbesPassed")
    finally:
        await city.migrate()
    assert await city.fetch("bank", "SELECT FROM pg_constraint WHERE conname = 'own' AND conrelid = 'hansa.mailbox'::regclass")


async def test_what_its_database_says_opens_nothing_else(city: City, client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("bank"))
    refused = await key_of(client, "bank", roles=["platform-admin"])
    assert "no role of the platform" in problem(refused, 422, "invalid")["errors"][0]["message"]
    made = (await key_of(client, "bank", roles=["viewer"])).json()
    await city.fetch("bank", "UPDATE hansa.api_keys SET roles = '{platform-admin,viewer}' WHERE id = $1", made["id"])
    async with plain_client(str(client.base_url), headers={"authorization": f"Bearer {made['key']}"}) as theirs:
        problem(await theirs.get("/v1/tenants"), 403, "forbidden")
        assert (await theirs.get("/v1/agents")).status_code == 200


async def test_one_in_which_something_is_missing_stops_nobody_elses_messages(city: City, client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("many", database="Shared"), *inside("many"), tenant("bank"), *inside("bank"))
    there = {"hansa-tenant": "bank"}
    for name in ("relay_claim", "message_count"):
        await city.fetch("bank", f"ALTER FUNCTION hansa.{name} RENAME TO {name}_gone")
    run = (await client.post("/v1/agents/stem/runs", json={"input": WORK}, headers=there)).json()
    try:

        async def called() -> bool:
            return bool(await city.fetch("bank", "SELECT FROM hansa.outbox"))

        await until(called, "its relay has something to do")
        await work(client, "many")
        await asyncio.sleep(0.5)
        await work(client, "many")
        assert city.workers[0].alive
    finally:
        for name in ("relay_claim", "message_count"):
            await city.fetch("bank", f"ALTER FUNCTION hansa.{name}_gone RENAME TO {name}")

    async def done() -> bool:
        return (await client.get(f"/v1/runs/{run['id']}", headers=there)).json()["state"] == "completed"

    await until(done, "its own run goes on")


async def test_a_database_of_somebody_else_is_refused_and_left_alone(city: City, tmp_path: Path) -> None:
    before = dict(city.places)
    await city.admin('CREATE DATABASE "elsewhere"')
    try:
        city.name({"elsewhere": city.url("elsewhere")})
        await city.migrate()
        await city.fetch("elsewhere", "UPDATE hansa.installation SET platform = gen_random_uuid()")
        wrong = {"one": before["acme"], "two": city.stack.admin_url, "three": city.url("elsewhere")}
        city.name({**wrong, "bank": before["bank"]})
        with pytest.raises(Misconfigured) as told:
            await city.migrate()
        for name in wrong:
            assert f"{name}: the database can't be that of tenant '{name}'" in str(told.value)
        assert "bank" not in str(told.value)
        assert await city.fetch("", "SELECT FROM hansa.installation WHERE tenant IS NULL")
    finally:
        city.name(before)
        await city.admin('DROP DATABASE "elsewhere" WITH (FORCE)')


async def test_a_request_that_is_killed_halfway_has_made_no_half_tenant(city: City, client: httpx2.AsyncClient) -> None:
    """Its database has committed and the platform's has not: nobody knows the tenant, and the same request makes it."""
    blocker = await asyncpg.connect(city.stack.admin_url)
    held = blocker.transaction()
    await held.start()
    await blocker.execute("LOCK TABLE hansa.idempotency_keys IN SHARE MODE")  # reads pass, the answer can't be kept
    second = city.running.replica()
    objects = [{"manifest": each} for each in (tenant("cargo"), *inside("cargo"))]
    async with city.running.client(second) as other:
        asking = asyncio.create_task(other.post("/v1/objects:apply", json={"objects": objects}, headers={"idempotency-key": "k-cargo"}))

        async def committed() -> list[Any]:
            return await city.fetch("cargo", "SELECT FROM hansa.tenants")

        await until(committed, "its own database has committed")
        second.kill()
        await asyncio.gather(asking, return_exceptions=True)
    await held.rollback()
    await blocker.close()
    problem(await client.get("/v1/tenants/cargo"), 404, "not_found")
    assert await city.rows("", "cargo") == {}
    again = await applied(client, tenant("cargo"), *inside("cargo"))
    assert "failed" not in {each["action"] for each in again}, again
    await work(client, "cargo")


async def test_deleting_it_leaves_nothing_in_either_database(city: City, client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("doomed", deletionPolicy="Delete"), *inside("doomed"))
    await work(client, "doomed")
    assert (await client.delete("/v1/tenants/doomed", params={"confirm": "doomed"})).status_code == 202

    async def gone() -> bool:
        found = (await client.get("/v1/deletions")).json()["data"]
        return any(each["tenant"] == "doomed" and each["finished_at"] and not each["residue"] for each in found)

    await until(gone, "the tenant is gone")
    assert (await city.rows("doomed", "doomed"), await city.rows("", "doomed")) == ({}, {})
    again = await applied(client, tenant("doomed"), *inside("doomed"))
    assert "failed" not in {each["action"] for each in again}, again
    await work(client, "doomed")


async def test_it_is_archived_and_comes_back(client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("acme"), *inside("acme"))
    key = {"authorization": f"Bearer {(await key_of(client, 'acme')).json()['key']}"}
    assert (await client.delete("/v1/tenants/acme", params={"confirm": "acme"})).status_code == 202
    problem(await client.get("/v1/whoami", headers=key), 403, "forbidden")
    assert (await client.post("/v1/tenants/acme/restore")).status_code == 200
    assert (await client.get("/v1/whoami", headers=key)).status_code == 200
    await work(client, "acme")


async def test_a_tenant_is_moved_by_its_export(city: City, client: httpx2.AsyncClient) -> None:
    places = dict(city.places)
    city.name({name: url for name, url in places.items() if name != "mover"})
    city.start()
    async with city.running.client() as before:
        await applied(before, tenant("mover", database="Shared", deletionPolicy="Delete"), *inside("mover"))
        run = await work(before, "mover")
        bundle = (await before.get("/v1/tenants/mover/export")).content
    city.name(places)
    city.start()  # it is named now, and still shares
    async with city.running.client() as between:
        (result,) = await applied(between, tenant("mover"))
        assert "export it" in result["errors"][0]["message"]
        await work(between, "mover")
        await between.delete("/v1/tenants/mover", params={"confirm": "mover"})

        async def gone() -> bool:
            return (await between.get("/v1/tenants/mover")).status_code == 404

        await until(gone, "the tenant is gone")
    city.start()
    async with city.running.client() as after:
        imported = await after.post("/v1/tenants:import", content=bundle, headers={"content-type": "application/x-tar"})
        assert imported.status_code == 201, imported.text
        assert (imported.json()["sessions"], imported.json()["failed"]) == (2, 0), imported.text
        assert (await after.get("/v1/tenants/mover")).json()["database"] == "Dedicated"
        there = {"hansa-tenant": "mover"}
        assert (await after.get(f"/v1/runs/{run['id']}", headers=there)).json()["state"] == "completed"
        await work(after, "mover")
    assert (await city.rows("", "mover")).keys() <= PLATFORM


async def test_a_process_that_does_not_know_its_database_does_nothing_for_it(city: City) -> None:
    stranger = city.stack.serve()
    async with city.stack.client(stranger) as client:
        there = {"hansa-tenant": "acme"}
        told = problem(await client.get("/v1/agents", headers=there), 503, "unavailable")
        assert "HANSA_DATABASE_DEDICATED_FILE" in told["hint"]
        *_, result = await applied(client, *inside("acme"))
        assert (result["action"], result["errors"][0]["code"]) == ("failed", "unavailable")
        view = (await client.get("/v1/tenants/acme")).json()
        assert conditions(view)["DatabaseReady"] == ("False", "NotConfigured")
    stranger.stop()
    assert (await city.rows("", "acme")).keys() <= PLATFORM


async def test_a_run_is_found_by_its_tenants_own_key_alone(client: httpx2.AsyncClient) -> None:
    await applied(client, tenant("acme"), *inside("acme"), tenant("bank"), *inside("bank"))
    run = await work(client, "acme")
    problem(await client.get(f"/v1/runs/{run['id']}"), 404, "not_found")
    problem(await client.get(f"/v1/runs/{run['id']}", headers={"hansa-tenant": "bank"}), 404, "not_found")
