"""Checkpoints in promises: each save is a new number, which says what checkpoints there are after it."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from pyrepl3_client._journal.protocol import SavedCheckpoint, blob_digest
from pyrepl3_client.durable.remote.fenced_store import FencedStore, decode_record, find_newest
from pyrepl3_client.durable.remote.large_values import LargeValueRef, LargeValueStore
from pyrepl3_client.errors import StoreError


class _Listed(msgspec.Struct, frozen=True):
    """A checkpoint in the list: the number of its save, its place in the history, and where it is."""

    number: int
    after_seq: int
    body: LargeValueRef


class _List(msgspec.Struct, frozen=True):
    """The parameter of `checkpoint.{k}`."""

    checkpoints: dict[str, _Listed] = {}
    unfinished: tuple[int, ...] = ()
    """Numbers of executions before the newest checkpoint that had not ended then."""


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a blob is: blobs that are saved together share a pack."""

    pack: str
    """Its name."""
    offset: int
    size: int


class _Body(msgspec.Struct, frozen=True):
    """A checkpoint, and where its blobs are."""

    checkpoint: SavedCheckpoint
    blobs: dict[str, _Place]
    packs: dict[str, LargeValueRef]
    """By their names."""


_encode: Final = msgspec.msgpack.encode

# A pack takes no more blobs when it has so many bytes; it is let go when no blob in it is needed.
_PACK_BYTES: Final = 4 * 1024 * 1024


class CheckpointStore:
    """The checkpoints of one session. `prepare` reads the list."""

    def __init__(self, store: FencedStore, data: LargeValueStore) -> None:
        """Write through `store`, the large parts through `data`."""
        self._store: Final = store
        self._data: Final = data
        self._number = 0
        self._list = _List()
        self._list_ref = LargeValueRef()
        self._bodies: Final[dict[int, _Body]] = {}
        """Those that were read or written here, by the number of their save."""
        self._saving: Final = asyncio.Lock()

    @property
    def unfinished(self) -> set[int]:
        """Numbers of executions before the newest checkpoint that had not ended when it was saved."""
        return set(self._list.unfinished)

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
                self._list_ref = decode_record(found.param, LargeValueRef, "checkpoint")
                self._list = decode_record(await self._data.get(self._list_ref), _List, "checkpoint")

    async def save(
        self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes], unfinished: Collection[int]
    ) -> None:
        """Store a checkpoint in place of one of the same id, with those of its blobs that are new.

        Raises:
            StoreError: a blob is missing or its digest is of other data, or the store failed.
        """
        name = checkpoint.checkpoint_id
        async with self._saving:
            others = {other: await self._body(listed) for other, listed in self._list.checkpoints.items()}
            places = {digest: place for body in others.values() for digest, place in body.blobs.items()}
            packs = {pack: ref for body in others.values() for pack, ref in body.packs.items()}
            absent = set(checkpoint.digests).difference(places, blobs)
            if absent:
                raise StoreError(
                    f"checkpoint {name!r} names {len(absent)} blobs that were never put, the first of them "
                    f"{min(absent)!r}"
                )
            new = {digest: data for digest, data in blobs.items() if digest not in places}
            await self._pack(new, f"checkpoint {name!r}", places, packs)
            needed = {digest: places[digest] for digest in checkpoint.digests}
            body = _Body(checkpoint, needed, {place.pack: packs[place.pack] for place in needed.values()})
            ref = await self._data.put(_encode(body), f"checkpoint {name!r}")
            listed = _Listed(self._number + 1, checkpoint.after_seq, ref)
            await self._list_anew(name, listed, unfinished)
            self._bodies[listed.number] = body
            others[name] = body
            kept = {pack for other in others.values() for pack in other.packs}
            for pack in packs.keys() - kept:
                await self._data.drop(packs[pack])

    async def _pack(
        self,
        blobs: Mapping[str, bytes],
        what: str,
        places: dict[str, _Place],
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
                ref = await self._data.put(b"".join(parts), f"a part of {what}", apart=True)
                packs[ref.name] = ref
                places.update({name: _Place(ref.name, offset, length) for name, offset, length in inside})
                parts, inside, size = [], [], 0

    async def _list_anew(self, name: str, listed: _Listed, unfinished: Collection[int]) -> None:
        """Let a new list hold from now on, and let go of what it replaces."""
        replaced = self._list.checkpoints.get(name)
        anew = _List({**self._list.checkpoints, name: listed}, tuple(sorted(unfinished)))
        ref = await self._data.put(_encode(anew), "the list of checkpoints")
        await self._store.create(self._id(listed.number), _encode(ref))
        old, self._list_ref = self._list_ref, ref
        self._number, self._list = listed.number, anew
        await self._data.drop(old)
        if replaced is not None:
            self._bodies.pop(replaced.number, None)
            await self._data.drop(replaced.body)

    async def newest(self) -> SavedCheckpoint | None:
        """Give the checkpoint that is furthest in the history, and of those the last saved."""
        listed = max(
            self._list.checkpoints.values(), key=lambda one: (one.after_seq, one.number), default=None
        )
        return None if listed is None else (await self._body(listed)).checkpoint

    async def get(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""
        listed = self._list.checkpoints.get(checkpoint_id)
        return None if listed is None else (await self._body(listed)).checkpoint

    def ids(self) -> list[str]:
        """Give the names of all checkpoints, from the earliest point of the history on."""
        listed = self._list.checkpoints
        return sorted(listed, key=lambda name: (listed[name].after_seq, listed[name].number))

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Read blobs.

        Raises:
            StoreError: one is missing, or the store failed.
        """
        bodies = [await self._body(listed) for listed in self._list.checkpoints.values()]
        places = {digest: place for body in bodies for digest, place in body.blobs.items()}
        packs = {pack: ref for body in bodies for pack, ref in body.packs.items()}
        session = self._store.session_id
        found: dict[str, bytes] = {}
        read: dict[str, bytes] = {}
        for digest in digests:
            place = places.get(digest)
            if place is None:
                raise StoreError(f"there is no blob {digest!r} in session {session!r}")
            if place.pack not in read:
                read[place.pack] = await self._data.get(packs[place.pack])
            data = read[place.pack][place.offset : place.offset + place.size]
            if blob_digest(data) != digest:
                raise StoreError(f"blob {digest!r} of session {session!r} is damaged; restore a backup")
            found[digest] = data
            await asyncio.sleep(0)
        return found

    async def _body(self, listed: _Listed) -> _Body:
        body = self._bodies.get(listed.number)
        if body is None:
            body = decode_record(await self._data.get(listed.body), _Body, "checkpoint")
            self._bodies[listed.number] = body
        return body
