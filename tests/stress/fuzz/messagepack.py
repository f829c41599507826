"""MessagePack as a tree that can lie: what a well-behaved encoder would never write can be said here."""

import struct
from typing import Any, cast

import msgspec

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder[Any](Any).decode

type Tree = Any
"""A scalar, a list of trees, a `Pairs`, or `Verbatim` bytes."""


class Pairs(list[tuple[Tree, Tree]]):
    """A map whose keys may be anything, in any order, and come twice."""


class Verbatim(bytes):
    """Bytes that stand in the encoding as they are."""


def parse(body: bytes) -> Tree:
    """Return the tree of a body.

    Raises:
        msgspec.MsgspecError, ValueError, TypeError, RecursionError: it is no MessagePack.
    """
    return _to_tree(_decode(body))


def _to_tree(value: Any) -> Tree:
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value)
        return Pairs((_to_tree(key), _to_tree(item)) for key, item in pairs.items())
    if isinstance(value, list | tuple):
        return [_to_tree(item) for item in cast("list[Any]", value)]
    return value


def pack(tree: Tree) -> bytes:
    """Return the bytes of a tree."""
    parts: list[bytes] = []
    _pack(tree, parts)
    return b"".join(parts)


def _pack(tree: Tree, parts: list[bytes]) -> None:
    if isinstance(tree, Verbatim):
        parts.append(tree)
    elif isinstance(tree, Pairs):
        parts.append(head(0x80, 0xDE, len(tree)))
        for key, value in tree:
            _pack(key, parts)
            _pack(value, parts)
    elif isinstance(tree, list):
        items = cast("list[Tree]", tree)
        parts.append(head(0x90, 0xDC, len(items)))
        for item in items:
            _pack(item, parts)
    else:
        parts.append(_encode(tree))


def head(short: int, code16: int, count: int) -> bytes:
    """Return the first bytes of an array or map."""
    if count < 16:
        return bytes([short | count])
    if count < 2**16:
        return struct.pack(">BH", code16, count)
    return struct.pack(">BI", code16 + 1, count)


def nested(depth: int, opening: bytes = b"\x91", core: bytes = b"\xc0") -> Verbatim:
    """Return arrays (or, with `opening` 81 a1 61, maps) in each other."""
    return Verbatim(opening * depth + core)


POISON: tuple[Tree, ...] = (
    None, True, False, 0, 1, -1, 255, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, -0.0, 0.5, -1.0, 1e9, 1.1e9, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"),
    "", "a", "\0", "\r\n", "e-1", "%s{0}{}", "\x1b[2J\x1b]0;x\x07", "ÿ", "\U0001f600", "x" * 300, "type",
    b"", b"\0", b"\xff" * 40, [], [None], [[]], Pairs(), Pairs([("a", 1)]), Pairs([(1, 2), (None, [])]),
    Pairs([(Pairs(), 1)]), Pairs([([1], 1)]), Pairs([("a", 1), ("a", 2)]),
    nested(60), nested(500), nested(5000), nested(3000, b"\x81\xa1a"), nested(40, b"\x81\x80"),
    Verbatim(b"\xa4\xff\xfe\xfd\xfc"),                   # text that is no UTF-8
    Verbatim(b"\xa3\xed\xa0\x80"),                       # a lone surrogate
    Verbatim(b"\xa1"), Verbatim(b"\xd9\xff"), Verbatim(b"\xda\xff\xff"), Verbatim(b"\xdb\xff\xff\xff\xff"),
    Verbatim(b"\xc4\xff"), Verbatim(b"\xc6\xff\xff\xff\xff"), Verbatim(b"\xc6\x7f\xff\xff\xffab"),
    Verbatim(b"\x9f"), Verbatim(b"\xdc\xff\xff"), Verbatim(b"\xdd\xff\xff\xff\xff"),
    Verbatim(b"\xdd\x0f\xff\xff\xff" + b"\xc0" * 50), Verbatim(b"\x8f"), Verbatim(b"\xdf\xff\xff\xff\xff"),
    Verbatim(b"\xdf\x0f\xff\xff\xff" + b"\xa1a\xc0" * 9), Verbatim(b"\xdf\x00\x00\x00\x01\xa1a\xc0"),
    Verbatim(b"\xc1"), Verbatim(b"\xca\x7f\xc0\x00\x00"), Verbatim(b"\xcf" + b"\xff" * 8),
    Verbatim(b"\xd3\x80" + b"\0" * 7), Verbatim(b"\xcd\x00\x01"),
    Verbatim(b"\xd4\x05\x00"), Verbatim(b"\xc9\xff\xff\xff\xff\x01"), Verbatim(b"\xc7\x00\x00"),
    Verbatim(b"\xd6\xff\0\0\0\0"), Verbatim(b"\xd7\xff" + b"\xff" * 8),
    Verbatim(b"\xc7\x0c\xff\xff\xff\xff\xff\x7f" + b"\xff" * 7), Verbatim(b"\xc7\x03\xff\0\0\0"),
)  # fmt: skip
"""What may stand in the place of anything."""
