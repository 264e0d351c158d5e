"""A run that is to be tried again later, while something else that it waits for comes."""

from typing import Any

from db.scratch import Scratch
from db.verbs import Row, connections, facts, new_tenant


async def test_a_retry_that_is_due_before_its_worker_lets_go_is_not_forgotten(scratch: Scratch) -> None:
    async with connections(scratch) as lines:
        tenant = await new_tenant(scratch, *lines)

        async def wait() -> Row:
            (found,) = (await facts(scratch, tenant))["waits"]
            return found

        async def run() -> tuple[Any, ...]:
            (found,) = (await facts(scratch, tenant))["runs"]
            return found["state"], found["gate"], found["attempt"]

        await tenant.start("a")
        (held,) = await tenant.claim(1)
        await tenant.write((held, None, "timer"))
        assert await tenant.come(await wait()) == "running"
        await tenant.write((held, "waiting", "retry"))
        assert await run() == ("running", None, 1), "its worker was told that the timer has come, and writes again that it waits"
        assert await tenant.come(await wait()) == "running"
        await tenant.write((held, "waiting", None))
        assert await run() == ("waiting", None, 1)
        assert await tenant.come(await wait()) == "queued"
        assert await run() == ("queued", None, 2)
