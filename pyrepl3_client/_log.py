"""Lines in the log: each says whose it is, and none harms the code that writes it."""

import asyncio
import contextlib
import logging
import sys
import traceback
from types import TracebackType

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

    Args:
        logger: where to.
        level: the line's level.
        text: the line, with a `%` field for each of `args`.
        args: what belongs into the fields.
        exc_info: the exception that the line is about.
        extra: what `fields` returns; by default that of no session.
    """
    try:
        logger.log(level, text, *args, exc_info=exc_info, extra=extra or fields(), stacklevel=2)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever the program's handler raises
        # As `logging.Handler.handleError`, which handlers that raise have passed by.
        if logging.raiseExceptions and sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - without a console there is none
            with contextlib.suppress(OSError, ValueError):  # it is closed
                traceback.print_exc(file=sys.stderr)
