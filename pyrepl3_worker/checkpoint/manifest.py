"""What a checkpoint consists of: a manifest, and contents that are kept apart by their digests.

The parent stores both as bytes and reads neither. A content is cut into chunks, so that a large array
of which one corner has changed is sent as that corner, and no single blob is too long for a store.
"""

import platform
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Final

import msgspec

from pyrepl3_schemas.messages import Unsaved

VERSION: Final = 2
"""Raised whenever a pickle could name a place in this package that has moved."""
INLINE: Final = 128
"""Bytes of a content that stands in the manifest itself: a digest would take as much room."""
CHUNK: Final = 4 * 1024 * 1024

type Buffer = bytes | bytearray | memoryview


class BlobRefs(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Some bytes: right here, or by the digests (SHA-256, hexadecimal) of their chunks."""

    inline: bytes = b""
    chunks: list[str] = []


class NameGroup(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Names that are saved together, since they share objects."""

    names: list[str]
    """In the order in which they were written."""
    type_names: list[str]
    pickle: BlobRefs
    buffers: list[BlobRefs] = []
    """What the pickle refers to as out-of-band buffers: large arrays."""
    sources: list[str] = []
    """Filenames of the cells that its functions came from."""


class SavedHistory(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The history of the session: what was run, and what came of it."""

    count: int
    """How many inputs there were."""
    first: int
    """The first of them that is kept here."""
    inputs: list[BlobRefs] = []
    results: list[str] = []
    """Names among those of the groups, modules and globals that are results, not variables."""
    recent: dict[str, str] = {}
    """By the name of a last result (`_`), the result's."""
    aliases: dict[str, str] = {}
    """By the name of a result that could not be saved, the variable that is the same object."""


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that a checkpoint knows, but for the contents."""

    version: int
    python: str
    groups: list[NameGroup] = []
    """In the order in which they are best restored."""
    modules: dict[str, str] = {}
    """Names bound to modules, with the modules' own names."""
    globals: list[str] = []
    """Names bound to the namespace itself."""
    sources: dict[str, BlobRefs] = {}
    """Cells' source code by filename, for tracebacks."""
    unsaved: list[Unsaved] = []
    history: SavedHistory | None = None


def python_version() -> str:
    """Give what has to agree for bytecode and pickles to be read again."""
    return f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])}"


def digests(manifest: Manifest) -> list[str]:
    """Give the digests of all blobs that a restore takes, each once."""
    contents = [content for group in manifest.groups for content in (group.pickle, *group.buffers)]
    contents.extend(manifest.sources.values())
    if manifest.history is not None:
        contents.extend(manifest.history.inputs)
    return list(dict.fromkeys(digest for content in contents for digest in content.chunks))


class Outgoing:
    """Contents on their way to the parent, without those that it has already."""

    def __init__(self, known: Collection[str], chunk: int = CHUNK) -> None:
        """Leave out the blobs in `known`; make none longer than `chunk` bytes."""
        self.known = frozenset(known)
        self._chunk = chunk
        self.blobs: dict[str, bytes] = {}

    def put(self, data: Buffer) -> BlobRefs:
        """Give what stands in the manifest for some bytes."""
        view = memoryview(data).cast("B")
        if len(view) <= INLINE:
            return BlobRefs(inline=bytes(view))
        chunks: list[str] = []
        for start in range(0, len(view), self._chunk):
            chunk = view[start : start + self._chunk]
            digest = sha256(chunk).hexdigest()
            chunks.append(digest)
            if digest not in self.known and digest not in self.blobs:
                self.blobs[digest] = bytes(chunk)
        return BlobRefs(chunks=chunks)

    def has(self, content: BlobRefs) -> bool:
        """Whether the parent has, or will have, all of a content."""
        return all(digest in self.known or digest in self.blobs for digest in content.chunks)


def take(content: BlobRefs, blobs: Mapping[str, bytes]) -> bytearray:
    """Put a content's bytes together again.

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
