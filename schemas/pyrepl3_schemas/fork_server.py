"""What a client and a template process say to each other: one message a packet, on a SOCK_SEQPACKET pair.

No part of the worker's protocol: a client in another language spawns its workers and never sees this.
"""

from typing import Final

import msgspec


class Fork(msgspec.Struct, frozen=True, tag_field="type", tag="fork"):
    """To the template: fork a worker. With it come its five fds, in the order of `FORK_FDS`."""

    number: int
    """Names the request; its answers carry it."""
    arguments: list[str]
    """The worker's command line, without `--capture`."""


FORK_FDS: Final = ("stdin", "stdout", "stderr", "captured stdout", "captured stderr")


class Forked(msgspec.Struct, frozen=True, tag_field="type", tag="forked"):
    """The worker is there. Both it and the template say so, for either may be killed before."""

    number: int
    pid: int


class NotForked(msgspec.Struct, frozen=True, tag_field="type", tag="not_forked"):
    """The kernel refused."""

    number: int
    reason: str


class CanFork(msgspec.Struct, frozen=True, tag_field="type", tag="fit"):
    """Everything is imported, and a fork of this process is as good as a fresh one."""


class CannotFork(msgspec.Struct, frozen=True, tag_field="type", tag="unfit"):
    """No worker may be forked from this process; it ends."""

    reason: str


type FromForkServer = Forked | NotForked | CanFork | CannotFork

MAX_PACKET_BYTES: Final = 64 * 1024
"""Longest message."""

_encoder: Final = msgspec.msgpack.Encoder()
_requests: Final = msgspec.msgpack.Decoder(Fork)
_answers: Final[msgspec.msgpack.Decoder[FromForkServer]] = msgspec.msgpack.Decoder(
    Forked | NotForked | CanFork | CannotFork
)


def encode_packet(message: Fork | FromForkServer) -> bytes:
    """Give a message's packet."""
    return _encoder.encode(message)


def decode_request(packet: bytes) -> Fork:
    """Read what a client sent."""
    return _requests.decode(packet)


def decode_answer(packet: bytes) -> FromForkServer:
    """Read what a template, or a worker just forked, sent.

    Raises:
        msgspec.DecodeError: it is no such message.
    """
    return _answers.decode(packet)
