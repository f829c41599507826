"""Stopping code: one escalation ladder for cancel, interrupt and timeout.

Rung 1 raises once in the code. On the loop's thread a signal (the doorbell) does it: its handler runs
between two bytecodes, whatever the code is doing, and a blocking system call is woken. A task that is
suspended is cancelled as any task. On the blocking thread, which no signal handler reaches,
`sys.monitoring` raises at the next line.

Rung 2 raises at every line of the session's own code until the execution is over, which unwinds every
loop that swallows exceptions. Rung 3, killing the process, is the parent's.

The handler may only raise where the code is at work, never inside this package, where a frame could be
half written. So it looks down the stack for the first frame of ours: if that is a gate (a function that
does nothing but run the code), the code is at work.
"""

import select
import selectors
import signal
import sys
import threading
from _signal import getsignal as _getsignal  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - see `install`
from asyncio import CancelledError, base_events, events, futures, selector_events, unix_events
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from pyrepl3_schemas.constants import WAKEUP_SIGNAL
from pyrepl3_schemas.messages import CancelReason
from pyrepl3_worker.code.compiler import CELL_PREFIX
from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER, TRANSPARENT_FILES
from pyrepl3_worker.interrupts.timers import TimerThread

_RETRY: Final = 0.001
_MOST_RETRIES: Final = 20
"""How often a better moment is waited for, where none may come."""
_LOOP_FILES: Final = frozenset(
    module.__file__ for module in (base_events, events, selector_events, unix_events, selectors)
)
_CALLBACK_FILES: Final = _LOOP_FILES | {futures.__file__}
_RUN_CALLBACK: Final = events.Handle._run.__code__  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - where callbacks' exceptions end

_user_code_runners: set[CodeType] = set()
_loop_runners: set[CodeType] = set()


def runs_user_code[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of ours as one in which only the code runs, so that raising in it is safe."""
    _user_code_runners.add(function.__code__)  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType, reportUnknownArgumentType] - only plain functions are marked
    return function


def runs_loop[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Mark the function that runs the session's loop: a gate, but for when the loop is at rest."""
    _loop_runners.add(function.__code__)  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType, reportUnknownArgumentType] - as above
    return runs_user_code(function)


class _NoFrame:
    """What `innermost_gate` gives when it is not safe to raise."""

    __slots__ = ()


BUSY: Final = _NoFrame()
"""Code of ours is at work; it will be out again in no time."""
ELSEWHERE: Final = _NoFrame()
"""Nothing of ours is on the stack at all."""


def innermost_user_code_frame(frame: FrameType | None) -> CodeType | _NoFrame:
    """Give the first of our own functions up the stack when it is a gate."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE_FOLDER) and code.co_filename not in TRANSPARENT_FILES:
            return code if code in _user_code_runners else BUSY
        frame = frame.f_back
    return ELSEWHERE


def loop_is_idle(found: CodeType, frame: FrameType | None) -> bool:
    """Whether the session's loop is waiting or between two callbacks, so that nothing needs to be done.

    Raising would be wrong there too: nobody would catch it but the session itself.
    """
    if found not in _loop_runners:
        return False
    while frame is not None and frame.f_code is not found:
        if frame.f_code.co_filename not in _LOOP_FILES:
            # A callback. What it calls may be the loop's own (`call_soon` without end): it holds it still.
            return False
        frame = frame.f_back
    return frame is not None


def inside_callback(frame: FrameType | None) -> bool:
    """Whether a loop's own code is at work for one of its callbacks: the loop would log what is raised."""
    while frame is not None and frame.f_code.co_filename in _CALLBACK_FILES:
        if frame.f_code is _RUN_CALLBACK:
            return True
        frame = frame.f_back
    return False


def _nothing() -> None:
    """Do nothing."""


_SAFE: Final = _nothing.__code__


class WakeupSignal:
    """The signal handler: finds out whether the code holds the thread, and lets the session listen."""

    def __init__(self, timers: TimerThread, answer: Callable[[CodeType, FrameType | None], None]) -> None:
        """Call `answer` with the gate and the interrupted frame when the code is at work."""
        self._timers = timers
        self._answer = answer
        self._thread = threading.main_thread().ident
        self._installed: Any = None
        self._retries = 0
        self.waiting = False
        """Whether somebody rang while code of ours was at work."""
        self.on_busy: Callable[[], None] = _nothing

    def install(self) -> None:
        """Hang it up, again if the code has replaced it. Main thread only."""
        # Not signal.getsignal, which takes ten times as long for turning numbers into enums.
        if self._installed is None or _getsignal(WAKEUP_SIGNAL) is not self._installed:
            self._installed = self._on_signal
            signal.signal(WAKEUP_SIGNAL, self._installed)

    def install_if_main(self) -> None:
        """Hang it up if this is the main thread: handlers can be set, and run, there alone."""
        if threading.get_ident() == self._thread:
            self.install()

    def send(self) -> None:
        """Ring from any thread of this process. Rings nowhere when it does not hang."""
        if self._thread is not None and self._installed is not None:
            signal.pthread_kill(self._thread, WAKEUP_SIGNAL)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        del signum
        found = innermost_user_code_frame(frame)
        if isinstance(found, CodeType):
            if self._retries < _MOST_RETRIES and found not in _loop_runners and inside_callback(frame):
                self._retries += 1
                self._timers.set(_RETRY, self.send)
                return
            self._retries = 0
            self._answer(found, frame)
        elif found is BUSY:
            self.waiting = True
            self.on_busy()
            self._timers.set(_RETRY, self.send)

    def handle_now(self) -> None:
        """Called by a function of ours that the code has called, where raising is safe, if `waiting`.

        Ringing again is not enough for code that calls us all the time (a loop of prints): the thread
        that rings gets its turn when we let go of the interpreter's lock, so it would always meet us.
        """
        if threading.get_ident() == self._thread:
            self.waiting = False
            self._answer(_SAFE, None)


