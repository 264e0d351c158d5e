"""Where everything is put together: a candidate that waits for the Lease, and a leader that watches, reconciles and looks again."""

import asyncio
import gc
import logging
import secrets
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hansa_operator import transport
from hansa_operator.access import Access, Bearer, access_of
from hansa_operator.cluster import Cluster
from hansa_operator.credentials import Credentials
from hansa_operator.desk import Desk
from hansa_operator.election import Election
from hansa_operator.errors import OperatorError
from hansa_operator.events import Events
from hansa_operator.index import Index
from hansa_operator.intake import Intake
from hansa_operator.metrics import CONTENT_TYPE, Metrics
from hansa_operator.model import Key
from hansa_operator.platform import Key as ApiKey
from hansa_operator.platform import Platform
from hansa_operator.reconciler import Reconciler
from hansa_operator.settings import OperatorSettings
from hansa_operator.shell import Shell
from hansa_operator.survey import Survey
from hansa_operator.tenancy import Tenancy
from hansa_operator.workqueue import WorkQueue
from hansa_operator.writer import Writer

log = logging.getLogger(__name__)
FIRST_PAUSE = 2.0
BEAT_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""A loop that has not beaten for so long is no longer alive."""
EVENT_WRITERS = 4


class Operator:
    """One process. Use `open_operator`, then `run`."""

    def __init__(
        self, settings: OperatorSettings, access: Access, bearer: Bearer, *, cluster: Cluster, lease: Cluster, platform: Platform
    ) -> None:
        self.metrics = Metrics()
        self.leads = False
        self.loaded = False
        self._settings = settings
        self._access = access
        self._bearer = bearer
        self._cluster = cluster
        self._lease = lease
        self._platform = platform
        self._beat = time.monotonic()
        self._trouble = ""
        self._queue: WorkQueue | None = None
        self.identity = settings.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._namespace = settings.namespace or access.namespace or "hansa-system"

    async def run(self, stopping: asyncio.Event) -> None:
        """Be a candidate, and a leader whenever that is so, until `stopping` is set."""
        election = Election(
            self._lease,
            self.metrics,
            namespace=self._namespace,
            identity=self.identity,
            lasts=self._settings.lease_seconds,
            renew=self._settings.renew_seconds,
        )
        beating = asyncio.create_task(self._beats(), name="beat")
        try:
            while not stopping.is_set():
                if await _first(stopping, election.lead()):
                    break
                try:
                    await self._lead(stopping, election)
                except OperatorError as error:
                    self._trouble = str(error)
                    log.warning("could not begin to lead, and tries again: %s", error)
                    await _first(stopping, asyncio.sleep(FIRST_PAUSE))
                finally:
                    self.leads = self.loaded = False
                    await election.resign()
        finally:
            beating.cancel()

    async def _lead(self, stopping: asyncio.Event, election: Election) -> None:
        following = asyncio.create_task(election.follow(), name="lease")
        try:
            self.leads = True
            await self._prepare()
            async with self._parts(stopping) as tasks:
                await asyncio.wait([following, *tasks, stop := asyncio.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                for task in tasks:
                    if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                        raise failure
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _prepare(self) -> None:
        """What has to be known before anything is done."""
        if not self._platform.origin:
            space = await self._cluster.get("/api/v1/namespaces/kube-system")
            self._platform.origin = self._settings.origin or str(space["metadata"]["uid"])
        try:
            await self._platform.greet()
        except OperatorError as error:  # said at once, and not only when there is something to bring; it may be mended meanwhile
            log.warning("%s does not let us in, or is away: %s", self._settings.url, error)

    @asynccontextmanager
    async def _parts(self, stopping: asyncio.Event) -> AsyncIterator[list[asyncio.Task[None]]]:
        """All that a leader has, working; it is put down in order: no more events, what is under way is finished, then the rest."""
        settings, cluster, platform, metrics = self._settings, self._cluster, self._platform, self.metrics
        index, events = Index(), Events(cluster, metrics, self.identity)

        async def work(key: Key) -> float | None:
            with metrics.seconds.labels(key.kind).time():
                try:
                    after = await reconciler.reconcile(key)
                except Exception:  # counted, and the queue's affair
                    metrics.reconciles.labels(key.kind, "failed").inc()
                    raise
            metrics.reconciles.labels(key.kind, "settled" if after is None else "waiting").inc()
            return after

        queue = WorkQueue(work, concurrency=settings.concurrency, least=settings.backoff_least_seconds, most=settings.backoff_most_seconds)

        def outage(server: str) -> None:
            survey.outage(server)

        desk = Desk(cluster, platform, index, events, metrics, queue.wake, outage)
        tenancy = Tenancy(desk, namespace=self._namespace, shared=settings.worker_deployment, subject=await self._subject())
        credentials = Credentials(desk)
        reconciler = Reconciler(desk, Writer(desk, _now), tenancy, credentials)
        intake = Intake(index, queue)
        watches = _Watches(self._access, self._bearer, intake, metrics)
        survey = Survey(settings, desk, intake=intake, queue=queue, reconciler=reconciler, restart=watches.restart)
        await survey.load()
        gc.collect()
        gc.freeze()
        watches.start()
        self._queue, self.loaded, self._trouble = queue, True, ""
        works = {"queue": queue.run(), "watches": watches.keep(), "resync": survey.resync(), "watchdog": survey.watch_over()}
        works |= {"states": survey.states(), "returns": survey.returns()}
        works |= {f"events {number}": events.run() for number in range(EVENT_WRITERS)}
        works["gauges"] = self._gauges(index)
        tasks = [asyncio.create_task(each, name=name) for name, each in works.items()]
        log.info("leading, with %s objects", len(index.objects))
        try:
            yield tasks
        finally:
            self.loaded, self._queue = False, None
            await watches.stop()
            # Who leads no longer must not go on for long: somebody else may lead by now.
            await queue.close(settings.grace_seconds if stopping.is_set() else 0.0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await credentials.close()
            await platform.close()

    async def _subject(self) -> str:
        """What the API server calls us."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = await self._cluster.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
        return str(answer["status"]["userInfo"]["username"])

    async def _beats(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    async def _gauges(self, index: Index) -> None:
        while True:
            self.metrics.objects.clear()
            for (kind, ready), count in index.counts().items():
                self.metrics.objects.labels(kind, ready).set(count)
            if self._queue is not None:
                self.metrics.queue_depth.set(self._queue.depth)
                self.metrics.queue_failing.set(self._queue.failing)
            await asyncio.sleep(5.0)

    # ------------------------------------------------------------------------------------------------------------ probes

    async def live(self) -> tuple[int, str, bytes]:
        """Whether the loop goes on. Says nothing of other servers: a restart would not bring them back."""
        return _probe([] if time.monotonic() - self._beat < STUCK_SECONDS else ["the loop stands still"])

    async def ready(self) -> tuple[int, str, bytes]:
        """Whether it does what it is for: leads and has seen everything, or stands by."""
        return _probe([self._trouble or "has not seen everything yet"] if self._trouble or (self.leads and not self.loaded) else [])

    async def measured(self) -> tuple[int, str, bytes]:
        """What Prometheus reads."""
        return 200, CONTENT_TYPE, self.metrics.page()


class _Watches:
    """The shell that is in use, and the next one when it ends or is silent."""

    def __init__(self, access: Access, bearer: Bearer, intake: Intake, metrics: Metrics) -> None:
        self._access, self._bearer = access, bearer
        self._intake = intake
        self._metrics = metrics
        self._shell = Shell(access, bearer, self._seen)

    def start(self) -> None:
        self._shell.start()

    async def restart(self) -> None:
        """End the watches and open them anew."""
        old = self._shell
        self._shell = Shell(self._access, self._bearer, self._seen)
        self._shell.start()
        old.ended.set()
        await old.stop()

    async def keep(self) -> None:
        """Start the shell again whenever it has ended by itself."""
        while True:
            shell = self._shell
            await shell.ended.wait()
            if shell is self._shell:
                self._metrics.watch_restarts.inc()
                await asyncio.sleep(FIRST_PAUSE)
                await self.restart()

    async def stop(self) -> None:
        await self._shell.stop()

    def _seen(self, kind: str, type_: str, body: dict[str, Any]) -> None:
        self._metrics.watch_events.labels(kind).inc()
        if type_ == "DELETED":
            self._intake.gone(Key(kind, body["metadata"].get("namespace", ""), body["metadata"]["name"]))
        else:
            self._intake.seen(kind, body)


@asynccontextmanager
async def open_operator(settings: OperatorSettings, environ: Mapping[str, str]) -> AsyncIterator[Operator]:
    """An operator with its clients and its probes. Raises `Misconfigured`."""
    access = access_of(settings.kubeconfig, environ)
    key = ApiKey(Path(settings.key_file))
    key.read()
    bearer = Bearer(access)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hansa-operator-")))
        # The Lease has a connection of its own: behind hundreds of requests to a slow server it would not be renewed in time.
        kube, lease = [
            await stack.enter_async_context(
                transport.open_http("the API server", access.server, headers=bearer.headers, trust=access.trust(folder), connections=count)
            )
            for count in (settings.connections, 1)
        ]
        trust = transport.trusting(settings.ca_file) if settings.url.startswith("https:") else None
        rest = await stack.enter_async_context(
            transport.open_http("the control plane", settings.url, headers=key.headers, trust=trust, connections=16)
        )
        cluster = Cluster(kube)
        holder: list[Operator] = []
        platform = Platform(rest, key, batch=settings.batch, sent=lambda count: holder[0].metrics.request(count))
        operator = Operator(settings, access, bearer, cluster=cluster, lease=Cluster(lease), platform=platform)
        holder.append(operator)
        pages = {"/livez": operator.live, "/readyz": operator.ready, "/metrics": operator.measured}
        port = await stack.enter_async_context(transport.serve(settings.host, settings.port, pages))
        log.info("hansa-operator %s listens on %s:%s", operator.identity, settings.host, port)
        yield operator


async def _first(stopping: asyncio.Event, work: Any) -> bool:
    """Wait for work, or until one should stop; whether it was that. What the work raises is raised."""
    task, stop = asyncio.ensure_future(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        return stopping.is_set()
    finally:
        for each in (task, stop):
            each.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


def _probe(reasons: Iterable[str]) -> tuple[int, str, bytes]:
    wrong = list(reasons)
    return (503 if wrong else 200), "application/json", msgspec.json.encode({"ok": not wrong, "reasons": wrong})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
