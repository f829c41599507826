"""What needs no feature of the kernel but old ones: rlimits, no new privileges, a session of one's own."""

import os
import resource
from typing import TYPE_CHECKING, Final

from pyrepl3_worker.confinement import in_force, syscalls

if TYPE_CHECKING:
    from pyrepl3_schemas.confinement import Confinement

_LEAST_OPEN_FILES: Final = 64
"""The worker itself needs some."""


def leave_the_parents_session() -> None:
    """Lead a session and a process group of one's own, without a terminal."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    in_force.add("own_session")


def give_up_privileges() -> None:
    """Have set-user-id programs and file capabilities mean nothing any more; leave no core dumps."""
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if syscalls.prctl(syscalls.PR_GET_NO_NEW_PRIVS) == 1:
        in_force.add("no_new_privs")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    in_force.add("no_core_dumps")


def limit(order: "Confinement") -> None:
    """Set the rlimits, soft and hard: the code can lower them, and not raise them again.

    RLIMIT_NPROC counts all processes of the user, or of the user namespace where there is one.
    """
    wanted = (
        ("max_processes", resource.RLIMIT_NPROC, order.max_processes),
        ("max_memory_bytes", resource.RLIMIT_DATA, order.max_memory_bytes),
        ("max_file_bytes", resource.RLIMIT_FSIZE, order.max_file_bytes),
        ("max_open_files", resource.RLIMIT_NOFILE, order.max_open_files),
    )
    for name, number, most in wanted:
        if most is not None:
            _set(name, number, most, most)
    if order.max_cpu_seconds is not None:
        # A second between SIGXCPU, which says what happened, and SIGKILL for who does not hear it.
        _set("max_cpu_seconds", resource.RLIMIT_CPU, order.max_cpu_seconds, order.max_cpu_seconds + 1)


def _set(name: str, number: int, soft: int, hard: int) -> None:
    if number == resource.RLIMIT_NOFILE:
        soft = hard = max(soft, _LEAST_OPEN_FILES)
    most = resource.getrlimit(number)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(number, (soft, hard))
    # The kernel counts nothing against uid 0 outside; there, only a PID namespace bounds processes.
    binds = number != resource.RLIMIT_NPROC or os.getuid() != 0
    if binds and resource.getrlimit(number) == (soft, hard):
        in_force.add_limit(name, soft)
