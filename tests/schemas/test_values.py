"""Plain data inside messages: what goes in comes out, and nothing that a value does gets past the codec."""

import dataclasses
import enum
import math
import sys
import threading
from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

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


def shared(levels: int) -> list[Any]:
    """Return a list that holds another one twice, and so on."""
    value: list[Any] = [0]
    for _ in range(levels):
        value = [value, value]
    return value


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Weight(enum.IntEnum):
    HEAVY = 2


class Hidden(list[int]):
    """A list that says that it is endless."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1

    def __len__(self) -> int:
        return 10**18


class Row(NamedTuple):
    a: int
    b: list[int]


class Fields(msgspec.Struct, tag=True, rename={"kind": "k"}):
    a: int
    kind: str
    absent: int | msgspec.UnsetType = msgspec.UNSET


class Label(str):
    __slots__ = ()


class Count(int):
    pass


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
        (shared(3), [[[[0], [0]], [[0], [0]]], [[[0], [0]], [[0], [0]]]]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (Row(1, [2]), [1, [2]]),
        (array("i", [1, 2]), [1, 2]),
        (Fields(a=1, kind="k"), {"type": "Fields", "a": 1, "k": "k"}),
        (Weight.HEAVY, 2),
        ({Colour.RED: Path("/x")}, {"red": "/x"}),
        (Fraction(1, 3), "1/3"),
        (1 + 2j, [1.0, 2.0]),
        (OrderedDict[str, Any](a=Counter("aab")), {"a": {"a": 2, "b": 1}}),
        (MappingProxyType({"k": ()}), {"k": []}),
        ([Label("x"), Count(3)], ["x", 3]),
        (Hidden([7]), [7]),
    ],
    ids=repr,
)
def test_data_that_is_nearly_plain_becomes_plain(value: object, plain: object) -> None:
    assert decode_value(encode_value(value)) == plain


MOMENT = datetime(2026, 10, 25, 2, 30, 0, 7)  # noqa: DTZ001 - one without a zone is meant


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        10**5000,
        -(10**5000),
        Decimal("1.10"),
        Decimal("-0"),
        Decimal("-Infinity"),
        UUID(int=7),
        date(1, 2, 3),
        time(1, 2, 3, 4),
        time(1, tzinfo=ZoneInfo("Europe/Berlin")),
        MOMENT,
        MOMENT.replace(fold=1),
        MOMENT.replace(tzinfo=UTC),
        MOMENT.replace(tzinfo=ZoneInfo("UTC")),
        MOMENT.replace(tzinfo=ZoneInfo("Europe/Berlin")),
        MOMENT.replace(tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        MOMENT.replace(tzinfo=timezone(timedelta(hours=-3, seconds=1))),
        timedelta(0),
        timedelta(days=-1, microseconds=1),
        timedelta.max,
        timedelta.min,
        [{"k": [Decimal(1), 2**70]}, {date(2026, 1, 1): 1, (UUID(int=1), 2**80): 2}],
    ],
    ids=lambda value: hex(value)[:20] if isinstance(value, int) else str(value)[:40],
)
def test_what_messagepack_does_not_have_comes_back_as_it_was(value: Any) -> None:
    back = decode_value(encode_value(value))
    assert back == value
    assert type(back) is type(value)
    assert str(back) == str(value) if not isinstance(value, int | list) else True
    if isinstance(value, datetime | time):
        assert (back.tzinfo, back.fold) == (value.tzinfo, value.fold)


def test_a_zone_that_is_not_known_leaves_the_offset_and_nothing_is_looked_up() -> None:
    text = b"2026-01-01T00:00:00+01:00[../../etc/passwd]"
    raw = msgspec.Raw(msgspec.msgpack.encode(msgspec.msgpack.Ext(85, text)))
    assert decode_value(raw) == datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (80, b"0x"),
        (80, b"\xff"),
        (81, b"one"),
        (82, b"7"),
        (83, b"2026"),
        (84, b"25:00"),
        (85, b"now["),
        (86, b"PT1H"),
    ],
)
def test_an_extension_that_does_not_hold_what_it_says_is_the_peers_error(code: int, text: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="a value does not decode: "):
        decode_value(msgspec.Raw(msgspec.msgpack.encode(msgspec.msgpack.Ext(code, text))))


def test_an_extension_that_is_not_known_stays_one() -> None:
    raw = msgspec.Raw(msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"x")))
    assert decode_value(raw) == msgspec.msgpack.Ext(99, b"x")


def test_a_limit_is_kept_before_anything_is_encoded() -> None:
    assert decode_value(encode_value([b"x" * 90], 100)) == [b"x" * 90]
    values: list[Any] = [[b"x" * 101], "x" * 101, "é" * 60, [1.5] * 20, {"k": range(200)}, [()] * 101]
    for value in values:
        with pytest.raises(LocalProtocolError, match="larger than max_frame_bytes"):
            encode_value(value, 100)
    with pytest.raises(LocalProtocolError, match="holds more than 10 arrays, maps and texts"):
        encode_value(["x"] * 11, 1000, 10)


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


class Trap(Hostile):
    """A mapping that raises when it is walked."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[str]:
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
        pytest.param(object(), "object has no form as plain data", id="an object"),
        pytest.param([1, {"k": object()}], "object at [1]['k'] has no form", id="an object deep inside"),
        pytest.param({object(): 1}, "object at .keys() has no form", id="an object as a key"),
        pytest.param({frozenset({1}): 1, (1,): 2}, "become one and the same", id="equal keys"),
        pytest.param({"a": 1}.keys(), "dict_keys has no form", id="a view"),
        pytest.param("\ud800", "surrogates not allowed", id="a lone surrogate"),
        pytest.param(["\ud800"], "str at [0] cannot be sent: surrogates not", id="a lone surrogate inside"),
        pytest.param(ring(), "list at [0] holds itself", id="a list that holds itself"),
        pytest.param(range(10**18), "it is larger than max_frame_bytes allows", id="an endless range"),
        pytest.param(1 << (1 << 30), "it is larger than max_frame_bytes allows", id="an endless number"),
        pytest.param(shared(60), "it holds more than 8,388,608 arrays", id="2^60 lists that are 60"),
        pytest.param(lambda: 1, "function", id="a function"),
        pytest.param(Hostile(), "Hostile", id="a hostile mapping"),
        pytest.param(Masked(), "Masked has", id="a type without a name"),
        pytest.param([Trap(SpeechlessError())], "text raises <class 'ZeroDivisionError'>", id="a trap"),
        pytest.param([Trap(KeyError())], "list cannot be read: KeyError", id="a silent trap"),
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
    low, high = 1, 1 << 17
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
        frame = encode(Result("e", "m", value=encode_value(nested(depth))))
    finally:
        sys.setrecursionlimit(before)
    assert depth > 500
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
