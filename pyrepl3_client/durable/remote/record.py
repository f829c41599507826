"""A session's record in promises: executions, calls and what has been answered."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from resonate.codec import Codec, NoopEncryptor
from resonate.types import PromiseSettleReq

from pyrepl3_client._journal.protocol import CallRecord, Entry, History, SavedCheckpoint, Spec, Status
from pyrepl3_client.durable.remote.checkpoints import CheckpointStore
from pyrepl3_client.durable.remote.fenced_store import FencedStore, Found, find_newest
from pyrepl3_client.durable.remote.large_values import LargeValueRef, LargeValueStore
from pyrepl3_client.durable.resonate.function import Settled
from pyrepl3_client.durable.resonate.ids import awaited_id, escaped, execution_key, root_id
from pyrepl3_client.durable.resonate.journal import BegunExecution, RecordedOutcome
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.messages import ResultMode

# Promises read at one time.
_ABREAST: Final = 16


class _Logged(msgspec.Struct, frozen=True, omit_defaults=True):
    """The parameter of `log.{n}`."""

    execution_id: str
    code: LargeValueRef
    digest: str
    timeout: float | None = None
    result_mode: ResultMode = "last_expr_or_assign"
    store_history: bool = True


class _Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `log.{n}`."""

    outcome: LargeValueRef
    rejected: bool = False
    attempts: int = 0


class _Intent(msgspec.Struct, frozen=True):
    """The parameter of `log.{n}.call.{m}`; its value is a `Ref`."""

    call_id: str
    name: str
    digest: str


class _Known:
    """An execution as far as it is known here."""

    __slots__ = ("calls", "deaths", "digest", "ended", "entry", "excuses", "intending")

    def __init__(self, entry: Entry, digest: str, ended: _Ended | None) -> None:
        self.entry = entry
        self.deaths = self.excuses = 0
        """How many of them do not count."""
        self.digest = digest
        self.ended = ended
        self.calls: dict[str, tuple[int, CallRecord]] | None = None
        """By call id, with their numbers; None until they were looked up."""
        self.intending = asyncio.Lock()
        """Numbers have no gaps, so intents are recorded one after another."""


_encode: Final = msgspec.msgpack.encode
_codec: Final = Codec(NoopEncryptor())


