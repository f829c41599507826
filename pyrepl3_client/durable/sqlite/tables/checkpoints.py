"""Checkpoints, and the blobs they are made of: each stored once, under its digest, for all sessions."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from resonate.timing import Clock

from pyrepl3_client._journal.protocol import blob_digest
from pyrepl3_client.durable.sqlite.tables.checksums import checksum, require_intact
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.leases import Lease, LeaseTable
from pyrepl3_client.errors import StoreError

# Written in some 3 ms, for which the event loop waits.
PART_BYTES: Final = 1024 * 1024


class CheckpointRow(Struct, frozen=True):
    """A namespace as it was after execution number `after_seq`; `created_at` is in milliseconds."""

    session_id: str
    checkpoint_id: str
    after_seq: int
    created_at: int
    manifest: bytes
    unsaved: bytes = b""


def parts_of(size: int) -> int:
    """Return of how many parts a blob of so many bytes consists: one at least."""
    return max(1, -(-size // PART_BYTES))


_CHECKPOINT: Final = "SELECT crc, session, id, after_seq, created_at, manifest, unsaved FROM checkpoints "


class CheckpointTable:
    """The checkpoints of all sessions in a store; errors as in `SessionRecords`."""

    def __init__(self, database: Database, clock: Clock, leases: LeaseTable) -> None:
        """Work on `database`; `clock` returns milliseconds since the epoch."""
        self._database: Final = database
        self._execute: Final = database.execute
        self._clock: Final = clock
        self._leases: Final = leases

    # --- blobs ---

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Return those of the digests whose blobs have still to be put; the others are kept for now.

        They count as put: `prune` spares them for as long as it spares a new blob.
        """
        now = self._clock()
        with self._database.write():
            return {digest for digest in digests if not self._touch(digest, now)}

    def put(self, data: bytes | memoryview, digest: str) -> None:
        """Store a blob at once, unless it is there. Put several small ones in one transaction.

        Args:
            data: the whole of it.
            digest: its `blob_digest`, which is checked: blobs are shared between sessions, and what a
                worker says must not change what another one is given.

        Raises:
            ValueError: the digest is of other data.
        """
        if blob_digest(data) != digest:
            raise ValueError(f"the blob of {len(data)} bytes has not the digest {digest!r}")
        with self._database.write():
            for n in range(parts_of(len(data))):
                if not self.put_part(data, digest, n):
                    return

    def put_part(self, data: bytes | memoryview, digest: str, n: int) -> bool:
        """Store part `n` of a blob, from 0 on; the last one completes it. One short transaction.

        Args:
            data: the whole blob.
            digest: its `blob_digest`; the caller has checked it.
            n: which part.

        Returns:
            Whether the next one has to be put: False when the blob is there, or complete by now.

        Raises:
            StoreError: an earlier part was pruned.
        """
        now, last = self._clock(), parts_of(len(data)) - 1
        part = memoryview(data)[n * PART_BYTES : (n + 1) * PART_BYTES]
        with self._database.write():
            if self._touch(digest, now):
                return False
            self._database.note_bytes(len(part))
            if n == 0:
                # An incomplete one is what a killed process left, or what another one is at, with the
                # same data.
                self._execute(
                    "INSERT INTO blobs (digest, touched_at, size, complete, data) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT (digest) DO UPDATE SET touched_at = excluded.touched_at",
                    (digest, now, len(data), last == 0, part),
                )
                return last > 0
            kept = self._execute(
                "UPDATE blobs SET touched_at = ?, complete = ? WHERE digest = ?", (now, n == last, digest)
            )
            if not kept.rowcount:
                raise StoreError(f"blob {digest!r} was pruned while it was being stored; store it again")
            self._execute(
                "INSERT OR IGNORE INTO blob_parts (digest, n, data) VALUES (?, ?, ?)", (digest, n, part)
            )
        return n < last

    def blob(self, digest: str) -> bytes:
        """Read a blob at once.

        Raises:
            StoreError: there is none of that digest.
        """
        with self._database.read():
            first, parts = self.first_part(digest)
            return (
                first if parts == 1 else b"".join((first, *(self.part(digest, n) for n in range(1, parts))))
            )

    def first_part(self, digest: str) -> tuple[bytes, int]:
        """Read the beginning of a blob, and of how many parts it consists.

        Raises:
            StoreError: there is none of that digest.
        """
        with self._database.read():
            row = self._execute(
                "SELECT data, size FROM blobs WHERE digest = ? AND complete", (digest,)
            ).fetchone()
        if row is None:
            raise StoreError(f"there is no blob {digest!r} in the store at {self._database.path!r}")
        return row[0], parts_of(row[1])

    def part(self, digest: str, n: int) -> bytes:
        """Read part `n` of a blob, from 1 on.

        Raises:
            StoreError: there is none.
        """
        with self._database.read():
            row = self._execute(
                "SELECT data FROM blob_parts WHERE digest = ? AND n = ?", (digest, n)
            ).fetchone()
        if row is None:
            raise StoreError(f"blob {digest!r} has lost part {n} in the store at {self._database.path!r}")
        return row[0]

    def _touch(self, digest: str, now: int) -> bool:
        cursor = self._execute("UPDATE blobs SET touched_at = ? WHERE digest = ? AND complete", (now, digest))
        return cursor.rowcount > 0

    # --- checkpoints ---

    def save(
        self,
        lease: Lease,
        checkpoint_id: str,
        after_seq: int,
        manifest: bytes,
        digests: Collection[str],
        unsaved: bytes = b"",
    ) -> CheckpointRow:
        """Store a checkpoint, in place of one of the same id, once all of its blobs are there.

        Blobs that only the replaced one had are deleted with it.

        Args:
            lease: the session's.
            checkpoint_id: its name.
            after_seq: the number of the execution after which the namespace was so.
            manifest: how the blobs make up a namespace.
            digests: of all its blobs.
            unsaved: what could not be saved, in the caller's encoding.

        Raises:
            StoreError: a blob is missing.
        """
        now = self._clock()
        with self._database.write():
            self._leases.require(lease)
            names = msgspec.json.encode(digests).decode()
            absent, first = self._execute(
                "SELECT count(*), min(value) FROM json_each(?) WHERE NOT EXISTS"
                " (SELECT 1 FROM blobs b WHERE b.digest = value AND b.complete)",
                (names,),
            ).fetchone()
            if absent:
                raise StoreError(
                    f"checkpoint {checkpoint_id!r} names {absent} blobs that were never put, "
                    f"the first of them {first!r}"
                )
            replaced = self._digests(lease.session_id, checkpoint_id)
            self._delete(lease.session_id, checkpoint_id)
            (n,) = self._execute(
                "INSERT INTO checkpoints (session, id, after_seq, created_at, manifest, unsaved, crc)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING n",
                (
                    lease.session_id,
                    checkpoint_id,
                    after_seq,
                    now,
                    manifest,
                    unsaved,
                    checksum(manifest, unsaved),
                ),
            ).fetchone()
            self._execute(
                "INSERT OR IGNORE INTO checkpoint_blobs (checkpoint, digest)"
                " SELECT ?, value FROM json_each(?) ORDER BY value",
                (n, names),
            )
            self.drop(set(replaced).difference(digests))
        return CheckpointRow(lease.session_id, checkpoint_id, after_seq, now, manifest, unsaved)

    def drop(self, digests: Iterable[str]) -> None:
        """Delete those of the blobs that no checkpoint of any session names.

        One that another session has put and not named yet may be among them: that session finds it `missing`
        and puts it once more.
        """
        self._database.execute_many(
            "DELETE FROM blobs WHERE digest = ? AND NOT EXISTS"
            " (SELECT 1 FROM checkpoint_blobs c WHERE c.digest = blobs.digest)",
            ((digest,) for digest in digests),
        )

    def get(self, session_id: str, checkpoint_id: str) -> CheckpointRow | None:
        """Look up a checkpoint."""
        with self._database.read():
            row = self._execute(
                _CHECKPOINT + "WHERE session = ? AND id = ?", (session_id, checkpoint_id)
            ).fetchone()
        return None if row is None else self._checked(row)

    def newest(self, session_id: str) -> CheckpointRow | None:
        """Return the checkpoint that is furthest in the session's history, and of those the last saved."""
        with self._database.read():
            row = self._execute(
                _CHECKPOINT + "WHERE session = ? ORDER BY after_seq DESC, n DESC LIMIT 1", (session_id,)
            ).fetchone()
        return None if row is None else self._checked(row)

    def of(self, session_id: str) -> list[CheckpointRow]:
        """Return all checkpoints of a session, from the earliest point of its history on."""
        with self._database.read():
            rows = self._execute(
                _CHECKPOINT + "WHERE session = ? ORDER BY after_seq, n", (session_id,)
            ).fetchall()
        return [self._checked(row) for row in rows]

    def _checked(self, row: Sequence[Any]) -> CheckpointRow:
        crc, *values = row
        checkpoint = CheckpointRow(*values)
        what = f"checkpoint {checkpoint.checkpoint_id!r} of session {checkpoint.session_id!r}"
        require_intact(what, self._database.path, crc, checkpoint.manifest, checkpoint.unsaved)
        return checkpoint

    def digests(self, session_id: str, checkpoint_id: str) -> list[str]:
        """Return the digests of a checkpoint's blobs, sorted; none for a checkpoint that is not there."""
        with self._database.read():
            return self._digests(session_id, checkpoint_id)

    def _digests(self, session_id: str, checkpoint_id: str) -> list[str]:
        rows: list[tuple[str]] = self._execute(
            "SELECT digest FROM checkpoint_blobs WHERE checkpoint ="
            " (SELECT n FROM checkpoints WHERE session = ? AND id = ?) ORDER BY digest",
            (session_id, checkpoint_id),
        ).fetchall()
        return [digest for (digest,) in rows]

    def delete(self, lease: Lease, checkpoint_id: str) -> bool:
        """Delete a checkpoint, and return whether there was one; `prune` then takes the unnamed blobs."""
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
