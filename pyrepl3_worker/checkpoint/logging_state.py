"""How the levels of loggers are saved, and the handlers that `logging.basicConfig` makes."""

import sys
from typing import Any, Final

from pyrepl3_worker.checkpoint.initial_state import InitialState
from pyrepl3_worker.checkpoint.process_state import Report, Saver

_ROOT: Final = "root"

type _Handler = tuple[str, str, str, str, int, tuple[str, str | None, str] | None]
"""Kind, target, mode, encoding, level, and the formatter's format, date format and style."""
type _Logger = tuple[int, bool, bool, list[_Handler]]
"""Level, propagate, disabled, handlers."""
type _State = tuple[int, dict[str, _Logger]]
"""What `logging.disable` has set, and the loggers that are not as they are made."""


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
    for name, logger in _loggers().items():
        handlers: list[_Handler] = []
        called = f"logging.getLogger({'' if name == _ROOT else repr(name)})"
        if logger.filters:
            report(f"{called}.filters", "filters are not kept; add them again")
        for handler in logger.handlers:
            said = _describe_handler(handler)
            if said is not None:
                handlers.append(said)
            elif type(handler) is not logging.NullHandler:
                report(
                    f"{called}.handlers",
                    f"a {type(handler).__name__} is not made again; add it again",
                )
        state = (logger.level, bool(logger.propagate), bool(logger.disabled), handlers)
        if state != _plain(name):
            changed[name] = state
    disabled = logging.root.manager.disable
    return (disabled, changed) if changed or disabled else None


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
    if type(handler) is logging.FileHandler:
        # What it has written stays: the file is not opened as a new one.
        mode = handler.mode.replace("w", "a").replace("x", "a")
        return "file", handler.baseFilename, mode, handler.encoding or "", handler.level, formatter
    for target in ("stderr", "stdout"):
        if handler.stream is getattr(sys, target):
            return "stream", target, "", "", handler.level, formatter
    return None


def _make_handler(said: _Handler) -> Any:
    import logging

    kind, target, mode, encoding, level, formatter = said
    if kind == "file":
        handler: Any = logging.FileHandler(target, mode, encoding or None)
    else:
        handler = logging.StreamHandler(getattr(sys, target))
    handler.setLevel(level)
    if formatter is not None:
        format_text, date_format, style = formatter
        handler.setFormatter(logging.Formatter(format_text, date_format, style))  # pyright: ignore[reportArgumentType]
    return handler


def _restore(saved: _State | None, _: InitialState) -> None:
    import logging

    disabled, changed = (0, dict[str, _Logger]()) if saved is None else saved
    logging.disable(disabled)
    for name in changed:
        if name != _ROOT:
            logging.getLogger(name)
    failure: Exception | None = None
    for name, logger in _loggers().items():
        level, propagate, is_disabled, handlers = changed.get(name, _plain(name))
        if logger.level != level:
            logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, is_disabled
        present = [(said, each) for each in logger.handlers if (said := _describe_handler(each)) is not None]
        kept = [each for each in logger.handlers if _describe_handler(each) is None]
        made: list[Any] = []
        for said in handlers:
            same = next((pair for pair in present if pair[0] == said), None)
            if same is not None:
                present.remove(same)
                made.append(same[1])
                continue
            try:
                made.append(_make_handler(said))
            except OSError as error:
                failure = error
        for _said, handler in present:
            handler.close()
        logger.handlers[:] = kept + made
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