class PromiseRecord:
    """The half of a `Journal` that records; see the package for what is where.

    Outcomes that the store did not take are kept, and recorded before anything else once it takes them.
    """

    def __init__(self, store: FencedStore) -> None:
        """Record through `store`, which is ours; `prepare` reads where it stands."""
        self._store: Final = store
        self._data: Final = LargeValueStore(store)
        self._saved: Final = CheckpointStore(store, self._data)
        self._executions: Final[dict[str, _Known]] = {}
        self._last_seq = 0
        self._unrecorded: Final[dict[str, tuple[RecordedOutcome, str | None]]] = {}

    async def prepare(self) -> None:
        """Find the newest execution and checkpoint, and mend what a killed owner left half done."""
        self._last_seq = await find_newest(self._has_log)
        await self._saved.prepare()
        if self._last_seq:
            newest = await self._read(self._last_seq)
            await self._index(newest.entry.execution_id, self._last_seq)
            if newest.ended is not None:
                await self._mend(newest)

    async def _has_log(self, n: int) -> bool:
        return await self._store.get(self._log(n)) is not None

    def _log(self, n: int) -> str:
        return f"{self._store.root}:log.{n}"

    # --- executions ----------------------------------------------------------------------------------

    async def _begin(self, execution_id: str, digest: str, spec: Spec) -> BegunExecution:
        await self._catch_up()
        remembered = execution_id in self._executions
        execution = await self._find(execution_id)
        new = execution is None
        if execution is not None and execution.ended is not None and not remembered:
            await self._mend(execution)
        if execution is None:
            seq = self._last_seq + 1
            code = await self._data.put(spec.code.encode(), f"the code of execution {execution_id!r}")
            logged = _Logged(execution_id, code, digest, spec.timeout, spec.result_mode, spec.store_history)
            await self._store.create(self._log(seq), _encode(logged), execution_key(execution_id))
            self._last_seq = seq
            await self._index(execution_id, seq)
            execution = _Known(Entry(seq, execution_id, spec), digest, None)
            execution.calls = {}
            self._executions[execution_id] = execution
        outcome = None if execution.ended is None else await self._data.get(execution.ended.outcome)
        return BegunExecution(execution.entry, execution.digest, new, outcome)

    def _index_id(self, execution_id: str) -> str:
        return f"{self._store.root}:exec.{escaped(execution_id)}"

    async def _index(self, execution_id: str, seq: int) -> None:
        await self._store.create(self._index_id(execution_id), _encode(seq))

    async def _find(self, execution_id: str) -> _Known | None:
        known = self._executions.get(execution_id)
        if known is None:
            found = await self._store.get(self._index_id(execution_id))
            known = None if found is None else await self._read(_decode(found.param, int))
        return known

    async def _require(self, execution_id: str) -> _Known:
        execution = await self._find(execution_id)
        if execution is None:
            raise StoreError(f"there is no execution {execution_id!r} in session {self._store.session_id!r}")
        return execution

    async def _read(self, seq: int) -> _Known:
        """Read an execution by its number, and remember it."""
        found = await self._store.get(self._log(seq))
        if found is None:
            raise StoreError(f"execution number {seq} is missing in session {self._store.session_id!r}")
        logged = _decode(found.param, _Logged)
        ended = None if found.value is None else _decode(found.value, _Ended)
        known = self._executions.get(logged.execution_id)
        if known is not None:
            return known
        deaths = excuses = 0
        if ended is None:
            deaths, excuses = await self._count(seq, "attempt"), await self._count(seq, "excuse")
        attempts = deaths - excuses if ended is None else ended.attempts
        code = (await self._data.get(logged.code)).decode()
        spec = Spec(code, logged.timeout, logged.result_mode, logged.store_history)
        entry = Entry(seq, logged.execution_id, spec, _status(ended), attempts)
        execution = _Known(entry, logged.digest, ended)
        execution.deaths, execution.excuses = deaths, excuses
        return self._executions.setdefault(logged.execution_id, execution)

    async def _read_all(self, numbers: Collection[int]) -> list[Entry]:
        limit = asyncio.Semaphore(_ABREAST)

        async def read(seq: int) -> Entry:
            async with limit:
                return (await self._read(seq)).entry

        return list(await asyncio.gather(*(read(seq) for seq in sorted(numbers))))

    async def load(self) -> History:
        """Give the newest checkpoint and what came after it."""
        await self._catch_up()
        checkpoint = await self._saved.newest()
        after = 0 if checkpoint is None else checkpoint.after_seq
        numbers = {*self._saved.unfinished, *range(after + 1, self._last_seq + 1)}
        entries = await self._read_all(numbers)
        for execution in list(self._executions.values()):
            if execution.ended is not None:
                await self._mend(execution)
        return History(
            checkpoint, tuple(entry for entry in entries if entry.seq > after or entry.status == "started")
        )

    async def entries(self, up_to_seq: int) -> list[Entry]:
        """Give all executions up to a number, in order."""
        return await self._read_all(range(1, min(up_to_seq, self._last_seq) + 1))

    # --- attempts ------------------------------------------------------------------------------------

    async def _count(self, seq: int, what: str) -> int:
        async def exists(n: int) -> bool:
            return await self._store.get(f"{self._log(seq)}.{what}.{n}") is not None

        return await find_newest(exists)

    async def add_death(self, execution_id: str) -> int:
        """Count a death that cost an execution its run."""
        await self._catch_up()
        execution = await self._require(execution_id)
        await self._store.create(f"{self._log(execution.entry.seq)}.attempt.{execution.deaths + 1}", b"")
        execution.deaths += 1
        return self._counted(execution)

    async def exempt_next_death(self, execution_id: str) -> None:
        """Record that the next death costs an execution nothing."""
        execution = await self._require(execution_id)
        await self._store.create(f"{self._log(execution.entry.seq)}.excuse.{execution.excuses + 1}", b"")
        execution.excuses += 1
        self._counted(execution)

    def _counted(self, execution: _Known) -> int:
        attempts = execution.deaths - execution.excuses
        execution.entry = msgspec.structs.replace(execution.entry, attempts=attempts)
        return attempts

    # --- outcomes ------------------------------------------------------------------------------------

    async def _end(
        self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None, *, keep: bool
    ) -> bytes:
        self._data.check_size(f"the outcome of execution {execution_id!r}", outcome.data)
        if keep:
            # From here on it is not lost for as long as this process lives.
            self._unrecorded.setdefault(execution_id, (outcome, promise_id))
        return await self._record(execution_id, outcome, promise_id)

    async def _record(self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None) -> bytes:
        execution = await self._require(execution_id)
        recorded = outcome.data
        if execution.ended is None:
            ref = await self._data.put(outcome.data, f"the outcome of execution {execution_id!r}")
            ended = _Ended(ref, outcome.rejected, execution.entry.attempts)
            found = await self._store.resolve(self._log(execution.entry.seq), _encode(ended))
            execution.ended = ended if found.value is None else _decode(found.value, _Ended)
            execution.entry = msgspec.structs.replace(execution.entry, status=_status(execution.ended))
            execution.calls = None
            if execution.ended != ended:
                recorded = await self._data.get(execution.ended.outcome)
        else:
            recorded = await self._data.get(execution.ended.outcome)
        if promise_id is not None:
            settled = Settled.of(execution_id, recorded, rejected=execution.ended.rejected)
            request = PromiseSettleReq(id=promise_id, state="resolved", value=_codec.encode(settled))
            await self._store.settle(request)
        self._unrecorded.pop(execution_id, None)
        return recorded

    async def _mend(self, execution: _Known) -> None:
        """Resolve the promise of an execution whose owner was killed just after recording its outcome."""
        execution_id, ended = execution.entry.execution_id, execution.ended
        promise_id = awaited_id(root_id(self._store.session_id, execution_id))
        found = await self._store.get(promise_id)
        if ended is not None and found is not None and found.value is None:
            outcome = RecordedOutcome(await self._data.get(ended.outcome), ended.rejected)
            await self._record(execution_id, outcome, promise_id)
            await self._mended(promise_id)

    async def _mended(self, promise_id: str) -> None:
        """A promise has settled for which a function waits that nobody here has started."""

    async def _catch_up(self) -> None:
        """Record what an earlier failure kept back."""
        for execution_id, (outcome, promise_id) in list(self._unrecorded.items()):
            await self._record(execution_id, outcome, promise_id)

    async def _known(self, execution_id: str) -> RecordedOutcome | None:
        execution = await self._find(execution_id)
        if execution is None or execution.ended is None:
            return None
        return RecordedOutcome(await self._data.get(execution.ended.outcome), execution.ended.rejected)

    # --- calls ---------------------------------------------------------------------------------------

    def _call(self, execution: _Known, n: int) -> str:
        return f"{self._log(execution.entry.seq)}.call.{n}"

    async def _calls(self, execution: _Known) -> dict[str, tuple[int, CallRecord]]:
        if execution.calls is None:
            calls: dict[str, tuple[int, CallRecord]] = {}
            while (found := await self._store.get(self._call(execution, len(calls) + 1))) is not None:
                n = len(calls) + 1
                call = await self._read_call(execution, n, found)
                calls[call.call_id] = (n, call)
            execution.calls = calls
        return execution.calls

    async def _read_call(self, execution: _Known, n: int, found: Found) -> CallRecord:
        intent = _decode(found.param, _Intent)
        if found.value is not None:
            outcome = await self._data.get(_decode(found.value, LargeValueRef))
            return CallRecord(intent.call_id, intent.name, intent.digest, outcome)

        async def again(k: int) -> bool:
            return await self._store.get(f"{self._call(execution, n)}.again.{k}") is not None

        return CallRecord(intent.call_id, intent.name, intent.digest, None, 1 + await find_newest(again))

    async def calls(self, execution_id: str) -> dict[str, CallRecord]:
        """Give an execution's calls, in the order of their intents."""
        execution = await self._find(execution_id)
        if execution is None:
            return {}
        async with execution.intending:
            return {call_id: call for call_id, (_, call) in (await self._calls(execution)).items()}

    async def begin_call(self, execution_id: str, call: CallRecord) -> CallRecord | None:
        """Record that a call is about to be made, or give the one that is on record."""
        await self._catch_up()
        execution = await self._require(execution_id)
        async with execution.intending:
            calls = await self._calls(execution)
            if call.call_id in calls:
                return calls[call.call_id][1]
            n = len(calls) + 1
            intent = _encode(_Intent(call.call_id, call.name, call.digest))
            await self._store.create(self._call(execution, n), intent, call.call_id)
            calls[call.call_id] = (n, CallRecord(call.call_id, call.name, call.digest))
        return None

    async def retry_call(self, execution_id: str, call_id: str) -> int:
        """Record that a call without outcome is made again."""
        await self._catch_up()
        execution, n, call = await self._open_call(execution_id, call_id)
        if call.outcome is not None:
            raise StoreError(f"there is no open call {call_id!r} in session {self._store.session_id!r}")
        await self._store.create(f"{self._call(execution, n)}.again.{call.attempt}", b"")
        again = msgspec.structs.replace(call, attempt=call.attempt + 1)
        (await self._calls(execution))[call_id] = (n, again)
        return again.attempt

    async def finish_call(self, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record a call's outcome. The first one stays."""
        await self._catch_up()
        execution, n, call = await self._open_call(execution_id, call_id)
        if call.outcome is not None:
            return
        ref = await self._data.put(outcome, f"the outcome of call {call_id!r}")
        await self._store.resolve(self._call(execution, n), _encode(ref))
        (await self._calls(execution))[call_id] = (n, msgspec.structs.replace(call, outcome=outcome))

    async def _open_call(self, execution_id: str, call_id: str) -> tuple[_Known, int, CallRecord]:
        execution = await self._require(execution_id)
        async with execution.intending:
            known = (await self._calls(execution)).get(call_id)
        if known is None:
            raise StoreError(f"there is no call {call_id!r} in session {self._store.session_id!r}")
        return execution, *known

    # --- checkpoints ---------------------------------------------------------------------------------

    async def save(self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes]) -> None:
        """Store a checkpoint, after those of its blobs that are new."""
        await self._catch_up()
        after = checkpoint.after_seq
        ended = {e.entry.seq for e in self._executions.values() if e.ended is not None}
        open_ = {e.entry.seq for e in self._executions.values()} | self._saved.unfinished
        await self._saved.save(checkpoint, blobs, {seq for seq in open_ - ended if seq <= after})
        # They are found again, should anybody ask.
        for execution_id, execution in list(self._executions.items()):
            if execution.ended is not None and execution.entry.seq <= after:
                del self._executions[execution_id]

    async def checkpoint(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""
        return await self._saved.get(checkpoint_id)

    async def checkpoint_ids(self) -> list[str]:
        """Give the names of all checkpoints, from the earliest point of the history on."""
        return self._saved.ids()

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Read blobs."""
        return await self._saved.blobs(digests)


def _status(ended: _Ended | None) -> Status:
    if ended is None:
        return "started"
    return "rejected" if ended.rejected else "finished"


def _decode[T](data: bytes, type_: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=type_)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the store holds a damaged record: {error}; restore a backup") from error
