"""Values that are the same as long as they are the same object."""

import sys
from collections.abc import Collection
from types import BuiltinFunctionType, FunctionType
from typing import Final, cast

_ATOMS: Final = frozenset({int, float, complex, bool, type(None), type(...), str, bytes})
_LONGEST: Final = 1024 * 1024
"""Characters or bytes: who remembers a constant by its identity keeps it alive."""
_ITEMS: Final = 1000
_DEPTH: Final = 3


def fingerprint(value: object) -> object:
    """Give something that stays equal as long as this same object does not change; None if it may."""
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return _is_constant(cast("tuple[object, ...]", value), _DEPTH) or None
    if kind in _ATOMS:
        return not _is_long(value) or None
    if kind is BuiltinFunctionType:
        return True
    if kind is FunctionType:
        return _of_function(cast(FunctionType, value))
    return None


def _of_function(function: FunctionType) -> object:
    if function.__closure__ or function.__dict__ or function.__kwdefaults__ or function.__type_params__:
        return None
    # Annotations may be changed in place; from Python 3.14 on, asking for them runs code.
    if sys.version_info >= (3, 14) or function.__annotations__:
        return None
    if not _is_constant(function.__defaults__ or (), _DEPTH):
        return None
    return id(function.__code__), function.__defaults__, function.__qualname__, function.__doc__


def _is_long(value: object) -> bool:
    return type(value) in (str, bytes) and len(cast(str, value)) > _LONGEST


def _is_constant(items: Collection[object], depth: int) -> bool:
    if len(items) > _ITEMS or depth == 0:
        return False
    for item in items:
        kind = type(item)
        if kind is tuple or kind is frozenset:
            if not _is_constant(cast("tuple[object, ...]", item), depth - 1):
                return False
        elif kind not in _ATOMS or _is_long(item):
            return False
    return True
