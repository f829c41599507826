"""The prompts of debuggers and consoles that the code starts: how they end, and which frames they show.

`pdb` and `code.interact` take a KeyboardInterrupt for an empty line and ask again, so an interrupt of the
session would end nothing. Imported when one of them has asked for the first time.
"""

import sys
from collections.abc import Callable
from functools import wraps
from types import FrameType, ModuleType
from typing import Any, Final, cast

from pyrepl3_worker.code.own_frames import OWN_FOLDERS, is_cell_file

_CONSOLE: Final = "code"
_DEBUGGERS: Final = frozenset({"bdb", "cmd", "pdb"})
_CELL: Final = "_pyrepl3_cell"
"""The attribute of a debugger that holds the file of the cell that it was last in."""

type _Stack = list[tuple[FrameType, int]]


def error_that_ends_prompt(caller: FrameType) -> BaseException | None:
    """Return what ends the prompt for which `input()` was called; None where a KeyboardInterrupt does.

    Args:
        caller: the frame that called `input()`.
    """
    module = caller.f_globals.get("__name__")
    if module == _CONSOLE:
        return EOFError("interrupted")
    if module in _DEBUGGERS and _debugger(caller) is not None:
        return cast(Any, sys.modules["bdb"]).BdbQuit()
    return None


def hide_worker_frames(caller: FrameType) -> None:
    """Let a debugger that asks for a command show, and stop in, no frames but those of the code.

    Args:
        caller: the frame that called `input()`.
    """
    debugger = _debugger(caller)
    if debugger is None:
        return
    _patch(sys.modules["bdb"])
    stack: Any = debugger.__dict__.get("stack")
    if type(stack) is list:
        debugger.stack, debugger.curindex = _visible(cast("_Stack", stack), debugger.curindex)


def _debugger(frame: FrameType | None) -> Any:
    """Return the debugger whose method runs in a frame, or in one that called it."""
    bdb: Any = sys.modules.get("bdb")
    if bdb is None:
        return None
    while frame is not None and frame.f_globals.get("__name__") in _DEBUGGERS:
        owner = frame.f_locals.get("self")
        if issubclass(type(owner), bdb.Bdb):
            return owner
        frame = frame.f_back
    return None


def _is_own(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(OWN_FOLDERS)


def _visible(stack: _Stack, index: int) -> tuple[_Stack, int]:
    """Return a stack, outermost frame first, without what runs the worker, and the new place of its index."""
    first = next((at for at, (frame, _) in enumerate(stack) if is_cell_file(frame.f_code.co_filename)), 0)
    kept = [at for at, (frame, _) in enumerate(stack) if at >= first and not _is_own(frame)]
    if not kept:
        return stack, index
    return [stack[at] for at in kept], max(sum(at <= index for at in kept) - 1, 0)


def _patch(bdb: ModuleType) -> None:
    debugger: Any = vars(bdb)["Bdb"]
    if "__wrapped__" in vars(debugger.get_stack):
        return
    get_stack: Callable[..., tuple[_Stack, int]] = debugger.get_stack
    stop_here: Callable[..., bool] = debugger.stop_here

    @wraps(get_stack)
    def get_visible_stack(self: Any, *args: Any) -> tuple[_Stack, int]:
        return _visible(*get_stack(self, *args))

    @wraps(stop_here)
    def stop_in_code(self: Any, frame: FrameType) -> bool:
        if _is_own(frame):
            return False
        caller, filename = frame.f_back, frame.f_code.co_filename
        if frame.f_trace is None and caller is not None and _is_own(caller):
            # Another cell begins: what steps through one ends with it, and its breakpoints stay.
            if self.__dict__.get(_CELL) != filename:
                self.set_continue()
                return False
        elif is_cell_file(filename):
            self.__dict__[_CELL] = filename
        return stop_here(self, frame)

    debugger.get_stack, debugger.stop_here = get_visible_stack, stop_in_code
