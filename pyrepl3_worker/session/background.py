"""What goes on in a session while no cell runs: what would end with its worker, and be in no checkpoint."""

import sys
import threading
from asyncio import AbstractEventLoop, Task  # by name: the code may replace asyncio's own
from collections.abc import Collection, Iterator
from os import getpid
from typing import Any, Final

from pyrepl3_worker.execution.blocking_thread import BLOCKING_THREAD_NAME
from pyrepl3_worker.execution.threads import what_loop_serves
from pyrepl3_worker.interrupts.child_processes import children_of

_OF_LIBRARIES: Final = frozenset(
    {("tqdm._monitor", "TMonitor"), ("IPython.core.history", "HistorySavingThread")}
)
"""Classes of threads that belong to a library, and hold nothing of the code's."""
_MAX_NAMES: Final = 20
_MAX_CHARS: Final = 200


def background(loop: AbstractEventLoop, tasks: Collection[Task[Any]], pending_calls: int) -> list[str]:
    """Return in words, one each, what the code has left running, at most 20 of them.

    Threads and processes of an executor of `concurrent.futures` that has nothing to do are not among them: a
    checkpoint makes it again.

    Args:
        loop: the session's.
        tasks: those that the code has created.
        pending_calls: how many host calls and prompts have no answer yet.
    """
    found = [f"task {task.get_name()}" for task in tasks if not task.done()]
    served = what_loop_serves(loop, tasks)
    if served and served != "a task":
        found.append(f"{served} on the event loop")
    idle_processes: set[int] = set()
    found += _threads(idle_processes)
    found += (f"process {pid}" for pid in children_of(getpid()) if pid not in idle_processes | _helpers())
    if pending_calls:
        found.append(f"{pending_calls} host call{'' if pending_calls == 1 else 's'} without an answer yet")
    return [each[:_MAX_CHARS] for each in found[:_MAX_NAMES]]


def _threads(idle_processes: set[int]) -> Iterator[str]:
    """Yield the code's threads that are at something; add the processes that executors have in reserve."""
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - there is no other way
    for thread in threading.enumerate():
        kind = type(thread)
        if thread is threading.main_thread() or thread.name in (BLOCKING_THREAD_NAME, "pyrepl3-capture"):
            continue
        if (kind.__module__, kind.__name__) in _OF_LIBRARIES or _waits_for_work(
            frames.get(thread.ident or 0)
        ):
            continue
        if (kind.__module__, kind.__name__) == ("concurrent.futures.process", "_ExecutorManagerThread"):
            manager: Any = thread
            if not manager.pending_work_items:
                idle_processes.update(manager.processes)
                continue
        if kind.__module__ == "multiprocessing.queues" or thread.name == "QueueFeederThread":
            continue  # sends what is put; its queue is saved, or named
        yield f"thread {thread.name}"


def _waits_for_work(frame: Any) -> bool:
    """Return whether a thread of a ThreadPoolExecutor has nothing to do: its loop itself is what runs."""
    return (
        frame is not None
        and frame.f_code.co_name == "_worker"
        and frame.f_globals.get("__name__") == "concurrent.futures.thread"
    )


def _helpers() -> set[int]:
    """Return the processes that multiprocessing starts for itself."""
    pids: set[int] = set()
    for name, holder, attribute in (
        ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
        ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ):
        module = sys.modules.get(name)
        pid = None if module is None else vars(vars(module).get(holder, object) or object).get(attribute)
        if isinstance(pid, int):
            pids.add(pid)
    return pids
