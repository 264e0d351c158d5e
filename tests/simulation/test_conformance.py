"""The model of the database does what the SQL does in PostgreSQL, verb by verb, in whatever order; one that does not is found out."""

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import asyncpg
import pytest

from db.scratch import Scratch, open_scratch
from db.verbs import admit, connections
from simulation.coverage import OF_VERBS
from simulation.database import BROKEN, ModelDatabase
from simulation.twin import Twin
from simulation.walk import Walk
from stack import Stack

WALKS = 110
STEPS = 60
Place = tuple[Scratch, asyncpg.Connection, asyncpg.Connection]


@pytest.fixture
async def place(stack: Stack, tmp_path: Path) -> AsyncIterator[Place]:
    async with open_scratch(stack, tmp_path) as scratch, connections(scratch) as (app, system):
        yield scratch, app, system


async def walk(place: Place, seed: int, broken: str = "") -> Counter[str]:
    """What happened on a walk on which nothing differed."""
    scratch, app, system = place
    clock = itertools.count()  # no two moments are the same
    model = ModelDatabase(lambda: next(clock) / 1e6, broken=broken)
    tenant = Twin(app, system, model)
    await admit(scratch, tenant)
    try:
        await Walk(scratch, tenant, Random(seed)).go(STEPS)
    except AssertionError as error:
        error.add_note(f"on the walk from seed {seed}")
        raise
    return model.seen


async def walks(place: Place, broken: str = "") -> Counter[str]:
    """What happened on all walks together."""
    seen = Counter[str]()
    for seed in range(WALKS):
        seen += await walk(place, seed, broken)
    return seen


@pytest.mark.timeout(300)
async def test_the_model_does_what_the_database_does(place: Place) -> None:
    seen = await walks(place)
    missing = [name for name in OF_VERBS if not seen[name]]
    assert not missing, missing


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broken", [*BROKEN, "retrylost"])
async def test_a_model_that_lacks_a_rule_is_found_out(place: Place, broken: str) -> None:
    with pytest.raises(AssertionError, match="PostgreSQL says"):
        await walks(place, broken)
