"""Everything of "strict", in the order in which the kernel lets it be done, and a look at the result."""

import os
from collections.abc import Callable
from typing import Final

from pyrepl3_schemas.confinement import WORK_DIRECTORY, Confinement
from pyrepl3_worker.confinement import (
    in_force,
    landlock,
    mounts,
    namespaces,
    rlimits,
    seccomp,
    syscalls,
    visible_paths,
)

REQUIRED: Final = (
    "files", "processes", "network", "signals", "tracing", "system_calls", "no_capabilities", "no_new_privs",
)  # fmt: skip
"""What "strict" promises. `network` is left out where the policy allows it."""
_AF_NETLINK: Final = 16


class RefusedError(Exception):
    """This machine can't do what is required; the text says what is missing and what to do."""


class _Missing:
    """What could not be done, and why."""

    def __init__(self) -> None:
        """Nothing is missing."""
        self.reasons: dict[str, str] = {}

    def attempt(self, feature: str, advice: str, step: Callable[[], None]) -> bool:
        """Do something; note it if the kernel refuses."""
        try:
            step()
        except OSError as error:
            self.reasons[feature] = f"{feature}: {error.strerror or error} ({advice})"
            return False
        return True


def confine(order: Confinement, parent: int | None, refusal: OSError | None) -> None:
    """Put this process, of one thread, behind the boundary.

    Args:
        order: what is within reach.
        parent: the process that started the worker.
        refusal: why this process is not in namespaces of its own, if it isn't (`namespaces.enter`).

    Raises:
        RefusedError: something of it is not to be had, and is required.
    """
    missing = _Missing()
    here = os.getcwd()
    outside = os.stat("/"), os.readlink("/proc/self/ns/net")
    networked = order.network or bool(order.tcp_ports)
    view = visible_paths.view(order.readable, order.writable, network=networked)
    apart = missing.attempt(
        "user, mount and PID namespaces",
        "allow unprivileged user namespaces: by sysctl user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns; "
        "in a container, by its seccomp profile",
        lambda: _accept(refusal),
    )
    rooted = apart and missing.attempt(
        "a tree of files of its own",
        "the machine's /proc must be whole: in a container, run it with an unmasked /proc",
        lambda: mounts.build(view, order.work_bytes, order.max_processes),
    )
    if apart and not networked:
        missing.attempt(
            "a network of its own", "allow it by sysctl user.max_net_namespaces", namespaces.leave_network
        )
    if apart or os.geteuid() == 0:
        missing.attempt("giving up capabilities", "CAP_SETPCAP is needed for it", syscalls.drop_capabilities)
    kept = here if view.shows(here, (*view.writable, *order.readable)) else WORK_DIRECTORY
    if rooted:
        os.chdir(kept)
        os.environ.update(HOME=WORK_DIRECTORY, TMPDIR=WORK_DIRECTORY)
    rlimits.give_up_privileges()
    if order.tcp_ports and not order.network:
        os.environ["RES_OPTIONS"] = "use-vc"  # names are asked for by TCP, at port 53
    missing.attempt(
        "Landlock",
        "boot with lsm=landlock,…, Linux 5.13 or newer",
        lambda: _landlock(order, view, apart=apart, rooted=rooted),
    )
    missing.attempt("seccomp", "a kernel with CONFIG_SECCOMP_FILTER", lambda: _seccomp(order, apart=apart))
    _report(order, outside, parent, apart=apart, rooted=rooted)
    left = [
        name
        for name in REQUIRED
        if name not in in_force.active() and not (name == "network" and order.network)
    ]
    if left and order.required:
        why = "; ".join(missing.reasons.values()) or "the kernel did not do what it said"
        raise RefusedError(
            f"confinement 'strict' cannot be enforced here. Missing: {', '.join(left)}. Because of {why}. "
            "Or give confinement_required=False to go on with what is left"
        )


def _accept(refusal: OSError | None) -> None:
    if refusal is not None:
        raise refusal


def _landlock(order: Confinement, view: visible_paths.VisiblePaths, *, apart: bool, rooted: bool) -> None:
    writable = [*view.writable, *(path for path in visible_paths.DEVICES if os.path.exists(path))]
    if rooted:
        # All that is there is meant to be seen; what the kernel may yet let slip in is not.
        readable = ["/"]
        writable += [WORK_DIRECTORY, "/dev/shm", "/dev/pts"]  # noqa: S108 - its own
    else:
        # Every domain closes what is secret in /proc (memory, environment, fds) to those of others.
        readable = [*view.readable, *(path for path, _ in view.links), "/proc"]
    private = apart and not order.tcp_ports
    ports = None if order.network or private else order.tcp_ports
    access = landlock.LandlockRules(readable, writable, ports, scoped=True)
    for name in landlock.restrict(access):
        in_force.add(f"landlock_{name}")


def _seccomp(order: Confinement, *, apart: bool) -> None:
    if order.network:
        seccomp.install((*seccomp.PRIVATE, _AF_NETLINK), streams_only=False)
    elif order.tcp_ports:
        seccomp.install(seccomp.OUTSIDE_TCP, streams_only=True)
    elif apart:
        seccomp.install(seccomp.PRIVATE, streams_only=False)
    else:
        seccomp.install((), streams_only=True)


def _report(
    order: Confinement, outside: tuple[os.stat_result, str], parent: int | None, *, apart: bool, rooted: bool
) -> None:
    """Look from inside at what holds, and have `ready` tell."""
    root, network = outside
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    if status["Seccomp"].strip() == "2":
        in_force.add("system_calls")
    if all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")):
        in_force.add("no_capabilities")
    walled = set(in_force.active())
    stranger = parent or 1
    alone = apart and rooted and _processes() == {1, os.getpid()}
    if rooted:
        files = not os.path.samestat(root, os.stat("/"))
    else:
        files = "landlock_files" in walled and _refused(lambda: os.listdir("/"))
    facts = (
        ("files", files),
        ("processes", alone),
        (
            "network",
            (apart and os.readlink("/proc/self/ns/net") != network)
            or (
                "system_calls" in walled
                and _refused(_open_datagram_socket)
                and (not order.tcp_ports or "landlock_tcp" in walled)
            ),
        ),
        ("signals", alone or ("landlock_signals" in walled and _refused(lambda: os.kill(stranger, 0)))),
        ("tracing", alone or ("landlock_files" in walled and _refused(lambda: _read_memory(stranger)))),
    )
    in_force.add(*(name for name, holds in facts if holds))


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _refused(deed: Callable[[], object]) -> bool:
    try:
        deed()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _open_datagram_socket() -> None:
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


def _read_memory(pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
