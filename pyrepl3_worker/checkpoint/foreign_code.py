"""Tells whose pickling runs code that is not the interpreter's, and calls that code where its time counts.

Plain data is pickled for as long as it takes. Foreign is what a cell or a library defines in Python, and what
Cython compiles: a `__reduce__`, `__getstate__`, `__getattr__`. Methods in C and those of the standard library
come to an end by themselves.
"""

import copyreg
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
from typing import Any, Final, cast

from pyrepl3_worker.checkpoint.scope import is_worker_module
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, find_in_mro

_CALLED_BY_PICKLE: Final = (
    "__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__",
    "__getattribute__", "__getattr__", "__dict__", "__class__",
)  # fmt: skip
_CONTAINERS: Final[tuple[type, ...]] = (list, dict, set, frozenset, deque)
_IN_C: Final = (
    WrapperDescriptorType, MethodDescriptorType, ClassMethodDescriptorType, BuiltinFunctionType,
    GetSetDescriptorType, MemberDescriptorType,
)  # fmt: skip
_iter: Final[Any] = iter
_EMPTY: Final = cast(
    "list[Any]", [[], (), set(), {}, {}.items(), {}.values(), deque(), OrderedDict().items()]
)
_PLAIN_ITERATORS: Final = frozenset(cast("type[Any]", type(_iter(each))) for each in _EMPTY)

_CALLED_BY_LOADING: Final = (
    "__setstate__", "__reduce_ex__", "__reduce__", "__new__", "__getnewargs_ex__", "__getnewargs__",
    "__getattribute__", "__getattr__", "__setattr__", "__hash__",
)  # fmt: skip
_CALLED_TO_FILL: Final = ("__setitem__", "append", "extend", "add", "update")
TRUSTED: Final = frozenset(
    {
        "PIL", "astropy", "attr", "dateutil", "geopandas", "lightgbm", "matplotlib", "networkx",
        "numpy", "pandas", "plotly", "polars", "pyarrow", "pydantic", "pydantic_core", "pytz", "scipy",
        "seaborn", "shapely", "sklearn", "statsmodels", "sympy", "torch", "xarray", "xgboost",
    }
)  # fmt: skip
"""Libraries whose objects load where they were pickled, by the tests of their own."""

type CallCode = Callable[..., Any]
"""Calls a function with arguments, and counts its time."""


def runs_foreign_code(kind: type[Any]) -> bool:
    """Return whether pickling an instance of a type may run foreign code."""
    reduce = copyreg.dispatch_table.get(kind)
    if reduce is not None:
        return _is_foreign(reduce)
    if issubclass(kind, type | FunctionType):
        return False  # they are saved by name
    called = _CALLED_BY_PICKLE
    if any(base in _CONTAINERS for base in kind.__mro__):
        called += ("__iter__", "items")
    return any(_is_foreign(find_in_mro(kind, name)) for name in called)


def loads_by_foreign_code(kind: type[Any]) -> bool:
    """Return whether loading an instance of a type may run code of the session or an untrusted library."""
    reduce = copyreg.dispatch_table.get(kind)
    if reduce is not None:
        return _may_fail(reduce)
    if issubclass(kind, type | FunctionType):
        return False
    called = _CALLED_BY_LOADING
    if any(base in _CONTAINERS for base in kind.__mro__):
        called += _CALLED_TO_FILL
    return any(_may_fail(find_in_mro(kind, name)) for name in called)


def _may_fail(found: object) -> bool:
    if type(found) in (staticmethod, classmethod):
        found = cast("staticmethod[..., object]", found).__func__
    if not _is_foreign(found):
        return False
    module: object = (
        found.__globals__.get("__name__")
        if type(found) is FunctionType
        else getattr(found, "__module__", None)  # what Cython compiles
    )
    if type(module) is not str:
        return True
    # A named tuple's `__new__` has globals of its own.
    root = module.partition(".")[0]
    return not (root in TRUSTED or is_worker_module(module) or root.startswith("namedtuple_"))


def _is_foreign(found: object) -> bool:
    if found is UNKNOWN or found is None or isinstance(found, _IN_C):
        return False
    if type(found) is FunctionType:
        module = found.__globals__.get("__name__")
        return type(module) is not str or module.partition(".")[0] not in sys.stdlib_module_names
    return True


def reduce_foreign(value: Any, protocol: int, call: CallCode) -> Any:
    """Return an object's reduce value as pickle would get it, by `call`."""
    reduced: Any = call(_reduce, value, protocol)
    if type(cast(object, reduced)) is not tuple:
        return reduced  # a name, or what pickle will refuse
    if not any(_is_endless(each) for each in reduced[3:5]):
        return reduced
    parts: list[Any] = list(reduced)
    parts[3:5] = [_iterate(each, call) if _is_endless(each) else each for each in parts[3:5]]
    return tuple(parts)


def _reduce(value: Any, protocol: int) -> Any:
    reduce: Any = copyreg.dispatch_table.get(cast("type[Any]", type(value)))
    if reduce is not None:
        return reduce(value)
    by_protocol = getattr(value, "__reduce_ex__", None)
    return value.__reduce__() if by_protocol is None else by_protocol(protocol)


def _is_endless(items: object) -> bool:
    """Return whether iterating over items may run foreign code, or never end."""
    return items is not None and type(items) not in _PLAIN_ITERATORS


def _iterate(items: Iterator[Any], call: CallCode) -> Iterator[Any]:
    while True:
        try:
            item = call(next, items)
        except StopIteration:
            return
        yield item
