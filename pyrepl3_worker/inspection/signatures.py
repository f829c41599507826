"""Signatures, docstrings and sources of live objects, read without running any of their code.

`inspect` would follow `__signature__`, `__wrapped__` and `__doc__` wherever they lead, and write
defaults with their own `__repr__`; `inspect.getsource` asks every module that is loaded for its file.
"""

import ast
import functools
import inspect
import linecache
import re
import sys
from collections.abc import Iterator
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Final, NamedTuple, Protocol, cast

from pyrepl3_worker.rendering.reprs import encodable, safe_repr
from pyrepl3_worker.rendering.static_lookup import (
    UNKNOWN,
    InstanceOf,
    class_dict,
    in_mro,
    is_class,
    is_module,
    own_dict,
)

_BUILTIN: Final = frozenset(
    {BuiltinFunctionType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType}
)
_WRAPPINGS: Final = 20
_DEFAULT_CHARS: Final = 60
_DOC_CHARS: Final = 20_000
_SOURCE_LINES: Final = 1000
_SOURCE_CHARS: Final = 60_000
_text_signature_of_class: Final = type.__dict__["__text_signature__"].__get__
_doc_of_class: Final = type.__dict__["__doc__"].__get__
_mro_of: Final = type.__dict__["__mro__"].__get__


class _BuiltinFunction(Protocol):
    """What typeshed does not say of the types in `_BUILTIN`."""

    __text_signature__: str | None


class _Target(NamedTuple):
    """The function that a call ends up in, and how many of its first arguments are given already."""

    function: object
    given: int


def _target(value: object) -> _Target:
    given = 0
    for _ in range(_WRAPPINGS):
        kind = type(value)
        if kind is MethodType:
            value = cast(MethodType, value).__func__
            given += 1
        elif kind is functools.partial:
            partial = cast("functools.partial[object]", value)
            given += len(partial.args)
            value = partial.func
        elif kind is FunctionType:
            wrapped = own_dict(value).get("__wrapped__")
            if wrapped is None:
                break
            value = wrapped
        elif kind is classmethod or kind is staticmethod:
            value = cast("staticmethod[..., object]", value).__func__
        elif is_class(value):
            constructor = _constructor(cast(type, value))
            if constructor is None:
                break
            value = constructor
            given += 1
        elif kind in _BUILTIN:
            break
        else:
            # An instance that can be called, or a wrapper such as functools.cache's.
            own = own_dict(value).get("__wrapped__")
            call = in_mro(kind, "__call__") if own is None else own
            if type(call) is not FunctionType:
                break
            value = call
            given += own is None
    return _Target(value, given)


def _constructor(cls: type) -> FunctionType | None:
    for base in _mro_of(cls):
        for name in ("__init__", "__new__"):
            function = class_dict(base).get(name)
            if type(function) is staticmethod:
                function = cast("staticmethod[..., object]", function).__func__
            if type(function) is FunctionType:
                return function
    return None


class _Parameter(NamedTuple):
    name: str
    stars: str
    by_position_only: bool
    by_keyword_only: bool
    default: str | None
    annotation: str | None


def signature(value: object) -> str:
    """Give a callable's parameters as text, `"(a, b=1)"`; empty when they are not known."""
    function, given = _target(value)
    if type(function) is not FunctionType:
        return encodable(_text_signature(function))
    texts: list[str] = []
    slash = star = False
    for parameter in _parameters(function, given):
        if slash and not parameter.by_position_only:
            texts.append("/")
        slash = parameter.by_position_only
        if parameter.by_keyword_only and not star:
            texts.append("*")
        star = star or parameter.by_keyword_only or parameter.stars == "*"
        text = parameter.stars + parameter.name
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None:
            text += f"={parameter.default}" if parameter.annotation is None else f" = {parameter.default}"
        texts.append(text)
    if slash:
        texts.append("/")
    returned = _annotations(function).get("return", UNKNOWN)
    arrow = None if returned is UNKNOWN or is_class(value) else _annotation(returned)
    return encodable(f"({', '.join(texts)})" + (f" -> {arrow}" if arrow is not None else ""))


def keywords(value: object) -> list[str]:
    """Give the names that a callable takes as keyword arguments."""
    function, given = _target(value)
    if type(function) is FunctionType:
        return [
            parameter.name
            for parameter in _parameters(function, given)
            if not parameter.stars and not parameter.by_position_only
        ]
    try:
        tree = ast.parse(f"def f{_text_signature(function)}: ...")
    except (SyntaxError, ValueError):
        return []
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return []
    return [argument.arg for argument in (*definition.args.args, *definition.args.kwonlyargs)]


