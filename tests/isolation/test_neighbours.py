"""Roles that are bound in one namespace show and change nothing of another; and who sees both is found out."""

import asyncio

import pytest

from isolation.neighbours import House, ask_neighbours, build
from isolation.probes import Probes
from routes import GUARDED, OWNED, path_of
from stack import Process, Stack


@pytest.fixture(scope="module")
def house(stack: Stack, control_plane: Process, shared_worker: Process) -> House:
    assert shared_worker.alive
    return asyncio.run(build(stack, control_plane))


@pytest.mark.timeout(120)
async def test_one_namespace_tells_nothing_of_another(house: House) -> None:
    probes = Probes(house.words)
    await ask_neighbours(house, probes)
    assert not probes.leaks, "\n".join(probes.leaks[:20])
    assert probes.counts["neighbours"] > 2 * len(GUARDED)


@pytest.mark.timeout(120)
async def test_who_is_bound_where_it_is_is_found_on_every_route(stack: Stack, control_plane: Process, shared_worker: Process) -> None:
    """The oracle's control: the neighbour is bound in the namespace itself."""
    house = await build(stack, control_plane, roles=["tenant-admin"])
    probes = Probes(house.words)
    await ask_neighbours(house, probes, side="east")
    told = "\n".join(probes.leaks)
    asked = [f"{method} {path_of(handler)}" for method, handler in OWNED if "within" in handler.opt]
    blind = [what for what in asked if f"neighbours: {what} by a tenant-admin" not in told]
    assert [what for what in blind if not what.startswith("DELETE")] == []
    assert len(blind) < 3, "two ways lead to one agent: what the first has taken away is not there for the second"
    assert "unchanged: " in told
