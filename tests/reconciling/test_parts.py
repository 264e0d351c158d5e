"""The parts of the operator by themselves: its queue, its conditions, its election, its watchdog."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec
import pytest

from doubles.memory_cluster import MemoryCluster
from doubles.memory_platform import MemoryPlatform
from hansa_operator.cluster import Cluster
from hansa_operator.conditions import Verdict, patch_of, status_of, transition
from hansa_operator.election import Election
from hansa_operator.errors import Away, Misconfigured
from hansa_operator.index import Index
from hansa_operator.intake import Intake
from hansa_operator.lanes import Lanes
from hansa_operator.metrics import Metrics
from hansa_operator.model import FINALIZER, Key
from hansa_operator.namespaces import differs, worker_name
from hansa_operator.program import main
from hansa_operator.settings import load, variables
from hansa_operator.transport import serve
from hansa_operator.workqueue import Work, WorkQueue
from reconciling.leader import SETTINGS, Core, agent, tenant, until

ONE, TWO = Key("Agent", "a", "one"), Key("Agent", "a", "two")
LEASE = "/apis/coordination.k8s.io/v1/namespaces/hansa-system/leases/hansa-operator"


class Working:
    """A queue at work; leaves none behind."""

    def __init__(self, work: Work, **options: float) -> None:
        self.queue = WorkQueue(work, concurrency=int(options.get("concurrency", 4)), least=options.get("least", 0.01), most=0.05)

    async def __aenter__(self) -> WorkQueue:
        self._task = asyncio.create_task(self.queue.run())
        return self.queue

    async def __aexit__(self, *_: object) -> None:
        await self.queue.close(1)
        await self._task


async def test_a_key_that_is_asked_for_often_is_worked_on_once_and_once_more_after() -> None:
    done: list[Key] = []
    going = asyncio.Event()

    async def work(key: Key) -> None:
        done.append(key)
        await going.wait()

    async with Working(work) as queue:
        for _ in range(5):
            queue.add(ONE)
        await until(lambda: done == [ONE])
        for _ in range(5):
            queue.add(ONE)
        going.set()
        await until(lambda: not queue.running)
        await asyncio.sleep(0.05)
    assert done == [ONE, ONE]


async def test_no_more_are_worked_on_at_once_than_was_said() -> None:
    at_once: list[int] = []

    async def work(key: Key) -> None:
        at_once.append(queue.running)
        await asyncio.sleep(0.002)

    async with Working(work, concurrency=3) as queue:
        for number in range(40):
            queue.add(Key("Agent", "a", str(number)))
        await until(lambda: len(at_once) == 40)
    assert max(at_once) == 3


async def test_a_failure_is_tried_again_later_each_time_and_a_wake_forgets_it() -> None:
    tries: list[float] = []

    async def work(key: Key) -> None:
        tries.append(asyncio.get_running_loop().time())
        raise Away("x", "y")

    async with Working(work, least=0.02) as queue:
        queue.add(ONE)
        await until(lambda: len(tries) == 4)
        pauses = [after - before for before, after in pairwise(tries)]
        assert 0.009 < pauses[0] < pauses[2] + 0.02
        assert queue.failing == 1
        queue.wake([ONE])
        await until(lambda: len(tries) >= 5)


async def test_who_is_there_and_busy_is_asked_again_before_who_is_away() -> None:
    asked: list[Key] = []

    async def work(key: Key) -> None:
        asked.append(key)
        raise Away("x", "y", busy=key == ONE)

    queue = WorkQueue(work, concurrency=2, least=60, most=60, busy=0.01)
    task = asyncio.create_task(queue.run())
    queue.wake([ONE, TWO])
    await until(lambda: asked.count(ONE) >= 5)
    await queue.close(1)
    await task
    assert asked.count(TWO) == 1


async def came_in_batches(pause: float) -> tuple[list[int], float]:
    """How many went in each request, of 200 that come within 0.4 s where a request takes 20 ms; and the seconds that one alone took."""
    sizes: list[int] = []

    async def send(_: str, items: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0.02)
        sizes.append(len(items))
        return items

    lanes = Lanes(send, most=50, size=lambda _: 1, bytes_most=1000, pause=pause)
    begun = asyncio.get_running_loop().time()
    assert await lanes.put("a", 0) == 0
    first = asyncio.get_running_loop().time() - begun
    tasks = list[asyncio.Task[int]]()
    for number in range(200):
        tasks.append(asyncio.create_task(lanes.put("a", number)))
        await asyncio.sleep(0.002)
    assert await asyncio.gather(*tasks) == list(range(200))
    await lanes.close()
    return sizes[1:], first


async def test_what_comes_in_a_stream_goes_in_few_requests_and_what_comes_alone_at_once() -> None:
    (waited, first), (hurried, _) = await came_in_batches(0.2), await came_in_batches(0.0)
    assert sum(waited) == sum(hurried) == 200
    assert len(waited) < 0.75 * len(hurried)  # without the pause there are as many as there is time for
    assert max(waited) <= 50
    assert first < 0.2


def test_the_operators_own_finalizer_is_no_news_and_its_loss_is() -> None:
    woken: list[Key] = []

    class Listening(WorkQueue):
        def wake(self, keys: Iterable[Key]) -> None:
            woken.extend(keys)

    intake = Intake(Index(), Listening(_nothing, concurrency=1, least=1, most=1))

    def seen(version: int, *finalizers: str, generation: int = 1) -> list[Key]:
        woken.clear()
        meta = {"name": "one", "namespace": "a", "uid": "u", "resourceVersion": str(version), "generation": generation}
        intake.seen("Agent", {"metadata": {**meta, "finalizers": list(finalizers)}, "spec": {}})
        return list(woken)

    assert seen(1) == [ONE]
    assert seen(2, FINALIZER) == []  # heard before the answer to the patch that put it there
    assert seen(3, FINALIZER, "another") == []
    assert seen(4, "another") == [ONE]  # somebody took it away
    assert seen(5, FINALIZER, generation=2) == [ONE]


async def _nothing(_: Key) -> None:
    return None


async def test_a_bug_in_one_reconcile_stops_no_other() -> None:
    done: list[Key] = []

    async def work(key: Key) -> None:
        if key == ONE:
            raise ZeroDivisionError
        done.append(key)

    async with Working(work) as queue:
        queue.add(ONE)
        queue.add(TWO)
        await until(lambda: done == [TWO])
        assert queue.failing == 1


def test_the_time_of_a_transition_moves_only_when_the_status_flips() -> None:
    first = status_of({"observedGeneration": -1}, Verdict("False", "ReferenceNotFound", "a", progressing=True), generation=1, now="T1")
    second = status_of(first, Verdict("False", "Invalid", "b", stalled=True), generation=2, now="T2")
    third = status_of(second, Verdict("True", "Ready"), generation=3, now="T3")
    assert [(each["type"], each["lastTransitionTime"]) for each in second["conditions"]] == [("Ready", "T1"), ("Stalled", "T2")]
    assert [(each["type"], each["lastTransitionTime"]) for each in third["conditions"]] == [("Ready", "T3")]
    assert patch_of(third, status_of(third, Verdict("True", "Ready"), generation=3, now="T4")) == {}
    told = [transition({}, first), transition(first, second), transition(second, third), transition(third, third)]
    assert [each is not None for each in told] == [True, True, True, False]
    assert transition({"observedGeneration": -1}, third) is None


def test_a_condition_that_somebody_else_has_mangled_counts_as_absent() -> None:
    status = status_of({"conditions": [{"type": 3}]}, Verdict("True", "Ready"), generation=1, now="T1")
    assert [each["lastTransitionTime"] for each in status["conditions"]] == ["T1"]


def test_what_others_add_is_no_difference_and_what_they_change_is() -> None:
    there = {"spec": {"hard": {"pods": "3"}, "scopes": ["x"]}, "status": {}}
    assert not differs({"spec": {"hard": {"pods": "3"}}}, there)
    assert differs({"spec": {"hard": {"pods": "4"}}}, there)
    assert not differs({"podSelector": {}}, {})
    assert differs({"items": [{"a": 1}]}, {"items": [{"a": 1}, {"a": 2}]})


def test_names_of_workers_fit_and_differ() -> None:
    names = {worker_name("a" * 63), worker_name("a" * 62 + "b"), worker_name("short")}
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("HANSA_OPERATOR_URL", "", "HANSA_OPERATOR_URL is not set"),
        ("HANSA_OPERATOR_BATCH", "many", "HANSA_OPERATOR_BATCH='many'"),
        ("HANSA_OPERATOR_URL", "hansa.example.org:7420", "is no http or https address"),
        ("HANSA_OPERATOR_BATCH", "501", "HANSA_OPERATOR_BATCH='501': .* <= 500"),
        ("HANSA_OPERATOR_CONCURRENCY", "0", "HANSA_OPERATOR_CONCURRENCY='0': .* >= 1"),
        ("HANSA_OPERATOR_PORT", "65536", "<= 65535"),
        ("HANSA_OPERATOR_LOOK_SECONDS", "0", "> 0"),
        ("HANSA_OPERATOR_STATE_SECONDS", "nan", "> 0"),
        ("HANSA_OPERATOR_RESYNC_SECONDS", "inf", "<= 604800"),
        ("HANSA_OPERATOR_LOG_FORMAT", "xml", "json|text"),
        ("HANSA_OPERATOR_LOG_LEVEL", "loud", "DEBUG|INFO|WARNING|ERROR"),
        ("HANSA_OPERATOR_BACKOFF_LEAST_SECONDS", "301", "at most HANSA_OPERATOR_BACKOFF_MOST_SECONDS"),
        ("HANSA_OPERATOR_RENEW_SECONDS", "9", "at most a third"),
    ],
)
def test_a_setting_that_can_not_be_is_named(variable: str, value: str, told: str) -> None:
    sound = {"HANSA_OPERATOR_URL": "http://127.0.0.1:1", "HANSA_OPERATOR_KEY_FILE": "key"}
    assert load(sound).batch == 200
    with pytest.raises(Misconfigured, match=told):
        load({**sound, variable: value})


async def test_a_port_that_is_taken_is_told_as_a_setting_that_can_not_be() -> None:
    async with serve("127.0.0.1", 0, {}) as port:
        with pytest.raises(Misconfigured, match=f"HANSA_OPERATOR_PORT={port}: .*address already in use"):
            async with serve("127.0.0.1", port, {}):
                pass


def test_the_program_says_what_it_is_set_up_by_and_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for given, status in (["--help"], 0), (["--kubeconfig", "x"], 2):
        with pytest.raises(SystemExit) as left:
            main(given)
        assert left.value.code == status
    said = capsys.readouterr()
    assert all(name in said.out for name in variables())
    assert "'--kubeconfig'" in said.err


def candidate(cluster: MemoryCluster, identity: str) -> Election:
    return Election(Cluster(cluster), Metrics(), namespace="hansa-system", identity=identity, lasts=1.0, renew=0.02)


async def test_one_of_two_leads_and_the_other_takes_over_when_it_falls_silent() -> None:
    cluster = MemoryCluster()
    first, second = candidate(cluster, "first"), candidate(cluster, "second")
    await first.lead()
    follows = asyncio.create_task(first.follow())
    waits = asyncio.create_task(second.lead())
    await asyncio.sleep(1.3)
    assert not waits.done()
    follows.cancel()  # silent from here on
    await asyncio.wait_for(waits, 2)
    assert cluster.objects[LEASE]["spec"]["holderIdentity"] == "second"
    await asyncio.wait_for(first.follow(), 1)  # it learns at its next look that it leads no longer
    assert cluster.objects[LEASE]["spec"]["holderIdentity"] == "second"


async def test_a_leader_that_resigns_is_followed_at_once() -> None:
    cluster = MemoryCluster()
    first, second = candidate(cluster, "first"), candidate(cluster, "second")
    await first.lead()
    waits = asyncio.create_task(second.lead())
    await first.resign()
    await asyncio.wait_for(waits, 0.5)


async def test_a_leader_that_can_not_renew_stops_before_its_lease_has_run_out() -> None:
    cluster = MemoryCluster()
    first = candidate(cluster, "first")
    await first.lead()
    cluster.away = True
    before = asyncio.get_running_loop().time()
    await asyncio.wait_for(first.follow(), 2)
    assert asyncio.get_running_loop().time() - before < 1.0


async def test_two_who_take_a_lease_at_once_do_not_both_have_it() -> None:
    cluster = MemoryCluster()
    candidates = [candidate(cluster, str(number)) for number in range(5)]
    tasks = [asyncio.create_task(each.lead()) for each in candidates]
    await asyncio.sleep(0.2)
    assert sum(task.done() for task in tasks) == 1
    for task in tasks:
        task.cancel()


async def test_watches_that_are_silent_are_found_and_what_they_missed_is_seen() -> None:
    cluster, platform = MemoryCluster(), MemoryPlatform()
    async with Core(cluster, platform) as core:
        core.survey.settings = msgspec.structs.replace(SETTINGS, look_seconds=0.02)
        tenant(cluster, "acme")
        await core.settle()
        looking = asyncio.create_task(core.survey.watch_over())
        await asyncio.sleep(0.1)
        assert core.restarts == 0  # nothing was missed
        cluster.listeners.clear()
        path = agent(cluster, "acme", "one")
        await until(lambda: core.restarts == 1)
        await until(lambda: cluster.condition(path) == ("False", "ReferenceNotFound"))
        cluster.objects[path]["metadata"]["finalizers"] = []
        cluster.remove(path)
        await until(lambda: not any(key.kind == "Agent" for key in core.index.objects))
        looking.cancel()
