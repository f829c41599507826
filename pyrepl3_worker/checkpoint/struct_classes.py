"""Saves classes of msgspec's that the session has defined: only their metaclass can make them again.

It is the code's own msgspec, of whatever version, and not the worker's where that is another one.
"""

import sys
from importlib import import_module
from inspect import Parameter
from typing import Any, Final, cast

from pyrepl3_worker.checkpoint.by_value import ReduceValue, fill_class, reduce_class
from pyrepl3_worker.rendering.static_lookup import class_dict

_LIBRARY: Final = "msgspec"
_OPTIONS: Final = (
    "frozen", "eq", "order", "array_like", "gc", "repr_omit_defaults", "omit_defaults",
    "forbid_unknown_fields", "cache_hash", "tag", "tag_field",
)  # fmt: skip
_LAYOUT_OPTIONS: Final = ("weakref", "dict")
"""Given to the class that has them first; those below inherit them."""
_NEEDED_EARLY: Final = ("__orig_bases__", "__type_params__")
"""Attributes that `Generic` looks at while a class is made."""

type _Fields = dict[str, dict[str, Any]]
"""By the name of a field, the arguments of `msgspec.field` that make it."""


def is_struct_class(cls: type) -> bool:
    """Return whether a class is one of msgspec's structures."""
    struct = getattr(sys.modules.get(_LIBRARY), "Struct", None)
    return isinstance(struct, type) and issubclass(type(cls), type(struct))


def reduce_struct_class(cls: Any) -> ReduceValue:
    """Return a structure's reduce value: its fields and options, then its other attributes."""
    (_, name, bases, creation), (attributes, registered) = cast("Any", reduce_class(cls)[1:3])
    found = class_dict(cls)
    own = cast("dict[str, Any]", found.get("__annotations__") or {})
    if sys.version_info >= (3, 14):
        own = cls.__annotations__
    creation = {key: value for key, value in creation.items() if key != "__slots__"}
    creation |= {key: found[key] for key in _NEEDED_EARLY if key in found}
    creation["__annotations__"] = own
    struct: Any = vars(sys.modules[_LIBRARY])["Struct"]
    own_meta: Any = cast("Any", type(cls))
    meta = None if own_meta is type(struct) else own_meta
    state = {
        key: value for key, value in attributes.items() if key not in ("__annotations__", *_NEEDED_EARLY)
    }
    made = (meta, name, bases, creation, _fields_of(cls, own), _options_of(cls))
    return make_struct_class, made, (state, registered), None, None, fill_class


def _fields_of(cls: Any, own: dict[str, Any]) -> _Fields:
    names: tuple[str, ...] = cls.__struct_fields__
    defaults: tuple[Any, ...] = cls.__struct_defaults__
    first = len(names) - len(defaults)
    fields: _Fields = {}
    for at, (name, encoded) in enumerate(zip(names, cls.__struct_encode_fields__, strict=True)):
        if name not in own:
            continue  # inherited
        field = fields[name] = {} if name == encoded else {"name": encoded}
        default: Any = defaults[at - first] if at >= first else None
        if at >= first and type(default).__name__ != "NoDefaultType":
            is_factory = type(default).__name__ == "Factory" and type(default).__module__ == "msgspec._core"
            field["default_factory" if is_factory else "default"] = default.factory if is_factory else default
    return fields


def _options_of(cls: Any) -> dict[str, Any]:
    config = cls.__struct_config__
    options = {name: getattr(config, name, None) for name in _OPTIONS}
    above = [base.__struct_config__ for base in cls.__bases__ if is_struct_class(base)]
    for name in _LAYOUT_OPTIONS:
        if getattr(config, name, False) and not any(getattr(each, name, False) for each in above):
            options[name] = True
    parameters = cls.__signature__.parameters
    own = [name for name in cls.__struct_fields__ if name in class_dict(cls).get("__slots__", ())]
    options["kw_only"] = bool(own) and all(parameters[name].kind is Parameter.KEYWORD_ONLY for name in own)
    return {name: value for name, value in options.items() if value is not None}


def make_struct_class(
    meta: Any,
    name: str,
    bases: tuple[Any, ...],
    creation: dict[str, Any],
    fields: _Fields,
    options: dict[str, Any],
) -> type:
    """Make a structure's class; `fill_class` sets its other attributes.

    The `__init_subclass__` of its bases runs: msgspec makes no class without.
    """
    library = import_module(_LIBRARY)  # no statement: that would find the worker's own
    for key, arguments in fields.items():
        if arguments:
            creation[key] = library.field(**arguments)
    return (meta or type(library.Struct))(name, bases, creation, **options)
