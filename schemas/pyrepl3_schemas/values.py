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

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from operator import countOf
from typing import Any, Final, Protocol, cast

import msgspec
from msgspec.msgpack import Ext

from pyrepl3_schemas.extensions import BIG_INT
from pyrepl3_schemas.plain_types import TOO_LARGE, WHOLE, NoPlainForm, model_to_dict, opener_of, type_name

_INT_LOW, _INT_HIGH = -(2**63), 2**64
_NUMBER_BYTES: Final = 9
_HEAD_BYTES: Final = 5
"""Most bytes that stand before an array, a map or a text."""
_EXT_BYTES: Final = 6
_MAX_KEY_CHARS: Final = 40


class Detached(Protocol):
    """Takes values out of their place: they travel beside the data, and an extension stands for them."""

    def take(self, value: Any) -> Ext | None:
        """Return what stands for a value that is taken out; None for one that stays."""
        ...


def encode_plain(value: object, max_bytes: int, max_objects: int, detached: Detached | None = None) -> bytes:
    """Return a value's plain form as MessagePack.

    Args:
        value: anything; its own code runs where it is a mapping, has properties for fields, or the like.
        max_bytes: bytes that it may take.
        max_objects: arrays, maps, texts and extensions that it may hold.
        detached: takes out what travels beside it.

    Raises:
        NoPlainForm: it has none, or does not fit.
        MemoryError: there is not enough memory.
        RecursionError: it nests too deep.
    """
    # What is taken out must be met once.
    few = max_objects if detached is not None else min(_FEW, max_objects)
    shaper = _Shaper(max_bytes, few, detached)
    try:
        form = shaper.shape(value)
    except NoPlainForm:
        if shaper.objects <= _FEW or max_objects <= _FEW or detached is not None:
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
        raise NoPlainForm(WHOLE, TOO_LARGE)
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

    __slots__ = (
        "_detached",
        "_max_bytes",
        "_max_objects",
        "_met",
        "least_bytes",
        "most_bytes",
        "objects",
    )

    def __init__(self, max_bytes: int, max_objects: int, detached: Detached | None = None) -> None:
        self._detached = detached
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
            if self._detached is not None and (taken := self._detached.take(opened)) is not None:
                opened, kind = cast("Any", taken), Ext
                break
            opener = opener_of(kind, opened)
            if opener is model_to_dict:
                _Shaper(self._max_bytes, self._max_objects).shape(dict(opened))
            opened = opener(opened, self._max_bytes)
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
            value = Ext(BIG_INT, hex(value).encode())
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
            return NoPlainForm(WHOLE, f"holds more than {self._max_objects:,} arrays, maps and texts")
        return NoPlainForm(WHOLE, TOO_LARGE)


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
