"""Lends the worker, its schemas and msgspec to an interpreter in which none of them is installed.

They stand in `sys.modules` under private names (`_pyrepl3_lent.msgspec`), and the import statements of their
own modules ask for those. So `sys.path` is not touched, the code's `import msgspec` finds the interpreter's
own or none, and neither side ever gets a module of the other's.

`lent_start` loads this file as the package `_pyrepl3_lent`, before anything else of the worker's.
"""

# Nothing else: what is imported here is imported too early to get the worker's copy of the builtins.
import sys
from importlib.machinery import ExtensionFileLoader, PathFinder, SourceFileLoader

# For annotations alone, as in `private_builtins`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

PREFIX = "_pyrepl3_lent"
"""The package of everything that is lent: this module, when `lent_start` has loaded it."""
__path__: "list[str]" = []
_spec_from_file: "Any" = sys.modules["_frozen_importlib_external"].spec_from_file_location
"""Of importlib.util, which imports too much."""
_usual_import: "Any" = __import__
_this: "Any" = None
"""This module."""
_folders: "dict[str, str]" = {}
"""By the usual names of the packages that are lent, where they are."""
_builtins: "dict[str, Any]" = dict(vars(sys.modules["builtins"]))
"""Those of all lent modules."""


def lend(folders: "Mapping[str, str]") -> None:
    """Lend packages to this process from now on.

    Args:
        folders: by the usual name of each package, the folder that it is.
    """
    global _this  # noqa: PLW0603 - it is the process's
    _this = sys.modules[PREFIX]
    _folders.update(folders)
    _builtins["__import__"] = import_lent
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def lent_folders() -> "dict[str, str]":
    """Return the folders of the packages that are lent; none where the worker is not."""
    return dict(vars(sys.modules[PREFIX])["_folders"]) if PREFIX in sys.modules else {}


def import_lent(
    name: str,
    globals: "Mapping[str, object] | None" = None,  # noqa: A002 - the signature of __import__
    locals: "Mapping[str, object] | None" = None,  # noqa: A002 - the same
    fromlist: "Sequence[str] | None" = (),
    level: int = 0,
) -> "ModuleType":
    """Import as a statement of a lent module; has the signature of `builtins.__import__`."""
    # C code passes a list: a pickle names a module, which is the code's.
    if level == 0 and type(fromlist) is not list:
        top = name.partition(".")[0]
        if top in _folders:
            if PREFIX not in sys.modules:
                sys.modules[PREFIX] = _this  # the code has emptied `sys.modules`
            module = _usual_import(f"{PREFIX}.{name}", globals, locals, fromlist)
            return module if fromlist else sys.modules[f"{PREFIX}.{top}"]
        if top == "typing_extensions" and str((globals or {}).get("__name__")).startswith(f"{PREFIX}."):
            # msgspec does without, and it would be the interpreter's own.
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return _usual_import(name, globals, locals, fromlist, level)


class _Finder:
    """Finds what is lent by its private name."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        top, _, usual = name.partition(".")
        if top != PREFIX:
            return None
        folder = _folders.get(usual)
        if folder is not None:
            file = f"{folder}/__init__.py"
            loader = _SourceLoader(name, file)
            return _spec_from_file(name, file, loader=loader, submodule_search_locations=[folder])
        spec = PathFinder.find_spec(name, path, target)
        if spec is None:
            return None
        loader = spec.loader
        if type(loader) is SourceFileLoader:
            spec.loader = _SourceLoader(loader.name, loader.path)
        elif type(loader) is ExtensionFileLoader:
            spec.loader = _CompiledLoader(loader.name, loader.path)
        return spec


class _SourceLoader(SourceFileLoader):
    def exec_module(self, module: "ModuleType") -> None:
        vars(module)["__builtins__"] = _builtins
        super().exec_module(module)


class _CompiledLoader(ExtensionFileLoader):
    """Loads the C half of msgspec, which looks its Python half up by the usual name, and only now."""

    def create_module(self, spec: "ModuleSpec") -> "ModuleType":
        package = spec.name.rpartition(".")[0]
        _usual_import(f"{package}._utils")
        usual = package.removeprefix(f"{PREFIX}.")
        of_the_code = {
            name: sys.modules.pop(name)
            for name in list(sys.modules)
            if name == usual or name.startswith(f"{usual}.")
        }
        lent = {
            name.removeprefix(f"{PREFIX}."): module
            for name, module in list(sys.modules.items())
            if name.startswith(package)
        }
        sys.modules.update(lent)
        try:
            return super().create_module(spec)
        finally:
            for name in lent:
                del sys.modules[name]
            sys.modules.update(of_the_code)
