"""Values as plain data: one table for results, for arguments and answers of host calls, for variables.

A value's plain form is what MessagePack has: None, booleans, numbers, text, bytes, arrays and maps,
and extension types for what would otherwise come back as something else. Its cost is bounded in time and
memory whatever it is given: each object is met once, so that a list that holds another one twice, sixty
times over, is sixty objects; and what cannot fit is found out before anything is encoded.

| value | form |
|---|---|
| None, bool, int of 64 bits, float, str, bytes | as they are |
| int above 64 bits | extension 80: hexadecimal digits |
| Decimal, UUID | extensions 81 and 82: their text |
| date, time, datetime, timedelta | extensions 83 to 86: ISO 8601, with the zone's name in brackets |
| list, tuple, named tuple, set, deque, range, array | array |
| dict and other mappings, dataclass, Struct, attrs class, pydantic model | map |
| enum | its value |
| Path, Fraction | text |
| complex | array of two numbers |
| NumPy's and pandas' scalars | as Python's; NaT and NA as None |
| NumPy's arrays of at most 10,000 elements | arrays |

The payload of an extension is UTF-8 text, so that a reader in another language can show it.
"""

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import chain
from operator import countOf
from types import MappingProxyType
from typing import Any, Final, cast

import msgspec
from msgspec.msgpack import Ext

MAX_ARRAY_ELEMENTS: Final = 10_000
"""Elements of a NumPy array that still has a form."""

_BIG_INT: Final = 80
_DECIMAL: Final = 81
_UUID: Final = 82
_DATE: Final = 83
_TIME: Final = 84
_DATETIME: Final = 85
_TIMEDELTA: Final = 86

_INT_LOW, _INT_HIGH = -(2**63), 2**64
_NUMBER_BYTES: Final = 9
_HEAD_BYTES: Final = 5
"""Most bytes that stand before an array, a map or a text."""
_EXT_BYTES: Final = 6
_MAX_STEPS: Final = 12
"""Steps of the path to a value without a form that are named."""
_MAX_KEY_CHARS: Final = 40

type Opener = Callable[[Any, int], Any]
"""Returns what a value is as simpler data; takes the bytes that there is room for."""


_WHOLE: Final = "it"
"""The outermost value, in an error's text."""


class NoPlainForm(Exception):  # noqa: N818 - it says what is the case, and no more
    """A value has no form as plain data. `reason` says why, and where inside the value."""

    def __init__(self, what: str, why: str) -> None:
        """Say of `what`, a value in words, why it has no form."""
        super().__init__(what, why)
        self._what = what
        self._why = why
        self.steps: list[str] = []
        """How to come to it from the outermost value, the last step first."""

    @property
    def too_large(self) -> bool:
        """Whether it has a form that does not fit."""
        return self._what == _WHOLE

    @property
    def reason(self) -> str:
        """The reason in words."""
        steps = self.steps[::-1] if self._what != _WHOLE else []
        shown = "".join(steps[:_MAX_STEPS]) + ("…" if len(steps) > _MAX_STEPS else "")
        return f"{self._what} at {shown} {self._why}" if shown else f"{self._what} {self._why}"


def encode_plain(value: object, max_bytes: int, max_objects: int) -> bytes:
    """Return a value's plain form as MessagePack.

    Args:
        value: anything; its own code runs where it is a mapping, has properties for fields, or the like.
        max_bytes: bytes that it may take.
        max_objects: arrays, maps, texts and extensions that it may hold.

    Raises:
        NoPlainForm: it has none, or does not fit.
        MemoryError: there is not enough memory.
        RecursionError: it nests too deep.
    """
    shaper = _Shaper(max_bytes, min(_FEW, max_objects))
    try:
        form = shaper.shape(value)
    except NoPlainForm:
        if shaper.objects <= _FEW or max_objects <= _FEW:
            raise
    else:
        return _encode(form, shaper.most_bytes, max_bytes)
    # Plain data in large amounts is told more quickly by its levels.
    most = _plain_size(value, max_bytes, max_objects)
    if most is not None:
        with suppress(OverflowError, UnicodeEncodeError):  # what is in it has another form, or a reason
            return _encode(value, most, max_bytes)
    shaper = _Shaper(max_bytes, max_objects)
    form = shaper.shape(value)
    return _encode(form, shaper.most_bytes, max_bytes)


