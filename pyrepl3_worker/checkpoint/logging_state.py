"""How the levels of loggers are saved, and the handlers that `logging.basicConfig` makes."""

import os
import sys
from typing import Any, Final, cast

from pyrepl3_worker.checkpoint.initial_state import InitialState
from pyrepl3_worker.checkpoint.process_state import Report, Saver

_ROOT: Final = "root"

type _File = tuple[str, str, str | None, str | None, bool, bool]
"""Path, mode, encoding, errors, whether it is opened late, and whether it is open."""
type _Handler = tuple[str | _File, str | None, int, tuple[str, str | None, str] | None]
"""Stream or file, name, level, and the formatter's format, date format and style."""
type _Logger = tuple[int, bool, bool, list[int]]
"""Level, propagate, disabled, and its handlers by their places in the list of all."""
type _State = tuple[int, dict[str, _Logger], list[_Handler]]
"""What `logging.disable` has set, the loggers that are not as they are made, and all their handlers."""


def _loggers() -> dict[str, Any]:
    import logging

    known = list(logging.root.manager.loggerDict.items())
    return {_ROOT: logging.root} | {name: each for name, each in known if isinstance(each, logging.Logger)}


def _plain(name: str) -> _Logger:
    import logging

    return (logging.WARNING if name == _ROOT else logging.NOTSET, True, False, [])


def _save(_: InitialState, report: Report) -> _State | None:
    import logging

    changed: dict[str, _Logger] = {}
    all_handlers = _described_handlers()
    places = {id(handler): place for place, (_, handler) in enumerate(all_handlers)}
    for name, logger in _loggers().items():
        handlers: list[int] = []
        called = f"logging.getLogger({'' if name == _ROOT else repr(name)})"
        if logger.filters:
            report(f"{called}.filters", "filters are not kept; add them again")
        for handler in logger.handlers:
            place = places.get(id(handler))
            if place is not None:
                handlers.append(place)
            elif type(handler) is not logging.NullHandler:
                report(
                    f"{called}.handlers",
                    f"a {type(handler).__name__} is not made again; add it again",
                )
        state = (logger.level, bool(logger.propagate), bool(logger.disabled), handlers)
        if state != _plain(name):
            changed[name] = state
    disabled = logging.root.manager.disable
    return (disabled, changed, [said for said, _ in all_handlers]) if changed or disabled else None


def _described_handlers() -> list[tuple[_Handler, Any]]:
    """Return the handlers of all loggers that can be made again, each once."""
    each_once = {id(handler): handler for logger in _loggers().values() for handler in logger.handlers}
    described = ((_describe_handler(handler), handler) for handler in each_once.values())
    return [(said, handler) for said, handler in described if said is not None]


def _describe_handler(handler: Any) -> _Handler | None:
    """Return what makes a handler again; None for one that only the code could make again."""
    import logging

    if handler.filters or type(handler) not in (logging.StreamHandler, logging.FileHandler):
        return None
    formatter: tuple[str, str | None, str] | None = None
    if handler.formatter is not None:
        if type(handler.formatter) is not logging.Formatter:
            return None
        styles: dict[Any, str] = {kind: style for style, (kind, _) in logging._STYLES.items()}  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType, reportAttributeAccessIssue]
        style = styles.get(type(handler.formatter._style))  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType]
        if style is None or handler.formatter._fmt is None:  # pyright: ignore[reportPrivateUsage]
            return None
        formatter = (handler.formatter._fmt, handler.formatter.datefmt, style)  # pyright: ignore[reportPrivateUsage]
    attributes = cast("dict[str, Any]", vars(handler))
    look = handler.name, handler.level, formatter
    if type(handler) is logging.FileHandler:
        opened = attributes["stream"] is not None
        if attributes["_closed"] or not attributes.keys() <= _FILE_ATTRIBUTES:
            return None
        how = handler.encoding, handler.errors, bool(handler.delay), opened
        return (handler.baseFilename, handler.mode, *how), *look
    for target in ("stderr", "stdout"):
        if handler.stream is getattr(sys, target) and attributes.keys() <= _STREAM_ATTRIBUTES:
            return target, *look
    return None


