"""Reads signatures, docstrings and sources of live objects, without running any of their code.

`inspect` would evaluate `__signature__`, `__wrapped__` and `__doc__`, whatever code that runs, and call
the `__repr__` of defaults; `inspect.getsource` reads an attribute of every loaded module.
"""

import ast
import functools
import inspect
import linecache
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Final, NamedTuple, Protocol, cast

from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER
from pyrepl3_worker.inspection import ufuncs
from pyrepl3_worker.rendering.reprs import encodable, safe_repr
from pyrepl3_worker.rendering.static_lookup import (
    FUNCTIONS,
    UNKNOWN,
    InstanceOf,
    class_dict,
    find_in_mro,
    instance_dict,
    is_class,
    is_module,
    is_one_of,
    static_getattr,
)

_BUILTIN_FUNCTION_TYPES: Final = frozenset(
    {BuiltinFunctionType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType}
)
_MAX_WRAPPERS: Final = 20
_MAX_DEFAULT_CHARS: Final = 60
_MAX_DOC_CHARS: Final = 20_000
_MAX_SOURCE_LINES: Final = 1000
_MAX_SOURCE_CHARS: Final = 60_000
_text_signature_of_class: Final = type.__dict__["__text_signature__"].__get__
_doc_of_class: Final = type.__dict__["__doc__"].__get__
_mro_of: Final = type.__dict__["__mro__"].__get__


class _BuiltinFunction(Protocol):
    """An attribute of `_BUILTIN_FUNCTION_TYPES` that typeshed does not describe."""

    __text_signature__: str | None


class _CallTarget(NamedTuple):
    """The function that a call reaches in the end, and which of its arguments are bound already."""

    function: object
    bound_count: int
    stated: "_Stated | None"
    keywords: dict[str, object]
    """Values that take the place of defaults, by name."""


class _Stated(NamedTuple):
    """What a callable says its signature is, and how many of the first arguments in it are bound already."""

    signature: inspect.Signature | str
    bound_count: int


def _stated_signature(value: object) -> inspect.Signature | str | None:
    """Return the `__signature__` of a function, class or callable instance, if reading it runs no code."""
    kind = type(value)
    if is_class(value):
        found = find_in_mro(cast(type, value), "__signature__")
    else:
        found = instance_dict(value).get("__signature__")
        # A class's own describes its constructor; instances have it only if nothing else says how to call.
        if (
            found is None
            and kind is not FunctionType
            and type(find_in_mro(kind, "__call__")) is not FunctionType
        ):
            found = find_in_mro(kind, "__signature__")
    if type(found) is inspect.Signature:
        return found if all(type(each) is inspect.Parameter for each in found.parameters.values()) else None
    return found if type(found) is str else None


def _call_target(value: object) -> _CallTarget:
    bound_count = 0
    keywords: dict[str, object] = {}
    stated: _Stated | None = None
    for _ in range(_MAX_WRAPPERS):
        kind = type(value)
        if stated is None and (is_class(value) or find_in_mro(kind, "__call__") is not UNKNOWN):
            found = _stated_signature(value)
            stated = None if found is None else _Stated(found, bound_count)
        if kind is MethodType:
            value = cast(MethodType, value).__func__
            bound_count += 1
        elif kind is functools.partial:
            partial = cast("functools.partial[object]", value)
            bound_count += len(partial.args)
            keywords = {**partial.keywords, **keywords}
            value = partial.func
        elif kind is FunctionType:
            wrapped = instance_dict(value).get("__wrapped__")
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
            bound_count += 1
        elif is_one_of(kind, _BUILTIN_FUNCTION_TYPES):
            break
        else:
            # A callable instance, or a wrapper such as that of functools.cache.
            own = instance_dict(value).get("__wrapped__")
            call = find_in_mro(kind, "__call__") if own is None else own
            if type(call) is not FunctionType:
                break
            value = call
            bound_count += own is None
    return _CallTarget(value, bound_count, stated, keywords)


