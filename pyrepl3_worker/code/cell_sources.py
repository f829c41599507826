"""Cells' sources in `linecache`: for tracebacks and `inspect.getsource`, as long as code of a cell exists."""

import linecache
import zlib
from _weakref import ref
from collections import deque
from types import CodeType
from typing import Final, NamedTuple, cast

from pyrepl3_worker.code.own_frames import CELL_PREFIX


class Place(NamedTuple):
    """Where code is from: a file, and the number of its first line there."""

    filename: str
    first_line: int


type _Entry = tuple[int, float | None, list[str], str]


class _CodeReference(ref[CodeType]):
    """A weak reference to a code object of a cell."""

    __slots__ = ("filename",)

    filename: str


def linecache_entry(filename: str, source: str) -> _Entry:
    """Return what `linecache.cache` holds for a source that is not in a file."""
    return len(source), None, source.splitlines(keepends=True), filename


class CellSources:
    """The sources of one session's cells in `linecache`. Used only by the thread that compiles."""

    def __init__(self) -> None:
        """Start without any source."""
        self._entries: dict[str, _Entry] = {}
        self._reference_ids: dict[str, set[int]] = {}
        """By filename, the ids of the references to its code objects that still exist."""
        self._references: Final[dict[int, _CodeReference]] = {}
        self._dead_references: Final[deque[_CodeReference]] = deque()
        """References whose code objects are deleted. The callback is a C function: Python code would run
        in any thread, and an exception that a signal handler raises in it would be lost."""
        self._on_code_end: Final = self._dead_references.append
        self._newest = ""

    def add(self, filename: str, source: str) -> None:
        """Add a source to `linecache`. Without `keep_while_alive`, the next `add` removes it."""
        self._remove_dead()
        entry = linecache_entry(filename, source)
        there = cast("_Entry | None", linecache.cache.get(filename))
        if there is None or there[2] != entry[2]:
            # An entry that a restore made is left: restored code may need it.
            linecache.cache[filename] = self._entries[filename] = entry
        newest, self._newest = self._newest, filename
        if newest != filename and newest not in self._reference_ids:
            self._remove_source(newest)  # it did not compile

    def add_named(self, place: Place, source: str) -> None:
        """Put a source into the lines that are known of the file that an editor has sent it from.

        The others are those sent before, or those on disk. The editor's file need not be saved, so what is
        sent wins, and stays.
        """
        filename, before = place.filename, place.first_line - 1
        there = cast("_Entry | None", linecache.cache.get(filename))
        lines = list(there[2]) if there is not None and there[1] is None else linecache.getlines(filename)[:]
        lines += ["\n"] * (before - len(lines))
        own = source.splitlines(keepends=True)
        if own and before + len(own) < len(lines) and not own[-1].endswith("\n"):
            own[-1] += "\n"
        lines[before : before + len(own)] = own
        linecache.cache[filename] = sum(map(len, lines)), None, lines, filename

    def keep_while_alive(self, filename: str, codes: list[CodeType]) -> None:
        """Keep the lines of `filename` while one of these code objects, or one inside them, exists."""
        ids = self._reference_ids.setdefault(filename, set())
        waiting = list(codes)
        while waiting:
            code = waiting.pop()
            reference = _CodeReference(code, self._on_code_end)
            reference.filename = filename
            ids.add(id(reference))
            self._references[id(reference)] = reference
            waiting += [constant for constant in code.co_consts if type(constant) is CodeType]

    def _remove_dead(self) -> None:
        while self._dead_references:
            reference = self._dead_references.popleft()
            ids = self._reference_ids[reference.filename]
            ids.discard(id(reference))
            del self._references[id(reference)]
            if not ids:
                del self._reference_ids[reference.filename]
                self._remove_source(reference.filename)

    def _remove_source(self, filename: str) -> None:
        entry = self._entries.pop(filename, None)
        if entry is not None and linecache.cache.get(filename) is entry:
            del linecache.cache[filename]


def filename_of(source: str) -> str:
    """Return the filename of a cell's code in tracebacks: the same for the same source."""
    data = source.encode("utf-8", "surrogatepass")
    return f"{CELL_PREFIX}{zlib.crc32(data):08x}{zlib.adler32(data):08x}>"
