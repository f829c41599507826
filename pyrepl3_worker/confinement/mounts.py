"""A tree of files of one's own: what is not in it is not there, whoever asks and however.

Made of copies of mounts in an empty root (mount_namespaces(7), pivot_root(2)). The copies are read-only
and without set-user-id programs; nobody can undo that from inside, for the capabilities are gone by then.
"""

import os
import stat
from typing import Final

from pyrepl3_schemas.confinement import WORK_DIRECTORY
from pyrepl3_worker.confinement import in_force, syscalls
from pyrepl3_worker.confinement.visible_paths import DEVICES, VisiblePaths

STAGE: Final = WORK_DIRECTORY
"""A directory that every machine has, to build on; only this process sees it covered."""
_NO_PRIVILEGES: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV
_PID_MAX: Final = "/proc/sys/kernel/pid_max"
_LEAST_PID_MAX: Final = 301
"""The kernel keeps 300 numbers to itself."""


def build(view: VisiblePaths, work_bytes: int, max_processes: int | None) -> None:
    """Replace the root by one that shows `view`, a work directory, devices, and one's own processes.

    The process must have mount, PID and user namespaces of its own, and be a child in the former.

    Raises:
        OSError: the kernel refused; the old root is still there.
    """
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    trees = [(path, _copy(path, syscalls.ATTR_RDONLY | syscalls.ATTR_NODEV)) for path in view.readable]
    trees += [(path, _copy(path, syscalls.ATTR_NODEV)) for path in view.writable]
    trees += [(path, _copy(path, 0)) for path in DEVICES if os.path.exists(path)]
    syscalls.mount("root", STAGE, "tmpfs", _NO_PRIVILEGES, "mode=755,size=1m")
    try:
        _furnish(trees, view, work_bytes, max_processes)
        syscalls.enter_root()
    except OSError:
        os.chdir("/")
        syscalls.discard(STAGE)
        raise
    finally:
        for _, tree in trees:
            os.close(tree)
    in_force.add_limit("work_bytes", work_bytes)
    # A fresh /proc belongs to uid 0, which this may be: nothing in it is to be written.
    for path in ("/proc", "/"):
        _make_read_only(path)


def _furnish(
    trees: list[tuple[str, int]], view: VisiblePaths, work_bytes: int, max_processes: int | None
) -> None:
    """Put everything into the new root, which becomes the current directory."""
    os.chdir(STAGE)
    for name in ("proc", "dev", "etc"):
        os.mkdir(name)
    # Before the root changes: the kernel wants to see a whole /proc before it gives another.
    syscalls.mount("proc", "proc", "proc", _NO_PRIVILEGES | syscalls.MS_NOEXEC)
    _make_work_directory("." + WORK_DIRECTORY, work_bytes)
    _make_work_directory("dev/shm", work_bytes)
    # Outer ones first: what is put on top of another must come after it.
    for path, tree in sorted(trees):
        _place(tree, path)
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
        "newinstance,ptmxmode=666,mode=620",
    )
    os.symlink("pts/ptmx", "dev/ptmx")
    _name_user()
    if max_processes is not None:
        _limit_pids(max_processes)


def _copy(path: str, attributes: int) -> int:
    tree = syscalls.open_tree(path)
    syscalls.set_mount(tree, attributes | syscalls.ATTR_NOSUID)
    return tree


def _place(tree: int, path: str) -> None:
    target = "." + path
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    syscalls.place_tree(tree, target)


def _make_work_directory(path: str, size: int) -> None:
    os.makedirs(path, exist_ok=True)
    # Without a bound on names, a million empty files would fill memory too.
    syscalls.mount(
        "work", path, "tmpfs", _NO_PRIVILEGES, f"mode=1777,size={size},nr_inodes={size // 4096 + 64}"
    )


def _name_user() -> None:
    uid, gid = os.getuid(), os.getgid()
    for path, text in (
        ("etc/passwd", f"user:x:{uid}:{gid}:user:{WORK_DIRECTORY}:/bin/sh\n"),
        ("etc/group", f"user:x:{gid}:\n"),
    ):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)


def _limit_pids(most: int) -> None:
    """Bound the numbers of this PID namespace: the only bound that also holds for uid 0 outside."""
    fd = os.open("." + _PID_MAX, os.O_WRONLY | os.O_CLOEXEC)
    try:
        most = max(_LEAST_PID_MAX, most + 2)
        os.write(fd, str(most).encode())
    except OSError:
        # Before Linux 6.14 it is the machine's; RLIMIT_NPROC then binds all but uid 0.
        return
    else:
        in_force.add_limit("max_processes", most)
    finally:
        os.close(fd)


def _make_read_only(path: str) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.set_mount(fd, syscalls.ATTR_RDONLY, recursive=False)
    finally:
        os.close(fd)
