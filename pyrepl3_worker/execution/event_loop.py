"""`asyncio.run` inside a cell, although the session's loop runs already."""

import asyncio
import threading
from asyncio import (
    AbstractEventLoop,
    Task,
    events,
    get_running_loop,
    tasks,
)  # by name: the code may replace its own
from collections.abc import Callable, Coroutine
from typing import Any, Final

from pyrepl3_worker.errors import AsyncContextError
from pyrepl3_worker.execution.tasks import CoroutineManager
from pyrepl3_worker.interrupts.signals import runs_user_code


class EventLoopCoordinator:
    """Gives code access to the session's loop, also where no loop runs."""

    def __init__(self, loop: AbstractEventLoop, manager: CoroutineManager) -> None:
        """Coordinate for `loop`, which runs on the thread that constructs this (or will)."""
        self.loop = loop
        self._manager = manager
        self._thread = threading.get_ident()
        self._queue: list[Coroutine[Any, Any, Any]] = []
        self._original_run: Final = asyncio.run
        self.on_nested_loop: Callable[[AbstractEventLoop], Callable[[], None]] | None = None
        """Called with each loop of an `asyncio.run`, so that messages are read on it; returns the undoing."""

    def ensure_event_loop(self) -> AbstractEventLoop:
        """Return the loop that runs here, else the session's.

        Raises:
            AsyncContextError: the session's loop is closed.
        """
        try:
            return get_running_loop()
        except RuntimeError:
            if self.loop.is_closed():
                raise AsyncContextError("the session's event loop is closed") from None
            return self.loop

    def queue_for_async(self, coro: Coroutine[Any, Any, Any]) -> Task[Any] | None:
        """Run a coroutine as a task now if a loop runs here, else when `flush_queue` is called."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            self._queue.append(coro)
            return None
        return loop.create_task(coro)

    async def flush_queue(self) -> list[Any]:
        """Run what was queued; return the results, with exceptions in their places."""
        queued, self._queue = self._queue, []
        return await asyncio.gather(*queued, return_exceptions=True)

    def run(
        self,
        main: Coroutine[Any, Any, Any],
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], AbstractEventLoop] | None = None,
    ) -> Any:
        """Do what `asyncio.run` does, also where the session's loop runs already.

        The coroutine runs on a loop of its own, as it would anywhere; the session's loop waits
        meanwhile, as it does for any other call.
        """
        # Not marked by `runs_user_code`: a cancel raised here would leave the session's loop hidden.
        outer = events._get_running_loop()  # pyright: ignore[reportPrivateUsage] - asyncio has no public way to ask without raising
        if threading.get_ident() != self._thread or outer is None:
            return _run_original(self._original_run, main, debug=debug, loop_factory=loop_factory)
        task = tasks.current_task(outer)
        if task is not None:
            tasks._leave_task(outer, task)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType] - documented for third-party loops
        events._set_running_loop(None)  # pyright: ignore[reportPrivateUsage] - documented for third-party loops
        try:
            return self._run_on_own_loop(main, debug=debug, loop_factory=loop_factory)
        finally:
            events._set_running_loop(outer)  # pyright: ignore[reportPrivateUsage]
            if task is not None:
                tasks._enter_task(outer, task)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
            # The nested runner has unset the thread's loop on its way out.
            asyncio.set_event_loop(self.loop)

    @runs_user_code
    def _run_on_own_loop(
        self,
        main: Coroutine[Any, Any, Any],
        *,
        debug: bool | None,
        loop_factory: Callable[[], AbstractEventLoop] | None,
    ) -> Any:
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            loop = runner.get_loop()
            loop.set_task_factory(self._manager.task_factory)
            undo = None if self.on_nested_loop is None else self.on_nested_loop(loop)
            try:
                return runner.run(main)
            finally:
                if undo is not None:
                    undo()


@runs_user_code
def _run_original(original: Callable[..., Any], main: Coroutine[Any, Any, Any], **options: Any) -> Any:
    return original(main, **options)
