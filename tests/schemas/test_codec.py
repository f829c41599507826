"""Frames to messages: everything survives the round trip, and nothing but messages comes out."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.codec import ClientDecoder, WorkerDecoder, encode
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import (
    Call,
    Error,
    ExceptionData,
    Execute,
    Hello,
    Message,
    Output,
    Ping,
    Pong,
    Result,
)
from tests.helpers.frames import framed
from tests.helpers.wire_strategies import (
    MESSAGE_TYPES,
    chunked,
    decoder_of,
    from_worker,
    of_struct,
    to_worker,
)

cuts = st.lists(st.integers(0, 100_000), max_size=12)


def read(decoder: WorkerDecoder | ClientDecoder, chunks: list[bytes]) -> list[Message]:
    """Feed chunks until the stream is found broken; no other exception gets through."""
    messages: list[Message] = []
    for chunk in chunks:
        try:
            messages += decoder.feed(chunk)
        except RemoteProtocolError:
            break
    return messages


@pytest.mark.parametrize("cls", MESSAGE_TYPES, ids=lambda cls: f"{cls.__name__}")
@given(data=st.data())
def test_every_message_survives_the_round_trip(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(of_struct(cls))
    assert decoder_of(cls).feed(encode(message)) == [message]


@given(st.lists(to_worker, max_size=5), cuts)
def test_any_chunking_gives_a_worker_the_same_messages(messages: list[Message], cuts: list[int]) -> None:
    stream = b"".join(map(encode, messages))
    decoder = WorkerDecoder()
    assert read(decoder, chunked(stream, cuts)) == messages
    decoder.close()


@given(st.lists(from_worker, max_size=5), cuts)
def test_any_chunking_gives_a_parent_the_same_messages(messages: list[Message], cuts: list[int]) -> None:
    stream = b"".join(map(encode, messages))
    decoder = ClientDecoder()
    assert read(decoder, chunked(stream, cuts)) == messages
    decoder.close()


# --- what is broken -----------------------------------------------------------------------------------


@given(st.lists(from_worker, min_size=1, max_size=4), st.data(), cuts)
def test_a_corrupted_stream_gives_messages_or_an_error_and_nothing_else(
    messages: list[Message], data: st.DataObject, cuts: list[int]
) -> None:
    frames = [encode(message) for message in messages]
    stream = bytearray(b"".join(frames))
    at = data.draw(st.integers(0, len(stream) - 1), label="at")
    stream[at] ^= data.draw(st.integers(1, 255), label="bits")
    decoder = ClientDecoder(2**20)
    read_back = read(decoder, chunked(bytes(stream), cuts))
    # Whatever the damage does, the messages before it are untouched.
    whole = 0
    while sum(map(len, frames[: whole + 1])) <= at:
        whole += 1
    assert read_back[:whole] == messages[:whole]
    if decoder.error is not None:
        assert decoder.error.reason
        assert decoder.error.offset is not None
        assert sum(map(len, frames[:whole])) <= decoder.error.offset <= len(stream)


@given(st.binary(max_size=60), cuts)
def test_garbage_as_a_body_gives_messages_or_an_error_and_nothing_else(body: bytes, cuts: list[int]) -> None:
    for decoder in (WorkerDecoder(), ClientDecoder()):
        messages = read(decoder, chunked(framed(b"\x80" + body), cuts))
        assert (not messages) == (decoder.error is not None)


@given(from_worker, st.data())
def test_a_truncated_stream_is_an_error_once_it_ends(message: Message, data: st.DataObject) -> None:
    before = encode(Pong())
    frame = encode(message)
    kept = data.draw(st.integers(1, len(frame) - 1), label="kept")
    decoder = ClientDecoder()
    assert decoder.feed(before + frame[:kept]) == [Pong()]
    with pytest.raises(RemoteProtocolError, match=f"after {kept} of its bytes") as caught:
        decoder.close()
    assert caught.value.offset == len(before)


@given(from_worker, st.binary(max_size=200))
def test_a_decoder_that_has_failed_once_fails_for_good(message: Message, more: bytes) -> None:
    decoder = ClientDecoder()
    before = encode(Pong())
    assert decoder.feed(before + framed(b"\xc1") + encode(message) + b"\0\0\0") == [Pong()]
    assert decoder.error is not None
    assert decoder.frames.buffered == 0
    for again in (lambda: decoder.feed(more), lambda: decoder.feed(encode(message)), decoder.close):
        with pytest.raises(RemoteProtocolError, match=r"no message: .*invalid opcode") as caught:
            again()
        assert caught.value.offset == len(before)
        assert decoder.frames.buffered == 0


def test_the_first_of_two_faults_is_the_one_that_is_named() -> None:
    decoder = ClientDecoder()
    with pytest.raises(RemoteProtocolError, match="no message") as caught:
        decoder.feed(framed(b"\xc1") + bytes(4))
    assert caught.value.offset == 0


def test_an_error_that_is_raised_again_gathers_no_tracebacks() -> None:
    decoder = WorkerDecoder()
    lengths: list[int] = []
    for _ in range(3):
        with pytest.raises(RemoteProtocolError) as caught:
            decoder.feed(framed(b"\xc1"))
        lengths.append(len(caught.traceback))
        # A cause would hold on to a traceback, and with it to every body of that batch.
        assert caught.value.__cause__ is None
    assert lengths[1:] == [lengths[1]] * 2


@pytest.mark.parametrize("word", ["teleport", "RESULT", "", "result\0"])
def test_an_unknown_type_is_refused_by_name(word: str) -> None:
    body = msgspec.msgpack.encode({"type": word, "execution_id": "e", "mode": "m"})
    with pytest.raises(RemoteProtocolError) as caught:
        ClientDecoder().feed(framed(body))
    assert f"Invalid value '{word}'" in caught.value.reason
    assert "type" in caught.value.reason


def test_a_type_of_the_other_direction_is_unknown() -> None:
    with pytest.raises(RemoteProtocolError, match="Invalid value 'result'"):
        WorkerDecoder().feed(encode(Result("e", "simple_sync")))
    with pytest.raises(RemoteProtocolError, match="Invalid value 'execute'"):
        ClientDecoder().feed(encode(Execute("e", "1")))


def test_a_reason_that_the_peer_chose_is_cut() -> None:
    body = msgspec.msgpack.encode({"type": "x" * 1_000_000})
    with pytest.raises(RemoteProtocolError) as caught:
        ClientDecoder().feed(framed(body))
    assert "Invalid value 'xxx" in caught.value.reason
    assert len(str(caught.value.args)) < 500


@given(from_worker, st.dictionaries(st.text(min_size=1).map("x-{}".format), st.text() | st.integers(0, 9)))
def test_unknown_keys_are_ignored(message: Message, more: dict[str, Any]) -> None:
    body: dict[str, Any] = msgspec.msgpack.decode(encode(message)[4:])
    # Free values may hold keys of every kind; those are the message's own business.
    frame = framed(msgspec.msgpack.encode(more | body))
    assert ClientDecoder().feed(frame) == ClientDecoder().feed(encode(message))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x82\xa4type\xa4pong\xa1x" + b"\x91" * 1_000_000 + b"\xc0", id="an unknown key"),
        pytest.param(
            b"\x84\xa4type\xa6result\xacexecution_id\xa1e\xa4mode\xa1m\xa5value"
            + b"\x91" * 1_000_000
            + b"\xc0",
            id="a value",
        ),
        pytest.param(
            b"\x84\xa4type\xa5error\xa4kind\xa9exception\xa9exception\xa1e\xa7message\xa1m".replace(
                b"\x84", b"\x85", 1
            )
            + b"\xa5cause"
            + b"\x83\xa9exception\xa1e\xa7message\xa1m\xa5cause" * 100_000
            + b"\xc0",
            id="a chain of causes",
        ),
    ],
)
def test_a_body_that_nests_without_end_is_an_error_not_a_crash(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="recursion depth"):
        ClientDecoder().feed(framed(body))


# --- what we refuse to send ---------------------------------------------------------------------------


@given(from_worker, st.integers(1, 200))
def test_no_frame_is_longer_than_agreed(message: Message, limit: int) -> None:
    size = len(encode(message)) - 4
    if size <= limit:
        assert len(encode(message, limit)) == 4 + size
        return
    with pytest.raises(
        LocalProtocolError, match=f"{type(message).__name__} takes {size} bytes, over {limit}"
    ):
        encode(message, limit)


def test_a_frame_of_exactly_the_limit_passes_and_one_more_byte_does_not() -> None:
    message = Output("stdout", "x" * 5000)
    frame = encode(message)
    assert encode(message, len(frame) - 4) == frame
    with pytest.raises(LocalProtocolError, match="over"):
        encode(message, len(frame) - 5)
    assert ClientDecoder(len(frame) - 4).feed(frame) == [message]
    with pytest.raises(RemoteProtocolError, match="frame length"):
        ClientDecoder(len(frame) - 5).feed(frame)


def endless_chain() -> ExceptionData:
    """Return a chain of causes deeper than any stack."""
    chain = ExceptionData("E", "m")
    for _ in range(50_000):
        chain = ExceptionData("E", "m", cause=chain)
    return chain


@pytest.mark.parametrize(
    ("message", "says"),
    [
        pytest.param(Output("stdout", "\ud800"), "surrogates not allowed", id="a lone surrogate"),
        pytest.param(Ping(2**64), "ints", id="an integer over 64 bits"),
        pytest.param(Ping(-(2**63) - 1), "ints", id="an integer under 64 bits"),
        pytest.param(Error("exception", "E", "m", cause=endless_chain()), "recursion", id="a chain too deep"),
        pytest.param(Output("stdout", object()), "object", id="no text at all"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_does_not_encode_is_our_error_and_names_the_message(message: Message, says: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"{type(message).__name__} does not encode: .*{says}"):
        encode(message)


def test_defaults_take_no_room() -> None:
    assert encode(Ping()) == b"\0\0\0\x0b\x81\xa4type\xa4ping"
    assert len(encode(Hello(1, "s"))) < 50


def test_arguments_that_are_not_there_are_not_nil() -> None:
    body = msgspec.msgpack.encode({"type": "call", "call_id": "c", "execution_id": "e", "capability": "f"})
    with pytest.raises(RemoteProtocolError, match="missing required field `args`"):
        ClientDecoder().feed(framed(body))
    nil = msgspec.Raw(b"\xc0")
    call = Call("c", "e", "f", args=nil, kwargs=nil)
    assert ClientDecoder().feed(encode(call)) == [call]
