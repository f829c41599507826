"""The list of what confines this process, for `ready`: only what has been checked."""

from __future__ import annotations

import errno

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

_in_force: Final = ["dies_with_parent", "private_stdio"]
_limits: Final[dict[str, int]] = {}
_LIMIT_BY_ERRNO: Final = {
    errno.EMFILE: "max_open_files",
    errno.EFBIG: "max_file_bytes",
    errno.ENOSPC: "work_bytes",
    errno.ENOMEM: "max_memory_bytes",
}
_own_directories: Final[list[str]] = []
_THREAD_ERROR: Final = "can't start new thread"


def add(*names: str) -> None:
    """Add features that confine this process from now on."""
    _in_force.extend(names)


def add_limit(name: str, value: int) -> None:
    """Add a limit of this process and its value, which `exceeded_limit` then recognises."""
    _limits[name] = value
    if name not in _in_force:
        _in_force.append(name)


def add_own_directory(path: str) -> None:
    """Add a directory that is this process's alone, and ends with it."""
    _own_directories.append(path)


def own_directory() -> str | None:
    """Return the directory that is this process's alone; None if there is none."""
    return _own_directories[0] if _own_directories else None


def limits() -> dict[str, int]:
    """Return the limits in force, with their values."""
    return dict(_limits)


def adopt(features: Iterable[str], limits: Mapping[str, int], own_directory: str | None) -> None:
    """Take over what was put in force, and checked, before this interpreter was started."""
    _in_force[:] = features
    _limits.update(limits)
    if own_directory is not None:
        add_own_directory(own_directory)


def active() -> list[str]:
    """Return the features and limits in force, in the order in which they were added."""
    return list(_in_force)


def exceeded_limit(error: BaseException) -> str:
    """Return which limit caused an exception, and how to raise it; empty if none did."""
    name = _limit_name(error) if _limits else ""
    if name not in _limits:
        return ""
    place = "SandboxPolicy" if name == "work_bytes" else "ResourceLimits"
    return f"{name}={_limits[name]}; raise it in the {place} if that is too low"


def _limit_name(error: BaseException) -> str:
    # Only Python's own types: reading attributes of others may run the user's code.
    match type(error):
        case t if t is MemoryError:
            return "max_memory_bytes"
        case t if t is OSError:
            assert isinstance(error, OSError)
            return _LIMIT_BY_ERRNO.get(error.errno or 0, "")
        case t if t is RuntimeError and error.args == (_THREAD_ERROR,):
            return "max_processes"
        case _:
            return ""
