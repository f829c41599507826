"""Names of modules that could be imported, found without importing any."""

import os
import sys
from collections.abc import Iterable
from importlib.machinery import all_suffixes
from typing import Final, cast

from pyrepl3_worker.rendering.static_lookup import own_dict

_ENTRIES: Final = 20_000
"""Directory entries that are looked at in one folder."""
_FOLDERS: Final = 200
_SUFFIXES: Final = tuple(sorted(all_suffixes(), key=len, reverse=True))
_cache: dict[str, tuple[int, tuple[str, ...]]] = {}


def top_level() -> set[str]:
    """Give the names of top-level modules: the standard library's, loaded ones, those on `sys.path`."""
    names = set(sys.stdlib_module_names) | {name for name in _loaded() if "." not in name}
    for folder in _texts(sys.path):
        names.update(_in_folder(folder or "."))
    return names


def below(package: str) -> set[str]:
    """Give the names of a package's submodules; of one that is not loaded, when it is easily found."""
    prefix = package + "."
    names = {name[len(prefix) :].partition(".")[0] for name in _loaded() if name.startswith(prefix)}
    module = sys.modules.get(package)
    if module is not None:
        # The path of a namespace package is no list: reading it asks the import system.
        path = own_dict(module).get("__path__")
        folders = _texts(cast(list[object], path)) if type(path) is list else []
    else:
        relative = os.path.join(*package.split("."))
        folders = [os.path.join(folder or ".", relative) for folder in _texts(sys.path)]
    for folder in folders:
        names.update(_in_folder(folder))
    return names


def _loaded() -> list[str]:
    return _texts(list(sys.modules))


def _texts(items: Iterable[object]) -> list[str]:
    return [item for item in list(items)[:100_000] if type(item) is str]


def _in_folder(folder: str) -> tuple[str, ...]:
    try:
        changed = os.stat(folder).st_mtime_ns
        known = _cache.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        names: set[str] = set()
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count == _ENTRIES:
                    break
                name = _module_name(entry)
                if name is not None and name.isidentifier():
                    names.add(name)
    except OSError:
        return ()
    if len(_cache) >= _FOLDERS:
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
