"""The whole text of executions whose output was cut, in a file without a name, so that any part can be read.

The file is this process's alone: no worker ever holds it, so none can fill the disk, or change what is read.
It is made when the first output is cut, divided into blocks, and never larger than its limit. Where that is
reached, the execution that has written first of all loses its text; one that is alone keeps its beginning.

OutputKeeper   the file, and which block belongs to whom
KeptOutput     the text of one execution
"""

import asyncio
import os
import tempfile
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Final, get_args

from pyrepl3_client._journal.protocol import TextSize
from pyrepl3_client.config import checked_choice
from pyrepl3_client.errors import OutputNotKept, SessionClosed
from pyrepl3_schemas.executor_config import as_int
from pyrepl3_schemas.messages import StreamName

RUN_AGAIN: Final = "the execution was run again"
_BLOCK_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 1024 * 1024
"""Read in one turn of the loop: some 0.3 ms."""
_TURN_CHARACTERS: Final = 256 * 1024
"""Written in one turn of the loop, about."""
_CONTINUATION_BYTES: Final = bytes(range(0x80, 0xC0))
"""Every other byte of UTF-8 begins a character."""
_REMEMBERED: Final = 1000
"""Executions of which it is known that their text has gone to make room."""


class OutputKeeper:
    """The text of a session's executions whose output was cut."""

    def __init__(self, max_bytes: int, directory: str | None) -> None:
        """Keep up to `max_bytes`; there is no file yet.

        Args:
            max_bytes: of the file, a multiple of 64 KiB at least; 0 keeps nothing.
            directory: where the file is made; None for a place of this user's.
        """
        self.max_bytes: Final = max_bytes
        self._max_blocks = max_bytes // _BLOCK_BYTES
        self._directory = directory
        self._fd = -1
        self._close: weakref.finalize[[int], OutputKeeper] | None = None
        self._used_blocks = 0
        self._free_blocks: list[int] = []
        self._kept: dict[str, KeptOutput] = {}
        """In the order in which their output was cut first."""
        self._dropped: dict[str, None] = {}
        self.closed = False

    def begin(self, execution_id: str, stdout: Iterable[str], stderr: Iterable[str]) -> "KeptOutput":
        """Keep what an execution writes from now on, behind what it has written.

        Args:
            execution_id: of the execution; what is kept under that id goes.
            stdout: what it has written there, in pieces.
            stderr: what it has written there.
        """
        self.drop(execution_id, RUN_AGAIN)
        written: list[tuple[StreamName | None, str]] = []
        written.extend(("stdout", text) for text in stdout)
        written.extend(("stderr", text) for text in stderr)
        kept = KeptOutput(self, execution_id, written)
        if self.closed:
            kept.give_up("the session is closed")
        self._kept[execution_id] = kept
        kept.write_on()
        return kept

    def find(self, execution_id: str) -> "KeptOutput | None":
        """Return what is kept of an execution, if anything is."""
        return self._kept.get(execution_id)

    def is_dropped(self, execution_id: str) -> bool:
        """Return whether an execution's text has gone to make room for others."""
        return execution_id in self._dropped

    def drop(self, execution_id: str, why: str) -> None:
        """Keep an execution's text no more; `why` is told to those that still read it."""
        kept = self._kept.pop(execution_id, None)
        if kept is not None:
            self._release(kept, why)

    def close(self) -> None:
        """Give the file back to the system. Idempotent."""
        self.closed = True
        for kept in self._kept.values():
            kept.give_up("the session is closed")
        self._kept.clear()
        self._free_blocks.clear()
        if self._close is not None:
            self._close()
            self._close = None
            self._fd = -1

    # --- what `KeptOutput` asks ----------------------------------------------------------------------

    def take_block(self, kept: "KeptOutput") -> int | None:
        """Return the number of a block for `kept`; None if there is none that others could give up.

        Raises:
            OSError: there is no file, and none can be made.
        """
        if self._free_blocks:
            return self._free_blocks.pop()
        if self._used_blocks < self._max_blocks:
            if self._close is None:
                self._fd = _open_file(self._directory)
                # Also for a session that is dropped unclosed.
                self._close = weakref.finalize(self, os.close, self._fd)
            self._used_blocks += 1
            return self._used_blocks - 1
        for execution_id, other in self._kept.items():
            if other is not kept and other.has_blocks:
                del self._kept[execution_id]
                self._dropped[execution_id] = None
                if len(self._dropped) > _REMEMBERED:
                    del self._dropped[next(iter(self._dropped))]
                self._release(other, _made_room(self.max_bytes))
                return self._free_blocks.pop()
        return None

    def write(self, block: int, at: int, data: memoryview) -> None:
        """Write into a block.

        Raises:
            OSError: it cannot be written; a full disk, above all.
        """
        # On the loop: it goes to the page cache, at some gigabytes a second.
        offset = block * _BLOCK_BYTES + at
        while data:
            count = os.pwrite(self._fd, data, offset)
            data, offset = data[count:], offset + count

    def read(self, block: int) -> bytes:
        """Read a block, as far as it is written."""
        return os.pread(self._fd, _BLOCK_BYTES, block * _BLOCK_BYTES)

    def not_here(self, execution_id: str) -> OutputNotKept:
        """Return the error that says why nothing is kept of an execution."""
        if self.closed:
            return OutputNotKept(f"nothing is kept of {execution_id!r}: the session is closed")
        if self.is_dropped(execution_id):
            return OutputNotKept(f"the output of {execution_id!r} is not kept: {_made_room(self.max_bytes)}")
        why = "" if self.max_bytes else ", and max_spill_bytes=0 keeps none"
        return OutputNotKept(
            f"no output of an execution {execution_id!r} is kept here: only what was cut is{why} (what "
            "was not is in the result)"
        )

    def _release(self, kept: "KeptOutput", why: str) -> None:
        self._free_blocks.extend(kept.give_up(why))


