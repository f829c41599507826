"""The pickler and the unpickler for the namespace of a session.

Three things are different from plain pickle. What the session itself has defined is saved by value
(`by_value`), or by its name in the namespace when another group holds it: so instances in many groups
have one class. What belongs to the worker is saved by the place where it can be found. And the pickler
records which objects it has met, which shows the names that share objects: pickle calls the
`persistent_id` hook for each object, and `list.append` as that hook records it at the speed of C,
returns None (pickle then goes on as usual), and keeps the object alive, so that no id is used twice.
"""

import marshal
import sys
from _pickle import Pickler, Unpickler
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from copyreg import dispatch_table
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
from pyrepl3_worker.checkpoint.by_value import (
    LIVE_NAMESPACE,
    PickledAs,
    ReduceValue,
    Sentinel,
    name_reference,
)
from pyrepl3_worker.checkpoint.foreign_code import reduce_foreign, runs_foreign_code
from pyrepl3_worker.checkpoint.makers import Maker, find_maker
from pyrepl3_worker.checkpoint.memory_maps import lender_of, reduce_lent_array
from pyrepl3_worker.checkpoint.portability import MOVED_MODULES, IsPortable
from pyrepl3_worker.checkpoint.scope import (
    PicklerContext,
    belongs_to_worker,
    import_name,
    is_ndarray,
    is_static_type,
    is_worker_module,
    own_module_name,
)
from pyrepl3_worker.checkpoint.struct_classes import is_struct_class, reduce_struct_class
from pyrepl3_worker.checkpoint.time_budget import TimeBudget
from pyrepl3_worker.checkpoint.unsaveable import Unsaveable, WrongThread, unsaveable_reason
from pyrepl3_worker.code.own_frames import is_cell_file
from pyrepl3_worker.rendering.static_lookup import find_in_mro, module_name

PROTOCOL: Final = 5
MIN_BUFFER_BYTES: Final = 16 * 1024
"""A buffer of at least so many bytes is saved out of band, beside the pickle."""
_SINGLETON_TYPES: Final = frozenset({type(None), type(...), type(NotImplemented)})
_VALUE_TYPES: Final = frozenset(
    {int, float, complex, bool, type(None), str, bytes, tuple, frozenset, range, slice, type(...)}
)
_TYPE_VARIABLES: Final = frozenset({TypeVar, ParamSpec, TypeVarTuple})
_VALUE_CLASSES: Final = frozenset(
    {
        "datetime.date", "datetime.time", "datetime.datetime", "datetime.timedelta", "datetime.timezone",
        "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "zoneinfo.ZoneInfo", "re.Pattern",
        *(f"{module}.{flavour}{kind}" for module in ("pathlib", "pathlib._local")
          for flavour in ("", "Posix", "Pure", "PurePosix", "PureWindows") for kind in ("Path",)),
        *(f"ipaddress.IPv{version}{kind}" for version in (4, 6)
          for kind in ("Address", "Network", "Interface")),
    }
)  # fmt: skip
"""Classes whose instances never change and hold nothing that does. Their subclasses may."""


_portable: Final = IsPortable()

type Reducer = Callable[["NamespacePickler", Any], Any] | None
"""Returns an object's reduce value; None leaves the object to pickle."""


class _InterruptibleFile:
    """A file in memory. Its `write` is Python code, so that signal handlers run between two writes.

    An object without end would otherwise be pickled without end.
    """

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        # pickle passes a bytearray itself, which may change before everything is written.
        self.parts.append(data if type(data) is bytes else bytes(data))


