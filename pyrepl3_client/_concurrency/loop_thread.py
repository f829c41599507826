"""An event loop in a thread of its own, and calls into it that Ctrl-C interrupts properly."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from pyrepl3_client._concurrency.exit_guard import ExitGuard
from pyrepl3_client._concurrency.owner import check_process
from pyrepl3_client.errors import SessionClosed

_LEFT: Final = "the session, or its pool, was left"


class LoopThread:
    """A thread that runs an event loop from `start` to `stop`. Any thread of its process may call into it."""

    def __init__(self, name: str) -> None:
        """Name the thread; `start` starts it."""
        self._name = name
        self.serves = f"what runs in thread {name!r}"
        """Whose thread it is, for errors."""
        self._lock = threading.Lock()
        # Guarded by the lock: the loop while calls may enter it, and those that have and have not ended.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: set[Future[Any]] = set()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._guard: ExitGuard | None = None

    def start(self) -> None:
        """Start the thread and its loop. May be done again after `stop`."""
        self._pid = os.getpid()
        ready: Future[asyncio.AbstractEventLoop] = Future()
        # A daemon: the interpreter does not wait for it. Its workers end with it.
        self._thread = threading.Thread(target=_run_loop, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        self._guard = ExitGuard(None, self.abandon)
        self._loop = ready.result()

    def stop(self) -> None:
        """End the loop and wait for the thread. Calls of other threads that wait get SessionClosed."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None and self.is_usable:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
        self.abandon()

    def abandon(self) -> None:
        """Let no call wait any more, and none begin: the loop has ended, or ends with the interpreter."""
        if self._guard is not None:
            self._guard.release()
        with self._lock:
            self._loop = None
            pending, self._pending = self._pending, set()
        for outcome in pending:
            # One that has just ended keeps its outcome.
            with suppress(InvalidStateError):
                outcome.set_exception(SessionClosed(_LEFT))

    def __enter__(self) -> Self:
        """Start the thread and its loop."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the loop and wait for the thread."""
        self.stop()

    @property
    def is_usable(self) -> bool:
        """Whether this is the process that it was started in: a forked child has the object alone."""
        return os.getpid() == self._pid

    def call[T](self, function: Callable[[], T]) -> T:
        """Call a function in the loop's thread; return what it returns."""

        async def calling() -> T:
            return function()

        return self.run(calling)

    def run[T](self, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop's thread and wait for it.

        Raises:
            KeyboardInterrupt: Ctrl-C came meanwhile. The coroutine was cancelled, and has ended.
            SessionClosed: there is no loop, since the session or the pool was left.
            RuntimeError: the caller runs in the loop's thread itself, which cannot wait.
        """
        check_process(self.serves, self._pid)
        if threading.current_thread() is self._thread:
            raise RuntimeError("a handler cannot call its own session: both run in the same thread")
        outcome: Future[T] = Future()
        with self._lock:
            loop = self._loop
            if loop is None:
                raise SessionClosed(_LEFT)
            self._pending.add(outcome)
        try:
            return _run(loop, start, outcome)
        finally:
            self._pending.discard(outcome)


def _run[T](
    loop: asyncio.AbstractEventLoop, start: Callable[[], Coroutine[Any, Any, T]], outcome: Future[T]
) -> T:
    """Run a coroutine in a loop of another thread and wait for it; Ctrl-C cancels it first."""
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        if outcome.done():
            return
        task = loop.create_task(start())
        tasks.append(task)
        task.add_done_callback(lambda task: _transfer(task, outcome))

    def cancel() -> None:
        if not tasks and not outcome.done():
            # It has not begun, and will not.
            outcome.cancel()
            outcome.set_running_or_notify_cancel()
        for task in tasks:
            task.cancel()

    scheduled = False
    interrupt: KeyboardInterrupt | None = None
    forwarded: KeyboardInterrupt | None = None
    while True:
        try:
            # All of it in here, where each Ctrl-C is caught: what was begun has to be cancelled.
            if not scheduled:
                scheduled = True
                with suppress(RuntimeError):  # the loop was closed meanwhile, and the outcome says so
                    loop.call_soon_threadsafe(begin)
            if interrupt is not forwarded:
                forwarded = interrupt
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(cancel)
            wait([outcome])
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    return outcome.result()


def _run_loop(ready: Future[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(ready.set_result, loop)
        loop.run_forever()


def _transfer[T](task: asyncio.Task[T], outcome: Future[T]) -> None:
    with suppress(InvalidStateError):  # nobody waits any more: the loop was stopped meanwhile
        if task.cancelled():
            outcome.cancel()
            outcome.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())
