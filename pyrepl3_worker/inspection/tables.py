"""What an editor wants to know of tables, arrays and other containers: keys, columns, shape, dtype, size.

Read from what the containers hold, never by their own methods, which a subclass of the code's may define. Of
the libraries named here, the own attributes are read: they run the library's code, and none of the user's.
"""

import sys
from collections import deque
from itertools import islice
from os import fsdecode
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final, NamedTuple, cast

from pyrepl3_worker.rendering.static_lookup import (
    UNKNOWN,
    InstanceOf,
    find_in_mro,
    instance_dict,
    is_class,
    mro_of,
)

MAX_KEYS: Final = 500
_LIBRARIES: Final = frozenset(
    {"numpy", "pandas", "polars", "pyarrow", "torch", "jax", "jaxlib", "xarray", "scipy"}
)
"""Whose objects' `shape`, `dtype` and `nbytes` are read."""
_C_DESCRIPTORS: Final = frozenset({GetSetDescriptorType, MemberDescriptorType})
_MAX_DTYPE_CHARS: Final = 100
_BUILTIN_LENGTHS: Final[tuple[type, ...]] = (
    str, bytes, bytearray, list, tuple, dict, set, frozenset, range, deque,
)  # fmt: skip

# Not by attribute: a metaclass of the code's own may answer for it.
_module_of: Final = type.__dict__["__module__"].__get__
_qualname_of: Final = type.__dict__["__qualname__"].__get__


class Facts(NamedTuple):
    """What is known of a container."""

    length: int | None = None
    shape: list[int] | None = None
    dtype: str = ""
    size: int | None = None
    """Bytes of its data."""


# --- keys -----------------------------------------------------------------------------------------------


def keys_of(value: object) -> list[object] | None:
    """Return at most 500 keys of a mapping, or the columns of a table; None if it has none."""
    if issubclass(type(value), dict):
        return _keys_of_dict(value)
    columns = columns_of(value)
    return _keys_of_wrapper(value) if columns is None else columns


def _keys_of_dict(table: Any) -> list[object]:
    try:
        keys: Any = dict[object, object].keys(table)
        return list(islice(keys, MAX_KEYS))
    except RuntimeError:
        return []  # another thread changes it


def _keys_of_wrapper(value: object) -> list[object] | None:
    """Return the keys of the standard library's classes that hold a dict."""
    names = {(_module_of(cls), _qualname_of(cls)) for cls in mro_of(type(value))}
    own: Any = instance_dict(value)
    if ("collections", "UserDict") in names and type(own.get("data")) is dict:
        return _keys_of_dict(own["data"])
    if ("collections", "ChainMap") in names and type(own.get("maps")) is list:
        maps: list[Any] = [each for each in own["maps"] if type(each) is dict]
        return list(dict.fromkeys(key for each in maps for key in _keys_of_dict(each)))
    if ("os", "_Environ") in names and type(own.get("_data")) is dict:
        return [fsdecode(key) for key in _keys_of_dict(own["_data"]) if isinstance(key, bytes)]
    return None


def _class_in(module: str, name: str) -> type | None:
    loaded = sys.modules.get(module)
    found = None if loaded is None else instance_dict(loaded).get(name)
    return cast(type, found) if is_class(found) else None


def is_a(value: object, module: str, name: str) -> bool:
    """Return whether a value is of a class of a module that has been imported."""
    cls = _class_in(module, name)
    return cls is not None and cls in mro_of(type(value))


def columns_of(value: object) -> list[object] | None:
    """Return the columns of a table of pandas, polars, pyarrow or NumPy; None for anything else."""
    if is_a(value, "pandas", "DataFrame"):
        return _labels(library_attribute(value, "columns"))
    if is_a(value, "pandas", "Series"):
        return _labels(library_attribute(value, "index"))
    if is_a(value, "polars", "DataFrame") or is_a(value, "pyarrow", "Table"):
        attribute = "columns" if is_a(value, "polars", "DataFrame") else "column_names"
        found = library_attribute(value, attribute)
        return list(cast("list[object]", found)[:MAX_KEYS]) if type(found) is list else None
    if is_a(value, "numpy", "ndarray") or is_a(value, "numpy", "void"):
        dtype: Any = library_attribute(value, "dtype")
        return None if dtype is UNKNOWN or dtype.names is None else list(dtype.names[:MAX_KEYS])
    return None