class NamespacePickler(Pickler):
    """Pickles the values of one group, one after the other, with one memo.

    Each of the `reduce_…` methods returns an object's reduce value, or NotImplemented for pickle's own.
    """

    def __init__(self, context: PicklerContext, group_names: frozenset[str]) -> None:
        """Save the values of `group_names`; refer to the definitions of other groups by name."""
        self._file = _InterruptibleFile()
        self.buffers: list[memoryview] = []
        super().__init__(self._file, PROTOCOL, buffer_callback=make_buffer_callback(self.buffers))
        self.context = context
        self._group_names = group_names
        self.seen: list[object] = []
        self.persistent_id = self.seen.append
        self.saved_by_value: set[int] = set()
        """Ids of definitions that were saved by value."""
        self.saved_by_reference: set[int] = set()
        """Ids of objects that were saved by their place in a module."""
        self.dependencies: set[str] = set()
        """Names of other groups that were referred to."""
        self.sources: set[str] = set()
        """Filenames of the cells whose functions were saved."""
        self.has_code = False
        """Whether bytecode was saved."""
        self.may_need_hash_early = False
        """Whether an instance was met whose own hash may look at what is not there when it is hashed."""
        self._array_ids: set[int] = set()
        self.views_by_base: dict[int, set[int]] = {}
        """By the id of a NumPy array, the ids of its views that were met."""
        self.viewed_bases: set[int] = set()
        """Ids of the arrays whose views were met since this was emptied."""

    @property
    def data(self) -> bytes:
        """The bytes of all pickles that have been written."""
        return b"".join(self._file.parts)

    def is_portable(self, kinds: Iterable[type]) -> bool:
        """Return whether another version of Python can load this; `kinds` are the types of what was met."""
        return not self.has_code and all(map(_portable.__getitem__, kinds))

    def reducer_override(self, obj: Any) -> Any:
        """Return how to save an object; pickle asks for all that are not of an exact built-in type."""
        kind = cast("type[object]", type(obj))
        by_type = self.context.reducers_by_type
        try:
            reducer = by_type[kind]
        except KeyError:
            reducer = by_type[kind] = _find_timed_reducer(kind)
        return NotImplemented if reducer is None else reducer(self, obj)

    def reduce_foreign(self, value: object) -> Any:
        """Save an object whose own code tells how, by that code."""
        return reduce_foreign(value, PROTOCOL, self.context.call_code)

    # --- definitions ---------------------------------------------------------------------------------

    def reference_by_name(self, value: FunctionType | type) -> ReduceValue | None:
        """Return a reference by name to a definition of another group; None if this group has it."""
        owner = self.context.find_definition(value)
        if owner is None or owner[0] in self._group_names:
            return None
        self.dependencies.add(owner[0])
        return name_reference(*owner)

    def reduce_function(self, value: FunctionType) -> Any:
        """Save a function."""
        if self.context.is_importable(value):
            return NotImplemented
        if belongs_to_worker(value):
            return self.reduce_worker_object(value)
        reference = self.reference_by_name(value)
        if reference is not None:
            return reference
        self.saved_by_value.add(id(value))
        self.has_code = True
        if is_cell_file(value.__code__.co_filename):
            self.sources.add(value.__code__.co_filename)
        return by_value.reduce_function(value, self.context.globals_of(value))

    def reduce_class(self, value: type) -> Any:
        """Save a class."""
        if self.context.is_importable(value):
            return self._reduce_static_type(value) if is_static_type(value) else NotImplemented
        if belongs_to_worker(value):
            if value.__name__ == "PendingCall":
                raise Unsaveable("a call of a host function is under way; await it, and keep its value")
            raise Unsaveable("it is a part of the worker")
        reference = self.reference_by_name(value)
        if reference is not None:
            return reference
        self.saved_by_value.add(id(value))
        if issubclass(type(value), EnumType) and value.__dict__.get("_member_map_"):
            return by_value.reduce_enum(cast(type[Enum], value))
        if is_struct_class(value):
            return reduce_struct_class(value)
        return by_value.reduce_class(value)

    @staticmethod
    def _reduce_static_type(value: type) -> Any:
        """Save a type of the interpreter; many are found only in `types`, not in their own module."""
        import types

        if value in _SINGLETON_TYPES or vars(sys.modules["builtins"]).get(value.__name__) is value:
            return NotImplemented
        for name, found in vars(types).items():
            if found is value:
                return getattr, (types, name)
        return NotImplemented

    # --- the worker's own, and the library's -----------------------------------------------------------

    def reduce_worker_object(self, value: object) -> ReduceValue:
        """Save a part of the worker by its place: in a module, or under a name of the session."""
        self.saved_by_reference.add(id(value))
        wanted = value.__name__ if isinstance(value, FunctionType | MethodType) else None
        namespace = self.context.namespace
        for module in list(sys.modules.values()) if wanted is not None else [sys]:
            table = vars(module)
            for name in [wanted] if wanted is not None else list(table):
                if table.get(name) is value and table is not namespace:
                    return getattr, (module, name)
        for name, found in list(namespace.items()):
            if found is value and name not in self._group_names:
                return name_reference(name)
        raise Unsaveable("it is a part of the worker")

    def reduce_method(self, value: MethodType) -> Any:
        """Save a bound method as its function and its object; one of the worker's by where it can be found.

        pickle saves the method's name instead, and finds another method, or none, where a subclass has one
        of that name, where the name is private or has been deleted, and while the object is not filled yet.
        """
        if belongs_to_worker(value):
            return self.reduce_worker_object(value)
        function: object = value.__func__
        if type(function) is FunctionType and not self.context.is_definition(function):
            return MethodType, (function, value.__self__)
        if type(function) is FunctionType and self.context.globals_of(function) is not LIVE_NAMESPACE:
            # A library's, which can't be imported by its own name: it was decorated, or made at run time.
            holder = type(value.__self__)
            if find_in_mro(holder, function.__name__) is function:
                return NotImplemented
        return MethodType, (function, value.__self__)

    def reduce_library_instance(self, value: object) -> Any:
        """Save an instance of a library's class; by reference, if the library's module holds it by a name."""
        name = self.context.module_constant_name(value)
        if name is None:
            return NotImplemented
        self.saved_by_reference.add(id(value))
        return getattr, (sys.modules[module_name(type(value))], name)

    def reduce_array(self, value: Any) -> Any:
        """Save a NumPy array; if it is a view of an array that is saved too, as a view of that."""
        base = value.base
        self._array_ids.add(id(value))
        if base is not None and value.size:
            lender = lender_of(value)
            if lender is not None:
                return reduce_lent_array(value, lender)
        if base is not None and is_ndarray(cast("type[object]", type(base))):
            self.views_by_base.setdefault(id(base), set()).add(id(value))
            self.viewed_bases.add(id(base))
        if id(base) not in self.context.viewed_arrays or not reducers.can_be_saved_as_view(value, base):
            return NotImplemented
        return reducers.reduce_array_view(value, base)

    def overlapping_arrays(self) -> set[int]:
        """Return the ids of arrays whose memory the group has more than once, by themselves or by views."""
        return {
            base for base, views in self.views_by_base.items() if base in self._array_ids or len(views) > 1
        }

    def reduce_live_object(self, value: object) -> Any:
        """Save an object that each worker's thread has one of, as that one; any other as pickle does."""
        name = self.context.live_objects.get(id(value))
        if name is None:
            return NotImplemented
        self.saved_by_reference.add(id(value))
        return name_reference(name)

    def reduce_code(self, value: CodeType) -> ReduceValue:
        """Save a code object."""
        self.has_code = True
        return marshal.loads, (by_value.code_bytes(value),)

    def reduce_context_var(self, value: ContextVar[Any]) -> ReduceValue:
        """Save a context variable with its value for cells; a library's by its place."""
        place = None
        for module in list(sys.modules.values()):
            table = vars(module)
            name = next((name for name, found in list(table.items()) if found is value), None)
            if name is not None and table is not self.context.namespace and module.__name__ != "__main__":
                place = module.__name__, name
                self.saved_by_reference.add(id(value))
                break
        return reducers.reduce_context_var(value, place, self.context.in_context)

    def reduce_module(self, value: ModuleType) -> ReduceValue:
        """Save a module by name."""
        return import_module, (import_name(value),)


