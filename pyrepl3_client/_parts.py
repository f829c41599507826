"""A checkpoint that comes from a worker, in parts: each has to bring it nearer to its end."""

from collections.abc import Iterable

from pyrepl3_client.errors import ProtocolError, StoreError
from pyrepl3_schemas.messages import Checkpointed


class TooLargeError(StoreError):
    """A namespace takes more than one checkpoint may."""


class Parts:
    """Collects the contents of one checkpoint.

    Whether they are what their digests say is the store's to check, where it keeps them for others, and a
    worker's when it restores them: a session's memory gives them to the session's own workers alone.
    """

    def __init__(self, known: Iterable[str], most_bytes: int) -> None:
        """Hold nothing; the parent has the contents of the `known` digests, and takes `most_bytes` more."""
        self.blobs: dict[str, bytes] = {}
        self._known = frozenset(known)
        self._most = most_bytes
        self._bytes = 0

    def add(self, part: Checkpointed) -> bool:
        """Take a part; say whether it was the last.

        Raises:
            ProtocolError: it brings nothing, or what was not asked for; or the last one needs what never
                came.
            TooLargeError: with it they are too much.
        """
        for digest, blob in part.blobs.items():
            if digest in self._known or digest in self.blobs:
                raise ProtocolError("a part of its checkpoint brings contents that we have already")
            self._bytes += len(blob) + len(digest)
        if self._bytes > self._most:
            raise TooLargeError(
                f"the checkpoint takes more than {self._most:,} bytes (max_checkpoint_bytes): raise that in "
                "the WorkerConfig, or keep less in the namespace"
            )
        self.blobs.update(part.blobs)
        if not part.data:
            if not part.blobs:
                raise ProtocolError("a part of its checkpoint is empty and not the last")
            return False
        missing = sum(digest not in self._known and digest not in self.blobs for digest in part.needs)
        if missing:
            raise ProtocolError(f"its checkpoint needs {missing:,} contents that it never sent")
        return True
