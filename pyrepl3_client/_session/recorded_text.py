"""What executions wrote, in the record of a store: written once their outcomes are on record, read in parts.

An outcome on record holds the head and the tail. Where that is not all, the whole text stands beside it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Final

from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.outcomes import RecordedOutput
from pyrepl3_client._journal.protocol import TEXT_PART_CHARACTERS, Journal, TextPart, TextSize
from pyrepl3_client.errors import OutputNotKept
from pyrepl3_schemas.messages import StreamName

STREAMS: Final[tuple[StreamName, ...]] = ("stdout", "stderr")

type _ReadText = Callable[[int, int], Awaitable[str]]


class UnrecordedText:
    """The text of an execution that has ended, of which its outcome holds a part."""

    def __init__(self, execution: ExecutionRecord) -> None:
        """Take the text as it is now: the execution may be run again under another worker."""
        self._execution_id = execution.execution_id
        self._kept = execution.kept
        self._pieces = {stream: tuple(execution.pieces(stream)) for stream in STREAMS}

    @classmethod
    def of(cls, execution: ExecutionRecord, written: RecordedOutput) -> "UnrecordedText | None":
        """Return the text of an execution, None if `written` has all of it."""
        lengths = {"stdout": len(written.stdout), "stderr": len(written.stderr)}
        whole = not written.truncated or (
            execution.kept is None
            and all(sum(map(len, execution.pieces(stream))) == lengths[stream] for stream in STREAMS)
        )
        return None if whole else cls(execution)

    async def size(self, stream: StreamName) -> TextSize:
        """Return how much of a stream there is."""
        if self._kept is None:
            return TextSize(sum(map(len, self._pieces[stream])))
        await self._kept.settle()
        return self._kept.size(stream)

    async def read(self, stream: StreamName, start: int, stop: int | None) -> str:
        """Return a part of it, as `KeptOutput.read` does.

        Raises:
            OutputNotKept: something of that part is not kept.
        """
        if self._kept is None:
            return "".join(self._pieces[stream])[start:stop]
        return await self._kept.read(stream, start, stop)

    async def write(self, journal: Journal, max_bytes: int) -> None:
        """Write it, as far as there is room.

        Args:
            journal: has the execution's outcome.
            max_bytes: of all texts of the session.

        Raises:
            StoreError: the store failed.
        """
        for stream in STREAMS:
            if self._kept is None:
                text = "".join(self._pieces[stream])
                await self._write(journal, stream, TextSize(len(text)), _slices_of(text), max_bytes)
            else:
                read = partial(self._kept.read, stream)
                await self._kept.settle()
                # Where it makes room for later output meanwhile, what is on record says that it has no end.
                with suppress(OutputNotKept):
                    await self._write(journal, stream, self._kept.size(stream), read, max_bytes)

    async def _write(
        self, journal: Journal, stream: StreamName, size: TextSize, read: _ReadText, max_bytes: int
    ) -> None:
        start = n = 0
        end: str | None = None
        while end is None:
            n += 1
            stop = min(start + TEXT_PART_CHARACTERS, size.characters)
            if stop < start + TEXT_PART_CHARACTERS:
                end = size.missing
            text = await read(start, stop)
            part = TextPart(text.encode("utf-8", "backslashreplace"), end)
            if not await journal.put_text(self._execution_id, stream, n, part, max_bytes):
                end = "the record had no room for more (max_spill_bytes, max_store_bytes)"
                await journal.put_text(self._execution_id, stream, n, TextPart(b"", end), max_bytes)
            start = stop
            await asyncio.sleep(0)


NOTHING: Final[Mapping[str, UnrecordedText]] = MappingProxyType({})


def _slices_of(text: str) -> _ReadText:
    async def read(start: int, stop: int) -> str:
        return text[start:stop]

    return read


class RecordedText:
    """Reads what an execution wrote from the record of a store, and what is on its way there from memory."""

    def __init__(
        self, journal: Journal, key: str, whose: str, unrecorded: Mapping[str, UnrecordedText] = NOTHING
    ) -> None:
        """Read from `journal`.

        Args:
            journal: the session's record.
            key: of the text there: the execution's id, and the run's name if it is that of a run.
            whose: that in words.
            unrecorded: by their keys, texts that are not all there yet, at each time.
        """
        self._journal = journal
        self._key = key
        self._whose = whose
        self._unrecorded = unrecorded

    async def size(self, stream: StreamName) -> TextSize | None:
        """Return how much is on record of a stream; None if nothing is.

        Raises:
            StoreError: the record cannot be read.
        """
        on_its_way = self._unrecorded.get(self._key)
        if on_its_way is not None:
            return await on_its_way.size(stream)
        return await self._journal.text_size(self._key, stream)

    async def read(self, stream: StreamName, start: int, stop: int | None) -> str:
        """Return a part of it, as `KeptOutput.read` does.

        Raises:
            OutputNotKept: something of that part is not on record.
            StoreError: the record cannot be read.
        """
        on_its_way = self._unrecorded.get(self._key)
        if on_its_way is not None:
            return await on_its_way.read(stream, start, stop)
        size = await self._journal.text_size(self._key, stream)
        if size is None:
            raise self._not_on_record(
                "nothing of it is there beside its outcome (it was not cut, or not kept, or has made room "
                "for later output)"
            )
        there = size.characters
        if size.missing and (start < 0 or stop is None or max(start, stop, 0) > there or stop < 0):
            raise self._not_on_record(
                f"of {stream} the first {there:,} characters are ({size.missing}); ask for a part between 0 "
                f"and {there}"
            )
        first, end, _ = slice(start, stop).indices(there)
        pieces: list[str] = []
        while first < end:
            n = first // TEXT_PART_CHARACTERS
            part = await self._journal.text_part(self._key, stream, n + 1)
            if part is None:
                raise self._not_on_record("it has made room for later output")
            begin = n * TEXT_PART_CHARACTERS
            text = part.data.decode()[first - begin : end - begin]
            pieces.append(text)
            first += len(text)
            await asyncio.sleep(0)
        return "".join(pieces)

    def _not_on_record(self, why: str) -> OutputNotKept:
        return OutputNotKept(f"not all of the output of {self._whose} is on record: {why}")
