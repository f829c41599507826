"""Cloner: a fork whose child is a child of this process's parent.

`fork` would make the fork server every worker's parent: it alone could learn how a worker ended, and a
worker would be orphaned with its fork server. With CLONE_PARENT the client, which started that, is
the worker's parent as if it had spawned it: it waits for it, and PR_SET_PDEATHSIG ties the one to the
other. glibc has no function for that, so what its `fork` does for a process with a single thread is done
here: the thread's id in its control block (by CLONE_CHILD_SETTID), the list of robust mutexes. The rest
of `fork` is for other threads. Handlers of pthread_atfork do not run; libraries that need them have
threads (see `fork_safety`) or, like OpenSSL 3, look at the pid besides.

Python's own half (its locks, its ids, os.register_at_fork) is called by its public names, which exist
for "fork() or any similar function that clones the current process".
"""

from __future__ import annotations

import ctypes
import os
import signal

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from typing import Final

_CLONE_PARENT: Final = 0x00008000
_CLONE_CHILD_CLEARTID: Final = 0x00200000
_CLONE_CHILD_SETTID: Final = 0x01000000
_PR_GET_TID_ADDRESS: Final = 40
_PR_SET_DUMPABLE: Final = 4


class _SyscallNumbers:
    """Numbers of system calls."""

    def __init__(self, clone: int, get_robust_list: int, set_robust_list: int) -> None:
        """Keep the numbers."""
        self.clone = clone
        self.get_robust_list = get_robust_list
        self.set_robust_list = set_robust_list


_SYSCALL_NUMBERS: Final = {
    "x86_64": _SyscallNumbers(56, 274, 273),
    "aarch64": _SyscallNumbers(220, 100, 99),
    "riscv64": _SyscallNumbers(220, 100, 99),
}
"""clone and not clone3, which container runtimes refuse since they can't see its flags."""


class CannotCloneError(Exception):
    """The kernel or the C library lacks something that cloning needs; the message names it."""


def set_traceable(*, traceable: bool) -> None:
    """Let other processes of the same user trace this one and write its memory, or only root."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(traceable), 0, 0, 0)


class Cloner:
    """Clones this process, which must have only one thread."""

    def __init__(self) -> None:
        """Find out what the kernel and the C library offer.

        Raises:
            CannotCloneError: something is missing.
        """
        machine = os.uname().machine
        calls = _SYSCALL_NUMBERS.get(machine)
        if calls is None:
            raise CannotCloneError(f"forking workers is not known to work on {machine}")
        self._numbers = calls
        self._signals = signal.valid_signals()
        # Holding the GIL: between the calls that surround the fork no Python code may run.
        self._libc = ctypes.PyDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        self._tid = ctypes.c_void_p()
        self._robust = ctypes.c_void_p()
        self._robust_size = ctypes.c_size_t()
        if (
            self._libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(self._tid), 0, 0, 0) != 0
            or not self._tid.value
        ):
            raise CannotCloneError("the kernel does not tell where the C library keeps its thread's id")
        if ctypes.c_int.from_address(self._tid.value).value != os.getpid():
            raise CannotCloneError("the C library keeps its thread's id at an unknown place")
        if self._syscall(calls.get_robust_list, 0, self._robust, self._robust_size) != 0:
            raise CannotCloneError("the kernel does not tell of robust mutexes")

    def clone(self) -> int:
        """Fork; return 0 in the child, and the child's pid in this process.

        Raises:
            OSError: there is no room for another process.
        """
        flags = _CLONE_PARENT | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
        # x86-64 takes the id's address in the fourth place and what would be the thread's storage in the
        # fifth, the others the other way round; whichever is the storage is not looked at.
        arguments = tuple(ctypes.c_long(number) for number in (self._numbers.clone, flags, 0, 0))
        api = ctypes.pythonapi
        # A handler in Python must not run between the halves.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        try:
            api.PyOS_BeforeFork()
            pid = self._libc.syscall(*arguments, self._tid, self._tid)
            if pid == 0:
                api.PyOS_AfterFork_Child()
                self._register_robust_list()
                return 0
            number = ctypes.get_errno()
            api.PyOS_AfterFork_Parent()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if pid < 0:
            raise OSError(number, os.strerror(number))
        return pid

    def _register_robust_list(self) -> None:
        """Register the list of robust mutexes, which a clone begins without."""
        self._libc.syscall(ctypes.c_long(self._numbers.set_robust_list), self._robust, self._robust_size)

    def _syscall(self, number: int, pid: int, head: ctypes.c_void_p, size: ctypes.c_size_t) -> int:
        return self._libc.syscall(
            ctypes.c_long(number), ctypes.c_long(pid), ctypes.byref(head), ctypes.byref(size)
        )
