"""The thread that a blocking cell runs on, and notes on errors that tell of a wrong thread.

Code runs on the loop's thread, as in any Python that has one thread. What blocks there holds up the code's
own tasks, servers and timers; so while there are such, it runs on the session's thread for blocking code.
"""

from asyncio import AbstractEventLoop, Task  # by name: the code may replace asyncio's own
from collections.abc import Collection, Iterable
from typing import Any, Final

from pyrepl3_worker.errors import add_note
from pyrepl3_worker.execution.blocking_thread import BLOCKING_THREAD_NAME
from pyrepl3_worker.execution.execution import current_path
from pyrepl3_worker.rendering.reprs import type_name


def what_loop_serves(loop: AbstractEventLoop, tasks: Collection[Task[Any]]) -> str:
    """Return in words what the code has left for the loop to serve; empty if that is nothing.

    Args:
        loop: the session's, which is one of asyncio's own.
        tasks: those that the code has created. Tasks of other loops do not count.
    """
    for task in tasks:
        if not task.done() and task.get_loop() is loop:
            return "a task"
    served: Any = loop
    # Handles keep the context they were made in, and only the code's contexts have a call path.
    if any(not timer.cancelled() and current_path in timer._context for timer in served._scheduled):
        return "a timer"
    keys = served._selector.get_map().values()
    if len(keys) > _OWN_FDS and any(_is_of_code(key.data) for key in keys):
        return "a server or reader"
    return ""


_OWN_FDS: Final = 2
"""The client's messages, and the loop's own wake-up."""


def _is_of_code(handles: Iterable[Any]) -> bool:
    return any(handle is not None and current_path in handle._context for handle in handles)


_TELLING_PHRASES: Final = (
    "can only be used in that same thread",  # sqlite3
    "only works in main thread", "only allowed from the main thread",  # signal
    "un-acquired lock", "un-aquired lock",  # RLock and Condition
    "'_thread._local' object has no attribute",  # threading.local
    "no current event loop in thread", "no running event loop",
    "cannot switch to a different thread",  # greenlet
    "main thread is not in main loop", "different apartment",  # tkinter
    "event loop other than the current one",
)  # fmt: skip
"""What errors say when a thread uses what belongs to another one."""
_args_of: Final[Any] = vars(BaseException)["args"].__get__
_ERRORS: Final = ("ProgrammingError", "InterfaceError", "DatabaseError", "error", "TclError")
"""Names of errors, beside the builtin ones, that libraries raise then."""


def add_thread_note(error: BaseException, *, on_blocking: bool, served: str, loop_thread: str) -> None:
    """Add a note to an error that looks like one of a wrong thread, if the session has used two.

    Args:
        error: what the code raised.
        on_blocking: whether the code ran on the thread for blocking code.
        served: why that was, in the words of `what_loop_serves`.
        loop_thread: the name of the loop's thread.
    """
    # Nothing here runs code of the error's class.
    kind = type(error)
    if not issubclass(kind, ValueError | RuntimeError | AttributeError) and type_name(error) not in _ERRORS:
        return
    text = " ".join(part for part in _args_of(error) if type(part) is str)
    if not any(phrase in text for phrase in _TELLING_PHRASES):
        return
    here = f"this cell ran on the session's thread for blocking code ({BLOCKING_THREAD_NAME!r})"
    other = f"cells that do not block run on {loop_thread!r}"
    if not on_blocking:
        here = f"this cell ran on {loop_thread!r}"
        other = f"an earlier cell blocked and ran on {BLOCKING_THREAD_NAME!r}"
    why = f", since the loop had {served} of the code's to serve" if served else ""
    add_note(
        error, f'{here}{why}; {other}. ExecutorConfig(blocking="loop") runs every cell on {loop_thread!r}'
    )
