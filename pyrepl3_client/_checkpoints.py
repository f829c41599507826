"""A session's checkpoints, in the parent's memory. The bytes are the worker's; nobody reads them here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pyrepl3_schemas.messages import Checkpoint, Checkpointed, Restore

_MARGIN: Final = 1024
"""Bytes of a frame that stand beside the blobs and the data."""
_BLOB_MARGIN: Final = 16
"""Bytes that MessagePack puts around a blob and its digest."""


@dataclass(frozen=True, slots=True)
class _Kept:
    data: bytes
    digests: frozenset[str]
    """All blobs that were known by then: the checkpoint consists of some of them."""


class Checkpoints:
    """Checkpoints by name, their contents by digest, so that what did not change is kept once."""

    def __init__(self) -> None:
        """Hold none."""
        self._kept: dict[str, _Kept] = {}
        self._blobs: dict[str, bytes] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What can be restored, oldest first."""
        return tuple(self._kept)

    def request(self, checkpoint_id: str) -> Checkpoint:
        """Give the request for a new one, or for its next part."""
        return Checkpoint(checkpoint_id=checkpoint_id, known=list(self._blobs))

    def keep(self, part: Checkpointed) -> None:
        """Keep what the worker gave; with the last part, one of the same name is replaced."""
        self._blobs.update(part.blobs)
        if part.data:
            self._kept.pop(part.checkpoint_id, None)
            self._kept[part.checkpoint_id] = _Kept(part.data, frozenset(self._blobs))

    def restoring(self, checkpoint_id: str, max_frame_bytes: int) -> Iterator[Restore]:
        """Give the requests that bring one back, one after the other, none over a frame's length.

        Raises:
            ValueError: there is none of that name.
        """
        kept = self._kept.get(checkpoint_id)
        if kept is None:
            known = ", ".join(map(repr, self._kept)) or "none"
            raise ValueError(f"there is no checkpoint {checkpoint_id!r} in this session; there are: {known}")
        blobs: dict[str, bytes] = {}
        start = size = len(kept.data) + len(checkpoint_id) * 4 + _MARGIN
        for digest in sorted(kept.digests):
            blob = self._blobs[digest]
            if blobs and size + len(blob) > max_frame_bytes:
                yield Restore(checkpoint_id=checkpoint_id, blobs=blobs)
                blobs, size = {}, start
            blobs[digest] = blob
            size += len(blob) + len(digest) + _BLOB_MARGIN
        yield Restore(checkpoint_id=checkpoint_id, data=kept.data, blobs=blobs)
