"""Texts within a limit: the head and the tail are kept, and a marker between them says how much is missing.

`HeadTail` is for output that comes in pieces, on either side of the wire; the functions are for a text that
is there as a whole. Pure: it knows no stream, no message and no clock.
"""

from collections import deque
from typing import Final

_MAX_TAIL_BYTES: Final = 1024 * 1024
_SHORT_BYTES: Final = 1024


def cut_marker(missing: str, limit: str = "") -> str:
    """Return the text that stands where something has been left out.

    Args:
        missing: how much of what, such as `605 bytes of output`.
        limit: the limit that was passed, such as `max_output_bytes=400`.
    """
    return f"… {missing} cut ({limit}) …" if limit else f"… {missing} cut …"


def tail_bytes(limit: int) -> int:
    """Return how many of the `limit` bytes of an execution's output are reserved for its tail.

    Half of them, but never more than 1 MiB, since the tail is kept in memory until the execution ends.

    Args:
        limit: bytes that head and tail may have together.
    """
    return min(limit // 2, _MAX_TAIL_BYTES)


class HeadTail[Stream]:
    """The output of one execution, kept within a number of bytes of UTF-8.

    The head goes through as it comes. What is past it is kept back; of that only the tail is left when the
    execution ends. Needed only when the head is full: see `tail_bytes`.
    """

    __slots__ = (
        "_finished",
        "_late_told",
        "_limit",
        "_overflowed",
        "_tail",
        "_tail_bytes",
        "_tail_limit",
        "missing",
    )

    def __init__(self, limit: int, *, finished: bool = False) -> None:
        """Start with no text.

        Args:
            limit: bytes that head and tail may have together, the session's `max_output_bytes`.
            finished: the execution has ended already, so no tail is kept.
        """
        self.missing = 0
        """Bytes that have been left out so far; final after `finish`."""
        self._limit = limit
        self._tail_limit = tail_bytes(limit)
        self._tail: deque[tuple[Stream, bytes]] = deque()
        self._tail_bytes = 0
        self._overflowed = False
        self._finished = finished
        self._late_told = False

    def add(self, stream: Stream, text: str, size: int, used: int) -> str:
        """Add a text; return the part of it that belongs to the head, to be passed on now.

        Args:
            stream: where the text was written.
            text: lone surrogates in it are escaped if it does not go through as a whole.
            size: its length in bytes.
            used: bytes of the limit that all output before it has taken.

        Returns:
            A part of `text`, maybe none of it. After `finish` no tail is kept any more: then a marker
            follows, once, where the first text had to be cut.
        """
        room = max(self._limit - self._tail_limit - used, 0)
        if size <= room and not self._overflowed:
            return text
        data = _utf8(text)
        head = b""
        if not self._overflowed:
            self._overflowed = True
            head = data[: _head_end(data, room)]
            # Bytes for which a character was too long are the tail's, so that nothing is cut needlessly.
            self._tail_limit += room - len(head)
        rest = data[len(head) :]
        if self._finished:
            self.missing += len(rest)
            if rest and not self._late_told:
                self._late_told = True
                return f"{head.decode()}\n{cut_marker('more late output', self._limit_text())}\n"
        elif rest:
            self._keep(stream, rest)
        return head.decode()

    def leave_out(self, stream: Stream, size: int) -> None:
        """Note that `size` bytes are left out here: what is kept back before them is no tail any more.

        Args:
            stream: where the next text was written.
            size: bytes, of both streams.
        """
        self._overflowed = True
        self.missing += self._tail_bytes + size
        self._tail.clear()
        self._tail.append((stream, b""))
        self._tail_bytes = 0

    def finish(self, note: str = "") -> list[tuple[Stream, str]]:
        """Return what is still to be passed on: a marker where bytes are missing, then the tail.

        Args:
            note: what the marker says beside the limit, such as where the rest is.
        """
        tail = self.take_tail()
        if self.missing and tail:
            limit = f"{self._limit_text()}; {note}" if note else self._limit_text()
            marker = cut_marker(f"{self.missing:,} bytes of output", limit)
            tail.insert(0, (tail[0][0], f"\n{marker}\n"))
        return [(stream, text) for stream, text in tail if text]

    def take_tail(self) -> list[tuple[Stream, str]]:
        """Return the tail, after which no tail is kept any more, without a marker; `missing` is before it.

        A text in it may be empty.
        """
        self._finished = True
        if not self._tail:
            return []
        # Only the first piece can be too long, or begin in the middle of a character.
        stream, first = self._tail[0]
        start = _tail_start(first, max(self._tail_bytes - self._tail_limit, 0))
        self._tail[0] = stream, first[start:]
        self.missing += start
        tail = [(stream, data.decode()) for stream, data in self._tail]
        self._tail.clear()
        self._tail_bytes = 0
        return tail

    def _keep(self, stream: Stream, data: bytes) -> None:
        """Add bytes to the tail, and drop whole pieces that are before it."""
        tail, limit = self._tail, self._tail_limit
        if tail and tail[-1][0] == stream and len(tail[-1][1]) < _SHORT_BYTES:
            # Byte by byte, the tail would take a hundred times its length.
            _, last = tail.pop()
            self._tail_bytes -= len(last)
            data = last + data
        if len(data) > limit:
            # It alone is the tail, and its own head is not held until the end.
            self.missing += len(data) - limit
            data = data[len(data) - limit :]
        tail.append((stream, data))
        self._tail_bytes += len(data)
        while len(tail) > 1 and self._tail_bytes - len(tail[0][1]) >= limit:
            _, gone = tail.popleft()
            self._tail_bytes -= len(gone)
            self.missing += len(gone)

    def _limit_text(self) -> str:
        return f"max_output_bytes={self._limit}"


def split_at(text: str, size: int) -> tuple[str, str]:
    """Return a text in two: at most `size` bytes of UTF-8, no character cut, and the rest.

    Args:
        text: lone surrogates in it are escaped.
        size: bytes; below 0 is 0.
    """
    size = max(size, 0)
    if text.isascii():
        return text[:size], text[size:]
    data = _utf8(text)
    end = _head_end(data, min(size, len(data)))
    return data[:end].decode(), data[end:].decode()


def shorten_to_bytes(text: str, limit: int, reason: str) -> tuple[str, bool]:
    """Return a text of which at most `limit` bytes of UTF-8 are kept, and whether it had to be cut.

    Args:
        text: what to shorten.
        limit: bytes of head and tail together; the marker between them comes on top.
        reason: the limit, as the marker tells it.
    """
    if len(text) <= limit and text.isascii():
        return text, False
    data = _utf8(text)
    if len(data) <= limit:
        return text, False
    tail = data[_tail_start(data, len(data) - limit // 2) :]
    head = data[: _head_end(data, limit - len(tail))]
    missing = len(data) - len(head) - len(tail)
    marker = cut_marker(f"{missing:,} bytes of output", reason)
    return f"{head.decode()}\n{marker}\n{tail.decode()}", True


def shorten_to_characters(text: str, kept: int, unseen: int = 0) -> str:
    """Return `kept` characters of a longer text, half of them from its end, and a marker between.

    Args:
        text: what to shorten.
        kept: characters of head and tail together; the marker comes on top.
        unseen: characters that are missing in the middle of `text` already.
    """
    tail = kept // 2
    marker = cut_marker(f"{len(text) + unseen - kept:,} characters")
    return f"{text[: kept - tail]}{marker}{text[len(text) - tail :]}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _head_end(data: bytes, end: int) -> int:
    """Return the last place, at `end` or before it, where no character is cut."""
    while 0 < end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _tail_start(data: bytes, start: int) -> int:
    """Return the first place, at `start` or after it, where no character is cut."""
    while start < len(data) and data[start] & 0xC0 == 0x80:
        start += 1
    return start