def make_buffer_callback(buffers: list[memoryview]) -> Callable[[Any], bool]:
    """Return a callback that keeps large buffers as they are, so that their memory is not copied.

    It is no method of the pickler: that would make a reference cycle, and keep the arrays' memory
    locked until the garbage is collected.
    """

    def keep_large_buffer(buffer: Any) -> bool:
        try:
            view = cast(memoryview, buffer.raw())
        except BufferError:
            return True  # not contiguous: pickle copies it
        if len(view) < MIN_BUFFER_BYTES:
            return True
        buffers.append(view)
        return False

    return keep_large_buffer


def identity_matters(kind: type) -> bool:
    """Return whether code can tell two names for one instance from two equal instances."""
    if kind in _TYPE_VARIABLES:
        return True
    if kind in _VALUE_TYPES or kind is Sentinel or kind is PickledAs:
        return False
    if issubclass(kind, type | FunctionType | BuiltinFunctionType | ModuleType | Enum):
        return False
    known = cast("type[object]", kind)
    return module_name(known) != "typing" and not _is_value_class(known)


def _is_value_class(kind: type) -> bool:
    """Return whether instances never change, and hold nothing that does."""
    if f"{module_name(kind)}.{kind.__qualname__}" in _VALUE_CLASSES:
        return True
    return any(module_name(base) == "numpy" and base.__qualname__ == "dtype" for base in kind.__mro__)


