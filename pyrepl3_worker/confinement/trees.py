"""Detached copies of paths of the machine, to be attached in the worker's own root.

Folders of the system and of Python are shown as overlays without a writable layer: these have inodes of
their own, so that a host's unix sockets and FIFOs, and its leases and locks on files, are out of reach. But
an overlay goes on showing what it has shown once, or has not found, when the machine puts another file
there. So folders of data are read-only copies of the mounts; and others too, where the kernel has no such
overlay for them, or other file systems are mounted below.
"""

from __future__ import annotations

import os
import stat

from pyrepl3_worker.confinement import syscalls

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

_MAX_COPIED: Final = 4 * 1024 * 1024
"""Bytes of a file that is copied; a longer one is mounted."""
_OPEN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class PinnedPath:
    """A path of the policy, as the client found it when the session began."""

    def __init__(self, real: str, fd: int) -> None:
        """Keep the path without links, and what was there (O_PATH)."""
        self.real = real
        self.fd = fd


class Shown:
    """What is shown besides the system's folders."""

    def __init__(self, python: tuple[str, ...], live: frozenset[str], pins: Mapping[str, PinnedPath]) -> None:
        """Keep what is shown."""
        self.python = python
        """The paths that the interpreter needs."""
        self.live = live
        """Those whose files may be replaced while the worker lives: an overlay would not show that."""
        self.pins = pins
        """Paths of the policy that have to be what they were, by where they are seen."""


class PathChangedError(Exception):
    """A path of the policy is not what it was when the session began."""

    def __init__(self, path: str) -> None:
        """Name the path."""
        super().__init__(
            f"{path!r} of the policy is not what it was when the session began: it was replaced, renamed or "
            "removed. Put it back, or open another session"
        )


class Source:
    """A path that is to be shown, opened."""

    def __init__(self, path: str, real: str, fd: int, *, writable: bool, live: bool, copied: bool) -> None:
        """Keep what it is."""
        self.path = path
        """Where it is to be seen."""
        self.real = real
        """Where it is."""
        self.fd = fd
        self.writable = writable
        self.live = live
        """Whether what the machine replaces below it has to be seen."""
        self.copied = copied
        """Whether it is a setting of the system: a regular file among them is copied."""


def open_source(path: str, shown: Shown, *, writable: bool, copied: bool) -> Source:
    """Open a path that is to be shown.

    Args:
        path: where it is to be seen.
        shown: says which paths are live, and which have to be what they were.
        writable: whether the code may write to it.
        copied: whether it is one of the system's settings.

    Raises:
        OSError: it cannot be opened.
        PathChangedError: it is not what it was.
    """
    pin, live = shown.pins.get(path), writable or path in shown.live
    if pin is None:
        real = os.path.realpath(path)
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    else:
        real, fd = pin.real, open_pinned(pin)
    return Source(path, real, fd, writable=writable, live=live, copied=copied)


def open_pinned(pin: PinnedPath) -> int:
    """Open a pinned path again, in this process's namespace.

    Raises:
        PathChangedError: something else is there, or nothing.
    """
    try:
        fd = os.open(pin.real, _OPEN)
    except OSError:
        raise PathChangedError(pin.real) from None
    if not os.path.samestat(os.fstat(fd), os.fstat(pin.fd)):
        os.close(fd)
        raise PathChangedError(pin.real)
    return fd


def mount_points() -> list[str]:
    """Return where file systems are mounted in this process's namespace."""
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split()[4] for line in file]
    return [os.fsdecode(_unescaped(field)) for field in fields]


def make_tree(source: Source, empty: int, mounted: Iterable[str]) -> tuple[int, bool]:
    """Return a detached mount of a path, and whether it is apart from the machine's own inodes.

    Args:
        source: the path.
        empty: an empty folder of this process's namespace.
        mounted: where file systems are mounted.

    Raises:
        OSError: the kernel refused.
    """
    if not source.live and stat.S_ISDIR(os.fstat(source.fd).st_mode):
        top = source.real.rstrip("/") + "/"
        if not any(point.startswith(top) for point in mounted):
            try:
                return syscalls.make_overlay(source.fd, empty), True
            except OSError:
                pass  # not on this file system, or not by this kernel: what follows works on every one
    tree = syscalls.open_tree_at(source.fd)
    attributes = syscalls.ATTR_NODEV | syscalls.ATTR_NOSUID
    syscalls.set_mount_attributes(tree, attributes | (0 if source.writable else syscalls.ATTR_RDONLY))
    return tree, source.writable


def content_to_copy(source: Source) -> bytes | None:
    """Return what is in a file that is to be copied, not mounted; None for anything else."""
    status = os.fstat(source.fd)
    if not source.copied or not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_COPIED:
        return None
    try:
        fd = os.open(f"/proc/self/fd/{source.fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        return file.read(_MAX_COPIED)


def _unescaped(field: bytes) -> bytes:
    """Return a field of mountinfo: white space and backslashes are three octal digits in it."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)
