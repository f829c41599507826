"""How the switches of the interpreter's runtime are saved: hooks, signal handlers, the collector, limits, ….

Each pair of functions is a `Saver`'s. Hooks and handlers are mostly the session's own functions, so these
parts are pickled as its names are.
"""

import _signal  # pyright: ignore[reportMissingImports] - the public module turns numbers into enums
import asyncio
import gc
import sys
import threading
from functools import partial
from resource import getrlimit, setrlimit
from typing import Any, Final, cast

from pyrepl3_schemas.constants import WAKEUP_SIGNAL
from pyrepl3_worker.checkpoint.initial_state import (
    HOOKS,
    SIGNALS,
    InitialState,
    read_hook,
    read_soft_limits,
    read_stack_size,
)
from pyrepl3_worker.checkpoint.process_state import Report, Saver

_signals: Final[Any] = _signal
_get_handler: Final = _signals.getsignal  # by name, as below: the code may replace the modules' own
_set_handler: Final = _signals.signal
_gc_enable: Final = gc.enable
_gc_disable: Final = gc.disable
_gc_is_enabled: Final = gc.isenabled
_get_threshold: Final = gc.get_threshold
_set_threshold: Final = gc.set_threshold
_get_switch_interval: Final = sys.getswitchinterval
_set_switch_interval: Final = sys.setswitchinterval
_get_digits: Final = sys.get_int_max_str_digits
_set_digits: Final = sys.set_int_max_str_digits
_set_stack_size: Final = threading.stack_size
_HALF_MICROSECOND: Final = 5e-7
_SLOW_CALLBACK_SECONDS: Final = 0.1
_CSV_FIELD_BYTES: Final = 131_072


# --- hooks, signal handlers -------------------------------------------------------------------------------


def _save_hook(place: str, start: InitialState, _: Report) -> Any:
    now = read_hook(place)
    return None if now is start.hooks[place] else now


def _restore_hook(place: str, saved: Any, start: InitialState) -> None:
    module, _, name = place.partition(".")
    setattr(sys.modules[module], name, start.hooks[place] if saved is None else saved)


def _loop_signals() -> set[int]:
    """Return the signals that the running loop handles."""
    loop: Any = asyncio._get_running_loop()  # None where there is none
    return set(getattr(loop, "_signal_handlers", ()))


def _save_signals(start: InitialState, report: Report) -> dict[int, Any] | None:
    of_loop = _loop_signals()
    changed: dict[int, Any] = {}
    for number in SIGNALS:
        now: Any = _get_handler(number)
        if number == WAKEUP_SIGNAL or now is None or now == start.signals[number]:
            continue
        if number in of_loop:
            report("loop.add_signal_handler()", f"a handler of signal {number} belongs to the event loop")
        else:
            changed[number] = int(now) if isinstance(now, int) else now
    return changed or None


def _restore_signals(saved: dict[int, Any] | None, start: InitialState) -> None:
    of_loop = _loop_signals()
    for number, handler in (start.signals | (saved or {})).items():
        now: Any = _get_handler(number)
        if number == WAKEUP_SIGNAL or number in of_loop or now is None or handler is None:
            continue
        if now != handler:
            _set_handler(number, handler)


# --- the collector, threads, texts of numbers ---------------------------------------------------------------


def _save_gc(start: InitialState, _: Report) -> tuple[bool, tuple[int, int, int]] | None:
    now = _gc_is_enabled(), _get_threshold()
    return None if now == start.gc else now


def _restore_gc(saved: tuple[bool, tuple[int, int, int]] | None, start: InitialState) -> None:
    enabled, thresholds = start.gc if saved is None else saved
    if _get_threshold() != thresholds:
        _set_threshold(*thresholds)
    if enabled:
        _gc_enable()
    else:
        _gc_disable()


def _save_switch_interval(start: InitialState, _: Report) -> float | None:
    now = _get_switch_interval()
    return None if now == start.switch_interval else now


def _restore_switch_interval(saved: float | None, start: InitialState) -> None:
    wanted = start.switch_interval if saved is None else saved
    if _get_switch_interval() != wanted:
        _set_switch_interval(wanted + _HALF_MICROSECOND)  # it is cut to whole ones


