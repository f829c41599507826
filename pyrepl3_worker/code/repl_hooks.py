"""What Python's own REPL does around code: `sys.last_exc` and its kin, displayhook and excepthook."""

import sys
from collections.abc import Callable
from typing import Final

from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER
from pyrepl3_worker.errors import CompilationError, cause_of, set_context, traceback_of

DISPLAYHOOK: Final = sys.displayhook
"""The interpreter's own, which a session does not call: results go to the client."""
EXCEPTHOOK: Final = sys.excepthook


def drop_outer_own_frames(error: BaseException) -> None:
    """Let an exception's traceback begin at the first frame that is not the worker's."""
    step = traceback_of(error)
    while step is not None and step.tb_frame.f_code.co_filename.startswith(PACKAGE_FOLDER):
        step = step.tb_next
    if step is not None:
        # Not by attribute: the code's own class may have one of that name.
        BaseException.with_traceback(error, step)


def remember_last_error(error: BaseException) -> None:
    """Set `sys.last_exc`, and `sys.last_type`, `last_value` and `last_traceback`, which older code reads."""
    shown = _shown(error)
    if shown is not error:
        shown = shown.with_traceback(None)
    sys.last_exc = sys.last_value = shown
    sys.last_type = type(shown)
    sys.last_traceback = traceback_of(shown)


def call_excepthook(error: BaseException) -> None:
    """Call the code's own `sys.excepthook`, as for any exception that ends a cell.

    Raises:
        BaseException: what the hook raises.
    """
    if not issubclass(type(error), Exception):
        return
    shown = _shown(error)
    sys.excepthook(type(shown), shown, traceback_of(shown) if shown is error else None)


def print_failed_excepthook(failed: BaseException) -> None:
    """Print what the code's own `sys.excepthook` has raised."""
    from traceback import print_exception

    drop_outer_own_frames(failed)
    set_context(failed, None)
    print("Error in sys.excepthook:", file=sys.stderr)
    try:
        print_exception(failed)
    except TimeoutError:
        raise  # what a timeout raises in the exception's own code
    except Exception:
        print(f"{_name_of_type(type(failed))} (it cannot be described)", file=sys.stderr)


def _shown(error: BaseException) -> BaseException:
    """Return the compiler's own error in place of what the worker has made of it."""
    cause = cause_of(error) if issubclass(type(error), CompilationError) else None
    return cause if cause is not None and issubclass(type(cause), SyntaxError) else error


_name_of_type: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__
