"""The limits in `hello`: figures that mean nothing are refused by name, here and on the wire."""

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given

from pyrepl3_schemas.codec import WorkerDecoder
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.executor_config import COUNT_RANGES, UPPER_LIMITS, ExecutorConfig
from tests.helpers.frames import framed
from tests.helpers.wire_strategies import configs

NONSENSE: list[tuple[str, Any]] = [
    *((name, value) for name in UPPER_LIMITS for value in (0, -1)),
    *((name, most + 1) for name, most in UPPER_LIMITS.items()),
    *(("max_execution_time", value) for value in (float("nan"), float("inf"), -0.5)),
    *((name, least - 1) for name, (least, _) in COUNT_RANGES.items()),
    *((name, most + 1) for name, (_, most) in COUNT_RANGES.items()),
    *(("syntax", value) for value in ("", "bash", "IPython")),
]


@pytest.mark.parametrize(("name", "value"), NONSENSE, ids=str)
def test_a_figure_that_means_nothing_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ExecutorConfig(**{name: value})
    hello = {"type": "hello", "protocol": 1, "session_id": "s", "config": {name: value}}
    with pytest.raises(RemoteProtocolError, match=name):
        WorkerDecoder().feed(framed(msgspec.msgpack.encode(hello)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in (*UPPER_LIMITS, *COUNT_RANGES) for value in (True, "5", [5])),
        *((name, 1000.5) for name in (*UPPER_LIMITS, *COUNT_RANGES) if name != "max_execution_time"),
        *((name, value) for name in ("allow_imports", "auto_fix") for value in ("no", 1, None)),
        *(
            (name, value)
            for name in ("allowed_modules", "denied_modules")
            for value in ("os", b"os", 5, ["os", 5])
        ),
        ("denied_modules", None),
    ],
    ids=str,
)
def test_a_value_of_a_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        ExecutorConfig(**{name: value})


class Whole(int):
    """A number that is no plain int, as those of number libraries."""


def test_numbers_and_sets_of_other_types_become_what_can_travel() -> None:
    fields: dict[str, Any] = {
        "max_execution_time": Fraction(3, 2),
        "max_coroutines": Whole(7),
        "denied_modules": ["os", "sys"],
        "allowed_modules": {"json"},
    }
    config = ExecutorConfig(**fields)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=ExecutorConfig) == config
    assert (config.max_execution_time, config.max_coroutines) == (1.5, 7)
    assert (config.denied_modules, config.allowed_modules) == ({"os", "sys"}, {"json"})
    assert (type(config.max_execution_time), type(config.max_coroutines)) == (float, int)


@pytest.mark.parametrize(("name", "most"), UPPER_LIMITS.items(), ids=str)
def test_the_most_is_still_allowed_and_none_means_no_limit(name: str, most: int) -> None:
    for value in (most, None):
        fields: dict[str, Any] = {name: value}
        assert getattr(ExecutorConfig(**fields), name) == value


@pytest.mark.parametrize(
    ("name", "least", "most"), [(name, *ends) for name, ends in COUNT_RANGES.items()], ids=str
)
def test_both_ends_of_a_range_are_still_allowed(name: str, least: int, most: int) -> None:
    for value in (least, most):
        fields: dict[str, Any] = {name: value}
        assert getattr(ExecutorConfig(**fields), name) == value


def test_every_figure_of_the_configuration_has_a_range() -> None:
    numbers = {
        field.name
        for field in msgspec.structs.fields(ExecutorConfig)
        if isinstance(field.default, int) and not isinstance(field.default, bool)
    }
    assert numbers == COUNT_RANGES.keys() | {"max_output_bytes", "max_display_bytes"}


@given(configs)
def test_every_configuration_survives_the_round_trip(config: ExecutorConfig) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=ExecutorConfig) == config
