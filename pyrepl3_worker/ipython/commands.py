"""Runs commands for `!`, `%%bash` and their like: output as it comes, no process left at a cancel.

A command of `!` writes to a terminal of its own, as in Jupyter: programs then write each line at once, and
not when a buffer is full. It reads from nothing, since there is no terminal to answer on.
"""

import codecs
import os
import select
import signal
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from pyrepl3_worker.interrupts.child_processes import children_of
from pyrepl3_worker.interrupts.signals import runs_user_code

type Write = Callable[[str], object]

_CHUNK_BYTES: Final = 65536
_MAX_LEFT_CHUNKS: Final = 32
"""How much is read after a command's end: more than its streams hold, and not what others write to them."""
_ROWS_AND_COLUMNS: Final = (24, 80)
_TERMINAL_SETTINGS: Final = {"PAGER": "cat", "GIT_PAGER": "cat", "MANPAGER": "cat", "TERM": "dumb"}
"""Output is text: without pages and without colours."""
_SIGNAL_BASE: Final = 128
"""A shell reports a program that a signal has ended by this and the signal's number."""


def terminal_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command that writes to a terminal.

    Args:
        environment: the session's own; what it says of pagers stands.
    """
    pagers = {name: value for name, value in _TERMINAL_SETTINGS.items() if name != "TERM"}
    return {**pagers, **environment, "TERM": _TERMINAL_SETTINGS["TERM"]}


@runs_user_code
def run_in_terminal(arguments: Sequence[str], write: Write) -> int:
    """Run a command whose output and errors go to one terminal, and return its exit status.

    Args:
        arguments: the program and its arguments.
        write: gets the output as it comes.

    Returns:
        The status; the negative number of the signal that ended the command.

    Raises:
        OSError: the program can't be started.
    """
    parent, child = _open_terminal()
    try:
        process = subprocess.Popen(  # noqa: S603 - what the code asks for
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=child,
            stderr=child,
            env=terminal_environment(os.environ),
            start_new_session=True,
        )
    except BaseException:
        os.close(parent)
        raise
    finally:
        os.close(child)
    return _follow(process, {parent: write})


@runs_user_code
def run_with_pipes(
    arguments: Sequence[str], write: Write, write_errors: Write | None = None, stdin: bytes = b""
) -> int:
    """Run a command with pipes, and return its exit status.

    Args:
        arguments: the program and its arguments.
        write: gets the output as it comes.
        write_errors: gets the errors; None to have them among the output.
        stdin: what the command reads.

    Returns:
        The status; the negative number of the signal that ended the command.

    Raises:
        OSError: the program can't be started.
    """
    process = subprocess.Popen(  # noqa: S603 - as above
        arguments,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if write_errors is None else subprocess.PIPE,
        start_new_session=True,
    )
    readers: dict[int, Write] = {}
    for stream, each in ((process.stdout, write), (process.stderr, write_errors)):
        if stream is not None and each is not None:
            readers[os.dup(stream.fileno())] = each
            stream.close()
    writer = -1
    if process.stdin is not None:
        writer = os.dup(process.stdin.fileno())
        process.stdin.close()
    return _follow(process, readers, writer, stdin)


def _open_terminal() -> tuple[int, int]:
    """Return the ends of a terminal that changes nothing in what is written, or else of a pipe."""
    try:
        parent, child = os.openpty()
    except OSError:  # in a sandbox
        return os.pipe()
    attributes = termios.tcgetattr(child)
    attributes[1] &= ~termios.OPOST  # no carriage returns before newlines
    termios.tcsetattr(child, termios.TCSANOW, attributes)
    termios.tcsetwinsize(child, _ROWS_AND_COLUMNS)
    return parent, child


@runs_user_code
def _follow(
    process: subprocess.Popen[bytes], readers: dict[int, Write], writer: int = -1, data: bytes = b""
) -> int:
    """Pass on what a process writes until it ends; kill it and its group when an exception comes first."""
    decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in readers}
    poll = select.poll()
    end = -1
    try:
        end = os.pidfd_open(process.pid)
        poll.register(end, select.POLLIN)
        for fd in readers:
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        if writer >= 0:
            os.set_blocking(writer, False)
            poll.register(writer, select.POLLOUT)
        ended = False
        while not ended:
            # What is left behind by a process that has ended may hold its streams for ever.
            for fd, _ in poll.poll():
                if fd == end:
                    ended = True
                elif fd == writer:
                    data = _write_some(writer, data)
                    if not data:
                        poll.unregister(writer)
                        os.close(writer)
                        writer = -1
                elif not _read_some(fd, decoders[fd], readers[fd]):
                    poll.unregister(fd)
        for fd, each in readers.items():
            for _ in range(_MAX_LEFT_CHUNKS):
                if not _read_some(fd, decoders[fd], each):
                    break
            rest = decoders[fd].decode(b"", final=True)
            if rest:
                each(rest)
        status = process.wait()
    except BaseException:
        _kill_tree(process.pid)
        process.wait()
        raise
    finally:
        for fd in (*readers, writer, end):
            if fd >= 0:
                os.close(fd)
    return _SIGNAL_BASE - status if status > _SIGNAL_BASE else status


def _kill_tree(pid: int) -> None:
    """Kill a child process and all that it has started, in whichever groups and sessions."""
    tree = [pid]
    for parent in tree:
        tree += children_of(parent)
    for each in tree:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _write_some(fd: int, data: bytes) -> bytes:
    """Write what a pipe takes now; return the rest."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:  # the command reads no more
        return b""


@runs_user_code
def _read_some(fd: int, decoder: codecs.IncrementalDecoder, write: Write) -> bool:
    """Pass on what can be read now; return whether there was anything."""
    try:
        chunk = os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return False
    except OSError:  # EIO: no process has the terminal open any more
        return False
    text = decoder.decode(chunk)
    if text:
        write(text)
    return bool(chunk)
