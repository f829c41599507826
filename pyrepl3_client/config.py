"""The configuration of a worker: interpreter, confinement, resource limits and timeouts.

WorkerConfig      everything that a session's worker is started with
ExecutorConfig    limits of the code's execution inside the worker (defined in `pyrepl3_schemas`)
SandboxPolicy     what confinement "strict" leaves accessible
ResourceLimits    what a worker and its processes may use

The `checked_…` functions validate values here and in the arguments of sessions.
"""

import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, Self, SupportsFloat, get_args

from pyrepl3_client._host_rules import MAX_PORT, HostRule, parse_rules
from pyrepl3_schemas.confinement import DEFAULT_MAX_PROCESSES, DEFAULT_WORK_BYTES, Level
from pyrepl3_schemas.constants import MAX_ID_CHARS
from pyrepl3_schemas.executor_config import MAX_SECONDS, ExecutorConfig, as_float, as_int, shown
from pyrepl3_schemas.field_types import ReportPart

__all__ = ["ExecutorConfig", "ResourceLimits", "SandboxPolicy", "WorkerConfig"]

type ErrorDetail = Literal["shown", "masked"]

MAX_LIMIT: Final = 2**62
_MIN_SPILL_BYTES: Final = 1024 * 1024
_MIN_STORE_BYTES: Final = 64 * 1024
_MIN_WORK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxPolicy:
    """What confinement "strict" leaves accessible besides Python, its packages and a work directory.

    Raises:
        ValueError: a path is not absolute, a rule is not of its form, or a number is out of its range.
        TypeError: a number is not a whole number, or a single text stands where several are wanted.

    Example:
        WorkerConfig(
            confinement="strict",
            sandbox=SandboxPolicy(readable=("/data",), writable=("/results",), hosts=("pypi.org:443",)),
        )
    """

    readable: tuple[str, ...] = ()
    """Absolute paths that the code may read and execute, with everything below them."""
    writable: tuple[str, ...] = ()
    """Absolute paths that the code may also write to, with everything below them."""
    network: bool | Literal["all"] = False
    """True, or "all": the code may use this machine's network as the worker's user can, with all it reaches.

    False: the code has a network of its own, from which it reaches what `hosts` and `tcp_ports` allow."""
    hosts: tuple[str, ...] = ()
    """What the code may reach through an HTTP proxy in this program, which its environment names.

    Rules: "pypi.org:443"; "pypi.org" (port 443); "*.example.org:443" for all names below one; "*:443" for
    any public host. What is at an address that is not public (this machine, its networks) is refused, unless
    a rule names that address or its range too: "10.1.2.3:8080", "10.0.0.0/8:443", "[fd00::1]:443". With
    methods, "GET,HEAD example.org:80", a rule allows these by plain HTTP alone. See docs/network.md."""
    tcp_ports: tuple[int, ...] = ()
    """Ports (1 to 65535) of any public host, by the proxy: 443 stands for the rule "*:443" in `hosts`."""
    work_bytes: int = DEFAULT_WORK_BYTES
    """Bytes that the work directory may hold, and as many that /dev/shm may hold; 256 MiB by default.

    Both are in memory. Checkpoints hold the work directory; /dev/shm ends with the worker. 64 KiB or more."""

    def __post_init__(self) -> None:
        """Validate the values and bring them into their normal form."""
        for name in ("readable", "writable"):
            object.__setattr__(self, name, checked_paths(name, getattr(self, name)))
        object.__setattr__(self, "network", self.network == "all" or checked_bool("network", self.network))
        object.__setattr__(self, "hosts", tuple(map(str, parse_rules("hosts", self.hosts))))
        if isinstance(self.tcp_ports, str | bytes) or not isinstance(self.tcp_ports, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
            raise TypeError(f"tcp_ports must be a tuple of ports, not {shown(self.tcp_ports)}")
        object.__setattr__(self, "tcp_ports", tuple(as_int("tcp_ports", port) for port in self.tcp_ports))
        for port in self.tcp_ports:
            if not 0 < port <= MAX_PORT:
                raise ValueError(f"tcp_ports holds {shown(port)}, which is no port (1 to {MAX_PORT})")
        for name in ("hosts", "tcp_ports"):
            if self.network and getattr(self, name):
                raise ValueError(f"{name} narrows the network that network=True opens: give one of them")
        object.__setattr__(self, "work_bytes", as_int("work_bytes", self.work_bytes))
        if not _MIN_WORK_BYTES <= self.work_bytes <= MAX_LIMIT:
            raise ValueError(
                f"work_bytes must be between {_MIN_WORK_BYTES} and {MAX_LIMIT}, not {shown(self.work_bytes)}"
            )

    @property
    def host_rules(self) -> tuple[HostRule, ...]:
        """What `hosts` and `tcp_ports` allow; empty if nothing of the network is reached by a proxy."""
        return parse_rules("hosts", (*self.hosts, *(f"*:{port}" for port in self.tcp_ports)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceLimits:
    """What a worker and all the processes that it starts may use, together. `None` means no limit.

    Memory and CPU time are limited twice. The kernel limits each process, at once: the code sees a
    MemoryError, or the process is killed by SIGXCPU. And the parent process adds up the whole process tree:
    every 0.1 seconds while code runs or the worker has children, at least every 2 seconds otherwise, and
    never if neither limit is set. A tree over its limit is killed with the worker, which is replaced as
    after any death; the execution that ran is not run again, and ends as a WorkerDied that names the limit.

    So between two measurements a tree may exceed its limit, by what it can touch or compute in 0.1 s (2 s if
    it is started by a thread of an idle worker; longer where a measurement takes over 10 ms, as for 100
    processes, and while the parent's event loop is blocked). Under "limits", a process that left the
    worker's session and lost its parent between two measurements is not counted any more; under "strict"
    none is missed. Files in memory (memfd, /dev/shm) count as far as they are mapped; with a limit of memory,
    strict sessions have none but those of /tmp and /dev/shm.

    Raises:
        ValueError: a limit is not above 0; names it.
        TypeError: a limit is not a whole number.
    """

    max_processes: int | None = None
    """Processes and threads at the same time.

    Under "strict" it counts this worker's, 512 by default (at least 300 where the worker's user is uid 0
    outside). Otherwise it counts all processes of the worker's user on this machine (RLIMIT_NPROC, which
    does not limit uid 0)."""
    max_memory_bytes: int | None = None
    """Bytes of memory: private writable memory of each process (RLIMIT_DATA), and anonymous and shared memory
    of all together, where a page that several processes share counts once (Pss of proc(5))."""
    max_cpu_seconds: int | None = None
    """Seconds of CPU time in the worker's life: of each process (RLIMIT_CPU), and of all together, with those
    that have ended."""
    max_open_files: int | None = None
    """Open files of each process (RLIMIT_NOFILE), at least 64. All together may have that times
    `max_processes`."""
    max_file_bytes: int | None = None
    """Bytes of each file that is written (RLIMIT_FSIZE). Under "strict", `work_bytes` limits all files."""

    def __post_init__(self) -> None:
        """Validate the limits."""
        for name in self.__slots__:
            value: int | None = getattr(self, name)
            if value is None:
                continue
            object.__setattr__(self, name, as_int(name, value))
            if not 0 < value <= MAX_LIMIT:
                raise ValueError(
                    f"{name} must be None, or above 0 and at most {MAX_LIMIT}, not {shown(value)}"
                )


def max_strict_processes(limits: ResourceLimits) -> int:
    """Return how many processes and threads a strictly confined worker may have: there is always a limit.

    Args:
        limits: the configured limits; `max_processes=None` stands for 512.
    """
    return DEFAULT_MAX_PROCESSES if limits.max_processes is None else limits.max_processes


UNTRUSTED_LIMITS: Final = ResourceLimits(
    max_processes=64,
    max_memory_bytes=2 * 1024**3,
    max_cpu_seconds=3600,
    max_open_files=1024,
    max_file_bytes=1024**3,
)
"""What code that is not trusted may use: enough for data work, and far below what a machine has."""
UNTRUSTED_EXECUTOR: Final = ExecutorConfig(
    max_execution_time=300.0, max_output_bytes=16 * 1024**2, max_display_bytes=32 * 1024**2
)
"""What its executions may take, and what is kept of their output."""
UNTRUSTED_CHECKPOINT_BYTES: Final = 3 * 1024**3
"""Bytes of one of its checkpoints: all its memory and its work directory fit."""
UNTRUSTED_STORE_BYTES: Final = 6 * 1024**3
"""Bytes that it may have on record: two such checkpoints, of which one takes the other's place."""
_REPORTS: Final[tuple[ReportPart, ...]] = ("data", "changed", "files")
"""The parts of a result that are made on request; of the protocol's words, those that this version knows."""
OWN_DIRECTORY: Final = "own"
"""The `cwd` of a session that has a work directory to itself."""
_FIELD_TYPES: Final[dict[str, type]] = {
    "executor": ExecutorConfig,
    "sandbox": SandboxPolicy,
    "limits": ResourceLimits,
    "confinement_required": bool,
    "inherit_env": bool,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """What a session's worker is started with. Times are in seconds.

    Raises:
        ValueError: a number is out of its range, or a name is not allowed; names the field and the value.
        TypeError: a value is of a wrong type; names the field and the value.

    Example:
        WorkerConfig(warm=("numpy",), cwd="/data", limits=ResourceLimits(max_memory_bytes=2 * 1024**3))
    """

    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    """Limits and options of the code's execution."""
    python: str = sys.executable
    """Path of the interpreter, a CPython 3.12 or newer. By default this program's.

    Nothing has to be installed for another one, such as a virtual environment's, if it is of the same minor
    version; else msgspec has to be. `python`, `pip` and VIRTUAL_ENV in the code's shells are that one's."""
    cwd: str | None = None
    """Directory in which the worker starts; None is the current directory of this program.

    "own" is an empty one that belongs to the session alone: beside the store's file, or a temporary one. It
    is state as the names are: checkpoints hold its files, a recovery puts them back, and a temporary one is
    removed with the session. Any other directory is left alone. (A folder of that name is "./own".)"""
    env: Mapping[str, str] | None = None
    """Environment variables, on top of the inherited ones; None adds none.

    A worker inherits this program's variables; a confined one only those that hold no secret."""
    inherit_env: bool = True
    """Whether it inherits any. False: it has PATH and LANG with the same values everywhere, and `env`."""
    confinement: Level = "limits"
    """How far the operating system confines the worker: "none", "limits" (the default) or "strict".

    "limits" withholds secrets of the environment and sets `limits`; "strict" also hides files, network and
    processes. `session.worker.confinement` says what is in force."""
    sandbox: SandboxPolicy = field(default_factory=SandboxPolicy)
    """What confinement "strict" leaves accessible; by default Python, its packages and a work directory."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    """What the worker's processes may use, if it is confined; by default nothing is limited."""
    confinement_required: bool = True
    """Whether a machine that can't enforce "strict" gets no worker, but a SpawnError.

    False: such a machine gets a worker that is confined less."""
    host_errors: ErrorDetail = "shown"
    """What the code sees of a host function's exception: "shown" is type, text, notes, cause and members;
    "masked" its type and the call's id. `capability(…, errors=…)` says otherwise for one function."""
    report: tuple[ReportPart, ...] = ("data",)
    """What a result holds beyond the value, of what takes time to make: "data" is the value's rich forms
    (HTML, an image); "changed" is what the code added to the namespace, changed and deleted, in place too;
    "files" is what has happened to files of the work directory.
    () leaves all of it out."""
    warm: tuple[str, ...] = ()
    """Names of modules that are imported before the worker is ready."""
    spawn_timeout: float = 30.0
    """Seconds that a worker may take until it is ready, with its warm modules; above 0."""
    cancel_grace: float = 2.0
    """Seconds that cancelled code may take to end, before an exception is raised at each of its lines."""
    kill_grace: float = 2.0
    """Seconds that cancelled code may take after `cancel_grace`, before the worker is killed."""
    stall_timeout: float | None = 30.0
    """Seconds that the worker may stop in the middle of a message (or send less than 64 KiB of it) before it
    is killed; None means no limit.

    Time during which the client does not read does not count. A worker that something else stops at that
    moment (SIGSTOP, a debugger) is killed too: why it stopped cannot be known."""
    max_checkpoint_bytes: int = 8 * 1024**3
    """Bytes that one checkpoint may have, in all its parts, before the worker is killed; 8 GiB by default."""
    max_store_bytes: int | None = None
    """Bytes that the session may have on record in its store, all in all; None is no bound.

    What counts: 2 KiB for each execution, and what it holds (code, outcome, host functions' answers, texts);
    checkpoints, where each part counts once. What has no room is a `StoreFull`. It bounds SQLite files and
    `memory:`, no store over the network."""
    max_spill_bytes: int = 1024**3
    """Bytes of a file without a name that holds all that executions wrote whose output was cut, for
    `Execution.output` and `Session.output`; 1 MiB or more, 1 GiB by default. It is made when it is needed.
    Where it is full, the oldest execution's text goes, and of one that is alone what comes then. 0: none."""
    spill_directory: str | None = None
    """The absolute path of a directory for that file. None: the user's cache directory or, where there is
    none, the system's for temporary files."""
    close_grace: float = 2.0
    """Seconds that closing a session may take, in the worker and in host functions, before it is forced."""

    @classmethod
    def untrusted(cls, **overrides: Any) -> Self:
        """Return a configuration for code that is not trusted, such as a language model's.

        It is confined by "strict", which has to be possible on this machine; inherits no environment
        variables; has no network; sees no texts of host functions' exceptions; and is bounded in all that it
        can use: `UNTRUSTED_LIMITS`, `UNTRUSTED_EXECUTOR` and a work directory of 256 MiB.

        Args:
            **overrides: fields of this class. In `limits` and `executor`, what is given stands, and what has
                its default keeps the figure for untrusted code; `dataclasses.replace` lifts a bound.

        Raises:
            ValueError, TypeError: as the class raises, and for `confinement` and `confinement_required`,
                which would make it another configuration.

        Example:
            WorkerConfig.untrusted(limits=ResourceLimits(max_memory_bytes=8 * 1024**3), warm=("numpy",))
        """
        for name, value in ("confinement", "strict"), ("confinement_required", True):
            if overrides.get(name, value) != value:
                raise ValueError(
                    f"untrusted code needs {name}={value!r}, not {shown(overrides[name])}: a WorkerConfig(…) "
                    "of your own may have it"
                )
        given: dict[str, Any] = {
            "confinement": "strict",
            "inherit_env": False,
            "host_errors": "masked",
            "max_checkpoint_bytes": UNTRUSTED_CHECKPOINT_BYTES,
            "max_store_bytes": UNTRUSTED_STORE_BYTES,
            **overrides,
        }
        # What is of another type is left to the class, which says so.
        limits = given.setdefault("limits", UNTRUSTED_LIMITS)
        executor = given.setdefault("executor", UNTRUSTED_EXECUTOR)
        if isinstance(limits, ResourceLimits):
            given["limits"] = _bounded(limits, UNTRUSTED_LIMITS, ResourceLimits.__slots__)
        if isinstance(executor, ExecutorConfig):
            given["executor"] = _bounded(executor, UNTRUSTED_EXECUTOR, ExecutorConfig.__struct_fields__)
        return cls(**given)

    def __post_init__(self) -> None:
        """Validate the values and bring them into their normal form."""
        for name, kind in _FIELD_TYPES.items():
            value: object = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, not {shown(value)}")
        object.__setattr__(self, "python", checked_path("python", self.python))
        if self.cwd is not None:
            object.__setattr__(self, "cwd", checked_path("cwd", self.cwd))
        for name in ("spawn_timeout", "cancel_grace", "kill_grace", "close_grace"):
            seconds = as_float(name, getattr(self, name))
            if not 0 <= seconds <= MAX_SECONDS or (name == "spawn_timeout" and seconds == 0):
                raise ValueError(f"{name} must be a finite number of seconds, not {shown(seconds)}")
            object.__setattr__(self, name, seconds)
        if self.stall_timeout is not None:
            object.__setattr__(self, "stall_timeout", checked_seconds("stall_timeout", self.stall_timeout))
        object.__setattr__(
            self, "max_checkpoint_bytes", as_int("max_checkpoint_bytes", self.max_checkpoint_bytes)
        )
        if self.max_checkpoint_bytes < 1:
            raise ValueError(
                f"max_checkpoint_bytes must be at least 1, not {shown(self.max_checkpoint_bytes)}"
            )
        if self.max_store_bytes is not None:
            object.__setattr__(self, "max_store_bytes", as_int("max_store_bytes", self.max_store_bytes))
            if self.max_store_bytes < _MIN_STORE_BYTES:
                raise ValueError(
                    f"max_store_bytes must be None, or at least {_MIN_STORE_BYTES}, not "
                    f"{shown(self.max_store_bytes)}"
                )
        object.__setattr__(self, "max_spill_bytes", as_int("max_spill_bytes", self.max_spill_bytes))
        if self.max_spill_bytes and not _MIN_SPILL_BYTES <= self.max_spill_bytes <= MAX_LIMIT:
            raise ValueError(
                f"max_spill_bytes must be 0, or between {_MIN_SPILL_BYTES} and {MAX_LIMIT}, not "
                f"{shown(self.max_spill_bytes)}"
            )
        directory: Any = self.spill_directory
        if directory is not None and not os.path.isabs(checked_path("spill_directory", directory)):
            raise ValueError(f"spill_directory must be an absolute path or None, not {shown(directory)}")
        checked_choice("host_errors", self.host_errors, get_args(ErrorDetail.__value__))
        object.__setattr__(self, "report", _checked_report(self.report))
        object.__setattr__(self, "warm", checked_modules(self.warm))
        self._check_confinement()
        self._check_env()

    def __repr__(self) -> str:
        """Show the fields that differ from the defaults."""
        pairs = [
            (each.name, getattr(self, each.name), getattr(_DEFAULTS, each.name)) for each in fields(self)
        ]
        changed = [f"{name}={value!r}" for name, value, default in pairs if value != default]
        return f"WorkerConfig({', '.join(changed)})"

    @property
    def has_own_directory(self) -> bool:
        """Whether the session has a work directory to itself, which is saved and restored with its names."""
        return self.cwd == OWN_DIRECTORY or self.confinement == "strict"

    @property
    def start_directory(self) -> str | None:
        """The directory in which the worker's process starts; None is this program's.

        The session's own is entered later: a pooled worker starts before it is known.
        """
        return None if self.cwd == OWN_DIRECTORY else self.cwd

    def _check_env(self) -> None:
        env: Any = self.env
        if env is not None and not isinstance(env, Mapping):
            raise TypeError(f"env must be a mapping of strings to strings, not {shown(env)}")
        for key, value in (self.env or {}).items():
            if not (isinstance(key, str) and isinstance(value, str)):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
                raise TypeError(f"env must hold strings, not {shown(key)}={shown(value)}")
            if not key or "=" in key or not (is_path_text(key) and is_path_text(value)):
                raise ValueError(f"env cannot hold {shown(key)}={shown(value)}")

    def _check_confinement(self) -> None:
        checked_choice("confinement", self.confinement, get_args(Level.__value__))
        if self.confinement != "strict" and self.sandbox != SandboxPolicy():
            raise ValueError(
                f"sandbox is for confinement 'strict'; {shown(self.confinement)} would not keep to it"
            )
        if self.cwd == OWN_DIRECTORY and self.confinement == "strict" and not self.confinement_required:
            raise ValueError(
                "cwd='own' with confinement 'strict' wants confinement_required=True: a worker that is "
                "confined less has no directory of its own"
            )
        if self.confinement == "none" and self.limits != ResourceLimits():
            raise ValueError(
                "limits are for confinement 'limits' and 'strict'; 'none' would not keep to them"
            )


def _bounded[T: (ResourceLimits, ExecutorConfig)](given: T, bounds: T, names: Iterable[str]) -> T:
    """Return what is given, with the bounds where it has its defaults."""
    plain = type(bounds)()
    values = {
        name: getattr(bounds if getattr(given, name) == getattr(plain, name) else given, name)
        for name in names
    }
    return type(bounds)(**values)


def checked_paths(what: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return paths in their normal form.

    Args:
        what: name of the field or argument, for the error.
        paths: absolute paths.

    Raises:
        ValueError: one is not absolute, holds a NUL, or is the root, which would be no confinement.
        TypeError: a single string was given instead of several.
    """
    if isinstance(paths, str | bytes) or not isinstance(paths, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
        raise TypeError(f"{what} must be a tuple of paths, not {shown(paths)}")
    normal = tuple(os.path.normpath(checked_path(what, path)) for path in paths)
    for path in normal:
        if not os.path.isabs(path) or path.strip("/") == "":
            raise ValueError(f"{what} holds {shown(path)}; give absolute paths below the root")
    return normal


def checked_seconds(what: str, value: SupportsFloat) -> float:
    """Return a duration as a number that the wire and timers accept.

    Args:
        what: name of the field or argument, for the error.
        value: seconds.

    Raises:
        ValueError: it is not above 0, or it is above MAX_SECONDS.
        TypeError: it is not a number.
    """
    seconds = as_float(what, value)
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{what} must be a positive number of seconds or None, not {shown(value)}")
    return seconds


def checked_modules(names: Iterable[str]) -> tuple[str, ...]:
    """Return module names as a tuple.

    Args:
        names: dotted names of modules.

    Raises:
        ValueError: one is not a dotted name.
        TypeError: a single string was given instead of several, or one is not a string.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
        raise TypeError(f"warm must be a tuple of module names, not {shown(names)}")
    for name in names:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
            raise TypeError(f"warm must be a tuple of module names; it holds {shown(name)}")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"warm holds {shown(name)}, which is no module's name")
    return tuple(names)


def _checked_report(parts: tuple[ReportPart, ...]) -> tuple[ReportPart, ...]:
    made = ", ".join(map(repr, _REPORTS))
    if isinstance(parts, str) or not isinstance(parts, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
        raise TypeError(f"report must be a tuple of {made}, not {shown(parts)}")
    for part in parts:
        if part not in _REPORTS:
            raise ValueError(f"report holds {shown(part)}; what a result can be asked for is {made}")
    return tuple(dict.fromkeys(parts))


def checked_id(what: str, value: str) -> str:
    """Return an id as it is.

    Args:
        what: name of the argument, for the error.
        value: the id.

    Raises:
        ValueError: it is no string, is empty or too long, or holds a colon, which separates ids in keys of
            calls and inputs.
    """
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
        raise ValueError(f"{what} must be a string, not a value of type {type(value).__name__}")  # noqa: TRY004 - as below
    if not value or ":" in value:
        raise ValueError(f"{what} must be a string that is not empty and has no colon, not {shown(value)}")
    if len(value) > MAX_ID_CHARS:
        raise ValueError(f"{what} has {len(value):,} characters; {MAX_ID_CHARS} is the most")
    if not value.isascii() and not is_unicode(value):
        raise ValueError(f"{what} must be Unicode text, not {value!r}, which has lone surrogates")
    return value


def checked_bool(what: str, value: bool) -> bool:  # noqa: FBT001 - the value that is checked
    """Return True or False as it is.

    Args:
        what: name of the field or argument, for the error.
        value: what a caller has passed.

    Raises:
        TypeError: it is neither.
    """
    if value is not True and value is not False:
        raise TypeError(f"{what} must be True or False, not {shown(value)}")
    return value


def checked_choice[T: str](what: str, value: T, choices: Collection[T]) -> T:
    """Return one of several words as it is.

    Args:
        what: name of the field or argument, for the error.
        value: what a caller has passed.
        choices: the words that there are.

    Raises:
        ValueError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:  # pyright: ignore[reportUnnecessaryIsInstance] - as below
        raise ValueError(f"{what} must be one of {sorted(choices)}, not {shown(value)}")
    return value


def checked_callable[T](what: str, value: T) -> T:
    """Return a function as it is, and None.

    Args:
        what: name of the argument, for the error.
        value: what a caller has passed.

    Raises:
        TypeError: it cannot be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{what} must be a function or None, not {shown(value)}")
    return value


def checked_path(what: str, path: str | os.PathLike[str]) -> str:
    """Return a path as text.

    Args:
        what: name of the field or argument, for the error.
        path: what a caller has passed.

    Raises:
        TypeError: it is no text and no path of text.
        ValueError: it is empty, holds a NUL, or has no name in the file system's encoding.
    """
    text: Any = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a path as text, not {shown(path)}")
    if not text or not is_path_text(text):
        raise ValueError(
            f"{what} must be a path: not empty, without NUL and lone surrogates; and not {shown(text)}"
        )
    return text


def is_path_text(text: str) -> bool:
    """Return whether the system can be given a text: it has no NUL, and bytes in its encoding.

    Args:
        text: a path, or a part of the environment.
    """
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def is_unicode(text: str) -> bool:
    """Return whether a text can be sent: it has no lone surrogates.

    Args:
        text: any text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_DEFAULTS: Final = WorkerConfig()
