"""Pickle for the namespace of a session.

Three things are different from plain pickle. What the session itself has defined is saved by value
(`definitions`), or by its name in the namespace when it is saved there already: so instances in many
groups have one class. What belongs to the worker is saved by where it can be found. And the pickler
notes which objects it has met, which tells the names that share objects: its `persistent_id` hook is
called for each, and `list.append`, as that hook, does so at the speed of C, says None to all (which
means: go on), and keeps them alive, so that no id is used twice.
"""

import marshal
import sys
from _pickle import Pickler, Unpickler
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, EnumType
from functools import _lru_cache_wrapper  # pyright: ignore[reportPrivateUsage]
from importlib import import_module
from io import BytesIO
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, NewType, ParamSpec, TypeAliasType, TypeVar, TypeVarTuple, cast
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from pyrepl3_worker.checkpoint import by_value, reducers
from pyrepl3_worker.checkpoint.by_value import Reduced, Reference, Sentinel, named
from pyrepl3_worker.checkpoint.scope import PicklerContext, in_worker, is_ndarray, is_static, is_workers
from pyrepl3_worker.checkpoint.unsaveable import Unsaveable, refusal
from pyrepl3_worker.code.compiler import CELL_PREFIX
from pyrepl3_worker.rendering.static_lookup import in_mro

PROTOCOL: Final = 5
BUFFER: Final = 16 * 1024
"""Bytes of an out-of-band buffer that is kept as a content of its own."""
_SINGLETON_TYPES: Final = frozenset({type(None), type(...), type(NotImplemented)})
_VALUES: Final = frozenset(
    {int, float, complex, bool, type(None), str, bytes, tuple, frozenset, range, slice, type(...)}
)
_TYPE_VARIABLES: Final = frozenset({TypeVar, ParamSpec, TypeVarTuple})
_VALUE_MODULES: Final = frozenset(
    {"datetime", "decimal", "fractions", "uuid", "pathlib", "pathlib._local", "ipaddress", "zoneinfo"}
    | {"re", "typing", "numpy.dtypes"}
)


type How = Callable[["NamespacePickler", Any], Any] | None
"""Gives an object's reduction; None leaves it to pickle."""


