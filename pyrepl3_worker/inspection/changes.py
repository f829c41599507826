"""What a cell has added to the namespace, changed and deleted, by comparing it before and after.

What was changed in place counts. Nothing of the code's own runs for it: built-in containers, arrays, and the
attributes of instances of the session's own classes are looked into, within a number of objects, of bytes
and of time. What else there is, and what is too much, may have changed: it is named as not known.
"""

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from time import perf_counter
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, cast
from zlib import crc32

from pyrepl3_schemas.messages import Change, Changes
from pyrepl3_worker.namespace import NamespaceManager, estimated_size
from pyrepl3_worker.rendering.reprs import encodable, safe_repr, type_name

_MAX_SECONDS: Final = 0.05
"""How long one look may take, before a cell and after it."""
_MAX_OBJECTS: Final = 100_000
_MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of texts and arrays that one look takes in."""
_CLOCK_OBJECTS: Final = 256
_MAX_SUMMARY_CHARS: Final = 80
_MAX_NAMES: Final = 1000
_ATOMS: Final = frozenset({int, float, complex, bool, type(None), type(...)})
_TEXTS: Final = frozenset({str, bytes})
_CLASS_KEYS: Final = frozenset({"__dict__", "__weakref__"})
_HASHED_AS_THEMSELVES: Final = 2**60
_DICTS: Final = frozenset({dict, OrderedDict, defaultdict, Counter})
_VALUES: Final = frozenset({date, timedelta, Decimal})
_PLAIN_ZONES: Final = frozenset({type(None), timezone})
_SEQUENCES: Final = frozenset({list, tuple, deque, set, frozenset})
_WARNINGS: Final = "__warningregistry__"
"""What `warnings` puts into the namespace."""
_GONE: Final = object()


class _NotKnown(Exception):  # noqa: N818 - it says what is the case
    """Whether an object has changed cannot be told."""


class _Look:
    """One look at the values of a namespace; what is met twice is looked into once."""

    def __init__(self) -> None:
        self._deadline = perf_counter() + _MAX_SECONDS
        self._objects = _MAX_OBJECTS
        self._bytes = _MAX_BYTES

    def digest(self, value: object) -> int | None:
        """Return a number that changes when a value does; None where that cannot be known."""
        try:
            return hash(tuple(self._walk(value)))
        except Exception:  # another thread changes it; or its class has a metaclass that forbids a hash
            return None

    def _walk(self, value: object) -> Iterator[object]:
        waiting: list[object] = [value]
        met: dict[int, int] = {}
        while waiting:
            member = waiting.pop()
            kind = cast("type[Any]", type(member))
            if kind in _ATOMS:
                yield kind
                yield _as_hashed(member, kind)
                continue
            number = met.get(id(member))
            if number is not None:
                yield number
                continue
            met[id(member)] = len(met)
            self._count()
            yield id(kind)
            yield from self._inside(cast("Any", member), kind, waiting)

    def _inside(self, value: Any, kind: type[Any], waiting: list[object]) -> Iterator[object]:
        if kind is str or kind is bytes or kind is bytearray:
            self._take(len(value))
            yield bytes(value) if kind is bytearray else value
        elif kind in _SEQUENCES:
            self._count(len(value))
            if kind in (set, frozenset):
                yield self._set_digest(value)
            else:
                yield len(value)
                waiting.extend(value)
        elif kind in _DICTS:
            self._count(2 * len(value))
            yield len(value)
            waiting.extend(value)
            waiting.extend(value.values())
        elif kind is ModuleType:
            yield id(value)
        elif kind in _VALUES or (kind is datetime and type(value.tzinfo) in _PLAIN_ZONES):
            yield repr(value)
        elif kind is range or kind is slice:
            waiting += [value.start, value.stop, value.step]
        elif kind is BuiltinFunctionType and type(value.__self__) is ModuleType:
            yield id(value)
        elif issubclass(kind, type):
            yield id(value)
            own = type.__dict__["__dict__"].__get__(value)
            if own.get("__module__") == "__main__":
                waiting.extend(member for name, member in own.items() if name not in _CLASS_KEYS)
        elif kind is FunctionType:
            yield id(value.__code__)
            waiting += [value.__defaults__, value.__kwdefaults__, value.__dict__]
            for cell in value.__closure__ or ():
                try:
                    waiting.append(cell.cell_contents)
                except ValueError:
                    yield "empty"
        else:
            yield from self._inside_other(value, kind, waiting)

    def _inside_other(self, value: Any, kind: type[Any], waiting: list[object]) -> Iterator[object]:
        numpy: Any = sys.modules.get("numpy")
        if numpy is not None and kind is numpy.ndarray and not value.dtype.hasobject:
            self._take(value.nbytes)
            yield repr(value.dtype)
            yield value.shape
            yield crc32(numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)) if value.nbytes else 0
        elif _is_plain_instance(kind):
            waiting.append(object.__getattribute__(value, "__dict__"))
        else:
            raise _NotKnown

    def _set_digest(self, value: Any) -> int:
        """Return a number for members that have no order, where they are plain."""
        members: set[object] = set()
        for member in value:
            kind = cast("type[Any]", type(member))
            if kind in _TEXTS:
                self._take(len(member))
            elif kind not in _ATOMS:
                raise _NotKnown
            members.add((kind, _as_hashed(member, kind)))
        return hash(frozenset(members))

    def _count(self, number: int = 1) -> None:
        if number > self._objects:
            raise _NotKnown  # by itself: what comes after it may be small
        self._objects -= number
        if self._objects % _CLOCK_OBJECTS == 0 and perf_counter() > self._deadline:
            raise _NotKnown

    def _take(self, size: int) -> None:
        if size > self._bytes:
            raise _NotKnown  # as above
        self._bytes -= size


def _as_hashed(member: Any, kind: type[Any]) -> object:
    """Return what differs in its hash for each value: that of -1 and -2 is one, and of 0 and 2^61 - 1."""
    if kind is int:
        return member if 0 <= member < _HASHED_AS_THEMSELVES else hex(member)
    return repr(member) if kind is float or kind is complex else member


def _is_plain_instance(kind: type[Any]) -> bool:
    """Return whether all that an instance holds is in its `__dict__`: its classes are the session's own."""
    bases = type.__dict__["__mro__"].__get__(kind)
    for base in bases[:-1]:
        own = type.__dict__["__dict__"].__get__(base)
        if own.get("__module__") != "__main__" or "__slots__" in own:
            return False
    return bases[-1] is object and len(bases) > 1


