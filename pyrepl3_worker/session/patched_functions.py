"""Patched functions: the few that would not work in a worker, or could not be cancelled, as they are.

Each says why. Nothing else of the interpreter is changed.
"""

import builtins
import getpass as getpass_module
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from types import FrameType, FunctionType
from typing import Any, Final

from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER
from pyrepl3_worker.execution.event_loop import EventLoopCoordinator
from pyrepl3_worker.execution.execution import CallPath, current_path
from pyrepl3_worker.host_calls.calls import HostCaller
from pyrepl3_worker.interrupts.signals import runs_user_code
from pyrepl3_worker.isolation.after_import import act_on_imported, after_import
from pyrepl3_worker.namespace import NamespaceManager
from pyrepl3_worker.output.collector import OutputCollector
from pyrepl3_worker.output.streams import OutputStream

_OUTPUT_FDS: Final = (1, 2)
_THREAD_POOL_MODULE: Final = "concurrent.futures.thread"
_INTERPRETER_POOL_MODULE: Final = "concurrent.futures.interpreter"
"""Since Python 3.14. Their work runs in interpreters that have neither a call path nor host calls."""


class StdinStream(io.TextIOBase):
    """The code's `sys.stdin`: each line is asked for as `input()` does."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, ask: Callable[[str, bool], str]) -> None:
        """`ask(prompt, password)` returns a line without its newline, or raises EOFError."""
        super().__init__()
        self._ask = ask
        self._rest = ""

    @property
    def name(self) -> str:
        """The name of the interpreter's own stream."""
        return "<stdin>"

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return 0, an fd that reads as empty."""
        return 0

    def isatty(self) -> bool:
        """Return False."""
        return False

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """Return one line with its newline, or an empty text at the end of file."""
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
        """Return everything up to the end of file, or up to `size` characters."""
        text = ""
        while size is None or size < 0 or len(text) < size:
            line = self.readline(-1 if size is None or size < 0 else size - len(text))
            if not line:
                break
            text += line
        return text

    def close(self) -> None:
        """Stay open: `exit()` closes stdin."""


def make_input(calls: HostCaller, output: OutputCollector) -> Callable[..., Any]:
    """Make `input`, which asks the client, since there is no terminal.

    It reads what the code has put in the place of `sys.stdin`, as the original does.
    """
    original = builtins.input

    def input(prompt: object = "", /) -> Any:  # noqa: A001 - its name in tracebacks and help()
        """Ask for a line. In a coroutine, `await input(...)` lets other tasks go on meanwhile."""
        output.flush()
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        is_library = caller.f_globals.get("__name__") in _PROMPTING_MODULES
        if type(getattr(sys, "stdin", None)) is not StdinStream and not calls.is_awaited(caller):
            if is_library:
                _prepare_library(caller)
            return _read_stdin(original, prompt)
        if is_library:
            return _ask_for_library(calls, str(prompt), caller)
        return calls.request_input(str(prompt), password=False, frame=caller)

    return input


def _code_frame() -> FrameType:
    """Return the innermost frame that is not the worker's."""
    outermost = frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE_FOLDER):
        outermost, frame = frame, frame.f_back
    return outermost if frame is None else frame


@runs_user_code
def _read_stdin(original: Callable[[object], str], prompt: object) -> str:
    return original(prompt)


_PROMPTING_MODULES: Final = frozenset({"bdb", "cmd", "code", "pdb"})
"""Debuggers and consoles, which take a KeyboardInterrupt for an empty line."""


def _prepare_library(caller: FrameType) -> None:
    from pyrepl3_worker.session.debugger_prompts import hide_worker_frames

    hide_worker_frames(caller)


def _ask_for_library(calls: HostCaller, prompt: str, caller: FrameType) -> Any:
    from pyrepl3_worker.session.debugger_prompts import error_that_ends_prompt

    _prepare_library(caller)
    try:
        return calls.request_input(prompt, password=False, frame=caller)
    except KeyboardInterrupt as interrupt:
        ending = error_that_ends_prompt(caller)
        if ending is None:
            raise
        for note in vars(interrupt).get("__notes__", ()):
            ending.add_note(note)
        raise ending from None


def make_getpass(calls: HostCaller, output: OutputCollector) -> Callable[..., Any]:
    """Make `getpass.getpass`: the original would warn that it can't switch the echo off."""

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
    """Make `time.sleep`: signals, which reach the main thread alone, can't wake the original elsewhere."""

    @wraps(_original_sleep)
    def sleep(seconds: float, /) -> None:
        if calls.on_blocking_thread():
            calls.sleep(seconds)
        else:
            _sleep_on_loop_thread(seconds)

    return sleep


def make_write(output: OutputCollector) -> Callable[[int, Any], int]:
    """Make `os.write`, which keeps what it writes to fds 1 and 2 in order with what is printed."""
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


def make_raise_signal(stderr: int) -> Callable[[int], None]:
    """Make `signal.raise_signal`, of which no audit event tells, as of `os.kill`: see `own_signals`."""
    original, worker = signal.raise_signal, os.getpid()

    @wraps(original)
    def raise_signal(signalnum: int, /) -> None:
        with suppress(ImportError, TypeError, ValueError, OverflowError):  # the signal is sent in any case
            from pyrepl3_worker.interrupts.own_signals import note_raise

            note_raise(stderr, worker, signalnum)
        original(signalnum)

    raise_signal.__module__ = signal.__name__
    return raise_signal


