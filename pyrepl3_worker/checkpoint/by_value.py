"""Functions and classes of the session by value: what they consist of, and how they are made again.

pickle saves functions and classes by name, and a fresh worker has none of the session's. cloudpickle
saves them by value, but gives each restored function a copy of its globals, runs metaclasses and
`__init_subclass__` again, and loses what enum members carry. Here a restored function sees the live
namespace, and a class is put together without running any of its code.

Code objects are bytecode (`marshal`), so this is for the same version of Python.
"""

import marshal
import operator
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterable
from enum import Enum, Flag
from importlib import import_module
from types import CellType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Final, cast

from pyrepl3_worker.rendering.static_lookup import class_dict, in_mro

_abc: Final[Any] = import_module("_abc")  # what the C half of `abc` gives is not in typeshed

type Reduced = tuple[Any, ...]
"""What `__reduce__` gives."""


class Sentinel:
    """Something of the restoring session that a pickle refers to; its loader has the real one."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        """Be pickled as this module's global `name`."""
        self._name = name

    def __reduce__(self) -> str:
        """Go by name."""
        return self._name


LIVE_NAMESPACE: Final = Sentinel("LIVE_NAMESPACE")
"""The namespace."""
LAZY_NAMES: Final = Sentinel("LAZY_NAMES")
"""What names are bound to, restored when it is first asked for."""

_IN_EVERY_CLASS: Final = frozenset(
    {"__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__abstractmethods__", "_abc_impl"}
    | {"__annotate_func__", "__annotations_cache__", "__slotnames__"}
)
_OF_ENUM: Final = frozenset(
    {
        "_generate_next_value_", "_new_member_", "__new_member__", "_use_args_", "_member_names_",
        "_member_map_",
        "_value2member_map_", "_hashable_values_", "_unhashable_values_", "_unhashable_values_map_",
        "_member_type_", "_value_repr_", "_boundary_", "_flag_mask_", "_singles_mask_", "_all_bits_",
        "_inverted_", "__new__", "_sort_order_",
    }
)  # fmt: skip
_OF_MEMBER: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})


# --- saving ---------------------------------------------------------------------------------------------


def named(name: str, path: Iterable[str] = ()) -> Reduced:
    """Refer to a name of the session, or to something in the class that it is bound to."""
    reference: Reduced = (operator.getitem, (LAZY_NAMES, name))
    path = ".".join(path)
    return (member_of, (Reference(reference), path)) if path else reference


class Reference:
    """Stands in a reduction for an object that is itself given by a reduction."""

    __slots__ = ("_reduced",)

    def __init__(self, reduced: Reduced) -> None:
        """Be pickled as `reduced`."""
        self._reduced = reduced

    def __reduce__(self) -> Reduced:
        """Give what it stands for."""
        return self._reduced


def function_parts(function: FunctionType, scope: object) -> Reduced:
    """Give what a function consists of.

    Args:
        function: the function.
        scope: its globals: `LIVE`, a module, or a dict that is saved along.
    """
    annotations: object = (
        function.__annotations__ if sys.version_info < (3, 14) else cast(Any, function).__annotate__
    )
    state = (
        function.__qualname__,
        function.__module__,
        function.__doc__,
        function.__defaults__,
        function.__kwdefaults__,
        annotations,
        function.__type_params__,
        function.__dict__ or None,
    )
    made = (code_bytes(function.__code__), scope, function.__name__, function.__closure__)
    return make_function, made, state, None, None, fill_function


def code_bytes(code: CodeType) -> bytes:
    """Give a code object as bytes: the same for the same code, wherever that is possible.

    Later formats mark which parts are referenced from elsewhere at the moment.
    """
    try:
        return marshal.dumps(code, 2)
    except ValueError:
        return marshal.dumps(code)  # constants that the old format does not know, as slices


def cell_parts(cell: CellType) -> Reduced:
    """Give what a closure's cell consists of. It is filled later: it may hold the function itself."""
    try:
        contents = (cell.cell_contents,)
    except ValueError:
        return (CellType, ())
    return CellType, (), contents, None, None, fill_cell


def class_parts(cls: type) -> Reduced:
    """Give what a class consists of."""
    found = class_dict(cls)
    # What else is set later may refer to the class itself. A class always gets a `__doc__`.
    creation: dict[str, object] = {"__qualname__": cls.__qualname__, "__doc__": None}
    creation |= {name: found[name] for name in ("__module__", "__doc__", "__slots__") if name in found}
    attributes = {
        name: value
        for name, value in found.items()
        if name not in _IN_EVERY_CLASS and name != "__slots__" and not _is_own_slot(value, cls)
    }
    registered: list[type] = []
    if issubclass(type(cls), ABCMeta):
        alive: list[type | None] = [reference() for reference in _abc._get_dump(cls)[0]]
        registered = [other for other in alive if other is not None]
        registered.sort(key=lambda other: other.__qualname__)
    state = (attributes, registered)
    return make_class, (type(cls), cls.__name__, cls.__bases__, creation), state, None, None, fill_class


def _is_own_slot(value: object, cls: type) -> bool:
    kind = type(value)
    if kind is not MemberDescriptorType and kind is not GetSetDescriptorType:
        return False
    return cast(MemberDescriptorType, value).__objclass__ is cls


