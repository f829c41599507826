"""How many objects a frame may become: counted as its decoder would make them, and refused on both sides."""

from random import Random
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas import object_limit
from pyrepl3_schemas.codec import ClientDecoder, encode, encode_value
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import Result
from pyrepl3_schemas.object_limit import MIN_OBJECT_LIMIT, has_more_objects, max_objects

LENGTHS = (0, 1, 2, 3, 4, 8, 15, 16, 31, 32, 255, 256, 65536)


def some_value(random: Random, depth: int = 0) -> Any:
    """Make a value of every kind there is. From a seed: what it would print as is long."""
    n = random.choice(LENGTHS)
    match random.randrange(8 if depth == 4 else 12):
        case 0:
            return random.choice([None, True, False, random.random()])
        case 1 | 2:
            return random.choice([1, -1]) * random.randrange(2 ** random.randrange(1, 64))
        case 3 | 4:
            return "é" * n
        case 5 | 6:
            return b"\x90" * n
        case 7:
            return msgspec.msgpack.Ext(n % 128, b"\x90" * n)
        case 8:
            return [some_value(random, 4)] * min(n, 300)
        case 9 | 10:
            return [some_value(random, depth + 1) for _ in range(min(n, 20))]
        case _:
            return {"k" * key: some_value(random, depth + 1) for key in range(min(n, 20))}


def objects_in(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(objects_in, cast("list[Any]", value)))
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value)
        return 1 + sum(objects_in(key) + objects_in(item) for key, item in pairs.items())
    return int(isinstance(value, str | bytes | msgspec.msgpack.Ext))


@given(st.integers(0, 2**32))
def test_as_many_objects_are_counted_as_there_are(seed: int) -> None:
    value = some_value(Random(seed))
    data, count = msgspec.msgpack.encode(value), objects_in(value)
    for most in {max(count - 1, 0), count, count + 1}:
        assert has_more_objects(data, most) == (count > most)


@given(st.binary(max_size=300), st.integers(0, 5))
def test_of_broken_data_something_is_counted(data: bytes, most: int) -> None:
    assert has_more_objects(data, most) in (True, False)


def test_a_frame_may_hold_an_eighth_of_its_bytes_in_objects_and_a_million_always() -> None:
    assert max_objects(64 * 2**20) == 8 * 2**20
    assert max_objects(4096) == MIN_OBJECT_LIMIT == 2**20


def test_both_sides_refuse_more() -> None:
    limit, empty = 2**22, list[int]()
    many = Result(execution_id="e", mode="", value=encode_value([empty] * MIN_OBJECT_LIMIT))
    with pytest.raises(LocalProtocolError, match="holds more than 1048576 arrays"):
        encode(many, limit)
    fewer = Result(execution_id="e", mode="", value=encode_value([empty] * (MIN_OBJECT_LIMIT - 100)))
    assert ClientDecoder(limit).feed(encode(fewer, limit)) == [fewer]
    decoder = ClientDecoder(limit)
    assert decoder.feed(encode(fewer) + encode(many)) == [fewer]
    with pytest.raises(RemoteProtocolError, match="holds more than 1048576 arrays") as caught:
        decoder.feed(b"")
    assert caught.value.offset == len(encode(fewer))


def test_long_frames_that_are_one_text_or_many_numbers_are_not_looked_at_byte_by_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count_heads(data: bytes) -> int:
        raise AssertionError(f"{len(data)} bytes were counted")

    monkeypatch.setattr(object_limit, "_count_head_bytes", count_heads)
    for value in (b"\x90" * 2_000_000, "é" * 1_000_000, [1.5] * 200_000, list(range(500_000))):
        assert not has_more_objects(msgspec.msgpack.encode(value), MIN_OBJECT_LIMIT)
