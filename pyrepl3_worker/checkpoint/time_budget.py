"""Stops the own code of objects that are saved or restored when it takes too long.

Their `__reduce__` or `__setstate__` may hang, catch every exception, or fork. They run on the event
loop's thread, so everything else waits for them. A timer sends the wake-up signal, and the signal's
handler asks here whether the running code has used up its time (see `execution.canceller`).
"""

import sys
import threading
from collections.abc import Callable
from importlib import _bootstrap  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType] - its frames tell of an import
from os import O_CLOEXEC, O_RDONLY, getpid, read  # by name, as all here: the code may replace attributes
from os import close as os_close
from os import open as os_open
from time import clock_gettime, monotonic, pthread_getcpuclockid
from types import CodeType, FrameType
from typing import Any, Final, cast

from pyrepl3_worker.execution.execution import exit_forked_child
from pyrepl3_worker.interrupts.line_interrupter import LineInterrupter
from pyrepl3_worker.interrupts.signals import WakeupSignal, call_user_code
from pyrepl3_worker.interrupts.timers import Timer, TimerThread
from pyrepl3_worker.isolation.builtins_guard import discard_user_hooks

DEFAULT_SECONDS: Final = 10.0
"""Seconds that one checkpoint or one restore may take in all, when the client sets no other limit."""
_MIN_SECONDS: Final = 0.001
_MIN_CALL_SECONDS: Final = 1e-6
_PIECE_SECONDS: Final = 1.0
"""Seconds that reading a piece of a pickle (64 KiB) never takes, on whatever machine."""
IMPORT_FUNCTION: Final[CodeType] = cast(Any, _bootstrap)._find_and_load.__code__
"""Runs for each import of a module that is not loaded; its `name` is the module's."""
_IMPORT_FILE: Final = IMPORT_FUNCTION.co_filename
_CALL_USER_CODE: Final = call_user_code.__code__
_CLEANUP_SECONDS: Final = 0.2
"""Seconds that interrupted code has to clean up before it is interrupted at every line."""


class BudgetInterrupt(BaseException):
    """Raised in code that has used up its time. It is no `Exception`, which that code might catch."""


class BudgetExceeded(Exception):  # noqa: N818 - it is an outcome, and reported as one
    """An object's own code took too long and was stopped; the text is the reason for the user."""