def _host_signature(function: object) -> inspect.Signature | None:
    """Return what stands for a host function's signature; None for any other function."""
    if type(function) is not FunctionType or not function.__code__.co_filename.startswith(PACKAGE_FOLDER):
        return None
    found = instance_dict(function).get("__signature__")
    return found if type(found) is inspect.Signature else None


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
    """Return a callable's parameters as text, such as `"(a, b=1)"`; empty if they are not known."""
    function, bound_count, stated, keywords = _call_target(value)
    host_function = _host_signature(function)
    if host_function is not None:
        return encodable(str(host_function))
    if stated is not None and type(stated.signature) is inspect.Signature:
        parameters = _stated_parameters(stated.signature, stated.bound_count)
        return encodable(_as_text(_bind(parameters, keywords), _known(stated.signature.return_annotation)))
    if stated is not None or type(function) is not FunctionType:
        return encodable(_signature_text(function, stated))
    returned = UNKNOWN if is_class(value) else _stored_annotations(function).get("return", UNKNOWN)
    return encodable(_as_text(_bind(_parameters(function, bound_count), keywords), returned))


def _as_text(parameters: Iterable[_Parameter], returned: object) -> str:
    texts: list[str] = []
    slash = star = False
    for parameter in parameters:
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
    arrow = None if returned is UNKNOWN else _annotation_text(returned)
    return f"({', '.join(texts)})" + (f" -> {arrow}" if arrow is not None else "")


def _signature_text(function: object, stated: _Stated | None) -> str:
    """Return the signature of what has it as text only; empty if there is none."""
    if stated is not None and type(stated.signature) is str:
        return stated.signature
    return ufuncs.signature(function) or _text_signature(function)


def keyword_names(value: object) -> list[str]:
    """Return the names that a callable takes as keyword arguments."""
    function, bound_count, stated, keywords = _call_target(value)
    host_function = _host_signature(function)
    if host_function is not None:
        stated = _Stated(host_function, 0)
    if stated is not None and type(stated.signature) is inspect.Signature:
        return _keywords(_bind(_stated_parameters(stated.signature, stated.bound_count), keywords))
    if stated is None and type(function) is FunctionType:
        return _keywords(_bind(_parameters(function, bound_count), keywords))
    try:
        tree = ast.parse(f"def f{_signature_text(function, stated)}: ...")
    except (SyntaxError, ValueError):
        return []
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return []
    return [argument.arg for argument in (*definition.args.args, *definition.args.kwonlyargs)]


def _keywords(parameters: Iterable[_Parameter]) -> list[str]:
    return [each.name for each in parameters if not each.stars and not each.by_position_only]


def _known(value: object) -> object:
    return UNKNOWN if value is inspect.Parameter.empty else value


def _stated_parameters(stated: inspect.Signature, bound_count: int) -> Iterator[_Parameter]:
    for parameter in stated.parameters.values():
        kind = parameter.kind
        if bound_count and kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD):
            bound_count -= 1
            continue
        default, annotation = _known(parameter.default), _known(parameter.annotation)
        yield _Parameter(
            parameter.name,
            "*" if kind is kind.VAR_POSITIONAL else "**" if kind is kind.VAR_KEYWORD else "",
            kind is kind.POSITIONAL_ONLY,
            kind is kind.KEYWORD_ONLY,
            None if default is UNKNOWN else safe_repr(default, _MAX_DEFAULT_CHARS),
            None if annotation is UNKNOWN else _annotation_text(annotation),
        )


def _parameters(function: FunctionType, bound_count: int) -> Iterator[_Parameter]:
    code = function.__code__
    annotations = _stored_annotations(function)
    defaults = function.__defaults__ or ()
    keyword_defaults = function.__kwdefaults__ or {}
    count, only = code.co_argcount, code.co_posonlyargcount

    def annotation(name: str) -> str | None:
        found = annotations.get(name, UNKNOWN)
        return None if found is UNKNOWN else _annotation_text(found)

    for index, name in enumerate(code.co_varnames[:count]):
        if index < bound_count:
            continue
        at = index - (count - len(defaults))
        default = safe_repr(defaults[at], _MAX_DEFAULT_CHARS) if at >= 0 else None
        yield _Parameter(name, "", index < only, False, default, annotation(name))
    after = count + code.co_kwonlyargcount
    if code.co_flags & inspect.CO_VARARGS:
        name = code.co_varnames[after]
        yield _Parameter(name, "*", False, False, None, annotation(name))
    for name in code.co_varnames[count:after]:
        default = safe_repr(keyword_defaults[name], _MAX_DEFAULT_CHARS) if name in keyword_defaults else None
        yield _Parameter(name, "", False, True, default, annotation(name))
    if code.co_flags & inspect.CO_VARKEYWORDS:
        name = code.co_varnames[after + bool(code.co_flags & inspect.CO_VARARGS)]
        yield _Parameter(name, "**", False, False, None, annotation(name))


