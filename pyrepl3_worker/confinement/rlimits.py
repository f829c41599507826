"""Confinement that every kernel has: rlimits, no new privileges, no core dumps, a session of its own."""

from __future__ import annotations

import errno
import os
import resource

from pyrepl3_worker.confinement import in_force, syscalls

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from typing import Final

    from pyrepl3_schemas.confinement import Confinement
    from pyrepl3_schemas.messages import Adjustments

_MIN_OPEN_FILES: Final = 64
"""The worker itself needs some."""
_COUNTABLE_MEMORY: Final = "countable_memory"


def start_own_session() -> None:
    """Make this process the leader of its own session and process group, without a terminal."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    in_force.add("own_session")


def drop_privileges() -> None:
    """Make set-user-id programs and file capabilities ineffective from now on; disable core dumps."""
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if syscalls.prctl(syscalls.PR_GET_NO_NEW_PRIVS) == 1:
        in_force.add("no_new_privs")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    in_force.add("no_core_dumps")


def set_rlimits(order: Confinement | Adjustments) -> None:
    """Set the order's rlimits, soft and hard: the user's code can lower them, but not raise them.

    RLIMIT_NPROC counts all processes of the user, or those of the user namespace if there is one.
    """
    wanted = (
        ("max_processes", resource.RLIMIT_NPROC, order.max_processes),
        ("max_memory_bytes", resource.RLIMIT_DATA, order.max_memory_bytes),
        ("max_file_bytes", resource.RLIMIT_FSIZE, order.max_file_bytes),
        ("max_open_files", resource.RLIMIT_NOFILE, order.max_open_files),
    )
    for name, number, value in wanted:
        if value is not None:
            _set_rlimit(name, number, value, value)
    if order.max_memory_bytes is not None and "system_calls" in in_force.active():
        _have_memory_counted()
    if order.max_cpu_seconds is not None:
        # SIGXCPU, which tells the cause; and SIGKILL a second later, for a process that ignores it.
        _set_rlimit("max_cpu_seconds", resource.RLIMIT_CPU, order.max_cpu_seconds, order.max_cpu_seconds + 1)


def _have_memory_counted() -> None:
    """Refuse memory that the client, which adds up what a worker's processes hold, cannot see."""
    if _COUNTABLE_MEMORY in in_force.active():
        return
    from pyrepl3_worker.confinement import seccomp

    seccomp.refuse_uncountable_memory()
    try:
        os.close(os.memfd_create("probe"))
    except OSError as error:
        if error.errno == errno.ENOMEM:
            in_force.add(_COUNTABLE_MEMORY)


def _set_rlimit(name: str, number: int, soft: int, hard: int) -> None:
    if number == resource.RLIMIT_NOFILE:
        soft = hard = max(soft, _MIN_OPEN_FILES)
    value = resource.getrlimit(number)[1]
    if value != resource.RLIM_INFINITY:
        soft, hard = min(soft, value), min(hard, value)
    resource.setrlimit(number, (soft, hard))
    # The kernel does not limit uid 0 of the machine; for it, only a PID namespace limits processes.
    binds = number != resource.RLIMIT_NPROC or os.getuid() != 0
    if binds and resource.getrlimit(number) == (soft, hard):
        in_force.add_limit(name, soft)
