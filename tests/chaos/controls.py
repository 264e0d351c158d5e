"""Defects put in on purpose: a harness that does not find them finds nothing.

`nofence`: a worker that has lost its run writes all the same. `nointent`: what an unsafe call is about to do is not in the log.
`lazyack`: a message that NATS has taken counts as delivered, and is never sent again.
"""

import asyncpg
import msgspec

NO_INTENT = """
CREATE FUNCTION hansa.chaos_no_intent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.type := 'log'; NEW.step := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER chaos_no_intent BEFORE INSERT ON hansa.events FOR EACH ROW
  WHEN (NEW.type = 'tool.called' AND NEW.data ->> 'effect' = 'unsafe') EXECUTE FUNCTION hansa.chaos_no_intent();
"""
LAZY_ACK = """
CREATE OR REPLACE FUNCTION hansa.relay_sent(p_tenants uuid[], p_positions bigint[], p_patience interval) RETURNS void LANGUAGE sql AS $$
  UPDATE hansa.outbox o SET due_at = 'infinity' FROM unnest(p_tenants, p_positions) AS m(tenant_id, position)
    WHERE o.tenant_id = m.tenant_id AND o.position = m.position AND o.state = 'flight'
$$;
CREATE OR REPLACE FUNCTION hansa.relay_rewind() RETURNS void LANGUAGE sql AS $$ SELECT $$;
"""
NAMES = ("nofence", "nointent", "lazyack")


class Focus(msgspec.Struct, frozen=True):
    """The faults and the shapes of runs under which a defect does its harm soonest."""

    kinds: frozenset[str]
    shapes: frozenset[str]


def focus(name: str) -> Focus:
    """Where to look for a control; everywhere when there is none."""
    match name:
        case "":
            return Focus(frozenset(), frozenset())
        case "lazyack":
            return Focus(frozenset({"nats_wipe", "worker_freeze"}), frozenset({"family"}))
        case _:
            return Focus(frozenset({"worker_freeze"}), frozenset({"one_of_each"}))


async def install(connection: asyncpg.Connection, name: str) -> None:
    """Put a defect into the database; an empty name is none."""
    if name == "nofence":
        await unfence(connection)
    elif name == "nointent":
        await connection.execute(NO_INTENT)
    elif name == "lazyack":
        await connection.execute(LAZY_ACK)
    elif name:
        raise ValueError(f"there is no control {name!r}: {', '.join(NAMES)}")


async def unfence(connection: asyncpg.Connection) -> None:
    """Let every write through, whoever owns the run."""
    whole = await connection.fetchval("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'run_write'")
    broken = whole.replace("AND r.epoch = a.epoch AND r.writes = a.number - 1", "")
    broken = broken.replace("AND r.epoch = a.epoch AND r.writes = a.number", "")
    assert broken != whole, "the function has changed: mend the control"
    await connection.execute(broken)