def _encode(form: object, most: int, max_bytes: int) -> bytes:
    if most <= _SMALL_BYTES:
        data = _encoder.encode(form)
    else:
        # Not by `encode`, which does not survive that its memory cannot grow.
        data = bytearray(min(most, max_bytes))
        _encoder.encode_into(form, data)
    if len(data) > max_bytes:
        raise NoPlainForm(_WHOLE, "is larger than max_frame_bytes allows")
    return bytes(data)


def _plain_size(value: object, max_bytes: int, max_objects: int) -> int | None:
    """Return how many bytes plain data takes at most, if that is what a value is throughout.

    A quick look, level by level, for the usual case that nothing has to become anything else.

    Args:
        value: anything; none of its code runs.
        max_bytes: bytes that there is room for.
        max_objects: arrays, maps, texts and byte strings that there is room for.

    Returns:
        None if each value has to be looked at: something is not plain, or does not fit, or is met many times.
    """
    if type(value) not in _CONTAINERS:
        return None
    level: list[Any] = [value]
    least = most = objects = 0
    for _ in range(_MAX_LEVELS):
        if not level:
            return most
        objects += len(level)
        entries = sum(map(len, level))
        if objects > max_objects or least + entries > max_bytes:
            return None
        if len(level) > _FEW and 2 * len(set(map(id, level))) < len(level):
            return None
        dicts: list[Any] = [member for member in level if type(member) is dict]
        arrays = [member for member in level if type(member) is not dict] if len(dicts) < len(level) else []
        most += _HEAD_BYTES * len(level)
        level = []
        for parts, each, allowed in (
            (arrays, _flatten, _ALL_PLAIN),
            (dicts, _flatten, _LEAVES),
            (dicts, _flatten_values, _ALL_PLAIN),
        ):
            kinds: set[type[Any]] = set(map(type, each(parts)))
            if not kinds <= allowed:
                return None
            count = sum(map(len, parts))
            floats = countOf(map(type, each(parts)), float) if float in kinds else 0
            least += count + 8 * floats
            most += _NUMBER_BYTES * count
            if kinds & _SIZED:
                sizes = [len(member) for member in each(parts) if type(member) in _SIZED]
                objects += len(sizes)
                least += sum(sizes)
                most += 4 * sum(sizes)
            if kinds & _CONTAINERS:
                level += [member for member in each(parts) if type(member) in _CONTAINERS]
            if least > max_bytes or objects > max_objects:
                return None
    return None


_flatten: Final = chain.from_iterable


_values_of: Final[Callable[[Any], Iterable[Any]]] = dict[Any, Any].values


def _flatten_values(dicts: list[dict[Any, Any]]) -> Iterator[Any]:
    return _flatten(map(_values_of, dicts))


