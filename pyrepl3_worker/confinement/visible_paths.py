"""The paths of the machine that a strictly confined worker sees: what Python and programs need."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

SYSTEM_FOLDERS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/libx32", "/lib64")
"""Programs and libraries."""
LIBRARY_SETTINGS: Final = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/timezone", "/etc/mime.types", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted", "/etc/ca-certificates", "/etc/fonts",
)  # fmt: skip
"""Settings of libraries; none of them is secret."""
NAME_RESOLUTION_FILES: Final = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/gai.conf",
)
"""Visible if the network is allowed."""
SETTINGS: Final = frozenset((*LIBRARY_SETTINGS, *NAME_RESOLUTION_FILES))
"""Of these, files are copied, and folders shown."""
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_NIX_STORE: Final = "/nix/store"


class VisiblePaths:
    """Absolute paths that exist; in each tuple, none is below another."""

    def __init__(
        self, readable: tuple[str, ...], writable: tuple[str, ...], links: tuple[tuple[str, str], ...]
    ) -> None:
        """Keep the paths."""
        self.readable = readable
        self.writable = writable
        self.links = links
        """Symbolic links of the root directory, with their targets."""


def find_visible_paths(
    python: Iterable[str], readable: Iterable[str], writable: Iterable[str], *, network: bool
) -> VisiblePaths:
    """Return those paths that exist, of the worker's own needs and of `readable` and `writable`.

    Args:
        python: what the interpreter needs.
        readable: more paths to be visible.
        writable: paths to be visible and writable.
        network: whether files for name resolution are visible.
    """
    links = tuple((path, os.readlink(path)) for path in SYSTEM_FOLDERS if os.path.islink(path))
    linked = {path for path, _ in links}
    wanted = [path for path in SYSTEM_FOLDERS if path not in linked]
    wanted += [
        *LIBRARY_SETTINGS,
        *python,
        *(NAME_RESOLUTION_FILES if network else ()),
        *_with_real_path(readable),
    ]
    # What is below such a link is there by its real path; the link itself could not be made beside it.
    shown = (path for path in wanted if not is_below_any(os.path.normpath(path), linked))
    written = (path for path in _with_real_path(writable) if not is_below_any(path, linked))
    return VisiblePaths(outermost(shown), outermost(written), links)


def python_paths() -> Iterator[str]:
    """Yield the paths of this Python, its standard library, its packages and the worker's own."""
    import msgspec

    import pyrepl3_schemas
    import pyrepl3_worker

    # Where they are lent, they are not among this Python's; and their neighbours stay invisible.
    for package in (pyrepl3_worker, pyrepl3_schemas, msgspec):
        yield from _with_real_path((os.path.dirname(str(package.__file__)),))
    yield from _with_real_path(
        (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path)
    )
    if sys.executable:
        # A virtual environment's executable is a symbolic link; its target may be one too.
        path = sys.executable
        for _ in range(8):
            yield os.path.dirname(path)
            if not os.path.islink(path):
                break
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        yield os.path.dirname(os.path.realpath(sys.executable))
    if os.path.realpath(sys.base_prefix).startswith(_NIX_STORE):
        yield _NIX_STORE


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the absolute paths that exist, normalised, without the root and those below another path."""
    found = {os.path.normpath(path) for path in paths if os.path.isabs(path) and os.path.exists(path)} - {"/"}
    kept: list[str] = []
    for path in sorted(found):
        if not kept or not is_below(path, kept[-1]):
            kept.append(path)
    return tuple(kept)


def is_below_any(path: str, tops: Iterable[str]) -> bool:
    """Return whether a normal path is one of `tops`, or below one."""
    return any(is_below(path, top) for top in tops)


def is_below(path: str, top: str) -> bool:
    """Return whether a normal path is `top`, or below it."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def _with_real_path(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if os.path.isabs(path):
            yield path
            yield os.path.realpath(path)