class LineInterrupter:
    """Raises in a thread's Python code from outside, by `sys.monitoring`.

    `PyThreadState_SetAsyncExc` would raise anywhere, also inside this package; and a swallowed
    exception would be gone. Events are switched on for the moment of need alone, so code pays nothing.
    """

    def __init__(self) -> None:
        """Take no tool id before it is needed."""
        self._tool: int | None = None
        self._thread: int | None = None
        self._make: Callable[[], BaseException | None] | None = None
        self._once = False
        self._watched: CodeType | None = None
        """The code whose next instruction is to raise."""

    @property
    def active(self) -> bool:
        """Whether it raises, or waits to."""
        return self._make is not None

    def raise_once(self, thread: int, make: Callable[[], BaseException | None]) -> None:
        """Raise what `make` gives, if anything, at the next line of Python code, not ours, in `thread`."""
        self._start(thread, make, once=True)

    def raise_at_every_line(self, thread: int, make: Callable[[], BaseException | None]) -> None:
        """Raise at every line of the session's own code in `thread`, until `stop`."""
        self._start(thread, make, once=False)

    def _start(self, thread: int, make: Callable[[], BaseException | None], *, once: bool) -> None:
        monitoring = sys.monitoring
        if self._tool is None:
            free = (tool for tool in (4, 3, 5, 1, 0, 2) if monitoring.get_tool(tool) is None)
            self._tool = next(free, None)
            if self._tool is None:
                # Every tool id is taken by the code itself; what is left is the last rung.
                return
            monitoring.use_tool_id(self._tool, "pyrepl3")
            for event in _EVENTS:
                monitoring.register_callback(self._tool, event, self._on_event)
            for event in _MOVES:
                monitoring.register_callback(self._tool, event, self._on_move)
            monitoring.register_callback(self._tool, monitoring.events.INSTRUCTION, self._on_event)
        self._thread, self._make, self._once = thread, make, once
        monitoring.set_events(self._tool, sum(_EVENTS + _MOVES))

    def _strikes(self, code: CodeType, frame: FrameType) -> bool:
        """Whether to raise in `frame`, which runs `code`."""
        if self._make is None or threading.get_ident() != self._thread:
            return False
        filename = code.co_filename
        if not self._once:
            return filename.startswith(CELL_PREFIX)
        if filename.startswith(PACKAGE_FOLDER):
            return False
        # Nor in what carries the code, such as the thread's own bootstrap: nobody there would catch it.
        return isinstance(innermost_user_code_frame(frame), CodeType)

    def _on_event(self, code: CodeType, *details: object) -> None:
        del details
        make = self._make
        if make is None or not self._strikes(code, sys._getframe(1)):  # pyright: ignore[reportPrivateUsage] - the code's frame
            return
        if self._once:
            self.stop()
        else:
            self._watch(None)
        error = make()
        if error is not None:
            raise error

    def _on_move(self, code: CodeType, *details: object) -> None:
        # What is raised from here would be looked up at the wrong place, past the code's own handlers (so
        # in 3.12 and 3.13). It is the instruction that the jump leads to that raises.
        del details
        if code is not self._watched and self._strikes(code, sys._getframe(1)):  # pyright: ignore[reportPrivateUsage] - as above
            self._watch(code)

    def _watch(self, code: CodeType | None) -> None:
        before, self._watched = self._watched, code
        if self._tool is not None:
            if before is not None:
                sys.monitoring.set_local_events(self._tool, before, 0)
            if code is not None:
                sys.monitoring.set_local_events(self._tool, code, sys.monitoring.events.INSTRUCTION)

    def stop(self) -> None:
        """Raise no more."""
        if self._make is not None:
            self._make = None
            self._watch(None)
            if self._tool is not None:
                sys.monitoring.set_events(self._tool, 0)


_EVENTS: Final = (
    sys.monitoring.events.LINE,
    sys.monitoring.events.PY_START,
    sys.monitoring.events.PY_RESUME,
)
_MOVES: Final = (sys.monitoring.events.JUMP, sys.monitoring.events.BRANCH)
"""A loop of one line has no others."""


class Interrupt:
    """An exception that is to be raised in the code exactly once, by whichever way gets there first."""

    __slots__ = ("_error", "_lock")

    def __init__(self, error: BaseException) -> None:
        """Hold it."""
        self._error: BaseException | None = error
        self._lock = threading.Lock()

    def take(self) -> BaseException | None:
        """Give it to the first who asks."""
        with self._lock:
            error, self._error = self._error, None
            return error

    def put_back(self, error: BaseException) -> None:
        """Have it raised some other way: whoever took it could not."""
        with self._lock:
            self._error = error


def make_cancel_error(reason: CancelReason, execution_id: str, timeout: float | None) -> BaseException:
    """Give the exception that the code sees, with a note that says where it comes from."""
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