def _bind(parameters: Iterable[_Parameter], keywords: dict[str, object]) -> Iterator[_Parameter]:
    """Yield parameters as `functools.partial` leaves them: from one bound by name on, all are given so."""
    by_name = False
    for each in parameters:
        parameter = each
        if not each.stars and each.name in keywords:
            by_name = True
            text = safe_repr(keywords[each.name], _MAX_DEFAULT_CHARS)
            parameter = each._replace(default=text)
        if each.stars == "*" and by_name:
            continue
        yield parameter._replace(by_keyword_only=True) if by_name and not each.stars else parameter


def _stored_annotations(function: FunctionType) -> dict[str, object]:
    # From Python 3.14 on, reading them evaluates the annotations' code.
    return function.__annotations__ if sys.version_info < (3, 14) else {}


def _annotation_text(value: object) -> str | None:
    kind: type = type(value)
    if kind is str:
        return cast(str, value)
    if is_class(value):
        return type.__dict__["__name__"].__get__(value)
    if value is None or value is ...:
        return "None" if value is None else "..."
    if kind is GenericAlias or kind is UnionType:
        arguments = [_annotation_text(argument) for argument in cast(GenericAlias, value).__args__]
        known = [argument for argument in arguments if argument is not None]
        if len(known) < len(arguments):
            return None
        if kind is UnionType:
            return " | ".join("None" if text == "NoneType" else text for text in known)
        origin = _annotation_text(cast(GenericAlias, value).__origin__)
        return None if origin is None else f"{origin}[{', '.join(known)}]"
    return None


def _text_signature(function: object) -> str:
    text: str | None
    if is_one_of(type(function), _BUILTIN_FUNCTION_TYPES):
        text = cast(_BuiltinFunction, function).__text_signature__
    elif is_class(function):
        text = _text_signature_of_class(function)
    else:
        return ""
    return "" if text is None else re.sub(r"\(\$\w+(, )?(/, |/)?", "(", text)


def doc(value: object, owner: object = UNKNOWN, name: str = "") -> str:
    """Return a value's docstring, that of its class, or of a base: cleaned and truncated, empty if none.

    Args:
        value: the value.
        owner: what it is an attribute of, if that is known.
        name: the attribute's name.
    """
    text = _doc(value)
    if type(text) is not str and _has_name_in_class(value):
        text = _inherited_doc(value, owner, name)
    return encodable(inspect.cleandoc(text[:_MAX_DOC_CHARS])) if type(text) is str else ""


def _doc(value: object) -> object:
    kind = type(value)
    if kind is InstanceOf:
        return _class_doc(cast(InstanceOf, value).cls)
    if is_module(value):
        return instance_dict(value).get("__doc__")
    if is_class(value):
        return _class_doc(cast(type, value))
    if kind is FunctionType or is_one_of(kind, _BUILTIN_FUNCTION_TYPES):
        text = cast(FunctionType, value).__doc__
        function = _call_target(value).function
        return _doc(function) if text is None and function is not value else text
    if kind is MethodType or kind is classmethod or kind is staticmethod:
        return _doc(cast(MethodType, value).__func__)
    if kind is property:
        return cast(property, value).__doc__
    text = _instance_doc(value)
    if type(text) is str:
        return text
    if kind is functools.partial or "__wrapped__" in instance_dict(value):
        return _doc(_call_target(value).function)
    text = _class_doc(kind)
    function = _call_target(value).function
    return _doc(function) if type(text) is not str and function is not value else text


def _instance_doc(value: object) -> object:
    """Return an instance's own docstring, if reading it runs no code; None if it has none."""
    of_class = find_in_mro(type(value), "__doc__")
    if type(of_class) is MemberDescriptorType:
        return static_getattr(value, "__doc__")
    if of_class is not UNKNOWN and find_in_mro(type(of_class), "__set__") is not UNKNOWN:
        return ufuncs.doc(value)
    return instance_dict(value).get("__doc__")


