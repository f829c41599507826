"""Builds the worker's own root directory: paths that are not in it do not exist for the worker.

It is made of copies of mounts in an empty root (mount_namespaces(7), pivot_root(2)). The copies are
read-only and ignore set-user-id bits; code inside can't undo that, because it has no capabilities.
"""

from __future__ import annotations

import os
import stat

from pyrepl3_schemas.constants import WORK_DIRECTORY
from pyrepl3_worker.confinement import in_force, syscalls
from pyrepl3_worker.confinement.trees import (
    Shown,
    Source,
    content_to_copy,
    make_tree,
    mount_points,
    open_source,
)
from pyrepl3_worker.confinement.visible_paths import DEVICES, SETTINGS, VisiblePaths, is_below_any

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

BUILD_DIRECTORY: Final = WORK_DIRECTORY
"""The new root is mounted here: every machine has this directory, and only this process sees the mount."""
_NO_PRIVILEGES: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT_BYTES: Final = 64 * 1024 * 1024
"""The root itself holds copies of the system's settings."""
_PID_MAX: Final = "/proc/sys/kernel/pid_max"
_MAX_TERMINALS: Final = 64
"""The machine has 4,096."""
_HIDDEN_IN_PROC: Final = (
    "acpi", "asound", "interrupts", "kallsyms", "kcore", "key-users", "keys", "latency_stats", "sched_debug",
    "scsi", "softirqs", "timer_list", "sys/net/ipv4/tcp_fastopen_key",
)  # fmt: skip
"""What tells of the machine's other users, devices and their timing, though every user may read it."""
_MIN_PID_MAX: Final = 301
"""The kernel reserves the first 300 pids."""


def build_root(
    view: VisiblePaths,
    shown: Shown,
    work_bytes: int,
    max_processes: int | None,
) -> None:
    """Replace the root by one that shows `view`, a work directory, devices, and the own processes.

    The process must be in mount, PID and user namespaces of its own.

    Args:
        view: the visible paths.
        shown: says how the paths are shown.
        work_bytes: the size of the work directory, and of `/dev/shm`.
        max_processes: the limit of processes in the PID namespace; None for none.

    Raises:
        OSError: the kernel refused; the old root is still there.
        PathChangedError: a path of the policy is not what it was.
    """
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    sources: list[Source] = []
    try:
        # Before the new root covers one of them.
        for path in (*view.readable, *view.writable):
            sources.append(  # noqa: PERF401 - each is closed, whatever fails then
                open_source(path, shown, writable=path in view.writable, copied=path in SETTINGS)
            )
        devices = [(path, syscalls.open_tree(path)) for path in DEVICES if os.path.exists(path)]
        syscalls.mount("root", BUILD_DIRECTORY, "tmpfs", _NO_PRIVILEGES, f"mode=755,size={_ROOT_BYTES}")
        try:
            apart = _populate_root(sources, devices, view, work_bytes, max_processes)
            syscalls.pivot_root()
        except OSError:
            os.chdir("/")
            syscalls.detach_mount(BUILD_DIRECTORY)
            raise
        finally:
            for _, tree in devices:
                os.close(tree)
    finally:
        for source in sources:
            os.close(source.fd)
    if apart:
        in_force.add("detached_files")
    in_force.add_limit("work_bytes", work_bytes)
    # A new /proc belongs to uid 0, which this process may be, so it is made read-only too.
    for path in ("/proc", "/"):
        _make_read_only(path)


def _populate_root(
    sources: list[Source],
    devices: list[tuple[str, int]],
    view: VisiblePaths,
    work_bytes: int,
    max_processes: int | None,
) -> bool:
    """Fill the new root, which becomes the current directory.

    Returns:
        Whether all that can only be read is apart from the machine's own inodes.
    """
    mounted = mount_points()
    os.chdir(BUILD_DIRECTORY)
    for name in ("proc", "dev", "etc"):
        os.mkdir(name)
    empty = os.open("proc", os.O_PATH | os.O_CLOEXEC)  # and empty it stays, below what is mounted there
    apart = True
    _make_work_directory("." + WORK_DIRECTORY, work_bytes)
    _make_work_directory("dev/shm", work_bytes)
    for path, tree in devices:
        syscalls.set_mount_attributes(tree, syscalls.ATTR_NOSUID)
        _attach(tree, path, is_folder=False)
    # Outer paths first: a mount below another must come after it.
    try:
        # And what is seen by another path too after what it is: the same files are to be the same by both.
        for source in sorted(sources, key=lambda each: (each.path != each.real, each.path)):
            _pin_parents(source.path, view.writable)
            content = content_to_copy(source)
            if content is not None:
                _write_copy(source.path, content)
                continue
            if source.path != source.real and is_below_any(source.real, (*view.readable, *view.writable)):
                try:
                    _attach_again(source)
                except NotADirectoryError:
                    pass  # the way there is a link in what is shown, and leads there
                continue
            tree, is_apart = make_tree(source, empty, mounted)
            try:
                _attach(tree, source.path, is_folder=stat.S_ISDIR(os.fstat(tree).st_mode))
            finally:
                os.close(tree)
            apart = apart and is_apart
    finally:
        os.close(empty)
    # Before the root changes: the kernel mounts a /proc only while the process sees a complete one.
    syscalls.mount("proc", "proc", "proc", _NO_PRIVILEGES | syscalls.MS_NOEXEC)
    _hide_in_proc()
    for path, target in view.links:
        os.symlink(target, "." + path)
    for name in ("fd", "stdin", "stdout", "stderr"):
        target = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}[name]
        os.symlink(f"/proc/self/fd{target}", f"dev/{name}")
    os.mkdir("dev/pts")
    syscalls.mount(
        "devpts",
        "dev/pts",
        "devpts",
        syscalls.MS_NOSUID | syscalls.MS_NOEXEC,
        f"newinstance,ptmxmode=666,mode=620,max={_MAX_TERMINALS}",
    )
    os.symlink("pts/ptmx", "dev/ptmx")
    _write_user_database()
    if max_processes is not None:
        _limit_pids(max_processes)
    return apart


