"""Tells to whom a function or class belongs (session, module or worker), and by which name it is found."""

import sys
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, cast

import pyrepl3_schemas
import pyrepl3_worker
from pyrepl3_worker.checkpoint.by_value import LIVE_NAMESPACE
from pyrepl3_worker.checkpoint.unsaveable import Unsaveable
from pyrepl3_worker.rendering.static_lookup import find_in_mro, module_name

_WORKER_PACKAGE: Final = pyrepl3_worker.__name__
_SCHEMAS_PACKAGE: Final = pyrepl3_schemas.__name__
_LENT: Final = "_pyrepl3_lent."
"""Before the names of the worker's modules where it is lent (`isolation/lending.py`)."""
_HEAP_TYPE: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: the type was made at run time."""
_flags_of: Final[Callable[[type], int]] = type.__dict__["__flags__"].__get__
_MODULE_METADATA: Final = frozenset({"__builtins__", "__loader__", "__spec__"})


def is_static_type(kind: type) -> bool:
    """Return whether a type is compiled into the interpreter or a library."""
    return not _flags_of(kind) & _HEAP_TYPE


def is_worker_module(module: object) -> bool:
    """Return whether a module's name is that of a part of the worker."""
    return type(module) is str and (module == _WORKER_PACKAGE or module.startswith(_WORKER_PACKAGE + "."))


def own_module_name(name: str) -> str:
    """Return the name that a module has here: a worker's own have other names where it was lent.

    Args:
        name: the name that it has in the process that has pickled it.
    """
    top, dot, rest = name.removeprefix(_LENT).partition(".")
    for package in _WORKER_PACKAGE, _SCHEMAS_PACKAGE:
        if top == package.removeprefix(_LENT):
            return package + dot + rest
    return name


def import_name(module: ModuleType) -> str:
    """Return the name by which a fresh worker can import a module.

    Raises:
        Unsaveable: no module of that name is loaded, or it is another one.
    """
    name = vars(module).get("__name__")
    if type(name) is not str or sys.modules.get(name) is not module:
        raise Unsaveable("a module that was made by hand can't be imported again")
    return name


