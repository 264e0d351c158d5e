"""llama.cpp in this process: loaded at the first question, shared by all who hold a lease, unloaded with the last one.

Knows nothing of prompts, schemas or answers. Warning: llama.cpp blocks, swallows what its callback raises, and calls it on
the thread that asked; so each question has a thread here and its chunks travel to the event loop through a queue.
"""

import asyncio
import importlib
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from hansa_sdk import ProviderRefused, ProviderUnavailable

CONTEXT_TOKENS = 4096
"""Prompt and answer together; also what both slots share, so two long conversations at once may not fit."""
SLOTS = 2
_MOST_THREADS = 4
_BATCH_TOKENS = 128
"""How much of a prompt is read in one go: a cancelled question ends between two of these."""
_STOPPING_SECONDS = 10.0


class ChatServer(Protocol):
    """What is used of `xllamacpp.Server`, which has no type stubs."""

    def handle_chat_completions(self, request: dict[str, Any], callback: Callable[[dict[str, Any]], bool], /) -> object: ...


class Engine:
    """Holds one `Residence` as long as anybody has a lease on it."""

    def __init__(self, locate: Callable[[], Path], *, threads: int | None = None) -> None:
        """`threads`: that think; by default one a processor that this process may use, at most 4 and at most OMP_NUM_THREADS."""
        self._locate = locate
        self._threads = threads
        self._lock = threading.Lock()
        self._leases = 0
        self._residence: Residence | None = None

    @asynccontextmanager
    async def lease(self) -> "AsyncIterator[Residence]":
        """Use of the model; nothing is loaded yet. Raises `ProviderRefused` when there are no weights."""
        weights = self._locate()
        with self._lock:
            self._leases += 1
            residence = self._residence = self._residence or Residence(weights, self._threads or processors())
        try:
            yield residence
        finally:
            with self._lock:
                self._leases -= 1
                last = self._leases == 0
                if last:
                    self._residence = None
            if last:
                await asyncio.to_thread(residence.close)


class Residence:
    """One model in memory, or not yet; closed by its engine."""

    def __init__(self, weights: Path, threads: int) -> None:
        self._weights = weights
        self._thinking = threads
        self._threads = ThreadPoolExecutor(SLOTS, thread_name_prefix="llama")
        self._loading = threading.Lock()
        self._closing = threading.Event()
        self._server: ChatServer | None = None

    @property
    def is_loaded(self) -> bool:
        return self._server is not None

    def close(self) -> None:
        """End every question and free the memory. Blocks until the threads have ended."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        # llama.cpp has no call for it: the server ends with the last reference to it.
        self._server = None

    async def ask(self, question: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The chunks of an answer as they come, an `error` chunk included. Close the generator to cancel the question.

        Raises `ProviderRefused` for a question that llama.cpp can't take, `ProviderUnavailable` when it fails.
        """
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        stop = threading.Event()

        def forward(chunk: dict[str, Any]) -> bool:
            """In the thread; true cancels."""
            if stop.is_set() or self._closing.is_set():
                return True
            return not _posted(loop, lambda: chunks.put_nowait(chunk))

        def work() -> None:
            if not stop.is_set():
                self._answer(question, forward)

        try:
            job = self._threads.submit(work)
        except RuntimeError as error:
            raise _closed() from error
        job.add_done_callback(lambda _: _posted(loop, lambda: chunks.put_nowait(None)))
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            job.result()
        except CancelledError as error:
            raise _closed() from error
        finally:
            stop.set()
            await _ended(job)

    def _answer(self, question: dict[str, Any], forward: Callable[[dict[str, Any]], bool]) -> None:
        server = self._loaded()
        try:
            server.handle_chat_completions(question, forward)
        except ValueError as error:
            raise ProviderRefused(f"llama.cpp does not take this request: {error}") from error
        except RuntimeError as error:
            raise ProviderUnavailable(f"llama.cpp failed: {error}") from error

    def _loaded(self) -> ChatServer:
        with self._loading:
            if self._server is None:
                self._server = _load(self._weights, self._thinking)
            return self._server


def _load(weights: Path, threads: int) -> ChatServer:
    try:
        # By name and here: the library is over 100 MB, and a worker that is never asked must not map it.
        llama = importlib.import_module("xllamacpp")
    except ImportError as error:
        raise ProviderRefused(f"llama.cpp can't be loaded: {error}", hint="pip install xllamacpp") from error
    parameters = llama.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx, parameters.n_parallel, parameters.kv_unified = CONTEXT_TOKENS, SLOTS, True
    parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
    for processors in (parameters.cpuparams, parameters.cpuparams_batch):
        processors.n_threads = threads
        processors.poll = 0  # a thread that waits must not burn the processor that the database or a tool needs
    # Its store of old prompts may grow to gigabytes; what a slot still holds is reused all the same.
    parameters.cache_ram_mib = 0
    parameters.verbosity = -1
    # It insists on listening. A socket file in a private folder that is gone a moment later lets nobody in, and a process
    # that is killed leaves no file that would keep the next one from starting.
    with tempfile.TemporaryDirectory(prefix="hansa-") as folder:
        parameters.hostnames = [str(Path(folder, "llama.sock"))]
        try:
            server: ChatServer = llama.Server(parameters)
        except RuntimeError as error:
            raise ProviderUnavailable(
                f"llama.cpp could not load {weights}: {error}",
                hint="Is there enough free memory (300 MB), and is the file whole? TMPDIR must be shorter than 80 characters.",
            ) from error
    return server


def _closed() -> ProviderUnavailable:
    return ProviderUnavailable("the local model is being unloaded")


def processors() -> int:
    """How many threads think: one a processor that this process may use, where the system tells.

    A container that is given less time than there are processors is told so by OMP_NUM_THREADS, as any program that computes.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(_MOST_THREADS, usable, int(told) if told.isdecimal() and int(told) else usable)


def _posted(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Whether the loop will call back; false when it has been closed."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True


async def _ended(job: "Future[None]") -> None:
    """Wait until a job that was told to stop has left its slot, but not for ever: the next one then waits in its place."""
    if job.cancel() or job.done():
        return
    ending = asyncio.wrap_future(job)
    try:
        await asyncio.wait({ending}, timeout=_STOPPING_SECONDS)
    finally:
        # Nobody is left to read what came of it.
        if not ending.cancel():
            ending.exception()