def _save_digits(start: InitialState, _: Report) -> int | None:
    now = _get_digits()
    return None if now == start.int_max_str_digits else now


def _restore_digits(saved: int | None, start: InitialState) -> None:
    _set_digits(start.int_max_str_digits if saved is None else saved)


def _save_stack_size(start: InitialState, _: Report) -> int | None:
    now = read_stack_size()
    return None if now == start.stack_size else now


def _restore_stack_size(saved: int | None, start: InitialState) -> None:
    _set_stack_size(start.stack_size if saved is None else saved)


# --- limits -----------------------------------------------------------------------------------------------


def _save_limits(start: InitialState, _: Report) -> dict[int, int] | None:
    now = read_soft_limits()
    return {kind: limit for kind, limit in now.items() if limit != start.soft_limits[kind]} or None


def _restore_limits(saved: dict[int, int] | None, start: InitialState) -> None:
    failed = ""
    for kind, limit in (start.soft_limits | (saved or {})).items():
        soft, hard = getrlimit(kind)
        if soft != limit:
            try:
                setrlimit(kind, (limit, hard))
            except ValueError:
                failed = f"{limit} is above this process's hard limit, {hard}"
    if failed:
        raise LookupError(failed)


# --- the event loop, libraries ------------------------------------------------------------------------------


def _describe_loop(loop: Any) -> tuple[bool, float]:
    return loop.get_debug(), loop.slow_callback_duration


def _initial_loop() -> tuple[bool, float]:
    debug: bool = cast(Any, asyncio.coroutines)._is_debug_mode()
    return debug, _SLOW_CALLBACK_SECONDS


def _save_loop(_: InitialState, __: Report) -> tuple[bool, float] | None:
    loop = asyncio._get_running_loop()
    if loop is None:
        return None
    now = _describe_loop(loop)
    return None if now == _initial_loop() else now


def _restore_loop(saved: tuple[bool, float] | None, _: InitialState) -> None:
    loop: Any = asyncio._get_running_loop()
    wanted = _initial_loop() if saved is None else saved
    if loop is not None and _describe_loop(loop) != wanted:
        debug, loop.slow_callback_duration = wanted
        loop.set_debug(debug)


def _save_socket(_: InitialState, __: Report) -> float | None:
    return sys.modules["socket"].getdefaulttimeout()


def _restore_socket(saved: float | None, _: InitialState) -> None:
    sys.modules["socket"].setdefaulttimeout(saved)


def _save_csv(_: InitialState, __: Report) -> int | None:
    now = sys.modules["csv"].field_size_limit()
    return None if now == _CSV_FIELD_BYTES else now


def _restore_csv(saved: int | None, _: InitialState) -> None:
    sys.modules["csv"].field_size_limit(_CSV_FIELD_BYTES if saved is None else saved)


def _save_week(_: InitialState, __: Report) -> int | None:
    return int(sys.modules["calendar"].firstweekday()) or None


def _restore_week(saved: int | None, _: InitialState) -> None:
    sys.modules["calendar"].setfirstweekday(saved or 0)


SAVERS: Final = (
    *(
        Saver(place, "", partial(_save_hook, place), partial(_restore_hook, place), holds_objects=True)
        for place in HOOKS
    ),
    Saver("signal.getsignal()", "", _save_signals, _restore_signals, holds_objects=True),
    Saver("gc", "", _save_gc, _restore_gc),
    Saver("sys.getswitchinterval()", "", _save_switch_interval, _restore_switch_interval),
    Saver("sys.get_int_max_str_digits()", "", _save_digits, _restore_digits),
    Saver("threading.stack_size()", "", _save_stack_size, _restore_stack_size),
    Saver("resource.getrlimit()", "", _save_limits, _restore_limits),
    Saver("asyncio.get_running_loop()", "", _save_loop, _restore_loop),
    Saver("socket.getdefaulttimeout()", "socket", _save_socket, _restore_socket),
    Saver("csv.field_size_limit()", "csv", _save_csv, _restore_csv),
    Saver("calendar.firstweekday()", "calendar", _save_week, _restore_week),
)
