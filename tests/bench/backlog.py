"""Backlogs of queued runs, put into a database as a superuser: a million runs in seconds, the same rows that a start would leave.

Left out are the events that say the runs were queued: no claim reads them.
"""

from typing import Any

from db.scratch import Scratch

TENANTS = """
WITH
  made AS (INSERT INTO hansa.tenants (tenant_id, name) SELECT uuidv7(), 'tenant-' || n FROM generate_series(1, $1) n RETURNING tenant_id),
  objects AS (INSERT INTO hansa.objects (tenant_id, kind, name, generation, manager, manifest, digest)
    SELECT m.tenant_id, o.kind, o.name, o.generation, o.manager, o.manifest, o.digest FROM made m, hansa.objects o),
  agents AS (INSERT INTO hansa.agents (tenant_id, name, revision, suspended, concurrency, pool)
    SELECT m.tenant_id, a.name, a.revision, a.suspended, a.concurrency, a.pool FROM made m, hansa.agents a)
INSERT INTO hansa.agent_revisions (tenant_id, agent, revision, digest, manifest)
  SELECT m.tenant_id, a.agent, a.revision, a.digest, a.manifest FROM made m, hansa.agent_revisions a
"""
NEW = """
CREATE TEMPORARY TABLE new AS SELECT t.tenant_id, uuidv7() AS id FROM generate_series(0, $1 - 1) n
  JOIN (SELECT tenant_id, row_number() OVER () - 1 AS place FROM hansa.tenants) t ON t.place = n % $2
"""
SESSIONS = (
    "INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run) SELECT tenant_id, id, 'counted', 1, 1, id FROM new"
)
RUNS = """
INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, input)
  SELECT tenant_id, id, id, 1, 'counted', 1, 'queued', '{"steps": 0}' FROM new
"""


async def fill(scratch: Scratch, runs: int, *, tenants: int = 1) -> None:
    """Put ready runs into a database in which one tenant has the workload's agents; they belong to all tenants in turn."""
    owner: Any = scratch.owner
    if tenants > 1:
        await owner.execute(TENANTS, tenants - 1)
    await owner.execute(NEW, runs, tenants)
    # The rows are right by their making: checking the references of a million takes longer than all the rest.
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(SESSIONS)
    await owner.execute(RUNS)
    await owner.execute("RESET session_replication_role")
    await owner.execute("DROP TABLE new")
    await owner.execute("VACUUM ANALYZE")
    await owner.execute("CHECKPOINT")
