"""Labels of metrics, and whether they name anybody: whose something is must not be read from them."""

import re
from collections.abc import Set

import asyncpg
import httpx2
from prometheus_client.parser import text_string_to_metric_families

from stack import Process, Stack, plain_client

NAMES = """
SELECT name FROM hansa.tenants UNION SELECT name FROM hansa.agents UNION SELECT tenant_id::text FROM hansa.tenants
UNION SELECT id::text FROM hansa.runs UNION SELECT id::text FROM hansa.sessions UNION SELECT id FROM hansa.api_keys
"""
WORD = re.compile(r"[\w-]+")


async def scrape(process: Process) -> httpx2.Response:
    """The metrics that a process shows."""
    async with plain_client(f"http://127.0.0.1:{process.metrics}") as client:
        return await client.get("/metrics")


def labels_of(page: str) -> list[tuple[str, str]]:
    """Every label of every sample: (metric and label, value)."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return [(f"{sample.name}{{{label}}}", value) for sample in samples for label, value in sample.labels.items()]


async def known_names(stack: Stack) -> set[str]:
    """What tenants, agents, runs, sessions and keys are called, of all tenants."""
    admin = await asyncpg.connect(stack.admin_url)
    try:
        return {row["name"].lower() for row in await admin.fetch(NAMES)}
    finally:
        await admin.close()


def names_in(value: str, names: Set[str]) -> set[str]:
    """Those that stand in the value of a label, as a word of it."""
    return {word for word in WORD.findall(value.lower()) if word in names}
