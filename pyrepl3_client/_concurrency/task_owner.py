"""The owner of the tasks and threads that serve one session. Closing it waits for all of them.

Not a task group that stays open around the user's code: a session may be entered in one task and left
in another (a notebook's cells, a test's fixture), which no cancel scope survives.
"""

import asyncio
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

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