class _Shaper:
    """Makes one value's plain form; counts what it will take."""

    __slots__ = ("_max_bytes", "_max_objects", "_met", "least_bytes", "most_bytes", "objects")

    def __init__(self, max_bytes: int, max_objects: int) -> None:
        self._max_bytes = max_bytes
        self._max_objects = max_objects
        self._met: dict[int, tuple[object, Any, int, int, int] | None] = {}
        """By id: an object, which so stays alive, its form and what that takes; None while it is made."""
        self.least_bytes = 0
        self.most_bytes = 0
        self.objects = 0

    def shape(self, value: Any) -> Any:
        """Return the form of a value. One call for each level, so that it nests as deep as Python allows."""
        kind = cast("type[Any]", type(value))
        if kind in _SINGLE:
            return self._single(value, kind)
        key = id(value)
        if key in self._met:
            return self._again(value, self._met[key])
        self._met[key] = None
        before = self.least_bytes, self.most_bytes, self.objects
        opened = value
        for _ in range(_MAX_OPENINGS):
            if kind in _PLAIN:
                break
            opened = (_OPENERS.get(kind) or _opener(kind, opened))(opened, self._max_bytes)
            kind = cast("type[Any]", type(opened))
        else:
            raise NoPlainForm(type_name(value), "has no form as plain data")
        form = opened
        forms: list[Any] = []
        if kind in _SINGLE:
            form = self._single(opened, kind)
        elif kind is dict:
            self._add(1, _HEAD_BYTES)
            keys = opened if self._are_plain(opened) else [self._key(key) for key in opened]
            values = list(opened.values())
            if not self._are_plain(values):
                try:
                    for member in values:
                        forms.append(self.shape(member))  # noqa: PERF401 - its length tells where it failed
                except NoPlainForm as error:
                    error.steps.append(f"[{_short(list(keys)[len(forms)])}]")
                    raise
                values = forms
            elif keys is opened:
                values = None
            if values is not None:
                form = dict(zip(keys, values, strict=True))
                if len(form) != len(opened):
                    raise NoPlainForm(type_name(value), "has keys that would become one and the same")
        else:
            self._add(1, _HEAD_BYTES)
            if not self._are_plain(opened):
                try:
                    for member in opened:
                        forms.append(self.shape(member))  # noqa: PERF401 - as above
                except NoPlainForm as error:
                    error.steps.append(f"[{len(forms)}]")
                    raise
                form = forms
        least, most, objects = before
        self._met[key] = (
            value,
            form,
            self.least_bytes - least,
            self.most_bytes - most,
            self.objects - objects,
        )
        return form

    def _again(self, value: object, met: tuple[object, Any, int, int, int] | None) -> Any:
        """Count what has been met before once more."""
        if met is None:
            raise NoPlainForm(type_name(value), "holds itself")
        _, form, least, most, objects = met
        self.objects += objects - 1
        self._add(least, most)
        return form

    def _single(self, value: Any, kind: type) -> Any:
        """Count a value that holds no other; an integer of over 64 bits becomes an extension."""
        if kind is int and not _INT_LOW <= value < _INT_HIGH:
            if value.bit_length() // 4 > self._max_bytes:
                raise self._too_large()
            value = Ext(_BIG_INT, hex(value).encode())
            kind = Ext
        if kind is str:
            size = len(value)
            if not value.isascii() and size <= self._max_bytes:
                try:
                    size = len(value.encode())
                except UnicodeEncodeError as error:
                    raise NoPlainForm("str", f"cannot be sent: {error.reason}") from None
            self._add(size, size + _HEAD_BYTES)
        elif kind is bytes or kind is bytearray:
            self._add(len(value), len(value) + _HEAD_BYTES)
        elif kind is Ext:
            self._add(len(value.data), len(value.data) + _EXT_BYTES)
        else:
            self.least_bytes += _NUMBER_BYTES if kind is float else 1
            self.most_bytes += _NUMBER_BYTES
        return value

    def _are_plain(self, items: Any) -> bool:
        """Count numbers, or texts, that are their own form; return False, and count nothing, for others."""
        kinds = set(map(type, items))
        count = len(items)
        if kinds <= _NUMBERS:
            if int in kinds:
                integers = items if len(kinds) == 1 else [item for item in items if type(item) is int]
                if min(integers) < _INT_LOW or max(integers) >= _INT_HIGH:
                    return False
            self.least_bytes += count
            if float in kinds:
                self.least_bytes += 8 * countOf(map(type, items), float)
            self.most_bytes += _NUMBER_BYTES * count
        elif kinds <= _TEXT and all(map(str.isascii, items)):
            size = sum(map(len, items))
            self.objects += count
            self.least_bytes += count + size
            self.most_bytes += _HEAD_BYTES * count + size
        else:
            return False
        self._add(0, 0)
        return True

    def _key(self, key: Any) -> Any:
        try:
            form = self.shape(key)
        except NoPlainForm as error:
            error.steps.append(".keys()")
            raise
        if isinstance(form, dict):
            raise NoPlainForm(type_name(key), "becomes a map, which cannot be a key")
        return _hashable(form)

    def _add(self, least: int, most: int) -> None:
        self.objects += 1
        self.least_bytes += least
        self.most_bytes += most
        if self.least_bytes > self._max_bytes or self.objects > self._max_objects:
            raise self._too_large()

    def _too_large(self) -> NoPlainForm:
        if self.objects > self._max_objects:
            return NoPlainForm(_WHOLE, f"holds more than {self._max_objects:,} arrays, maps and texts")
        return NoPlainForm(_WHOLE, "is larger than max_frame_bytes allows")


