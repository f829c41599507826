"""What a checkpoint consists of: a manifest, and blobs that are named by their digests.

The client stores both as bytes and reads neither. Data is split into chunks: of a large array in which
one part has changed, only the changed chunks are sent, and no blob is too long for a store.
"""

import sys
from collections.abc import Collection, Mapping
from typing import BinaryIO, Final

import msgspec

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.checkpoint.digests import sha256

VERSION: Final = 3
"""Raised whenever a pickle could name a place in this package that has moved."""
MAX_INLINE_BYTES: Final = 128
"""Data of at most so many bytes stands in the manifest itself: its digest would take as much room."""
CHUNK_BYTES: Final = 4 * 1024 * 1024

type Buffer = bytes | bytearray | memoryview


class BlobRefs(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Some data: the bytes themselves, or the digests (SHA-256, hexadecimal) of its chunks."""

    inline: bytes = b""
    chunks: tuple[str, ...] = ()


class NameGroup(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Names that are pickled together, because they share objects.

    One is kept for each name. Tuples take less room than lists, and empty ones none.
    """

    names: tuple[str, ...]
    """In the order in which they were pickled."""
    type_names: tuple[str, ...]
    pickle: BlobRefs
    buffers: tuple[BlobRefs, ...] = ()
    """The pickle's out-of-band buffers: the memory of large arrays."""
    sources: tuple[str, ...] = ()
    """Filenames of the cells that define its functions."""
    portable: bool = False
    """Whether another version of Python can load it."""
    needs: tuple[str, ...] = ()
    """The definitions of other groups that it refers to."""
    only: tuple[str, ...] = ()
    """Of an earlier checkpoint's group, the names that still have the values in it; empty for all."""
    as_of: int | None = None
    """The number of the last cell before it was saved, if that was in an earlier checkpoint."""


def bound_names(group: NameGroup) -> tuple[str, ...]:
    """Return the names that a group gives values."""
    return group.only or group.names


class SavedState(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A part of the process's state."""

    name: str
    data: BlobRefs
    """A pickle of plain data, or of what `register` was given and the value."""
    buffers: list[BlobRefs] = []
    """That pickle's out-of-band buffers."""
    own: bool = False
    """Whether the session's code has registered it."""
    portable: bool = False
    """Whether another version of Python can load what the code has registered."""


class SavedHistory(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The history of the session: the cells' sources and their results."""

    count: int
    """The number of inputs."""
    first: int
    """The index of the first input that is saved."""
    inputs: list[BlobRefs] = []
    """Blocks of inputs, each a msgpack list of UTF-8 texts."""
    results: list[str] = []
    """Which names of the groups, modules and globals are results, not variables."""
    recent: dict[str, str] = {}
    """By the name of a last result (`_`), the name under which that result is saved."""
    aliases: dict[str, str] = {}
    """By the name of a result that could not be saved, the variable that is the same object."""


class SavedFile(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A file, folder or symbolic link of the work directory."""

    path: bytes
    """Relative to the directory; file names are bytes."""
    mode: int
    """Its kind and permissions (`st_mode`)."""
    mtime_ns: int = 0
    content: BlobRefs = BlobRefs()
    """A file's content, or a link's target."""


class SavedFiles(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The work directory."""

    entries: list[SavedFile] = []
    """Sorted by path: a folder comes before what is in it."""
    kept: list[bytes] = []
    """What was there and could not be saved: a restore leaves it as it is."""


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything in a checkpoint except the blobs."""

    version: int
    python: str
    groups: list[NameGroup] = []
    """In the order in which they are restored: constants and definitions first."""
    modules: dict[str, str] = {}
    """Names bound to modules, and the names by which those are imported."""
    globals: list[str] = []
    """Names bound to the namespace itself."""
    sources: dict[str, BlobRefs] = {}
    """Cells' source code by filename, for tracebacks."""
    unsaved: list[Unsaved] = []
    history: SavedHistory | None = None
    state: list[SavedState] = []
    """The process's state, where it is not as the session began."""
    files: SavedFiles | None = None
    """The session's own work directory; None if it has none."""


def python_version() -> str:
    """Return the implementation and version of Python, on which bytecode and pickles depend."""
    return f"CPython {sys.version_info.major}.{sys.version_info.minor}"


def why_not_portable(saved_by: str) -> str:
    """Return what a report says of what this version of Python can't load."""
    return f"it holds code or inner state of {saved_by}, which {python_version()} can't load"


def blob_digests(manifest: Manifest) -> list[str]:
    """Return the digests of all blobs that a restore needs, each once."""
    contents = [content for group in manifest.groups for content in (group.pickle, *group.buffers)]
    contents.extend(manifest.sources.values())
    contents.extend(content for state in manifest.state for content in (state.data, *state.buffers))
    if manifest.history is not None:
        contents.extend(manifest.history.inputs)
    if manifest.files is not None:
        contents.extend(entry.content for entry in manifest.files.entries)
    return list(dict.fromkeys(digest for content in contents for digest in content.chunks))


class BlobCollector:
    """Splits data into blobs, and collects those that the client does not have yet."""

    def __init__(self, known: Collection[str], chunk: int = CHUNK_BYTES) -> None:
        """Leave out the blobs whose digests are in `known`; make none longer than `chunk` bytes."""
        self.known = frozenset(known)
        self._chunk = chunk
        self.blobs: dict[str, bytes] = {}

    def add(self, data: Buffer) -> BlobRefs:
        """Add some data; return what stands for it in the manifest."""
        view = memoryview(data).cast("B")
        if len(view) <= MAX_INLINE_BYTES:
            return BlobRefs(inline=bytes(view))
        starts = range(0, len(view), self._chunk)
        return BlobRefs(chunks=tuple(self._add_chunk(view[start : start + self._chunk]) for start in starts))

    def add_file(self, file: BinaryIO) -> BlobRefs:
        """Add what is left of a file, read chunk by chunk; return what stands for it in the manifest.

        Raises:
            OSError: it can't be read.
        """
        chunk = _read_fully(file, self._chunk)
        if len(chunk) <= MAX_INLINE_BYTES:
            return BlobRefs(inline=chunk)
        chunks: list[str] = []
        while chunk:
            chunks.append(self._add_chunk(chunk))
            chunk = _read_fully(file, self._chunk)
        return BlobRefs(chunks=tuple(chunks))

    def _add_chunk(self, chunk: Buffer) -> str:
        digest = sha256(chunk).hexdigest()
        if digest not in self.known and digest not in self.blobs:
            self.blobs[digest] = bytes(chunk)
        return digest

    def has_all_of(self, content: BlobRefs) -> bool:
        """Return whether the client has, or will get, all blobs of some data."""
        return all(digest in self.known or digest in self.blobs for digest in content.chunks)


def _read_fully(file: BinaryIO, size: int) -> bytes:
    """Read so many bytes, fewer only at the file's end."""
    data = file.read(size)
    while 0 < len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def join_blobs(content: BlobRefs, blobs: Mapping[str, bytes]) -> bytearray:
    """Return some data, joined again from its blobs.

    Raises:
        LookupError: a blob is missing, or is not what its digest says.
    """
    data = bytearray(content.inline)
    for digest in content.chunks:
        chunk = blobs.get(digest)
        if chunk is None:
            raise LookupError(f"the checkpoint lacks blob {digest[:16]}…")
        if sha256(chunk).hexdigest() != digest:
            raise LookupError(f"blob {digest[:16]}… is damaged")
        data += chunk
    return data
