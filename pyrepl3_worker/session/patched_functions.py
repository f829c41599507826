"""Stand-ins that the code gets for a few functions that could not work, or not be stopped, otherwise.

Each says why. Nothing else of the interpreter is touched.
"""

import asyncio
import builtins
import getpass as getpass_module
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Final

from pyrepl3_worker.execution.execution import CallPath, current_path
from pyrepl3_worker.execution.tasks import EventLoopCoordinator
from pyrepl3_worker.host_calls.calls import HostCaller
from pyrepl3_worker.interrupts.signals import runs_user_code
from pyrepl3_worker.output.collector import OutputCollector
from pyrepl3_worker.output.streams import OutputStream

_OUTPUT_FDS: Final = (1, 2)
_THREAD_POOL_MODULE: Final = "concurrent.futures.thread"
_INTERPRETER_POOL_MODULE: Final = "concurrent.futures.interpreter"
"""Since Python 3.14. Their work runs where there is neither a flow nor anything to call."""


class StdinStream(io.TextIOBase):
    """`sys.stdin` of the code: each line is asked for as `input()` does."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, ask: Callable[[str, bool], str]) -> None:
        """`ask(prompt, password)` gives a line without its newline, or raises EOFError."""
        super().__init__()
        self._ask = ask
        self._rest = ""

    @property
    def name(self) -> str:
        """As the interpreter's own stream is called."""
        return "<stdin>"

    def readable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """Fd 0, which reads as empty."""
        return 0

    def isatty(self) -> bool:
        """No."""
        return False

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """Give one line with its newline, or an empty text at the end of file."""
        if not self._rest:
            try:
                self._rest = self._ask("", False) + "\n"
            except EOFError:
                return ""
        if size is None or size < 0:
            size = len(self._rest)
        line, self._rest = self._rest[:size], self._rest[size:]
        return line

    def read(self, size: int | None = -1, /) -> str:
        """Give everything up to the end of file, or up to `size` characters."""
        text = ""
        while size is None or size < 0 or len(text) < size:
            line = self.readline(-1 if size is None or size < 0 else size - len(text))
            if not line:
                break
            text += line
        return text

    def close(self) -> None:
        """Stay open: `exit()` closes stdin on its way."""


def make_input(calls: HostCaller, output: OutputCollector) -> Callable[..., Any]:
    """`input`: asks the parent, for there is no terminal."""

    def input(prompt: object = "", /) -> Any:  # noqa: A001 - its name in tracebacks and help()
        """Ask for a line. In a coroutine, `await input(...)` lets other tasks go on meanwhile."""
        output.flush()
        return calls.request_input(str(prompt), password=False, frame=sys._getframe(1))  # pyright: ignore[reportPrivateUsage]

    return input


def make_getpass(calls: HostCaller, output: OutputCollector) -> Callable[..., Any]:
    """`getpass.getpass`: the original would warn that it can't switch the echo off."""

    def getpass(prompt: str = "Password: ", stream: object = None, **options: object) -> Any:
        """Ask for a line that should not be shown while it is typed."""
        del stream, options
        output.flush()
        return calls.request_input(prompt, password=True, frame=sys._getframe(1))  # pyright: ignore[reportPrivateUsage]

    return getpass


_original_sleep = time.sleep


@runs_user_code
def _sleep_on_loop_thread(seconds: float) -> None:
    _original_sleep(seconds)


def make_sleep(calls: HostCaller) -> Callable[[float], None]:
    """`time.sleep`: on the blocking thread the original can't be woken, for signals reach the main one."""

    @wraps(_original_sleep)
    def sleep(seconds: float, /) -> None:
        if calls.on_blocking_thread():
            calls.sleep(seconds)
        else:
            _sleep_on_loop_thread(seconds)

    return sleep


def make_write(output: OutputCollector) -> Callable[[int, Any], int]:
    """`os.write`: to fds 1 and 2, it keeps its place among what is printed."""
    original = os.write

    @wraps(original)
    def write(fd: int, data: Any, /) -> int:
        if fd in _OUTPUT_FDS:
            data = bytes(data)
            if output.write_fd(fd, data):
                return len(data)
            output.flush()
        return original(fd, data)

    return write


def inherit_call_path() -> None:
    """`threading.Thread`: a thread belongs to the flow that started it (as tasks do already)."""
    original = threading.Thread.start

    @wraps(original)
    def start(self: threading.Thread) -> None:
        path = current_path.get()
        if path is not None and "run" not in self.__dict__:
            self.run = _ThreadInCallPath(path.child(), self)  # pyright: ignore[reportAttributeAccessIssue] - its `__call__` is a property
        if not patched_pools and _THREAD_POOL_MODULE in sys.modules:
            with suppress(AttributeError):  # that module is only just being imported
                patched_pools.append(_inherit_call_path_in_pools())
        original(self)

    patched_pools: list[object] = []
    threading.Thread.start = start


def _inherit_call_path_in_pools() -> object:
    """`ThreadPoolExecutor.submit`: a piece of work belongs to the flow that submits it, not to its thread.

    That thread may be from an earlier cell, and which one takes the work is a matter of chance. Called when
    the process's first pool starts its first thread, whose own flow does for the work it is started for:
    the module takes its time to import, and most code never needs it.
    """
    pool = sys.modules[_THREAD_POOL_MODULE].ThreadPoolExecutor
    original = pool.submit

    @wraps(original)
    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        path = current_path.get()
        if path is None or type(self).__module__ == _INTERPRETER_POOL_MODULE:
            return original(self, fn, *args, **kwargs)
        work = _FunctionInCallPath(path.child(), fn)
        # A thread that this may start has no place: another time, one that is there takes the work.
        token = current_path.set(None)
        try:
            return original(self, work, *args, **kwargs)
        finally:
            current_path.reset(token)

    pool.submit = submit
    return original


class _FunctionInCallPath:
    """A function that sets its flow first. A class, so that it shows what it is and holds no closure."""

    def __init__(self, path: CallPath, function: Callable[..., Any]) -> None:
        self._path = path
        self._function = function

    @property
    def __call__(self) -> Callable[..., Any]:
        """What is called in place of this, where it is called: so no frame of ours is in tracebacks."""
        current_path.set(self._path)
        return self._function


class _ThreadInCallPath:
    """A thread's `run`, with its flow set."""

    def __init__(self, path: CallPath, thread: threading.Thread) -> None:
        self._path = path
        self._thread = thread

    @property
    def __call__(self) -> Callable[[], None]:
        """As above."""
        del self._thread.run  # the class's own again, and no reference cycle left
        current_path.set(self._path)
        return self._thread.run


def install_patches(calls: HostCaller, output: OutputCollector, coordinator: EventLoopCoordinator) -> None:
    """Put all of them in their places."""
    builtins.input = make_input(calls, output)
    getpass_module.getpass = make_getpass(calls, output)
    time.sleep = make_sleep(calls)
    os.write = make_write(output)
    asyncio.run = coordinator.run
    inherit_call_path()
    sys.stdin = sys.__stdin__ = StdinStream(
        lambda prompt, password: calls.read_line(prompt, password=password)
    )
    sys.stdout = sys.__stdout__ = OutputStream(output, "stdout", 1)
    sys.stderr = sys.__stderr__ = OutputStream(output, "stderr", 2)