def enum_parts(cls: type[Enum]) -> Reduced:
    """Give what an enum consists of. Members are made from their values, then get what else they carry."""
    members = cls.__members__
    attributes = {
        name: value
        for name, value in sorted(class_dict(cls).items())
        if name not in _OF_ENUM and name not in _IN_EVERY_CLASS and name not in members
    }
    carried = {
        name: {key: value for key, value in vars(member).items() if key not in _OF_MEMBER}
        for name, member in members.items()
    }
    creation = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    boundary = class_dict(cls).get("_boundary_") if issubclass(cls, Flag) else None
    values = {name: member._value_ for name, member in members.items()}
    made = (type(cls), cls.__name__, cls.__bases__, creation, values, boundary)
    return make_enum, made, (attributes, carried), None, None, fill_enum


def exception_parts(error: BaseException) -> Reduced:
    """Give what an exception with an `__init__` of its own consists of: that may want other arguments."""
    return make_exception, (type(error), error.args), error.__dict__ or None


# --- restoring ------------------------------------------------------------------------------------------


def member_of(cls: type, path: str) -> object:
    """Give what stands at a path in a class, the function itself of a method."""
    found: object = cls
    for name in path.split("."):
        found = in_mro(cast("type[object]", found), name)
        if isinstance(found, staticmethod | classmethod):
            found = cast("staticmethod[..., object]", found).__func__
    return found


def make_function(
    code: bytes, scope: dict[str, Any] | ModuleType, name: str, closure: tuple[CellType, ...] | None
) -> FunctionType:
    """Make a function that lacks all but its code, globals and closure."""
    scope = scope if isinstance(scope, dict) else vars(scope)
    # Interned, as the names of compiled functions are: so it is saved in the same bytes again.
    name = sys.intern(name)
    return FunctionType(marshal.loads(code), scope, name, None, closure)  # noqa: S302 - as safe as unpickling it


def fill_function(function: FunctionType, state: tuple[Any, ...]) -> None:
    """Give a function all else."""
    qualname, module, doc, defaults, keyword_defaults, annotations, type_params, own = state
    function.__qualname__ = sys.intern(qualname)
    function.__module__ = sys.intern(module) if type(module) is str else module
    function.__doc__ = doc
    function.__defaults__, function.__kwdefaults__ = defaults, keyword_defaults
    function.__type_params__ = type_params
    if sys.version_info < (3, 14):
        function.__annotations__ = annotations
    else:
        cast(Any, function).__annotate__ = annotations
    if own:
        function.__dict__.update(own)


def fill_cell(cell: CellType, contents: tuple[object]) -> None:
    """Put into a cell what it held."""
    (cell.cell_contents,) = contents


class _Quiet:
    """First of a new class's bases for a moment: `__init_subclass__` has run for this class before."""

    __slots__ = ()

    def __init_subclass__(cls, **_: object) -> None:
        pass


class _QuietWithDict:
    """The same, in the memory layout of classes without `__slots__`."""

    def __init_subclass__(cls, **_: object) -> None:
        pass


def make_class(meta: type, name: str, bases: tuple[type, ...], creation: dict[str, Any]) -> type:
    """Make an empty class, without running its metaclass or, where that is possible, `__init_subclass__`."""
    cls = _make_silently(meta, name, bases, _interned(creation))
    if issubclass(meta, ABCMeta):
        _abc._abc_init(cls)
    return cls


def _interned(creation: dict[str, Any]) -> dict[str, Any]:
    """Share the names in a class's body with others, as the compiler does; see `make_function`."""
    for name in ("__module__", "__qualname__"):
        if type(creation.get(name)) is str:
            creation[name] = sys.intern(creation[name])
    return creation


def _make_silently(meta: type, name: str, bases: tuple[type, ...], creation: dict[str, Any]) -> type:
    new: Callable[..., type] = type.__new__
    if all(in_mro(base, "__init_subclass__") is _OBJECTS for base in bases):
        return new(meta, name, bases, creation)
    for quiet in (_QuietWithDict, _Quiet):
        cls = new(meta, name, (quiet, *bases), dict(creation))
        try:
            cls.__bases__ = bases
        except TypeError:
            continue  # the memory layout differs
        return cls
    return new(meta, name, bases, creation)


_OBJECTS: Final = class_dict(object)["__init_subclass__"]


def fill_class(cls: type, state: tuple[dict[str, Any], list[type]]) -> None:
    """Give a class its attributes, and an abstract one the classes registered with it."""
    attributes, registered = state
    _set_attributes(cls, attributes)
    if issubclass(type(cls), ABCMeta):
        _abc._abc_init(cls)  # works out anew what is abstract
        for other in registered:
            _abc._abc_register(cls, other)


def _set_attributes(cls: type, attributes: dict[str, Any]) -> None:
    put: Callable[[type, str, object], None] = type.__setattr__
    for name, value in attributes.items():
        put(cls, name, value)
    if "__firstlineno__" in attributes:
        put(cls, "__firstlineno__", attributes["__firstlineno__"])  # any other attribute removes it


def make_enum(
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    creation: dict[str, Any],
    values: dict[str, Any],
    boundary: object,
) -> type:
    """Make an enum of nothing but its members' values."""
    body = meta.__prepare__(name, bases)
    for key, value in {**_interned(creation), **values}.items():
        body[key] = value
    options = {} if boundary is None else {"boundary": boundary}
    return meta(name, bases, body, **options)


def fill_enum(cls: type[Enum], state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Give an enum its methods, and its members what they carry."""
    attributes, carried = state
    _set_attributes(cls, attributes)
    for name, own in carried.items():
        vars(cls.__members__[name]).update(own)


def make_exception(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an exception from its `args`, past the `__init__` and `__new__` of its Python classes."""
    built_in = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    error: BaseException = built_in.__new__(cls, *args)
    built_in.__init__(error, *args)
    return error
