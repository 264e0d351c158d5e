"""kopf: watches of the cluster, as events, and nothing else of it. The one place that knows it.

It runs in a thread and a loop of its own: when it ends it cancels all tasks of its loop, whosesoever they are, and its signal handlers
would take ours away. Handlers write nothing, so that no annotation of kopf's is put on anybody's object.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from hansa_crds import GROUP, KINDS, VERSION
from hansa_operator.access import Access, Bearer

log = logging.getLogger(__name__)
Seen = Callable[[str, str, dict[str, Any]], None]
"""Is given the kind, the event's type (`DELETED`, or whatever else) and the object."""
SERVER_SECONDS = 240
"""How long the API server lets a watch stand; then it is opened anew, from where it was. Whole seconds: it refuses others."""
SILENT_SECONDS = 75.0
LOGIN_SECONDS = 600.0


class _NoDiffs(kopf.DiffBaseStorage):
    """Nothing is compared: what an object was before is nobody's business here, and copying each one costs time."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class Shell:
    """Watches from `start` to `stop`; `seen` is called in the loop that started it. `ended` is set if kopf ends by itself."""

    def __init__(self, access: Access, bearer: Bearer, seen: Seen) -> None:
        self._access = access
        self._bearer = bearer
        self._seen = seen
        self._waiting: deque[tuple[str, str, dict[str, Any]]] = deque()
        self._thread: threading.Thread | None = None
        self._inner: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._outer: asyncio.AbstractEventLoop | None = None
        self._called = False
        self._stopped = False
        self.ended = asyncio.Event()

    def start(self) -> None:
        """Begin to watch."""
        self._outer = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._thread.start()

    async def stop(self, patience: float = 1.0) -> None:
        """End it; a thread that hangs is left behind, and its events are heard no more."""
        self._stopped = True
        inner, thread = self._inner, self._thread
        if inner is not None:
            try:
                inner[0].call_soon_threadsafe(inner[1].set)
            except RuntimeError:
                return  # its loop is closed: it has ended
        if thread is not None:
            await asyncio.to_thread(thread.join, patience)

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except Exception:  # whatever ends it, another one is started
            log.exception("kopf has failed")
        finally:
            if self._outer is not None and not self._stopped and not self._outer.is_closed():
                self._outer.call_soon_threadsafe(self.ended.set)

    async def _watch(self) -> None:
        stopping = asyncio.Event()
        self._inner = (asyncio.get_running_loop(), stopping)
        if self._stopped:
            return
        await kopf.operator(registry=self._registry(), settings=_settings(), clusterwide=True, standalone=True, stop_flag=stopping)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in KINDS.values():
            kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=kind.plural)(self._handler(kind.kind))
        kopf.on.event("", "v1", "namespaces", registry=registry, id="namespaces")(self._handler("Namespace"))
        return registry

    def _login(self, **_: Any) -> kopf.ConnectionInfo:
        access = self._access
        return kopf.ConnectionInfo(
            server=access.server,
            ca_data=access.ca or None,
            scheme="Bearer" if self._bearer.token() else None,
            token=self._bearer.token() or None,
            certificate_data=access.certificate or None,
            private_key_data=access.key or None,
            expiration=datetime.now(UTC) + timedelta(seconds=LOGIN_SECONDS) if access.token_file else None,
        )

    def _handler(self, kind: str) -> Callable[..., Any]:
        async def seen(event: Any, **_: Any) -> None:
            self._hand_over(kind, str(event["type"]), event["object"])

        return seen

    def _hand_over(self, kind: str, type_: str, body: Any) -> None:
        """Into the loop of whoever has started this, many at a time."""
        self._waiting.append((kind, type_, body))
        if not self._called and self._outer is not None and not self._outer.is_closed():
            self._called = True
            self._outer.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._called = False  # before the first is taken: what is put in after the last one calls again
        while self._waiting:
            kind, type_, body = self._waiting.popleft()
            if not self._stopped:
                self._seen(kind, type_, body)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.05  # else a worker keeps its object for 5 s, and its memory
    settings.persistence.consistency_timeout = 0.5
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.inactivity_timeout = SILENT_SECONDS
    settings.watching.reconnect_backoff = 0.5
    settings.watching.chunk_size = 250
    settings.process.ultimate_exiting_timeout = None
    return settings
