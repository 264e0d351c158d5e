"""The engine as the benches drive it: the one module of them that changes when the engine's seams do.

Opens what a process of Hansa opens, starts runs, awaits their ends as an API client in the same region would, and claims and
finishes runs without a worker around it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec

from hansa.apply.model import Asked, Item, Owner
from hansa.apply.narrowing import Judges
from hansa.apply.service import Objects
from hansa.auth.model import Principal
from hansa.bus.subjects import session_live
from hansa.egress.policy import EgressPolicy
from hansa.process import open_equipment
from hansa.runs import store
from hansa.runs.acceptor import Acceptor, open_acceptor
from hansa.runs.equipment import Equipment
from hansa.runs.model import FINAL_STATES, Claim, End, Entry, EventType, Live, Write
from hansa.runs.service import Runs, Start
from hansa.runs.stream import Reading, follow
from hansa.runs.values import columns
from hansa.runs.worker import Worker
from hansa.secrets.variables import admitted
from hansa.settings import Settings
from hansa.tenants.deletion import Deletions
from hansa.tenants.messaging.service import Messaging
from hansa.tenants.service import DEFAULT_TENANT, Tenants, tenant_id
from hansa.tools import expressions
from hansa_sdk import Usage
from samples import SCRIPTED, agent

TOOLS = [{"plugin": "workload"}]
PLUGINS = "workload,scripted"
"""What a process of the benches loads; `make bench` puts the folder of `workload` on PYTHONPATH."""
LEASE = 30.0
PATIENCE = 60.0
LOOK_SECONDS = 1.0


class Started(msgspec.Struct, frozen=True):
    """What the answer to a start says, as far as it matters here."""

    id: UUID
    session_id: UUID
    state: str


def principal(tenant: str = DEFAULT_TENANT) -> Principal:
    """A developer of a tenant."""
    return Principal(tenant_id=tenant_id(tenant), tenant=tenant, name="key:bench", roles=("developer",))


def manifests() -> list[dict[str, Any]]:
    """The agents of the workload plugin, `steps` and `counted`; no model is ever asked."""
    limits = {"timeoutSeconds": 300}
    return [SCRIPTED, *(agent(name, runtime={"name": name}, tools=TOOLS, limits=limits) for name in ("steps", "counted"))]


class Engine:
    """A process's equipment, and the service of runs over it. Use `open_engine`."""

    def __init__(self, equipment: Equipment, acceptor: Acceptor, settings: Settings) -> None:
        self.equipment = equipment
        self.runs = Runs(equipment.database, equipment.bus, equipment.region, acceptor, values=equipment.values)
        self._settings = settings
        self._turn = store.Turn()

    async def apply(self, caller: Principal) -> None:
        """Apply the workload's agents for a tenant."""
        discover = self.equipment.tool_servers.discover
        tenants = Tenants(self.equipment.database, self.equipment.region, stale_seconds=60.0)
        messaging = Messaging(self.equipment.database, None)
        objects = Objects(
            self.equipment.database,
            self.equipment.plugins,
            discover,
            judges=Judges(flaw=expressions.flaw, answer_flaw=expressions.answer_flaw, issuers=EgressPolicy(), variables=admitted({}, "")),
            tenants=tenants,
            deletions=Deletions(self.equipment.database, tenants, messaging, tell=tenants.forget),
        )
        async with self.equipment.database.tenant(caller.tenant_id) as connection:
            items = [Item(manifest) for manifest in manifests()]
            applied = await objects.apply(connection, caller, Asked(items, Owner("bench")))
        assert all(each.action != "failed" for each in applied), applied

    @asynccontextmanager
    async def working(self, *, concurrency: int) -> AsyncIterator[None]:
        """A worker in this process."""
        stopping = asyncio.Event()
        settings = msgspec.structs.replace(self._settings.worker, concurrency=concurrency)
        work = asyncio.create_task(Worker(self.equipment, settings, stopping).run(), name="worker")
        try:
            yield
        finally:
            stopping.set()
            await work

    async def start(self, caller: Principal, name: str, run_input: Any) -> Started:
        """Accept a run."""
        answer = await self.runs.start(caller, Start(name, run_input), key=None)
        return msgspec.json.decode(answer.body, type=Started)

    async def followed(self, caller: Principal, name: str, run_input: Any) -> int:
        """Start a run and read its log, live, to the end, as `?wait=` and the event stream do; the end's number in the log."""
        run, last = await self.start(caller, name, run_input), 0
        stream = follow(self.equipment, caller, Reading(run.session_id, until=run.id))
        async with asyncio.timeout(PATIENCE):
            async for sent in stream:
                last = sent.seq if sent is not None and sent.seq else last
        return last

    async def heard(self, caller: Principal, name: str, run_input: Any, *, end: int) -> None:
        """Start a run and hear on the bus that its log has come to number `end`, of which the caller knows that it is the last."""
        run, over = await self.start(caller, name, run_input), asyncio.Event()

        async def news(payload: bytes) -> None:
            if msgspec.json.decode(payload, type=Live).seq >= end:
                over.set()

        async with self.equipment.bus.listen(session_live(self.equipment.region, caller.tenant_id, run.session_id), news):
            deadline = time.monotonic() + PATIENCE
            while not over.is_set():
                try:
                    await asyncio.wait_for(over.wait(), LOOK_SECONDS)
                except TimeoutError:
                    # It may have ended before the subscription was there.
                    if (await self.find(caller, run.id)).state in FINAL_STATES:
                        return
                    assert time.monotonic() < deadline, f"run {run.id} does not end"

    async def find(self, caller: Principal, run_id: UUID) -> Started:
        """A run as it is now."""
        return msgspec.json.decode(await self.runs.get(caller, run_id), type=Started)

    async def claim(self, count: int) -> list[Claim]:
        """Take runs as a worker does."""
        claims, self._turn = await store.claim(
            self.equipment.database, self.equipment.worker, count, pool="default", turn=self._turn, lease=LEASE
        )
        return claims

    async def finish(self, claims: list[Claim]) -> None:
        """Load claimed runs and write their ends, those of a tenant together, as a worker does."""
        tenants: dict[UUID, list[Claim]] = {}
        for claim in claims:
            tenants.setdefault(claim.tenant_id, []).append(claim)
        entry = Entry(EventType.RUN_COMPLETED, msgspec.Raw(b'{"output":1}'))
        for tenant, own in tenants.items():
            assert len(await store.load(self.equipment.database, tenant, own)) == len(own)
            batch = [(claim, Write(1, [entry], [], Usage(), End("completed", output=1))) for claim in own]
            assert len(await store.write(self.equipment.database, batch, columns({}))) == len(own)


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """Open what a process of Hansa opens."""
    async with (
        open_equipment(settings, process="bench") as equipment,
        open_acceptor(equipment.database, equipment.bus, equipment.region) as acceptor,
    ):
        yield Engine(equipment, acceptor, settings)
