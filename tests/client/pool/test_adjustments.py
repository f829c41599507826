"""What a session's configuration may have otherwise than its pool's."""

from dataclasses import replace
from typing import Any

import pytest

from pyrepl3_client import ExecutorConfig, ResourceLimits, SandboxPolicy, WorkerConfig
from pyrepl3_client._pool.adjustments import adjustments
from pyrepl3_schemas.messages import Adjustments

POOL = WorkerConfig(
    warm=("json",), env={"A": "1", "B": "2"}, cwd="/tmp", limits=ResourceLimits(max_open_files=200)
)


@pytest.mark.parametrize(
    "free",
    [
        {},
        {"executor": ExecutorConfig(max_execution_time=5)},
        {"report": ("changed",)},
        {"close_grace": 1.0, "cancel_grace": 1.0, "kill_grace": 1.0, "stall_timeout": None},
        {"max_checkpoint_bytes": 1000, "max_spill_bytes": 0},
        {"warm": ()},
    ],
)
def test_what_the_worker_need_not_change(free: dict[str, Any]) -> None:
    assert adjustments(POOL, replace(POOL, **free)) is None


@pytest.mark.parametrize(
    ("given", "change"),
    [
        ({"env": {"A": "3"}}, Adjustments(environment={"A": "3"}, unset=["B"])),
        ({"cwd": "/"}, Adjustments(directory="/")),
        ({"limits": ResourceLimits(max_open_files=100)}, Adjustments(max_open_files=100)),
        (
            {"limits": ResourceLimits(max_open_files=200, max_memory_bytes=2**30)},
            Adjustments(max_memory_bytes=2**30),
        ),
    ],
)
def test_what_a_warm_worker_changes(given: dict[str, Any], change: Adjustments) -> None:
    assert adjustments(POOL, replace(POOL, **given)) == change


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"python": "/usr/bin/python3"}, "config.python is '/usr/bin/python3'"),
        ({"confinement": "strict"}, "config.confinement is 'strict'"),
        ({"warm": ("json", "csv")}, r"config.warm has csv.*have \('json',\)"),
        ({"env": {"A": "1", "B": "2", "PYTHONPATH": "/x"}}, "config.env cannot change PYTHONPATH"),
        ({"env": {"A": "1", "B": "2", "LC_ALL": "C"}}, "config.env cannot change LC_ALL"),
        ({"env": {"A": "1", "B": "2", "OMP_NUM_THREADS": "1"}}, "OMP_NUM_THREADS.*warm modules"),
        (
            {"limits": ResourceLimits(max_open_files=300)},
            "config.limits.max_open_files is 300.*200: a limit can only",
        ),
        ({"limits": ResourceLimits()}, "config.limits.max_open_files is None"),
    ],
)
def test_what_it_cannot_change_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        adjustments(POOL, replace(POOL, **given))


def test_a_strict_workers_boundary_stands_from_its_start() -> None:
    strict = WorkerConfig(confinement="strict")
    assert adjustments(strict, replace(strict, cwd="/")) is None
    with pytest.raises(ValueError, match=r"config\.sandbox"):
        adjustments(strict, replace(strict, sandbox=SandboxPolicy(network=True)))
    with pytest.raises(ValueError, match=r"config\.limits\.max_processes is 600.*with 512"):
        adjustments(strict, replace(strict, limits=ResourceLimits(max_processes=600)))


def test_variables_of_libraries_may_differ_where_none_is_warm() -> None:
    change = adjustments(WorkerConfig(), WorkerConfig(env={"OMP_NUM_THREADS": "1"}))
    assert change == Adjustments(environment={"OMP_NUM_THREADS": "1"})
