"""The messages between a client and its fork server: one message a packet, on a SOCK_SEQPACKET pair.

They are not part of the worker's protocol: a client in another language spawns workers without them.
"""

from typing import Final

import msgspec


class Fork(msgspec.Struct, frozen=True, tag_field="type", tag="fork"):
    """To the fork server: fork a worker. Its five fds come with the packet, in the order of `FORK_FDS`."""

    number: int
    """The number of the request, which its answers carry."""
    arguments: list[str]
    """The worker's command line, without `--capture`."""


FORK_FDS: Final = ("stdin", "stdout", "stderr", "captured stdout", "captured stderr")


class Forked(msgspec.Struct, frozen=True, tag_field="type", tag="forked"):
    """The worker exists. Both it and the fork server send this, since either may be killed before it does."""

    number: int
    pid: int


class NotForked(msgspec.Struct, frozen=True, tag_field="type", tag="not_forked"):
    """The kernel refused to fork."""

    number: int
    reason: str


class CanFork(msgspec.Struct, frozen=True, tag_field="type", tag="fit"):
    """All modules are imported, and a fork of this process works as well as a new process."""


class CannotFork(msgspec.Struct, frozen=True, tag_field="type", tag="unfit"):
    """No worker may be forked from this process; it ends."""

    reason: str


type FromForkServer = Forked | NotForked | CanFork | CannotFork

MAX_PACKET_BYTES: Final = 64 * 1024
"""Bytes of the longest message."""

_encoder: Final = msgspec.msgpack.Encoder()
_requests: Final = msgspec.msgpack.Decoder(Fork)
_answers: Final[msgspec.msgpack.Decoder[FromForkServer]] = msgspec.msgpack.Decoder(
    Forked | NotForked | CanFork | CannotFork
)


def encode_packet(message: Fork | FromForkServer) -> bytes:
    """Return the packet of a message.

    Args:
        message: a request to a fork server, or an answer of it.
    """
    return _encoder.encode(message)


def decode_request(packet: bytes) -> Fork:
    """Return the request in a packet from a client.

    Args:
        packet: what one `recv` returned.

    Raises:
        msgspec.DecodeError: the packet is no request.
    """
    return _requests.decode(packet)


def decode_answer(packet: bytes) -> FromForkServer:
    """Return the answer in a packet from a fork server, or from a worker that it has just forked.

    Args:
        packet: what one `recv` returned.

    Raises:
        msgspec.DecodeError: the packet is no answer.
    """
    return _answers.decode(packet)
