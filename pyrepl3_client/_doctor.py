"""Finds out by trying which confinement this machine can keep, and says how to have what is missing."""

import subprocess
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from pyrepl3_client._launch.interpreter import interpreter_command
from pyrepl3_client.config import SandboxPolicy, WorkerConfig
from pyrepl3_client.errors import PyRepl3Error, SpawnError
from pyrepl3_schemas.confinement import Level
from pyrepl3_schemas.executor_config import shown

_PROBES: Final = "pyrepl3_worker.confinement.probes"
_PROBE_TIMEOUT: Final = 60.0
"""Seconds for all probes, which take some 0.2."""
_NOT_NEEDED: Final = frozenset({"read-only overlays", "delegated control group"})
"""Probes without which "strict" is kept all the same."""
_CELL: Final = "sum(range(10))"
_VALUE: Final = 45


class _Probe(msgspec.Struct, frozen=True):
    name: str
    ok: bool
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """One thing that was tried on this machine."""

    name: str
    """What it is."""
    ok: bool
    """Whether it works."""
    detail: str
    """What was seen."""
    remedy: str = ""
    """What to do where it does not work."""
    needed: bool = True
    """Whether "strict" needs it."""

    def __str__(self) -> str:
        """Return a line for a person, and a second one with the remedy if there is one."""
        mark = "ok" if self.ok else "MISSING" if self.needed else "absent"
        line = f"{mark:8} {self.name}: {self.detail}"
        return f"{line}\n         -> {self.remedy}" if self.remedy else line


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `doctor` has found; `print` shows it."""

    level: Level | None
    """The strongest confinement of which a worker has run code; None: no worker runs here at all."""
    checks: tuple[MachineCheck, ...]
    """What was tried, in this order."""

    @property
    def missing(self) -> tuple[MachineCheck, ...]:
        """What "strict" needs and this machine does not have."""
        return tuple(check for check in self.checks if check.needed and not check.ok)

    def __str__(self) -> str:
        """Return the verdict and all checks, a line or two each."""
        verdict = (
            "No worker can be started on this machine."
            if self.level is None
            else f"This machine keeps confinement {self.level!r}."
        )
        return "\n".join([verdict, *map(str, self.checks)])


def doctor(config: WorkerConfig | None = None) -> Diagnosis:
    """Find out which confinement this machine can keep, and what is missing for more.

    Nothing is assumed: each line comes of a process that has tried it, the level of a worker that has run
    code. It takes a second or two, and blocks as long: on an event loop, call it by `asyncio.to_thread`.

    Args:
        config: has the interpreter, environment, directory and policy of the workers that are tried; by
            default those of `WorkerConfig()`. Its level is not looked at.

    Returns:
        A `Diagnosis`; `print(doctor())` shows it to a person.

    Raises:
        TypeError: `config` is none.
        SpawnError: pyrepl3 or its interpreter cannot be run at all.
    """
    config = WorkerConfig() if config is None else config
    if not isinstance(config, WorkerConfig):  # pyright: ignore[reportUnnecessaryIsInstance] - of an untyped program
        raise TypeError(f"config must be a WorkerConfig, not {shown(config)}")
    checks = [
        MachineCheck(probe.name, probe.ok, probe.detail, probe.remedy, needed=probe.name not in _NOT_NEEDED)
        for probe in _run_probes()
    ]
    limits = _try_level(replace(config, confinement="limits", sandbox=SandboxPolicy()), checks)
    checks.append(limits)
    strict = _try_level(replace(config, confinement="strict", confinement_required=True), checks)
    checks.append(strict)
    return Diagnosis("strict" if strict.ok else "limits" if limits.ok else None, tuple(checks))


def _run_probes() -> list[_Probe]:
    # In this program's own interpreter, as the boundary is drawn.
    command = interpreter_command(WorkerConfig(), _PROBES)
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT, check=True)  # noqa: S603 - of our own
        return msgspec.json.decode(done.stdout, type=list[_Probe])
    except subprocess.CalledProcessError as error:
        text = error.stderr.decode(errors="replace").strip()
        raise SpawnError(f"{command[0]} could not run the probes: {text or error}") from error
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        raise SpawnError(f"{command[0]} could not run the probes: {error}") from error


def _try_level(config: WorkerConfig, probes: list[MachineCheck]) -> MachineCheck:
    """Start a worker of a configuration, and have it run code."""
    from pyrepl3_client import sync  # noqa: PLC0415 - it imports the whole package

    name = f"a worker at {config.confinement!r}"
    try:
        with sync.open_session(config=config) as session:
            value = session.execute(_CELL).value
            in_force = session.worker.confinement
    except PyRepl3Error as error:
        needed = any(check.needed and not check.ok for check in probes)
        return MachineCheck(
            name, ok=False, detail=str(error), remedy="see what is missing above" if needed else ""
        )
    if value != _VALUE:
        return MachineCheck(name, ok=False, detail=f"{_CELL} gave {value!r}, which is not {_VALUE}")
    return MachineCheck(name, ok=True, detail=f"in force: {', '.join(in_force)}")
