"""Stopping code: one escalation ladder for cancel, interrupt and timeout.

Step 1 raises once in the code. On the loop's thread the wake-up signal does it: its handler runs
between two bytecodes, whatever the code is doing, and a blocking system call is woken. A task that is
suspended is cancelled as any task. On the blocking thread, which no signal handler reaches,
`sys.monitoring` raises at the next line.

Step 2 raises at every line of the session's own code until the execution is over, which unwinds every
loop that swallows exceptions. Step 3, killing the process, is the client's.

The handler may only raise where the code is at work, never inside this package, where a frame could be
half written. So it looks down the stack for the first frame of ours: if that is marked by
`runs_user_code` (it does nothing but run the code), the code is at work.
"""

import select
import selectors
import signal
import threading
from _signal import getsignal as _getsignal  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - see `install`
from asyncio import CancelledError, base_events, events, futures, selector_events, unix_events
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from pyrepl3_schemas.constants import WAKEUP_SIGNAL
from pyrepl3_schemas.messages import CancelReason
from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER, TRANSPARENT_FILES
from pyrepl3_worker.interrupts.timers import TimerThread

_RETRY_SECONDS: Final = 0.001
_MAX_RETRIES: Final = 20
"""How often the signal waits for a loop to leave its own code, which it may never do."""
_LOOP_FILES: Final = frozenset(
    module.__file__ for module in (base_events, events, selector_events, unix_events, selectors)
)
_CALLBACK_FILES: Final = _LOOP_FILES | {futures.__file__}
_RUN_CALLBACK: Final = events.Handle._run.__code__  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - where callbacks' exceptions end

_user_code_runners: set[CodeType] = set()
_loop_runners: set[CodeType] = set()


def runs_user_code[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of the worker as one in which only the user's code runs: raising there is safe."""
    _user_code_runners.add(function.__code__)  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType, reportUnknownArgumentType] - only plain functions are marked
    return function


def runs_loop[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Mark the function that runs the session's loop: user code runs in it unless the loop is idle."""
    _loop_runners.add(function.__code__)  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType, reportUnknownArgumentType] - as above
    return runs_user_code(function)


class _NotInUserCode:
    """What `innermost_user_code_frame` returns when it is not safe to raise."""

    __slots__ = ()


IN_WORKER_CODE: Final = _NotInUserCode()
"""The worker's own code runs; it will have returned in a moment."""
OUTSIDE_WORKER: Final = _NotInUserCode()
"""No function of the worker is on the stack."""


def innermost_user_code_frame(frame: FrameType | None) -> CodeType | _NotInUserCode:
    """Return the worker's innermost function on the stack, if `runs_user_code` marks it."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE_FOLDER) and code.co_filename not in TRANSPARENT_FILES:
            return code if code in _user_code_runners else IN_WORKER_CODE
        frame = frame.f_back
    return OUTSIDE_WORKER


def loop_is_idle(runner_code: CodeType, frame: FrameType | None) -> bool:
    """Return whether the session's loop waits or is between two callbacks: then it reads messages itself.

    Raising would be wrong there: only the session itself would catch it.
    """
    if runner_code not in _loop_runners:
        return False
    while frame is not None and frame.f_code is not runner_code:
        if frame.f_code.co_filename not in _LOOP_FILES:
            # A callback. Even when it calls the loop's own code (`call_soon` without end), it holds the loop.
            return False
        frame = frame.f_back
    return frame is not None


def inside_callback(frame: FrameType | None) -> bool:
    """Return whether a loop's own code runs for a callback: the loop would only log what is raised."""
    while frame is not None and frame.f_code.co_filename in _CALLBACK_FILES:
        if frame.f_code is _RUN_CALLBACK:
            return True
        frame = frame.f_back
    return False


def _do_nothing() -> None:
    """Do nothing."""


_SAFE_POINT: Final = _do_nothing.__code__


class WakeupSignal:
    """The wake-up signal's handler: calls the session when user code holds the loop's thread."""

    def __init__(self, timers: TimerThread, handler: Callable[[CodeType, FrameType | None], None]) -> None:
        """Call `handler` with the `runs_user_code` function and the interrupted frame when user code runs."""
        self._timers = timers
        self._handler = handler
        self._thread = threading.main_thread().ident
        self._installed: Any = None
        self._retries = 0
        self.pending = False
        """Whether the signal came while the worker's own code ran, and is not handled yet."""
        self.on_busy: Callable[[], None] = _do_nothing

    def install(self) -> None:
        """Install the handler, again if the code has replaced it. Main thread only."""
        # Not signal.getsignal, which takes ten times as long for turning numbers into enums.
        if self._installed is None or _getsignal(WAKEUP_SIGNAL) is not self._installed:
            self._installed = self._on_signal
            signal.signal(WAKEUP_SIGNAL, self._installed)

    def install_if_main(self) -> None:
        """Install the handler if this is the main thread: handlers can be set, and run, there alone."""
        if threading.get_ident() == self._thread:
            self.install()

    def send(self) -> None:
        """Send the signal, from any thread of this process. Does nothing before the handler is installed."""
        if self._thread is not None and self._installed is not None:
            signal.pthread_kill(self._thread, WAKEUP_SIGNAL)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        del signum
        found = innermost_user_code_frame(frame)
        if isinstance(found, CodeType):
            if self._retries < _MAX_RETRIES and found not in _loop_runners and inside_callback(frame):
                self._retries += 1
                self._timers.call_later(_RETRY_SECONDS, self.send)
                return
            self._retries = 0
            self._handler(found, frame)
        elif found is IN_WORKER_CODE:
            self.pending = True
            self.on_busy()
            self._timers.call_later(_RETRY_SECONDS, self.send)

    def handle_now(self) -> None:
        """Handle a `pending` signal, in a function of the worker where raising is safe.

        Sending again is not enough for code that calls the worker all the time (a loop of prints): the
        sending thread runs when the worker releases the interpreter's lock, so it would always meet the
        worker's code.
        """
        if threading.get_ident() == self._thread:
            self.pending = False
            self._handler(_SAFE_POINT, None)


class Interrupt:
    """An exception to be raised in the code exactly once, by the first way that claims it."""

    __slots__ = ("_error", "_lock")

    def __init__(self, error: BaseException) -> None:
        """Hold an exception that is not claimed yet."""
        self._error: BaseException | None = error
        self._lock = threading.Lock()

    def claim(self) -> BaseException | None:
        """Return the exception the first time, then None."""
        with self._lock:
            error, self._error = self._error, None
            return error

    def unclaim(self, error: BaseException) -> None:
        """Let it be claimed once more: what claimed it could not raise it."""
        with self._lock:
            self._error = error


def make_cancel_error(reason: CancelReason, execution_id: str, timeout: float | None) -> BaseException:
    """Return the exception that the code sees, with a note that says where it comes from."""
    error: BaseException
    match reason:
        case "timeout":
            limit = "its time limit" if timeout is None else f"{timeout:g} s"
            error = TimeoutError(f"the execution took longer than {limit}")
        case "interrupt":
            error = KeyboardInterrupt("interrupted")
        case "cancelled":
            error = CancelledError("cancelled")
    error.add_note(f"raised by the session: execution {execution_id!r}, reason {reason!r}")
    return error


@runs_user_code
def wait_readable(poller: select.poll) -> None:
    """Wait until something can be read; an interrupt may be raised here."""
    poller.poll()


@runs_user_code
def call_user_code(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that may call the user's code (a `__repr__`, a `__reduce__`)."""
    return function(*arguments)
