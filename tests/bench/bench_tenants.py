"""What tenants cost: ten thousand of them, one more of them, and keeping them apart."""

import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from bench.bench_http import BODY as LARGER
from bench.bench_http import posted, ready_server
from bench.crowd import Crowd, gather
from bench.figures import Figures
from bench.loop import Way, request, resident, side_by_side
from dedicated.city import open_city
from samples import SCRIPTED, agent
from stack import Process, Stack, free_port, open_stack

ROUNDS = 5
SECONDS = 2.0
FEW, MANY = 10, 10_000
BODY = json.dumps({"input": "Summarise the incident report of last night."}).encode()
SLOWER = 1.1


@contextmanager
def crowded(tenants: int) -> Iterator[tuple[Stack, Process, Crowd]]:
    """A platform with so many tenants, and a control plane that was started over them."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    with open_stack(folder, forked=False) as stack:
        first = stack.serve(HANSA_LOG_LEVEL="warning")
        crowd = asyncio.run(gather(stack, first, tenants=tenants))
        first.stop()
        yield stack, stack.serve(HANSA_LOG_LEVEL="warning"), crowd
    shutil.rmtree(folder, ignore_errors=True)


def mix(crowd: Crowd, names: list[str]) -> list[bytes]:
    """Reads and accepts, of each of these tenants."""
    chooser = random.Random(0)
    found: list[bytes] = []
    for name in names:
        key, agent = crowd.keys[name], chooser.randrange(10)
        found += [
            request("GET", f"/v1/agents/agent-{agent}", key),
            request("GET", "/v1/runs?limit=20", key),
            request("POST", f"/v1/agents/agent-{agent}/runs", key, BODY),
        ]
    return found


def test_tenants_flat(figures: Figures) -> None:
    """Requests among 10,000 tenants with ten agents each, against those among ten: of ten that are busy, and of all in turns.

    Tenants come here by SQL, all at once, and a control plane that finds them makes a NATS account for each: that is the making of ten
    thousand tenants, not their being there, and takes a processor's time for many seconds. So it is over before `tenants_flat` is
    measured, and has a figure of its own. Each comparison asks both servers equally often: one that is asked by two ways at once is busier,
    and warmer, than the other.
    """
    with crowded(FEW) as (few_stack, few, few_crowd), crowded(MANY) as (many_stack, many, many_crowd):
        busy = [random.Random(1).sample(sorted(crowd.keys), FEW) for crowd in (few_crowd, many_crowd)]
        ways = {"few": Way(few, mix(few_crowd, busy[0])), "many": Way(many, mix(many_crowd, busy[1]))}
        asyncio.run(settled(few_stack))
        making = measured(ways, rounds=2)
        made = asyncio.run(settled(many_stack))
        if made:
            figures.report("tenants_flat_while_accounts_are_made", ratios(making["many"], making["few"]), unit="x")
        idle = (resident(many) - resident(few)) / MANY
        medians = measured(ways)
        turns = mix(many_crowd, random.Random(2).sample(sorted(many_crowd.keys), MANY))
        every = measured({"few": ways["few"], "all": Way(many, turns)})
        figures.report("request_p50_of_10_tenants", medians["few"], unit="ms")
        figures.report("request_p50_of_10000_tenants", medians["many"], unit="ms")
        figures.report("tenants_flat_all_busy", ratios(every["all"], every["few"]), unit="x")
        figures.report("memory_per_idle_tenant", [max(idle, 0.0)], unit="bytes", at_most=256)
        after = (resident(many) - resident(few)) / MANY
        figures.report("memory_per_tenant_once_busy", [max(after, 0.0)], unit="bytes")
        assert figures.report("tenants_flat", ratios(medians["many"], medians["few"]), unit="x", at_most=SLOWER) <= SLOWER


async def settled(stack: Stack) -> int:
    """Wait until NATS knows the account of each tenant; how many it did not know."""
    admin = await asyncpg.connect(stack.admin_url)
    try:
        untold = "SELECT count(*) FROM hansa.tenants t LEFT JOIN hansa.messaging_accounts m USING (tenant_id) WHERE m.told IS NULL"
        left = before = await admin.fetchval(untold)
        while left:
            await asyncio.sleep(0.2)
            left = await admin.fetchval(untold)
        return before
    finally:
        await admin.close()


def measured(ways: dict[str, Way], *, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """The medians of each round, by way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, median in asyncio.run(side_by_side(ways, clients=2, seconds=SECONDS)).items():
            found[name].append(median)
    return found


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def tenant(name: str, **spec: Any) -> dict[str, Any]:
    """A manifest."""
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def test_tenant_provision(bench_stack: Stack, figures: Figures) -> None:
    """From a Tenant that is applied to the first answer within it: a key of its own is made, and lists its runs."""
    server = bench_stack.serve(HANSA_LOG_LEVEL="warning")

    async def made(name: str) -> float:
        async with bench_stack.client(server) as client:
            await client.get("/livez")
            begin = time.perf_counter()
            applied = await client.post("/v1/objects:apply", json={"objects": [{"manifest": tenant(name)}]})
            assert applied.json()["failed"] == 0, applied.text
            own, headers = {"name": "own", "roles": ["developer"]}, {"hansa-tenant": name}
            key = (await client.post("/v1/api-keys", json=own, headers=headers)).json()["key"]
            runs = await client.get("/v1/runs", headers={"authorization": f"Bearer {key}"})
            assert runs.json()["data"] == []
            return (time.perf_counter() - begin) * 1000

    slow: list[float] = []
    for turn in range(3):
        spent = sorted(asyncio.run(made(f"provision-{turn}-{number}")) for number in range(60))
        slow.append(spent[int(0.95 * len(spent))])
    assert figures.report("tenant_provision_p95", slow, unit="ms", at_most=100) <= 100


