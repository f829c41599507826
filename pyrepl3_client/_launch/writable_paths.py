"""Refuses a policy that lets code write what is run later outside of its boundary, or what is on record.

A worker's interpreter is started behind its boundary, whatever it reads. But this program, the launcher of
its workers, and every other program of the machine are not; nor is the store a thing for the code to change.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pyrepl3_client._launch.environment import worker_environment
from pyrepl3_client._launch.interpreter import base_python
from pyrepl3_client._launch.python_view import OURS, find_view, our_folders
from pyrepl3_client.config import WorkerConfig

_READ_AT_START: Final = frozenset(
    {
        "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "include", "etc", "pyvenv.cfg",
        "conda-meta",
    }
)  # fmt: skip
"""What an interpreter and its programs read below their prefix: the rest is theirs to keep data in."""
_SYSTEM: Final = (
    "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32",
    "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
)  # fmt: skip
_SETTINGS_OF_LOADER: Final = ("/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/ld.so.conf")
_RELATIONS: Final = ("is", "lies in", "holds")
"""How a path stands to one that is protected; the first that is true is told."""
_ADVICE: Final = "give a folder beside it, or one that holds data alone"


class _Protected(NamedTuple):
    """A path that code must not write to."""

    path: str
    what: str
    below: frozenset[str] | None
    """Names below it that are protected too, with all that they hold; None for all names."""


def check_writable(config: WorkerConfig, store: str | None = None) -> None:
    """Check what a policy lets code write to.

    Args:
        config: the policy, and the interpreter.
        store: the file of the store that the session is recorded in; None if it is in none.

    Raises:
        ValueError: a path is, holds or lies in something that is run outside of the boundary, or the store;
            names both.
    """
    if not config.sandbox.writable:
        return
    protected = [
        each._replace(path=path)
        for each in _protected(config, store)
        for path in {os.path.normpath(each.path), os.path.realpath(each.path)}
    ]
    for given in config.sandbox.writable:
        for path in dict.fromkeys((given, os.path.realpath(given))):
            found = {how: each for each in reversed(protected) if (how := _relation(path, each))}
            for how in _RELATIONS:
                if how in found:
                    leads = "" if path == given else f", which leads to {path!r},"
                    raise ValueError(
                        f"writable holds {given!r}{leads} and that {how} {found[how].path!r}, "
                        f"{found[how].what}: {_ADVICE}"
                    )


def _relation(path: str, protected: _Protected) -> str:
    """Return how a path stands to one that is protected, in words; empty if it may be written to."""
    top = protected.path
    if path == top:
        return "is"
    if top.startswith(f"{path}/"):
        return "holds"
    if path.startswith(f"{top}/"):
        name = path[len(top) + 1 :].partition("/")[0]
        if protected.below is None or name in protected.below or name.partition(".")[0] in protected.below:
            return "lies in"
    return ""


def _protected(config: WorkerConfig, store: str | None) -> Iterator[_Protected]:
    if store is not None:
        for suffix in "", "-wal", "-shm":
            yield _Protected(store + suffix, "the store of the session", None)
    here = os.getcwd()
    try:
        for folder in our_folders():
            yield _Protected(folder, "code that every worker runs", None)
    except LookupError:
        pass  # what is missing is told when a worker is started
    for python in dict.fromkeys((config.python, sys.executable, base_python())):
        directory = os.path.abspath(config.start_directory or here) if python == config.python else here
        environment = worker_environment(config) if python == config.python else os.environ
        whose = f"of the interpreter {python!r}"
        view = find_view(python, environment, directory)
        for prefix in view.prefixes:
            yield _Protected(prefix, f"the prefix {whose}", _READ_AT_START)
        for folder in view.programs:
            below = None if os.path.basename(folder) in ("bin", "sbin") else frozenset[str]()
            yield _Protected(folder, f"the folder {whose}", below)
        for folder in view.packages:
            if os.path.isdir(folder):
                yield _Protected(folder, f"a folder for packages {whose}", None)
        for folder in view.added:
            yield _Protected(folder, f"on the sys.path {whose}", _names_imported(config.warm))
    for folder in sys.path:
        if os.path.isabs(folder) or not folder:
            yield _Protected(folder or here, "on the sys.path of this program", _names_imported(config.warm))
    for path in _SYSTEM:
        yield _Protected(path, "a folder of the system's programs and libraries", None)
    for path in _SETTINGS_OF_LOADER:
        yield _Protected(path, "read when any program is started", None)
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if os.path.isabs(folder):
            yield _Protected(folder, "in LD_LIBRARY_PATH of this program", frozenset())


def _names_imported(warm: Iterable[str]) -> frozenset[str]:
    """Return the names of modules that are imported when a worker starts, or may be."""
    tops = (name.partition(".")[0] for name in warm)
    return frozenset((*sys.stdlib_module_names, *OURS, "sitecustomize", "usercustomize", *tops))
