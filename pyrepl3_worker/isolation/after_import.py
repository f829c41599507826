"""Calls a function once a module was imported, by the code or by a library: the worker imports none early."""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_modules: Final = sys.modules
_waiting: Final[dict[str, Callable[[ModuleType], None]]] = {}
_module_count = 0
"""Modules that there were when what waits was last looked at."""


def after_import(name: str, function: Callable[[ModuleType], None]) -> None:
    """Call `function` with a module when it has been imported; at once, if it is there.

    Args:
        name: the module's full name.
        function: must not raise. It is called once.
    """
    module = sys.modules.get(name)
    if module is not None:
        function(module)
        return
    if not _waiting:
        sys.meta_path.insert(0, _Finder)
    _waiting[name] = function


def act_on_imported() -> None:
    """Call what waits for a module that is there by now: another finder (pytest's) may have come first."""
    global _module_count  # noqa: PLW0603 - it is the process's
    if len(_modules) == _module_count and sys.meta_path and sys.meta_path[0] is _Finder:
        return  # as after nearly every cell
    _module_count = len(_modules)
    for name in [name for name in _waiting if name in _modules]:
        module = _modules[name]
        # Not what the code has put there in a module's place, nor what a thread is importing.
        spec = vars(module).get("__spec__") if type(module) is ModuleType else None
        if spec is not None and not getattr(spec, "_initializing", False):
            _act(name, module)


def _act(name: str, module: ModuleType) -> None:
    function = _waiting.pop(name, None)
    if function is not None:
        function(module)
    if not _waiting and _Finder in sys.meta_path:
        sys.meta_path.remove(_Finder)


class _Finder:
    """Has the other finders find a module that is waited for, and its loader tell when it is loaded."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        for finder in sys.meta_path:
            spec = None if finder is _Finder else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    _tell_when_loaded(spec.loader, name)
                return spec
        return None


def _tell_when_loaded(loader: Any, name: str) -> None:
    load = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        load(module)
        if module.__name__ == name:  # a loader may be several modules' own
            _act(name, module)

    vars(loader)["exec_module"] = exec_module
