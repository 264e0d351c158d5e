"""Defects put in on purpose: a harness that does not find them finds nothing.

`nofence`: a worker that has lost its run writes all the same. `nointent`: what an unsafe call is about to do is not in the log.
"""

import asyncpg

FENCE = ("AND epoch = p_epoch AND writes = p_write - 1 AND", "AND")
NO_INTENT = """
CREATE FUNCTION hansa.chaos_no_intent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.type := 'log'; NEW.step := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER chaos_no_intent BEFORE INSERT ON hansa.events FOR EACH ROW
  WHEN (NEW.type = 'tool.called' AND NEW.data ->> 'effect' = 'unsafe') EXECUTE FUNCTION hansa.chaos_no_intent();
"""
NAMES = ("nofence", "nointent")


async def install(connection: asyncpg.Connection, name: str) -> None:
    """Put a defect into the database; an empty name is none."""
    if name == "nofence":
        await unfence(connection)
    elif name == "nointent":
        await connection.execute(NO_INTENT)
    elif name:
        raise ValueError(f"there is no control {name!r}: {', '.join(NAMES)}")


async def unfence(connection: asyncpg.Connection) -> str:
    """Let every write through, whoever owns the run; the function as it was."""
    whole = await connection.fetchval("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'run_append'")
    broken = whole.replace(*FENCE)
    assert broken != whole, "the function has changed: mend the control"
    await connection.execute(broken)
    return whole
