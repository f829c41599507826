"""What executions wrote, in promises, where their outcomes do not hold all of it: in parts."""

from typing import Final

import msgspec

from pyrepl3_client._journal.protocol import TextPart, TextSize, text_size
from pyrepl3_client.durable.remote.executions import RemoteExecutionStore
from pyrepl3_client.durable.remote.fenced_store import FencedStore, decode_record, find_newest
from pyrepl3_client.durable.remote.large_values import LargeValueRef, LargeValueStore

MAX_PARTS: Final = 64
"""Of one stream of one execution: some 16 MiB. A server over the network is no place for more."""

_encode: Final = msgspec.msgpack.encode


class _TextParam(msgspec.Struct, frozen=True, omit_defaults=True):
    """The parameter of `log.{n}.{stream}.{k}`."""

    data: LargeValueRef
    end: str | None = None


class RemoteTextStore:
    """The texts of one session's executions."""

    def __init__(self, store: FencedStore, data: LargeValueStore, executions: RemoteExecutionStore) -> None:
        """Write through `store`, the large parts through `data`."""
        self._store: Final = store
        self._data: Final = data
        self._executions: Final = executions

    async def put(self, execution_id: str, stream: str, n: int, part: TextPart, max_bytes: int) -> bool:
        """Store a part of a text. See `Journal.put_text`; here the limit is one for each text."""
        if part.data and (n > MAX_PARTS or n * len(part.data) > max_bytes):
            return False
        ref = await self._data.put(part.data, f"a part of what {execution_id!r} wrote")
        await self._store.create(await self._id(execution_id, stream, n), _encode(_TextParam(ref, part.end)))
        return True

    async def size(self, execution_id: str, stream: str) -> TextSize | None:
        """Return how much is kept of a text; None if nothing is."""
        if await self._executions.find(execution_id) is None:
            return None

        async def exists(n: int) -> bool:
            return await self._store.get(await self._id(execution_id, stream, n)) is not None

        count = await find_newest(exists)
        last = await self.part(execution_id, stream, count) if count else None
        return None if last is None else text_size(count, last)

    async def part(self, execution_id: str, stream: str, n: int) -> TextPart | None:
        """Return a part of a text; None if there is none of that number."""
        found = await self._store.get(await self._id(execution_id, stream, n))
        if found is None:
            return None
        param = decode_record(found.param, _TextParam)
        return TextPart(await self._data.get(param.data), param.end)

    async def _id(self, execution_id: str, stream: str, n: int) -> str:
        execution = await self._executions.require(execution_id)
        return f"{self._executions.log_id(execution.entry.seq)}.{stream}.{n}"