def inherit_call_path() -> None:
    """Patch `Thread.start`: a thread gets a child of the call path that started it, as tasks do."""
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
    """Patch `ThreadPoolExecutor.submit`: work gets a child of the call path that submits it.

    Its thread may be from an earlier cell, and which thread takes the work is a matter of chance. Called
    when the process's first pool starts its first thread, whose own path serves for its first work: the
    module is slow to import, and most code never needs it.
    """
    pool = sys.modules[_THREAD_POOL_MODULE].ThreadPoolExecutor
    original = pool.submit

    @wraps(original)
    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        path = current_path.get()
        if path is None or type(self).__module__ == _INTERPRETER_POOL_MODULE:
            return original(self, fn, *args, **kwargs)
        work = _FunctionInCallPath(path.child(), fn)
        # A thread that this may start gets no path: in a replay an existing one may take the work.
        token = current_path.set(None)
        try:
            return original(self, work, *args, **kwargs)
        finally:
            current_path.reset(token)

    pool.submit = submit
    return original


def send_definitions(reduction: Any, namespace: NamespaceManager) -> None:
    """Patch the pickler of `multiprocessing.reduction`: other processes lack the session's definitions."""
    pickler = reduction.ForkingPickler
    reducers, senders, worker = pickler._extra_reducers, list[Any](), os.getpid()

    def reducer_override(_: object, value: object) -> Any:
        if type(value) is not FunctionType and not issubclass(type(value), type):
            return NotImplemented
        if os.getpid() != worker:
            return NotImplemented  # a forked child: the session knows its own by name
        if not senders:
            # Slow to import, and most processes are sent none.
            from pyrepl3_worker.checkpoint.sent import DefinitionSender

            senders.append(DefinitionSender(namespace.namespace, namespace.hidden_names))
        return senders[0].reduce(value, reducers)

    pickler.reducer_override = reducer_override
    # Now, so that processes know it that are forked before anything is sent.
    from pyrepl3_worker.checkpoint.received import note_sender

    note_sender(worker)


def _lend_loops_to_anyio(anyio: Any, coordinator: EventLoopCoordinator) -> None:
    """Patch `anyio.run`, which refuses where a loop runs, as `asyncio.run` does."""
    anyio.run = coordinator.make_runner(anyio.run)


def _lend_loops_to_trio(trio: Any, coordinator: EventLoopCoordinator) -> None:
    """Patch `trio.run`: raising in its scheduler would leave the thread unable to run another."""
    trio.run = coordinator.make_interruptible_runner(trio.run)


def _hide_loop_from_unittest(runs_tests: Any, coordinator: EventLoopCoordinator) -> None:
    """Patch what runs tests: a suite is a program, which expects that no loop runs before it runs one.

    Not `TestCase.run`: warnings of unittest's are of its caller's line.
    """
    runs_tests.run = coordinator.make_runner(runs_tests.run)


def _hide_loop_from_pytest(pytest: Any, coordinator: EventLoopCoordinator) -> None:
    """Patch `pytest.main`, as unittest. It has a finder of its own, which imports its plugins."""
    original = coordinator.make_runner(pytest.main)

    @wraps(original)
    def main(*arguments: Any, **options: Any) -> Any:
        try:
            return original(*arguments, **options)
        finally:
            act_on_imported()

    pytest.main = main


class _FunctionInCallPath:
    """A function that is called on a call path. A class, so that it needs no closure."""

    def __init__(self, path: CallPath, function: Callable[..., Any]) -> None:
        self._path = path
        self._function = function

    @property
    def __call__(self) -> Callable[..., Any]:
        """The function itself, once the path is set: so no frame of the worker is in tracebacks."""
        current_path.set(self._path)
        return self._function


class _ThreadInCallPath:
    """A thread's `run`, called on a call path."""

    def __init__(self, path: CallPath, thread: threading.Thread) -> None:
        self._path = path
        self._thread = thread

    @property
    def __call__(self) -> Callable[[], None]:
        """The thread's `run`, once the path is set."""
        del self._thread.run  # the class's own again, and no reference cycle left
        current_path.set(self._path)
        return self._thread.run


def install_patches(
    calls: HostCaller, output: OutputCollector, coordinator: EventLoopCoordinator, stderr: int
) -> None:
    """Install all patched functions and the code's standard streams."""
    builtins.input = make_input(calls, output)
    getpass_module.getpass = make_getpass(calls, output)
    time.sleep = make_sleep(calls)
    os.write = make_write(output)
    signal.raise_signal = make_raise_signal(stderr)
    coordinator.install()
    after_import("anyio", lambda anyio: _lend_loops_to_anyio(anyio, coordinator))
    after_import("trio", lambda trio: _lend_loops_to_trio(trio, coordinator))
    after_import("unittest.suite", lambda suite: _hide_loop_from_unittest(suite.TestSuite, coordinator))
    after_import(
        "unittest.runner", lambda runner: _hide_loop_from_unittest(runner.TextTestRunner, coordinator)
    )
    after_import("pytest", lambda pytest: _hide_loop_from_pytest(pytest, coordinator))
    inherit_call_path()
    sys.stdin = sys.__stdin__ = StdinStream(
        lambda prompt, password: calls.read_line(prompt, password=password, frame=_code_frame())
    )
    sys.stdout = sys.__stdout__ = OutputStream(output, "stdout", 1)
    sys.stderr = sys.__stderr__ = OutputStream(output, "stderr", 2)
