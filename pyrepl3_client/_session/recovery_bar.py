"""Shows a person what a session that comes back is at."""

import os
import sys
from typing import Final, TextIO

from pyrepl3_client._session.recovery_report import Recovery
from pyrepl3_schemas.executor_config import shown

_CELLS: Final = 20
_CLEAR: Final = "\r\x1b[K"
"""To the line's beginning, and erase it."""
_DEFAULT_COLUMNS: Final = 80


def recovery_line(report: Recovery, columns: int) -> str:
    """Return what a recovery is at as one line of at most so many characters; empty if it is done."""
    progress = report.progress
    if progress is None:
        return ""
    bar = ""
    if progress.total:
        filled = _CELLS * min(progress.done, progress.total) // progress.total
        bar = f"[{'#' * filled}{'.' * (_CELLS - filled)}] "
    line = f"{bar}{report.seconds:.0f} s: {progress}"
    return "".join(each if each.isprintable() else "?" for each in line)[:columns]


class RecoveryBar:
    """A handler for `on_recovery`: one line with a bar, while a recovery takes longer than a second.

    It is shown on a terminal alone, and erased when the session is back.

        open_session(on_recovery=RecoveryBar())
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to a stream; None is `sys.stderr` as it is then.

        Raises:
            TypeError: it is no stream.
        """
        if stream is not None:
            try:
                _ = stream.write, stream.flush, stream.isatty
            except AttributeError:
                raise TypeError(f"stream must be a text stream or None, not {shown(stream)}") from None
        self._stream = stream
        self._shown = False

    def __call__(self, report: Recovery) -> None:
        """Show a report, or erase the line if it is the last."""
        stream = sys.stderr if self._stream is None else self._stream
        if stream is None or not stream.isatty():  # pyright: ignore[reportUnnecessaryComparison] - a program without a console
            return
        line = recovery_line(report, _columns_of(stream) - 1)
        if line or self._shown:
            stream.write(_CLEAR + line)
            stream.flush()
        self._shown = bool(line)


def _columns_of(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_COLUMNS
    except (OSError, ValueError):
        return _DEFAULT_COLUMNS
