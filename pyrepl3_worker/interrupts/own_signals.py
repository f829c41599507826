"""Leaves a mark on the worker's own stderr when its code sends it a signal that ends it.

The client learns which signal has ended the worker, not who sent it. By the mark it knows that the code did,
and does not run that code again. Other ways to send one (`ctypes`, a `kill` in a shell) leave no mark.
"""

import signal
from contextlib import suppress

# By name: the code may have replaced the modules' own.
from os import getpgrp, getpid, write
from signal import SIG_BLOCK, SIG_DFL, getsignal, pthread_sigmask
from typing import Any, Final

from pyrepl3_schemas.constants import OWN_SIGNAL_MARK

_HARMLESS: Final = frozenset(
    {
        signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
        signal.SIGURG, signal.SIGWINCH,
    }
)  # fmt: skip
"""Signals that end no process unless it asks for that."""


def note_event(stderr: int, worker: int, event: str, arguments: tuple[Any, ...]) -> None:
    """Take note of an audit event before a signal is sent, by the worker or by a forked child of its code.

    Args:
        stderr: the fd for the mark.
        worker: the worker's pid.
        event: `os.kill`, `os.killpg` or `signal.pthread_kill`.
        arguments: the target and the signal's number.
    """
    target, number = arguments
    here = getpid() == worker
    if event == "signal.pthread_kill":
        hit = here
    elif event == "os.killpg":
        hit = target == worker or (here and target in (0, getpgrp()))
    else:
        hit = target == worker or (here and target in (0, -1, -getpgrp()))
    if hit:
        _note(stderr, number)


def note_raise(stderr: int, worker: int, number: int) -> None:
    """Take note of a signal that a process is about to send itself."""
    if getpid() == worker:
        _note(stderr, number)


def _note(stderr: int, number: int) -> None:
    if number <= 0 or number in _HARMLESS:
        return
    if number != signal.SIGKILL and (
        getsignal(number) is not SIG_DFL or number in pthread_sigmask(SIG_BLOCK, ())
    ):
        return  # it ends nothing
    with suppress(OSError):
        write(stderr, f"{OWN_SIGNAL_MARK}{int(number)}\n".encode())
