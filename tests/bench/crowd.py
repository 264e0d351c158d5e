"""Many tenants in a database, each with ten agents and a key: rows copied from one that was made through the API."""

import asyncpg
import msgspec

from hansa.auth import keys
from hansa.tenants.service import tenant_id
from samples import SCRIPTED, agent
from stack import Process, Stack

AGENTS = 10
FIRST = "crowd-0"
COPIED = ("objects", "agent_revisions", "agents")
COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'tenant_id' AND attgenerated = '' AND attidentity = ''
"""


class Crowd(msgspec.Struct, frozen=True):
    """Tenants by name, each with a key."""

    keys: dict[str, str]


async def gather(stack: Stack, process: Process, *, tenants: int) -> Crowd:
    """Make so many tenants."""
    async with stack.client(process) as client:
        manifests = [{"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": FIRST}, "spec": {}}, SCRIPTED]
        manifests += [agent(f"agent-{number}") for number in range(AGENTS)]
        for each in manifests[:1], manifests[1:]:
            headers = {"hansa-tenant": FIRST} if each[0]["kind"] != "Tenant" else {}
            applied = await client.post("/v1/objects:apply", headers=headers, json={"objects": [{"manifest": one} for one in each]})
            assert applied.json()["failed"] == 0, applied.text
    names = [f"crowd-{number}" for number in range(tenants)]
    made = {name: keys.make("live") for name in names}
    pepper = keys.read_pepper(stack.settings.key.pepper_file)
    admin = await asyncpg.connect(stack.admin_url)
    ids = [tenant_id(name) for name in names]
    await admin.execute("CREATE TEMP TABLE crowd AS SELECT * FROM unnest($1::text[], $2::uuid[]) AS c(name, id)", names, ids)
    await admin.execute("INSERT INTO hansa.tenants (tenant_id, name) SELECT id, name FROM crowd ON CONFLICT DO NOTHING")
    for table in COPIED:
        columns = await admin.fetchval(COLUMNS, f"hansa.{table}")
        await admin.execute(
            f"INSERT INTO hansa.{table} (tenant_id, {columns}) SELECT c.id_of_tenant, {columns} "
            f"FROM (SELECT id FROM crowd WHERE id <> $1) c (id_of_tenant), (SELECT {columns} FROM hansa.{table} WHERE tenant_id = $1) o",
            tenant_id(FIRST),
        )
    await admin.executemany(
        "INSERT INTO hansa.api_keys (tenant_id, id, name, digest, roles, used_at) VALUES ($1, $2, 'bench', $3, '{developer}', now())",
        [(tenant_id(name), key[1], keys.digest(key[2], pepper)) for name, key in made.items()],
    )
    await admin.execute("VACUUM ANALYZE")
    await admin.close()
    return Crowd({name: key[0] for name, key in made.items()})
