"""Keeps the worker's own lines out of what the code prints: its tracebacks and its warnings.

`traceback` prints for most others: `print_exc`, `logging.exception`, `threading.excepthook`, a loop's
handler of exceptions. So the frames are left out where it collects them.
"""

import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import pairwise
from types import CoroutineType, FrameType, TracebackType
from typing import Any, Final, cast

from pyrepl3_worker.code import own_frames
from pyrepl3_worker.code.own_frames import is_cell_file
from pyrepl3_worker.rendering.reprs import safe_repr

_NOWHERE: Final = ("<sys>", 0) if sys.version_info >= (3, 13) else ("sys", 1)
"""What Python says of a warning whose `stacklevel` leads past the outermost frame."""
_MAX_REPR_CHARS: Final = 200

type _Frames = Iterable[tuple[FrameType, tuple[int | None, ...]]]
type _Found = list[tuple[FrameType, tuple[int | None, ...]]]


class OwnLines:
    """Hides the worker's frames from `traceback`, and its files from `warnings`, until `show`."""

    def __init__(self) -> None:
        """Hide nothing yet."""
        self._hides = False

    def hide(self) -> None:
        """Hide them from now on; to be called once in a process."""
        self._hides = True
        summary: Any = traceback.StackSummary
        summary._extract_from_extended_frame_gen = classmethod(
            self._wrap_extract(summary.__dict__["_extract_from_extended_frame_gen"].__func__)
        )
        module: Any = warnings
        module._showwarnmsg = self._wrap_showwarnmsg(module._showwarnmsg)
        sys.unraisablehook = sys.__unraisablehook__ = self._wrap_unraisablehook(sys.unraisablehook)
        threading.excepthook = threading.__excepthook__ = self._wrap_thread_hook(threading.excepthook)

    def show(self) -> None:
        """Show them: the worker itself has failed."""
        self._hides = False

    def _wrap_extract(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def extract(summary: type, frames: _Frames, **options: Any) -> Any:
            # Taken from this very function, as by the original: `traceback.walk_stack(None)` counts frames.
            found = list(frames)
            return original(summary, _without_own(found) if self._hides else found, **options)

        return extract

    def _wrap_showwarnmsg(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        def showwarnmsg(message: Any) -> None:
            if self._hides and str(message.filename).startswith(own_frames.hidden_prefixes):
                _move_to_code(message)
            original(message)

        return showwarnmsg

    # The interpreter's own two print in C, from 3.13 on in part.

    def _wrap_unraisablehook(self, original: Callable[[Any], object]) -> Callable[[Any], object]:
        @wraps(original)
        def unraisablehook(unraisable: Any, /) -> object:
            # The original says what is wrong with an argument of another type.
            is_report = type(unraisable).__name__ == "UnraisableHookArgs"
            error = unraisable.exc_value if is_report else None
            if error is None or not self._hides or not _leads_through_own(unraisable.exc_traceback):
                return original(unraisable)
            what = unraisable.err_msg or "Exception ignored in"
            where = "" if unraisable.object is None else f": {safe_repr(unraisable.object, _MAX_REPR_CHARS)}"
            print(f"{what}{where}", file=sys.stderr)
            return traceback.print_exception(error)

        return unraisablehook

    def _wrap_thread_hook(self, original: Callable[[Any], object]) -> Callable[[Any], object]:
        @wraps(original)
        def excepthook(args: Any, /) -> object:
            error = args.exc_value if type(args) is threading.ExceptHookArgs else None
            if error is None or not self._hides or not _leads_through_own(args.exc_traceback):
                return original(args)
            if issubclass(args.exc_type, SystemExit):
                return None
            thread: threading.Thread | None = args.thread
            name = threading.get_ident() if thread is None else thread.name
            print(f"Exception in thread {name}:", file=sys.stderr)
            return traceback.print_exception(error)

        return excepthook


def _leads_through_own(step: TracebackType | None) -> bool:
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith(own_frames.hidden_prefixes):
            return True
        step = step.tb_next
    return False


def _without_own(found: _Found) -> _Found:
    if not any(frame.f_code.co_filename.startswith(own_frames.hidden_prefixes) for frame, _ in found):
        return found
    inside = set(_inside_code([frame for frame, _ in found]))
    return [
        entry
        for at, entry in enumerate(found)
        if at in inside and not entry[0].f_code.co_filename.startswith(own_frames.hidden_prefixes)
    ]


def _inside_code(frames: list[FrameType]) -> Iterator[int]:
    """Yield the indices of frames that are not outside of the outermost cell: those run the worker."""
    cells = [at for at, frame in enumerate(frames) if is_cell_file(frame.f_code.co_filename)]
    if not cells:
        return iter(range(len(frames)))
    innermost_first = any(inner.f_back is outer for inner, outer in pairwise(frames))
    return iter(range(cells[-1] + 1) if innermost_first else range(cells[0], len(frames)))


def _move_to_code(message: Any) -> None:
    """Give a warning that seems to come from the worker a place in the code, if one is known."""
    message.filename, message.lineno = _NOWHERE
    source = message.source
    if type(source) is CoroutineType:
        code = cast("CoroutineType[Any, Any, Any]", source).cr_code
        if not code.co_filename.startswith(own_frames.hidden_prefixes):
            message.filename, message.lineno = code.co_filename, code.co_firstlineno


own_lines: Final = OwnLines()
"""The process's one."""