def _class_doc(cls: type) -> object:
    for base in _mro_of(cls):
        text = class_dict(base).get("__doc__")
        if text is not None and (base is not object or cls is object):
            # In the dictionary of a C type, the text begins with the signature.
            return _doc_of_class(base) if type(text) is str else None
    return None


def _has_name_in_class(value: object) -> bool:
    kind = type(value)
    return is_one_of(kind, FUNCTIONS) or kind is property or kind is functools.cached_property


def _inherited_doc(value: object, owner: object, name: str) -> object:
    """Return the docstring that a method or property without one has in a base."""
    if type(value) is MethodType and owner is UNKNOWN:
        owner, name = value.__self__, ""
    function = _function_of(value)
    if type(owner) is InstanceOf:
        cls = owner.cls
    elif is_class(owner):
        cls = cast(type, owner)
    elif owner is UNKNOWN or is_module(owner) or name in instance_dict(owner):
        cls = _defining_class(function)
        name = ""
    else:
        cls = type(owner)
    if not name and type(function) is FunctionType:
        name = function.__name__
    for base in () if cls is None else _mro_of(cls):
        found = class_dict(base).get(name)
        text = _doc(found) if _has_name_in_class(found) else None
        if type(text) is str:
            return text
    return None


def _function_of(value: object) -> object:
    """Return the function behind a method or property, or what was given."""
    kind = type(value)
    if kind is property:
        return cast(property, value).fget
    if kind is functools.cached_property:
        return instance_dict(value).get("func")
    if kind is MethodType or kind is classmethod or kind is staticmethod:
        return cast(MethodType, value).__func__
    return value


def _defining_class(function: object) -> type | None:
    """Return the class that a function was defined in, as far as its qualified name tells."""
    if type(function) is not FunctionType:
        return None
    found: object = None
    names: Mapping[str, object] = function.__globals__
    for part in function.__qualname__.split(".")[:-1]:
        found = names.get(part)
        if not is_class(found):
            return None
        names = class_dict(cast(type, found))
    return cast("type | None", found)


def source(value: object) -> str:
    """Return the source of a function, property or class, truncated; empty if `linecache` has none."""
    if is_class(value):
        filename, first = _class_location(cast(type, value))
    else:
        function = _call_target(_function_of(value)).function
        if type(function) is not FunctionType:
            return ""
        filename, first = function.__code__.co_filename, function.__code__.co_firstlineno
    if filename is None or first is None:
        return ""
    lines = linecache.getlines(filename)[max(first - 1, 0) :][:_MAX_SOURCE_LINES]
    if not lines:
        return ""
    # A block of more lines than that is cut, maybe in the middle of a text.
    with suppress(tokenize.TokenError):
        lines = inspect.getblock(lines)
    return encodable("".join(lines)[:_MAX_SOURCE_CHARS])


def _class_location(cls: type) -> tuple[str | None, int | None]:
    found = class_dict(cls)
    # Others stand in it too, such as those that `dataclasses` adds.
    functions = [each for each in found.values() if type(each) is FunctionType and _is_written_in(each, cls)]
    filename = functions[0].__code__.co_filename if functions else _module_file(found.get("__module__"))
    first = found.get("__firstlineno__")
    if filename is None or type(first) is int:
        return filename, cast("int | None", first)
    name = re.escape(type.__dict__["__name__"].__get__(cls))
    pattern = re.compile(rf"[ \t]*class[ \t]+{name}\b")
    for number, line in enumerate(linecache.getlines(filename), 1):
        if pattern.match(line):
            return filename, number
    return filename, None


def _is_written_in(function: FunctionType, cls: type) -> bool:
    """Return whether a function's own code stands in the source of a class; a decorator's does not."""
    name = type.__dict__["__qualname__"].__get__(cls)
    return function.__code__.co_qualname.startswith(f"{name}.")


def _module_file(module: object) -> str | None:
    found: ModuleType | None = sys.modules.get(module) if type(module) is str else None
    filename = instance_dict(found).get("__file__") if found is not None else None
    return filename if type(filename) is str else None