class _Sink:
    """A file. Its `write` is Python's, so that a signal is heard between two parts, which may have no end."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        # A bytearray comes as it is, and may change before all is written.
        self.parts.append(data if type(data) is bytes else bytes(data))


class NamespacePickler(Pickler):
    """Pickles the values of one group, one after the other, with one memo."""

    def __init__(self, scope: PicklerContext, members: frozenset[str]) -> None:
        """Save what is bound to `members`; refer to other definitions by name."""
        self._file = _Sink()
        self.buffers: list[memoryview] = []
        super().__init__(self._file, PROTOCOL, buffer_callback=_collector(self.buffers))
        self.scope = scope
        self._members = members
        self.seen: list[object] = []
        self.persistent_id = self.seen.append
        self.owned: set[int] = set()
        """Ids of definitions that were saved by value."""
        self.by_name: set[int] = set()
        """Ids of objects that were saved by where a module has them."""
        self.needs: set[str] = set()
        """Names that were referred to."""
        self.sources: set[str] = set()
        """Cells whose functions were saved."""

    @property
    def data(self) -> bytes:
        """What has been written."""
        return b"".join(self._file.parts)

    def reducer_override(self, obj: Any) -> Any:
        """Say how to save an object that is none of the exact built-in types."""
        kind = cast("type[object]", type(obj))
        by_type = self.scope.by_type
        try:
            how = by_type[kind]
        except KeyError:
            how = by_type[kind] = _how_to_save(kind)
        return NotImplemented if how is None else how(self, obj)

    # --- definitions ---------------------------------------------------------------------------------

    def refer(self, value: FunctionType | type) -> Reduced | None:
        """Refer to a definition of another group by name."""
        owner = self.scope.owner_of(value)
        if owner is None or owner[0] in self._members:
            return None
        self.needs.add(owner[0])
        return named(*owner)

    def function(self, value: FunctionType) -> Any:
        """Save a function."""
        if self.scope.is_importable(value):
            return NotImplemented
        if is_workers(value):
            return self.workers(value)
        reference = self.refer(value)
        if reference is not None:
            return reference
        self.owned.add(id(value))
        if value.__code__.co_filename.startswith(CELL_PREFIX):
            self.sources.add(value.__code__.co_filename)
        return by_value.function_parts(value, self.scope.globals_of(value))

    def definition(self, value: type) -> Any:
        """Save a class."""
        if self.scope.is_importable(value):
            return self._static(value) if is_static(value) else NotImplemented
        if is_workers(value):
            raise Unsaveable("it is a part of the worker")
        reference = self.refer(value)
        if reference is not None:
            return reference
        self.owned.add(id(value))
        if issubclass(type(value), EnumType) and value.__dict__.get("_member_map_"):
            return by_value.enum_parts(cast(type[Enum], value))
        return by_value.class_parts(value)

    @staticmethod
    def _static(value: type) -> Any:
        """Save a type of the interpreter's that `types` may know better than its own module."""
        import types

        if value in _SINGLETON_TYPES or vars(sys.modules["builtins"]).get(value.__name__) is value:
            return NotImplemented
        for name, found in vars(types).items():
            if found is value:
                return getattr, (types, name)
        return NotImplemented

    # --- the worker's own, and the library's -----------------------------------------------------------

    def workers(self, value: object) -> Reduced:
        """Save a part of the worker by where it can be found."""
        self.by_name.add(id(value))
        wanted = value.__name__ if isinstance(value, FunctionType | MethodType) else None
        namespace = self.scope.namespace
        for module in list(sys.modules.values()) if wanted is not None else [sys]:
            table = vars(module)
            for name in [wanted] if wanted is not None else list(table):
                if table.get(name) is value and table is not namespace:
                    return getattr, (module, name)
        for name, found in list(namespace.items()):
            if found is value and name not in self._members:
                return named(name)
        raise Unsaveable("it is a part of the worker")

    def method(self, value: MethodType) -> Any:
        """Save a bound method; the worker's own by where it is found."""
        return self.workers(value) if is_workers(value) else NotImplemented

    def instance(self, value: object) -> Any:
        """Save an instance of a library's class: by name, when a module holds this very object."""
        name = self.scope.constant_name(value)
        if name is None:
            return NotImplemented
        self.by_name.add(id(value))
        return getattr, (sys.modules[type(value).__module__], name)

    def array(self, value: Any) -> Any:
        """Save a NumPy array; one that looks into another that is saved too, as a look into that."""
        base = value.base
        if id(base) not in self.scope.looked_into or not reducers.can_look_into(value, base):
            return NotImplemented
        return reducers.view_parts(value, base)

    def module(self, value: ModuleType) -> Reduced:
        """Save a module by name."""
        name = vars(value).get("__name__")
        if type(name) is not str or sys.modules.get(name) is not value:
            raise Unsaveable("a module that was made by hand can't be imported again")
        return import_module, (name,)


def _collector(buffers: list[memoryview]) -> Callable[[Any], bool]:
    """Give a callback that takes large buffers as they are, so that nothing is copied.

    No method of the pickler's: that would make a circle of references, and keep the arrays' memory
    locked until the garbage is collected.
    """

    def take(buffer: Any) -> bool:
        try:
            view = cast(memoryview, buffer.raw())
        except BufferError:
            return True  # not contiguous: pickle copies it
        if len(view) < BUFFER:
            return True
        buffers.append(view)
        return False

    return take


def identity_matters(kind: type) -> bool:
    """Whether it can be told if two names share an instance, or each have an equal one."""
    if kind in _TYPE_VARIABLES:
        return True
    if kind in _VALUES or kind is Sentinel or kind is Reference:
        return False
    if issubclass(kind, type | FunctionType | BuiltinFunctionType | ModuleType | Enum):
        return False
    return not any(base.__module__ in _VALUE_MODULES or base.__qualname__ == "dtype" for base in kind.__mro__)


