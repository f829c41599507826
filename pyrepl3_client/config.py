"""How workers are started and how patiently they are ended."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, SupportsFloat, get_args

from pyrepl3_schemas.confinement import DEFAULT_MAX_PROCESSES, DEFAULT_WORK_BYTES, Level
from pyrepl3_schemas.constants import MAX_ID_CHARS
from pyrepl3_schemas.executor_config import MAX_SECONDS, ExecutorConfig, as_float, as_int

_MAX_LIMIT: Final = 2**62
_MIN_WORK_BYTES: Final = 64 * 1024
_MAX_PORT: Final = 65535


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
            if not 0 < port <= _MAX_PORT:
                raise ValueError(f"tcp_ports holds {port!r}, which is no port (1 to {_MAX_PORT})")
        if self.network and self.tcp_ports:
            raise ValueError("tcp_ports narrows the network that network=True opens: give one of them")
        object.__setattr__(self, "work_bytes", as_int("work_bytes", self.work_bytes))
        if not _MIN_WORK_BYTES <= self.work_bytes <= _MAX_LIMIT:
            raise ValueError(
                f"work_bytes must be between {_MIN_WORK_BYTES} and {_MAX_LIMIT}, not {self.work_bytes!r}"
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
            if not 0 < value <= _MAX_LIMIT:
                raise ValueError(f"{name} must be None, or above 0 and at most {_MAX_LIMIT}, not {value!r}")


def max_strict_processes(limits: ResourceLimits) -> int:
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


__all__ = ["ExecutorConfig", "ResourceLimits", "SandboxPolicy", "WorkerConfig"]

_FIELD_TYPES: Final[dict[str, type]] = {
    "executor": ExecutorConfig,
    "python": str,
    "sandbox": SandboxPolicy,
    "limits": ResourceLimits,
    "confinement_required": bool,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """What a session's worker is: its interpreter, its surroundings, its limits. Times in seconds.

    Raises:
        ValueError: a figure or a name means nothing; names the field and the value.
        TypeError: a value is of a wrong type; names both too.
    """

    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    """Limits and choices of the code's execution."""
    python: str = sys.executable
    """Path of the interpreter; `pyrepl3_worker` has to be importable there."""
    cwd: str | None = None
    """Directory the worker starts in; None is the parent's."""
    env: Mapping[str, str] | None = None
    """Environment variables on top of the parent's (of those of them that hold no secret, if confined)."""
    confinement: Level = "limits"
    """How far the operating system bounds the worker: "none", "limits" or "strict". See `Session.worker`."""
    sandbox: SandboxPolicy = field(default_factory=SandboxPolicy)
    """What "strict" leaves within reach."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    """What the worker's processes may use; only if confined."""
    confinement_required: bool = True
    """Whether a machine that can't enforce "strict" gets no worker (SpawnError), or one less confined."""
    warm: tuple[str, ...] = ()
    """Modules to import before the worker is ready."""
    spawn_timeout: float = 30.0
    """How long a worker may take to get ready, warm modules included."""
    cancel_grace: float = 2.0
    """How long cancelled code may take to end before it is raised out of at every line."""
    kill_grace: float = 2.0
    """How long it may take after that, before the worker is killed."""
    stall_timeout: float | None = 30.0
    """How long the worker may stop in the middle of a message (or send less of it than 64 KiB) before it is
    killed; None lets it stop for ever. What we did not read meanwhile is not held against it. One that is
    stopped just then by somebody else (SIGSTOP, a debugger) is killed too: nobody can tell why it stopped."""
    max_checkpoint_bytes: int = 8 * 1024**3
    """Bytes that one checkpoint may bring, in all its parts, before the worker is killed."""
    close_grace: float = 2.0
    """How long a session's end may take, in the worker and in host functions, before it is forced."""

    def __post_init__(self) -> None:
        """Refuse what could not work."""
        for name, kind in _FIELD_TYPES.items():
            value: object = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}")
        if not self.python:
            raise ValueError("python must be the path of an interpreter, not an empty string")
        for name in ("spawn_timeout", "cancel_grace", "kill_grace", "close_grace"):
            seconds = as_float(name, getattr(self, name))
            if not 0 <= seconds <= MAX_SECONDS or (name == "spawn_timeout" and seconds == 0):
                raise ValueError(f"{name} must be a finite number of seconds, not {seconds!r}")
            object.__setattr__(self, name, seconds)
        if self.stall_timeout is not None:
            object.__setattr__(self, "stall_timeout", checked_seconds("stall_timeout", self.stall_timeout))
        object.__setattr__(
            self, "max_checkpoint_bytes", as_int("max_checkpoint_bytes", self.max_checkpoint_bytes)
        )
        if self.max_checkpoint_bytes < 1:
            raise ValueError(f"max_checkpoint_bytes must be at least 1, not {self.max_checkpoint_bytes!r}")
        object.__setattr__(self, "warm", checked_modules(self.warm))
        self._check_confinement()
        self._check_env()

    def _check_env(self) -> None:
        env: Any = self.env
        if env is not None and not isinstance(env, Mapping):
            raise TypeError(f"env must be a mapping of strings to strings, not {env!r}")
        for key, value in (self.env or {}).items():
            if not (isinstance(key, str) and isinstance(value, str)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
                raise TypeError(f"env must hold strings, not {key!r}={value!r}")
            if not key or "=" in key or "\0" in key + value:
                raise ValueError(f"env cannot hold {key!r}={value!r}")

    def _check_confinement(self) -> None:
        levels = get_args(Level.__value__)
        if self.confinement not in levels:
            raise ValueError(f"confinement must be one of {', '.join(levels)}, not {self.confinement!r}")
        if self.confinement != "strict" and self.sandbox != SandboxPolicy():
            raise ValueError(
                f"sandbox is for confinement 'strict'; {self.confinement!r} would not keep to it"
            )
        if self.confinement == "none" and self.limits != ResourceLimits():
            raise ValueError(
                "limits are for confinement 'limits' and 'strict'; 'none' would not keep to them"
            )


def checked_seconds(what: str, value: SupportsFloat) -> float:
    """Give a duration as a number that travels, and that timers can take.

    Raises:
        ValueError: it is not above 0, or above MAX_SECONDS; names `what`.
        TypeError: it is no number.
    """
    seconds = as_float(what, value)
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{what} must be a positive number of seconds or None, not {value!r}")
    return seconds


def checked_modules(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Give module names as a tuple.

    Raises:
        ValueError: one is no dotted name.
        TypeError: a single string was given for many, or something that is no string.
    """
    if isinstance(names, str):
        raise TypeError(f"warm must be a tuple of module names, not the string {names!r}")
    for name in names:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"warm must be a tuple of module names; it holds {name!r}")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"warm holds {name!r}, which is no module's name")
    return tuple(names)


def checked_id(what: str, value: str) -> str:
    """Give an id as it is.

    Raises:
        ValueError: it is empty, too long, or holds a colon, which separates ids in keys of calls and inputs.
    """
    if not isinstance(value, str) or not value or ":" in value:  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise ValueError(f"{what} must be a string that is not empty and has no colon, not {value!r}")
    if len(value) > MAX_ID_CHARS:
        raise ValueError(f"{what} has {len(value):,} characters; {MAX_ID_CHARS} is the most")
    return value
