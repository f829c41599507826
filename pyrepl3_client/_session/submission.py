"""Checks what a session is asked to run."""

from os import PathLike, fspath
from typing import Final, cast, get_args

from pyrepl3_client._journal.protocol import OnError, Spec
from pyrepl3_client.config import checked_choice, checked_seconds
from pyrepl3_schemas.constants import MAX_FIRST_LINE
from pyrepl3_schemas.executor_config import as_int, shown
from pyrepl3_schemas.messages import ResultMode

_RESULT_MODES: Final = frozenset(get_args(ResultMode.__value__))
_ON_ERROR: Final = frozenset(get_args(OnError.__value__))
_MAX_FILENAME_CHARS: Final = 4096


def checked_spec(
    code: str,
    timeout: float | None,
    result_mode: ResultMode,
    filename: str | PathLike[str] | None,
    first_line: int,
    on_error: OnError,
) -> Spec:
    """Return what is to be run, from the arguments of `Session.start`.

    Raises:
        ValueError, TypeError: an argument has the wrong value or type.
    """
    if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"code must be a string, not {shown(code)}")
    if timeout is not None:
        timeout = checked_seconds("timeout", timeout)
    try:
        known = result_mode in _RESULT_MODES and on_error in _ON_ERROR
    except TypeError:  # what has no hash is no word
        known = False
    if not known:
        checked_choice("result_mode", result_mode, _RESULT_MODES)
        checked_choice("on_error", on_error, _ON_ERROR)
    if filename is None:
        if first_line != 1:
            raise ValueError("first_line counts the lines of a file: name it by filename=")
        return Spec(code, timeout, result_mode, on_error=on_error)
    return Spec(
        code,
        timeout,
        result_mode,
        filename=_checked_filename(filename),
        first_line=_checked_line(first_line),
        on_error=on_error,
    )


def _checked_filename(filename: object) -> str:
    if isinstance(filename, PathLike):
        filename = fspath(cast("PathLike[str]", filename))
    if not isinstance(filename, str):
        raise TypeError(f"filename must be a string or a path, not {shown(filename)}")
    if not 0 < len(filename) <= _MAX_FILENAME_CHARS or not filename.isprintable():
        raise ValueError(
            f"filename must be 1 to {_MAX_FILENAME_CHARS} printable characters, not {filename[:100]!r}"
        )
    if filename.startswith("<cell "):
        raise ValueError(f"filename must not be {filename[:100]!r}: such names are made by the session")
    return filename


def _checked_line(first_line: int) -> int:
    number = as_int("first_line", first_line)
    if not 1 <= number <= MAX_FIRST_LINE:
        raise ValueError(f"first_line must be between 1 and {MAX_FIRST_LINE}, not {shown(first_line)}")
    return number