_PLAIN_TYPES: Final = frozenset(
    {int, float, complex, bool, type(None), str, bytes, range, type(...), CodeType}
)
_MAX_PLAIN_ITEMS: Final = 100


def is_shareable(context: PicklerContext, value: object) -> bool:
    """Return whether two names that both hold an object share something by it.

    That is the object itself, or what it may hold: a tuple's items, a function's defaults.
    """
    kind = cast("type[Any]", type(value))
    if kind in _PLAIN_TYPES or kind is Sentinel or kind is PickledAs:
        return False
    if kind is tuple or kind is frozenset:
        items = cast("tuple[object, ...]", value)
        return len(items) > _MAX_PLAIN_ITEMS or any(is_shareable(context, item) for item in items)
    if issubclass(kind, ModuleType):
        return False
    if kind is FunctionType or issubclass(kind, type):
        return context.is_definition(value)
    if kind is BuiltinFunctionType:
        return type(cast(BuiltinFunctionType, value).__self__) not in (ModuleType, type(None))
    if issubclass(kind, Enum):
        return context.is_definition(kind)
    return not _is_value_class(kind)


def _find_timed_reducer(kind: type[Any]) -> Reducer:
    """Return how instances of a type are saved; foreign code that pickle would call is called here."""
    reducer = _find_reducer(kind)
    if not runs_foreign_code(kind):
        return reducer
    if reducer is None:
        return NamespacePickler.reduce_foreign

    def reduce(pickler: NamespacePickler, value: Any) -> Any:
        reduced = reducer(pickler, value)
        return pickler.reduce_foreign(value) if reduced is NotImplemented else reduced

    return reduce


def _find_reducer(kind: type[Any]) -> Reducer:
    """Return how instances of a type are saved; None leaves them to pickle."""
    if kind is Sentinel or kind is BuiltinFunctionType:
        return None
    if issubclass(kind, type):
        return NamespacePickler.reduce_class
    if kind in _REDUCERS:
        return _REDUCERS[kind]
    if reducers.is_method_wrapper(kind) and not runs_foreign_code(kind):
        return lambda _, method: reducers.reduce_method_wrapper(method)
    maker = find_maker(kind)
    if maker is None and is_worker_module(module_name(kind)):
        return NamespacePickler.reduce_worker_object
    if maker is not None:
        return _on_its_thread(maker)
    reason = unsaveable_reason(kind)
    if reason is not None:
        return _make_refusal(reason)
    if issubclass(kind, BaseException) and kind not in dispatch_table:
        plain = cast(Any, kind).__reduce__ is BaseException.__reduce__
        own = (
            type(find_in_mro(kind, "__init__")) is FunctionType
            or type(find_in_mro(kind, "__new__")) is FunctionType
        )
        by_itself = plain and own

        def reduce_exception(pickler: NamespacePickler, error: BaseException) -> Any:
            made = by_value.reduce_exception(error) if by_itself else pickler.reduce_foreign(error)
            return made if type(made) is str else reducers.reduce_exception(error, cast(ReduceValue, made))

        return reduce_exception
    if is_ndarray(kind):
        return NamespacePickler.reduce_array
    if (module_name(kind), kind.__qualname__) in _LIVE_KINDS:
        return NamespacePickler.reduce_live_object
    if reducers.overrides_item_methods(kind):
        return lambda _, value: reducers.reduce_container(value)
    if reducers.needs_plain_instances(kind):
        reduce_instance = reducers.instance_reducer(kind)
        timed = runs_foreign_code(kind)

        def reduce_plain_instance(pickler: NamespacePickler, value: Any) -> ReduceValue:
            reduced = pickler.context.call_code(reduce_instance, value) if timed else reduce_instance(value)
            if reducers.may_be_hashed_too_early(reduced):
                pickler.may_need_hash_early = True
            return reduced

        return reduce_plain_instance
    return None if module_name(kind) in ("__main__", "builtins") else NamespacePickler.reduce_library_instance


