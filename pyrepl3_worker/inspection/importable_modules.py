"""Finds the names of modules that could be imported, without importing any."""

import os
import sys
from collections.abc import Iterable
from importlib.machinery import all_suffixes
from typing import Final, cast

from pyrepl3_worker.rendering.static_lookup import instance_dict

_MAX_ENTRIES: Final = 20_000
"""Directory entries that are read in one folder."""
_MAX_CACHED_FOLDERS: Final = 200
_SUFFIXES: Final = tuple(sorted(all_suffixes(), key=len, reverse=True))
_cache: dict[str, tuple[int, tuple[str, ...]]] = {}


def top_level_modules() -> set[str]:
    """Return the names of top-level modules: of the standard library, loaded, or on `sys.path`."""
    names = set(sys.stdlib_module_names) | {name for name in _loaded_modules() if "." not in name}
    for folder in _strings_of(sys.path):
        names.update(_modules_in_folder(folder or "."))
    return names


def submodules(package: str) -> set[str]:
    """Return the names of a package's submodules; if it is not loaded, it is searched for on `sys.path`."""
    prefix = package + "."
    names = {name[len(prefix) :].partition(".")[0] for name in _loaded_modules() if name.startswith(prefix)}
    module = sys.modules.get(package)
    if module is not None:
        # The path of a namespace package is not a list: reading it would run the import system.
        path = instance_dict(module).get("__path__")
        folders = _strings_of(cast(list[object], path)) if type(path) is list else []
    else:
        relative = os.path.join(*package.split("."))
        folders = [os.path.join(folder or ".", relative) for folder in _strings_of(sys.path)]
    for folder in folders:
        names.update(_modules_in_folder(folder))
    return names


def _loaded_modules() -> list[str]:
    return _strings_of(list(sys.modules))


def _strings_of(items: Iterable[object]) -> list[str]:
    return [item for item in list(items)[:100_000] if type(item) is str]


def _modules_in_folder(folder: str) -> tuple[str, ...]:
    try:
        changed = os.stat(folder).st_mtime_ns
        known = _cache.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        names: set[str] = set()
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count == _MAX_ENTRIES:
                    break
                name = _module_name(entry)
                if name is not None and name.isidentifier():
                    names.add(name)
    except OSError:
        return ()
    if len(_cache) >= _MAX_CACHED_FOLDERS:
        _cache.clear()
    _cache[folder] = (changed, tuple(names))
    return _cache[folder][1]


def _module_name(entry: os.DirEntry[str]) -> str | None:
    name = entry.name
    if "." not in name:
        return name if name != "__pycache__" and entry.is_dir() else None
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)
    stem = name.removesuffix(suffix) if suffix is not None else "__init__"
    return None if stem in ("__init__", "__main__") else stem