class NamespaceWatch:
    """Compares the namespace before and after each cell."""

    def __init__(self, namespace: NamespaceManager) -> None:
        """Watch a namespace."""
        self._namespace = namespace
        self._before: dict[str, tuple[int, int | None]] = {}
        self._execution_id = ""

    def _now(self) -> dict[str, tuple[int, int | None]]:
        look = _Look()
        hidden = self._namespace.hidden_names
        return {
            name: (id(value), look.digest(value))
            for name, value in list(self._namespace.namespace.items())
            if type(name) is str and name not in hidden and name != _WARNINGS
        }

    def begin(self, execution_id: str) -> None:
        """Look at the namespace: a cell begins."""
        self._execution_id = execution_id
        self._before = self._now()

    def end(self, execution_id: str) -> Changes | None:
        """Return what a cell has done to the namespace; None for one that ends without having begun."""
        if execution_id != self._execution_id:
            return None
        before, after = self._before, self._now()
        self._before, self._execution_id = {}, ""
        found: list[Change] = []
        unknown: list[str] = []
        for name, (identity, digest) in after.items():
            was = before.get(name)
            if was is None:
                found.append(self._describe(name, "added"))
            elif was[0] != identity and (was[1] != digest or digest is None):
                found.append(self._describe(name, "changed"))
            elif digest is None or was[1] is None:
                unknown.append(encodable(name))
            elif was[1] != digest:
                found.append(self._describe(name, "changed"))
        found += [Change(encodable(name), "deleted") for name in before if name not in after]
        return Changes(found[:_MAX_NAMES], unknown[:_MAX_NAMES], len(found) + len(unknown) > _MAX_NAMES)

    def _describe(self, name: str, how: Any) -> Change:
        value = self._namespace.namespace.get(name, _GONE)
        if value is _GONE:
            return Change(encodable(name), "deleted")
        return Change(
            encodable(name),
            how,
            type_name(value),
            _summary(value),
            estimated_size(value),
        )


def _summary(value: Any) -> str:
    """Return a value in a few words, without running any code of its own."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:
        return f"{value.dtype} {value.shape}"[:_MAX_SUMMARY_CHARS]
    return safe_repr(value, _MAX_SUMMARY_CHARS)
