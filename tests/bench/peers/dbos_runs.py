"""DBOS as a participant: a durable workflow of two trivial steps. Runs in the environment of tests/bench/requirements.txt.

Its system database is a database of its own on the same PostgreSQL.
"""

import asyncio
import importlib
import os
from typing import Any

from bench.closed_loop import obey

dbos: Any = importlib.import_module("dbos")  # by name: it is not in the environment in which this file is checked


async def one(number: int) -> int:
    return number + 1


async def two(number: int) -> int:
    return number * 2


first: Any = dbos.DBOS.step()(one)
second: Any = dbos.DBOS.step()(two)


async def both(number: int) -> int:
    return await second(await first(number))


workflow: Any = dbos.DBOS.workflow()(both)


async def run() -> None:
    """Start a workflow and await its result."""
    assert await workflow(1) == 4


async def main() -> None:
    settings = {
        "name": "bench",
        "system_database_url": os.environ["BENCH_DATABASE"],
        "sys_db_pool_size": 20,
        "log_level": "ERROR",
        "run_admin_server": False,
    }
    dbos.DBOS(config=settings)
    dbos.DBOS.launch()
    await obey({"run": run})
    dbos.DBOS.destroy()


asyncio.run(main())
