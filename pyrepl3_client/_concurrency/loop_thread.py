"""An event loop in a thread of its own, and calls into it that Ctrl-C interrupts properly."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Self

from pyrepl3_client.errors import SessionClosed


class LoopThread:
    """A thread that runs an event loop from `start` to `stop`."""

    def __init__(self, name: str) -> None:
        """Name the thread; `start` starts it."""
        self._name = name
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the thread and its loop. May be done again after `stop`."""
        ready: Future[asyncio.AbstractEventLoop] = Future()
        # A daemon, so that a program that forgets to leave a session can still end; the workers end with
        # the thread that started them.
        self._thread = threading.Thread(target=_run_loop, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        self._loop = ready.result()

    def stop(self) -> None:
        """End the loop and wait for the thread."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = self._loop = None

    def __enter__(self) -> Self:
        """Start the thread and its loop."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the loop and wait for the thread."""
        self.stop()

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
        loop = self._loop
        if loop is None:
            raise SessionClosed("the session, or its pool, was left")
        if threading.current_thread() is self._thread:
            raise RuntimeError("a handler cannot call its own session: both run in the same thread")
        outcome: Future[T] = Future()
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
                    loop.call_soon_threadsafe(begin)
                if interrupt is not forwarded:
                    forwarded = interrupt
                    loop.call_soon_threadsafe(cancel)
                wait([outcome])
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return outcome.result()

    @contextmanager
    def enter[T](self, context: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter an asynchronous context in the loop's thread."""
        value = self.run(lambda: _enter(context))
        try:
            yield value
        except BaseException as error:
            raised = error
            if not self.run(lambda: _leave(context, raised)):
                raise
        else:
            self.run(lambda: _leave(context, None))


async def _enter[T](context: AbstractAsyncContextManager[T]) -> T:
    return await context.__aenter__()


async def _leave(context: AbstractAsyncContextManager[Any], error: BaseException | None) -> bool:
    kind = None if error is None else type(error)
    return bool(await context.__aexit__(kind, error, None if error is None else error.__traceback__))


def _run_loop(ready: Future[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(ready.set_result, loop)
        loop.run_forever()


def _transfer[T](task: asyncio.Task[T], outcome: Future[T]) -> None:
    if task.cancelled():
        outcome.cancel()
        outcome.set_running_or_notify_cancel()
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
