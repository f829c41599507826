"""How workers are started and how patiently they are ended."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, SupportsFloat, get_args

from pyrepl3_client._sandbox_policy import ResourceLimits, SandboxPolicy
from pyrepl3_schemas.config import MAX_SECONDS, ExecutorConfig, as_float, as_int
from pyrepl3_schemas.confinement import Level

__all__ = ["ExecutorConfig", "ResourceLimits", "SandboxPolicy", "WorkerConfig"]

_KINDS: Final[dict[str, type]] = {
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
        for name, kind in _KINDS.items():
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
