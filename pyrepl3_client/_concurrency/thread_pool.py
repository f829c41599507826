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

_MAX_THREADS: Final = 32
_IDLE_SECONDS: Final = 0.2
"""How long a thread waits for more to do: long enough for code that calls in a loop."""

type _Job = Callable[[], None]


class CarriedError(Exception):
    """Stands for what a function raised that is no `Exception`; its class has the name of what was raised."""


def _wrap_base_exception(raised: BaseException) -> CarriedError:
    """Return an error that a future can hold and a task can raise without harm.

    A SystemExit, which is how every command line parser refuses an argument, would end the loop in
    which the function is awaited; a CancelledError would pass for the end of the wait.
    """
    kind = type(raised)
    made: type[CarriedError] = type(kind.__name__, (CarriedError,), {"__module__": kind.__module__})
    error = made(*raised.args)
    error.__cause__ = raised
    return error


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
            except StopIteration as stop:
                # A future cannot hold it: it would end the coroutine that awaits the future.
                error = RuntimeError(f"{name} raised StopIteration")
                error.__cause__ = stop
            except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - it is raised where the function is awaited
                error = raised
            except BaseException as raised:  # noqa: BLE001 - as above
                error = _wrap_base_exception(raised)
            # Nothing waits for the outcome in a loop that was closed meanwhile.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(set_outcome, value, error)

        self._submit(job)
        return await done

    def _submit(self, job: _Job) -> None:
        with self._lock:
            self._jobs.put(job)
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < _MAX_THREADS:
                thread = threading.Thread(target=self._run_jobs, name=self._name, daemon=True)
                self._threads.add(thread)
                thread.start()
            else:
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
