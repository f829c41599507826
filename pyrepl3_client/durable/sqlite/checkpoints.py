"""Checkpoints, and the blobs they are made of: each stored once, under its digest, whoever names it."""

import hashlib
from collections.abc import Collection, Iterable
from typing import Final

from msgspec import Struct
from resonate.timing import Clock

from pyrepl3_client.durable.sqlite.database import Database
from pyrepl3_client.durable.sqlite.leases import Lease, Leases
from pyrepl3_client.errors import StoreError


class Checkpoint(Struct, frozen=True):
    """A namespace as it was after execution number `after_seq`; `created_at` is in milliseconds."""

    session_id: str
    checkpoint_id: str
    after_seq: int
    created_at: int
    manifest: bytes


def blob_digest(data: bytes | memoryview) -> str:
    """Give the name under which `data` is stored: its BLAKE2b of 32 bytes, in hex."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


_CHECKPOINT: Final = "SELECT session, id, after_seq, created_at, manifest FROM checkpoints "


class Checkpoints:
    """The checkpoints of all sessions in a store; errors as in `SessionRecords`."""

    def __init__(self, database: Database, clock: Clock, leases: Leases) -> None:
        """Work on `database`; `clock` gives milliseconds since the epoch."""
        self._database: Final = database
        self._execute: Final = database.execute
        self._clock: Final = clock
        self._leases: Final = leases

    # --- blobs ---

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Give those of the digests whose blobs have still to be put; the others are kept for now.

        They are as good as put: `prune` spares them for as long as it spares a new blob.
        """
        now = self._clock()
        with self._database.write():
            return {digest for digest in digests if not self._touch(digest, now)}

    def put(self, data: bytes | memoryview, digest: str) -> None:
        """Store a blob, unless it is there. Put several in one transaction; a large one takes its time.

        Args:
            data: up to a billion bytes.
            digest: its `blob_digest`, which is checked: blobs are shared between sessions, and what a
                worker says must not change what another one is given.

        Raises:
            ValueError: the digest is of other data.
        """
        if blob_digest(data) != digest:
            raise ValueError(f"the blob of {len(data)} bytes has not the digest {digest!r}")
        with self._database.write():
            if not self._touch(digest, self._clock()):
                self._execute(
                    "INSERT INTO blobs (digest, touched_at, size, data) VALUES (?, ?, ?, ?)",
                    (digest, self._clock(), len(data), data),
                )

    def blob(self, digest: str) -> bytes:
        """Read a blob.

        Raises:
            StoreError: there is none of that digest.
        """
        with self._database.read():
            row = self._execute("SELECT data FROM blobs WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise StoreError(f"there is no blob {digest!r} in the store at {self._database.path!r}")
        return row[0]

    def _touch(self, digest: str, now: int) -> bool:
        cursor = self._execute("UPDATE blobs SET touched_at = ? WHERE digest = ?", (now, digest))
        return cursor.rowcount > 0

    # --- checkpoints ---

    def save(
        self, lease: Lease, checkpoint_id: str, after_seq: int, manifest: bytes, digests: Collection[str]
    ) -> Checkpoint:
        """Store a checkpoint, in place of one of the same id, once all of its blobs are there.

        Raises:
            StoreError: a blob is missing.
        """
        now = self._clock()
        with self._database.write():
            self._leases.require(lease)
            absent = [digest for digest in digests if not self._touch(digest, now)]
            if absent:
                raise StoreError(
                    f"checkpoint {checkpoint_id!r} names {len(absent)} blobs that were never put, "
                    f"the first of them {absent[0]!r}"
                )
            self._delete(lease.session_id, checkpoint_id)
            (n,) = self._execute(
                "INSERT INTO checkpoints (session, id, after_seq, created_at, manifest)"
                " VALUES (?, ?, ?, ?, ?) RETURNING n",
                (lease.session_id, checkpoint_id, after_seq, now, manifest),
            ).fetchone()
            self._database.write_many(
                "INSERT OR IGNORE INTO checkpoint_blobs (checkpoint, digest) VALUES (?, ?)",
                ((n, digest) for digest in digests),
            )
        return Checkpoint(lease.session_id, checkpoint_id, after_seq, now, manifest)

    def get(self, session_id: str, checkpoint_id: str) -> Checkpoint | None:
        """Look up a checkpoint."""
        with self._database.read():
            row = self._execute(
                _CHECKPOINT + "WHERE session = ? AND id = ?", (session_id, checkpoint_id)
            ).fetchone()
        return None if row is None else Checkpoint(*row)

    def newest(self, session_id: str) -> Checkpoint | None:
        """Give the checkpoint that is furthest in the session's history, and of those the last saved."""
        with self._database.read():
            row = self._execute(
                _CHECKPOINT + "WHERE session = ? ORDER BY after_seq DESC, n DESC LIMIT 1", (session_id,)
            ).fetchone()
        return None if row is None else Checkpoint(*row)

    def of(self, session_id: str) -> list[Checkpoint]:
        """Give all checkpoints of a session, from the earliest point of its history on."""
        with self._database.read():
            rows = self._execute(
                _CHECKPOINT + "WHERE session = ? ORDER BY after_seq, n", (session_id,)
            ).fetchall()
        return [Checkpoint(*row) for row in rows]

    def digests(self, session_id: str, checkpoint_id: str) -> list[str]:
        """Give the digests of a checkpoint's blobs, sorted; none for a checkpoint that is not there."""
        with self._database.read():
            rows: list[tuple[str]] = self._execute(
                "SELECT digest FROM checkpoint_blobs WHERE checkpoint ="
                " (SELECT n FROM checkpoints WHERE session = ? AND id = ?) ORDER BY digest",
                (session_id, checkpoint_id),
            ).fetchall()
        return [digest for (digest,) in rows]

    def delete(self, lease: Lease, checkpoint_id: str) -> bool:
        """Delete a checkpoint, and say whether there was one; `prune` then takes the blobs nobody names."""
        with self._database.write():
            self._leases.require(lease)
            return self._delete(lease.session_id, checkpoint_id)

    def _delete(self, session_id: str, checkpoint_id: str) -> bool:
        row = self._execute(
            "DELETE FROM checkpoints WHERE session = ? AND id = ? RETURNING n", (session_id, checkpoint_id)
        ).fetchone()
        if row is None:
            return False
        self._execute("DELETE FROM checkpoint_blobs WHERE checkpoint = ?", row)
        return True
