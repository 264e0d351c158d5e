"""Whatever the app's role asks as one tenant, the answer is the same as if there were no other tenant."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isolation.twins import Twins, open_twins
from stack import Stack

SEEDS = range(8)


@pytest.fixture
async def twins(stack: Stack, tmp_path: Path) -> AsyncIterator[Twins]:
    async with open_twins(stack, tmp_path) as found:
        yield found


@pytest.mark.timeout(120)
async def test_statements_tell_nothing_of_another_tenant(twins: Twins) -> None:
    probed = await twins.probe(SEEDS)
    assert probed.leaks == []
    assert probed.statements == 100 * len(SEEDS)
    assert probed.seen > 0.3 * probed.statements, "too little is asked that has an answer"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("table", ["runs", "events", "api_keys"])
async def test_a_table_without_its_policy_is_found(twins: Twins, table: str) -> None:
    await twins.full.execute(f"ALTER TABLE hansa.{table} DISABLE ROW LEVEL SECURITY")
    assert (await twins.probe(SEEDS)).leaks


async def test_a_policy_that_lets_rows_be_counted_is_found(twins: Twins) -> None:
    await twins.full.execute("CREATE POLICY wide ON hansa.runs FOR SELECT TO hansa_app USING (true)")
    assert (await twins.probe(SEEDS)).leaks
