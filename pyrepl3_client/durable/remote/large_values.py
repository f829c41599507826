"""Bytes of any size in promises: small values inline, larger ones in parts of their own."""

import asyncio
import secrets
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from pyrepl3_client.durable.remote.fenced_store import FencedStore
from pyrepl3_client.errors import StoreError

INLINE_BYTES: Final = 32 * 1024
PART_BYTES: Final = 512 * 1024
MAX_BYTES: Final = 1024**3
# Parts under way at one time.
_CONCURRENT_PARTS: Final = 4


class LargeValueRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a value is: inline, or in the promises of a name."""

    inline: bytes = b""
    name: str = ""
    size: int = 0


class LargeValueStore:
    """Stores bytes for as long as anything refers to them."""

    def __init__(self, store: FencedStore) -> None:
        """Write through `store`."""
        self._store: Final = store

    @staticmethod
    def check_size(what: str, data: bytes) -> None:
        """Raise `StoreError` if there are too many bytes of what is described by `what`."""
        if len(data) > MAX_BYTES:
            raise StoreError(
                f"{what} has {len(data):,} bytes, and a store over the network holds values of up to "
                f"{MAX_BYTES:,}; make it smaller, or keep it in a file of its own"
            )

    async def put(self, data: bytes, what: str, *, separate: bool = False) -> LargeValueRef:
        """Store bytes.

        Args:
            data: up to a gibibyte.
            what: they are, in words.
            separate: whether to store them in promises of their own, however few they are.

        Raises:
            StoreError: there are more of them, or the store failed.
        """
        if len(data) <= INLINE_BYTES and not separate:
            return LargeValueRef(data)
        self.check_size(what, data)
        # A new name each time: it cannot meet a part that an owner left when it was killed.
        ref = LargeValueRef(b"", secrets.token_hex(8), len(data))
        limit = asyncio.Semaphore(_CONCURRENT_PARTS)

        async def put_part(n: int) -> None:
            async with limit:
                # Without the root's lineage: what is settled may be taken by the store's retention.
                await self._store.create(
                    self._part(ref, n), data[n * PART_BYTES : (n + 1) * PART_BYTES], tags={}
                )

        await _run_all(*(put_part(n) for n in range(_parts(ref))))
        return ref

    async def get(self, ref: LargeValueRef) -> bytes:
        """Read bytes.

        Raises:
            StoreError: a part is missing, or the store failed.
        """
        if not ref.name:
            return ref.inline
        parts = [b""] * _parts(ref)
        limit = asyncio.Semaphore(_CONCURRENT_PARTS)

        async def get_part(n: int) -> None:
            async with limit:
                found = await self._store.get(self._part(ref, n))
            if found is None:
                raise StoreError(
                    f"promise {self._part(ref, n)!r} of session {self._store.session_id!r} is missing: "
                    "the store has deleted it; restore a backup"
                )
            parts[n] = found.param

        await _run_all(*(get_part(n) for n in range(len(parts))))
        return b"".join(parts)

    async def drop(self, ref: LargeValueRef) -> None:
        """Settle the parts: the store's retention may delete them then. A failure is trouble."""
        try:
            for n in range(_parts(ref) if ref.name else 0):
                await self._store.resolve(self._part(ref, n), b"")
        except StoreError as error:
            self._store.on_trouble(f"what was replaced ({ref.name!r}) cannot be let go", error)

    def _part(self, ref: LargeValueRef, n: int) -> str:
        return f"{self._store.root}:data.{ref.name}.{n}"


def _parts(ref: LargeValueRef) -> int:
    return max(1, -(-ref.size // PART_BYTES))


async def _run_all(*work: Coroutine[Any, Any, None]) -> None:
    """Await all, and raise the first error as it is, not as a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(one)
    except* StoreError as errors:
        raise _first(errors) from None


def _first(errors: BaseExceptionGroup[StoreError]) -> StoreError:
    for error in errors.exceptions:
        return error if isinstance(error, StoreError) else _first(error)
    raise AssertionError("a group of no errors")