def _hide_in_proc() -> None:
    """Cover what a new /proc tells of the machine: for uid 0, also what uid 0 alone can read there."""
    names: set[str] = set(_HIDDEN_IN_PROC)
    if os.getuid() == 0:
        with os.scandir("proc") as entries:
            names.update(
                entry.name
                for entry in entries
                if entry.is_file(follow_symlinks=False) and not entry.stat().st_mode & stat.S_IROTH
            )
    for name in sorted(names):
        path = f"proc/{name}"
        try:
            is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        except OSError:
            continue  # this kernel has none
        if is_folder:
            syscalls.mount("none", path, "tmpfs", _NO_PRIVILEGES | syscalls.MS_RDONLY, "mode=555,size=0")
            continue
        nothing = syscalls.open_tree("dev/null")
        try:
            syscalls.attach_tree(nothing, path)
        finally:
            os.close(nothing)


def _attach(tree: int, path: str, *, is_folder: bool) -> None:
    """Attach a tree in the new root, whatever links other processes make in its writable folders."""
    target = _open_below(path, is_folder=is_folder)
    try:
        syscalls.attach_tree_at(tree, target)
    finally:
        os.close(target)


def _attach_again(source: Source) -> None:
    """Attach what is in the new root already at a second path."""
    seen = _open_below(source.real, is_folder=stat.S_ISDIR(os.fstat(source.fd).st_mode))
    try:
        tree = syscalls.open_tree_at(seen)
        try:
            if not source.writable:
                syscalls.set_mount_attributes(tree, syscalls.ATTR_RDONLY)
            _attach(tree, source.path, is_folder=stat.S_ISDIR(os.fstat(tree).st_mode))
        finally:
            os.close(tree)
    finally:
        os.close(seen)


def _pin_parents(path: str, writable: Iterable[str]) -> None:
    """Make a mount of each folder between a writable one and what is mounted below it.

    Code cannot rename what something is mounted on. So it cannot move the mount away, and put another thing
    in its place for the next worker.
    """
    for top in writable:
        if not path.startswith(f"{top}/"):
            continue
        below = path[len(top) + 1 :].split("/")[:-1]
        for depth in range(len(below)):
            folder = "/".join((top, *below[: depth + 1]))
            target = _open_below(folder, is_folder=True)
            try:
                tree = syscalls.open_tree_at(target)
                try:
                    syscalls.attach_tree_at(tree, target)
                finally:
                    os.close(tree)
            finally:
                os.close(target)


def _open_below(path: str, *, is_folder: bool) -> int:
    """Open a path in the new root (O_PATH), which is made if it is not there; no link is followed."""
    *folders, name = path.strip("/").split("/")
    at = os.open(".", _FOLDER)
    try:
        for folder in folders:
            inner = _enter(at, folder)
            os.close(at)
            at = inner
        if is_folder:
            return _enter(at, name)
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=at))
        except FileExistsError:
            pass  # in a folder that is shown
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)


def _enter(at: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=at)
        return os.open(name, _FOLDER, dir_fd=at)


def _write_copy(path: str, content: bytes) -> None:
    target = "." + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(content)


def _make_work_directory(path: str, size: int) -> None:
    os.makedirs(path, exist_ok=True)
    # Without a limit of inodes, a million empty files would fill the memory too.
    syscalls.mount(
        "work", path, "tmpfs", _NO_PRIVILEGES, f"mode=1777,size={size},nr_inodes={size // 4096 + 64}"
    )


def _write_user_database() -> None:
    uid, gid = os.getuid(), os.getgid()
    for path, text in (
        ("etc/passwd", f"user:x:{uid}:{gid}:user:{WORK_DIRECTORY}:/bin/sh\n"),
        ("etc/group", f"user:x:{gid}:\n"),
    ):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def _limit_pids(most: int) -> None:
    """Limit the pids of this PID namespace: the only limit that also holds for uid 0 of the machine."""
    fd = os.open("." + _PID_MAX, os.O_WRONLY | os.O_CLOEXEC)
    try:
        most = max(_MIN_PID_MAX, most + 2)
        os.write(fd, str(most).encode())
    except OSError:
        # Before Linux 6.14, pid_max is one for the machine; RLIMIT_NPROC then limits all but uid 0.
        return
    else:
        in_force.add_limit("max_processes", most)
    finally:
        os.close(fd)


def _make_read_only(path: str) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.set_mount_attributes(fd, syscalls.ATTR_RDONLY, recursive=False)
    finally:
        os.close(fd)
