"""How many objects a frame may become: counted as its decoder would make them, and refused on both sides."""

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas import density
from pyrepl3_schemas.codec import ClientDecoder, encode, encode_value
from pyrepl3_schemas.density import SURELY_FEW, exceeds, most_objects
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import Result

LENGTHS = st.sampled_from([0, 1, 2, 3, 4, 8, 15, 16, 31, 32, 255, 256, 65536])
NUMBERS = st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.integers(-300, 300)


def long_text(n: int) -> str:
    return "é" * n


def long_bytes(n: int) -> bytes:
    return b"\x90" * n


def extension(n: int) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(-n % 128, b"\x90" * n)


def array(item: Any, n: int) -> list[Any]:
    return [item] * min(n, 300)


def mixed(items: list[Any]) -> dict[Any, Any]:
    return {"k" * n: item for n, item in enumerate(items)}


LEAVES: Any = NUMBERS | LENGTHS.map(long_text) | LENGTHS.map(long_bytes) | LENGTHS.map(extension)


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=20)
    return lists | lists.map(mixed) | st.builds(array, inner, LENGTHS)


VALUES: st.SearchStrategy[Any] = st.recursive(LEAVES, around, max_leaves=20)


def objects_in(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(objects_in, cast("list[Any]", value)))
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value)
        return 1 + sum(objects_in(key) + objects_in(item) for key, item in pairs.items())
    return int(isinstance(value, str | bytes | msgspec.msgpack.Ext))


@given(VALUES)
def test_as_many_objects_are_counted_as_there_are(value: Any) -> None:
    data, count = msgspec.msgpack.encode(value), objects_in(value)
    for most in {max(count - 1, 0), count, count + 1}:
        assert exceeds(data, most) == (count > most)


@given(st.binary(max_size=300), st.integers(0, 5))
def test_of_broken_data_something_is_counted(data: bytes, most: int) -> None:
    assert exceeds(data, most) in (True, False)


def test_a_frame_may_hold_an_eighth_of_its_bytes_in_objects_and_a_million_always() -> None:
    assert most_objects(64 * 2**20) == 8 * 2**20
    assert most_objects(4096) == SURELY_FEW == 2**20


def test_both_sides_refuse_more() -> None:
    limit, empty = 2**22, list[int]()
    many = Result(execution_id="e", mode="", value=encode_value([empty] * SURELY_FEW))
    with pytest.raises(LocalProtocolError, match="holds more than 1048576 arrays"):
        encode(many, limit)
    fewer = Result(execution_id="e", mode="", value=encode_value([empty] * (SURELY_FEW - 100)))
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

    monkeypatch.setattr(density, "_heads_in", count_heads)
    for value in (b"\x90" * 2_000_000, "é" * 1_000_000, [1.5] * 200_000, list(range(500_000))):
        assert not exceeds(msgspec.msgpack.encode(value), SURELY_FEW)
