"""A session's checkpoints, in the parent's memory. The bytes are the worker's; nobody reads them here."""

from dataclasses import dataclass

from pyrepl3_schemas.messages import Checkpoint, Checkpointed, Restore


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
        """Give the request for a new one."""
        return Checkpoint(checkpoint_id=checkpoint_id, known=list(self._blobs))

    def keep(self, checkpoint: Checkpointed) -> None:
        """Keep what the worker gave; one of the same name is replaced."""
        self._blobs.update(checkpoint.blobs)
        self._kept.pop(checkpoint.checkpoint_id, None)
        self._kept[checkpoint.checkpoint_id] = _Kept(checkpoint.data, frozenset(self._blobs))

    def restoring(self, checkpoint_id: str) -> Restore:
        """Give the request that brings one back.

        Raises:
            ValueError: there is none of that name.
        """
        kept = self._kept.get(checkpoint_id)
        if kept is None:
            known = ", ".join(map(repr, self._kept)) or "none"
            raise ValueError(f"there is no checkpoint {checkpoint_id!r} in this session; there are: {known}")
        blobs = {digest: self._blobs[digest] for digest in kept.digests}
        return Restore(checkpoint_id=checkpoint_id, data=kept.data, blobs=blobs)
