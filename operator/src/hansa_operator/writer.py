"""What is written into users' objects: a finalizer and the status, and nothing else. Each write is made only where something changes.

What the API server answers is taken into the index at once, so that the event of one's own write is no news.
"""

from collections.abc import Callable

from hansa_operator.conditions import Verdict, patch_of, status_of, transition
from hansa_operator.desk import Desk
from hansa_operator.model import FINALIZER, REQUESTED_AT, Found, found_of


class Writer:
    """`now` gives the time as Kubernetes writes it."""

    def __init__(self, desk: Desk, now: Callable[[], str]) -> None:
        self._cluster = desk.cluster
        self._index = desk.index
        self._events = desk.events
        self._metrics = desk.metrics
        self._wake = desk.wake
        self._now = now

    async def hold(self, found: Found) -> Found:
        """Have an object stay until `release`: before anything is done for it outside. Raises `Clash` if it is no longer what was seen."""
        if found.held:
            return found
        return await self._finalizers(found, [*found.finalizers, FINALIZER])

    async def release(self, found: Found) -> None:
        """Let an object go."""
        if found.held:
            await self._finalizers(found, [each for each in found.finalizers if each != FINALIZER])

    def news(self, found: Found, verdict: Verdict) -> bool:
        """Whether the status does not say that yet."""
        before = found.status_value()
        requested = found.notes.get(REQUESTED_AT, "")
        return bool(patch_of(before, status_of(before, verdict, generation=found.generation, now=self._now(), requested=requested)))

    async def tell(self, found: Found, verdict: Verdict, *, generation: int | None = None) -> Found:
        """Have the status say what was found out; `generation`: the one that was judged, if it is not the object's."""
        before = found.status_value()
        judged = found.generation if generation is None else generation
        after = status_of(before, verdict, generation=judged, now=self._now(), requested=found.notes.get(REQUESTED_AT, ""))
        patch = patch_of(before, after)
        if not patch:
            return found
        body = await self._cluster.merge(f"{found.key.path}/status", {"metadata": {"uid": found.uid}, "status": patch})
        self._metrics.writes.labels("status").inc()
        told = transition(before, after)
        if told is not None:
            self._events.tell(found, *told)
        now = self._seen(found, body)
        if now.inputs != found.inputs:  # it was changed meanwhile, and the event of that is older than this answer, and no news
            self._wake([found.key])
        return now

    async def _finalizers(self, found: Found, wanted: list[str]) -> Found:
        metadata = {"uid": found.uid, "resourceVersion": str(found.version), "finalizers": wanted}
        body = await self._cluster.merge(found.key.path, {"metadata": metadata})
        self._metrics.writes.labels("finalizer").inc()
        return self._seen(found, body)

    def _seen(self, found: Found, body: dict[str, object]) -> Found:
        after = found_of(found.key.kind, body)
        gone = after.deleting and not after.finalizers  # the answer to a patch that let it go is its last state
        if not gone:
            self._index.put(after)
        return after
