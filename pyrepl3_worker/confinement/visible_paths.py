"""What a strictly confined worker sees of the machine's files: what Python, and programs at all, need."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/libx32", "/lib64")
"""Programs and libraries."""
SETTINGS: Final = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/timezone", "/etc/mime.types", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted", "/etc/ca-certificates", "/etc/fonts",
)  # fmt: skip
"""Settings of libraries, none of which is a secret."""
NAME_SERVICE: Final = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/gai.conf",
)
"""Seen where the network is allowed."""
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_NIX: Final = "/nix/store"


class VisiblePaths(msgspec.Struct, frozen=True):
    """Absolute paths that exist, none below another of its kind."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """Symbolic links of the root, and where they lead."""

    def shows(self, path: str, shown: Iterable[str]) -> bool:
        """Whether a path is one of `shown`, or below one."""
        return any(is_below(path, top) for top in shown)


def view(readable: Iterable[str], writable: Iterable[str], *, network: bool) -> VisiblePaths:
    """Find out what exists of all that is to be seen."""
    links = tuple((path, os.readlink(path)) for path in SYSTEM if os.path.islink(path))
    linked = {path for path, _ in links}
    wanted = [path for path in SYSTEM if path not in linked]
    wanted += [*SETTINGS, *python_paths(), *(NAME_SERVICE if network else ()), *_both(readable)]
    return VisiblePaths(outermost(wanted), outermost(_both(writable)), links)


def python_paths() -> Iterator[str]:
    """Give where this Python, its standard library and its packages live."""
    yield from _both((sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path))
    if sys.executable:
        # A virtual environment's executable is a link; so may be what it leads to.
        path = sys.executable
        for _ in range(8):
            yield os.path.dirname(path)
            if not os.path.islink(path):
                break
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        yield os.path.dirname(os.path.realpath(sys.executable))
    if os.path.realpath(sys.base_prefix).startswith(_NIX):
        yield _NIX


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Give those that exist, absolute and normal, without those below another; never the root itself."""
    found = {os.path.normpath(path) for path in paths if os.path.isabs(path) and os.path.exists(path)} - {"/"}
    kept: list[str] = []
    for path in sorted(found):
        if not kept or not is_below(path, kept[-1]):
            kept.append(path)
    return tuple(kept)


def is_below(path: str, top: str) -> bool:
    """Whether a normal path is `top`, or below it."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def _both(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if os.path.isabs(path):
            yield path
            yield os.path.realpath(path)
