"""Frames to messages and back: the one place where bytes become exact types. Pure, like framing."""

from typing import Any

import msgspec

from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.framing import HEADER, FrameDecoder
from pyrepl3_schemas.messages import FromWorker, Message, ToWorker
from pyrepl3_schemas.version import DEFAULT_MAX_FRAME_BYTES

_to_worker = msgspec.msgpack.Decoder[ToWorker](ToWorker.__value__)
_from_worker = msgspec.msgpack.Decoder[FromWorker](FromWorker.__value__)
_any = msgspec.msgpack.Decoder[Any](Any)
_encode_into = msgspec.msgpack.Encoder().encode_into
_encode = msgspec.msgpack.Encoder().encode


def encode(message: Message, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> bytearray:
    """Give the whole frame, length included, of a message.

    Raises:
        LocalProtocolError: the message does not encode (text with lone surrogates, an integer over
            64 bits) or its frame would pass `max_frame_bytes`.
    """
    frame = bytearray(4)
    try:
        _encode_into(message, frame, 4)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"{type(message).__name__} does not encode: {error}") from error
    size = len(frame) - 4
    if size > max_frame_bytes:
        raise LocalProtocolError(f"{type(message).__name__} takes {size} bytes, over {max_frame_bytes}")
    HEADER.pack_into(frame, 0, size)
    return frame


class _MessageDecoder[M]:
    """Frames in, messages out; see `FrameDecoder` for what an error leaves behind."""

    __slots__ = ("_decode", "_error", "frames")

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], max_frame_bytes: int) -> None:
        self.frames = FrameDecoder(max_frame_bytes)
        self._decode = decoder.decode
        self._error: RemoteProtocolError | None = None

    def feed(self, data: bytes) -> list[M]:
        """Take the next bytes of the stream; give the messages that they complete.

        Messages that were whole before a bad one are given first; the error comes with the next
        call (or at once, when there are none).

        Raises:
            RemoteProtocolError: a bad length, or a body that is no message; names offset and reason.
        """
        if self._error is not None:
            raise self._error
        offset = self.frames.offset
        messages: list[M] = []
        for body in self.frames.feed(data):
            try:
                messages.append(self._decode(body))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
                self._error = RemoteProtocolError(f"a frame is no message: {error}", offset)
                if messages:
                    return messages
                raise self._error from error
            offset += 4 + len(body)
        return messages

    def close(self) -> None:
        """Say that the stream has ended.

        Raises:
            RemoteProtocolError: it ended inside a frame, or had gone wrong before.
        """
        if self._error is not None:
            raise self._error
        self.frames.close()


class WorkerDecoder(_MessageDecoder[ToWorker]):
    """What a worker reads."""

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """Start at byte 0 of the stream to a worker."""
        super().__init__(_to_worker, max_frame_bytes)


class ClientDecoder(_MessageDecoder[FromWorker]):
    """What a parent reads."""

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """Start at byte 0 of the stream from a worker."""
        super().__init__(_from_worker, max_frame_bytes)


def encode_value(value: object) -> msgspec.Raw:
    """Give plain data as MessagePack, to stand inside a message.

    Tuples and sets become arrays, dataclasses and structs maps, as msgspec does it.

    Raises:
        LocalProtocolError: the value holds something MessagePack has no form for.
    """
    try:
        return msgspec.Raw(_encode(value))
    except Exception as error:
        # Any code of the value's own (a mapping's, a property's) may run here and raise anything.
        raise LocalProtocolError(f"a {type(value).__name__} has no MessagePack form: {error}") from error


def decode_value(raw: msgspec.Raw) -> Any:
    """Give plain data back from MessagePack.

    Raises:
        RemoteProtocolError: the bytes are not MessagePack, or nest too deep.
    """
    try:
        return _any.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:
        raise RemoteProtocolError(f"a value does not decode: {error}") from error
