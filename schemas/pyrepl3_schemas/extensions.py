"""The extension types of values: what Python has and MessagePack has not, as text, and back.

Nothing is imported or opened because a payload names it.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from msgspec.msgpack import Ext

BIG_INT: Final = 80
DECIMAL: Final = 81
UUID: Final = 82
DATE: Final = 83
TIME: Final = 84
DATETIME: Final = 85
TIMEDELTA: Final = 86


def time_text(value: Any) -> str:
    """Return a time's ISO form, and what that does not say: the zone's name, and the second of two."""
    zone = value.tzinfo
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    named = f"[{name}]" if type(name) is str and name else ""
    return f"{value.isoformat()}{named}{'[fold=1]' if value.fold else ''}"


def timedelta_text(value: Any) -> str:
    """Return a span in ISO 8601: seconds, and after a point microseconds."""
    micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    seconds, rest = divmod(abs(micros), 1_000_000)
    text = f"{'-' if micros < 0 else ''}PT{seconds}"
    return f"{text}.{rest:06}S" if rest else f"{text}S"


def read_extension(code: int, data: memoryview) -> Any:
    """Return what an extension stands for; one that is not known stays an `Ext`.

    Raises:
        ValueError, ArithmeticError: the text is not what the extension has.
    """
    reader = _READERS.get(code)
    return Ext(code, bytes(data)) if reader is None else reader(str(data, "utf-8"))


def _read_big_int(text: str) -> int:
    return int(text, 16)


def _read_decimal(text: str) -> Any:
    from decimal import Decimal, InvalidOperation

    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:50]!r} is no decimal number") from None


def _read_uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


def _read_date(text: str) -> Any:
    from datetime import date

    return date.fromisoformat(text)


def _read_time(text: str) -> Any:
    from datetime import time

    return _with_zone(text, time.fromisoformat)


def _read_datetime(text: str) -> Any:
    from datetime import datetime

    return _with_zone(text, datetime.fromisoformat)


def _read_timedelta(text: str) -> Any:
    from datetime import timedelta

    found = _durations().fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:50]!r} is no duration")
    sign, seconds, micros = found.groups()
    span = timedelta(seconds=int(seconds), microseconds=int(micros or 0))
    return -span if sign else span


@cache
def _durations() -> re.Pattern[str]:
    return re.compile(r"(-?)PT(\d{1,15})(?:\.(\d{6}))?S", re.ASCII)


def _with_zone(text: str, read: Callable[[str], Any]) -> Any:
    plain, *brackets = text.split("[")
    value = read(plain)
    words = [bracket.removesuffix("]") for bracket in brackets]
    if "fold=1" in words:
        value = value.replace(fold=1)
    zone = _find_zone(words[0]) if words and words[0] != "fold=1" else None
    if zone is None:
        return value
    zoned = value.replace(tzinfo=zone)
    # Another edition of the zones may have another offset at that time: the moment counts, not the name.
    return zoned if value.tzinfo is None or zoned.utcoffset() == value.utcoffset() else value


@cache  # a table has one zone in all its rows
def _find_zone(name: str) -> Any:
    """Return a time zone by its name; None if this machine has none: the offset then stands for it."""
    from zoneinfo import ZoneInfo, available_timezones

    # Only a name that is known is looked up: nothing may be imported or opened because a frame names it.
    return ZoneInfo(name) if name in available_timezones() else None


_READERS: Final[dict[int, Callable[[str], Any]]] = {
    BIG_INT: _read_big_int,
    DECIMAL: _read_decimal,
    UUID: _read_uuid,
    DATE: _read_date,
    TIME: _read_time,
    DATETIME: _read_datetime,
    TIMEDELTA: _read_timedelta,
}
