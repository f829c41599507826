"""Bodies in chunks: what comes out is what went in, whatever the sizes; what is out of order is refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.codec import encode_value
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import Chunk, Request, Response
from pyrepl3_schemas.transfer import (
    CHUNK_BYTES,
    MAX_CHUNKS_UNDER_WAY,
    Body,
    ReceivingParts,
    SendingParts,
    chunk_bytes,
    cut,
)


def carry(body: Body, max_frame_bytes: int, size: int) -> Body:
    """Send a body through chunks, each acknowledged as late as is allowed."""
    whole = cut(body, max_frame_bytes)
    receiving = ReceivingParts(Response("r", whole.value, parts=whole.sizes))
    sending = SendingParts("r", whole.parts, size)
    waiting: list[Chunk] = []
    while not sending.done:
        if sending.is_full:
            assert len(waiting) == MAX_CHUNKS_UNDER_WAY
            sending.acknowledge(waiting.pop(0))
        waiting.append(receiving.add(sending.next_chunk()))
    assert receiving.done
    return receiving.body() if whole.sizes else Body(whole.value)


def plain(body: Body) -> tuple[Any, list[bytes]]:
    """Return a body as data that can be compared."""
    value = bytes(body.value) if isinstance(body.value, msgspec.Raw) else None
    return value, [b"".join(part) for part in body.parts]


@given(st.binary(max_size=9000), st.lists(st.binary(min_size=1, max_size=3000), max_size=6))
def test_a_body_arrives_as_it_was(text: bytes, parts: list[bytes]) -> None:
    body = Body(encode_value(text), tuple((memoryview(part), memoryview(part)[:7]) for part in parts))
    assert plain(carry(body, 6000, 100)) == plain(body)


def test_a_short_value_stands_in_its_message_and_a_long_one_does_not() -> None:
    frame = 64 * 1024 * 1024
    assert cut(Body(encode_value(b"x" * 1000)), frame).sizes == []
    long = cut(Body(encode_value(b"x" * CHUNK_BYTES), ((memoryview(b"abc"),),)), frame)
    assert (long.value, long.sizes) == (msgspec.UNSET, [CHUNK_BYTES + 5, 3])
    assert chunk_bytes(frame) == CHUNK_BYTES
    assert chunk_bytes(4096) == 2048


def test_more_parts_than_a_message_can_list_are_an_error() -> None:
    with pytest.raises(ValueError, match="1,000 large buffers"):
        cut(Body(parts=((memoryview(b"x"),),) * 1000), 4096)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([Chunk("r", 1, data=memoryview(b"ab"))], id="not the first"),
        pytest.param(
            [Chunk("r", 0, data=memoryview(b"ab")), Chunk("r", 0, data=memoryview(b"c"))], id="twice"
        ),
        pytest.param([Chunk("r", 0, data=memoryview(b"abcd"))], id="of two parts"),
        pytest.param([Chunk("r", 0, data=memoryview(b"abc"), last=True)], id="last too early"),
        pytest.param([Chunk("r", 0)], id="nothing"),
        pytest.param(
            [Chunk("r", 0, data=memoryview(b"abc")), Chunk("r", 1, data=memoryview(b"d"))], id="last not said"
        ),
        pytest.param(
            [
                Chunk("r", 0, data=memoryview(b"abc")),
                Chunk("r", 1, data=memoryview(b"d"), last=True),
                Chunk("r", 2, data=memoryview(b"e")),
            ],
            id="too much",
        ),
    ],
)
def test_chunks_that_were_not_announced_are_refused(chunks: list[Chunk]) -> None:
    receiving = ReceivingParts(Request("r", "set", encode_value(1), [3, 1]))
    for chunk in chunks[:-1]:
        receiving.add(chunk)
    with pytest.raises(RemoteProtocolError, match="not what was announced"):
        receiving.add(chunks[-1])


def test_a_part_of_no_bytes_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="0 bytes"):
        ReceivingParts(Request("r", "set", parts=[0]))


@pytest.mark.parametrize("seqs", [[1], [0, 0], [-1]])
def test_an_acknowledgement_of_what_is_not_under_way_is_refused(seqs: list[int]) -> None:
    sending = SendingParts("r", [(memoryview(b"abcdef"),)], 2)
    sending.next_chunk()
    for seq in seqs[:-1]:
        sending.acknowledge(Chunk("r", seq))
    with pytest.raises(RemoteProtocolError, match="acknowledged chunk"):
        sending.acknowledge(Chunk("r", seqs[-1]))


def test_both_sides_may_give_up() -> None:
    receiving = ReceivingParts(Request("r", "set", parts=[6]))
    sending = SendingParts("r", [(memoryview(b"abcdef"),)], 2)
    receiving.add(sending.next_chunk())
    sending.acknowledge(Chunk("r", 0, last=True))
    assert sending.done
    receiving.add(sending.give_up())
    assert receiving.given_up
    assert not receiving.done
