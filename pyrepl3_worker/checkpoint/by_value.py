"""How functions and classes of the session are pickled by value, and made again.

pickle saves functions and classes by name, and a fresh worker has none of the session's. cloudpickle
saves them by value, but gives each restored function a copy of its globals, runs metaclasses and
`__init_subclass__` again, and loses what enum members carry. Here a restored function uses the live
namespace as its globals, and a class is put together without running any of its code.

Code objects are bytecode (`marshal`), so this is for the same version of Python.
"""

import marshal
import operator
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, Flag
from importlib import import_module
from types import CellType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Final, cast

from pyrepl3_worker.rendering.static_lookup import UNKNOWN, class_dict, find_in_mro, module_name

_abc: Final[Any] = import_module("_abc")  # typeshed does not describe the C half of `abc`

type ReduceValue = tuple[Any, ...]
"""What `__reduce__` returns: a callable, its arguments, then possibly a state and its setter."""


class Sentinel:
    """Stands in a pickle for an object of the restoring session, which `NamespaceUnpickler` puts in."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        """Make a sentinel that is pickled as this module's global `name`."""
        self._name = name

    def __reduce__(self) -> str:
        """Return the name: pickle then saves a reference to the global."""
        return self._name


LIVE_NAMESPACE: Final = Sentinel("LIVE_NAMESPACE")
"""The live namespace."""
LAZY_NAMES: Final = Sentinel("LAZY_NAMES")
"""A mapping of names to their values, each restored when it is first asked for."""

_IMPLICIT_CLASS_ATTRIBUTES: Final = frozenset(
    {"__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__abstractmethods__", "_abc_impl"}
    | {"__annotate_func__", "__annotations_cache__", "__slotnames__"}
)
_ENUM_CLASS_ATTRIBUTES: Final = frozenset(
    {
        "_generate_next_value_", "_new_member_", "__new_member__", "_use_args_", "_member_names_",
        "_member_map_",
        "_value2member_map_", "_hashable_values_", "_unhashable_values_", "_unhashable_values_map_",
        "_member_type_", "_value_repr_", "_boundary_", "_flag_mask_", "_singles_mask_", "_all_bits_",
        "_inverted_", "__new__", "_sort_order_",
    }
)  # fmt: skip
_ENUM_MEMBER_ATTRIBUTES: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})


# --- saving ---------------------------------------------------------------------------------------------


def name_reference(name: str, path: Iterable[str] = ()) -> ReduceValue:
    """Return a reference to a name of the session, or to a member of the class that it is bound to."""
    reference: ReduceValue = (operator.getitem, (LAZY_NAMES, name))
    path = ".".join(path)
    return (class_member, (PickledAs(reference), path)) if path else reference


class PickledAs:
    """Stands inside a reduce value for an object that has a reduce value of its own."""

    __slots__ = ("_reduce_value",)

    def __init__(self, reduced: ReduceValue) -> None:
        """Make an object that is pickled as `reduced`."""
        self._reduce_value = reduced

    def __reduce__(self) -> ReduceValue:
        """Return the reduce value of the object that this one stands for."""
        return self._reduce_value


def reduce_function(function: FunctionType, function_globals: object) -> ReduceValue:
    """Return a function's reduce value: its code, globals and closure first, then everything else.

    Args:
        function: the function.
        function_globals: how its globals are saved: `LIVE_NAMESPACE`, a module, or a dict that is
            saved with the function.
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
    made = (code_bytes(function.__code__), function_globals, function.__name__, function.__closure__)
    return make_function, made, state, None, None, fill_function


def code_bytes(code: CodeType) -> bytes:
    """Return a code object as bytes: the same bytes for the same code, wherever that is possible.

    Later formats of `marshal` also mark which parts are referenced from elsewhere at the moment, so
    their bytes differ from call to call.
    """
    try:
        return marshal.dumps(code, 2)
    except ValueError:
        return marshal.dumps(code)  # constants that the old format does not know, as slices


def reduce_cell(cell: CellType) -> ReduceValue:
    """Return the reduce value of a closure's cell. It is filled later: it may hold the function itself."""
    try:
        contents = (cell.cell_contents,)
    except ValueError:
        return (CellType, ())
    return CellType, (), contents, None, None, fill_cell


