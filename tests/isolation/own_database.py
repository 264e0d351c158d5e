"""A tenant with a database of its own beside the others: what each database has of whom, and whom its keys let see what."""

from typing import Any

import httpx2

from dedicated.city import City, applied, inside, open_city, tenant
from hansa.db import walls
from hansa.db.pool import open_database
from hansa.tenants.service import tenant_id
from isolation.probes import Probes
from isolation.requests import Scene
from stack import plain_client

OWN = "own-database"
PLATFORM = {"tenants", "objects", "messaging_accounts", "budgets", "namespaces"}
"""All that the platform's database may have of such a tenant."""


async def ask_own_database(scene: Scene, probes: Probes) -> None:
    """Make such a tenant, let it work, and look into both databases, and from each side over the API."""
    with open_city(scene.stack, OWN) as city:
        async with city.running.client() as owner:
            results = await applied(owner, tenant(OWN), *inside(OWN))
            assert "failed" not in {each["action"] for each in results}, results
            there = {"hansa-tenant": OWN}
            work: dict[str, Any] = {"input": [["call", "leaf", []]]}
            run = (await owner.post("/v1/agents/stem/runs", params={"wait": 10}, json=work, headers=there)).json()
            assert run["state"] == "completed", run
            made = await owner.post("/v1/api-keys", json={"name": "theirs", "roles": ["tenant-admin"]}, headers=there)
            key = {"authorization": f"Bearer {made.json()['key']}"}
        url = city.running.control_plane.url
        async with plain_client(url, headers=key) as theirs, plain_client(url, headers=scene.stranger) as stranger:
            await _asked(theirs, stranger, run, scene, probes)
        await _rows(city, probes)


async def _asked(theirs: httpx2.AsyncClient, stranger: httpx2.AsyncClient, run: dict[str, str], scene: Scene, probes: Probes) -> None:
    for path in (f"/v1/runs/{run['id']}", f"/v1/sessions/{run['session_id']}", f"/v1/sessions/{run['session_id']}/events"):
        probes.expect("own database", f"{path} by its own", holds=(await theirs.get(path)).status_code == 200)
        probes.expect("own database", f"{path} by another tenant", holds=(await stranger.get(path)).status_code == 404)
    for path in (f"/v1/runs/{scene.victim.run_id}", f"/v1/sessions/{scene.victim.session_id}"):
        found = await theirs.get(path)
        probes.answer("own database", f"{path} by it", found)
        probes.expect("own database", f"{path} by it", holds=found.status_code == 404, told=found.text)


async def _rows(city: City, probes: Probes) -> None:
    found = await city.rows("", OWN)
    probes.expect("own database", "the platform's has its Tenant alone", holds=found.keys() <= PLATFORM, told=str(found))
    tables = await city.fetch(
        OWN,
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
        "WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p')",
    )
    for (table,) in tables:
        others = await city.fetch(OWN, f"SELECT FROM hansa.{table} WHERE tenant_id <> $1", tenant_id(OWN))
        probes.expect("own database", f"no row of others in {table}", holds=not others)
    async with open_database(city.settings.database) as database:
        own = database.of(tenant_id(OWN))
        own.trouble = None
        probed = await walls.probe_own(own)
    probes.expect("own database", "no table takes a row of others", holds=not probed.holes and not probed.unwritten, told=str(probed))