_STREAM_ATTRIBUTES: Final = frozenset({"filters", "_name", "level", "formatter", "_closed", "lock", "stream"})
_FILE_ATTRIBUTES: Final = _STREAM_ATTRIBUTES | {
    "baseFilename", "mode", "encoding", "errors", "delay", "_builtin_open",
}  # fmt: skip


def _make_handler(said: _Handler) -> Any:
    import logging

    target, name, level, formatter = said
    if isinstance(target, str):
        handler: Any = logging.StreamHandler(getattr(sys, target))
    else:
        handler = _make_file_handler(*target)
    handler.setLevel(level)
    if name is not None:
        handler.set_name(name)
    if formatter is not None:
        format_text, date_format, style = formatter
        handler.setFormatter(logging.Formatter(format_text, date_format, style))  # pyright: ignore[reportArgumentType]
    return handler


def _make_file_handler(
    path: str,
    mode: str,
    encoding: str | None,
    errors: str | None,
    delay: bool,  # noqa: FBT001
    opened: bool,  # noqa: FBT001
) -> Any:
    """Make a handler that goes on at the end of its file, which is neither made nor emptied.

    Raises:
        OSError: the file is not there.
    """
    import logging

    handler: Any = logging.FileHandler(path, mode, encoding, delay=True, errors=errors)
    handler.delay = delay
    if opened:

        def open_as_it_is(name: str, flags: int) -> int:
            return os.open(name, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))

        handler.stream = open(  # noqa: SIM115 - the handler has it open
            path, mode, encoding=encoding, errors=errors, opener=open_as_it_is
        )
        if handler.stream.seekable():
            handler.stream.seek(0, os.SEEK_END)
    return handler


def live_handlers() -> dict[str, Any]:
    """Return the handlers that are made again with the loggers, by names that say which they are."""
    found: dict[str, Any] = {}
    counts: dict[_Handler, int] = {}
    if "logging" in sys.modules:
        for said, handler in _described_handlers():
            count = counts[said] = counts.get(said, 0) + 1
            found[f"logging.Handler {said!r} {count}"] = handler
    return found


def _restore(saved: _State | None, _: InitialState) -> None:
    import logging

    disabled, changed, wanted = (0, dict[str, _Logger](), list[_Handler]()) if saved is None else saved
    logging.disable(disabled)
    for name in changed:
        if name != _ROOT:
            logging.getLogger(name)
    present = _described_handlers()
    ours = {id(handler) for _, handler in present}
    made: dict[int, Any] = {}
    failure: Exception | None = None
    for place, said in enumerate(wanted):
        same = next((pair for pair in present if pair[0] == said), None)
        try:
            made[place] = _make_handler(said) if same is None else same[1]
        except OSError as error:
            failure = error
        if same is not None:
            present.remove(same)
    for name, logger in _loggers().items():
        level, propagate, is_disabled, handlers = changed.get(name, _plain(name))
        if logger.level != level:
            logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, is_disabled
        kept = [each for each in logger.handlers if id(each) not in ours]
        logger.handlers[:] = kept + [made[place] for place in handlers if place in made]
    for _said, handler in present:
        handler.close()
    if failure is not None:
        raise failure


_LEVELS: Final = {
    50: "CRITICAL", 40: "ERROR", 30: "WARNING", 20: "INFO", 10: "DEBUG", 0: "NOTSET",
}  # fmt: skip


def _save_levels(_: InitialState, __: Report) -> dict[int, str] | None:
    import logging

    names = dict(logging._levelToName)  # pyright: ignore[reportPrivateUsage]
    return {level: name for level, name in names.items() if _LEVELS.get(level) != name} or None


def _restore_levels(saved: dict[int, str] | None, _: InitialState) -> None:
    import logging

    wanted = _LEVELS | (saved or {})
    for level in logging._levelToName.keys() - wanted.keys():  # pyright: ignore[reportPrivateUsage]
        name = logging._levelToName.pop(level)  # pyright: ignore[reportPrivateUsage]
        logging._nameToLevel.pop(name, None)  # pyright: ignore[reportPrivateUsage]
    for level, name in wanted.items():
        if logging.getLevelName(level) != name:
            logging.addLevelName(level, name)


SAVERS: Final = (
    Saver("logging.getLevelName()", "logging", _save_levels, _restore_levels),
    Saver("logging", "logging", _save, _restore),
)
