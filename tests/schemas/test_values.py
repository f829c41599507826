"""Plain data inside messages: what goes in comes out, and nothing that a value does gets past the codec."""

import dataclasses
import enum
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.codec import ClientDecoder, WorkerDecoder, decode_value, encode, encode_value
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import CallResponse, Result
from schemas.tools.json_form import value_from_json, value_to_json
from tests.helpers.wire_strategies import plain_values


@given(plain_values)
def test_plain_data_survives_the_round_trip_and_stays_inside_its_message(value: Any) -> None:
    raw = encode_value(value)
    assert decode_value(raw) == value
    message = Result("e", "simple_sync", value=raw, repr="…")
    (back,) = ClientDecoder().feed(encode(message))
    assert isinstance(back, Result)
    assert isinstance(back.value, msgspec.Raw)
    assert decode_value(back.value) == value


@given(plain_values)
def test_plain_data_survives_its_json_form(value: Any) -> None:
    assert decode_value(encode_value(value_from_json(value_to_json(value)))) == value


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"$bytes": "AA=="}, {"$map": [["$bytes", "AA=="]]}),
        ({"a": {"$x": 1}}, {"a": {"$map": [["$x", 1]]}}),
        ({1: {"b": b"\0"}}, {"$map": [[1, {"b": {"$bytes": "AA=="}}]]}),
        ({(1, (2,)): None}, {"$map": [[[1, [2]], None]]}),
    ],
    ids=repr,
)
def test_data_that_looks_like_a_dollar_word_is_not_mistaken_for_one(value: object, form: object) -> None:
    assert value_to_json(decode_value(encode_value(value))) == form
    assert value_from_json(form) == value


@pytest.mark.parametrize("value", [None, False, 0, "", b"", [], {}])
def test_a_value_that_is_nothing_much_is_still_a_value(value: object) -> None:
    (back,) = ClientDecoder().feed(encode(Result("e", "m", value=encode_value(value))))
    assert isinstance(back, Result)
    assert isinstance(back.value, msgspec.Raw)
    assert decode_value(back.value) == value
    (none,) = ClientDecoder().feed(encode(Result("e", "m")))
    assert isinstance(none, Result)
    assert none.value is msgspec.UNSET
    assert none != back


def test_a_host_function_that_returns_nothing_answers_nil() -> None:
    (answer,) = WorkerDecoder().feed(encode(CallResponse("c", value=encode_value(None))))
    assert answer == CallResponse("c", value=msgspec.Raw(b"\xc0"))
    assert answer != CallResponse("c")


def test_not_a_number_survives() -> None:
    assert math.isnan(decode_value(encode_value(float("nan"))))


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({7}, [7]),
        (frozenset({7}), [7]),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Colour.RED, "red"),
        (bytearray(b"ab"), b"ab"),
        pytest.param(memoryview(b"ab"), b"ab", id="memoryview"),  # its repr differs in each process
        ({1: {(2, 3): "pair"}}, {1: {(2, 3): "pair"}}),
        (datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC)),
    ],
    ids=repr,
)
def test_data_that_is_nearly_plain_becomes_plain(value: object, plain: object) -> None:
    assert decode_value(encode_value(value)) == plain


# --- what can't be a value ----------------------------------------------------------------------------


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Hostile(Mapping[str, int]):
    """A mapping whose every method raises an error that can't even be printed."""

    def __getitem__(self, key: str) -> int:
        raise SpeechlessError

    def __iter__(self) -> Iterator[str]:
        raise SpeechlessError

    def __len__(self) -> int:
        raise SpeechlessError


class Trap(set[int]):
    """A set that raises when it is walked."""

    def __init__(self, error: Exception) -> None:
        super().__init__({1})
        self.error = error

    def __iter__(self) -> Iterator[int]:
        raise self.error


class Nameless(type):
    @property
    def __name__(cls) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise SpeechlessError


class Masked(metaclass=Nameless):
    pass


def ring() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param(object(), "a object has no MessagePack form", id="an object"),
        pytest.param([1, {"k": object()}], "a list has no MessagePack form", id="an object deep inside"),
        pytest.param(2**64, "a int has", id="an integer over 64 bits"),
        pytest.param("\ud800", "surrogates not allowed", id="a lone surrogate"),
        pytest.param(["\ud800"], "surrogates not allowed", id="a lone surrogate inside"),
        pytest.param(1j, "complex", id="a complex number"),
        pytest.param(ring(), "recursion", id="a list that holds itself"),
        pytest.param(lambda: 1, "function", id="a function"),
        pytest.param(Hostile(), "Hostile", id="a hostile mapping"),
        pytest.param(Masked(), "a Masked has", id="a type without a name"),
        pytest.param([Trap(SpeechlessError())], "text raises <class 'ZeroDivisionError'>", id="a trap"),
        pytest.param([Trap(KeyError())], "a list has no MessagePack form: KeyError", id="a silent trap"),
    ],
)
def test_what_has_no_form_is_refused_whatever_it_does(value: object, says: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encode_value(value)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="the byte that is never used"),
        pytest.param(b"\x01\x02", id="two values"),
        pytest.param(b"\x92\x01", id="half an array"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array that claims to be huge"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map that claims to be huge"),
        pytest.param(b"\x81\x80\x01", id="a map as a key"),
        pytest.param(b"\xa1\xff", id="text that is not UTF-8"),
        pytest.param(b"\xd7\xff" + b"\xff" * 8, id="a time with too many nanoseconds"),
        pytest.param(b"\x91" * 1_000_000 + b"\xc0", id="endless nesting"),
        pytest.param(b"\x81\xa1k" * 1_000_000 + b"\xc0", id="endless nesting of maps"),
    ],
)
def test_bytes_that_are_no_value_are_the_peers_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="a value does not decode: "):
        decode_value(msgspec.Raw(data))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_the_peers_error(data: bytes) -> None:
    try:
        decode_value(msgspec.Raw(data))
    except RemoteProtocolError as error:
        assert error.reason  # noqa: PT017 - both ways out are right


def deepest(accepts: type[Exception], build: Any, use: Any) -> int:
    """Find the greatest depth that `use` takes without an error of that type."""
    low, high = 1, 1 << 21
    while high - low > 1:
        middle = (low + high) // 2
        try:
            use(build(middle))
            low = middle
        except accepts:
            high = middle
    return low


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("limit", [None, 50_000], ids=["as it is", "with a raised recursion limit"])
def test_every_value_that_is_sent_can_be_read_in_its_message_even_further_down_the_stack(
    limit: int | None,
) -> None:
    """The deepest value that `encode_value` lets pass must not break the connection."""
    before = sys.getrecursionlimit()
    try:
        if limit is not None:
            sys.setrecursionlimit(limit)
        depth = deepest(LocalProtocolError, nested, encode_value)
    finally:
        sys.setrecursionlimit(before)
    assert depth > 500
    frame = encode(Result("e", "m", value=encode_value(nested(depth))))
    outcomes: list[object] = []

    def read(levels: int) -> None:
        # `sorted` calls back from C: levels of the C stack are what msgspec counts too.
        if levels:
            sorted([0], key=lambda _: read(levels - 1) or 0)
        else:
            (message,) = ClientDecoder().feed(frame)
            assert isinstance(message, Result)
            assert isinstance(message.value, msgspec.Raw)
            outcomes.append(decode_value(message.value))

    for levels in (0, 50):
        thread = threading.Thread(target=read, args=(levels,))
        thread.start()
        thread.join()
    assert len(outcomes) == 2