class TimeBudget:
    """Shares one time limit among all objects' own code: each may take half of what is left.

    Only that code's time counts. Plain data is pickled for as long as it takes; while modules are imported,
    and while this thread waits for a processor, the clock stands still: so a busy machine saves the same
    names as a quiet one.
    """

    def __init__(self, timers: TimerThread | None = None, wakeup: WakeupSignal | None = None) -> None:
        """Use these timers and this signal; without them, wait for objects' code without limit."""
        self._timers = timers
        self._wakeup = wakeup
        self._line_interrupter = LineInterrupter()
        self._timer: Timer | None = None
        self._thread_id = threading.get_ident()
        self._clock = _WaitingClock()
        self._started = False
        self._code_left = 0.0
        """Seconds that objects' code may take, all together."""
        self._share_left = 0.0
        """Seconds that the code of the object at hand may take."""
        self._running = False
        """Whether a call of `run` or `run_data` is under way."""
        self._deadline: float | None = None
        """When the running code has used up its time (`time.monotonic`); None while none runs."""
        self._end: float | None = None
        """When everything has to end, plain data included; None for never."""
        self._end_reason = ""
        self._share = 0.0
        self._interrupts_raised = 0
        self._entered: float | None = None
        """When the running code began (`time.monotonic`); None while none runs."""
        self._code_wall = 0.0
        """Seconds since the last check in which objects' code ran, before what runs now."""
        self._last_check = 0.0
        self._last_progress = 0.0

    def start(self, code_seconds: float | None, seconds: float | None = None) -> None:
        """Start the time limits that all calls share.

        Args:
            code_seconds: seconds for objects' own code; None for `DEFAULT_SECONDS`.
            seconds: seconds for everything; None for as long as it takes.
        """
        now = self._last_check = monotonic()
        self._code_wall = 0.0
        self._thread_id = threading.get_ident()
        self._code_left = DEFAULT_SECONDS if code_seconds is None else code_seconds
        self._end = None if seconds is None else now + seconds
        self._end_reason = "" if seconds is None else f"the {_format_seconds(seconds)} for all were over"
        self._started = True
        self._clock.start()
        if self._wakeup is not None:
            self._wakeup.install_if_main()
        self._set_timer(self._code_left / 4)

    def stop(self) -> None:
        """Stop the timer: the checkpoint or restore is done."""
        self._started = False
        self._clock.stop()
        self._end = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def end_now(self, reason: str) -> None:
        """Have everything that is under way end as soon as it can; nothing more is begun."""
        if self._started:
            self._end, self._end_reason = monotonic(), reason

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that runs objects' own code, and stop it when its share of the time is over.

        Raises:
            BudgetExceeded: it took longer, and was stopped.
            BaseException: the code raised it; `SystemExit` and the like are the caller's to report too.
        """
        return self._run(function, arguments, timed=True)

    def run_data(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that handles plain data, and objects' own code by `call_code`; only that is timed.

        Raises:
            BudgetExceeded: the code took longer than its share, or everything had to end.
            BaseException: the code raised it.
        """
        return self._run(function, arguments, timed=False)

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...], *, timed: bool) -> Any:
        if self._running or self._timers is None:
            return function(*arguments)
        pid, now = getpid(), monotonic()
        if self._end is not None and now >= self._end:
            raise BudgetExceeded(self._end_reason)
        share = self._share = self._share_left = max(self._code_left / 2, _MIN_SECONDS)
        self._interrupts_raised = 0
        self._running = True
        self._deadline = now + share if timed else None
        self._entered = now if timed else None
        self._last_progress = now
        try:
            result = call_user_code(function, *arguments)
        except BaseException as error:
            self._deadline = None
            if getpid() != pid:
                exit_forked_child(error)
            if self._interrupts_raised:
                over = self._end is not None and monotonic() >= self._end
                reason = self._end_reason if over else describe_excess(share)
                raise BudgetExceeded(reason) from None
            raise
        finally:
            if timed:
                self._code_left -= monotonic() - now
            self._deadline = self._entered = None
            self._running = False
            discard_user_hooks()
            if self._line_interrupter.active:
                self._line_interrupter.stop()
        if getpid() != pid:
            exit_forked_child(None)
        return result

    def call_code(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call an object's own code inside `run_data`: from here until it returns, its time counts.

        Raises:
            BudgetInterrupt: its object has used up its time.
            BaseException: the code raised it.
        """
        if self._deadline is not None or not self._running:
            return function(*arguments)
        if self._share_left <= 0:
            self._interrupts_raised += 1
            raise BudgetInterrupt
        started = self._entered = monotonic()
        self._deadline = started + self._share_left
        try:
            return call_user_code(function, *arguments)
        finally:
            self._deadline = self._entered = None
            ended = monotonic()
            self._code_wall += ended - max(started, self._last_check)
            # Also what takes no time is not called without end.
            taken = max(ended - started, _MIN_CALL_SECONDS)
            self._share_left -= taken
            self._code_left -= taken

    def share(self) -> float:
        """Return the seconds that objects' own code may take elsewhere, as one object may here."""
        share = max(self._code_left / 2, _MIN_SECONDS) if self._started else DEFAULT_SECONDS / 2
        return share if self._end is None else max(min(share, self._end - monotonic()), _MIN_SECONDS)

    def charge(self, seconds: float) -> None:
        """Count seconds that objects' own code has taken elsewhere."""
        self._code_left -= seconds

    def note_progress(self) -> None:
        """Take note that a piece of plain data has been read inside `run`.

        Objects' code between two pieces can't be told from the reading, which takes a piece of its size a few
        milliseconds: only what goes beyond a second counts.
        """
        if self._deadline is not None:
            now = monotonic()
            taken = now - self._last_progress - _PIECE_SECONDS
            if taken > 0:
                self._share_left -= taken
                self._code_left -= taken
            self._last_progress = now
            self._deadline = now + _PIECE_SECONDS + max(self._share_left, 0.0)

    def run_untimed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that may take as long as it takes: an import, which must never be cut in two.

        Raises:
            BaseException: the function raised it.
        """
        deadline, self._deadline = self._deadline, None
        end, self._end = self._end, None
        started = monotonic()
        try:
            return call_user_code(function, *arguments)
        finally:
            taken = monotonic() - started
            self._end = end
            self._deadline = None if deadline is None else deadline + taken
            self._last_progress += taken

    def overdue_error(self) -> BaseException | None:
        """Return the exception to raise in the running code, if its time is over; for the signal's handler.

        From the second time on, the code is interrupted at every line. An import is not interrupted.
        """
        now = monotonic()
        if not self._is_overdue(now):
            return None
        if self._running and is_importing(sys._getframe()):  # pyright: ignore[reportPrivateUsage] - the code's stack
            if self._deadline is not None:
                self._deadline = max(self._deadline, now + _CLEANUP_SECONDS)
            return None
        self._interrupts_raised += 1
        if self._deadline is not None:
            self._deadline = now + _CLEANUP_SECONDS
        if self._interrupts_raised > 1:
            self._line_interrupter.raise_at_every_line(threading.get_ident(), BudgetInterrupt)
        return BudgetInterrupt()

    def _is_overdue(self, now: float) -> bool:
        if not self._running:
            return False
        deadline, end = self._deadline, self._end
        return (deadline is not None and now >= deadline) or (end is not None and now >= end)

    def _set_timer(self, delay: float) -> None:
        if self._timers is not None and self._started:
            self._timer = self._timers.call_later(
                min(max(delay, _MIN_SECONDS), _CLEANUP_SECONDS), self._check_deadline
            )

    def _check_deadline(self) -> None:
        """Send the wake-up signal if the running code's time is over; runs on the timer thread."""
        if not self._started or self._wakeup is None:
            return
        now = monotonic()
        free = self._clock.waited()
        if self._deadline is not None and is_importing(sys._current_frames().get(self._thread_id)):  # pyright: ignore[reportPrivateUsage] - the code's stack, seen from here
            free = now - self._last_check
        # Only what the code was charged: of the time that its thread has waited, the part in which it ran.
        # The rest would be a gift, and code that is called without end would get more than it uses up.
        entered, charged = self._entered, self._code_wall
        if entered is not None:
            charged += now - max(entered, self._last_check)
        free *= min(charged / max(now - self._last_check, _MIN_CALL_SECONDS), 1.0)
        self._code_wall, self._last_check = 0.0, now
        if free > 0:
            self._code_left += free
            self._share_left += free
            if self._deadline is not None:
                self._deadline += free
                self._last_progress += free
        if self._is_overdue(now):
            self._wakeup.send()
        due = self._deadline
        self._set_timer(due - now if due is not None and due > now else self._share)


class _WaitingClock:
    """Tells for how long a thread has waited for a processor: it could run, and its CPU time stood still."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._clock_id = 0
        self._stat = ""
        self._last_wall = self._last_cpu = 0.0

    def start(self) -> None:
        """Begin to count for the calling thread."""
        self._clock_id = pthread_getcpuclockid(threading.get_ident())
        self._stat = f"/proc/self/task/{threading.get_native_id()}/stat"
        self.waited()

    def stop(self) -> None:
        """Have no fd open from now on: it might have the number of one that the code has closed."""
        with self._lock:
            self._stat = ""

    def waited(self) -> float:
        """Return the seconds for which the thread has waited since this was asked last; from any thread."""
        wall, cpu = monotonic(), clock_gettime(self._clock_id)
        waited = (wall - self._last_wall) - (cpu - self._last_cpu)
        self._last_wall, self._last_cpu = wall, cpu
        return max(waited, 0.0) if self._could_run() else 0.0

    def _could_run(self) -> bool:
        """Return whether the thread is running or could run, by its state in `/proc`: it does not sleep."""
        with self._lock:
            try:
                fd = os_open(self._stat, O_RDONLY | O_CLOEXEC)
            except OSError:
                return False  # then waiting counts as running
            try:
                return read(fd, 512).rpartition(b")")[2].split()[:1] == [b"R"]
            except OSError:
                return False
            finally:
                os_close(fd)


def describe_excess(share: float) -> str:
    """Return what a report says of code that took longer than its share."""
    return f"it took longer than {_format_seconds(share)}"


def is_importing(frame: FrameType | None) -> bool:
    """Return whether the code of a stack is importing a module, down to where the worker has called it."""
    while frame is not None and frame.f_code is not _CALL_USER_CODE:
        if frame.f_code.co_filename == _IMPORT_FILE:
            return True
        frame = frame.f_back
    return False


def _format_seconds(share: float) -> str:
    return f"{share:.3g} s"
