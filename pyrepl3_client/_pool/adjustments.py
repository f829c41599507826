"""What a session's configuration may have otherwise than the pool's: what a warm worker can still change.

Whatever the client keeps by itself (graces, timeouts, bounds of checkpoints and kept output), and what goes
with the greeting (`executor`, `report`, an own work directory), may differ freely. Environment, directory and
lower limits a worker changes when it is greeted, before any code of the session runs. The rest is as it
was at its start.
"""

import os
from typing import Any, Final

from pyrepl3_client._launch.spawn import interpreter_environment
from pyrepl3_client.config import WorkerConfig, max_strict_processes
from pyrepl3_client.errors import SpawnError
from pyrepl3_schemas.executor_config import shown
from pyrepl3_schemas.messages import Adjustments

_FIXED: Final = ("python", "confinement", "confinement_required", "sandbox")
"""Fields that say how a process is started."""
_LIMITS: Final = ("max_processes", "max_memory_bytes", "max_cpu_seconds", "max_open_files", "max_file_bytes")
_READ_AT_START: Final = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
"""Beginnings of names that an interpreter, or the C library, reads when it starts, and never again."""
_READ_BY_MODULES: Final = frozenset(
    {
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES", "MPLBACKEND",
    }
)  # fmt: skip
"""Variables that libraries read when they are imported, which warm ones are already."""
_HOW: Final = "take dataclasses.replace(pool.config, …) for what may differ, or another pool for this"


def adjustments(pool: WorkerConfig, session: WorkerConfig) -> Adjustments | None:
    """Return what a warm worker of a pool has to change for a session; None for nothing.

    Args:
        pool: the configuration that the worker was started with.
        session: the one that the session is to have.

    Raises:
        ValueError: they differ in what a warm worker cannot change; names the field and both values.
    """
    if session == pool:
        return None
    for name in _FIXED:
        ours, theirs = getattr(pool, name), getattr(session, name)
        if ours != theirs:
            raise ValueError(
                f"config.{name} is {shown(theirs)}, and the pool's workers were started with {shown(ours)}, "
                f"which a warm worker cannot change: {_HOW}"
            )
    missing = sorted(set(session.warm) - set(pool.warm))
    if missing:
        raise ValueError(
            f"config.warm has {', '.join(missing)}, which the pool's workers have not imported (they have "
            f"{shown(pool.warm)}): give it to the pool, or have the code import it"
        )
    changed, unset = _environment(pool, session)
    found = Adjustments(
        environment=changed, unset=unset, directory=_directory(pool, session), **_limits(pool, session)
    )
    return None if found == Adjustments() else found


def check_directory(change: Adjustments | None) -> None:
    """Refuse a directory that is not there, as the start of a worker would.

    Raises:
        SpawnError: says why.
    """
    if change is not None and change.directory:
        try:
            os.scandir(change.directory).close()
        except OSError as error:
            raise SpawnError(f"no worker can have {change.directory!r} as its cwd: {error}") from error


def _environment(pool: WorkerConfig, session: WorkerConfig) -> tuple[dict[str, str], list[str]]:
    ours, theirs = interpreter_environment(pool), interpreter_environment(session)
    changed = {name: value for name, value in theirs.items() if ours.get(name) != value}
    unset = sorted(ours.keys() - theirs.keys())
    for name in (*changed, *unset):
        if name.startswith(_READ_AT_START):
            raise ValueError(
                f"config.env cannot change {name} for a warm worker, which has read it at its start (it is "
                f"{shown(ours.get(name))} there): {_HOW}"
            )
        if name in _READ_BY_MODULES and pool.warm:
            raise ValueError(
                f"config.env cannot change {name} for a warm worker, whose warm modules may have read it "
                f"when they were imported ({shown(pool.warm)}): {_HOW}"
            )
    return changed, unset


def _directory(pool: WorkerConfig, session: WorkerConfig) -> str:
    if session.confinement == "strict" or session.start_directory == pool.start_directory:
        return ""  # a strict worker starts in a directory of its own, whatever is given
    return os.path.abspath(session.start_directory or os.getcwd())


def _limits(pool: WorkerConfig, session: WorkerConfig) -> dict[str, Any]:
    lower: dict[str, int] = {}
    for name in _LIMITS:
        ours, theirs = _limit(pool, name), _limit(session, name)
        if ours == theirs:
            continue
        if theirs is None or (ours is not None and theirs > ours):
            raise ValueError(
                f"config.limits.{name} is {shown(theirs)}, and the pool's workers were started with "
                f"{shown(ours)}: a limit can only be lowered later. {_HOW[0].upper()}{_HOW[1:]}"
            )
        lower[name] = theirs
    return lower


def _limit(config: WorkerConfig, name: str) -> int | None:
    if name == "max_processes" and config.confinement == "strict":
        return max_strict_processes(config.limits)
    return getattr(config.limits, name)
