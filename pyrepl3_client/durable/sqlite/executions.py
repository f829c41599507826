"""Where a session's executions are recorded in an SQLite file, and the transactions that record them."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from resonate.codec import Codec, NoopEncryptor

from pyrepl3_client._journal.outcomes import Rejected, encode_outcome
from pyrepl3_client._journal.protocol import Entry, OnError, Spec
from pyrepl3_client.durable.resonate.engine import Engine, create_awaited
from pyrepl3_client.durable.resonate.function import OutcomeRef
from pyrepl3_client.durable.resonate.ids import awaited_id, code_digest, root_id
from pyrepl3_client.durable.resonate.runner import BegunExecution, RecordedOutcome
from pyrepl3_client.durable.sqlite import ExecutionRow, SessionRecords, SqliteConnection
from pyrepl3_client.durable.sqlite.budget import OUTCOME_RESERVE, StoreBudget, execution_bytes
from pyrepl3_client.durable.sqlite.lease_renewal import LeaseRenewal
from pyrepl3_client.errors import LeaseLost, StoreError
from pyrepl3_schemas.messages import ResultMode


class SpecOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a `Spec` holds beside the code."""

    timeout: float | None = None
    result_mode: ResultMode = "last_expr_or_assign"
    store_history: bool = True
    filename: str = ""
    first_line: int = 1
    on_error: OnError = "continue"


_encode: Final = msgspec.msgpack.Encoder().encode
_options: Final = msgspec.msgpack.Decoder(SpecOptions)
_codec: Final = Codec(NoopEncryptor())


class SessionTransactions:
    """Reads and writes one session's records.

    Every write is one transaction under the session's lease; one that finds the file locked by another
    process waits without blocking the event loop. Outcomes that the store did not take are kept, and
    recorded before anything else once it takes them again.
    """

    def __init__(
        self, connection: SqliteConnection, lease_renewal: LeaseRenewal, max_bytes: int | None
    ) -> None:
        """Record in the store of `connection`, so many bytes at most."""
        self.budget: Final = StoreBudget(lease_renewal.lease.session_id, max_bytes)
        self.connection: Final = connection
        self.lease_renewal: Final = lease_renewal
        self.lease: Final = lease_renewal.lease
        self.session_id: Final = lease_renewal.lease.session_id
        self._unrecorded: Final[dict[str, RecordedOutcome]] = {}

    async def write[T](
        self, work: Callable[[SessionRecords], T], outcomes: Mapping[str, RecordedOutcome] | None = None
    ) -> T:
        """Do `work` as one transaction, after recording what an earlier one could not.

        Args:
            work: calls the records.
            outcomes: of executions, to be recorded in the same transaction.

        Raises:
            LeaseLost: the session has another owner.
            StoreError: nothing was recorded.
        """
        kept = {**(outcomes or {}), **self._unrecorded}

        def all_of_it(records: SessionRecords) -> T:
            for execution_id, outcome in kept.items():
                records.executions.finish(self.lease, execution_id, outcome.data, rejected=outcome.rejected)
            return work(records)

        promises = {
            awaited_id(root_id(self.session_id, execution_id)): _settled(execution_id, outcome)
            for execution_id, outcome in kept.items()
        }
        try:
            done = await self.connection.record(all_of_it, promises)
        except LeaseLost as error:
            self.lease_renewal.report_lost(error)
            raise
        for execution_id, outcome in kept.items():
            if self._unrecorded.get(execution_id) is outcome:
                del self._unrecorded[execution_id]
        return done

    async def read[T](self, work: Callable[[SessionRecords], T]) -> T:
        """Do `work`, which only reads."""
        records = self.connection.records
        return await self.connection.retry_while_busy(lambda: work(records))

    def keep(self, execution_id: str, outcome: RecordedOutcome) -> None:
        """Have every write try to record an outcome, until one has."""
        self._unrecorded.setdefault(execution_id, outcome)

    async def write_kept(self) -> None:
        """Record the kept outcomes now. Logs those that are lost, and never raises `StoreError`."""
        try:
            if self._unrecorded:
                await self.write(lambda records: None)
        except StoreError as error:
            what = f"outcomes of executions {sorted(self._unrecorded)} are lost"
            self.connection.on_trouble(what, error, lost=True)

    def check_size(self, what: str, data: bytes) -> None:
        """Raise `StoreError` if there are too many bytes of what is described by `what`."""
        if len(data) > self.connection.max_value:
            raise StoreError(
                f"{what} has {len(data):,} bytes, and an SQLite file holds values of up to "
                f"{self.connection.max_value:,}; make it smaller, or keep it in a file of its own"
            )


