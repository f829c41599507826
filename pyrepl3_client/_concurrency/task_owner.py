"""The owner of the tasks and threads that serve one session. Closing it waits for all of them.

Not a task group that stays open around the user's code: a session may be entered in one task and left
in another (a notebook's cells, a test's fixture), which no cancel scope survives.
"""

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pyrepl3_client._concurrency.carried_error import carried
from pyrepl3_client._concurrency.thread_pool import ThreadPool


class TaskOwner:
    """Runs the background tasks and blocking functions of a session, until it is closed."""

    def __init__(self, name: str) -> None:
        """Belong to the running loop. `name` stands in the names of threads and in warnings."""
        self.loop = asyncio.get_running_loop()
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads = ThreadPool(f"pyrepl3-{name}")
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it is being closed: its tasks are cancelled for that."""
        return self._closed

    def start[T](self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine as a task; up to its first wait it runs before this returns.

        So a host function that returns at once costs no turn of the loop.
        """
        task = asyncio.Task(coro, loop=self.loop, name=name, eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if self._closed:
                task.cancel()
        return task

    async def run_in_thread[T](self, name: str, function: Callable[[], T]) -> T:
        """Run a blocking function in a thread, in a copy of the caller's context.

        Cancelling the wait does not stop the function; its outcome is dropped then.
        """
        return await self._threads.run(name, function)

    async def run_apart[T](self, name: str, awaitable: Awaitable[T]) -> T:
        """Await something foreign in a task of its own; cancelling this cancels it, and waits for its end.

        So what cancels that task (itself, a cancel scope that it has left open, a helper that knew it)
        cancels nothing of ours: for the caller it is an error like any other.

        Raises:
            CancelledError: this wait was cancelled.
            Exception: what the awaitable raised; a `CarriedError` for what is no `Exception`.
        """
        waiters: list[asyncio.Future[None]] = []
        outcome: asyncio.Task[tuple[T | None, Exception | None]] = asyncio.Task(
            _outcome_of(awaitable, name, waiters), loop=self.loop, name=name, eager_start=True
        )
        cancelled: asyncio.CancelledError | None = None
        while not outcome.done():
            try:
                # Not by `asyncio.wait`, which is slower: each call that waits comes past here.
                waiters[:] = [self.loop.create_future()]
                await waiters[0]
            except asyncio.CancelledError as error:
                cancelled = error
                outcome.cancel(*error.args)
        if outcome.cancelled():
            if cancelled is not None:
                raise cancelled
            raise _cancelled_from_elsewhere(outcome, name)
        value, failure = outcome.result()
        if failure is not None:
            raise failure
        return value  # pyright: ignore[reportReturnType] - there is one when there is no error

    async def close(self, grace: float) -> None:
        """Cancel every task, wait for them and for the threads, at most `grace` seconds.

        What is still there after that cannot be stopped: a ResourceWarning names it.
        """
        self._closed = True
        end = self.loop.time() + grace
        me = asyncio.current_task()
        while tasks := self._tasks - {me}:
            for task in tasks:
                task.cancel()
            _, stubborn = await asyncio.wait(tasks, timeout=max(end - self.loop.time(), 0))
            if stubborn:
                names = ", ".join(sorted(task.get_name() for task in stubborn))
                warnings.warn(
                    f"host functions of session {self._name!r} go on after their cancellation: {names}",
                    ResourceWarning,
                    stacklevel=2,
                )
                break
        blocked = await self._threads.close(max(end - self.loop.time(), 0))
        if blocked:
            names = ", ".join(sorted(blocked))
            warnings.warn(
                f"host functions of session {self._name!r} block their threads after its end: {names}",
                ResourceWarning,
                stacklevel=2,
            )


async def _outcome_of[T](
    awaitable: Awaitable[T], name: str, waiters: list[asyncio.Future[None]]
) -> tuple[T | None, Exception | None]:
    try:
        return await awaitable, None
    except asyncio.CancelledError:
        raise
    except BaseException as raised:  # noqa: BLE001 - it is raised where this is waited for
        return None, carried(raised, name)
    finally:
        # The waiting task goes on in a later turn of the loop: this task has ended by then.
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _cancelled_from_elsewhere(task: asyncio.Task[Any], name: str) -> Exception:
    try:
        task.result()
    except asyncio.CancelledError as error:
        if not str(error):
            error = asyncio.CancelledError(f"something on the host has cancelled {name}")
        return carried(error, name)
    raise AssertionError("it was cancelled")
