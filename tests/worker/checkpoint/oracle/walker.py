"""Describes all that a namespace's names reach: values, identities, classes, closures, overlapping buffers.

Two namespaces are the same where their descriptions are. Nothing of the checkpoint room is used here.
"""

import array
import collections
import copy
import decimal
import enum
import functools
import gc
import hashlib
import io
import os
import random
import threading
import types
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

_PLAIN = (int, float, complex, bool, str, bytes, type(None), type(...), range)
_HIDDEN = {"__builtins__", "__name__", "__doc__", "__loader__", "__spec__", "__package__"}
_OF_ENUMS = {
    "_generate_next_value_", "_new_member_", "_use_args_", "_value2member_map_", "_hashable_values_",
    "_unhashable_values_", "_unhashable_values_map_", "_value_repr_", "_sort_order_",
}  # fmt: skip


def describe(names: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, str]:
    """Describe each name; equal texts stand for equal values, with the same sharing between all names.

    Args:
        names: the namespace.
        without: names that are left out, since they were reported as lost.
    """
    walker = _Walker()
    return {
        name: walker.go(names[name]) for name in sorted(names) if name not in _HIDDEN and name not in without
    }


class _Walker:
    """Numbers the objects that it meets, in the order in which it meets them."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []
        self._memories: dict[int, int] = {}

    def go(self, value: Any) -> str:
        """Describe one object; one that was met before is its number alone."""
        kind: Any = cast(Any, type(value))
        if kind in _PLAIN:
            return repr(value)
        if kind is tuple:
            return f"({', '.join(map(self.go, value))})"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if issubclass(kind, type | types.FunctionType) and value.__module__ != "__main__":
            return f"library {value.__module__}.{value.__qualname__}"
        if kind is types.MethodType:
            return f"method({self.go(value.__func__)} of {self.go(value.__self__)})"
        if kind is types.BuiltinFunctionType:
            owner = value.__self__
            plain = owner is None or isinstance(owner, types.ModuleType)
            return f"builtin {value.__name__}" + ("" if plain else f" of {self.go(owner)}")
        number = self._numbers.get(id(value))
        if number is not None:
            return f"#{number}"
        number = self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        return f"#{number}={self._inside(value, kind)}"

    def _inside(self, value: Any, kind: Any) -> str:
        if issubclass(kind, type):
            return self._class(value)
        if issubclass(kind, enum.Enum):
            return f"member {value.name} of {self.go(kind)} = {self.go(value._value_)}"
        if issubclass(kind, BaseException):
            links = self.go(value.__cause__), self.go(value.__context__), value.__suppress_context__
            return f"{self.go(kind)}{self.go(value.args)} from {links}{self._attributes(value)}"
        if kind is types.FunctionType:
            return self._function(value)
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
            shape = f"{value.dtype} {value.shape} {value.strides}"
            return f"array {shape} {value.tobytes()!r} {self._memory(value)}"
        describer = _BY_KIND.get(kind)
        if describer is not None:
            return f"{kind.__name__} {self.go(describer(value))}"
        return self._container(value, kind) + self._attributes(value)

    def _memory(self, value: Any) -> str:
        """Say in which memory an array lies, and where: the same for those that overlap."""
        root = value
        while type(root.base) is type(value):
            root = root.base
        start = root.__array_interface__["data"][0]
        memory = self._memories.setdefault(start, len(self._memories))
        return f"in memory {memory} at {value.__array_interface__['data'][0] - start}"

    def _container(self, value: Any, kind: Any) -> str:
        name = kind.__name__ if kind.__module__ != "__main__" else self.go(kind)
        if issubclass(kind, dict):
            items = dict[Any, Any].items(value)
            return f"{name}{{{', '.join(f'{self.go(key)}: {self.go(held)}' for key, held in items)}}}"
        if issubclass(kind, set | frozenset):
            return f"{name}{{{', '.join(self.go(each) for each in sorted(value, key=_rank))}}}"
        if issubclass(kind, list | tuple | collections.deque):
            return f"{name}[{', '.join(map(self.go, value))}]"
        return name

    def _attributes(self, value: Any) -> str:
        found = getattr(value, "__dict__", None)
        return "" if not found else f" with {self.go(dict(found))}"

    def _class(self, value: Any) -> str:
        found: dict[str, Any] = dict(cast(Any, vars(value)))
        own = {
            name: each
            for name, each in sorted(found.items())
            if not name.startswith(("__", "_member")) and name not in _OF_ENUMS
        }
        bases = ", ".join(map(self.go, value.__bases__))
        return f"class {value.__qualname__}({bases}) {{{', '.join(f'{n}: {self.go(own[n])}' for n in own)}}}"

    def _function(self, value: Any) -> str:
        defaults = self.go(value.__defaults__), self.go(value.__kwdefaults__)
        cells = ", ".join(map(self.go, value.__closure__ or ()))
        return f"function {value.__qualname__} {defaults} [{cells}] {self.go(dict(value.__dict__))}"


def _file(file: Any) -> Any:
    mode = "".join(
        sorted({*file.mode.replace("w", "r+").replace("x", "r+")})
    )  # a file that exists is not cut
    place = "closed" if file.closed else file.tell()
    return os.path.basename(file.name), mode, getattr(file, "encoding", None), place


_BY_KIND: dict[Any, Callable[[Any], Any]] = {
    types.CellType: lambda cell: cell.cell_contents,
    functools.partial: lambda partial: (partial.func, partial.args, partial.keywords),
    property: lambda value: (value.fget, value.fset),
    classmethod: lambda value: value.__func__,
    staticmethod: lambda value: value.__func__,
    types.MappingProxyType: lambda view: gc.get_referents(view)[0],
    weakref.ref: lambda reference: reference(),
    decimal.Context: lambda context: context.prec,
    random.Random: lambda value: hashlib.sha256(repr(value.getstate()).encode()).hexdigest(),
    type(threading.Lock()): lambda lock: lock.locked(),
    **dict.fromkeys(
        (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO), _file
    ),
    bytearray: bytes,
    array.array: lambda value: (value.typecode, tuple(value)),
    type(iter([])): lambda iterator: list(copy.copy(iterator)),
}


def _rank(value: Any) -> str:
    tag = getattr(value, "tag", None)
    return repr(value) if tag is None else f"tag {tag}"
