"""What Python's own REPL does around code: `sys.last_exc` and its kin, displayhook and excepthook."""

import sys
from types import TracebackType
from typing import Final

from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER

DISPLAYHOOK: Final = sys.displayhook
"""The interpreter's own, which a session does not call: results go to the client."""
EXCEPTHOOK: Final = sys.excepthook


def drop_outer_own_frames(error: BaseException) -> None:
    """Let an exception's traceback begin at the first frame that is not the worker's."""
    step: TracebackType | None = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename.startswith(PACKAGE_FOLDER):
        step = step.tb_next
    if step is not None:
        # Not by attribute: the code's own class may have one of that name.
        BaseException.with_traceback(error, step)


def remember_last_error(error: BaseException) -> None:
    """Set `sys.last_exc`, and `sys.last_type`, `last_value` and `last_traceback`, which older code reads."""
    if issubclass(type(error), SyntaxError) and isinstance(error.__cause__, SyntaxError):
        shown: BaseException = error.__cause__.with_traceback(None)  # the compiler's own error
    else:
        shown = error
    sys.last_exc = sys.last_value = shown
    sys.last_type = type(shown)
    sys.last_traceback = shown.__traceback__


def call_excepthook(error: BaseException) -> None:
    """Call the code's own `sys.excepthook`, as for any exception that ends a cell."""
    if not issubclass(type(error), Exception):
        return
    cause = error.__cause__
    shown = cause if issubclass(type(error), SyntaxError) and isinstance(cause, SyntaxError) else error
    try:
        sys.excepthook(type(shown), shown, None if shown is cause else shown.__traceback__)
    except Exception as failed:
        from traceback import print_exception

        drop_outer_own_frames(failed)
        failed.__context__ = None
        print("Error in sys.excepthook:", file=sys.stderr)
        print_exception(failed)
