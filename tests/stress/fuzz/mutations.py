"""Frames that are nearly right, and streams of them. Every choice comes from the `Random` that is given."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from tests.stress.fuzz.messagepack import POISON, Pairs, Tree, Verbatim, pack, parse
from tools.generate_schema import read_hex
from tools.json_form import message_types

VECTORS: Final = Path(__file__).parents[3] / "schemas" / "vectors"
_HEADER: Final = struct.Struct(">I")
_LONG: Final = 4096
"""Bytes of a body from which on it is a long one, and used rarely."""
_LIMITS: Final = (2**26, 2**26, 2**16, 4096)


@dataclass(frozen=True)
class Case:
    """A stream of frames, right and wrong ones, as it is sent."""

    frames: list[bytes]
    """With their lengths, which may lie."""
    max_frame_bytes: int = 2**26
    choice: int = 0
    """Seeds what the target decides by itself, such as where the stream is cut."""

    @property
    def stream(self) -> bytes:
        return b"".join(self.frames)

    def chunks(self) -> Iterator[bytes]:
        """Return the stream in the pieces in which it arrives."""
        chance = Random(self.choice)
        stream = self.stream
        if chance.random() < 0.3:
            yield stream
            return
        start = 0
        while start < len(stream):
            size = chance.choice((1, 2, 3, 4, 5, 7, 64, 1000, len(stream)))
            yield stream[start : start + size]
            start += size


@dataclass(frozen=True)
class Corpus:
    """Bodies to begin from, all of one direction."""

    bodies: list[bytes] = field(default_factory=list[bytes])
    trees: list[Tree] = field(default_factory=list[Tree])
    long: list[bytes] = field(default_factory=list[bytes])

    def add(self, body: bytes) -> None:
        """Take a body; one that is no MessagePack for mutations of bytes alone."""
        if len(body) >= _LONG:
            self.long.append(body)
            return
        self.bodies.append(body)
        try:
            tree = parse(body)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            return
        if isinstance(tree, Pairs) and tree:
            self.trees.append(tree)


@cache
def golden(*, to_worker: bool) -> Corpus:
    """Return the golden vectors of a direction, the invalid ones too."""
    corpus = Corpus()
    direction = "to_worker" if to_worker else "from_worker"
    for path in sorted(VECTORS.glob("*.json")):
        for vector in json.loads(path.read_text(encoding="utf-8"))["vectors"]:
            if vector["direction"] == direction:
                corpus.add(read_hex(vector["hex"])[_HEADER.size :])
    return corpus


@cache
def _tags() -> tuple[str, ...]:
    return (*message_types(to_worker=True), *message_types(to_worker=False), "teleport", "")


# --- one body -----------------------------------------------------------------------------------------


def _flip(chance: Random, body: bytes) -> bytes:
    data = bytearray(body or b"\0")
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _poke(chance: Random, body: bytes) -> bytes:
    place = chance.randrange(len(body) + 1)
    with_ = chance.choice((b"\0", b"\xff", b"\xc1", b"\x80", b"\x90", b"\xa0", b"\xdf", b"\xdd", b"\xc9"))
    return body[:place] + with_ + body[place + chance.randrange(2) :]


def _truncate(chance: Random, body: bytes) -> bytes:
    return body[: chance.randrange(len(body) + 1)]


def _repeat(chance: Random, body: bytes) -> bytes:
    start = chance.randrange(len(body) + 1)
    end = min(len(body), start + chance.randrange(1, 64))
    return body[:end] + body[start:end] * chance.choice((1, 2, 40)) + body[end:]


def _cut_out(chance: Random, body: bytes) -> bytes:
    start = chance.randrange(len(body) + 1)
    return body[:start] + body[start + chance.randrange(1, 16) :]


def _noise(chance: Random, body: bytes) -> bytes:
    return chance.randbytes(chance.randrange(1, 80))


BYTE_MUTATIONS: Final = (_flip, _flip, _flip, _poke, _truncate, _repeat, _cut_out, _noise)


def _replace_somewhere(chance: Random, tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    """Return a copy of a tree in which one place, at any depth, is changed."""
    if isinstance(tree, Pairs) and tree and chance.random() < 0.85:
        pairs = Pairs(tree)
        place = chance.randrange(len(pairs))
        key, value = pairs[place]
        if chance.random() < 0.1:
            pairs[place] = change(key), value
        else:
            pairs[place] = key, _replace_somewhere(chance, value, change)
        return pairs
    if isinstance(tree, list) and tree and not isinstance(tree, Pairs) and chance.random() < 0.7:
        items: list[Tree] = list(tree)  # pyright: ignore[reportUnknownArgumentType] - a tree is anything
        place = chance.randrange(len(items))
        items[place] = _replace_somewhere(chance, items[place], change)
        return items
    return change(tree)


def _mutate_fields(chance: Random, corpus: Corpus, tree: Pairs) -> Tree:
    """Change which fields there are, what they are called, and in which order they stand."""
    pairs = Pairs(tree)
    place, other = chance.randrange(len(pairs)), chance.randrange(len(pairs))
    key, value = pairs[place]
    match chance.randrange(9):
        case 0:
            del pairs[place]
        case 1:
            pairs.insert(other, (key, chance.choice(POISON)))
        case 2:
            pairs[place] = chance.choice(POISON), value
        case 3:
            pairs.append((chance.choice(("future", "", "__class__", 7)), chance.choice(POISON)))
        case 4:
            pairs[place], pairs[other] = (key, pairs[other][1]), (pairs[other][0], value)
        case 5:
            chance.shuffle(pairs)
        case 6:
            tag = chance.choice(_tags())
            return Pairs([("type", tag), *((k, v) for k, v in pairs if k != "type")])
        case 7:
            pairs.extend(chance.choice(corpus.trees))
        case _:
            return chance.choice(([item for pair in pairs for item in pair], [pairs], Pairs([(0, pairs)])))
    return pairs


def mutate_tree(chance: Random, corpus: Corpus, tree: Pairs) -> Tree:
    """Return a message that differs in what it says."""
    dice = chance.random()
    if dice < 0.35:
        return _mutate_fields(chance, corpus, tree)
    if dice < 0.85:
        return _replace_somewhere(chance, tree, lambda _: chance.choice(POISON))
    if dice < 0.92:
        _, grafted = chance.choice(chance.choice(corpus.trees))
        return _replace_somewhere(chance, tree, lambda _: grafted)
    # The same thing in another wrapping: text as bytes, a map as an array, a list as an extension.
    return _replace_somewhere(chance, tree, lambda old: _wrapped(chance, old))


def _wrapped(chance: Random, old: Tree) -> Tree:
    if isinstance(old, str) and chance.random() < 0.7:
        return old.encode()
    if isinstance(old, bytes) and not isinstance(old, Verbatim):
        return Verbatim(b"\xdb" + _HEADER.pack(len(old)) + old)
    if isinstance(old, Pairs):
        return [item for pair in old for item in pair]
    body = pack(old)[:60000]
    return chance.choice(
        ([old], Pairs([("a", old)]), Verbatim(b"\xc8" + struct.pack(">Hb", len(body), 1) + body))
    )


def mutate_body(chance: Random, corpus: Corpus) -> bytes:
    """Return a body that is nearly one of the corpus."""
    dice = chance.random()
    if dice < 0.55:
        tree = chance.choice(corpus.trees)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            if not (isinstance(tree, Pairs) and tree):
                break
            tree = mutate_tree(chance, corpus, tree)
        return pack(tree)
    body = chance.choice(corpus.long if corpus.long and dice > 0.995 else corpus.bodies)
    if dice < 0.65:
        second = chance.choice(corpus.bodies)
        return body[: chance.randrange(len(body) + 1)] + second[chance.randrange(len(second) + 1) :]
    for _ in range(chance.choice((1, 1, 2, 4))):
        body = chance.choice(BYTE_MUTATIONS)(chance, body)
    return body


# --- frames and streams -------------------------------------------------------------------------------


def framed(body: bytes) -> bytes:
    """Put an honest length before a body, even before none."""
    return _HEADER.pack(len(body)) + body


def _misframed(chance: Random, body: bytes, limit: int) -> bytes:
    """Put a length before a body that lies."""
    size = len(body)
    lies = (0, 1, size - 1, size + 1, size * 256, 2**31, 2**32 - 1, limit, limit + 1, size ^ 0x80)
    match chance.randrange(6):
        case 0:
            return body
        case 1:
            return struct.pack("<I", size) + body
        case 2:
            return b"print('text on the stream')\n" + framed(body)
        case _:
            return _HEADER.pack(min(max(chance.choice(lies), 0), 2**32 - 1)) + body


def make_case(chance: Random, corpus: Corpus, *, wrong: float = 0.7) -> Case:
    """Return a stream of one to eight frames of which a share of `wrong` is mutated."""
    limit = chance.choice(_LIMITS)
    frames: list[bytes] = []
    for _ in range(chance.choice((1, 1, 2, 3, 4, 8))):
        dice = chance.random()
        if dice > wrong:
            frames.append(framed(chance.choice(corpus.bodies)))
        elif dice > wrong * 0.06:
            frames.append(framed(mutate_body(chance, corpus)))
        else:
            frames.append(_misframed(chance, chance.choice(corpus.bodies), limit))
    return Case(rearranged(chance, frames), limit, chance.getrandbits(32))


def rearranged(chance: Random, frames: list[bytes]) -> list[bytes]:
    """Now and then send a frame twice, or frames in another order, or the last one in part.

    Never nothing at all: of no frames, half a one is made.
    """
    if not frames:
        return [b"\0"]
    dice = chance.random()
    if dice < 0.1:
        frames.insert(chance.randrange(len(frames) + 1), chance.choice(frames))
    elif dice < 0.2:
        chance.shuffle(frames)
    elif dice < 0.25:
        frames[-1] = frames[-1][: chance.randrange(len(frames[-1]) + 1)]
    return [frame for frame in frames if frame] or [b"\0"]


def describe(value: Any, most: int = 300) -> str:
    """Return a repr that is short enough for a line."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
