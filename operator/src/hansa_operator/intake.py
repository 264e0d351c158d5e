"""What is seen of the cluster comes in here, by watches, lists and the answers to one's own writes alike, in whatever order.

Takes it into the index, and has reconciled what may have to be done otherwise by it.
"""

from collections.abc import Iterable
from typing import Any

from hansa_operator.index import Index, namespaces_of
from hansa_operator.model import Found, Key, found_of
from hansa_operator.tenancy import space_of
from hansa_operator.workqueue import WorkQueue


class Intake:
    """See the module."""

    def __init__(self, index: Index, queue: WorkQueue) -> None:
        self._index = index
        self._queue = queue

    def seen(self, kind: str, body: dict[str, Any]) -> bool:
        """An object is so; whether that was news."""
        if kind == "Namespace":
            space = space_of(body)
            news = self._index.put_space(space)
            if news:
                self._claimed([space.name])
            return news
        found = found_of(kind, body)
        before = self._index.get(found.key)
        if not self._index.put(found):
            return False
        if before is None or before.inputs != found.inputs or (before.held and not found.held):
            self._queue.wake([found.key])
        if kind == "Tenant" and (before is None or before.spec != found.spec or before.status != found.status):
            self._claimed({*namespaces_of(found), *(namespaces_of(before) if before is not None else ())}, but=found.key)
        if kind == "Agent" and before is None:
            holder = self._index.holder(found.key.namespace)
            if holder is not None:  # agents call each other: that one is there is enough for the other
                self._queue.wake(self._index.waiting(holder.key.name, self._index.brings(found.key)))
        return True

    def gone(self, key: Key) -> None:
        """An object is there no more."""
        if key.kind == "Namespace":
            self._index.remove_space(key.name)
            self._claimed([key.name])
            return
        before = self._index.remove(key)
        self._queue.add(key)
        if before is not None:
            self._freed(before)

    def _freed(self, before: Found) -> None:
        key = before.key
        if key.kind == "Tenant":
            self._claimed(namespaces_of(before))
        else:
            self._queue.wake(self._index.rivals(key))

    def _claimed(self, names: Iterable[str], *, but: Key | None = None) -> None:
        """Whose these namespaces are may have changed."""
        for name in names:
            self._queue.wake(key for key in (*self._index.claimants(name), *self._index.within(name)) if key != but)
