"""A private copy of the builtins for the worker: a `builtins.len` that the code replaces is not in it.

A function looks builtins up in the dict that its module had for them when the function was made. The
modules that the worker uses get a copy before any code runs, and so never see a replacement.
"""

# What is imported here is imported too early to get the copy; these two are imported already.
import builtins
import sys
from importlib.machinery import PathFinder, SourceFileLoader

# For annotations alone. `typing` would be imported before it can get the copy, with all that it imports.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_FOUNDATIONS = frozenset(
    {
        "pyrepl3_schemas", "pyrepl3_worker", "asyncio", "selectors",
        "_weakrefset", "collections", "contextlib", "enum", "functools", "heapq", "signal", "threading",
        "weakref",
    }
)  # fmt: skip
"""None of these opens, prints or asks anything for the code, which may replace `open` for a test."""
builtins_of_worker = globals()["__builtins__"]
if builtins_of_worker is vars(builtins):
    # Not lent (see `lending`), whose modules have a copy from the start.
    builtins_of_worker = dict(vars(builtins))


class _Loader(SourceFileLoader):
    def exec_module(self, module: "ModuleType") -> None:
        vars(module)["__builtins__"] = builtins_of_worker
        super().exec_module(module)


class _Finder:
    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name.partition(".")[0] not in _FOUNDATIONS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Let each of these modules that is imported from now on use the copy."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
