"""Threads for host functions that block.

Not a ThreadPoolExecutor: the interpreter waits for that one's threads at its exit, so a handler that
sits in `input()` after Ctrl-C would keep the whole program from ending.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pyrepl3_client._concurrency.carried_error import carried

_MAX_THREADS: Final = 32
_IDLE_SECONDS: Final = 0.2
"""How long a thread waits for more to do: long enough for code that calls in a loop."""

type _Job = Callable[[], None]


class ThreadPool:
    """Starts threads as they are needed, up to a number; they end when they have nothing to do."""

    def __init__(self, name: str) -> None:
        """Name the threads, and answer on the running loop."""
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # Guarded by the lock: the threads there are, how many of them wait for a job that has not been
        # put yet, and how many jobs have no thread yet.
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._surplus = 0
        self._busy: dict[asyncio.Future[Any], str] = {}

    async def run[T](self, name: str, function: Callable[[], T]) -> T:
        """Run a function in a thread, in a copy of the caller's context.

        Cancelling the wait does not stop the function; its outcome is dropped then.
        """
        context = contextvars.copy_context()
        done: asyncio.Future[T] = self._loop.create_future()
        ended: asyncio.Future[None] = self._loop.create_future()
        self._busy[ended] = name

        def set_outcome(value: T | None, error: BaseException | None) -> None:
            self._busy.pop(ended)
            if not ended.done():
                ended.set_result(None)
            if not done.done():
                if error is None:
                    done.set_result(value)  # pyright: ignore[reportArgumentType] - there is one when there is no error
                else:
                    done.set_exception(error)

        def job() -> None:
            value: T | None = None
            error: BaseException | None = None
            try:
                value = context.run(function)
            except BaseException as raised:  # noqa: BLE001 - it is raised where the function is awaited
                error = carried(raised, name)
            # Nothing waits for the outcome in a loop that was closed meanwhile.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(set_outcome, value, error)

        try:
            self._submit(job)
        except BaseException:
            del self._busy[ended]
            raise
        return await done

    def _submit(self, job: _Job) -> None:
        with self._lock:
            self._jobs.put(job)
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < _MAX_THREADS:
                self._start_thread()
            else:
                self._surplus += 1

    def _start_thread(self) -> None:
        """Start a thread for the job that was put last.

        Raises:
            RuntimeError: no thread can be started, and there is none that could take the job: it is dropped.
        """
        thread = threading.Thread(target=self._run_jobs, name=self._name, daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.discard(thread)
            if not self._threads:
                self._jobs.get_nowait()
                raise
            self._surplus += 1

    def _run_jobs(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if not self._idle:
                        continue  # a job is for us, and only just there
                    self._idle -= 1
                    self._threads.discard(threading.current_thread())
                return
            if job is None:
                return
            job()
            del job  # and what it holds, while we wait
            with self._lock:
                if self._surplus:
                    self._surplus -= 1
                else:
                    self._idle += 1

    async def close(self, seconds: float) -> set[str]:
        """Wait for the functions to return, at most `seconds`; return the names of those that did not.

        The threads of the others have ended then.
        """
        if self._busy:
            await asyncio.wait(list(self._busy), timeout=seconds)
        stuck = set(self._busy.values())
        with self._lock:
            threads = set(self._threads)
            for _ in threads:
                self._jobs.put(None)
        if not stuck:
            # All functions have returned, so this takes the time that threads need to end.
            for thread in threads:
                thread.join()
        return stuck
