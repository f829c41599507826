"""Tries on this machine what "strict" needs, each in a process of its own, and prints what came of it.

    python -P -m pyrepl3_worker.confinement.probes

It prints a JSON list of objects with `name`, `ok`, `detail` (what the kernel did) and `remedy`. The client's
`doctor` runs it in its own interpreter.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

from pyrepl3_worker.confinement import landlock, namespaces, seccomp, syscalls

_SYSCTLS: Final = (
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=28633"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,`",
    ),
)
"""Settings that forbid user namespaces, by which value, and what allows them (user_namespaces(7))."""
_CONTAINER_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
_DOCKER: Final = (
    "in a container: docker run --security-opt seccomp=PROFILE --security-opt systempaths=unconfined, where "
    "PROFILE is the engine's default with unshare, clone, mount, umount2, pivot_root, open_tree, move_mount, "
    "mount_setattr and setns allowed (seccomp=unconfined allows them all)"
)


def main() -> None:
    """Print the outcome of every probe."""
    json.dump([_outcome(*probe) for probe in PROBES], sys.stdout)


def _outcome(name: str, probe: Callable[[], str], remedy: Callable[[], str]) -> dict[str, object]:
    """Run a probe in a forked process; return what it found."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            text = "+" + probe()
        except OSError as error:
            text = f"-{error.strerror or error}" + (
                f" ({errno.errorcode[error.errno]})" if error.errno else ""
            )
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        text = file.read().decode()
    _, status = os.waitpid(pid, 0)
    if not text:
        code = os.waitstatus_to_exitcode(status)
        text = f"-it was ended by {signal.Signals(-code).name}" if code < 0 else f"-exit status {code}"
    ok = text.startswith("+")
    return {"name": name, "ok": ok, "detail": text[1:], "remedy": "" if ok else remedy()}


# --- probes: each returns what it found, and raises OSError where the kernel refuses ------------------------


def _own_user_namespace() -> str:
    _enter(os.CLONE_NEWUSER)
    return "an unprivileged process gets one"


def _own_mount_and_pid_namespaces() -> str:
    _enter(
        os.CLONE_NEWUSER
        | os.CLONE_NEWNS
        | os.CLONE_NEWPID
        | os.CLONE_NEWIPC
        | os.CLONE_NEWUTS
        | os.CLONE_NEWCGROUP
    )
    return "mounts, processes, IPC, host name and control groups are a worker's own"


def _own_network() -> str:
    _enter(os.CLONE_NEWUSER)
    namespaces.leave_network()
    return "a network with nothing but its own loopback"


def _own_proc() -> str:
    _enter(os.CLONE_NEWUSER | os.CLONE_NEWNS | os.CLONE_NEWPID)

    def mount() -> None:
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)

    _in_child(mount)
    return "a /proc that shows a worker's own processes"


