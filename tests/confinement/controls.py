# ruff: noqa: E501 - a program a line reads best
"""What shows of an escape that it would have worked without a boundary, where an unconfined session cannot.

Or why nothing shows it, by the escape's name.
"""

from dataclasses import dataclass
from typing import Literal

from tests.confinement.escapes import ESCAPES, Escape


@dataclass(frozen=True)
class Control:
    """How an escape is run without a boundary; see `unbounded_world`."""

    where: Literal["apart", "forked"]
    code: str = ""
    """What is run instead, where the escape itself would harm this machine or meets what is not there."""
    root: bool = False
    """Whether only root may do it."""
    optional: bool = False
    """Whether a machine may have nothing of the kind."""
    otherwise: bool = False
    """Whether it fails there too, but by what the call itself looks at, and not as something forbidden."""


APART, FORKED = Control("apart"), Control("forked")
APART_AS_ROOT, FORKED_AS_ROOT = Control("apart", root=True), Control("forked", root=True)
_CODE = {escape.name: escape.code for escape in ESCAPES}
_HANDLE = "h = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))\ncall(303, 264, -100, b'/dev/shm', h, ctypes.byref(ctypes.c_int()), 0)\n"


def _opens(path: str, flags: str) -> Control:
    """Return a control that opens a file, and goes no further."""
    code = f"os.path.exists({path!r}) and os.close(os.open({path!r}, {flags} | os.O_NONBLOCK))"
    return Control("forked", code, root=True)


