"""The codec: frames to messages and back. Only here do bytes become exact types. Pure, as framing is."""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, cast

import msgspec

from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError, ValueTooLarge
from pyrepl3_schemas.framing import HEADER, FrameDecoder
from pyrepl3_schemas.messages import (
    Call,
    Checkpointed,
    Chunk,
    Display,
    FromWorker,
    Message,
    Result,
    ToWorker,
)
from pyrepl3_schemas.object_limit import MIN_OBJECT_LIMIT, has_more_objects, max_objects

_to_worker = msgspec.msgpack.Decoder[ToWorker](ToWorker.__value__)
_from_worker = msgspec.msgpack.Decoder[FromWorker](FromWorker.__value__)


def _read_extension(code: int, data: memoryview) -> Any:
    from pyrepl3_schemas.extensions import read_extension  # few values hold one

    return read_extension(code, data)


_any = msgspec.msgpack.Decoder[Any](Any, ext_hook=_read_extension)
_raw = msgspec.msgpack.Decoder[msgspec.Raw](msgspec.Raw)
_encoder = msgspec.msgpack.Encoder()
_encode, _encode_into = _encoder.encode, _encoder.encode_into
_pack = HEADER.pack

# How deep msgspec can nest is the interpreter's C recursion limit: it differs between versions, and with
# what is on the stack. A value must be readable on the peer's stack too, inside a message, so it has to
# leave this many levels free.
_DEPTH_MARGIN: Final = b"\x91" * 256
_LARGE_BYTES: Final = 64 * 1024
_EXHAUSTED: Final = (RecursionError, MemoryError)
_INT64: Final = 2**63
_ONE_BYTE: Final = memoryview(b"x")
_ONE_BYTE_BIN: Final = b"\xc4\x01x"
_BIN_HEAD: Final = Struct(">BI")
_SHALLOW_BYTES: Final = 512
"""A value of at most so many bytes is not checked for its depth: each level takes at least one byte."""


def encode(message: Message, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> bytes:
    """Return the whole frame of a message, its length included.

    Args:
        message: what to send.
        max_frame_bytes: bytes that the frame's body may have.

    Raises:
        LocalProtocolError: the message does not encode (text with lone surrogates, an integer over
            64 bits), its frame would be longer than `max_frame_bytes`, or it holds more objects than
            `object_limit.max_objects` allows.
        MemoryError: there is not enough memory for it.
    """
    try:
        bytes_inside = _BYTES_INSIDE.get(type(message))
        if bytes_inside is not None and (large := bytes_inside(message)) > _LARGE_BYTES:
            # `encode` does not survive that its memory cannot grow; to a buffer that is a MemoryError.
            buffer = bytearray(large + _LARGE_BYTES)
            _encode_into(message, buffer)
            body = bytes(buffer)
        else:
            # One copy more than `encode_into` takes, and still twice as fast for small ones.
            body = _encode(message)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"{type(message).__name__} does not encode: {error}") from error
    size = len(body)
    if size > max_frame_bytes:
        raise LocalProtocolError(f"{type(message).__name__} takes {size} bytes, over {max_frame_bytes}")
    if size > MIN_OBJECT_LIMIT and has_more_objects(body, max_objects(max_frame_bytes)):
        raise LocalProtocolError(f"{type(message).__name__} {_too_many_objects(max_frame_bytes)}")
    return _pack(size) + body


def encode_chunk(chunk: Chunk) -> bytes:
    """Return all of a chunk's frame that stands before its data: the data itself is not copied.

    Args:
        chunk: a chunk with data, of such a size that its frame is not too long.
    """
    size = chunk.data.nbytes
    # The data is the last field, so it is the end of the frame; its own head is as for any length.
    head = _encode(msgspec.structs.replace(chunk, data=_ONE_BYTE))[: -len(_ONE_BYTE_BIN)]
    bin_head = _BIN_HEAD.pack(0xC6, size)
    return _pack(len(head) + len(bin_head) + size) + head + bin_head


def _bytes_of_result(message: Result) -> int:
    value = message.value
    return len(value) if type(value) is msgspec.Raw else 0


def _bytes_of_call(message: Call) -> int:
    return len(message.args) + len(message.kwargs)


def _bytes_of_display(message: Display) -> int:
    return sum(map(len, message.data.values()))


def _bytes_of_checkpoint(message: Checkpointed) -> int:
    return len(message.data) + sum(map(len, message.blobs.values()))


_BYTES_INSIDE: Final[dict[type, Callable[[Any], int]]] = {
    Result: _bytes_of_result,
    Call: _bytes_of_call,
    Display: _bytes_of_display,
    Checkpointed: _bytes_of_checkpoint,
}
"""What a worker sends that may be large, under a limit of its memory, and how large it is."""


