"""What a confined worker may reach and use, as its owner says it."""

import os
from dataclasses import dataclass
from typing import Final

from pyrepl3_schemas.config import as_int
from pyrepl3_schemas.confinement import DEFAULT_MAX_PROCESSES, DEFAULT_WORK_BYTES

_MOST: Final = 2**62
_LEAST_WORK_BYTES: Final = 64 * 1024
_MOST_PORT: Final = 65535


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxPolicy:
    """What confinement "strict" leaves within reach besides Python, its packages and a work directory.

    Raises:
        ValueError: a path is not absolute, or a figure means nothing.
        TypeError: a figure is no whole number.

    Example:
        WorkerConfig(
            confinement="strict",
            sandbox=SandboxPolicy(readable=("/data",), writable=("/results",), tcp_ports=(443, 53)),
        )
    """

    readable: tuple[str, ...] = ()
    """Absolute paths, with all below them, that the code may read and execute."""
    writable: tuple[str, ...] = ()
    """Absolute paths, with all below them, that it may also write to."""
    network: bool = False
    """True: the network, as the worker's user can use it. False: one of its own, with nobody else in it."""
    tcp_ports: tuple[int, ...] = ()
    """Ports, of any host (this machine too), to which it may connect by TCP. Names need port 53 besides."""
    work_bytes: int = DEFAULT_WORK_BYTES
    """Bytes that its work directory, and /dev/shm, may each hold. Both are memory, gone with the worker."""

    def __post_init__(self) -> None:
        """Refuse what could not be enforced."""
        for name in ("readable", "writable"):
            object.__setattr__(self, name, checked_paths(name, getattr(self, name)))
        object.__setattr__(self, "tcp_ports", tuple(as_int("tcp_ports", port) for port in self.tcp_ports))
        for port in self.tcp_ports:
            if not 0 < port <= _MOST_PORT:
                raise ValueError(f"tcp_ports holds {port!r}, which is no port (1 to {_MOST_PORT})")
        if self.network and self.tcp_ports:
            raise ValueError("tcp_ports narrows the network that network=True opens: give one of them")
        object.__setattr__(self, "work_bytes", as_int("work_bytes", self.work_bytes))
        if not _LEAST_WORK_BYTES <= self.work_bytes <= _MOST:
            raise ValueError(
                f"work_bytes must be between {_LEAST_WORK_BYTES} and {_MOST}, not {self.work_bytes!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceLimits:
    """What a worker and all the processes that it starts may use, together. `None` is no limit.

    Memory and CPU time are bounded twice. The kernel bounds each process, at once: the code sees a
    MemoryError, or the process dies of SIGXCPU. And the parent adds up the whole tree: every 0.1 seconds
    while code runs or the worker has children, at least every 2 seconds else, and never if neither figure
    is given. A tree over its limit is killed with the worker, which comes back as after any death; the cell
    that ran is tried once more, and then ends as a WorkerDied that names the limit.

    So between two looks a tree may exceed its limit, by what it can touch or compute in 0.1 s (2 s if it is
    started by an idle worker's thread; longer where a look takes over 10 ms, as at 100 processes, and while
    the parent's loop is held up). Under
    "limits" a process that left the session and lost its parent between two looks is not seen any more;
    under "strict" none is missed. Files in memory (memfd, /dev/shm) count as far as they are mapped.

    Raises:
        ValueError: a figure means nothing; names it.
        TypeError: a figure is no whole number.
    """

    max_processes: int | None = None
    """Processes and threads at once. Under "strict" of this worker, and 512 by default (where its user is
    uid 0 outside, at least 300); else of its user, all told (RLIMIT_NPROC, which does not bind uid 0)."""
    max_memory_bytes: int | None = None
    """Private writable memory of each process (RLIMIT_DATA), and anonymous and shared memory of all together,
    a page that several share counting once (Pss of proc(5))."""
    max_cpu_seconds: int | None = None
    """CPU time in the worker's life: of each process (RLIMIT_CPU), and of all together, those that have ended
    included."""
    max_open_files: int | None = None
    """Open files of each process (RLIMIT_NOFILE), at least 64; all have that times `max_processes`."""
    max_file_bytes: int | None = None
    """Bytes of any one file written (RLIMIT_FSIZE); of all files of a "strict" worker, `work_bytes`."""

    def __post_init__(self) -> None:
        """Refuse figures that mean nothing."""
        for name in self.__slots__:
            value: int | None = getattr(self, name)
            if value is None:
                continue
            object.__setattr__(self, name, as_int(name, value))
            if not 0 < value <= _MOST:
                raise ValueError(f"{name} must be None, or above 0 and at most {_MOST}, not {value!r}")


def strict_processes(limits: ResourceLimits) -> int:
    """Give how many processes a strictly confined worker may have: never any number."""
    return DEFAULT_MAX_PROCESSES if limits.max_processes is None else limits.max_processes


def checked_paths(name: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Give paths in their normal form.

    Raises:
        ValueError: one is not absolute, holds a NUL, or is the root, which would be no confinement.
        TypeError: a single string was given for many.
    """
    if isinstance(paths, str):
        raise TypeError(f"{name} must be a tuple of paths, not the string {paths!r}")
    normal = tuple(os.path.normpath(os.fspath(path)) for path in paths)
    for path in normal:
        if not os.path.isabs(path) or "\0" in path or path.strip("/") == "":
            raise ValueError(f"{name} holds {path!r}; give absolute paths below the root")
    return normal
