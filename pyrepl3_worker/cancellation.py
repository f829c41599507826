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

import os
import signal
import sys
import threading
from _signal import getsignal as _getsignal  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - see `install`
from asyncio import CancelledError, base_events, events
from collections.abc import Callable
from selectors import EpollSelector
from types import CodeType, FrameType
from typing import Any, Final

from pyrepl3_schemas.messages import CancelReason
from pyrepl3_worker.alarms import AlarmClock
from pyrepl3_worker.compiler import CELL_PREFIX

DOORBELL: Final = signal.SIGURG
"""Ignored by default, so it does no harm to a process that is not ready for it yet."""

_PACKAGE: Final = os.path.dirname(__file__) + os.sep
# They do nothing but call the code's own `__repr__` and the like, and hold no state that could break (or,
# where objects are pickled, none that is used after an error).
_TRANSPARENT: Final = frozenset(
    _PACKAGE + name
    for name in (
        "reprs.py",
        "display.py",
        "failures.py",
        "pickling.py",
        "definitions.py",
        "reductions.py",
        "scope.py",
        "unsaveable.py",
    )
)
_RETRY: Final = 0.001
_LOOP_FILES: Final = frozenset({base_events.__file__, events.__file__})
_SELECT: Final = EpollSelector.select.__code__

_gates: set[CodeType] = set()
_loop_gates: set[CodeType] = set()


def gate[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of ours as one in which only the code runs, so that raising in it is safe."""
    _gates.add(function.__code__)  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType, reportUnknownArgumentType] - only plain functions are marked
    return function


def loop_gate[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Mark the function that runs the session's loop: a gate, but for when the loop is at rest."""
    _loop_gates.add(function.__code__)  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType, reportUnknownArgumentType] - as above
    return gate(function)


class _NoGate:
    """What `innermost_gate` gives when it is not safe to raise."""

    __slots__ = ()


BUSY: Final = _NoGate()
"""Code of ours is at work; it will be out again in no time."""
ELSEWHERE: Final = _NoGate()
"""Nothing of ours is on the stack at all."""


def innermost_gate(frame: FrameType | None) -> CodeType | _NoGate:
    """Give the first of our own functions up the stack when it is a gate."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PACKAGE) and code.co_filename not in _TRANSPARENT:
            return code if code in _gates else BUSY
        frame = frame.f_back
    return ELSEWHERE


def hears_by_itself(found: CodeType, frame: FrameType | None) -> bool:
    """Whether the session's loop is waiting or between two callbacks, so that nothing needs to be done."""
    if found not in _loop_gates or frame is None:
        return False
    return frame.f_code is _SELECT or frame.f_code.co_filename in _LOOP_FILES


def _nothing() -> None:
    """Do nothing."""


_SAFE: Final = _nothing.__code__


class Doorbell:
    """The signal handler: finds out whether the code holds the thread, and lets the session listen."""

    def __init__(self, clock: AlarmClock, answer: Callable[[CodeType, FrameType | None], None]) -> None:
        """Call `answer` with the gate and the interrupted frame when the code is at work."""
        self._clock = clock
        self._answer = answer
        self._thread = threading.main_thread().ident
        self._installed: Any = None
        self.waiting = False
        """Whether somebody rang while code of ours was at work."""
        self.on_busy: Callable[[], None] = _nothing

    def install(self) -> None:
        """Hang it up, again if the code has replaced it. Main thread only."""
        # Not signal.getsignal, which takes ten times as long for turning numbers into enums.
        if self._installed is None or _getsignal(DOORBELL) is not self._installed:
            self._installed = self._on_signal
            signal.signal(DOORBELL, self._installed)

    def install_if_main(self) -> None:
        """Hang it up if this is the main thread: handlers can be set, and run, there alone."""
        if threading.get_ident() == self._thread:
            self.install()

    def ring(self) -> None:
        """Ring from any thread of this process. Rings nowhere when it does not hang."""
        if self._thread is not None and self._installed is not None:
            signal.pthread_kill(self._thread, DOORBELL)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        del signum
        found = innermost_gate(frame)
        if isinstance(found, CodeType):
            self._answer(found, frame)
        elif found is BUSY:
            self.waiting = True
            self.on_busy()
            self._clock.set(_RETRY, self.ring)

    def answer_now(self) -> None:
        """Called by a function of ours that the code has called, where raising is safe, if `waiting`.

        Ringing again is not enough for code that calls us all the time (a loop of prints): the thread
        that rings gets its turn when we let go of the interpreter's lock, so it would always meet us.
        """
        if threading.get_ident() == self._thread:
            self.waiting = False
            self._answer(_SAFE, None)


class Unwinder:
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

    @property
    def active(self) -> bool:
        """Whether it raises, or waits to."""
        return self._make is not None

    def raise_once(self, thread: int, make: Callable[[], BaseException | None]) -> None:
        """Raise what `make` gives, if anything, at the next line of Python code, not ours, in `thread`."""
        self._start(thread, make, once=True)

    def unwind(self, thread: int, make: Callable[[], BaseException | None]) -> None:
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
        self._thread, self._make, self._once = thread, make, once
        monitoring.set_events(self._tool, sum(_EVENTS))

    def _on_event(self, code: CodeType, *details: object) -> None:
        del details
        make = self._make
        if make is None or threading.get_ident() != self._thread:
            return
        filename = code.co_filename
        if self._once:
            # Nor in what carries the code, such as the thread's own bootstrap: nobody there would catch it.
            inside = innermost_gate(sys._getframe(1))  # pyright: ignore[reportPrivateUsage] - the code's frame
            if filename.startswith(_PACKAGE) or inside is BUSY or inside is ELSEWHERE:
                return
            self.stop()
        elif not filename.startswith(CELL_PREFIX):
            return
        error = make()
        if error is not None:
            raise error

    def stop(self) -> None:
        """Raise no more."""
        if self._make is not None:
            self._make = None
            if self._tool is not None:
                sys.monitoring.set_events(self._tool, 0)


_EVENTS: Final = (
    sys.monitoring.events.LINE,
    sys.monitoring.events.JUMP,
    sys.monitoring.events.PY_START,
    sys.monitoring.events.PY_RESUME,
    sys.monitoring.events.BRANCH,
)


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


def injected(reason: CancelReason, execution_id: str, timeout: float | None) -> BaseException:
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
