"""Checkpoints in promises: each save is a new number, whose promise lists the checkpoints after it."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from pyrepl3_client._journal.protocol import SavedCheckpoint, blob_digest
from pyrepl3_client.durable.remote.fenced_store import FencedStore, decode_record, find_newest
from pyrepl3_client.durable.remote.large_values import LargeValueRef, LargeValueStore
from pyrepl3_client.errors import StoreError


class CheckpointEntry(msgspec.Struct, frozen=True):
    """A checkpoint in the list: the number of its save, its place in the history, and where it is."""

    number: int
    after_seq: int
    body: LargeValueRef


class CheckpointIndex(msgspec.Struct, frozen=True):
    """The parameter of `checkpoint.{k}`."""

    checkpoints: dict[str, CheckpointEntry] = {}
    unfinished: tuple[int, ...] = ()
    """Numbers of executions before the newest checkpoint that had not ended then."""


class BlobLocation(msgspec.Struct, frozen=True, array_like=True):
    """Where a blob is: blobs that are saved together share a pack."""

    pack: str
    """Its name."""
    offset: int
    size: int


class CheckpointBody(msgspec.Struct, frozen=True):
    """A checkpoint, and where its blobs are."""

    checkpoint: SavedCheckpoint
    blobs: dict[str, BlobLocation]
    packs: dict[str, LargeValueRef]
    """By their names."""


_encode: Final = msgspec.msgpack.encode

# A pack takes no more blobs when it has so many bytes; it is dropped when no blob in it is needed.
_PACK_BYTES: Final = 4 * 1024 * 1024


class RemoteCheckpointStore:
    """The checkpoints of one session. `prepare` reads the list."""

    def __init__(self, store: FencedStore, data: LargeValueStore) -> None:
        """Write through `store`, the large parts through `data`."""
        self._store: Final = store
        self._data: Final = data
        self._number = 0
        self._index = CheckpointIndex()
        self._index_ref = LargeValueRef()
        self._bodies: Final[dict[int, CheckpointBody]] = {}
        """Those that were read or written here, by the number of their save."""
        self._saving: Final = asyncio.Lock()

    @property
    def unfinished(self) -> set[int]:
        """Numbers of executions before the newest checkpoint that had not ended when it was saved."""
        return set(self._index.unfinished)

    def _id(self, number: int) -> str:
        return f"{self._store.root}:checkpoint.{number}"

    async def prepare(self) -> None:
        """Find the newest list."""

        async def exists(number: int) -> bool:
            return await self._store.get(self._id(number)) is not None

        self._number = await find_newest(exists)
        if self._number:
            found = await self._store.get(self._id(self._number))
            if found is not None:
                self._index_ref = decode_record(found.param, LargeValueRef, "checkpoint")
                self._index = decode_record(
                    await self._data.get(self._index_ref), CheckpointIndex, "checkpoint"
                )

    async def save(
        self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes], unfinished: Collection[int]
    ) -> None:
        """Store a checkpoint in place of one of the same id, with those of its blobs that are new.

        Raises:
            StoreError: a blob is missing or its digest is of other data, or the store failed.
        """
        name = checkpoint.checkpoint_id
        async with self._saving:
            others = {other: await self._body(entry) for other, entry in self._index.checkpoints.items()}
            locations = {
                digest: location for body in others.values() for digest, location in body.blobs.items()
            }
            packs = {pack: ref for body in others.values() for pack, ref in body.packs.items()}
            absent = set(checkpoint.digests).difference(locations, blobs)
            if absent:
                raise StoreError(
                    f"checkpoint {name!r} names {len(absent)} blobs that were never put, the first of them "
                    f"{min(absent)!r}"
                )
            new = {digest: data for digest, data in blobs.items() if digest not in locations}
            await self._store_blobs(new, f"checkpoint {name!r}", locations, packs)
            needed = {digest: locations[digest] for digest in checkpoint.digests}
            body = CheckpointBody(
                checkpoint, needed, {location.pack: packs[location.pack] for location in needed.values()}
            )
            ref = await self._data.put(_encode(body), f"checkpoint {name!r}")
            entry = CheckpointEntry(self._number + 1, checkpoint.after_seq, ref)
            await self._write_index(name, entry, unfinished)
            self._bodies[entry.number] = body
            others[name] = body
            kept = {pack for other in others.values() for pack in other.packs}
            for pack in packs.keys() - kept:
                await self._data.drop(packs[pack])

    async def _store_blobs(
        self,
        blobs: Mapping[str, bytes],
        what: str,
        locations: dict[str, BlobLocation],
        packs: dict[str, LargeValueRef],
    ) -> None:
        """Store blobs, and enter where they are."""
        parts: list[bytes] = []
        inside: list[tuple[str, int, int]] = []
        size = 0
        for n, (digest, data) in enumerate(blobs.items(), start=1):
            await asyncio.sleep(0)
            if blob_digest(data) != digest:
                raise StoreError(f"blob {digest[:12]}… of {what} holds other data than its digest says")
            inside.append((digest, size, len(data)))
            parts.append(data)
            size += len(data)
            if size >= _PACK_BYTES or n == len(blobs):
                ref = await self._data.put(b"".join(parts), f"a part of {what}", separate=True)
                packs[ref.name] = ref
                locations.update(
                    {name: BlobLocation(ref.name, offset, length) for name, offset, length in inside}
                )
                parts, inside, size = [], [], 0

    async def _write_index(self, name: str, entry: CheckpointEntry, unfinished: Collection[int]) -> None:
        """Write the list with a new entry, and drop what that replaces."""
        replaced = self._index.checkpoints.get(name)
        index = CheckpointIndex({**self._index.checkpoints, name: entry}, tuple(sorted(unfinished)))
        ref = await self._data.put(_encode(index), "the list of checkpoints")
        await self._store.create(self._id(entry.number), _encode(ref))
        old, self._index_ref = self._index_ref, ref
        self._number, self._index = entry.number, index
        await self._data.drop(old)
        if replaced is not None:
            self._bodies.pop(replaced.number, None)
            await self._data.drop(replaced.body)

    async def newest(self) -> SavedCheckpoint | None:
        """Return the checkpoint that is furthest in the history, and of those the last saved."""
        entry = max(
            self._index.checkpoints.values(), key=lambda one: (one.after_seq, one.number), default=None
        )
        return None if entry is None else (await self._body(entry)).checkpoint

    async def get(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""
        entry = self._index.checkpoints.get(checkpoint_id)
        return None if entry is None else (await self._body(entry)).checkpoint

    def ids(self) -> list[str]:
        """Return the names of all checkpoints, from the earliest point of the history on."""
        entries = self._index.checkpoints
        return sorted(entries, key=lambda name: (entries[name].after_seq, entries[name].number))

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Read blobs.

        Raises:
            StoreError: one is missing, or the store failed.
        """
        bodies = [await self._body(entry) for entry in self._index.checkpoints.values()]
        locations = {digest: location for body in bodies for digest, location in body.blobs.items()}
        packs = {pack: ref for body in bodies for pack, ref in body.packs.items()}
        session = self._store.session_id
        found: dict[str, bytes] = {}
        read: dict[str, bytes] = {}
        for digest in digests:
            location = locations.get(digest)
            if location is None:
                raise StoreError(f"there is no blob {digest!r} in session {session!r}")
            if location.pack not in read:
                read[location.pack] = await self._data.get(packs[location.pack])
            data = read[location.pack][location.offset : location.offset + location.size]
            if blob_digest(data) != digest:
                raise StoreError(f"blob {digest!r} of session {session!r} is damaged; restore a backup")
            found[digest] = data
            await asyncio.sleep(0)
        return found

    async def _body(self, entry: CheckpointEntry) -> CheckpointBody:
        body = self._bodies.get(entry.number)
        if body is None:
            body = decode_record(await self._data.get(entry.body), CheckpointBody, "checkpoint")
            self._bodies[entry.number] = body
        return body