_NUMBERS: Final = frozenset({int, float, bool, type(None)})
_TEXT: Final = frozenset({str})
_SINGLE: Final = frozenset({*_NUMBERS, str, bytes, bytearray, Ext})
_PLAIN: Final = frozenset({*_SINGLE, list, tuple, dict})
_SMALL_BYTES: Final = 64 * 1024
"""What takes at most so many bytes is encoded without asking for memory first."""
_SIZED: Final = frozenset({str, bytes})
_LEAVES: Final = frozenset({*_NUMBERS, *_SIZED})
_CONTAINERS: Final = frozenset({list, tuple, dict})
_ALL_PLAIN: Final = frozenset({*_LEAVES, *_CONTAINERS})
_FEW: Final = 200
"""Objects up to which values are taken one by one at once; and are not looked at for the same ones."""
_MAX_LEVELS: Final = 100
"""Levels of a value that are looked at by level."""
_MAX_OPENINGS: Final = 8
"""Steps from a value to plain data, such as from an enum's member by a subclass of int to an int."""


class KeyExtension:
    """An extension as a key of a map; `Ext` itself has no hash."""

    __slots__ = ("code", "data")

    def __init__(self, extension: Ext) -> None:
        """Stand for an extension."""
        self.code = extension.code
        self.data = extension.data

    def __eq__(self, other: object) -> bool:
        """Compare code and data."""
        return isinstance(other, KeyExtension) and (self.code, self.data) == (other.code, other.data)

    def __hash__(self) -> int:
        """Hash code and data."""
        return hash((self.code, self.data))

    def __repr__(self) -> str:
        """Show the text."""
        return bytes(self.data).decode()


def _encode_key(key: object) -> Ext:
    """Return what a key is encoded as.

    Raises:
        TypeError: it is no `KeyExtension`.
    """
    if type(key) is not KeyExtension:
        raise TypeError(f"a {type_name(key)} is no plain data")
    return Ext(key.code, key.data)


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_encode_key)


def _hashable(form: Any) -> Any:
    if isinstance(form, Ext):
        return KeyExtension(form)
    return tuple(map(_hashable, cast("list[Any]", form))) if isinstance(form, list | tuple) else form


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= _MAX_KEY_CHARS else f"{text[:_MAX_KEY_CHARS]}…"


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module's where that is no builtin one."""
    kind = type(value)
    # Not by attribute: a metaclass of the code's own may answer for it.
    name = type.__dict__["__qualname__"].__get__(kind)
    module = type.__dict__["__module__"].__get__(kind)
    return name if type(module) is not str or module in ("builtins", "__main__") else f"{module}.{name}"


# --- by type -------------------------------------------------------------------------------------------


def _to_list(value: Any, _room: int) -> list[Any]:
    return list(value)


