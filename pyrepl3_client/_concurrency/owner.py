"""Whose something is: the process, thread and event loop in which alone it can be used."""

import asyncio
import os
import threading

from pyrepl3_client.errors import PyRepl3Error

_pid = os.getpid()
"""This process. Kept, since to ask the system costs as much as all else that `check` does."""


def _note_fork() -> None:
    global _pid  # noqa: PLW0603 - it is the process's
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


class Owner:
    """The process and the event loop that something was made on."""

    __slots__ = ("_loop", "_pid", "_thread", "_what")

    def __init__(self, what: str) -> None:
        """Belong to this process and its running loop; `what` says what does, for errors."""
        self._what = what
        self._pid = _pid
        self._loop = asyncio.get_running_loop()
        self._thread = threading.current_thread().name

    @property
    def is_this_process(self) -> bool:
        """Whether this is the process that it belongs to, not one that was forked from it."""
        return _pid == self._pid

    def check(self) -> None:
        """Raise PyRepl3Error where it cannot be used: in a forked child, or on another event loop."""
        if _pid != self._pid:
            check_process(self._what, self._pid)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            where = "on no event loop" if running is None else "on another event loop"
            here = threading.current_thread().name
            raise PyRepl3Error(
                f"{self._what} belongs to the event loop of thread {self._thread!r}, and is used {where} in "
                f"thread {here!r}: call it there, by asyncio.run_coroutine_threadsafe for example, or take "
                "pyrepl3_client.sync, whose sessions any thread may use"
            )


def check_process(what: str, pid: int) -> None:
    """Raise PyRepl3Error in a process that was forked from process `pid`, which `what` belongs to."""
    if _pid != pid:
        raise PyRepl3Error(
            f"{what} belongs to process {pid}, and this is its forked child {_pid}: open a session of "
            "its own here"
        )