def test_accept_of_a_dedicated_tenant(bench_stack: Stack, figures: Figures) -> None:
    """Accepting a run of a tenant with a database of its own, of one that shares, and of one that shares where nobody has its own. Both
    servers are asked equally often, see `test_tenants_flat`."""
    with open_city(bench_stack, "bank", running=False) as city:
        known = {"HANSA_DATABASE_DEDICATED_FILE": str(city.file), "HANSA_LOG_LEVEL": "warning"}
        server, plain = bench_stack.serve(**known), bench_stack.serve(HANSA_LOG_LEVEL="warning")
        keys = asyncio.run(two_tenants(bench_stack, server))
        body = json.dumps(LARGER).encode()
        accept = {name: [request("POST", "/v1/agents/leaf/runs", key, body)] for name, key in keys.items()}
        medians = measured({"shared": Way(server, accept["guild"]), "alone": Way(plain, accept["guild"])})
        own = measured({"dedicated": Way(server, accept["bank"]), "alone": Way(plain, accept["guild"])})
    figures.report("accept_p50_dedicated", own["dedicated"], unit="ms")
    figures.report("accept_p50_shared_beside_it", medians["shared"], unit="ms")
    figures.report("accept_p50_shared_alone", medians["alone"], unit="ms")
    assert figures.report("dedicated_costs_others", ratios(medians["shared"], medians["alone"]), unit="x", at_most=SLOWER) <= SLOWER


async def two_tenants(stack: Stack, server: Process) -> dict[str, str]:
    """One with a database of its own and one without, alike else: name -> key."""
    keys: dict[str, str] = {}
    async with stack.client(server) as client:
        for name, database in (("bank", "Dedicated"), ("guild", "Shared")):
            leaf = {**agent("leaf"), "metadata": {"name": "leaf", "namespace": name}}
            model = {**SCRIPTED, "metadata": {**SCRIPTED["metadata"], "namespace": name}}
            manifests = [tenant(name, isolation={"database": database}), model, leaf]
            applied = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
            assert applied.json()["failed"] == 0, applied.text
            made = await client.post("/v1/api-keys", json={"name": "own", "roles": ["developer"]}, headers={"hansa-tenant": name})
            keys[name] = made.json()["key"]
    return keys


def unchecked(stack: Stack) -> Process:
    """A control plane that asks nobody who calls: every caller is the developer of `default`."""
    port = free_port()
    log = stack.folder / "unchecked.log"
    environ = {**stack.environ, "HANSA_PLUGINS": "workload,scripted", "HANSA_LOG_LEVEL": "warning", "HANSA_SERVER_PORT": str(port)}
    return stack.adopt([sys.executable, str(Path(__file__).parent / "peers/unchecked_serve.py")], environ, log, port=port)


def test_share_of_checks(bench_stack: Stack, figures: Figures) -> None:
    """Accepting a run by a control plane that checks key, permission and rate, against one that checks nothing."""
    server, bare = ready_server(bench_stack), unchecked(bench_stack)
    ways = {name: Way(process, accepting(bench_stack)) for name, process in (("checked", server), ("bare", bare))}
    unrated = measured(ways)
    bound = {"requestsPerSecond": 100_000}
    applied = asyncio.run(posted(bench_stack, server, "/v1/objects:apply", {"objects": [{"manifest": tenant("default", quotas=bound)}]}))
    assert applied["failed"] == 0, applied
    time.sleep(2.5)  # a bound holds within two seconds
    rated = measured(ways)
    figures.report("checks_share_of_accept_unrated", shares(unrated["checked"], unrated["bare"]), unit="%")
    figures.report("accept_p50", rated["checked"], unit="ms")
    assert figures.report("checks_share_of_accept", shares(rated["checked"], rated["bare"]), unit="%", at_most=15) <= 15


def accepting(stack: Stack) -> list[bytes]:
    """Runs to be accepted, as a program sends them."""
    return [request("POST", "/v1/agents/counted/runs", stack.key, json.dumps(LARGER).encode())]


def shares(whole: list[float], without: list[float]) -> list[float]:
    """How many percent of the time the difference is, round by round."""
    return [100 * (1 - other / one) for one, other in zip(whole, without, strict=True)]


def test_share_of_row_level_security(bench_stack: Stack, figures: Figures) -> None:
    """Accepting runs and reading them, with row-level security and without it: two platforms that are alike else."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    with open_stack(folder, forked=False) as other:
        stacks = {"held": bench_stack, "open": other}
        servers = {name: ready_server(stack) for name, stack in stacks.items()}
        asyncio.run(open_all(other))
        accept = measured({name: Way(servers[name], accepting(stack)) for name, stack in stacks.items()})
        paths = ("/v1/runs?limit=20", "/v1/agents/counted", "/v1/sessions?limit=20")
        read = measured({name: Way(servers[name], [request("GET", path, stack.key) for path in paths]) for name, stack in stacks.items()})
    shutil.rmtree(folder, ignore_errors=True)
    figures.report("rls_share_of_read", shares(read["held"], read["open"]), unit="%")
    assert figures.report("rls_share_of_accept", shares(accept["held"], accept["open"]), unit="%", at_most=10) <= 10


async def open_all(stack: Stack) -> None:
    """Turn row-level security off, on every table that has it."""
    admin = await asyncpg.connect(stack.admin_url)
    for row in await admin.fetch("SELECT polrelid::regclass::text AS name FROM pg_policy GROUP BY 1"):
        await admin.execute(f"ALTER TABLE {row['name']} DISABLE ROW LEVEL SECURITY")
    await admin.close()