def _range_to_list(value: range, room: int) -> list[int]:
    # Its length is all that there is to it, and may be anything.
    if len(value) > room:
        raise NoPlainForm(_WHOLE, "is larger than max_frame_bytes allows")
    return list(value)


def _to_dict(value: Any, _room: int) -> dict[Any, Any]:
    return dict(value.items())


def _to_bytes(value: Any, room: int) -> bytes:
    size: int = value.nbytes if type(value) is memoryview else len(value)
    if size > room:
        raise NoPlainForm(_WHOLE, "is larger than max_frame_bytes allows")
    return bytes(value)


def _to_number(value: Any, _room: int) -> int | float:
    return float.__float__(value) if issubclass(type(value), float) else int.__index__(value)


def _complex_to_list(value: complex, _room: int) -> list[float]:
    return [float(value.real), float(value.imag)]


def _to_str(value: Any, _room: int) -> str:
    return str.__str__(value) if issubclass(type(value), str) else str(value)


def _enum_to_value(value: Any, _room: int) -> Any:
    return value.value


def _dataclass_to_dict(value: Any, _room: int) -> dict[str, Any]:
    # As `dataclasses.fields` has them, whose module is not loaded for this.
    fields: dict[str, Any] = cast("Any", type(value)).__dataclass_fields__
    names = (name for name, field in fields.items() if field._field_type.name == "_FIELD")  # noqa: SLF001
    return {name: getattr(value, name) for name in names}


def _attrs_to_dict(value: Any, _room: int) -> dict[str, Any]:
    fields: tuple[Any, ...] = cast("Any", type(value)).__attrs_attrs__
    return {field.name: getattr(value, field.name) for field in fields}


def _struct_to_dict(value: msgspec.Struct, _room: int) -> dict[str, Any] | list[Any]:
    config = value.__struct_config__
    fields = {
        shown: member
        for name, shown in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        if (member := getattr(value, name)) is not msgspec.UNSET
    }
    if config.tag is not None:
        fields = {cast("str", config.tag_field): config.tag, **fields}
    return list(fields.values()) if config.array_like else fields


def _model_to_dict(value: Any, room: int) -> Any:
    # Its fields are looked at first: `model_dump` itself has no bound.
    _Shaper(room, room).shape(dict(value))
    return value.model_dump()


def _to_extension(code: int, text: Callable[[Any], str]) -> Opener:
    def extend(value: Any, _room: int) -> Ext:
        return Ext(code, text(value).encode())

    return extend


def _time_text(value: Any) -> str:
    """Return a time's ISO form, and what that does not say: the zone's name, and the second of two."""
    zone = value.tzinfo
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    named = f"[{name}]" if type(name) is str and name else ""
    return f"{value.isoformat()}{named}{'[fold=1]' if value.fold else ''}"


def _timedelta_text(value: Any) -> str:
    micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    seconds, rest = divmod(abs(micros), 1_000_000)
    text = f"{'-' if micros < 0 else ''}PT{seconds}"
    return f"{text}.{rest:06}S" if rest else f"{text}S"


def _from_timestamp(value: Any, _room: int) -> Any:
    if value.nanosecond:
        raise NoPlainForm(type_name(value), "has nanoseconds, for which datetime has no room")
    return value.to_pydatetime()


def _from_pandas_timedelta(value: Any, _room: int) -> Any:
    if value.nanoseconds:
        raise NoPlainForm(type_name(value), "has nanoseconds, for which timedelta has no room")
    return value.to_pytimedelta()


def _missing_to_none(_value: Any, _room: int) -> None:
    return None


def _from_scalar(value: Any, _room: int) -> Any:
    """Open a scalar of NumPy's."""
    if value.dtype.kind in "mM":
        if sys.modules["numpy"].isnat(value):
            return None
        exact = value.astype(f"{value.dtype.kind}8[us]")
        if exact != value:
            raise NoPlainForm(type_name(value), "has nanoseconds, for which datetime has no room")
        plain = exact.item()
    else:
        plain = value.item()
    if type(plain).__module__ == "numpy" or (value.dtype.kind in "mM" and type(plain) is int):
        raise NoPlainForm(type_name(value), "has no equal in Python")
    return plain


