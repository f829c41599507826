"""What pickling has to know of a namespace: whose a function or class is, and where it can be found."""

import sys
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any, Final, cast

from pyrepl3_worker.checkpoint.by_value import LIVE_NAMESPACE
from pyrepl3_worker.rendering.static_lookup import in_mro

_WORKER: Final = "pyrepl3_worker"
_HEAP_TYPE: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: made at run time."""
_MODULES_OWN: Final = frozenset({"__builtins__", "__loader__", "__spec__"})


def is_static(kind: type) -> bool:
    """Whether a type is compiled into the interpreter or a library."""
    return not kind.__flags__ & _HEAP_TYPE


def in_worker(module: object) -> bool:
    """Whether a module's name is that of a part of the worker."""
    return type(module) is str and (module == _WORKER or module.startswith(_WORKER + "."))


class PicklerContext:
    """What a pickler has to know of the namespace; made anew for each checkpoint."""

    def __init__(self, namespace: dict[str, object], saved: Mapping[str, object]) -> None:
        """Know the definitions among the names that are `saved`."""
        self.namespace = namespace
        self.owners: dict[int, str] = {}
        """By id, the names of the session's own functions and classes."""
        self.by_type: dict[type, Any] = {}
        """By type, how instances are saved; the pickler's."""
        self.looked_into = _looked_into(saved)
        """Ids of NumPy arrays that other arrays look into."""
        self._foreign_globals: dict[int, dict[str, Any]] = {}
        self._constants: dict[type, dict[int, str]] = {}
        for name, value in saved.items():
            if self.is_definition(value):
                self.owners.setdefault(id(value), name)

    def is_definition(self, value: object) -> bool:
        """Whether a value is a function or class that only this session knows."""
        if type(value) is FunctionType:
            return not is_workers(value) and not self.is_importable(value)
        return issubclass(type(value), type) and not self.is_importable(cast(type, value))

    def is_importable(self, value: FunctionType | type) -> bool:
        """Whether a fresh worker finds this function or class by importing a module."""
        if type(value) is not FunctionType and is_static(cast("type[object]", value)):
            return True
        module = sys.modules.get(value.__module__) if type(value.__module__) is str else None
        if module is None or vars(module) is self.namespace or value.__module__ == "__main__":
            return False
        # As pickle looks: by `getattr`, which unwraps the static methods of classes.
        first, *path = value.__qualname__.split(".")
        found: object = vars(module).get(first)
        for name in path:
            if not issubclass(type(found), type):
                return False
            found = in_mro(cast(type, found), name)
            if type(found) is staticmethod:
                found = cast("staticmethod[..., object]", found).__func__
        return found is value

    def owner_of(self, value: FunctionType | type) -> tuple[str, list[str]] | None:
        """Give the name that a definition is saved under, and its path in that."""
        name = self.owners.get(id(value))
        if name is not None:
            return name, []
        root, *path = value.__qualname__.split(".")
        cls = self.namespace.get(root)
        if not path or "<locals>" in path or not issubclass(type(cls), type):
            return None
        name = self.owners.get(id(cls))
        found: object = cls
        for part in path:
            if not issubclass(type(found), type):
                return None
            found = in_mro(cast(type, found), part)
            if isinstance(found, staticmethod | classmethod):
                found = cast("staticmethod[..., object]", found).__func__
        return (name, path) if name is not None and found is value else None

    def constant_name(self, value: object) -> str | None:
        """Give the name under which the module of a value's type holds this very object (`MISSING`)."""
        kind = type(value)
        known = self._constants.get(kind)
        if known is None:
            module = sys.modules.get(kind.__module__)
            outside = module is not None and kind.__module__ not in ("__main__", "builtins")
            table = vars(module) if module is not None and outside else {}
            known = {id(found): name for name, found in list(table.items()) if type(found) is kind}
            self._constants[kind] = known
        return known.get(id(value))

    def is_global(self, value: Any) -> bool:
        """Whether a module that can be imported has this object under its own name."""
        module = sys.modules.get(value.__module__)
        if module is None or vars(module) is self.namespace or value.__module__ == "__main__":
            return False
        return vars(module).get(value.__name__) is value

    def globals_of(self, function: FunctionType) -> object:
        """Give what a function's globals are saved as."""
        found = function.__globals__
        if found is self.namespace:
            return LIVE_NAMESPACE
        module = sys.modules.get(cast(str, found.get("__name__")))
        if module is not None and vars(module) is found:
            return module
        # A dict of its own: namedtuple's, or one that was given to exec.
        known = self._foreign_globals.get(id(found))
        if known is None:
            known = {name: value for name, value in found.items() if name not in _MODULES_OWN}
            known["__builtins__"] = sys.modules["builtins"]
            self._foreign_globals[id(found)] = known
        return known


def is_ndarray(kind: type) -> bool:
    """Whether a type is NumPy's array itself."""
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def _looked_into(saved: Mapping[str, object]) -> frozenset[int]:
    """Find the arrays that are bound to a name, or that several which are look into.

    Others may be huge, and all of what is needed of them the few items that are looked at.
    """
    arrays = [cast(Any, value) for value in saved.values() if is_ndarray(type(value))]
    named = {id(array) for array in arrays}
    lookers: dict[int, set[int]] = {}
    for array in arrays:
        if array.base is not None and is_ndarray(cast("type[object]", type(array.base))):
            lookers.setdefault(id(array.base), set()).add(id(array))
    return frozenset(named) | {base for base, those in lookers.items() if len(those) > 1}


def is_workers(value: object) -> bool:
    """Whether something is a part of the worker, as a capability or a stand-in for `input` is."""
    if type(value) is MethodType:
        value = value.__self__
    if type(value) is FunctionType:
        module: object = value.__globals__.get("__name__")
    else:
        module = value.__module__ if issubclass(type(value), type) else type(value).__module__
    return in_worker(module)


def is_provided(name: str, value: object) -> bool:
    """Whether a name is a capability or the like: there in every worker of the session."""
    if type(value) is not FunctionType or not is_workers(value) or value.__name__ != name:
        return False
    # `from time import sleep` gives the code's own name for a stand-in.
    module = sys.modules.get(value.__module__)
    return value.__module__ == "__main__" or module is None or vars(module).get(name) is not value