def _how_to_save(kind: type[Any]) -> How:
    """Give how instances of a type are saved; None leaves it to pickle."""
    if kind is Sentinel or kind is BuiltinFunctionType:
        return None
    if issubclass(kind, type):
        return NamespacePickler.definition
    if kind in _SPECIAL:
        return _SPECIAL[kind]
    reason = refusal(kind)
    if in_worker(kind.__module__):
        return NamespacePickler.workers
    if reason is not None:
        return _refuse(reason)
    if issubclass(kind, BaseException):
        plain = cast(Any, kind).__reduce__ is BaseException.__reduce__
        own = type(in_mro(kind, "__init__")) is FunctionType or type(in_mro(kind, "__new__")) is FunctionType
        return (lambda _, error: by_value.exception_parts(error)) if plain and own else None
    if is_ndarray(kind):
        return NamespacePickler.array
    if reducers.overrides_filling(kind):
        return lambda _, value: reducers.container_parts(value)
    return None if kind.__module__ in ("__main__", "builtins") else NamespacePickler.instance


def _refuse(reason: str) -> How:
    def refuse(_: NamespacePickler, value: Any) -> Any:
        raise Unsaveable(reason)

    return refuse


def _by_name_or(parts: Callable[[Any], Reduced]) -> How:
    """Save by value, but for a library's own, which goes by name."""

    def save(saver: NamespacePickler, value: Any) -> Any:
        if not saver.scope.is_global(value):
            return parts(value)
        saver.by_name.add(id(value))
        return NotImplemented

    return save


_SPECIAL: Final[dict[type, How]] = {
    FunctionType: NamespacePickler.function,
    MethodType: NamespacePickler.method,
    ModuleType: NamespacePickler.module,
    CellType: lambda _, cell: by_value.cell_parts(cell),
    CodeType: lambda _, code: (marshal.loads, (by_value.code_bytes(code),)),
    Reference: lambda _, reference: reference.__reduce__(),
    property: lambda _, value: reducers.property_parts(value),
    classmethod: lambda _, method: (classmethod, (method.__func__,)),
    staticmethod: lambda _, method: (staticmethod, (method.__func__,)),
    MappingProxyType: lambda _, proxy: (MappingProxyType, (dict[Any, Any](proxy),)),
    _lru_cache_wrapper: _by_name_or(reducers.cache_parts),
    TypeVar: _by_name_or(reducers.variable_parts),
    ParamSpec: _by_name_or(reducers.spec_parts),
    TypeVarTuple: _by_name_or(reducers.spec_parts),
    TypeAliasType: _by_name_or(lambda alias: (TypeAliasType, (alias.__name__, alias.__value__))),
    NewType: _by_name_or(reducers.new_type_parts),
    WeakKeyDictionary: lambda _, table: (WeakKeyDictionary, (dict[Any, Any](table),)),
    WeakValueDictionary: lambda _, table: (WeakValueDictionary, (dict[Any, Any](table),)),
    WeakSet: lambda _, items: (WeakSet, (list(items),)),
}


class NamespaceUnpickler(Unpickler):
    """Loads what a `NamespacePickler` has written."""

    def __init__(
        self,
        data: Any,
        buffers: Iterable[Any],
        namespace: dict[str, Any],
        names: Mapping[str, object],
    ) -> None:
        """Bind functions to `namespace`, and look names up in `names`."""
        super().__init__(BytesIO(data), buffers=buffers)
        self._sentinels = {"LIVE_NAMESPACE": namespace, "LAZY_NAMES": names}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Give what a pickle refers to by module and name."""
        if module_name == by_value.__name__ and global_name in self._sentinels:
            return self._sentinels[global_name]
        return super().find_class(module_name, global_name)
