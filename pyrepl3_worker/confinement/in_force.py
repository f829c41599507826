"""What bounds this process, as `ready` tells it: facts that have been checked, never wishes."""

import errno
from typing import Final

_in_force: Final = ["dies_with_parent", "private_stdio"]
_figures: Final[dict[str, int]] = {}
_ERRORS: Final = {
    errno.EMFILE: "max_open_files",
    errno.EFBIG: "max_file_bytes",
    errno.ENOSPC: "work_bytes",
}
_NO_THREAD: Final = "can't start new thread"


def add(*names: str) -> None:
    """Something more bounds this process from now on."""
    _in_force.extend(names)


def add_limit(name: str, most: int) -> None:
    """A figure bounds this process from now on, and `limit_met` knows it."""
    _figures[name] = most
    if name not in _in_force:
        _in_force.append(name)


def active() -> list[str]:
    """Give all of it, in the order in which it came into force."""
    return list(_in_force)


def limit_met(error: BaseException) -> str:
    """Say which limit an exception tells of, and how to raise it; empty for none."""
    name = _name_of(error) if _figures else ""
    if name not in _figures:
        return ""
    place = "SandboxPolicy" if name == "work_bytes" else "ResourceLimits"
    return f"{name}={_figures[name]}; raise it in the {place} if that is too low"


def _name_of(error: BaseException) -> str:
    # Python's own types alone: to look at others is to run the code's own attributes.
    match type(error):
        case t if t is MemoryError:
            return "max_memory_bytes"
        case t if t is OSError:
            assert isinstance(error, OSError)
            return _ERRORS.get(error.errno or 0, "")
        case t if t is RuntimeError and error.args == (_NO_THREAD,):
            return "max_processes"
        case _:
            return ""