def _on_its_thread(maker: Maker) -> Reducer:
    def reduce(pickler: NamespacePickler, value: Any) -> Any:
        try:
            return maker(value)
        except WrongThread:
            return pickler.context.call_on_blocking_thread(maker, value)

    return reduce


def _make_refusal(reason: str) -> Reducer:
    def refuse(_: NamespacePickler, value: Any) -> Any:
        raise Unsaveable(reason)

    return refuse


def _by_reference_or(reduce_by_value: Callable[[Any], ReduceValue]) -> Reducer:
    """Save by value, except for what a module holds under its own name: that is saved by reference."""

    def save(pickler: NamespacePickler, value: Any) -> Any:
        if not pickler.context.is_module_attribute(value):
            return reduce_by_value(value)
        pickler.saved_by_reference.add(id(value))
        return NotImplemented

    return save


_LIVE_KINDS: Final = frozenset(
    {("decimal", "Context"), ("logging", "StreamHandler"), ("logging", "FileHandler")}
)
"""Kinds of what the process's state may make again."""
_EMPTY: Final[dict[str, int]] = {}
_DICT_VIEWS: Final = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))
_REDUCERS: Final[dict[type, Reducer]] = {
    FunctionType: NamespacePickler.reduce_function,
    MethodType: NamespacePickler.reduce_method,
    ModuleType: NamespacePickler.reduce_module,
    CellType: lambda _, cell: by_value.reduce_cell(cell),
    CodeType: NamespacePickler.reduce_code,
    ContextVar: NamespacePickler.reduce_context_var,
    PickledAs: lambda _, reference: reference.__reduce__(),
    property: lambda _, value: reducers.reduce_property(value),
    classmethod: lambda _, method: (classmethod, (method.__func__,)),
    staticmethod: lambda _, method: (staticmethod, (method.__func__,)),
    MappingProxyType: lambda _, proxy: reducers.reduce_mapping_proxy(proxy),
    **dict.fromkeys(_DICT_VIEWS, lambda _, view: reducers.reduce_dict_view(view)),
    _lru_cache_wrapper: _by_reference_or(reducers.reduce_lru_cache),
    TypeVar: _by_reference_or(reducers.reduce_type_variable),
    ParamSpec: _by_reference_or(reducers.reduce_param_spec),
    TypeVarTuple: _by_reference_or(reducers.reduce_param_spec),
    TypeAliasType: _by_reference_or(lambda alias: (TypeAliasType, (alias.__name__, alias.__value__))),
    NewType: _by_reference_or(reducers.reduce_new_type),
    WeakKeyDictionary: lambda _, table: (WeakKeyDictionary, (dict[Any, Any](table),)),
    WeakValueDictionary: lambda _, table: (WeakValueDictionary, (dict[Any, Any](table),)),
    WeakSet: lambda _, items: (WeakSet, (list(items),)),
}


class _InterruptibleReader:
    """A file in memory, read in Python for the same reason; each piece that is read is progress."""

    __slots__ = ("_file", "_note")

    def __init__(self, data: Any, note_progress: Callable[[], None]) -> None:
        self._file = BytesIO(data)
        self._note = note_progress

    def read(self, size: int = -1) -> bytes:
        self._note()
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        self._note()
        return self._file.readinto(buffer)

    def readline(self) -> bytes:
        return self._file.readline()


class NamespaceUnpickler(Unpickler):
    """Loads the pickles of a `NamespacePickler`."""

    def __init__(
        self,
        data: Any,
        buffers: Iterable[Any],
        namespace: dict[str, Any],
        names: Mapping[str, object],
        budget: TimeBudget,
    ) -> None:
        """Load from `data`; functions use `namespace` as globals, and references are looked up in `names`.

        Imports are not timed by `budget`, and what is read is progress to it.
        """
        super().__init__(_InterruptibleReader(data, budget.note_progress), buffers=buffers)
        self._budget = budget
        self._sentinels = {"LIVE_NAMESPACE": namespace, "LAZY_NAMES": names}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the object that a pickle refers to by module and name; the real one for a sentinel."""
        module_name = MOVED_MODULES.get(module_name) or own_module_name(module_name)
        if module_name == by_value.__name__ and global_name in self._sentinels:
            return self._sentinels[global_name]
        if module_name not in sys.modules and not module_name.startswith("__"):
            self._budget.run_untimed(import_module, module_name)
        return super().find_class(module_name, global_name)
