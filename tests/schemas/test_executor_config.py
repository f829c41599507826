"""The limits in `hello`: figures that mean nothing are refused by name, here and on the wire."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from wire_strategies import configs

from pyrepl3_schemas.codec import WorkerDecoder
from pyrepl3_schemas.config import COUNTS, UPPER_LIMITS, ExecutorConfig
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.framing import encode_frame

NONSENSE: list[tuple[str, Any]] = [
    *((name, value) for name in UPPER_LIMITS for value in (0, -1)),
    *((name, most + 1) for name, most in UPPER_LIMITS.items()),
    *(("max_execution_time", value) for value in (float("nan"), float("inf"), -0.5)),
    *((name, least - 1) for name, (least, _) in COUNTS.items()),
    *((name, most + 1) for name, (_, most) in COUNTS.items()),
]


@pytest.mark.parametrize(("name", "value"), NONSENSE, ids=str)
def test_a_figure_that_means_nothing_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ExecutorConfig(**{name: value})
    hello = {"type": "hello", "protocol": 1, "session_id": "s", "config": {name: value}}
    with pytest.raises(RemoteProtocolError, match=name):
        WorkerDecoder().feed(encode_frame(msgspec.msgpack.encode(hello)))


@pytest.mark.parametrize(("name", "most"), UPPER_LIMITS.items(), ids=str)
def test_the_most_is_still_allowed_and_none_means_no_limit(name: str, most: int) -> None:
    for value in (most, None):
        fields: dict[str, Any] = {name: value}
        assert getattr(ExecutorConfig(**fields), name) == value


@pytest.mark.parametrize(("name", "least", "most"), [(name, *ends) for name, ends in COUNTS.items()], ids=str)
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
    assert numbers == COUNTS.keys() | {"max_output_bytes"}


@given(configs)
def test_every_configuration_survives_the_round_trip(config: ExecutorConfig) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=ExecutorConfig) == config
