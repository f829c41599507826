"""Attributes and items of live objects, read without running any of the objects' code.

No attribute is read in the usual way: properties, `__getattr__`, `__getattribute__`, `__dir__` and
metaclasses may all run the user's code. Instead the dictionaries of the MRO of an object's type, and the
object's own, are read through the descriptors of `type` itself, as `inspect.getattr_static` does.
"""

import ast
import functools
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final, Literal, cast

_mro_of: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
_dict_of: Final[Callable[[type], Mapping[str, object]]] = type.__dict__["__dict__"].__get__
_module_of: Final[Callable[[type], object]] = type.__dict__["__module__"].__get__

FUNCTIONS: Final = frozenset(
    {
        FunctionType,
        BuiltinFunctionType,
        MethodType,
        MethodDescriptorType,
        MethodWrapperType,
        WrapperDescriptorType,
        ClassMethodDescriptorType,
        classmethod,
        staticmethod,
        functools.partial,
    }
)
"""Exact types whose instances a person would call functions."""
_LITERAL_TYPES: Final = frozenset({str, int, float, complex, bool, bytes, type(None), type(...)})
_TYPE_OF_EXPRESSION: Final[dict[type[ast.expr], type]] = {
    ast.List: list,
    ast.ListComp: list,
    ast.Tuple: tuple,
    ast.Dict: dict,
    ast.DictComp: dict,
    ast.Set: set,
    ast.SetComp: set,
    ast.JoinedStr: str,
}
_MAX_KEYS: Final = 10_000


class Unknown(Enum):
    """The type of `UNKNOWN`, which stands for what cannot be known without running code."""

    UNKNOWN = 0


UNKNOWN: Final = Unknown.UNKNOWN


class InstanceOf:
    """Stands for some instance of a class, where only the class is known."""

    __slots__ = ("cls",)

    def __init__(self, cls: type) -> None:
        """Stand for an instance of the class `cls`."""
        self.cls = cls


def is_class(value: object) -> bool:
    """Return whether a value is a class. `isinstance` would ask the value for its `__class__`."""
    return issubclass(type(value), type)


def is_module(value: object) -> bool:
    """Return whether a value is a module, lazy ones included."""
    return issubclass(type(value), ModuleType)


def instance_dict(value: object) -> Mapping[str, object]:
    """Return the own dictionary of an instance or module, or an empty one."""
    for cls in _mro_of(type(value)):
        descriptor = _dict_of(cls).get("__dict__")
        if descriptor is None:
            continue
        if type(descriptor) in (GetSetDescriptorType, MemberDescriptorType):
            found = cast(GetSetDescriptorType, descriptor).__get__(value, type(value))
            if issubclass(type(found), dict):
                table = cast(dict[str, object], found)
                # Of a dict subclass a copy, made without its own methods.
                return table if type(found) is dict else dict[str, object].copy(table)
        break
    return {}


def module_name(kind: type) -> str:
    """Return the name of the module that a class says it is of; empty where it says none, or no name.

    Libraries set `__module__` of classes that they make at run time to None, as sympy does.
    """
    try:
        name = _module_of(kind)
    except AttributeError:
        return ""
    return name if type(name) is str else ""


def class_dict(cls: type) -> Mapping[str, object]:
    """Return a class's own dictionary."""
    return _dict_of(cls)


def static_attributes(value: object) -> dict[str, object]:
    """Return all attributes by name, as they are in the dictionaries: a property is the property object."""
    found: dict[str, object] = {}
    if type(value) is InstanceOf:
        classes = _mro_of(value.cls)
    elif is_class(value):
        classes = _mro_of(cast(type, value))
    else:
        classes = _mro_of(type(value))
    if not is_module(value):
        for cls in reversed(classes):
            found.update(_dict_of(cls))
    if not is_class(value) and type(value) is not InstanceOf:
        found.update(instance_dict(value))
    return {name: item for name, item in found.items() if type(name) is str}


def static_getattr(value: object, name: str) -> object:
    """Return `value.name` if reading it runs no code, else `UNKNOWN`."""
    if type(value) is InstanceOf:
        raw = find_in_mro(value.cls, name)
        return UNKNOWN if type(raw) in (MemberDescriptorType, GetSetDescriptorType) else _bind(raw, value)
    if is_class(value):
        return _bind_to_class(find_in_mro(cast(type, value), name), cast(type, value))
    raw = find_in_mro(type(value), name)
    if raw is not UNKNOWN and _type_defines(type(raw), "__set__") and type(raw) is not MemberDescriptorType:
        return UNKNOWN
    own = instance_dict(value)
    if name in own:
        return own[name]
    return _bind(raw, value)


