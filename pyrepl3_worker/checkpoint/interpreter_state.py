"""How the state of the interpreter and of the standard library is saved: cwd, environment, warnings, ….

Each pair of functions is a `Saver`'s. Functions of modules are called by names taken here: the code may
replace the modules' own.
"""

import os
import re
import sys
import time
import warnings
from _locale import setlocale
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from pyrepl3_worker.checkpoint.initial_state import LOCALE_CATEGORIES, InitialState, read_umask
from pyrepl3_worker.checkpoint.process_state import Report, Saver
from pyrepl3_worker.isolation.own_imports import is_loaded

if TYPE_CHECKING:
    from pathlib import PurePath

_getcwd: Final = os.getcwd
_chdir: Final = os.chdir
_umask: Final = os.umask
_tzset: Final = time.tzset
_getrecursionlimit: Final = sys.getrecursionlimit
_setrecursionlimit: Final = sys.setrecursionlimit


# --- os ---------------------------------------------------------------------------------------------------


def _save_cwd(start: InitialState, _: Report) -> str | None:
    cwd = _getcwd()
    return None if cwd == start.cwd else cwd


def _restore_cwd(cwd: str | None, start: InitialState) -> None:
    wanted = start.cwd if cwd is None else cwd
    if wanted is None:
        return
    try:
        if _getcwd() == wanted:
            return
    except FileNotFoundError:
        pass  # the folder that it stands in is gone
    _chdir(wanted)


def _save_environ(start: InitialState, _: Report) -> tuple[dict[bytes, bytes], list[bytes]] | None:
    now = dict(os.environb)
    if now == start.environ:
        return None
    changed = {name: now[name] for name in sorted(now) if start.environ.get(name) != now[name]}
    return changed, sorted(start.environ.keys() - now.keys())


def _restore_environ(saved: tuple[dict[bytes, bytes], list[bytes]] | None, start: InitialState) -> None:
    changed, removed = ({}, []) if saved is None else saved
    wanted = {name: value for name, value in start.environ.items() if name not in removed} | changed
    for name in set(os.environb) - wanted.keys():
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value


def _save_umask(start: InitialState, _: Report) -> int | None:
    umask = read_umask()
    return None if umask == start.umask else umask


def _restore_umask(umask: int | None, start: InitialState) -> None:
    _umask(start.umask if umask is None else umask)


# --- sys --------------------------------------------------------------------------------------------------

type _Entry = str | bytes | PurePath | int


def _save_path(start: InitialState, report: Report) -> tuple[int, list[_Entry]] | None:
    """Return the length of the path at the start, and the path now, with numbers for entries of that one."""
    kinds: tuple[type, ...] = (str, bytes)
    if is_loaded("pathlib"):
        from pathlib import PurePath

        kinds += (PurePath,)
    now = [each for each in cast("list[object]", sys.path) if isinstance(each, kinds)]
    if len(now) != len(sys.path):
        report("sys.path", "an entry that is neither a text nor a path is not kept")
    if now == start.path:
        return None
    places: dict[object, int] = {entry: place for place, entry in enumerate(start.path)}
    return len(start.path), [places.get(entry, entry) for entry in now]


def _restore_path(saved: tuple[int, list[_Entry]] | None, start: InitialState) -> None:
    if saved is None:
        sys.path[:] = start.path
        return
    length, entries = saved
    found: list[Any] = []
    for entry in entries:
        if not isinstance(entry, int):
            found.append(entry)
        elif entry < len(start.path):
            found.append(start.path[entry])
    # What this worker's installation has more than the one that saved it.
    sys.path[:] = found + [entry for entry in start.path[length:] if entry not in found]


def _save_recursion_limit(start: InitialState, _: Report) -> int | None:
    limit = _getrecursionlimit()
    return None if limit == start.recursion_limit else limit


def _restore_recursion_limit(limit: int | None, start: InitialState) -> None:
    _setrecursionlimit(start.recursion_limit if limit is None else limit)


# --- locale, time -----------------------------------------------------------------------------------------


def _save_locale(start: InitialState, _: Report) -> dict[int, str] | None:
    now = {category: setlocale(category, None) for category in LOCALE_CATEGORIES}
    return None if now == start.locale else now


def _restore_locale(saved: dict[int, str] | None, start: InitialState) -> None:
    missing: list[str] = []
    for category, name in (start.locale if saved is None else saved).items():
        if setlocale(category, None) != name:
            try:
                setlocale(category, name)
            except Exception:  # locale.Error, which the code may have replaced
                missing.append(name)
    if missing:
        raise LookupError(f"this system has no locale {missing[0]!r}")


def _timezone() -> tuple[tuple[str, str], int]:
    return time.tzname, time.timezone


def _save_timezone(start: InitialState, _: Report) -> tuple[tuple[str, str], int] | None:
    now = _timezone()
    return None if now == start.timezone else now


