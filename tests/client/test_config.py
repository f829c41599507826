"""`WorkerConfig`: what is refused where it is given, and by which name."""

import pytest

from pyrepl3_client import ExecutorConfig, WorkerConfig


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
