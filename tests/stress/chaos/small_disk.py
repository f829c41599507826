"""A small disk for the store, which can be full: a file system of its own, else a limit on its files.

A tmpfs gives the true ENOSPC. It takes a mount namespace, which root has, and everybody where the kernel
lets users have namespaces of their own; the mount ends with the runner, however that ends. Elsewhere the
programs get a limit on the size of their files (RLIMIT_FSIZE), and so EFBIG.
"""

import asyncio
import ctypes
import os
import resource
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Protocol

_ROOM: Final = 2**30
"""Bytes. What is not used takes no memory."""
_MS_REMOUNT: Final = 32
_MS_PRIVATE_ALL: Final = (1 << 18) | (1 << 14)
_LEAST_LIMIT: Final = 1 << 20
"""Bytes. The programs write their logs under the same limit."""
_TRIES: Final = 50
_FOLD_SECONDS: Final = 0.2
"""Most seconds to wait for a lock on the store."""


class Disk(Protocol):
    """Where the store lies."""

    folder: Path
    kind: str

    def fill(self) -> None:
        """Leave no room, for any of the programs."""

    def make_room(self) -> None:
        """Take that back."""

    def started(self, pid: int) -> None:
        """A program was started."""

    def ended(self, pid: int) -> None:
        """It has ended."""

    def close(self) -> None:
        """Remove all of it."""


def own_namespace() -> bool:
    """Give this process a mount namespace, if that is allowed. It must have no second thread yet."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        # Root that may not do it alone may not map itself into a namespace of its own either.
        os.unshare(os.CLONE_NEWNS if uid == 0 else os.CLONE_NEWNS | os.CLONE_NEWUSER)
    except OSError:
        return False
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return _mount("none", "/", "", _MS_PRIVATE_ALL, "") == 0


def small_disk(folder: Path, *, may_mount: bool) -> Disk:
    """Return a disk whose folder is `folder`, which exists and is empty."""
    if may_mount and _mount("tmpfs", str(folder), "tmpfs", 0, f"size={_ROOM},mode=700") == 0:
        return Tmpfs(folder)
    return Limit(folder)


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    words = [word.encode() for word in (source, target, kind, options)]
    return library.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])


class Tmpfs:
    """A file system in memory, made just as large as what is on it."""

    kind = "a file system of its own"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        for _ in range(_TRIES):
            figures = os.statvfs(self.folder)
            used = (figures.f_blocks - figures.f_bfree) * figures.f_frsize
            # Somebody may have written meanwhile: what is over the new size is refused.
            if self._resize(max(used, figures.f_frsize)):
                return
        raise OSError("the disk could not be filled")

    def make_room(self) -> None:
        assert self._resize(_ROOM)

    def _resize(self, size: int) -> bool:
        return _mount("tmpfs", str(self.folder), "tmpfs", _MS_REMOUNT, f"size={size}") == 0

    def started(self, pid: int) -> None:
        return

    def ended(self, pid: int) -> None:
        return

    def close(self) -> None:
        ctypes.CDLL(None).umount2(str(self.folder).encode(), 2)


class Limit:
    """A limit on the size of the programs' files: no file may grow past the largest one there is."""

    kind = "a limit on the size of its files"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pids: set[int] = set()
        self._limit = resource.RLIM_INFINITY

    def fill(self) -> None:
        sizes = [path.stat().st_size for path in self.folder.iterdir()]
        self._set(max([_LEAST_LIMIT, *sizes]))

    def make_room(self) -> None:
        self._set(resource.RLIM_INFINITY)

    def _set(self, limit: int) -> None:
        self._limit = limit
        for pid in list(self._pids):
            self.started(pid)

    def started(self, pid: int) -> None:
        self._pids.add(pid)
        try:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (self._limit, resource.RLIM_INFINITY))
        except ProcessLookupError:
            self._pids.discard(pid)

    def ended(self, pid: int) -> None:
        self._pids.discard(pid)

    def close(self) -> None:
        shutil.rmtree(self.folder)


def fold_log(store: Path) -> None:
    """Have the store's log cut to nothing: otherwise it has room that it uses again before it grows."""
    # It does not come to its end where somebody else is at it just now. Then the disk may go unfelt.
    with closing(sqlite3.connect(store, timeout=_FOLD_SECONDS)) as file, suppress(sqlite3.OperationalError):
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Filler:
    """Fills a disk for a while, until somebody has felt it."""

    def __init__(self, disk: Disk, store: Path, patience: float) -> None:
        """Fill the disk of `store`; wait for up to `patience` seconds for somebody to feel it."""
        self._disk = disk
        self._store = store
        self._patience = patience
        self._turn = asyncio.Lock()
        self._felt = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.unfelt = 0

    def feel(self) -> None:
        """Somebody was refused."""
        self._felt.set()

    async def fill(self, seconds: float) -> None:
        """Fill it, and go on for some seconds after somebody has felt it."""
        async with self._turn:
            self._felt.clear()
            self.room.clear()
            try:
                fold_log(self._store)
                self._disk.fill()
                async with asyncio.timeout(self._patience):
                    await self._felt.wait()
                await asyncio.sleep(seconds)
            except TimeoutError:
                self.unfelt += 1
            finally:
                self._disk.make_room()
                self.room.set()