def _labels(index: object) -> list[object] | None:
    if index is UNKNOWN:
        return None
    labels: list[Any] = cast(Any, index)[:MAX_KEYS].tolist()
    # The first level alone, where there are several.
    firsts: list[object] = [label[0] if type(label) is tuple and label else label for label in labels]
    return [label for label in dict.fromkeys(firsts) if type(label) in (str, int)]


def column(value: object, key: object) -> object:
    """Return what stands for `value[key]` of a table whose columns are known; else UNKNOWN."""
    if type(key) is not str or not is_a(value, "pandas", "DataFrame") or key not in (columns_of(value) or ()):
        return UNKNOWN
    series = _class_in("pandas", "Series")
    return UNKNOWN if series is None else InstanceOf(series)


# --- facts ----------------------------------------------------------------------------------------------


def facts_of(value: object) -> Facts:
    """Return what is known of a value's extent; nothing of the user's is run."""
    for cls in _BUILTIN_LENGTHS:
        if issubclass(type(value), cls):
            return Facts(length=cast(Any, cls).__len__(value))
    if not _has_library_base(value):
        return Facts()
    shape = _as_shape(library_attribute(value, "shape"))
    dtype = library_attribute(value, "dtype")
    size = library_attribute(value, "nbytes")
    if type(value) is _class_in("pandas", "DataFrame"):
        size = _bytes_of_frame(value)
    return Facts(
        length=shape[0] if shape else None,
        shape=shape,
        dtype="" if dtype is UNKNOWN or dtype is None else str(dtype)[:_MAX_DTYPE_CHARS],
        size=size if type(size) is int else None,
    )


def _bytes_of_frame(frame: Any) -> int | None:
    """Return how many bytes a data frame of pandas has; None where it has too many columns to ask each."""
    dtypes = list(frame.dtypes)
    numpy = _class_in("numpy", "dtype")
    if numpy is not None and all(isinstance(dtype, numpy) for dtype in dtypes):
        # The sum of the columns' own, at once: a wide frame has 100,000.
        row: int = sum(dtype.itemsize for dtype in dtypes)
        return row * len(frame) + int(frame.index.memory_usage(deep=False))
    if len(dtypes) > MAX_KEYS:
        return None
    return int(frame.memory_usage(index=True, deep=False).sum())


def _has_library_base(value: object) -> bool:
    return any(_top_module(cls) in _LIBRARIES for cls in mro_of(type(value)))


def _top_module(cls: type) -> str:
    module: object = _module_of(cls)
    return module.partition(".")[0] if type(module) is str else ""


def _as_shape(shape: object) -> list[int] | None:
    if not issubclass(type(shape), tuple):
        return None
    numbers = list(cast("tuple[object, ...]", shape))
    return cast("list[int]", numbers) if all(type(number) is int for number in numbers) else None


def library_attribute(value: object, name: str) -> object:
    """Return an attribute that a library's class computes; UNKNOWN if another defines it, or it fails."""
    raw = find_in_mro(type(value), name)
    kind = type(raw)
    if kind not in _C_DESCRIPTORS and _origin(raw) not in _LIBRARIES:
        return UNKNOWN
    try:
        return cast(Any, raw).__get__(value, type(value))
    except Exception:
        return UNKNOWN


def _origin(raw: object) -> str:
    """Return the top module of what a descriptor was made by."""
    function = raw.fget if type(raw) is property else None
    if type(function) is FunctionType:
        return function.__module__.partition(".")[0]
    return _top_module(type(raw))