def _own_root() -> str:
    _enter(os.CLONE_NEWUSER | os.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("root", "/tmp", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=1m")  # noqa: S108 - of this process alone
    os.mkdir("/tmp/usr")  # noqa: S108 - as above
    tree = syscalls.open_tree("/usr")
    syscalls.set_mount_attributes(tree, syscalls.ATTR_RDONLY | syscalls.ATTR_NODEV)
    syscalls.attach_tree(tree, "/tmp/usr")  # noqa: S108 - as above
    os.chdir("/tmp")  # noqa: S108 - as above
    syscalls.pivot_root()
    return f"a root with {', '.join(sorted(os.listdir('/')))} alone"


def _read_only_overlay() -> str:
    _enter(os.CLONE_NEWUSER | os.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("root", "/tmp", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=1m")  # noqa: S108 - of this process alone
    os.chdir("/tmp")  # noqa: S108 - as above
    for name in ("empty", "shown"):
        os.mkdir(name)
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("overlay", "shown", "overlay", flags, "lowerdir=empty:/usr,userxattr")
    return "readable paths are shown so that their sockets, FIFOs and locks are not the host's"


def _landlock() -> str:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    names = landlock.restrict(landlock.LandlockRules(["/usr"], [], ports_closed=True, scoped=True))
    try:
        os.listdir("/")
    except PermissionError:
        return f"ABI {landlock.abi_version()}: {', '.join(names)}"
    raise OSError("the kernel accepts rules, and does not keep to them")


def _seccomp() -> str:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install_filter(seccomp.PRIVATE_FAMILIES)
    try:
        os.unshare(os.CLONE_NEWUSER)
    except PermissionError:
        return "a filter refuses what it is to refuse"
    raise OSError("the kernel accepts a filter, and does not keep to it")


def _capabilities() -> str:
    _enter(os.CLONE_NEWUSER)
    syscalls.drop_capabilities()
    return "they are given up for good"


def _delegated_control_group() -> str:
    with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
        lines = file.read().split("\n")
    paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not paths or not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        raise OSError("no control groups of version 2 are mounted at /sys/fs/cgroup")
    folder = "/sys/fs/cgroup" + paths[0].rstrip("/")
    below = f"{folder}/pyrepl3-probe-{os.getpid()}"
    os.mkdir(below)
    try:
        with open(f"{below}/cgroup.controllers", encoding="ascii") as file:
            controllers = file.read().split()
    finally:
        os.rmdir(below)
    missing = sorted({"memory", "pids"} - set(controllers))
    if missing:
        raise OSError(f"{folder} passes on no controller for {' and '.join(missing)}")
    return f"below {folder}: {', '.join(controllers)}"


# --- what helps -------------------------------------------------------------------------------------------


def _allow_namespaces() -> str:
    found = [remedy for name, forbids, remedy in _SYSCTLS if _sysctl(name) == forbids]
    if any(os.path.exists(mark) for mark in _CONTAINER_MARKS) or not found:
        found.append(_DOCKER)
    return "; or ".join(found)


def _allow_network() -> str:
    return (
        "sysctl user.max_net_namespaces=28633"
        if _sysctl("user/max_net_namespaces") == "0"
        else _allow_namespaces()
    )


def _unmask_proc() -> str:
    return "the machine's /proc must be whole: " + _DOCKER


def _load_overlay() -> str:
    return "Linux 5.11 or newer with the module overlay (modprobe overlay); without it bind mounts are used"


def _boot_with_landlock() -> str:
    return (
        "boot with lsm=landlock,… on Linux 5.13 or newer; in a container, allow landlock_* in its seccomp "
        "profile"
    )


def _build_with_seccomp() -> str:
    return "a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or aarch64"


def _delegate() -> str:
    return (
        "not needed. For limits that the kernel keeps of all processes together: systemd-run --user --scope "
        "-p Delegate=yes PROGRAM, or a service with Delegate=yes"
    )


PROBES: Final = (
    ("user namespace", _own_user_namespace, _allow_namespaces),
    ("capabilities", _capabilities, _allow_namespaces),
    ("mount, PID, IPC, UTS and cgroup namespaces", _own_mount_and_pid_namespaces, _allow_namespaces),
    ("network namespace", _own_network, _allow_network),
    ("/proc of its own", _own_proc, _unmask_proc),
    ("root of its own", _own_root, _allow_namespaces),
    ("read-only overlays", _read_only_overlay, _load_overlay),
    ("Landlock", _landlock, _boot_with_landlock),
    ("seccomp", _seccomp, _build_with_seccomp),
    ("delegated control group", _delegated_control_group, _delegate),
)
"""Name, probe, and what to do where it fails."""


def _enter(flags: int) -> None:
    """Enter new namespaces, a user namespace among them, as the user that runs this."""
    uid, gid = os.getuid(), os.getgid()
    os.unshare(flags)
    for name, text in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _in_child(step: Callable[[], None]) -> None:
    """Run a step in a child, which is the first process of a new PID namespace.

    Raises:
        OSError: the step has raised it.
    """
    pid = os.fork()
    if pid == 0:
        try:
            step()
        except OSError as error:
            os._exit(error.errno or errno.EIO)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    number = os.waitstatus_to_exitcode(status)
    if number:
        raise OSError(abs(number), os.strerror(abs(number)))


def _sysctl(name: str) -> str:
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
