"""The level "strict": its steps in the order that the kernel demands, and a check of what is in force."""

from __future__ import annotations

import _socket
import os
import resource

from pyrepl3_schemas.constants import WORK_DIRECTORY
from pyrepl3_worker.confinement import (
    handover,
    in_force,
    landlock,
    mounts,
    namespaces,
    rlimits,
    seccomp,
    syscalls,
    visible_paths,
)
from pyrepl3_worker.confinement.trees import PathChangedError, Shown, open_pinned

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pyrepl3_schemas.confinement import Confinement

PROMISED: Final = (
    "files", "processes", "network", "signals", "tracing", "system_calls", "no_capabilities", "no_new_privs",
)  # fmt: skip
"""What "strict" promises; `network` only if the policy does not allow the network."""
_AF_NETLINK: Final = 16


class ConfinementUnavailableError(Exception):
    """This machine can't enforce what is required; the text says what is missing and what to do."""


class _FailedSteps:
    """The steps that failed, and why."""

    def __init__(self) -> None:
        """Start without failures."""
        self.reasons: dict[str, str] = {}

    def try_step(self, feature: str, advice: str, step: Callable[[], None]) -> bool:
        """Run a step; return whether it succeeded, and record it if the kernel refused.

        Args:
            feature: what the step does, in words.
            advice: what to do on a machine where it fails.
            step: the step; it raises OSError if the kernel refuses.
        """
        try:
            step()
        except OSError as error:
            self.reasons[feature] = f"{feature}: {error.strerror or error} ({advice})"
            return False
        return True


def confine(
    order: Confinement,
    parent: int | None,
    namespace_error: OSError | None,
    files: int | None = None,
    shown: Shown | None = None,
) -> None:
    """Confine this process, which must have only one thread.

    Args:
        order: what stays accessible.
        parent: pid of the process that started the worker, if known.
        namespace_error: why this process is not in namespaces of its own (`namespaces.enter`); None if it is.
        files: a socket for descriptors of the directories that this process sees then; None for none.
        shown: what the interpreter needs, and how it is shown; None for this interpreter.

    Raises:
        ConfinementUnavailableError: a promised feature is not in force, and the order requires it.
    """
    try:
        _confine(order, parent, namespace_error, files, shown or _shown_to_this_one(order))
    except PathChangedError as error:
        raise ConfinementUnavailableError(str(error)) from error


def _confine(
    order: Confinement,
    parent: int | None,
    namespace_error: OSError | None,
    files: int | None,
    shown: Shown,
) -> None:
    for pin in shown.pins.values():
        os.close(open_pinned(pin))
    failed = _FailedSteps()
    here = os.getcwd()
    outside = os.stat("/"), os.readlink("/proc/self/ns/net")
    view = visible_paths.find_visible_paths(
        shown.python, order.readable, order.writable, network=order.network
    )
    namespaced = failed.try_step(
        "user, mount and PID namespaces",
        "allow unprivileged user namespaces: by sysctl user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns; "
        "in a container, by its seccomp profile",
        lambda: _raise_if(namespace_error),
    )
    if namespaced:
        namespaces.limit_quotas()
    # Before /proc can only be read: settings of the network are below it.
    own_network = (
        namespaced
        and not order.network
        and failed.try_step(
            "a network of its own", "allow it by sysctl user.max_net_namespaces", namespaces.leave_network
        )
    )
    own_root = namespaced and failed.try_step(
        "a tree of files of its own",
        "the machine's /proc must be whole: in a container, run it with an unmasked /proc",
        lambda: mounts.build_root(view, shown, order.work_bytes, order.max_processes),
    )
    if own_network and order.proxied and files is not None:
        handover.hand_over_listener(files)
    if namespaced or os.geteuid() == 0:
        failed.try_step("giving up capabilities", "CAP_SETPCAP is needed for it", syscalls.drop_capabilities)
    work_directory = (
        here if visible_paths.is_below_any(here, (*view.writable, *order.readable)) else WORK_DIRECTORY
    )
    if own_root:
        os.chdir(work_directory)
        os.environ.update(HOME=WORK_DIRECTORY, TMPDIR=WORK_DIRECTORY)
        if not visible_paths.is_below_any(WORK_DIRECTORY, (*view.writable, *view.readable)):
            in_force.add_own_directory(WORK_DIRECTORY)
        if files is not None:
            handover.hand_over(files, work_directory, in_force.own_directory())
    rlimits.drop_privileges()
    failed.try_step(
        "Landlock",
        "boot with lsm=landlock,…, Linux 5.13 or newer",
        lambda: _restrict_by_landlock(order, view, shown, own_network=own_network, own_root=own_root),
    )
    failed.try_step(
        "seccomp",
        "a kernel with CONFIG_SECCOMP_FILTER",
        lambda: _install_seccomp_filter(
            order, own_network=own_network, own_root=own_root, namespaced=namespaced
        ),
    )
    _verify(order, outside, parent, namespaced=namespaced, own_root=own_root)
    absent = [
        name
        for name in PROMISED
        if name not in in_force.active() and not (name == "network" and order.network)
    ]
    if absent and order.required:
        why = "; ".join(failed.reasons.values()) or "the kernel did not do what it said"
        raise ConfinementUnavailableError(
            f"confinement 'strict' cannot be enforced here. Missing: {', '.join(absent)}. Because of {why}. "
            "Or give confinement_required=False to go on with what is left"
        )


