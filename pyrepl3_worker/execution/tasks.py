"""The code's tasks, and the loop that it shares with the session.

CoroutineManager owns every task that the code creates: counted, limited, and cancelled at the end.
EventLoopCoordinator makes `asyncio.run` work although the session's loop runs already, and queues
coroutines from where no loop runs.
"""

import asyncio
import contextvars
import threading
from asyncio import (
    Task,
    base_events,
    events,
    get_running_loop,
    tasks,
)  # by name: the code may replace its own
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pyrepl3_worker.errors import AsyncContextError, LimitExceeded
from pyrepl3_worker.execution.execution import current_path
from pyrepl3_worker.interrupts.signals import runs_user_code

type Loop = asyncio.AbstractEventLoop


class _NameProbe:
    """Stands for a loop and for the task that its factory returns, to see whether `create_task` names it."""

    def __init__(self) -> None:
        self.was_named = False

    def _check_closed(self) -> None:
        """Do nothing: it is never closed."""

    def _task_factory(self, *_: object, **__: object) -> "_NameProbe":
        return self

    def set_name(self, name: object) -> None:
        del name
        self.was_named = True


def _names_every_task() -> bool:
    loop: Any = _NameProbe()
    base_events.BaseEventLoop.create_task(loop, loop)
    return loop.was_named


_NAMES_EVERY_TASK: Final = _names_every_task()
"""Whether `create_task` names a factory's tasks even when no name is given (3.13.0 does): 'None', that is."""


def _ignore_missing_name(task: Task[Any]) -> None:
    """Make the next `set_name` of a task do nothing if it is called with None."""

    def set_name(name: object) -> None:
        del task.set_name  # the class's own again, and no reference cycle left
        if name is not None:
            task.set_name(name)

    task.set_name = set_name


class CoroutineManager:
    """Owns the tasks that the session's code creates."""

    def __init__(self, max_coroutines: int) -> None:
        """Let at most `max_coroutines` tasks be alive at once."""
        self.max_coroutines = max_coroutines
        self.tasks: set[Task[Any]] = set()
        self.created = 0

    def task_factory(self, loop: Loop, coro: Any, **options: Any) -> Task[Any]:
        """Create a task, for `loop.set_task_factory`, with its call path.

        Raises:
            LimitExceeded: too many tasks are alive.
        """
        path = current_path.get()
        if path is None:
            task = Task[Any](coro, loop=loop, **options)
            if _NAMES_EVERY_TASK:
                _ignore_missing_name(task)
            return task
        if len(self.tasks) >= self.max_coroutines:
            coro.close()
            raise LimitExceeded(
                f"{len(self.tasks)} tasks are alive, all that max_coroutines={self.max_coroutines} allows; "
                "await some of them, or raise max_coroutines in the ExecutorConfig"
            )
        context = options.pop("context", None)
        if context is None:
            context = contextvars.copy_context()
            context.run(current_path.set, path.child())
        task = Task(coro, loop=loop, context=context, **options)
        if _NAMES_EVERY_TASK:
            _ignore_missing_name(task)
        self.track_task(task)
        return task

    def track_task(self, task: Task[Any]) -> None:
        """Count and own a task until it is done."""
        self.created += 1
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def cleanup(self, spare: AbstractSet[Task[Any]] = frozenset()) -> int:
        """Cancel every task that is alive, except those in `spare`.

        Returns:
            How many were cancelled.
        """
        alive = [task for task in self.tasks if not task.done() and task not in spare]
        for task in alive:
            task.cancel()
        return len(alive)


class EventLoopCoordinator:
    """Gives code access to the session's loop, also where no loop runs."""

    def __init__(self, loop: Loop, manager: CoroutineManager) -> None:
        """Coordinate for `loop`, which runs on the thread that constructs this (or will)."""
        self.loop = loop
        self._manager = manager
        self._thread = threading.get_ident()
        self._queue: list[Coroutine[Any, Any, Any]] = []
        self._original_run: Final = asyncio.run
        self.on_nested_loop: Callable[[Loop], Callable[[], None]] | None = None
        """Called with each loop of an `asyncio.run`, so that messages are read on it; returns the undoing."""

    def ensure_event_loop(self) -> Loop:
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
        loop_factory: Callable[[], Loop] | None = None,
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
        self, main: Coroutine[Any, Any, Any], *, debug: bool | None, loop_factory: Callable[[], Loop] | None
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
