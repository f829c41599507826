"""A session's executions in promises: what ran, in which order, and what came of it."""

import asyncio
from collections.abc import Collection
from typing import Final

import msgspec
from resonate.codec import Codec, NoopEncryptor
from resonate.types import PromiseSettleReq

from pyrepl3_client._journal.protocol import CallRecord, Entry, OnError, Spec, Status
from pyrepl3_client.durable.remote.fenced_store import FencedStore, decode_record, find_newest
from pyrepl3_client.durable.remote.large_values import LargeValueRef, LargeValueStore
from pyrepl3_client.durable.resonate.engine import Engine
from pyrepl3_client.durable.resonate.function import OutcomeRef
from pyrepl3_client.durable.resonate.ids import awaited_id, awaited_tags, escaped, execution_key, root_id
from pyrepl3_client.durable.resonate.runner import BegunExecution, RecordedOutcome
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.messages import ResultMode

# Promises read at one time.
_CONCURRENT_READS: Final = 16
# Seconds for which closing waits until the last functions have returned. What remains does so when the
# session is next opened.
FINISH_TIMEOUT: Final = 5.0


class ExecutionParam(msgspec.Struct, frozen=True, omit_defaults=True):
    """The parameter of `log.{n}`."""

    execution_id: str
    code: LargeValueRef
    digest: str
    timeout: float | None = None
    result_mode: ResultMode = "last_expr_or_assign"
    store_history: bool = True
    filename: str = ""
    first_line: int = 1
    on_error: OnError = "continue"


class ExecutionValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `log.{n}`."""

    outcome: LargeValueRef
    rejected: bool = False
    attempts: int = 0


class LoggedExecution:
    """An execution as far as it was read here."""

    __slots__ = ("call_order", "calls", "deaths", "digest", "ended", "entry", "exempt_deaths")

    def __init__(self, entry: Entry, digest: str, ended: ExecutionValue | None) -> None:
        self.entry = entry
        self.deaths = 0
        self.exempt_deaths = 0
        """How many of them do not count."""
        self.digest = digest
        self.ended = ended
        self.calls: dict[str, tuple[int, CallRecord]] | None = None
        """By call id, with their numbers; None until they were read."""
        self.call_order = asyncio.Lock()
        """Numbers have no gaps, so calls are recorded one after another."""


_encode: Final = msgspec.msgpack.encode
_codec: Final = Codec(NoopEncryptor())


class RemoteExecutionStore:
    """Implements `ExecutionStore` on promises; see the package for what is where.

    Outcomes that the store did not take are kept, and recorded before anything else once it takes them.
    """

    def __init__(self, store: FencedStore, data: LargeValueStore) -> None:
        """Record through `store`, whose lease is held; `prepare` finds the newest execution."""
        self._store: Final = store
        self._data: Final = data
        self._executions: Final[dict[str, LoggedExecution]] = {}
        self._last_seq = 0
        self._unrecorded: Final[dict[str, tuple[RecordedOutcome, str | None]]] = {}

    @property
    def last_seq(self) -> int:
        """The number of the newest execution, 0 when there is none."""
        return self._last_seq

    async def prepare(self) -> str | None:
        """Find the newest execution and return its id; complete what a killed owner left half recorded."""
        self._last_seq = await find_newest(self._has_log)
        if not self._last_seq:
            return None
        execution_id = (await self._read(self._last_seq)).entry.execution_id
        await self._index(execution_id, self._last_seq)
        return execution_id

    async def _has_log(self, seq: int) -> bool:
        return await self._store.get(self.log_id(seq)) is not None

    def log_id(self, seq: int) -> str:
        """Return the id of the promise that holds execution number `seq`."""
        return f"{self._store.root}:log.{seq}"

    def _index_id(self, execution_id: str) -> str:
        return f"{self._store.root}:exec.{escaped(execution_id)}"

    async def _index(self, execution_id: str, seq: int) -> None:
        await self._store.create(self._index_id(execution_id), _encode(seq))

    # --- beginning and reading -----------------------------------------------------------------------

    async def begin(self, execution_id: str, digest: str, spec: Spec) -> BegunExecution:
        """Record an execution, or look up the one of that id."""
        await self.record_kept()
        remembered = execution_id in self._executions
        execution = await self.find(execution_id)
        new = execution is None
        settled_orphan = False
        if execution is not None and not remembered:
            settled_orphan = await self.settle_orphan(execution_id)
        if execution is None:
            seq = self._last_seq + 1
            code = await self._data.put(spec.code.encode(), f"the code of execution {execution_id!r}")
            param = ExecutionParam(
                execution_id,
                code,
                digest,
                spec.timeout,
                spec.result_mode,
                spec.store_history,
                spec.filename,
                spec.first_line,
                spec.on_error,
            )
            await self._store.create(self.log_id(seq), _encode(param), execution_key(execution_id))
            self._last_seq = seq
            await self._index(execution_id, seq)
            execution = LoggedExecution(Entry(seq, execution_id, spec), digest, None)
            execution.calls = {}
            self._executions[execution_id] = execution
        outcome = None if execution.ended is None else await self._data.get(execution.ended.outcome)
        return BegunExecution(execution.entry, execution.digest, new, outcome, settled_orphan)

    async def find(self, execution_id: str) -> LoggedExecution | None:
        """Look up an execution."""
        execution = self._executions.get(execution_id)
        if execution is None:
            found = await self._store.get(self._index_id(execution_id))
            execution = None if found is None else await self._read(decode_record(found.param, int))
        return execution

    async def require(self, execution_id: str) -> LoggedExecution:
        """Look up an execution.

        Raises:
            StoreError: there is none of that id.
        """
        execution = await self.find(execution_id)
        if execution is None:
            raise StoreError(f"there is no execution {execution_id!r} in session {self._store.session_id!r}")
        return execution

    async def _read(self, seq: int) -> LoggedExecution:
        """Read an execution by its number, and remember it."""
        found = await self._store.get(self.log_id(seq))
        if found is None:
            raise StoreError(f"execution number {seq} is missing in session {self._store.session_id!r}")
        param = decode_record(found.param, ExecutionParam)
        ended = None if found.value is None else decode_record(found.value, ExecutionValue)
        remembered = self._executions.get(param.execution_id)
        if remembered is not None:
            return remembered
        deaths = exempt = 0
        if ended is None:
            deaths, exempt = await self._count(seq, "attempt"), await self._count(seq, "excuse")
        attempts = deaths - exempt if ended is None else ended.attempts
        code = (await self._data.get(param.code)).decode()
        spec = Spec(
            code,
            param.timeout,
            param.result_mode,
            param.store_history,
            param.filename,
            param.first_line,
            param.on_error,
        )
        entry = Entry(seq, param.execution_id, spec, _status(ended), attempts)
        execution = LoggedExecution(entry, param.digest, ended)
        execution.deaths, execution.exempt_deaths = deaths, exempt
        return self._executions.setdefault(param.execution_id, execution)

    async def entries(self, numbers: Collection[int]) -> list[Entry]:
        """Return the executions of these numbers, in order."""
        limit = asyncio.Semaphore(_CONCURRENT_READS)

        async def read(seq: int) -> Entry:
            async with limit:
                return (await self._read(seq)).entry

        return list(await asyncio.gather(*(read(seq) for seq in sorted(numbers))))

    # --- what was read here --------------------------------------------------------------------------

    def ended_ids(self) -> list[str]:
        """Return the ids of the ended executions that are remembered."""
        return [name for name, execution in self._executions.items() if execution.ended is not None]

    def unfinished(self, up_to_seq: int, others: Collection[int]) -> set[int]:
        """Return the numbers up to `up_to_seq` that have not ended: of those remembered, and of `others`."""
        ended = {e.entry.seq for e in self._executions.values() if e.ended is not None}
        numbers = {e.entry.seq for e in self._executions.values()}.union(others)
        return {seq for seq in numbers - ended if seq <= up_to_seq}

    def forget_ended(self, up_to_seq: int) -> None:
        """Drop the ended executions up to a number from memory; `find` reads them again."""
        for execution_id, execution in list(self._executions.items()):
            if execution.ended is not None and execution.entry.seq <= up_to_seq:
                del self._executions[execution_id]

    # --- attempts ------------------------------------------------------------------------------------

    async def _count(self, seq: int, what: str) -> int:
        async def exists(n: int) -> bool:
            return await self._store.get(f"{self.log_id(seq)}.{what}.{n}") is not None

        return await find_newest(exists)

    async def add_death(self, execution_id: str) -> int:
        """Count a death that cost an execution its run, and return the count."""
        await self.record_kept()
        execution = await self.require(execution_id)
        await self._store.create(f"{self.log_id(execution.entry.seq)}.attempt.{execution.deaths + 1}", b"")
        execution.deaths += 1
        return self._update_attempts(execution)

    async def exempt_next_death(self, execution_id: str) -> None:
        """Record that the next death costs an execution nothing."""
        execution = await self.require(execution_id)
        n = execution.exempt_deaths + 1
        await self._store.create(f"{self.log_id(execution.entry.seq)}.excuse.{n}", b"")
        execution.exempt_deaths += 1
        self._update_attempts(execution)

    def _update_attempts(self, execution: LoggedExecution) -> int:
        attempts = execution.deaths - execution.exempt_deaths
        execution.entry = msgspec.structs.replace(execution.entry, attempts=attempts)
        return attempts

    # --- outcomes ------------------------------------------------------------------------------------

    async def end(
        self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None, *, keep: bool
    ) -> bytes:
        """Record an outcome, resolve its promise, and return the outcome on record."""
        self._data.check_size(f"the outcome of execution {execution_id!r}", outcome.data)
        if keep:
            # From here on it is not lost for as long as this process lives.
            self._unrecorded.setdefault(execution_id, (outcome, promise_id))
        return await self._record(execution_id, outcome, promise_id)

    async def _record(self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None) -> bytes:
        execution = await self.require(execution_id)
        recorded = outcome.data
        if execution.ended is None:
            ref = await self._data.put(outcome.data, f"the outcome of execution {execution_id!r}")
            ended = ExecutionValue(ref, outcome.rejected, execution.entry.attempts)
            found = await self._store.resolve(self.log_id(execution.entry.seq), _encode(ended))
            execution.ended = ended if found.value is None else decode_record(found.value, ExecutionValue)
            execution.entry = msgspec.structs.replace(execution.entry, status=_status(execution.ended))
            execution.calls = None
            if execution.ended != ended:
                recorded = await self._data.get(execution.ended.outcome)
        else:
            recorded = await self._data.get(execution.ended.outcome)
        if promise_id is not None:
            settled = OutcomeRef.of(execution_id, recorded, rejected=execution.ended.rejected)
            request = PromiseSettleReq(id=promise_id, state="resolved", value=_codec.encode(settled))
            await self._store.settle(request)
        self._unrecorded.pop(execution_id, None)
        return recorded

    async def record_kept(self) -> None:
        """Record the outcomes that an earlier failure kept back."""
        for execution_id, (outcome, promise_id) in list(self._unrecorded.items()):
            await self._record(execution_id, outcome, promise_id)

    async def find_outcome(self, execution_id: str) -> RecordedOutcome | None:
        """Look up a recorded outcome."""
        execution = await self.find(execution_id)
        if execution is None or execution.ended is None:
            return None
        return RecordedOutcome(await self._data.get(execution.ended.outcome), execution.ended.rejected)

    # --- promises ------------------------------------------------------------------------------------

    async def create_awaited(self, root: str) -> None:
        """Create the promise that stands for an outcome, unless its durable function has created it."""
        await self._store.create(awaited_id(root), b"", tags=awaited_tags(root))

    async def settle_orphan(self, execution_id: str) -> bool:
        """Resolve the promise of an execution whose owner was killed just after it recorded the outcome.

        Returns:
            Whether there was such a promise, so that a durable function waits that was not started here.
        """
        execution = await self.find(execution_id)
        if execution is None or execution.ended is None:
            return False
        promise_id = awaited_id(root_id(self._store.session_id, execution_id))
        found = await self._store.get(promise_id)
        if found is None or found.value is not None:
            return False
        outcome = RecordedOutcome(await self._data.get(execution.ended.outcome), execution.ended.rejected)
        await self._record(execution_id, outcome, promise_id)
        return True

    # --- the end -------------------------------------------------------------------------------------

    async def close(self, engine: Engine) -> None:
        """Record the kept outcomes, let the last functions return, release the lease, and disconnect."""
        try:
            await self.record_kept()
        except StoreError as error:
            what = f"outcomes of executions {sorted(self._unrecorded)} are lost"
            self._store.on_trouble(what, error, lost=True)
        await engine.wait_returned(FINISH_TIMEOUT)
        await self._store.release()
        await engine.stop()


def _status(ended: ExecutionValue | None) -> Status:
    if ended is None:
        return "started"
    return "rejected" if ended.rejected else "finished"