class _MessageDecoder[M]:
    """Turns a stream of frames into messages. After an error it stays broken, as `FrameDecoder` does."""

    __slots__ = ("_decode", "frames")

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], max_frame_bytes: int) -> None:
        self.frames = FrameDecoder(max_frame_bytes)
        self._decode = decoder.decode

    @property
    def error(self) -> RemoteProtocolError | None:
        """The error that the next call will raise; None if the stream is not broken.

        A reader that checks this after each `feed` need not wait for bytes that may never come.
        """
        return self.frames.error

    def feed(self, data: bytes) -> list[M]:
        """Add the next bytes of the stream; return the messages that they complete.

        Complete messages before a bad one are returned first. The error is then in `error`, and the next
        call raises it; if there are no such messages, this call does.

        Args:
            data: the bytes.

        Raises:
            RemoteProtocolError: a bad length, or a body that is not a message; names offset and reason.
        """
        frames = self.frames
        bodies = frames.feed(data)
        decode = self._decode
        messages: list[M] = []
        try:
            for body in bodies:
                if len(body) > MIN_OBJECT_LIMIT and has_more_objects(
                    body, max_objects(frames.max_frame_bytes)
                ):
                    raise ValueError(f"it {_too_many_objects(frames.max_frame_bytes)}")  # noqa: TRY301 - as its decoder would
                messages.append(decode(body))
        except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
            # Without the cause: its traceback would keep every body of this batch in memory.
            undone = sum(HEADER.size + len(body) for body in bodies[len(messages) :])
            broken = frames.fail(f"a frame is no message: {_error_text(error)}", frames.offset - undone)
            if not messages:
                raise broken from None
        return messages

    def close(self) -> None:
        """Mark the end of the stream.

        Raises:
            RemoteProtocolError: the stream ended inside a frame, or was broken before.
        """
        self.frames.close()


class WorkerDecoder(_MessageDecoder[ToWorker]):
    """Decodes what a worker reads."""

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """Start at byte 0 of the stream to a worker; bodies may have `max_frame_bytes` bytes."""
        super().__init__(_to_worker, max_frame_bytes)


class ClientDecoder(_MessageDecoder[FromWorker]):
    """Decodes what a client reads."""

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """Start at byte 0 of the stream from a worker; bodies may have `max_frame_bytes` bytes."""
        super().__init__(_from_worker, max_frame_bytes)


def encode_value(
    value: object, max_bytes: int = DEFAULT_MAX_FRAME_BYTES, object_limit: int | None = None
) -> msgspec.Raw:
    """Return a value as MessagePack, as a field of a message holds it; see `values` for what it becomes.

    Args:
        value: the data.
        max_bytes: bytes that it may take.
        object_limit: arrays, maps, texts and extensions that it may hold; `max_objects(max_bytes)` if None.

    Raises:
        LocalProtocolError: the value holds something that has no plain form, or nests too deep for the peer
            to read it; `reason` says what and where.
        ValueTooLarge: it does not fit.
        MemoryError: there is not enough memory.
    """
    kind = type(value)
    # By identity: the hash of a class may be its metaclass's.
    if (
        value is None
        or kind is bool
        or kind is float
        or (kind is int and -_INT64 <= cast(int, value) < _INT64)
    ):
        return msgspec.Raw(_encode(value))
    from pyrepl3_schemas.plain_types import NoPlainForm
    from pyrepl3_schemas.values import encode_plain

    limit = max_objects(max_bytes) if object_limit is None else object_limit
    try:
        data = encode_plain(value, max_bytes, limit)
        if len(data) > _SHALLOW_BYTES and not isinstance(value, str | bytes):
            _raw.decode(_DEPTH_MARGIN + data)
    except NoPlainForm as error:
        raise (ValueTooLarge if error.too_large else LocalProtocolError)(error.reason) from None
    except MemoryError:
        raise
    except RecursionError:
        raise LocalProtocolError("it nests too deep") from None
    except Exception as error:
        # The value's own code (a mapping's, a property's) may run here and raise anything.
        raise LocalProtocolError(f"{_type_name(value)} cannot be read: {_error_text(error)}") from error
    return msgspec.Raw(data)


def decode_value(raw: msgspec.Raw) -> Any:
    """Return the value of MessagePack bytes; see `values` for what the extensions become.

    Args:
        raw: the bytes, such as a field of a decoded message.

    Raises:
        RemoteProtocolError: the bytes are not MessagePack, nest too deep, or hold a map as a key.
    """
    try:
        return _any.decode(raw)
    except (
        msgspec.MsgspecError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as error:
        raise RemoteProtocolError(f"a value does not decode: {_error_text(error)}") from error


def _too_many_objects(max_frame_bytes: int) -> str:
    return f"holds more than {max_objects(max_frame_bytes)} arrays, maps and texts"


def _error_text(error: BaseException) -> str:
    """Return an error's text; if that is empty, or `__str__` raises, the name of its type."""
    try:
        return str(error) or type(error).__name__
    except Exception as second:  # noqa: BLE001 - `__str__` may be the user's code
        return f"{type.__repr__(type(error))}, whose text raises {type.__repr__(type(second))}"


def _type_name(value: object) -> str:
    """Return the name of a value's type, without asking its metaclass for `__name__`."""
    return type.__dict__["__name__"].__get__(type(value))
