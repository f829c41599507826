"""Has the worker's own imports find the standard library, whatever files the code's folder holds.

The worker imports much late: the pickler at the first checkpoint, `platform`, `tokenize`. By then the
code's folder stands first on `sys.path`, and a `pickle.py` of the code's would be taken for the library's. So
the import statements of the worker (and of asyncio, see `private_builtins`) come here. Where no file is in
the way, which is nearly always, they are the usual ones. Where one is, a module that has its name is loaded
for the worker alone, under another name: the code's own `import pickle` goes on to find the code's file.
"""

import sys
from _thread import RLock, _local  # pyright: ignore[reportPrivateUsage] - `threading` imports too much
from collections.abc import Mapping, Sequence
from importlib.machinery import (
    BuiltinImporter,
    ExtensionFileLoader,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from importlib.util import module_from_spec, resolve_name, spec_from_file_location
from os import getcwd, listdir, stat
from types import ModuleType
from typing import Any, Final

_STANDARD: Final = sys.stdlib_module_names
_usual_import: Final[Any] = __import__
_library: Final = str(sys.modules["os"].__file__).rpartition("/")[0]
_folders: Final = [entry for entry in sys.path if entry in (_library, f"{_library}/lib-dynload")]
"""Where the standard library is."""
_PREFIX: Final = "_pyrepl3_standard"
"""Stands in `sys.modules` before the names of modules for the worker alone; some look themselves up there."""
_own: Final[dict[str, ModuleType]] = {}
"""What was loaded for the worker alone, by its usual name."""
_aside: Final[dict[str, ModuleType]] = {}
"""What the worker has and nothing has imported yet (see `set_aside`)."""
_lock: Final = RLock()
_names_in_the_way: Final[dict[str, tuple[int, frozenset[str]]]] = {}
"""By a folder: when it was changed last, and the standard modules' names that it has files of."""


class _State(_local):
    active: bool = False
    """Whether this thread imports for the worker, where the code has files in the way."""


_state: Final = _State()
_builtins: dict[str, Any] = {}


def install(private_builtins: dict[str, Any]) -> None:
    """Have import statements of modules with these builtins come here from now on."""
    global _builtins  # noqa: PLW0603 - there is one worker in a process
    _builtins = private_builtins
    private_builtins["__import__"] = import_for_worker


def import_for_worker(
    name: str,
    globals: Mapping[str, object] | None = None,  # noqa: A002 - the signature of __import__
    locals: Mapping[str, object] | None = None,  # noqa: A002 - the same
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Import as a statement of the worker's; has the signature of `builtins.__import__`."""
    # C code passes a list: a pickle names a class, which is the code's.
    if type(fromlist) is not list:
        absolute = name
        if level:
            absolute = resolve_name("." * level + name, str((globals or {})["__package__"]))
            absolute = absolute.removeprefix(f"{_PREFIX}.")
        top = absolute.partition(".")[0]
        if top in _STANDARD and not (
            top not in _own and top in sys.modules and _is_standard(sys.modules[top])
        ):
            in_the_way = _find_in_the_way()
            if top in _own or top in in_the_way:
                return _import_own(absolute, top, fromlist)
            if in_the_way:
                return _import_shared(in_the_way, name, globals, locals, fromlist, level)
    return _usual_import(name, globals, locals, fromlist, level)


def set_aside(names: set[str]) -> None:
    """Take the library's modules among `names` out of `sys.modules` until something imports them.

    A fork server has imported them for the worker, which goes on to have them. The code's `import` finds them
    too, where it would load them from their files; so it gets a file of its own that comes before.
    """
    for name in names & sys.modules.keys():
        module = sys.modules[name]
        if name.partition(".")[0] in _STANDARD and _is_file_of_library(module):
            _own[name] = _aside[name] = sys.modules.pop(name)
    if _aside and _AsideFinder not in sys.meta_path:
        # Before the finder of files, after that of what is part of the interpreter's program.
        sys.meta_path.insert(sys.meta_path.index(PathFinder), _AsideFinder)


def is_loaded(name: str) -> bool:
    """Return whether a module was imported; one of the code's that has a standard one's name was not."""
    module = sys.modules.get(name)
    return module is not None and (name.partition(".")[0] not in _STANDARD or _is_standard(module))


def _is_standard(module: object) -> bool:
    """Return whether a module is the library's; the code may have put anything into `sys.modules`."""
    try:
        origin: object = module.__spec__.origin  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    except AttributeError:
        return False
    return isinstance(origin, str) and (
        origin in ("built-in", "frozen")
        or (any(origin.startswith(f"{folder}/") for folder in _folders) and "/site-packages/" not in origin)
    )


def _is_file_of_library(module: ModuleType) -> bool:
    return _is_standard(module) and getattr(module, "__file__", None) is not None


def _find_in_the_way() -> set[str]:
    """Return the standard modules whose names the code has modules of, loaded or to be found first."""
    found = {name for name in _STANDARD & sys.modules.keys() if not _is_standard(sys.modules[name])}
    for entry in list(sys.path):
        if entry in _folders:
            break
        if type(entry) is str:
            found |= _names_in(entry)
    return found


def _names_in(entry: str) -> frozenset[str]:
    try:
        folder = entry or getcwd()
        changed = stat(folder).st_mtime_ns
        known = _names_in_the_way.get(folder)
        if known is None or known[0] != changed:
            candidates = {name.partition(".")[0] for name in listdir(folder)} & _STANDARD
            # A folder without `__init__.py` is none: its spec has no loader.
            specs = [(name, PathFinder.find_spec(name, [folder])) for name in candidates]
            names = frozenset(name for name, spec in specs if spec is not None and spec.loader is not None)
            known = _names_in_the_way[folder] = changed, names
    except OSError:
        return frozenset()
    return known[1]


def _import_own(absolute: str, top: str, fromlist: Sequence[str] | None) -> ModuleType:
    """Import a module for the worker alone."""
    module = _load(absolute)
    if not fromlist:
        return _own[top] if "." in absolute else module
    for name in fromlist:
        if name not in vars(module) and "__path__" in vars(module):
            try:
                _load(f"{absolute}.{name}")
            except ModuleNotFoundError:
                continue  # the statement itself raises an ImportError that says more
    return module


def _load(absolute: str) -> ModuleType:
    with _lock:
        if absolute in _own:
            return _own[absolute]
        parent, _, child = absolute.rpartition(".")
        spec = _find_standard(absolute, list(_load(parent).__path__) if parent else None, f"{_PREFIX}.")
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {absolute!r}", name=absolute)
        module = sys.modules[f"{_PREFIX}.{absolute}"] = _own[absolute] = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del _own[absolute], sys.modules[f"{_PREFIX}.{absolute}"]
            raise
        if parent:
            vars(_own[parent])[child] = module
        return module


def _import_shared(in_the_way: set[str], *statement: Any) -> ModuleType:
    """Import a module that nothing is in the way of, though something may be of what it imports itself."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    in_the_way -= sys.modules.keys()
    outer, _state.active = _state.active, True
    try:
        return _usual_import(*statement)
    finally:
        _state.active = outer
        _take_out(in_the_way)


def _take_out(names: set[str]) -> None:
    """Take out of `sys.modules` what C code has imported there, and the code has others of."""
    for name in names & sys.modules.keys():
        if _is_standard(sys.modules[name]):
            module = sys.modules.pop(name)
            _own.setdefault(name, module)


def _find_standard(name: str, path: Sequence[str] | None, prefix: str = "") -> ModuleSpec | None:
    """Find a module of the library's, which is to have `prefix` before its name, if it is a file."""
    spec = BuiltinImporter.find_spec(name) or PathFinder.find_spec(name, _folders if path is None else path)
    match None if spec is None else spec.loader:
        case SourceFileLoader(path=file):
            return spec_from_file_location(prefix + name, file, loader=_SourceLoader(prefix + name, file))
        case ExtensionFileLoader(path=file):
            loader = _CompiledLoader(ExtensionFileLoader(prefix + name, file))
            return spec_from_file_location(prefix + name, file, loader=loader)  # pyright: ignore[reportArgumentType] - it has what a loader needs
        case loader if spec is not None:
            spec.loader = _CompiledLoader(loader)  # pyright: ignore[reportAttributeAccessIssue] - the same
            return spec
        case _:
            return None


class _SourceLoader(SourceFileLoader):
    """Has the import statements of a module come here too."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _builtins
        super().exec_module(module)


class _CompiledLoader:
    """Loads a module written in C, whose imports are no statements, with the code's modules out of its way.

    A thread of the code's that imports one of them in this moment gets the library's.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._without_the_codes(self._loader.create_module, spec)

    def exec_module(self, module: ModuleType) -> None:
        self._without_the_codes(self._loader.exec_module, module)

    @staticmethod
    def _without_the_codes(load: Any, argument: object) -> Any:
        loaded = _STANDARD & sys.modules.keys()
        hidden = {name: sys.modules.pop(name) for name in loaded if not _is_standard(sys.modules[name])}
        sys.modules.update({name: _own[name] for name in hidden if name in _own})
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
        in_the_way = (_find_in_the_way() | hidden.keys()) - (loaded - hidden.keys())
        outer, _state.active = _state.active, True
        try:
            return load(argument)
        finally:
            _state.active = outer
            _take_out(in_the_way)
            sys.modules.update(hidden)


class _Finder:
    """Finds the standard library for a thread that imports for the worker."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _state.active or name.partition(".")[0] not in _STANDARD:
            return None
        return _find_standard(name, path)


class _AsideFinder:
    """Finds a module that was set aside, where the file that it was loaded from would be found."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = _aside.get(name)
        if module is None or module.__spec__ is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin != module.__spec__.origin:
            return spec
        # Once only: what takes it out of `sys.modules` wants another one.
        del _aside[name]
        spec.loader = _AsideLoader(module, module.__spec__)  # pyright: ignore[reportAttributeAccessIssue] - it has what a loader needs
        return spec


class _AsideLoader:
    def __init__(self, module: ModuleType, spec: ModuleSpec) -> None:
        self._module = module
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
