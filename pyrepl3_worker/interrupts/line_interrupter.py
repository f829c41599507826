"""Raises an exception at the next line, or at every line, of a thread's code, by `sys.monitoring`."""

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Final

from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER, is_cell_file
from pyrepl3_worker.interrupts.signals import innermost_user_code_frame


class LineInterrupter:
    """Raises in a thread's Python code from outside, by `sys.monitoring`.

    `PyThreadState_SetAsyncExc` would raise anywhere, also inside this package; and a swallowed
    exception would be gone. Events are switched on only while they are needed, so code pays nothing.
    """

    def __init__(self) -> None:
        """Use no tool id before it is needed."""
        self._tool_id: int | None = None
        self._thread_id: int | None = None
        self._make_error: Callable[[], BaseException | None] | None = None
        self._once = False
        self._watched_code: CodeType | None = None
        """The code whose next instruction is to raise."""

    @property
    def active(self) -> bool:
        """Whether it raises, or waits to."""
        return self._make_error is not None

    def raise_once(self, thread_id: int, make_error: Callable[[], BaseException | None]) -> None:
        """Raise what `make_error` returns at the thread's next line of Python outside the worker.

        Nothing is raised when it returns None.
        """
        self._start(thread_id, make_error, once=True)

    def raise_at_every_line(self, thread_id: int, make_error: Callable[[], BaseException | None]) -> None:
        """Raise at every line of the session's own code in the thread, until `stop`."""
        self._start(thread_id, make_error, once=False)

    def _start(self, thread_id: int, make_error: Callable[[], BaseException | None], *, once: bool) -> None:
        monitoring = sys.monitoring
        if self._tool_id is None:
            free = (tool for tool in (4, 3, 5, 1, 0, 2) if monitoring.get_tool(tool) is None)
            self._tool_id = next(free, None)
            if self._tool_id is None:
                # Every tool id is taken by the code itself; what is left is the last step.
                return
            monitoring.use_tool_id(self._tool_id, "pyrepl3")
            for event in _RAISING_EVENTS:
                monitoring.register_callback(self._tool_id, event, self._raise_on_event)
            for event in _JUMP_EVENTS:
                monitoring.register_callback(self._tool_id, event, self._on_jump)
            monitoring.register_callback(self._tool_id, monitoring.events.INSTRUCTION, self._raise_on_event)
        self._thread_id, self._make_error, self._once = thread_id, make_error, once
        monitoring.set_events(self._tool_id, sum(_RAISING_EVENTS + _JUMP_EVENTS))

    def _should_raise(self, code: CodeType, frame: FrameType) -> bool:
        """Return whether to raise in `frame`, which runs `code`."""
        if self._make_error is None or threading.get_ident() != self._thread_id:
            return False
        filename = code.co_filename
        if not self._once:
            return is_cell_file(filename)
        if filename.startswith(PACKAGE_FOLDER):
            return False
        # Nor in what carries the code, such as the thread's own bootstrap, which would not catch it.
        return isinstance(innermost_user_code_frame(frame), CodeType)

    def _raise_on_event(self, code: CodeType, *details: object) -> None:
        del details
        make_error = self._make_error
        if make_error is None or not self._should_raise(code, sys._getframe(1)):  # pyright: ignore[reportPrivateUsage] - the code's frame
            return
        if self._once:
            self.stop()
        else:
            self._watch_instructions(None)
        error = make_error()
        if error is not None:
            raise error

    def _on_jump(self, code: CodeType, *details: object) -> None:
        # What is raised from a jump event is looked up at the wrong place, past the code's own handlers (in
        # 3.12 and 3.13). So the instruction that the jump leads to raises.
        del details
        if code is not self._watched_code and self._should_raise(code, sys._getframe(1)):  # pyright: ignore[reportPrivateUsage] - as above
            self._watch_instructions(code)

    def _watch_instructions(self, code: CodeType | None) -> None:
        before, self._watched_code = self._watched_code, code
        if self._tool_id is not None:
            if before is not None:
                sys.monitoring.set_local_events(self._tool_id, before, 0)
            if code is not None:
                sys.monitoring.set_local_events(self._tool_id, code, sys.monitoring.events.INSTRUCTION)

    def stop(self) -> None:
        """Raise no more."""
        if self._make_error is not None:
            self._make_error = None
            self._watch_instructions(None)
            if self._tool_id is not None:
                sys.monitoring.set_events(self._tool_id, 0)


_RAISING_EVENTS: Final = (
    sys.monitoring.events.LINE,
    sys.monitoring.events.PY_START,
    sys.monitoring.events.PY_RESUME,
)


_JUMP_EVENTS: Final = (sys.monitoring.events.JUMP, sys.monitoring.events.BRANCH)
"""A loop of one line raises no other events."""
