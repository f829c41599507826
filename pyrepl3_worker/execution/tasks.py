"""The tasks that the code creates: `CoroutineManager` counts and limits them, and cancels them at the end."""

import asyncio
import contextvars
from asyncio import (
    Task,
    base_events,
)  # by name: the code may replace its own
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pyrepl3_worker.errors import LimitExceeded
from pyrepl3_worker.execution.execution import current_path


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

    def task_factory(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Task[Any]:
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
