"""An event loop in a thread of its own, and calls into it that Ctrl-C interrupts properly."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from pyrepl3_client._concurrency.exit_guard import ExitGuard
from pyrepl3_client._concurrency.outcome import Outcome
from pyrepl3_client._concurrency.owner import check_process
from pyrepl3_client.errors import SessionClosed

_LEFT: Final = "the session, or its pool, was left"


def insist(close: Callable[[], None]) -> None:
    """Call a function that closes something, and once more after a Ctrl-C, which is raised then.

    Args:
        close: may be called again, also when it has come to its end.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile. It is closed, unless it came twice.
    """
    try:
        close()
    except KeyboardInterrupt:
        close()
        raise


class LoopThread:
    """A thread that runs an event loop from `start` to `stop`. Any thread of its process may call into it."""

    def __init__(self, name: str) -> None:
        """Name the thread; `start` starts it."""
        self._name = name
        self.serves = f"what runs in thread {name!r}"
        """Whose thread it is, for errors."""
        self._lock = threading.Lock()
        # Guarded by the lock: the loop while calls may enter it, the same while it is being ended, the calls
        # that have not ended, and what the last start waits for: a thread that begins after `stop` ends.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.AbstractEventLoop | None = None
        self._pending: set[Outcome[Any]] = set()
        self._ready: Outcome[None] | None = None
        self._thread: threading.Thread | None = None
        self._started: set[asyncio.Task[None]] = set()
        self._pid = os.getpid()
        self._guard: ExitGuard | None = None

    def start(self) -> None:
        """Start the thread and its loop. May be done again after `stop`, which also ends a start that failed.

        Raises:
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        self._pid = os.getpid()
        ready = self._ready = Outcome[None]()
        # A daemon: the interpreter does not wait for it. Its workers end with it.
        self._thread = threading.Thread(target=self._run_loop, args=(ready,), name=self._name, daemon=True)
        self._guard = ExitGuard(None, self.abandon)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """End the loop and wait for the thread. Calls of other threads that wait get SessionClosed.

        Raises:
            KeyboardInterrupt: Ctrl-C came meanwhile. The thread has ended, or ends by itself after a second.
        """
        insist(self._end_loop)

    def _end_loop(self) -> None:
        """End the loop and wait for the thread; one that has not begun ends by itself. May be done again."""
        with self._lock:
            if self._loop is not None:
                self._ending, self._loop = self._loop, None
            self._ready = None
        if self._ending is not None and self._thread is not None and self.is_usable:
            with suppress(RuntimeError):  # it is closed
                self._ending.call_soon_threadsafe(self._ending.stop)
            self._thread.join()
        self.abandon()

    def _run_loop(self, ready: Outcome[None]) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            with self._lock:
                if self._ready is not ready:
                    return
                self._loop, self._ending = loop, None
            asyncio.set_event_loop(loop)
            loop.call_soon(ready.set, None)
            loop.run_forever()

    def abandon(self) -> None:
        """Let no call wait any more, and none begin: the loop has ended, or ends with the interpreter."""
        if self._guard is not None:
            self._guard.release()
        with self._lock:
            self._loop = self._ending = None
            pending, self._pending = self._pending, set()
        for outcome in pending:
            # One that has just ended keeps its outcome.
            outcome.set(None, SessionClosed(_LEFT))

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

    @property
    def is_running(self) -> bool:
        """Whether calls may enter the loop."""
        return self._loop is not None

    def start_soon(self, start: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Start a coroutine in the loop's thread, and do not wait for it; from a finalizer too.

        Returns:
            Whether there is a loop to run it.
        """
        loop = self._loop  # without the lock, which the code that a finalizer interrupts may hold

        def begin() -> None:
            assert loop is not None
            task = loop.create_task(start())
            self._started.add(task)
            task.add_done_callback(self._started.discard)

        if loop is not None:
            with suppress(RuntimeError):  # it was closed meanwhile
                loop.call_soon_threadsafe(begin)
                return True
        return False

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
        outcome: Outcome[T] = Outcome()
        try:
            with self._lock:
                loop = self._loop
                if loop is None:
                    raise SessionClosed(_LEFT)
                self._pending.add(outcome)
            return _run(loop, start, outcome)
        finally:
            self._pending.discard(outcome)


def _run[T](
    loop: asyncio.AbstractEventLoop, start: Callable[[], Coroutine[Any, Any, T]], outcome: Outcome[T]
) -> T:
    """Run a coroutine in a loop of another thread and wait for it; Ctrl-C cancels it first."""
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        if not outcome.is_set:
            task = loop.create_task(start())
            tasks.append(task)
            task.add_done_callback(ended)

    def ended(task: asyncio.Task[T]) -> None:
        # The task is freed here: in the callbacks that run then, Python drops a Ctrl-C.
        tasks.clear()
        _transfer(task, outcome)

    def cancel() -> None:
        if not tasks:
            # It has not begun, and will not; or it has ended, and the outcome is set.
            outcome.set(None, CancelledError())
        for task in tasks:
            task.cancel()

    scheduled = False
    interrupt: KeyboardInterrupt | None = None
    forwarded: KeyboardInterrupt | None = None
    try:
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
                outcome.wait()
                break
            except KeyboardInterrupt as error:
                interrupt = error
    finally:
        if not outcome.is_set:  # a second Ctrl-C struck between two instructions of the handler
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(cancel)
    if interrupt is not None:
        raise interrupt
    return outcome.result()


def _transfer[T](task: asyncio.Task[T], outcome: Outcome[T]) -> None:
    if task.cancelled():
        outcome.set(None, CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set(None, error)
    else:
        outcome.set(task.result())
