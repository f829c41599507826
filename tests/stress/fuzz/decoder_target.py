"""Both decoders: parent to worker, worker to parent.

Held against a second, naive reading of the same stream: the same messages, the same offset of the fault,
nothing but `RemoteProtocolError`, and no memory beyond what has arrived.
"""

import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final

import msgspec

from pyrepl3_schemas.codec import ClientDecoder, WorkerDecoder, decode_value, encode
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import FromWorker, Message, ToWorker
from tests.stress.fuzz.mutations import Case, describe, golden, make_case

_ONE: Final[dict[bool, Any]] = {
    True: msgspec.msgpack.Decoder[ToWorker](ToWorker.__value__),
    False: msgspec.msgpack.Decoder[FromWorker](FromWorker.__value__),
}
_WEIGH_EVERY: Final = 500
_PEAK_BASE: Final = 1024 * 1024
_PEAK_PER_BYTE: Final = 200
"""Bytes of memory that a byte on the wire may cost: an empty array takes one there and 64 here."""


class Decoders:
    """The target of processes for `decoder`."""

    def __init__(self, tally: Counter[str]) -> None:
        self._tally = tally
        self._done = 0

    def make(self, chance: Random) -> tuple[bool, Case]:
        """Return a direction and a stream."""
        to_worker = chance.random() < 0.5
        return to_worker, make_case(chance, golden(to_worker=to_worker))

    def check(self, to_worker: bool, case: Case) -> None:
        """Decode a stream.

        Raises:
            AssertionError: something else came of it than should.
        """
        self._done += 1
        if self._done % _WEIGH_EVERY:
            messages, error = decode(to_worker, case)
        else:
            messages, error = self._weighed(to_worker, case)
        expected, offset = naive(to_worker, case)
        assert len(messages) == len(expected), (
            f"{len(messages)} messages, {len(expected)} were expected"
            f" {describe(messages)} {describe(expected)} {error}"
        )
        for message, other in zip(messages, expected, strict=True):
            check_message(to_worker, message, other)
        assert (error is None) == (offset is None), f"{error}, expected at {offset}"
        if error is not None:
            assert error.offset == offset, f"{error} should name byte {offset}"
            assert error.reason, "an error without a reason"
            self._tally[_kind(error)] += 1
        self._tally["messages decoded"] += len(messages)

    def _weighed(self, to_worker: bool, case: Case) -> tuple[list[Message], RemoteProtocolError | None]:
        tracemalloc.start()
        try:
            outcome = decode(to_worker, case)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        most = _PEAK_BASE + _PEAK_PER_BYTE * len(case.stream)
        assert peak <= most, f"a stream of {len(case.stream)} bytes took {peak:,} bytes of memory"
        self._tally["streams weighed"] += 1
        return outcome

    def settle(self) -> None:
        """Nothing is left over."""


def decode(to_worker: bool, case: Case) -> tuple[list[Message], RemoteProtocolError | None]:
    """Decode in the case's chunks; return the messages and what the stream is broken by."""
    decoder = (WorkerDecoder if to_worker else ClientDecoder)(case.max_frame_bytes)
    messages: list[Message] = []
    error: RemoteProtocolError | None = None
    fed = 0
    try:
        for chunk in case.chunks():
            fed += len(chunk)
            messages += decoder.feed(chunk)
            held = decoder.frames.buffered
            assert held <= min(fed, case.max_frame_bytes + 4), f"{held} bytes are held of {fed}"
            if decoder.error is not None:
                error = decoder.error
                break
        else:
            decoder.close()
    except RemoteProtocolError as raised:
        error = raised
    if error is not None:
        _stays_broken(decoder, error)
    return messages, error


def _stays_broken(decoder: WorkerDecoder | ClientDecoder, error: RemoteProtocolError) -> None:
    assert decoder.frames.buffered == 0, "a broken decoder holds on to bytes"
    for again in (lambda: decoder.feed(b"\0\0\0\1\x80"), decoder.close):
        second = _raised(again)
        assert second is not None, "a broken decoder takes more"
        assert (second.reason, second.offset) == (error.reason, error.offset)
        assert second is not error


def _raised(step: Callable[[], object]) -> RemoteProtocolError | None:
    try:
        step()
    except RemoteProtocolError as error:
        return error
    return None


def naive(to_worker: bool, case: Case) -> tuple[list[Message], int | None]:
    """Read the stream as the contract words it: the messages, and the offset of the first fault."""
    data = case.stream
    messages: list[Message] = []
    offset = 0
    while offset < len(data):
        if offset + 4 > len(data):
            return messages, offset
        (size,) = struct.unpack_from(">I", data, offset)
        if size == 0 or size > case.max_frame_bytes or offset + 4 + size > len(data):
            return messages, offset
        try:
            messages.append(_ONE[to_worker].decode(data[offset + 4 : offset + 4 + size]))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return messages, offset
        offset += 4 + size
    return messages, None


def check_message(to_worker: bool, message: Message, other: Message) -> None:
    """What has been read can be written, and read again as the same; its free values too, or not at all."""
    assert message == other
    try:
        written = encode(message)
    except LocalProtocolError as error:
        raise AssertionError(f"{describe(message)} was read and cannot be written: {error}") from error
    # Not by its bytes: a set is written in whatever order it has.
    assert _ONE[to_worker].decode(written[4:]) == message
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, msgspec.Raw):
            _raised(partial(decode_value, value))
        elif isinstance(value, float):
            assert 0 <= value <= 1e9, f"{type(message).__name__}.{name} is {value}"


def _kind(error: RemoteProtocolError) -> str:
    for sign, kind in (
        ("frame length", "bad length"),
        ("ended inside", "ended inside a frame"),
        ("Invalid value", "unknown type"),
        ("missing required", "missing field"),
        ("Expected", "wrong type or bound"),
        ("trailing", "trailing bytes"),
        ("truncated", "truncated body"),
        ("utf-8", "invalid UTF-8"),
        ("recursion", "too deep"),
        ("opcode", "invalid opcode"),
    ):
        if sign in error.reason:
            return f"refused: {kind}"
    return "refused: other"
