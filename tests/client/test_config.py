"""`WorkerConfig`: what is refused where it is given, and by which name."""

from dataclasses import replace
from typing import Any

import pytest

from pyrepl3_client import ExecutorConfig, ResourceLimits, WorkerConfig


@pytest.mark.parametrize("name", ["spawn_timeout", "cancel_grace", "kill_grace", "close_grace"])
@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_that_means_nothing_is_refused_by_name(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        WorkerConfig(**{name: seconds})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"python": ""}, "python"),
        ({"spawn_timeout": 0}, "spawn_timeout"),
        ({"env": {"A=B": "c"}}, "A=B"),
        ({"env": {"": "c"}}, "env"),
        ({"env": {"A": "b\0"}}, "env"),
        ({"warm": ("a b",)}, "'a b'"),
        ({"warm": ("a,b",)}, "'a,b'"),
        ({"warm": ("",)}, "''"),
        ({"report": ("data", "html")}, "report holds 'html'"),
    ],
)
def test_what_could_not_work_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkerConfig(**options)  # pyright: ignore[reportArgumentType]


def test_one_string_is_not_many_modules() -> None:
    with pytest.raises(TypeError, match="not 'numpy'"):
        WorkerConfig(warm="numpy")  # pyright: ignore[reportArgumentType]


def test_one_word_is_not_many_parts_of_a_result() -> None:
    with pytest.raises(TypeError, match="report must be a tuple of 'data', 'changed', 'files', not 'data'"):
        WorkerConfig(report="data")  # pyright: ignore[reportArgumentType]


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        WorkerConfig().python = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_no_grace_at_all_is_allowed() -> None:
    config = WorkerConfig(cancel_grace=0, kill_grace=0, close_grace=0, executor=ExecutorConfig(cache_size=0))
    assert config.executor.cache_size == 0


def test_untrusted_code_is_bounded_in_all_that_it_can_use() -> None:
    config = WorkerConfig.untrusted()
    assert (config.confinement, config.confinement_required) == ("strict", True)
    assert (config.inherit_env, config.host_errors) == (False, "masked")
    assert not config.sandbox.network
    assert all(getattr(config.limits, name) is not None for name in ResourceLimits.__slots__)
    assert config.executor.max_execution_time is not None


def test_what_is_given_for_untrusted_code_stands_and_the_rest_is_bounded() -> None:
    config = WorkerConfig.untrusted(
        limits=ResourceLimits(max_memory_bytes=10**9),
        executor=ExecutorConfig(max_execution_time=1.5),
        env={"NAME": "value"},
        host_errors="shown",
    )
    bounded = WorkerConfig.untrusted()
    assert config.limits == replace(bounded.limits, max_memory_bytes=10**9)
    assert config.executor.max_execution_time == 1.5
    assert config.executor.max_output_bytes == bounded.executor.max_output_bytes
    assert (config.env, config.host_errors) == ({"NAME": "value"}, "shown")


@pytest.mark.parametrize(
    ("overrides", "error", "named"),
    [
        ({"confinement": "limits"}, ValueError, "confinement='strict'"),
        ({"confinement_required": False}, ValueError, "confinement_required=True"),
        ({"limits": None}, TypeError, "limits must be a ResourceLimits"),
        ({"executor": {}}, TypeError, "executor must be a ExecutorConfig"),
        ({"host_errors": "hidden"}, ValueError, "host_errors must be one of"),
        ({"inherit_env": 0}, TypeError, "inherit_env must be a bool"),
        ({"memory": 1}, TypeError, "memory"),
    ],
)
def test_what_makes_no_configuration_for_untrusted_code_is_refused(
    overrides: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        WorkerConfig.untrusted(**overrides)
