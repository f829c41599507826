"""Builds the worker's own root directory: paths that are not in it do not exist for the worker.

It is made of copies of mounts in an empty root (mount_namespaces(7), pivot_root(2)). The copies are
read-only and ignore set-user-id bits; code inside can't undo that, because it has no capabilities.
"""

import os
import stat
from typing import Final

from pyrepl3_schemas.constants import WORK_DIRECTORY
from pyrepl3_worker.confinement import in_force, syscalls
from pyrepl3_worker.confinement.visible_paths import DEVICES, VisiblePaths

BUILD_DIRECTORY: Final = WORK_DIRECTORY
"""The new root is mounted here: every machine has this directory, and only this process sees the mount."""
_NO_PRIVILEGES: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV
_PID_MAX: Final = "/proc/sys/kernel/pid_max"
_MAX_TERMINALS: Final = 64
"""The machine has 4,096."""
_MIN_PID_MAX: Final = 301
"""The kernel reserves the first 300 pids."""


def build_root(view: VisiblePaths, work_bytes: int, max_processes: int | None) -> None:
    """Replace the root by one that shows `view`, a work directory, devices, and the own processes.

    The process must be in mount, PID and user namespaces of its own.

    Args:
        view: the visible paths.
        work_bytes: the size of the work directory, and of `/dev/shm`.
        max_processes: the limit of processes in the PID namespace; None for none.

    Raises:
        OSError: the kernel refused; the old root is still there.
    """
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    trees = [(path, _clone_tree(path, syscalls.ATTR_RDONLY | syscalls.ATTR_NODEV)) for path in view.readable]
    trees += [(path, _clone_tree(path, syscalls.ATTR_NODEV)) for path in view.writable]
    trees += [(path, _clone_tree(path, 0)) for path in DEVICES if os.path.exists(path)]
    syscalls.mount("root", BUILD_DIRECTORY, "tmpfs", _NO_PRIVILEGES, "mode=755,size=1m")
    try:
        _populate_root(trees, view, work_bytes, max_processes)
        syscalls.pivot_root()
    except OSError:
        os.chdir("/")
        syscalls.detach_mount(BUILD_DIRECTORY)
        raise
    finally:
        for _, tree in trees:
            os.close(tree)
    in_force.add_limit("work_bytes", work_bytes)
    # A new /proc belongs to uid 0, which this process may be, so it is made read-only too.
    for path in ("/proc", "/"):
        _make_read_only(path)


def _populate_root(
    trees: list[tuple[str, int]], view: VisiblePaths, work_bytes: int, max_processes: int | None
) -> None:
    """Fill the new root, which becomes the current directory."""
    os.chdir(BUILD_DIRECTORY)
    for name in ("proc", "dev", "etc"):
        os.mkdir(name)
    # Before the root changes: the kernel mounts a /proc only while the process sees a complete one.
    syscalls.mount("proc", "proc", "proc", _NO_PRIVILEGES | syscalls.MS_NOEXEC)
    _make_work_directory("." + WORK_DIRECTORY, work_bytes)
    _make_work_directory("dev/shm", work_bytes)
    # Outer paths first: a mount below another must come after it.
    for path, tree in sorted(trees):
        _attach_tree(tree, path)
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


def _clone_tree(path: str, attributes: int) -> int:
    tree = syscalls.open_tree(path)
    syscalls.set_mount_attributes(tree, attributes | syscalls.ATTR_NOSUID)
    return tree


def _attach_tree(tree: int, path: str) -> None:
    target = "." + path
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    syscalls.attach_tree(tree, target)


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
