"""Where Python drops what is raised, outside of the code: it would not end the cell that it is meant for."""

import logging
import os
import sys
import traceback
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, Final

_TRACEBACK: Final = traceback.__file__
_LOGGING: Final = os.path.dirname(logging.__file__) + os.sep
_SAYS_WHAT_FAILED: Final = frozenset({"_safe_string", "_compute_suggestion_error"})
"""What `traceback` calls the code's `__str__`, `__repr__` and `__dir__` in; it drops every exception."""


def is_dropped(frame: FrameType | None, error: BaseException) -> bool:
    """Return whether a part of Python on the stack drops what is raised in a frame.

    Args:
        frame: the innermost one.
        error: what is raised.
    """
    hook = _code_of(sys.unraisablehook)
    inner = ""
    while frame is not None:
        code = frame.f_code
        if code is hook or _drops(code, inner, error):
            return True
        frame, inner = frame.f_back, code.co_filename
    return False


def _drops(code: CodeType, inner: str, error: BaseException) -> bool:
    """Return whether a function drops an error that comes from a function of the file `inner`."""
    if code.co_filename == _TRACEBACK:
        reads_notes = code.co_name == "__init__" and inner != _TRACEBACK
        return code.co_name in _SAYS_WHAT_FAILED or (reads_notes and isinstance(error, Exception))
    return code.co_name == "emit" and code.co_filename.startswith(_LOGGING) and isinstance(error, Exception)


def _code_of(hook: Any) -> CodeType | None:
    if type(hook) is MethodType:
        hook = hook.__func__
    return hook.__code__ if type(hook) is FunctionType else None