def call_directly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function."""
    return function(*arguments)


class PicklerContext:
    """What the picklers of one checkpoint know about the namespace."""

    def __init__(self, namespace: dict[str, object], saved: Mapping[str, object]) -> None:
        """Find the definitions among the names that are `saved`."""
        self.namespace = namespace
        self.definition_names: dict[int, str] = {}
        """By the id of a function or class of the session, the name that it is saved under."""
        self.reducers_by_type: dict[type, Any] = {}
        """By type, how its instances are saved; filled by the pickler."""
        self.viewed_arrays = _find_viewed_arrays(saved)
        """Ids of the NumPy arrays of which other arrays are saved as views."""
        self.live_objects: dict[int, str] = {}
        """Ids of objects that each worker has one of, and the names by which it finds its own."""
        self.call_code: Callable[..., Any] = call_directly
        """Calls objects' own code, where its time counts."""
        self.call_on_blocking_thread: Callable[..., Any] = call_directly
        """Calls a function on the thread of cells that block."""
        self.in_context: Callable[..., Any] = call_directly
        """Calls a function in the context that cells run in."""
        self._foreign_globals: dict[int, dict[str, Any]] = {}
        self._module_constants: dict[type, dict[int, str]] = {}
        for name, value in saved.items():
            if self.is_definition(value):
                self.definition_names.setdefault(id(value), name)

    def is_definition(self, value: object) -> bool:
        """Return whether a value is a function or class that only this session knows."""
        if type(value) is FunctionType:
            return not belongs_to_worker(value) and not self.is_importable(value)
        return issubclass(type(value), type) and not self.is_importable(cast(type, value))

    def is_importable(self, value: FunctionType | type) -> bool:
        """Return whether a fresh worker finds this function or class by importing a module."""
        if type(value) is FunctionType:
            says: object = value.__module__
        elif is_static_type(cast("type[object]", value)):
            return True
        else:
            says = module_name(cast("type[object]", value))
        module = sys.modules.get(says) if type(says) is str else None
        if module is None or vars(module) is self.namespace or says == "__main__":
            return False
        # pickle finds it by `getattr`, which unwraps the static methods of classes.
        first, *path = value.__qualname__.split(".")
        found: object = vars(module).get(first)
        for name in path:
            if not issubclass(type(found), type):
                return False
            found = find_in_mro(cast(type, found), name)
            if type(found) is staticmethod:
                found = cast("staticmethod[..., object]", found).__func__
        return found is value

    def find_definition(self, value: FunctionType | type) -> tuple[str, list[str]] | None:
        """Return the name that a definition is saved under, and its path in the class of that name."""
        name = self.definition_names.get(id(value))
        if name is not None:
            return name, []
        root, *path = value.__qualname__.split(".")
        cls = self.namespace.get(root)
        if not path or "<locals>" in path or not issubclass(type(cls), type):
            return None
        name = self.definition_names.get(id(cls))
        found: object = cls
        for part in path:
            if not issubclass(type(found), type):
                return None
            found = find_in_mro(cast(type, found), part)
            if isinstance(found, staticmethod | classmethod):
                found = cast("staticmethod[..., object]", found).__func__
        return (name, path) if name is not None and found is value else None

    def module_constant_name(self, value: object) -> str | None:
        """Return the name under which the module of a value's type holds this very object (`MISSING`)."""
        kind = type(value)
        known = self._module_constants.get(kind)
        if known is None:
            module = sys.modules.get(module_name(kind))
            outside = module is not None and module_name(kind) not in ("__main__", "builtins")
            table = vars(module) if module is not None and outside else {}
            known = {id(found): name for name, found in list(table.items()) if type(found) is kind}
            self._module_constants[kind] = known
        return known.get(id(value))

    def is_module_attribute(self, value: Any) -> bool:
        """Return whether a module that can be imported has this object under its own name."""
        module = sys.modules.get(value.__module__) if type(value.__module__) is str else None
        if module is None or vars(module) is self.namespace or value.__module__ == "__main__":
            return False
        return vars(module).get(value.__name__) is value

    def globals_of(self, function: FunctionType) -> object:
        """Return what is saved for a function's globals: a sentinel, a module, or a copy of the dict."""
        found = function.__globals__
        if found is self.namespace:
            return LIVE_NAMESPACE
        module = sys.modules.get(cast(str, found.get("__name__")))
        if module is not None and vars(module) is found:
            return module
        # A dict of its own: that of a namedtuple's functions, or one that was passed to `exec`.
        known = self._foreign_globals.get(id(found))
        if known is None:
            known = {name: value for name, value in found.items() if name not in _MODULE_METADATA}
            known["__builtins__"] = sys.modules["builtins"]
            self._foreign_globals[id(found)] = known
        return known


def is_ndarray(kind: type) -> bool:
    """Return whether a type is NumPy's array itself."""
    numpy = sys.modules.get("numpy")  # by identity: a metaclass of the code's own may answer for a name
    return numpy is not None and vars(numpy).get("ndarray") is kind


def _find_viewed_arrays(saved: Mapping[str, object]) -> frozenset[int]:
    """Return the ids of arrays that have a name, and of arrays that have several views with names.

    A view of any other array is saved alone: that array may be huge, and the view only a few items of it.
    """
    arrays = [cast(Any, value) for value in saved.values() if is_ndarray(type(value))]
    bound = {id(array) for array in arrays}
    views_by_base: dict[int, set[int]] = {}
    for array in arrays:
        if array.base is not None and is_ndarray(cast("type[object]", type(array.base))):
            views_by_base.setdefault(id(array.base), set()).add(id(array))
    return frozenset(bound) | {base for base, views in views_by_base.items() if len(views) > 1}


def belongs_to_worker(value: object) -> bool:
    """Return whether something is a part of the worker, such as a capability or the patched `input`."""
    if type(value) is MethodType:
        value = value.__self__
    if type(value) is FunctionType:
        module: object = value.__globals__.get("__name__")
    else:
        module = module_name(cast("type[object]", value) if issubclass(type(value), type) else type(value))
    return is_worker_module(module)