def _shown_to_this_one(order: Confinement) -> Shown:
    """Return what is shown to a worker that confines itself, when its interpreter has started."""
    live = frozenset(path for given in order.readable for path in (given, os.path.realpath(given)))
    return Shown(tuple(visible_paths.python_paths()), live, {})


def _raise_if(error: OSError | None) -> None:
    if error is not None:
        raise error


def _restrict_by_landlock(
    order: Confinement,
    view: visible_paths.VisiblePaths,
    shown: Shown,
    *,
    own_network: bool,
    own_root: bool,
) -> None:
    # Shared mappings of /dev/zero are memory that counts as no process's, if they are writable.
    devices = [path for path in visible_paths.DEVICES if os.path.exists(path)]
    writable = [*view.writable, *(path for path in devices if path != "/dev/zero")]
    if own_root:
        # Everything in the new root may be seen; paths that a kernel bug might reveal are refused.
        readable = ["/"]
        writable += [WORK_DIRECTORY, "/dev/shm", "/dev/pts"]  # noqa: S108 - in its own root
    else:
        # Each Landlock domain hides what is secret in /proc (memory, environment, fds) from other domains.
        readable = [*view.readable, *(path for path, _ in view.links), *devices, "/proc"]
    ports_closed = not order.network and not own_network
    # Outside of a root of its own, what is pinned is what was opened, wherever its path leads by now.
    opened = {} if own_root else {path: pin.fd for path, pin in shown.pins.items()}
    rules = landlock.LandlockRules(
        [opened.get(path, path) for path in readable],
        [opened.get(path, path) for path in writable],
        ports_closed=ports_closed,
        scoped=True,
    )
    for name in landlock.restrict(rules):
        in_force.add(f"landlock_{name}")


def _install_seccomp_filter(
    order: Confinement, *, own_network: bool, own_root: bool, namespaced: bool
) -> None:
    families: set[int] = set(seccomp.PRIVATE_FAMILIES if order.network or own_network else ())
    if order.network:
        families.add(_AF_NETLINK)
    if order.writable or order.readable or not own_root:
        # These are the machine's folders: sockets of its programs may lie there, which nothing else refuses.
        families.discard(seccomp.AF_UNIX)  # pairs are allowed
    seccomp.install_filter(sorted(families))
    if not namespaced:
        seccomp.leave_other_processes_alone()
    if not own_root:
        seccomp.leave_files_as_they_are()


def _verify(
    order: Confinement,
    outside: tuple[os.stat_result, str],
    parent: int | None,
    *,
    namespaced: bool,
    own_root: bool,
) -> None:
    """Check from inside which features are in force, and add those to `in_force`."""
    root, network = outside
    # UTF-8, whose codec is there from the start: no other may be in reach any more.
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    if status["Seccomp"].strip() == "2":
        in_force.add("system_calls")
    if all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")):
        in_force.add("no_capabilities")
    active = set(in_force.active())
    outside_pid = parent or 1
    only_own_processes = namespaced and own_root and _visible_processes() == {1, os.getpid()}
    if own_root:
        files = not os.path.samestat(root, os.stat("/"))
    else:
        # No such file: only a filter answers that it is not permitted.
        files = (
            "landlock_files" in active
            and _is_refused(lambda: os.listdir("/"))
            and _is_refused(lambda: os.chmod("", 0))
        )
    facts = (
        ("files", files),
        ("processes", only_own_processes),
        (
            "network",
            (namespaced and os.readlink("/proc/self/ns/net") != network)
            or ("system_calls" in active and _is_refused(_open_datagram_socket)),
        ),
        ("host_network", order.network and os.readlink("/proc/self/ns/net") == network),
        (
            "signals",
            only_own_processes
            or (
                "landlock_signals" in active
                and _is_refused(lambda: os.kill(outside_pid, 0))
                and _is_refused(lambda: resource.prlimit(outside_pid, resource.RLIMIT_CPU))
            ),
        ),
        (
            "tracing",
            only_own_processes
            or ("landlock_files" in active and _is_refused(lambda: _read_memory(outside_pid))),
        ),
    )
    in_force.add(*(name for name, holds in facts if holds))


def _visible_processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _is_refused(operation: Callable[[], object]) -> bool:
    try:
        operation()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _open_datagram_socket() -> None:
    _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM).close()


def _read_memory(pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
