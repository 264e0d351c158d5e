"""A short `make isolation`: the running platform tells a stranger nothing of another tenant; and who is none is found out."""

import asyncio

import pytest

from hansa.telemetry.metrics import Metrics
from isolation.labels import labels_of, names_in
from isolation.probes import Probes
from isolation.requests import Scene, ask_beyond, ask_routes, set_scene
from routes import OWNED, path_of
from stack import Process, Stack


@pytest.fixture(scope="module")
def scene(stack: Stack, control_plane: Process, shared_worker: Process) -> Scene:
    return asyncio.run(set_scene(stack, control_plane, shared_worker, roles=["viewer"]))


@pytest.mark.timeout(120)
async def test_requests_tell_nothing_of_another_tenant(scene: Scene) -> None:
    probes = Probes(scene.words())
    await ask_routes(scene, probes)
    assert probes.leaks == []
    assert probes.total > 6 * len(OWNED)


@pytest.mark.timeout(120)
async def test_streams_cursors_keys_values_files_and_logs_tell_nothing_of_another_tenant(scene: Scene) -> None:
    probes = Probes(scene.words())
    await ask_beyond(scene, probes)
    assert probes.leaks == []
    assert {"cursors", "repeated keys", "values", "exports", "streams", "files", "NATS", "metrics", "logs"} <= probes.counts.keys()


@pytest.mark.timeout(120)
async def test_one_who_sees_everything_is_found_on_every_route(stack: Stack, control_plane: Process, shared_worker: Process) -> None:
    """The oracle's control: the stranger is the tenant's own administrator."""
    scene = await set_scene(stack, control_plane, shared_worker, roles=[])
    probes = Probes(scene.words())
    await ask_routes(scene, probes, as_whom={"tenant-admin": scene.owner})
    told = "\n".join(probes.leaks)
    asked = [f"{method} {path_of(handler)}" for method, handler in OWNED]
    blind = [what for what in asked if f"{what} by a tenant-admin" not in told]
    assert not [what for what in blind if not what.startswith("DELETE")]
    assert len(blind) < 3, "two ways lead to one agent: what the first has taken away is not there for the second"
    assert "unchanged: " in told


def test_a_label_that_names_somebody_is_found() -> None:
    """The control: metrics that are kept by what stood in the address, or by whose it is."""
    names = {"acme", "keeper", "0198c4f2-3a5e-7c1d-8e4b-5f6a7b8c9d0e"}
    metrics = Metrics()
    metrics.request("GET", "/v1/agents/{name}/runs", 200, 0.1)
    assert [names_in(value, names) for _, value in labels_of(metrics.page().decode())] == [set()] * len(labels_of(metrics.page().decode()))
    for leak in ("/v1/agents/keeper/runs", "acme", "acme:default", "run 0198C4F2-3A5E-7C1D-8E4B-5F6A7B8C9D0E"):
        metrics = Metrics()
        metrics.request("GET", leak, 200, 0.1)
        assert any(names_in(value, names) for _, value in labels_of(metrics.page().decode())), leak


def test_a_word_of_another_tenant_is_found_wherever_it_stands() -> None:
    probes = Probes(("hush",))
    probes.look("logs", "a log", "all is well\nkeep hush\n")
    probes.expect("NATS", "anonymous", holds=False, told="was let in")
    assert [leak.split(":")[0] for leak in probes.leaks] == ["logs", "NATS"]
    assert probes.total == 2