def _from_array(value: Any, _room: int) -> Any:
    """Open an array of NumPy's, by one dimension where its scalars are more than `tolist` would give."""
    if value.size > MAX_ARRAY_ELEMENTS:
        raise NoPlainForm(f"{type_name(value)} of {value.nbytes:,} bytes", "has no short form")
    if value.ndim == 0:
        return value[()]
    return list(value) if value.dtype.kind in "mMV" or value.dtype.char in "gG" else value.tolist()


_OPENERS: Final[dict[type, Opener]] = {
    set: _to_list,
    frozenset: _to_list,
    deque: _to_list,
    range: _range_to_list,
    MappingProxyType: _to_dict,
    memoryview: _to_bytes,
    complex: _complex_to_list,
}

# By module, so that nothing is imported that the value's own code has not imported. The first one counts.
_BY_CLASS: Final[tuple[tuple[str, str, Opener], ...]] = (
    ("enum", "Enum", _enum_to_value),
    ("pandas", "Timestamp", _from_timestamp),
    ("pandas", "Timedelta", _from_pandas_timedelta),
    ("numpy", "generic", _from_scalar),
    ("numpy", "ndarray", _from_array),
    ("datetime", "datetime", _to_extension(_DATETIME, _time_text)),
    ("datetime", "date", _to_extension(_DATE, lambda value: value.isoformat())),
    ("datetime", "time", _to_extension(_TIME, _time_text)),
    ("datetime", "timedelta", _to_extension(_TIMEDELTA, _timedelta_text)),
    ("decimal", "Decimal", _to_extension(_DECIMAL, str)),
    ("uuid", "UUID", _to_extension(_UUID, str)),
    ("fractions", "Fraction", _to_str),
    ("pathlib", "PurePath", _to_str),
    ("array", "array", _to_list),
    ("pydantic", "BaseModel", _model_to_dict),
)
_BY_BASE: Final[tuple[tuple[type, Opener], ...]] = (
    (str, _to_str),
    (int, _to_number),
    (float, _to_number),
    (complex, _complex_to_list),
    (bytes, _to_bytes),
    (bytearray, _to_bytes),
    (msgspec.Struct, _struct_to_dict),
    (dict, _to_dict),
    (list, _to_list),
    (tuple, _to_list),
    (set, _to_list),
    (frozenset, _to_list),
    (deque, _to_list),
)


def _opener(kind: type, value: object) -> Opener:
    """Return what opens values of a type that is not one of the plain ones.

    Raises:
        NoPlainForm: nothing does.
    """
    bases = type.__dict__["__mro__"].__get__(kind)
    if kind.__module__.startswith("pandas.") and kind.__qualname__ in ("NaTType", "NAType"):
        return _missing_to_none
    for module_name, class_name, opener in _BY_CLASS:
        module = sys.modules.get(module_name)
        if module is not None and getattr(module, class_name, None) in bases:
            return opener
    for base, opener in _BY_BASE:
        if base in bases:
            return opener
    for base in bases:
        own = type.__dict__["__dict__"].__get__(base)
        if "__dataclass_fields__" in own:
            return _dataclass_to_dict
        if "__attrs_attrs__" in own:
            return _attrs_to_dict
    if issubclass(kind, Mapping):
        return _to_dict
    raise NoPlainForm(type_name(value), "has no form as plain data")


# --- back ----------------------------------------------------------------------------------------------


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
    _BIG_INT: _read_big_int,
    _DECIMAL: _read_decimal,
    _UUID: _read_uuid,
    _DATE: _read_date,
    _TIME: _read_time,
    _DATETIME: _read_datetime,
    _TIMEDELTA: _read_timedelta,
}
