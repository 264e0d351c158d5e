"""The floor under a durable run of two steps: accept, claim and two steps as four commits of one SQL function and round trip each.

No tenants' rows kept apart, no intents, no live events: a mark to measure by, not an equal. `grouped` writes the steps of all runs
that wait for it in one commit; accepts and claims stay single, so an engine that groups these too may pass it.
"""

import asyncio
import os
import uuid
from typing import Any

import asyncpg
import uvloop

from bench.closed_loop import Operation, obey

POOL = 16
SCHEMA = """
CREATE SCHEMA floor;
CREATE TABLE floor.runs (
  id uuid PRIMARY KEY, state text NOT NULL, epoch int NOT NULL DEFAULT 0, seq int NOT NULL DEFAULT 1, lease timestamptz);
CREATE INDEX ON floor.runs (id) WHERE state = 'queued';
CREATE TABLE floor.events (run uuid, seq int, type text NOT NULL, data json NOT NULL, PRIMARY KEY (run, seq));
CREATE FUNCTION floor.accept(p_run uuid, p_input json) RETURNS void LANGUAGE sql AS $$
  INSERT INTO floor.runs (id, state) VALUES (p_run, 'queued');
  INSERT INTO floor.events VALUES (p_run, 1, 'queued', p_input);
$$;
CREATE FUNCTION floor.claim() RETURNS TABLE (id uuid, epoch int) LANGUAGE sql AS $$
  UPDATE floor.runs r SET state = 'running', epoch = r.epoch + 1, lease = clock_timestamp() + interval '30 s'
  FROM (SELECT q.id FROM floor.runs q WHERE q.state = 'queued' ORDER BY q.id LIMIT 1 FOR UPDATE SKIP LOCKED) p
  WHERE r.id = p.id RETURNING r.id, r.epoch
$$;
CREATE FUNCTION floor.append(p_run uuid, p_epoch int, p_type text, p_data json, p_end boolean) RETURNS int LANGUAGE plpgsql AS $$
DECLARE v_seq int;
BEGIN
  UPDATE floor.runs SET seq = seq + 1, state = CASE WHEN p_end THEN 'done' ELSE state END
    WHERE id = p_run AND epoch = p_epoch AND state = 'running' RETURNING seq INTO v_seq;
  IF FOUND THEN INSERT INTO floor.events VALUES (p_run, v_seq, p_type, p_data); END IF;
  RETURN v_seq;
END $$;
CREATE FUNCTION floor.append_all(p_runs uuid[], p_epochs int[], p_types text[], p_data json[], p_ends boolean[]) RETURNS SETOF int
LANGUAGE sql AS $$
  SELECT floor.append(p_runs[i], p_epochs[i], p_types[i], p_data[i], p_ends[i]) FROM generate_subscripts(p_runs, 1) i ORDER BY i
$$;
"""
Step = tuple[uuid.UUID, int, str, str, bool]


class Each:
    """One commit a step."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def append(self, *step: Any) -> Any:
        return await self.pool.fetchval("SELECT floor.append($1, $2, $3, $4, $5)", *step)


class Grouped(Each):
    """One commit for all steps that have come while the one before was under way."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self._waiting: list[tuple[Step, asyncio.Future[Any]]] = []
        self._come = asyncio.Event()

    async def append(self, *step: Any) -> Any:
        written: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((step, written))
        self._come.set()
        return await written

    async def write(self) -> None:
        while await self._come.wait():
            self._come.clear()
            while batch := self._waiting[:256]:
                del self._waiting[:256]
                columns = [list(column) for column in zip(*(step for step, _ in batch), strict=True)]
                rows = await self.pool.fetch("SELECT floor.append_all($1, $2, $3, $4, $5)", *columns)
                for (_, written), row in zip(batch, rows, strict=True):
                    written.set_result(row[0])


def run_by(engine: Each) -> Operation:
    """Accept a run, claim one, do its two steps. Each client does some run's work, so all get done."""

    async def run() -> None:
        await engine.pool.execute("SELECT floor.accept($1, $2)", uuid.uuid4(), '{"number": 1}')
        for row in await engine.pool.fetch("SELECT * FROM floor.claim()"):
            assert await engine.append(row["id"], row["epoch"], "step", '{"number": 2}', False) == 2
            assert await engine.append(row["id"], row["epoch"], "step", '{"number": 4}', True) == 3

    return run


async def main() -> None:
    async with asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=POOL, max_size=POOL) as pool:
        await pool.execute(SCHEMA)
        grouped = Grouped(pool)
        writers = [asyncio.create_task(grouped.write(), name=f"floor.write {number}") for number in range(3)]
        await obey({"each": run_by(Each(pool)), "grouped": run_by(grouped)})
        for writer in writers:
            writer.cancel()


uvloop.run(main())