def reduce_class(cls: type) -> ReduceValue:
    """Return a class's reduce value: what creates it, then its attributes."""
    found = class_dict(cls)
    # All other attributes are set later: they may refer to the class. A class always gets a `__doc__`.
    creation: dict[str, object] = {"__qualname__": cls.__qualname__, "__doc__": None}
    creation |= {name: found[name] for name in ("__module__", "__doc__", "__slots__") if name in found}
    attributes = {
        name: value
        for name, value in found.items()
        if name not in _IMPLICIT_CLASS_ATTRIBUTES and name != "__slots__" and not _is_slot_of(value, cls)
    }
    registered: list[type] = []
    if issubclass(type(cls), ABCMeta):
        alive: list[type | None] = [reference() for reference in _abc._get_dump(cls)[0]]
        registered = [other for other in alive if other is not None]
        registered.sort(key=lambda other: other.__qualname__)
    state = (attributes, registered)
    return make_class, (type(cls), cls.__name__, cls.__bases__, creation), state, None, None, fill_class


def _is_slot_of(value: object, cls: type) -> bool:
    kind = type(value)
    if kind is not MemberDescriptorType and kind is not GetSetDescriptorType:
        return False
    return cast(MemberDescriptorType, value).__objclass__ is cls


def reduce_enum(cls: type[Enum]) -> ReduceValue:
    """Return an enum's reduce value. Members are made from their values, then get their other attributes."""
    members = cls.__members__
    attributes = {
        name: value
        for name, value in sorted(class_dict(cls).items())
        if name not in _ENUM_CLASS_ATTRIBUTES
        and name not in _IMPLICIT_CLASS_ATTRIBUTES
        and name not in members
    }
    carried = {
        name: {key: value for key, value in vars(member).items() if key not in _ENUM_MEMBER_ATTRIBUTES}
        for name, member in members.items()
    }
    creation = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    boundary = class_dict(cls).get("_boundary_") if issubclass(cls, Flag) else None
    values = {name: member._value_ for name, member in members.items()}
    made = (type(cls), cls.__name__, cls.__bases__, creation, values, boundary)
    return make_enum, made, (attributes, carried), None, None, fill_enum


def reduce_exception(error: BaseException) -> ReduceValue:
    """Return the reduce value of an exception whose class has its own `__init__`.

    pickle would call that `__init__` with `args`, and it may want other arguments.
    """
    return make_exception, (type(error), error.args), error.__dict__ or None


# --- restoring ------------------------------------------------------------------------------------------


def class_member(cls: type, path: str) -> object:
    """Return what stands at a dotted path in a class; of a static or class method, its function.

    Raises:
        LookupError: the class does not have it (any more).
    """
    found: object = cls
    for name in path.split("."):
        holder = found
        found = find_in_mro(holder, name) if isinstance(holder, type) else UNKNOWN
        if found is UNKNOWN:
            raise LookupError(f"it needs {cls.__name__}.{path}, which the class does not have")
        if isinstance(found, staticmethod | classmethod):
            found = cast("staticmethod[..., object]", found).__func__
    return found


def make_function(
    code: bytes,
    function_globals: dict[str, Any] | ModuleType,
    name: str,
    closure: tuple[CellType, ...] | None,
) -> FunctionType:
    """Make a function of its code, globals and closure; `fill_function` sets the rest."""
    function_globals = function_globals if isinstance(function_globals, dict) else vars(function_globals)
    # Interned, as the names of compiled functions are: so the next checkpoint has the same bytes.
    name = sys.intern(name)
    return FunctionType(marshal.loads(code), function_globals, name, None, closure)  # noqa: S302 - as safe as unpickling it


def fill_function(function: FunctionType, state: tuple[Any, ...]) -> None:
    """Set all attributes of a function that `make_function` leaves out."""
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
    """Put a cell's contents into it."""
    (cell.cell_contents,) = contents


class _SkipInitSubclass:
    """Is for a moment the first base of a new class, so that no other `__init_subclass__` is called.

    They ran for this class when the session defined it.
    """

    __slots__ = ()

    def __init_subclass__(cls, **_: object) -> None:
        pass


class _SkipInitSubclassWithDict:
    """The same, in the memory layout of classes without `__slots__`."""

    def __init_subclass__(cls, **_: object) -> None:
        pass