def find_in_mro(cls: type, name: str) -> object:
    """Return what the first class in the MRO has under a name, unbound; or `UNKNOWN`."""
    for base in _mro_of(cls):
        found = _dict_of(base)
        if name in found:
            return found[name]
    return UNKNOWN


def _type_defines(cls: type, name: str) -> bool:
    return find_in_mro(cls, name) is not UNKNOWN


def _bind(raw: object, value: object) -> object:
    kind = type(raw)
    if kind is FunctionType:
        return MethodType(cast(FunctionType, raw), value)
    if kind is MemberDescriptorType:
        try:
            return cast(MemberDescriptorType, raw).__get__(value, type(value))
        except AttributeError:
            return UNKNOWN
    return _bind_to_class(raw, value.cls if type(value) is InstanceOf else type(value))


def _bind_to_class(raw: object, cls: type) -> object:
    kind = type(raw)
    if kind is classmethod or kind is staticmethod:
        function = cast("classmethod[Any, Any, Any]", raw).__func__
        if kind is classmethod and type(function) is FunctionType:
            return MethodType(function, cls)
        return function
    if is_one_of(kind, FUNCTIONS) or not _type_defines(kind, "__get__"):
        return raw
    return UNKNOWN


def mro_of(cls: type) -> tuple[type, ...]:
    """Return a class's MRO, whatever its metaclass says of it."""
    return _mro_of(cls)


def static_getitem(value: object, key: object) -> object:
    """Return `value[key]` of an exact built-in container, else `UNKNOWN`."""
    if type(value) is dict:
        # No look-up in the dict: it may call the `__eq__` of another key with the same hash.
        table = cast(dict[object, object], value)
        for index, (known, found) in enumerate(table.items()):
            if index == _MAX_KEYS:
                break
            if type(known) is type(key) and known == key:
                return found
    elif (type(value) is list or type(value) is tuple) and type(key) is int:
        items = cast(list[object], value)
        if -len(items) <= key < len(items):
            return items[key]
    return UNKNOWN


def _constant_key(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=key) if type(key) in _LITERAL_TYPES:
            return key
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return -number
        case _:
            return UNKNOWN


def evaluate_statically(
    expression: str, names: Callable[[str], object], column: Callable[[object, object], object]
) -> object:
    """Return the value of an expression of names, attributes, constant subscripts and literals.

    Args:
        expression: Python source.
        names: returns the value of a name, or `UNKNOWN`.
        column: returns what stands for a column of a table, or `UNKNOWN`.

    Returns:
        The value; for the call of a class an `InstanceOf` that class; for anything else, and for source that
        does not parse, `UNKNOWN`.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return UNKNOWN
    return _evaluate(tree.body, names, column)


def _evaluate(
    node: ast.expr, names: Callable[[str], object], column: Callable[[object, object], object]
) -> object:
    match node:
        case ast.Name(id=name):
            return names(name)
        case ast.Attribute(value=inner, attr=name):
            value = _evaluate(inner, names, column)
            found = UNKNOWN if value is UNKNOWN else static_getattr(value, name)
            return column(value, name) if found is UNKNOWN else found
        case ast.Subscript(value=inner, slice=index):
            value, key = _evaluate(inner, names, column), _constant_key(index)
            found = UNKNOWN if value is UNKNOWN or key is UNKNOWN else static_getitem(value, key)
            return column(value, key) if found is UNKNOWN else found
        case ast.Constant(value=value):
            return value
        case ast.Call(func=inner):
            cls = _evaluate(inner, names, column)
            return InstanceOf(cast(type, cls)) if is_class(cls) else UNKNOWN
        case _ if type(node) in _TYPE_OF_EXPRESSION:
            return InstanceOf(_TYPE_OF_EXPRESSION[type(node)])
        case _:
            return UNKNOWN


def is_one_of(kind: type, kinds: Iterable[type]) -> bool:
    """Return whether a type is one of several, without asking for a hash: it may be its metaclass's."""
    return any(kind is each for each in kinds)


type ValueKind = Literal["variable", "function", "class", "module", "property", "method"]


def kind_of(value: object, *, of_class: bool = False) -> ValueKind:
    """Return what a person would call a value; `of_class` if it is in a class's dictionary."""
    kind = type(value)
    if is_one_of(kind, FUNCTIONS):
        return "method" if of_class else "function"
    if is_class(value):
        return "class"
    if is_module(value):
        return "module"
    if of_class and (kind is property or kind is GetSetDescriptorType or kind is functools.cached_property):
        return "property"
    return "variable"