class _Stream:
    """Where the text of one stream is: its blocks, and how many characters begin before each."""

    __slots__ = ("blocks", "characters", "complete", "size", "starts")

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.starts: list[int] = []
        self.size = 0
        """Bytes."""
        self.characters = 0
        self.complete = True


class KeptOutput:
    """All that one execution has written, both streams. Made by `OutputKeeper.begin`."""

    def __init__(
        self, keeper: OutputKeeper, execution_id: str, written: Iterable[tuple[StreamName | None, str]]
    ) -> None:
        """Start with what was `written` before; `write_on` writes it."""
        self._keeper = keeper
        self._ahead = deque(written)
        """What is not in the file yet, in order; None stands for what did not come."""
        self._execution_id = execution_id
        self._streams: dict[StreamName, _Stream] = {"stdout": _Stream(), "stderr": _Stream()}
        self.lost = ""
        """Why nothing of it can be read any more; empty while it can."""
        self.stopped = ""
        """Why what is written now is not kept; empty while it is."""

    @property
    def has_made_room(self) -> bool:
        """Whether it has gone while the session goes on."""
        return self.lost != "" and not self._keeper.closed

    @property
    def has_blocks(self) -> bool:
        """Whether it takes space."""
        return any(stream.blocks for stream in self._streams.values())

    def give_up(self, why: str) -> list[int]:
        """Keep nothing any more, for a reason; return the blocks that it had."""
        self.lost = self.lost or why
        self._ahead.clear()
        taken = [block for stream in self._streams.values() for block in stream.blocks]
        for stream in self._streams.values():
            stream.blocks.clear()
        return taken

    def size(self, stream: StreamName) -> TextSize:
        """Return how many characters of a stream are kept: the first ones."""
        place = self._streams[stream]
        return TextSize(place.characters, "" if place.complete else self.stopped)

    def write_on(self) -> None:
        """Write a part of what is not in the file yet, and the rest in later turns of the loop.

        Where `max_output_bytes` is large, all that was written before the cut is too much for one turn.
        """
        characters = 0
        while self._ahead and characters < _TURN_CHARACTERS:
            stream, text = self._ahead.popleft()
            characters += len(text)
            if stream is None:
                self._leave_out()
            else:
                self._write(stream, text)
        if self._ahead:
            asyncio.get_running_loop().call_soon(self.write_on)

    async def settle(self) -> None:
        """Wait until all that was added is in the file."""
        while self._ahead:  # noqa: ASYNC110 - each turn of the loop writes a part
            await asyncio.sleep(0)

    def leave_out(self) -> None:
        """Note that something was written here, to either stream, which did not come."""
        if self._ahead:
            self._ahead.append((None, ""))
        else:
            self._leave_out()

    def _leave_out(self) -> None:
        self._stop(f"max_spill_bytes={self._keeper.max_bytes}")
        for place in self._streams.values():
            place.complete = False

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why

    def add(self, stream: StreamName, text: str) -> None:
        """Add what comes next. What cannot be kept stops it; nothing is raised."""
        if self._ahead:
            self._ahead.append((stream, text))
        else:
            self._write(stream, text)

    def _write(self, stream: StreamName, text: str) -> None:
        if self.stopped or self.lost:
            self._streams[stream].complete = False
            return
        data = text.encode("utf-8", "backslashreplace")
        view, place = memoryview(data), self._streams[stream]
        try:
            while view:
                at = place.size % _BLOCK_BYTES
                if at == 0 and not self._add_block(place):
                    self._stop(f"max_spill_bytes={self._keeper.max_bytes}")
                    break
                part = view[: _BLOCK_BYTES - at]
                self._keeper.write(place.blocks[-1], at, part)
                place.size += len(part)
                place.characters += _characters(part)
                view = view[len(part) :]
        except OSError as error:
            self._stop(f"it could not be written: {error}")
        if self.stopped:
            place.complete = False

    def _add_block(self, place: _Stream) -> bool:
        block = self._keeper.take_block(self)
        if block is None:
            return False
        place.blocks.append(block)
        place.starts.append(place.characters)
        return True

    async def read(self, stream: StreamName, start: int, stop: int | None) -> str:
        """Return a part of what was written, as a slice of the whole text would be.

        Args:
            stream: which.
            start: the first character; below 0, counted from the end.
            stop: the first that is not wanted; None for all to the end as it is now.

        Raises:
            OutputNotKept: something of that part is not kept.
            SessionClosed: the session is closed, and the text with it.
        """
        place = self._streams[stream]
        await self.settle()
        self._require()
        first, end = self.span(stream, start, stop)
        pieces: list[str] = []
        if first >= end:
            return ""
        n = bisect_right(place.starts, first) - 1
        # The block in which the character begins; it may end in the next one.
        skip = first - place.starts[n]
        wanted = end - first
        left = b""
        while wanted > 0:
            if pieces:
                await asyncio.sleep(0)
                self._require()
            blocks = place.blocks[n : n + _READ_BYTES // _BLOCK_BYTES]
            data = b"".join(
                [left, *(self._read_block(block, n + i, place) for i, block in enumerate(blocks))]
            )
            n += len(blocks)
            if not pieces:
                # A character that begins in the block before.
                data = data.lstrip(_CONTINUATION_BYTES)
            text, left = _decode(data)
            piece = text[skip : skip + wanted]
            skip = 0
            wanted -= len(piece)
            pieces.append(piece)
        return "".join(pieces)

    def _read_block(self, block: int, n: int, place: _Stream) -> bytes:
        data = self._keeper.read(block)
        return data[: min(place.size - n * _BLOCK_BYTES, _BLOCK_BYTES)]

    def span(self, stream: StreamName, start: int, stop: int | None) -> tuple[int, int]:
        """Return which characters a slice means.

        Raises:
            OutputNotKept: some of them are not kept.
        """
        place = self._streams[stream]
        there = place.characters
        if not place.complete and (start < 0 or stop is None or max(start, stop, 0) > there or stop < 0):
            raise OutputNotKept(
                f"of {stream} of {self._execution_id!r} the first {there:,} characters are kept, not what "
                f"follows ({self.stopped}): ask for what is between 0 and {there}"
            )
        first, end, _ = slice(start, stop).indices(there)
        return first, end

    def _require(self) -> None:
        if self._keeper.closed:
            raise SessionClosed(f"the output of {self._execution_id!r} is gone: {self.lost}")
        if self.lost:
            raise OutputNotKept(f"the output of {self._execution_id!r} is not kept: {self.lost}")


def checked_part(start: int, stop: int | None, stream: StreamName) -> tuple[int, int | None, StreamName]:
    """Return which part of which stream is asked for, in the types that are used here.

    Raises:
        ValueError: `stream` is none.
        TypeError: `start` or `stop` is no whole number.
    """
    checked_choice("stream", stream, get_args(StreamName.__value__))
    return as_int("start", start), None if stop is None else as_int("stop", stop), stream


def _characters(data: memoryview) -> int:
    """Return how many characters begin in UTF-8."""
    whole = bytes(data)
    return len(whole) if whole.isascii() else len(whole.translate(None, _CONTINUATION_BYTES))


def _decode(data: bytes) -> tuple[str, bytes]:
    """Return the text that is complete in `data`, and the bytes of a character that is not."""
    end = len(data)
    for back in range(1, min(4, end + 1)):
        byte = data[end - back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            if back < length:
                end -= back
            break
        if byte < 0x80:
            break
    return data[:end].decode(), data[end:]


def _made_room(limit: int) -> str:
    return f"it has made room for later output (max_spill_bytes={limit})"


def _open_file(directory: str | None) -> int:
    """Return a new file that has no name, nor ever had one where the system can do that.

    Raises:
        OSError: it cannot be made anywhere.
    """
    failure: OSError | None = None
    for place in (directory,) if directory is not None else _places():
        try:
            try:
                return os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError:
                # Some file systems have no files without a name.
                fd, path = tempfile.mkstemp(prefix="pyrepl3-output-", dir=place)
                os.unlink(path)
                return fd
        except OSError as error:
            failure = error
    assert failure is not None
    raise failure


def _places() -> list[str]:
    """Return directories for large temporary files: this user's own first, those in memory last."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [place for place in (cache, "/var/tmp", tempfile.gettempdir()) if os.path.isdir(place)] or [  # noqa: S108 - the file has no name there
        os.getcwd()
    ]
