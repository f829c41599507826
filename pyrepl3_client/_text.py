"""Keeps captured output within its bound: the head as it comes, the tail at the end, a line between."""

from collections import deque
from typing import Final

from pyrepl3_schemas.messages import StreamName

_TAIL_BYTES = 1024 * 1024
_SHORT_BYTES = 1024


class HeadTailBuffer:
    """What an execution wrote past Python, which its worker cannot count."""

    __slots__ = ("_cut", "_last", "_limit", "_over", "_tail", "_tail_bytes", "_tail_limit")

    def __init__(self, limit: int) -> None:
        """Let `limit` bytes through, the execution's other output included."""
        self._limit = limit
        self._tail_limit = min(limit // 2, _TAIL_BYTES)
        self._tail: deque[tuple[StreamName, bytes]] = deque()
        self._tail_bytes = 0
        self._cut = 0
        self._over = False
        self._last: StreamName = "stdout"

    def admit(self, stream: StreamName, text: str, size: int, used: int) -> str:
        """Give the part of `text` (`size` bytes) that may go on, when `used` bytes have gone before."""
        room = self._limit - self._tail_limit - used
        if size <= room and not self._over:
            return text
        data = text.encode()
        head = b"" if self._over else _head(data, max(room, 0))
        self._over = True
        self._keep(stream, data[len(head) :])
        return head.decode()

    def finish(self) -> tuple[list[tuple[StreamName, str]], bool]:
        """Give what is left to deliver, and whether something was cut."""
        parts: list[tuple[StreamName, str]] = []
        if self._cut:
            stream = self._tail[0][0] if self._tail else self._last
            marker = f"\n… {self._cut:,} bytes of captured output cut (max_output_bytes={self._limit}) …\n"
            parts.append((stream, marker))
        parts.extend((stream, data.decode("utf-8", "ignore")) for stream, data in self._tail)
        return parts, self._cut > 0

    def _keep(self, stream: StreamName, data: bytes) -> None:
        self._last = stream
        if self._tail and self._tail[-1][0] == stream and len(self._tail[-1][1]) < _SHORT_BYTES:
            # Byte by byte, the tail would take a hundred times its length.
            data, size = self._tail.pop()[1] + data, len(data)
        else:
            size = len(data)
        self._tail.append((stream, data))
        self._tail_bytes += size
        while (over := self._tail_bytes - self._tail_limit) > 0:
            first_stream, first = self._tail.popleft()
            gone = min(over, len(first))
            self._cut += gone
            self._tail_bytes -= gone
            if gone < len(first):
                self._tail.appendleft((first_stream, first[gone:]))


def _head(data: bytes, size: int) -> bytes:
    """The longest beginning of at most `size` bytes that cuts no character."""
    while 0 < size < len(data) and data[size] & 0xC0 == 0x80:
        size -= 1
    return data[:size]


def head_and_tail(text: str, bound: int) -> tuple[str, bool]:
    """Give text within `bound` bytes of UTF-8, its middle left out and said so; and whether it was."""
    if len(text) <= bound and (text.isascii() or len(text.encode()) <= bound):
        return text, False
    data = text.encode()
    tail = data[len(data) - bound // 2 :]
    head = _head(data, bound - len(tail))
    cut = len(data) - len(head) - len(tail)
    marker = f"\n… {cut:,} bytes cut from the record (it keeps {bound:,}) …\n"
    return head.decode() + marker + tail.decode("utf-8", "ignore"), True


_SHOWN: Final = 100
_REASON: Final = 1000

SHORT: Final = 256
"""Characters of a text that takes more memory for being one than for its characters."""
_MANY: Final = 1024


def quoted(text: str) -> str:
    """Give an id or a name for a message: escaped, and no longer than a person reads."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text):,} characters)"


def truncated(text: str, most: int = _REASON) -> str:
    """Give a reason or a complaint at a length that logs and records can bear."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


class TextBuffer(list[str]):
    """Text in pieces. A piece takes some 60 bytes by itself, so short ones in a row become one."""

    __slots__ = ("_row",)

    def __init__(self) -> None:
        """Have none."""
        super().__init__()
        self._row = 0

    def add(self, text: str) -> None:
        """Take a piece."""
        self.append(text)
        if len(text) >= SHORT:
            self._row = 0
            return
        self._row += 1
        if self._row == _MANY:
            self[-_MANY:] = ("".join(self[-_MANY:]),)
            self._row = 0
