"""Tells whether a constant or a function has changed since the last checkpoint, without pickling it."""

import sys
from collections.abc import Collection
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Final, cast

_ATOMIC_TYPES: Final = frozenset({int, float, complex, bool, type(None), type(...), str, bytes})
_MAX_LENGTH: Final = 1024 * 1024
"""Characters or bytes of a text: the checkpointer keeps each constant that it remembers alive."""
_MAX_ITEMS: Final = 1000
_MAX_DEPTH: Final = 3


def fingerprint(value: object) -> object:
    """Return a value that stays equal as long as the object does not change; None if that is unknown."""
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return _is_constant(cast("tuple[object, ...]", value), _MAX_DEPTH) or None
    if kind in _ATOMIC_TYPES:
        return not is_long(value, _MAX_LENGTH) or None
    if kind is BuiltinFunctionType:
        # Bound to an object (`[].append`), it is as changeable as that is.
        bound_to = cast(BuiltinFunctionType, value).__self__
        return bound_to is None or type(bound_to) is ModuleType or None
    if kind is FunctionType:
        return _function_fingerprint(cast(FunctionType, value))
    return None


def _function_fingerprint(function: FunctionType) -> object:
    if function.__closure__ or function.__dict__ or function.__kwdefaults__ or function.__type_params__:
        return None
    # Annotations may be changed in place; from Python 3.14 on, reading them runs code.
    if sys.version_info >= (3, 14) or function.__annotations__:
        return None
    if not _is_constant(function.__defaults__ or (), _MAX_DEPTH):
        return None
    return id(function.__code__), function.__defaults__, function.__qualname__, function.__doc__


def is_long(value: object, most: int) -> bool:
    """Return whether a value is a text or bytes, and longer than `most`."""
    return type(value) in (str, bytes) and len(cast(str, value)) > most


def _is_constant(items: Collection[object], depth: int) -> bool:
    if len(items) > _MAX_ITEMS or depth == 0:
        return False
    for item in items:
        kind = type(item)
        if kind is tuple or kind is frozenset:
            if not _is_constant(cast("tuple[object, ...]", item), depth - 1):
                return False
        elif kind not in _ATOMIC_TYPES or is_long(item, _MAX_LENGTH):
            return False
    return True