def make_class(meta: type, name: str, bases: tuple[type, ...], creation: dict[str, Any]) -> type:
    """Make an empty class, without running its metaclass or, where that is possible, `__init_subclass__`."""
    cls = _new_class_without_hooks(meta, name, bases, _intern_names(creation))
    if issubclass(meta, ABCMeta):
        _abc._abc_init(cls)
    return cls


def _intern_names(creation: dict[str, Any]) -> dict[str, Any]:
    """Intern the names in a class's body, as the compiler does; see `make_function`."""
    for name in ("__module__", "__qualname__"):
        if type(creation.get(name)) is str:
            creation[name] = sys.intern(creation[name])
    return creation


def _new_class_without_hooks(
    meta: type, name: str, bases: tuple[type, ...], creation: dict[str, Any]
) -> type:
    new: Callable[..., type] = type.__new__
    if all(find_in_mro(base, "__init_subclass__") is _OBJECT_INIT_SUBCLASS for base in bases):
        return new(meta, name, bases, creation)
    for quiet in (_SkipInitSubclassWithDict, _SkipInitSubclass, *_quiet_bases(meta, bases)):
        try:
            cls = new(meta, name, (quiet, *bases), dict(creation))
            type.__setattr__(cls, "__bases__", bases)
        except TypeError:
            continue  # the memory layout differs
        return cls
    return new(meta, name, bases, creation)


def _quiet_bases(meta: type, bases: tuple[type, ...]) -> Iterator[type]:
    """Make classes that skip `__init_subclass__`, in the memory layouts of `bases`."""
    for base in bases:
        kind = base
        while kind.__base__ is not None and _layout(kind) == _layout(kind.__base__):
            kind = kind.__base__
        if kind.__base__ is not None and kind.__flags__ & _HEAP_TYPE:
            body: dict[str, Any] = {"__init_subclass__": class_dict(_SkipInitSubclass)["__init_subclass__"]}
            body |= {name: value for name, value in class_dict(kind).items() if name == "__slots__"}
            yield _new_class_without_hooks(meta, "Quiet", (kind.__base__,), body)


def _layout(kind: type) -> tuple[int, ...]:
    return kind.__basicsize__, kind.__itemsize__, kind.__dictoffset__, kind.__weakrefoffset__


_HEAP_TYPE: Final = 1 << 9
"""The flag of classes that are made by a class statement."""


_OBJECT_INIT_SUBCLASS: Final = class_dict(object)["__init_subclass__"]


def fill_class(cls: type, state: tuple[dict[str, Any], list[type]]) -> None:
    """Set a class's attributes; register with an abstract one the classes that were registered."""
    attributes, registered = state
    _set_attributes(cls, attributes)
    if issubclass(type(cls), ABCMeta):
        _abc._abc_init(cls)  # finds out again which methods are abstract
        for other in registered:
            _abc._abc_register(cls, other)


def _set_attributes(cls: type, attributes: dict[str, Any]) -> None:
    put: Callable[[type, str, object], None] = type.__setattr__
    for name, value in attributes.items():
        put(cls, name, value)
    if "__firstlineno__" in attributes:
        put(cls, "__firstlineno__", attributes["__firstlineno__"])  # setting any other attribute removes it


def make_enum(
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    creation: dict[str, Any],
    values: dict[str, Any],
    boundary: object,
) -> type:
    """Make an enum that has its members and their values; `fill_enum` sets the rest."""
    body = meta.__prepare__(name, bases)
    for key, value in {**_intern_names(creation), **values}.items():
        body[key] = value
    options = {} if boundary is None else {"boundary": boundary}
    return meta(name, bases, body, **options)


def fill_enum(cls: type[Enum], state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Set an enum's methods, and its members' other attributes."""
    attributes, carried = state
    _set_attributes(cls, attributes)
    for name, own in carried.items():
        vars(cls.__members__[name]).update(own)


def make_exception(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an exception from its `args`, without the `__init__` and `__new__` of its Python classes."""
    built_in = next(base for base in cls.__mro__ if module_name(base) == "builtins")
    error: BaseException = built_in.__new__(cls, *args)
    built_in.__init__(error, *args)
    return error
