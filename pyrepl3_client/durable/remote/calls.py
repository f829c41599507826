"""The input and host calls of executions in promises: the parameter is the intent, the value the outcome."""

from typing import Final

import msgspec

from pyrepl3_client._journal.protocol import CallRecord
from pyrepl3_client.durable.remote.executions import LoggedExecution, RemoteExecutionStore
from pyrepl3_client.durable.remote.fenced_store import FencedStore, StoredPromise, decode_record, find_newest
from pyrepl3_client.durable.remote.large_values import LargeValueRef, LargeValueStore
from pyrepl3_client.durable.resonate.ids import call_key, call_place
from pyrepl3_client.errors import StoreError


class CallParam(msgspec.Struct, frozen=True):
    """The parameter of `log.{n}.call.{m}`; its value is a `LargeValueRef`."""

    call_id: str
    name: str
    digest: str


_encode: Final = msgspec.msgpack.encode


class RemoteCallStore:
    """Records the calls of executions, numbered within each in the order of their intents."""

    def __init__(self, store: FencedStore, data: LargeValueStore, executions: RemoteExecutionStore) -> None:
        """Write through `store`, the large outcomes through `data`."""
        self._store: Final = store
        self._data: Final = data
        self._executions: Final = executions

    async def of(self, execution_id: str) -> dict[str, CallRecord]:
        """Return an execution's calls by their ids, in the order of their intents."""
        execution = await self._executions.find(execution_id)
        if execution is None:
            return {}
        async with execution.call_order:
            return {call_id: call for call_id, (_, call) in (await self._read_all(execution)).items()}

    async def begin(self, execution_id: str, call: CallRecord) -> CallRecord | None:
        """Record that a call is about to be made, or return the one that is on record."""
        await self._executions.record_kept()
        execution = await self._executions.require(execution_id)
        async with execution.call_order:
            calls = await self._read_all(execution)
            if call.call_id in calls:
                return calls[call.call_id][1]
            n = len(calls) + 1
            param = _encode(CallParam(call.call_id, call.name, call.digest))
            key = call_key(execution_id, call.name, call_place(call.call_id))
            await self._store.create(self._id(execution, n), param, key)
            calls[call.call_id] = (n, CallRecord(call.call_id, call.name, call.digest))
        return None

    async def retry(self, execution_id: str, call_id: str) -> int:
        """Record that a call without outcome is made again, and return the number of the attempt."""
        await self._executions.record_kept()
        execution, n, call = await self._require(execution_id, call_id)
        if call.outcome is not None:
            raise StoreError(f"there is no open call {call_id!r} in session {self._store.session_id!r}")
        await self._store.create(f"{self._id(execution, n)}.again.{call.attempt}", b"")
        again = msgspec.structs.replace(call, attempt=call.attempt + 1)
        (await self._read_all(execution))[call_id] = (n, again)
        return again.attempt

    async def finish(self, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record a call's outcome. The first one stays."""
        await self._executions.record_kept()
        execution, n, call = await self._require(execution_id, call_id)
        if call.outcome is not None:
            return
        ref = await self._data.put(outcome, f"the outcome of call {call_id!r}")
        await self._store.resolve(self._id(execution, n), _encode(ref))
        (await self._read_all(execution))[call_id] = (n, msgspec.structs.replace(call, outcome=outcome))

    def _id(self, execution: LoggedExecution, n: int) -> str:
        return f"{self._executions.log_id(execution.entry.seq)}.call.{n}"

    async def _require(self, execution_id: str, call_id: str) -> tuple[LoggedExecution, int, CallRecord]:
        execution = await self._executions.require(execution_id)
        async with execution.call_order:
            known = (await self._read_all(execution)).get(call_id)
        if known is None:
            raise StoreError(f"there is no call {call_id!r} in session {self._store.session_id!r}")
        return execution, *known

    async def _read_all(self, execution: LoggedExecution) -> dict[str, tuple[int, CallRecord]]:
        if execution.calls is None:
            calls: dict[str, tuple[int, CallRecord]] = {}
            while (found := await self._store.get(self._id(execution, len(calls) + 1))) is not None:
                n = len(calls) + 1
                call = await self._read(execution, n, found)
                calls[call.call_id] = (n, call)
            execution.calls = calls
        return execution.calls

    async def _read(self, execution: LoggedExecution, n: int, found: StoredPromise) -> CallRecord:
        param = decode_record(found.param, CallParam)
        if found.value is not None:
            outcome = await self._data.get(decode_record(found.value, LargeValueRef))
            return CallRecord(param.call_id, param.name, param.digest, outcome)

        async def retried(k: int) -> bool:
            return await self._store.get(f"{self._id(execution, n)}.again.{k}") is not None

        return CallRecord(param.call_id, param.name, param.digest, None, 1 + await find_newest(retried))
