"""Lines in the log: each says whose it is, and none harms the code that writes it."""

import asyncio
import contextlib
import logging
import sys
import traceback
from types import TracebackType
from typing import Final

from pyrepl3_client._text import as_log_line, printable

_HEADER: Final = "Traceback "

type ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def fields(
    session: str = "",
    execution: str | None = None,
    worker: int | None = None,
    event: object | None = None,
) -> dict[str, object]:
    """Return what every record of ours has as `extra`; None where there is none."""
    return {"session": session or None, "execution": execution, "worker": worker, "event": event}


def write(
    logger: logging.Logger,
    level: int,
    text: str,
    *args: object,
    exc_info: BaseException | ExcInfo | None = None,
    extra: dict[str, object] | None = None,
) -> None:
    """Log a line. What a handler or a filter of the program raises is printed on stderr, and goes no further.

    Code chooses a part of many texts (names, messages of exceptions, what a worker has written). So control
    characters are escaped, and further lines are indented: none of them passes for a line of its own.

    Args:
        logger: where to.
        level: the line's level.
        text: the line, with a `%` field for each of `args`.
        args: what belongs into the fields.
        exc_info: the exception that the line is about.
        extra: what `fields` returns; by default that of no session.
    """
    if not logger.isEnabledFor(level):
        return
    try:
        line = text % args if args else text
        safe = as_log_line(line)
        if safe != line:
            text, args = safe, ()
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        path, number, function, _ = logger.findCaller(stack_info=False, stacklevel=2)
        record = logger.makeRecord(
            logger.name, level, path, number, text, args, exc_info, function, extra or fields()
        )
        if exc_info is not None:
            record.exc_text = _safe_traceback(exc_info)
        logger.handle(record)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever the program's handler raises
        # As `logging.Handler.handleError`, which handlers that raise have passed by.
        if logging.raiseExceptions and sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - without a console there is none
            with contextlib.suppress(OSError, ValueError):  # it is closed
                traceback.print_exc(file=sys.stderr)


def _safe_traceback(exc_info: ExcInfo) -> str | None:
    """Return a traceback none of whose lines passes for one of the log's; None if that is so as it is.

    A handler takes this instead of the traceback that it would make (`logging.Formatter.format`).
    """
    chunks = traceback.format_exception(*exc_info)
    # The exception's text, whose first line follows the frames; notes follow it.
    texts = [chunk for chunk in chunks if chunk[0] not in " \n" and not chunk.startswith(_HEADER)]
    exceptions = sum(chunk.startswith(_HEADER) for chunk in chunks)
    text = "".join(chunks).rstrip("\n")
    is_plain = len(texts) <= max(exceptions, 1) and not any("\n" in each.rstrip("\n") for each in texts)
    if is_plain and printable(text) == text:
        return None
    return "    " + as_log_line(text)