def _parameters(function: FunctionType, given: int) -> Iterator[_Parameter]:
    code = function.__code__
    annotations = _annotations(function)
    defaults = function.__defaults__ or ()
    keyword_defaults = function.__kwdefaults__ or {}
    count, only = code.co_argcount, code.co_posonlyargcount

    def annotation(name: str) -> str | None:
        found = annotations.get(name, UNKNOWN)
        return None if found is UNKNOWN else _annotation(found)

    for index, name in enumerate(code.co_varnames[:count]):
        if index < given:
            continue
        at = index - (count - len(defaults))
        default = safe_repr(defaults[at], _DEFAULT_CHARS) if at >= 0 else None
        yield _Parameter(name, "", index < only, False, default, annotation(name))
    after = count + code.co_kwonlyargcount
    if code.co_flags & inspect.CO_VARARGS:
        name = code.co_varnames[after]
        yield _Parameter(name, "*", False, False, None, annotation(name))
    for name in code.co_varnames[count:after]:
        default = safe_repr(keyword_defaults[name], _DEFAULT_CHARS) if name in keyword_defaults else None
        yield _Parameter(name, "", False, True, default, annotation(name))
    if code.co_flags & inspect.CO_VARKEYWORDS:
        name = code.co_varnames[after + bool(code.co_flags & inspect.CO_VARARGS)]
        yield _Parameter(name, "**", False, False, None, annotation(name))


def _annotations(function: FunctionType) -> dict[str, object]:
    # From Python 3.14 on, asking for them runs the code that they were written as.
    return function.__annotations__ if sys.version_info < (3, 14) else {}


def _annotation(value: object) -> str | None:
    kind: type = type(value)
    if kind is str:
        return cast(str, value)
    if is_class(value):
        return type.__dict__["__name__"].__get__(value)
    if value is None or value is ...:
        return "None" if value is None else "..."
    if kind is GenericAlias or kind is UnionType:
        arguments = [_annotation(argument) for argument in cast(GenericAlias, value).__args__]
        known = [argument for argument in arguments if argument is not None]
        if len(known) < len(arguments):
            return None
        if kind is UnionType:
            return " | ".join("None" if text == "NoneType" else text for text in known)
        origin = _annotation(cast(GenericAlias, value).__origin__)
        return None if origin is None else f"{origin}[{', '.join(known)}]"
    return None


def _text_signature(function: object) -> str:
    text: str | None
    if type(function) in _BUILTIN:
        text = cast(_BuiltinFunction, function).__text_signature__
    elif is_class(function):
        text = _text_signature_of_class(function)
    else:
        return ""
    return "" if text is None else re.sub(r"\(\$\w+(, )?(/, |/)?", "(", text)


def doc(value: object) -> str:
    """Give a value's docstring, or that of its class; cleaned, bounded, and empty when there is none."""
    text: object
    if type(value) is InstanceOf:
        value = value.cls
    function = _target(value).function
    if is_module(value):
        text = own_dict(value).get("__doc__")
    elif is_class(value):
        text = _class_doc(cast(type, value))
    elif type(function) is FunctionType or type(function) in _BUILTIN:
        text = cast(FunctionType, function).__doc__
    elif type(value) is property:
        text = value.__doc__
    else:
        text = _class_doc(type(value))
    return encodable(inspect.cleandoc(text[:_DOC_CHARS])) if type(text) is str else ""


def _class_doc(cls: type) -> object:
    text = class_dict(cls).get("__doc__")
    # The dictionary of a C type holds the text with its signature in front.
    return _doc_of_class(cls) if type(text) is str else None


def source(value: object) -> str:
    """Give the source of a function or class, when its lines are at hand; bounded."""
    if is_class(value):
        filename, first = _place_of_class(cast(type, value))
    else:
        function = _target(value).function
        if type(function) is not FunctionType:
            return ""
        filename, first = function.__code__.co_filename, function.__code__.co_firstlineno
    if filename is None or first is None:
        return ""
    lines = linecache.getlines(filename)[max(first - 1, 0) :][:_SOURCE_LINES]
    if not lines:
        return ""
    return encodable("".join(inspect.getblock(lines))[:_SOURCE_CHARS])


def _place_of_class(cls: type) -> tuple[str | None, int | None]:
    found = class_dict(cls)
    functions = [function for function in found.values() if type(function) is FunctionType]
    filename = functions[0].__code__.co_filename if functions else _file_of(found.get("__module__"))
    first = found.get("__firstlineno__")
    if filename is None or type(first) is int:
        return filename, cast("int | None", first)
    name = re.escape(type.__dict__["__name__"].__get__(cls))
    pattern = re.compile(rf"[ \t]*class[ \t]+{name}\b")
    for number, line in enumerate(linecache.getlines(filename), 1):
        if pattern.match(line):
            return filename, number
    return filename, None


def _file_of(module: object) -> str | None:
    found: ModuleType | None = sys.modules.get(module) if type(module) is str else None
    filename = own_dict(found).get("__file__") if found is not None else None
    return filename if type(filename) is str else None
