"""Writes and reads blobs in short transactions, so that the event loop never waits long for one."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from hashlib import sha256
from typing import Final, Protocol

from pyrepl3_client._journal.protocol import blob_digest
from pyrepl3_client.durable.sqlite import PART_BYTES, SessionRecords, parts_of
from pyrepl3_client.errors import StoreError

# Blobs in one transaction: some 5 ms.
_BATCH: Final = 200


class Transact(Protocol):
    """Does something with the records, as one transaction."""

    def __call__[T](self, work: Callable[[SessionRecords], T], /) -> Awaitable[T]:
        """Return what `work` returns."""
        ...


async def put_blobs(transact: Transact, blobs: Mapping[str, bytes], of: str) -> None:
    """Store blobs under their digests, which are checked: a worker's word is no proof.

    Args:
        transact: writes.
        blobs: by digest.
        of: what they are of, in words.

    Raises:
        StoreError: a digest is of other data, or the store cannot be written. Some may have been stored;
            nothing names them.
    """
    for batch in _batches(blobs):
        for digest, data in batch.items():
            if await _digest_of(data) != digest:
                raise StoreError(f"blob {digest[:12]}… of {of} holds other data than its digest says")
        for n in range(parts_of(max(map(len, batch.values())))):
            await asyncio.sleep(0)
            await transact(lambda records, batch=batch, n=n: _put_part(records, batch, n))


def _put_part(records: SessionRecords, batch: Mapping[str, bytes], n: int) -> None:
    for digest, data in batch.items():
        records.checkpoints.put_part(data, digest, n)


async def read_blobs(transact: Transact, digests: Collection[str]) -> dict[str, bytes]:
    """Read blobs.

    Args:
        transact: reads.
        digests: which.

    Raises:
        StoreError: one is missing or damaged, or the store cannot be read.
    """
    found: dict[str, bytes] = {}
    for digest in digests:
        await asyncio.sleep(0)
        first, count = await transact(lambda records, digest=digest: records.checkpoints.first_part(digest))
        parts = [first]
        for n in range(1, count):
            await asyncio.sleep(0)
            parts.append(
                await transact(lambda records, digest=digest, n=n: records.checkpoints.part(digest, n))
            )
        found[digest] = first if count == 1 else b"".join(parts)
        if await _digest_of(found[digest]) != digest:
            raise StoreError(
                f"blob {digest[:12]}… of a checkpoint is damaged in the store: it is not what was recorded "
                "(check the disk, and restore a backup)"
            )
    return found


def _batches(blobs: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Put small blobs together, for one transaction; a larger one is alone."""
    batch: dict[str, bytes] = {}
    size = 0
    for digest, data in blobs.items():
        if batch and (size + len(data) > PART_BYTES or len(batch) == _BATCH):
            yield batch
            batch, size = {}, 0
        batch[digest] = data
        size += len(data)
    if batch:
        yield batch


async def _digest_of(data: bytes) -> str:
    if len(data) <= PART_BYTES:
        return blob_digest(data)
    digest = sha256()
    for n in range(parts_of(len(data))):
        digest.update(memoryview(data)[n * PART_BYTES : (n + 1) * PART_BYTES])
        await asyncio.sleep(0)
    return digest.hexdigest()
