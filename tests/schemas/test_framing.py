"""Bytes to frame bodies: any chunking, any garbage, bounded memory, and the size limit both ways."""

import struct
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.framing import FrameDecoder
from tests.helpers.frames import framed
from tests.helpers.wire_strategies import chunked, naive_frames

LIMIT = 64


def frame_like(size: int, body: bytes) -> bytes:
    """Put a length, right or wrong, before a body of that length where it can be."""
    return struct.pack(">I", size) + body[: max(size, 1)]


# Mostly lengths near the limit and bodies that fit them: pure noise would end at its first length.
frames = st.builds(
    frame_like,
    st.integers(0, LIMIT + 2) | st.sampled_from([2**31, 2**32 - 1]),
    st.binary(min_size=LIMIT + 2, max_size=LIMIT + 2),
)
streams = st.lists(frames | st.binary(max_size=6), max_size=8).map(b"".join)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


def read(decoder: FrameDecoder, chunks: list[bytes]) -> tuple[list[bytes], RemoteProtocolError | None]:
    """Feed chunks until the decoder refuses one; no other exception gets through."""
    bodies: list[bytes] = []
    for chunk in chunks:
        try:
            bodies += decoder.feed(chunk)
        except RemoteProtocolError as error:
            return bodies, error
        assert decoder.buffered < 4 + decoder.max_frame_bytes
    return bodies, decoder.error


@given(streams, cuts)
def test_any_stream_in_any_chunks_gives_what_a_naive_decoder_gives(stream: bytes, cuts: list[int]) -> None:
    expected, bad_offset, rest = naive_frames(stream, LIMIT)
    decoder = FrameDecoder(LIMIT)
    bodies, error = read(decoder, chunked(stream, cuts))
    assert bodies == expected
    assert all(type(body) is bytes for body in bodies)
    assert (None if error is None else error.offset) == bad_offset
    assert decoder.offset == sum(4 + len(body) for body in expected)
    assert decoder.buffered == len(rest)


@given(st.lists(st.binary(min_size=1, max_size=LIMIT), max_size=6))
def test_a_byte_at_a_time_gives_the_same_frames_as_all_at_once(bodies: list[bytes]) -> None:
    stream = b"".join(framed(body) for body in bodies)
    assert FrameDecoder(LIMIT).feed(stream) == bodies
    assert read(FrameDecoder(LIMIT), [stream[i : i + 1] for i in range(len(stream))]) == (bodies, None)


@given(streams, cuts, st.binary(max_size=20))
def test_a_broken_decoder_stays_broken_and_holds_nothing(stream: bytes, cuts: list[int], more: bytes) -> None:
    decoder = FrameDecoder(LIMIT)
    for chunk in chunked(stream + b"\xff\xff\xff\xff" * 20, cuts):
        read(decoder, [chunk])
    assert decoder.error is not None
    first = (decoder.error.reason, decoder.error.offset)
    for again in (lambda: decoder.feed(more), lambda: decoder.feed(b""), decoder.close):
        with pytest.raises(RemoteProtocolError) as caught:
            again()
        assert (caught.value.reason, caught.value.offset) == first
        assert decoder.buffered == 0


def test_what_was_whole_before_a_bad_length_is_given_first() -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(framed(b"ab") + framed(b"c") + bytes(4)) == [b"ab", b"c"]
    # Whoever looks need not wait for bytes that may never come.
    assert decoder.error is not None
    with pytest.raises(RemoteProtocolError, match=r"frame length 0 is outside 1\.\.64 \(at byte 11\)"):
        decoder.feed(b"")


@pytest.mark.parametrize("size", [1, LIMIT - 1, LIMIT])
def test_frames_up_to_the_limit_pass(size: int) -> None:
    body = bytes(size)
    assert FrameDecoder(LIMIT).feed(framed(body)) == [body]


@pytest.mark.parametrize("size", [0, LIMIT + 1, 10 * LIMIT])
def test_frames_past_the_limit_do_not_pass(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"frame length {size} "):
        FrameDecoder(LIMIT).feed(struct.pack(">I", size))


def test_an_agreed_limit_counts_from_the_next_frame_on() -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(framed(b"x" * LIMIT)) == [b"x" * LIMIT]
    decoder.max_frame_bytes = 2 * LIMIT
    assert decoder.feed(framed(b"x" * 2 * LIMIT)) == [b"x" * 2 * LIMIT]


@pytest.mark.parametrize("length", range(1, 10))
def test_the_end_inside_a_frame_is_an_error_that_says_how_far_it_came(length: int) -> None:
    decoder = FrameDecoder(LIMIT)
    whole = framed(b"before")
    decoder.feed(whole + framed(b"123456")[:length])
    with pytest.raises(RemoteProtocolError, match=f"after {length} of its bytes") as caught:
        decoder.close()
    assert caught.value.offset == len(whole)


def test_the_end_between_frames_is_no_error() -> None:
    decoder = FrameDecoder(LIMIT)
    decoder.close()
    decoder.feed(framed(b"x"))
    decoder.close()


def test_a_length_alone_costs_no_memory_whatever_it_claims() -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        decoder.feed(struct.pack(">I", decoder.max_frame_bytes) + b"x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("piece", [7, 4096])
def test_a_long_frame_in_pieces_is_held_about_once(piece: int) -> None:
    size = 1_000_000
    stream = framed(bytes(size))
    chunks = [stream[start : start + piece] for start in range(0, len(stream), piece)]
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        bodies = [body for chunk in chunks for body in decoder.feed(chunk)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(body) for body in bodies] == [size]
    assert peak < 1.5 * size


def test_a_long_frame_in_pieces_takes_linear_time() -> None:
    def cpu_seconds(pieces: int) -> float:
        decoder = FrameDecoder()
        decoder.feed(struct.pack(">I", 256 * pieces))
        piece = bytes(256)
        start = time.process_time()
        for _ in range(pieces - 1):
            decoder.feed(piece)
        assert len(decoder.feed(piece)) == 1
        return time.process_time() - start

    # Four times the length is 4 times the work; were all that is held moved for each piece, 16 times.
    short, long = (min(cpu_seconds(pieces) for _ in range(5)) for pieces in (4000, 16000))
    assert long < 10 * short