class SqliteExecutionStore:
    """Implements `ExecutionStore` on the table of executions."""

    def __init__(self, transactions: SessionTransactions) -> None:
        """Record through `transactions`."""
        self._transactions: Final = transactions
        self._session_id: Final = transactions.session_id

    async def begin(self, execution_id: str, digest: str, spec: Spec) -> BegunExecution:
        """Record an execution, or look up the one of that id."""
        lease, budget = self._transactions.lease, self._transactions.budget
        size = execution_bytes(spec.code, spec_options(spec))

        def begin(records: SessionRecords) -> BegunExecution:
            execution, new = records.executions.start(
                lease, execution_id, digest, spec.code, spec_options(spec)
            )
            if new:
                budget.require(f"execution {execution_id!r}", size)
            outcome = None
            if execution.status != "started":
                outcome = records.executions.outcome(self._session_id, execution_id)
            return BegunExecution(entry_of(execution), execution.code_digest, new, outcome)

        begun = await self._transactions.write(begin)
        if begun.new:
            budget.add(size)
        return begun

    async def end(
        self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None, *, keep: bool
    ) -> bytes:
        """Record an outcome, resolve its promise, and return the outcome on record."""
        self._transactions.check_size(f"the outcome of execution {execution_id!r}", outcome.data)
        outcome = self._within_budget(execution_id, outcome)
        if keep:
            # From here on it is not lost for as long as this process lives.
            self._transactions.keep(execution_id, outcome)
        # The promise's id follows from the execution's. Should the promise not exist yet, its function will
        # come, and has it resolved as an orphan's.
        recorded = await self._transactions.write(
            lambda records: records.executions.outcome(self._session_id, execution_id),
            {execution_id: outcome},
        )
        if keep:  # else it was on record
            self._transactions.budget.add(len(outcome.data))
        return outcome.data if recorded is None else recorded

    def _within_budget(self, execution_id: str, outcome: RecordedOutcome) -> RecordedOutcome:
        """Return what is recorded of an outcome: that there was no room for it, where there is none."""
        budget, size = self._transactions.budget, len(outcome.data)
        if size <= budget.room or size <= OUTCOME_RESERVE:
            return outcome
        what = f"the outcome of execution {execution_id!r}, which ran to its end and is not run again,"
        full = Rejected("store_full", budget.refusal(what, size))
        return RecordedOutcome(encode_outcome(full), outcome.rejected)

    async def find_outcome(self, execution_id: str) -> RecordedOutcome | None:
        """Look up a recorded outcome."""

        def read(records: SessionRecords) -> RecordedOutcome | None:
            execution = records.executions.get(self._session_id, execution_id)
            data = records.executions.outcome(self._session_id, execution_id)
            if execution is None or data is None:
                return None
            return RecordedOutcome(data, execution.status == "rejected")

        return await self._transactions.read(read)

    async def create_awaited(self, root: str) -> None:
        """Create the promise that stands for an outcome, unless its durable function has created it."""
        await create_awaited(self._transactions.connection, root)

    async def close(self, engine: Engine) -> None:
        """Record the kept outcomes, stop the engine, release the lease, and close the file."""
        await self._transactions.write_kept()
        await engine.stop()
        await self._transactions.lease_renewal.release()
        self._transactions.connection.close()


def spec_options(spec: Spec) -> bytes:
    """Return what stands beside the code in an execution's row."""
    return _encode(
        SpecOptions(
            spec.timeout,
            spec.result_mode,
            spec.store_history,
            spec.filename,
            spec.first_line,
            spec.on_error,
        )
    )


def entry_of(execution: ExecutionRow) -> Entry:
    """Return a row of the log as a history's entry.

    Raises:
        StoreError: its code is not what was recorded.
    """
    if code_digest(execution.code) != execution.code_digest:
        raise StoreError(
            f"the code of execution {execution.execution_id!r} of session {execution.session_id!r} is "
            "damaged in the store: it is not what was recorded (check the disk, and restore a backup)"
        )
    options = _options.decode(execution.options)
    return Entry(
        execution.seq,
        execution.execution_id,
        Spec(
            execution.code,
            options.timeout,
            options.result_mode,
            options.store_history,
            options.filename,
            options.first_line,
            options.on_error,
        ),
        execution.status,
        execution.attempts,
    )


def _settled(execution_id: str, outcome: RecordedOutcome) -> bytes:
    value = _codec.encode(OutcomeRef.of(execution_id, outcome.data, rejected=outcome.rejected))
    return msgspec.json.encode(value)