CONTROLS: dict[str, Control | str] = {
    # files
    **dict.fromkeys(
        (
            "a symbolic link", "a link to the root of init", "a hard link", "a child process that reads", "the names of users",
            "write to a file outside", "make a file outside", "remove a file outside", "move a file out",
            "change a mode outside", "truncate outside",
        ),
        APART,
    ),
    **dict.fromkeys(
        (
            "homes", "logs and spools", "disks", "a program that is no file", "a loader that executes for us",
            "secrets in the environment", "the user's timers", "an abstract socket", "a pair that sends elsewhere",
        ),
        FORKED,
    ),
    **dict.fromkeys(
        (
            "write among Python's own", "write among the packages", "write to the worker's own code", "write to programs",
            "rewrite /etc/passwd", "make a read-only place writable",
        ),
        APART_AS_ROOT,
    ),
    "password hashes": FORKED_AS_ROOT,
    "control groups": Control("forked", optional=True),
    "the kernel's memory": Control("forked", optional=True, root=True),
    "the kernel's log": _opens("/dev/kmsg", "os.O_RDONLY"),
    "a device node of one's own": Control("forked", "import tempfile\nd = tempfile.mkdtemp()\nos.mknod(d + '/null', 0o20666, os.makedev(1, 3))\nos.close(os.open(d + '/null', os.O_RDONLY))\nos.unlink(d + '/null')\nos.rmdir(d)", root=True),
    "a terminal": "a worker has no terminal at any level, since it leads a session of its own",
    "make a folder in the root": Control("forked", "os.mkdir('/pyrepl3-planted')\nos.rmdir('/pyrepl3-planted')", root=True),
    # mounts and what /proc tells
    **dict.fromkeys(
        (
            "mount a file system", "bind the root", "remount writable", "unmount what covers", "the new calls for mounts",
            "a new file system, the new way", "clear read-only", "pivot_root", "chroot, and out of it", "a user namespace",
            "a network namespace", "a mount namespace, in a child", "clone with new namespaces",
            "clone3, whose flags no filter sees", "the namespace of init", "fresh /proc by symbolic link",
        ),
        APART,
    ),
    "a file handle": Control("forked", _HANDLE),
    "open by handle": Control("forked", _HANDLE + "os.close(call(304, 265, os.open('/dev/shm', os.O_RDONLY), h, 0))", root=True),
    "one's own uid map": Control("forked", "uid = os.getuid()\nos.unshare(os.CLONE_NEWUSER)\nwith open('/proc/self/uid_map', 'w') as f: f.write(f'0 {uid} 1')"),
    "the core pattern": _opens("/proc/sys/kernel/core_pattern", "os.O_WRONLY"),
    "the magic key": _opens("/proc/sysrq-trigger", "os.O_WRONLY"),
    "the number of processes": _opens("/proc/sys/kernel/pid_max", "os.O_WRONLY"),
    **dict.fromkeys(("the machine's timers", "the kernel's caches", "the kernel's addresses"), FORKED_AS_ROOT),
    **dict.fromkeys(("the user's keys by their names", "when keys are typed"), FORKED),
    "the kernel's messages by /proc": _opens("/proc/kmsg", "os.O_RDONLY"),
    "the machine's devices": Control("forked", optional=True),
    # processes
    **dict.fromkeys(
        (
            "a child of the keeper", "the parent's memory", "who else is there", "the memory of init", "the environment of init",
            "the fds of init", "ptrace the parent", "ptrace init", "signal a sibling", "stop the parent",
            "signal the parent's group", "signal everybody", "signal one's parent", "a handle's fds", "slow a sibling down",
            "slow all of the user down", "limits of a sibling", "compare processes",
        ),
        APART,
    ),
    "kill init": "the kernel keeps the init of a PID namespace from its own processes, and the machine's is not for a test to kill",
    "performance counters": FORKED_AS_ROOT,
    # network
    **dict.fromkeys(
        ("TCP to another", "TCP by IPv6", "UDP to another", "ask for a name"),
        "tests reach no other machine; that a network is there is what the attempts at this machine show",
    ),
    "UDP to this machine": Control("forked", "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n    s.connect(('127.0.0.1', W['udp']))\n    s.send(b'x')"),
    **dict.fromkeys(("a raw socket", "a packet socket", "change the network"), APART),
    "vsock, to the host of a virtual machine": Control("forked", optional=True),
    "the kernel's cryptography": Control("forked", optional=True),
    "other interfaces": Control("forked", optional=True),
    "io_uring, which goes round filters": Control("forked", optional=True),
    # privileges
    **dict.fromkeys(
        ("be root", "be of another group", "have more groups", "have capabilities again", "faults handled by oneself", "raise a limit", "type into a terminal"),
        FORKED_AS_ROOT,
    ),
    **dict.fromkeys(
        ("capabilities by executing", "no set-user-id programs", "a set-user-id program of one's own", "a filter that allows more", "the host's name"),
        APART,
    ),
    "new privileges allowed again": "no kernel allows them again to anyone",
    "the old set of calls (x32)": "most kernels have none; it is refused so that none can have it",
    "a call of no known number": "no kernel has it yet; it is refused so that none can have it",
    "the clock": "it would set this machine's clock",
    "reboot": "it would end this machine",
    "a kernel module": Control("forked", otherwise=True, root=True),
    "another kernel": "it would unload what this machine starts after a crash",
    "a program in the kernel (bpf)": Control("forked", otherwise=True, root=True),
    "the user's keys": FORKED,
    "a key for others": Control("forked", "call(248, 217, b'user', b'x', b'y', 1, -2)"),
    "paste into a console": Control("forked", otherwise=True),
    "fds of the parent's": Control("forked", f"kept = os.open(W['secret'], os.O_RDONLY)\n{_CODE["fds of the parent's"]}"),
    # calls
    "a set-user-id bit by a newer call": Control("forked", optional=True),
    "a file without a name that begins with one": Control("forked", optional=True),
    "a folder that begins with one": "mkdir(2) ignores these bits everywhere, as the attempt shows",
    "memory that not even the kernel sees": Control("forked", optional=True),
}  # fmt: skip

WITHOUT_CONTROL = {name: reason for name, reason in CONTROLS.items() if isinstance(reason, str)}


def programs(where: str, *, as_root: bool) -> dict[str, str]:
    """Return what is to be run in one of the two ways, by the escapes' names."""
    return {
        name: control.code or _CODE[name]
        for name, control in CONTROLS.items()
        if isinstance(control, Control) and control.where == where and (as_root or not control.root)
    }


def has_worked(escape: Escape, control: Control, outcome: str) -> bool:
    """Return whether the outcome of a control shows that the escape would have worked."""
    if control.otherwise:
        return outcome.partition(":")[0] not in ("ok", *escape.stopped_by)
    return outcome in ("ok", "ESCAPED")