def _restore_timezone(saved: tuple[tuple[str, str], int] | None, start: InitialState) -> None:
    wanted = start.timezone if saved is None else saved
    if _timezone() == wanted:
        return
    _tzset()
    if _timezone() != wanted:
        raise LookupError(f"TZ={os.environ.get('TZ')!r} gives {time.tzname}, where {wanted[0]} was in force")


# --- warnings ---------------------------------------------------------------------------------------------

type _Filter = tuple[str, tuple[str, int] | None, tuple[str, str], tuple[str, int] | None, int]


def _save_filters(start: InitialState, report: Report) -> list[_Filter] | None:
    now: list[Any] = list(warnings.filters)
    if now == start.warning_filters:
        return None
    saved: list[_Filter] = []
    for action, message, category, module, line in now:
        place = (cast(str, category.__module__), cast(str, category.__qualname__))
        if place[0] == "__main__":
            report("warnings.filters", f"the filter for {place[1]}: a session's own class has no place yet")
            continue
        saved.append((action, _pattern(message), place, _pattern(module), line))
    return saved


def _pattern(pattern: Any) -> tuple[str, int] | None:
    if pattern is None or type(pattern) is str:
        return None if pattern is None else (pattern, -1)
    return pattern.pattern, pattern.flags


def _make_pattern(saved: tuple[str, int] | None) -> Any:
    if saved is None or saved[1] < 0:
        return None if saved is None else saved[0]
    return re.compile(*saved)


def _restore_filters(saved: list[_Filter] | None, start: InitialState) -> None:
    wanted: list[Any] = []
    if saved is None:
        wanted = start.warning_filters
    else:
        for action, message, (module_name, name), module, line in saved:
            category: Any = import_module(module_name)
            for part in name.split("."):
                category = getattr(category, part)
            wanted.append((action, _make_pattern(message), category, _make_pattern(module), line))
    filters = cast("list[Any]", warnings.filters)
    if filters != wanted:
        filters[:] = wanted
        cast(Any, warnings)._filters_mutated_lock_held() if sys.version_info >= (3, 14) else cast(
            Any, warnings
        )._filters_mutated()


# --- random, decimal --------------------------------------------------------------------------------------


def _save_random(_: InitialState, __: Report) -> Any:
    import random

    return random.getstate()


def _restore_random(state: Any, _: InitialState) -> None:
    import random

    if state is not None:
        random.setstate(state)


type _Context = tuple[list[Any], list[str], list[str]]
_CONTEXT_NUMBERS: Final = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_DEFAULT_CONTEXT: Final[_Context] = (
    [28, "ROUND_HALF_EVEN", -999_999, 999_999, 1, 0],
    [],
    ["InvalidOperation", "DivisionByZero", "Overflow"],
)
"""What `decimal.DefaultContext` is when the module is imported."""


def _describe_context(context: Any) -> _Context:
    return (
        [getattr(context, name) for name in _CONTEXT_NUMBERS],
        [signal.__name__ for signal, is_set in context.flags.items() if is_set],
        [signal.__name__ for signal, is_set in context.traps.items() if is_set],
    )


def _change_context(context: Any, saved: _Context | None) -> None:
    numbers, flags, traps = _DEFAULT_CONTEXT if saved is None else saved
    for name, value in zip(_CONTEXT_NUMBERS, numbers, strict=True):
        setattr(context, name, value)
    for signal in context.flags:
        context.flags[signal] = signal.__name__ in flags
        context.traps[signal] = signal.__name__ in traps


def _save_decimal(_: InitialState, __: Report) -> _Context | None:
    import decimal

    now = _describe_context(decimal.getcontext())
    return None if now == _DEFAULT_CONTEXT else now


def _restore_decimal(saved: _Context | None, _: InitialState) -> None:
    import decimal

    _change_context(decimal.getcontext(), saved)  # changed, not replaced: names may be bound to it


def _save_default_decimal(_: InitialState, __: Report) -> _Context | None:
    import decimal

    now = _describe_context(decimal.DefaultContext)
    return None if now == _DEFAULT_CONTEXT else now


def _restore_default_decimal(saved: _Context | None, _: InitialState) -> None:
    import decimal

    _change_context(decimal.DefaultContext, saved)


SAVERS: Final = (
    Saver("os.environ", "", _save_environ, _restore_environ),
    Saver("time.tzname", "", _save_timezone, _restore_timezone),  # depends on TZ
    Saver("os.getcwd()", "", _save_cwd, _restore_cwd),
    Saver("sys.path", "", _save_path, _restore_path),
    Saver("os.umask()", "", _save_umask, _restore_umask),
    Saver("locale.getlocale()", "", _save_locale, _restore_locale),
    Saver("sys.getrecursionlimit()", "", _save_recursion_limit, _restore_recursion_limit),
    Saver("warnings.filters", "", _save_filters, _restore_filters),
    Saver("random.getstate()", "random", _save_random, _restore_random),
    Saver("decimal.DefaultContext", "decimal", _save_default_decimal, _restore_default_decimal),
    Saver("decimal.getcontext()", "decimal", _save_decimal, _restore_decimal),
)
