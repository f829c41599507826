"""The cells' sources, for tracebacks and `inspect.getsource`: each as long as code of the cell is there.

`linecache` forgets nothing by itself, so a session that runs new cells all day would keep them all. What
may want a cell's lines is its code: a function of it, a frame in an error that is kept, a suspended
generator. So the source goes when the last of the cell's code objects does.
"""

import linecache
from _weakref import ref
from collections import deque
from types import CodeType
from typing import Final, cast

type _Entry = tuple[int, float | None, list[str], str]


class _CodeReference(ref[CodeType]):
    """A code object of a cell, seen to its end."""

    __slots__ = ("filename",)

    filename: str


def linecache_entry(filename: str, source: str) -> _Entry:
    """Return what `linecache.cache` holds for a source that is not in a file."""
    return len(source), None, source.splitlines(keepends=True), filename


class CellSources:
    """What `linecache` holds of one session's cells. For the thread that compiles."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._entries: dict[str, _Entry] = {}
        self._watches: dict[str, set[int]] = {}
        """By filename, the ids of the watches on code that is there."""
        self._kept: Final[dict[int, _CodeReference]] = {}
        self._gone: Final[deque[_CodeReference]] = deque()
        """Watches whose code has ended. No Python runs at that end: an interrupt that struck there would
        be lost, and it may be any thread's."""
        self._at_end: Final = self._gone.append
        self._newest = ""

    def add(self, filename: str, source: str) -> None:
        """Show a source's lines under a name: until the next one is added, or its code has ended."""
        self._sweep()
        entry = linecache_entry(filename, source)
        there = cast("_Entry | None", linecache.cache.get(filename))
        if there is None or there[2] != entry[2]:
            # One that a checkpoint brought stays: code that is not ours may need it.
            linecache.cache[filename] = self._entries[filename] = entry
        newest, self._newest = self._newest, filename
        if newest != filename and newest not in self._watches:
            self._drop(newest)  # it did not compile

    def watch(self, filename: str, codes: list[CodeType]) -> None:
        """Keep the lines of `filename` as long as one of these, or of the code in them, is there."""
        ids = self._watches.setdefault(filename, set())
        waiting = list(codes)
        while waiting:
            code = waiting.pop()
            watch = _CodeReference(code, self._at_end)
            watch.filename = filename
            ids.add(id(watch))
            self._kept[id(watch)] = watch
            waiting += [constant for constant in code.co_consts if type(constant) is CodeType]

    def _sweep(self) -> None:
        while self._gone:
            watch = self._gone.popleft()
            ids = self._watches[watch.filename]
            ids.discard(id(watch))
            del self._kept[id(watch)]
            if not ids:
                del self._watches[watch.filename]
                self._drop(watch.filename)

    def _drop(self, filename: str) -> None:
        entry = self._entries.pop(filename, None)
        if entry is not None and linecache.cache.get(filename) is entry:
            del linecache.cache[filename]
