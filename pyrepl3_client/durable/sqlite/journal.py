"""A session's record in the tables of an SQLite file: everything of it but the promises."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final, Self

import msgspec
from resonate.codec import Codec, NoopEncryptor

from pyrepl3_client._journal.protocol import CallRecord, Entry, History, SavedCheckpoint, Spec
from pyrepl3_client.durable.lease.errors import LeaseLost
from pyrepl3_client.durable.resonate.bridge import ProtocolBridge
from pyrepl3_client.durable.resonate.engine import Engine
from pyrepl3_client.durable.resonate.function import Settled
from pyrepl3_client.durable.resonate.ids import awaited_id, root_id, session_group, session_prefix
from pyrepl3_client.durable.resonate.journal import BegunExecution, RecordedOutcome, ResonateJournal
from pyrepl3_client.durable.sqlite import (
    CallRow,
    CheckpointRow,
    ExecutionRow,
    SessionRecords,
    SqliteConnection,
)
from pyrepl3_client.durable.sqlite.blob_transfer import put_blobs, read_blobs
from pyrepl3_client.durable.sqlite.lease_renewal import LeaseRenewal
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.messages import ResultMode, Unsaved


class SpecOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a `Spec` says beside the code."""

    timeout: float | None = None
    result_mode: ResultMode = "last_expr_or_assign"
    store_history: bool = True


_encode: Final = msgspec.msgpack.Encoder().encode
_options: Final = msgspec.msgpack.Decoder(SpecOptions)
_unsaved: Final = msgspec.msgpack.Decoder(tuple[Unsaved, ...])
_codec: Final = Codec(NoopEncryptor())


class SqliteRecord:
    """The half of a `Journal` that records.

    Every write is one transaction under the session's lease; one that finds the file locked by another
    process waits without blocking the event loop. Outcomes that the store did not take are kept, and
    recorded before anything else once it takes them again.
    """

    def __init__(self, connection: SqliteConnection, lease_renewal: LeaseRenewal) -> None:
        """Record in the store of `connection`."""
        self._connection: Final = connection
        self._lease_renewal: Final = lease_renewal
        self._lease: Final = lease_renewal.lease
        self._session_id: Final = lease_renewal.lease.session_id
        self._unrecorded: Final[dict[str, RecordedOutcome]] = {}

    # --- transactions --------------------------------------------------------------------------------

    async def _write[T](
        self, work: Callable[[SessionRecords], T], outcomes: Mapping[str, RecordedOutcome] | None = None
    ) -> T:
        """Do `work` as one transaction, after recording what an earlier one could not.

        Args:
            work: calls the records.
            outcomes: of executions, to be recorded in the same transaction.
        """
        kept = {**(outcomes or {}), **self._unrecorded}

        def all_of_it(records: SessionRecords) -> T:
            for execution_id, outcome in kept.items():
                records.executions.finish(self._lease, execution_id, outcome.data, rejected=outcome.rejected)
            return work(records)

        promises = {
            awaited_id(root_id(self._session_id, execution_id)): _settled(execution_id, outcome)
            for execution_id, outcome in kept.items()
        }
        try:
            done = await self._connection.record(all_of_it, promises)
        except LeaseLost as error:
            self._lease_renewal.lose(error)
            raise
        for execution_id, outcome in kept.items():
            if self._unrecorded.get(execution_id) is outcome:
                del self._unrecorded[execution_id]
        return done

    async def _read[T](self, work: Callable[[SessionRecords], T]) -> T:
        records = self._connection.records
        return await self._connection.patiently(lambda: work(records))

    # --- executions ----------------------------------------------------------------------------------

    async def load(self) -> History:
        """Give the newest checkpoint and what came after it."""

        def read(records: SessionRecords) -> History:
            newest = records.checkpoints.newest(self._session_id)
            after = 0 if newest is None else newest.after_seq
            executions = records.executions.unfinished(self._session_id, after)
            executions += records.executions.after(self._session_id, after)
            checkpoint = None if newest is None else self._saved(records, newest)
            return History(checkpoint, tuple(map(entry_of, executions)))

        # One transaction, though it only reads: nobody must write between two of its statements.
        return await self._write(read)

    async def entries(self, up_to_seq: int) -> list[Entry]:
        """Give all executions up to a number, in order."""
        found = await self._read(lambda records: records.executions.up_to(self._session_id, up_to_seq))
        return [entry_of(execution) for execution in found]

    async def add_death(self, execution_id: str) -> int:
        """Count a death that cost an execution its run."""
        return await self._write(lambda records: records.executions.add_death(self._lease, execution_id))

    async def exempt_next_death(self, execution_id: str) -> None:
        """Record that the next death costs an execution nothing."""
        await self._write(lambda records: records.executions.add_death(self._lease, execution_id, -1))

    # --- calls ---------------------------------------------------------------------------------------

    async def calls(self, execution_id: str) -> dict[str, CallRecord]:
        """Give an execution's calls, in the order of their intents."""
        found = await self._read(lambda records: records.calls.of(self._session_id, execution_id))
        return {call.call_id: _call_record(call) for call in found}

    async def begin_call(self, execution_id: str, call: CallRecord) -> CallRecord | None:
        """Record that a call is about to be made, or give the one that is on record."""
        known, new = await self._write(
            lambda records: records.calls.begin_call(
                self._lease, execution_id, call.call_id, call.name, call.digest
            )
        )
        return None if new else _call_record(known)

    async def retry_call(self, execution_id: str, call_id: str) -> int:
        """Record that a call without outcome is made again."""
        return await self._write(lambda records: records.calls.retry_call(self._lease, execution_id, call_id))

    async def finish_call(self, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record a call's outcome."""
        self._check_size(f"the outcome of call {call_id!r}", outcome)
        await self._write(
            lambda records: records.calls.finish_call(self._lease, execution_id, call_id, outcome)
        )

    # --- checkpoints ---------------------------------------------------------------------------------

    async def save(self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes]) -> None:
        """Store a checkpoint, after those of its blobs that are new."""
        name = checkpoint.checkpoint_id
        self._check_size(f"the manifest of checkpoint {name!r}", checkpoint.manifest)
        await put_blobs(self._write, blobs, f"checkpoint {name!r}")

        def save(records: SessionRecords) -> None:
            # Another session may have dropped one of them as its last user, since we put it.
            for digest in records.checkpoints.missing(blobs):
                records.checkpoints.put(blobs[digest], digest)
            records.checkpoints.save(
                self._lease,
                name,
                checkpoint.after_seq,
                checkpoint.manifest,
                checkpoint.digests,
                _encode(checkpoint.unsaved),
            )

        await self._write(save)

    async def checkpoint(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""

        def read(records: SessionRecords) -> SavedCheckpoint | None:
            found = records.checkpoints.get(self._session_id, checkpoint_id)
            return None if found is None else self._saved(records, found)

        return await self._read(read)

    async def checkpoint_ids(self) -> list[str]:
        """Give the names of all checkpoints, from the earliest point of the history on."""
        found = await self._read(lambda records: records.checkpoints.of(self._session_id))
        return [checkpoint.checkpoint_id for checkpoint in found]

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Read blobs."""
        return await read_blobs(self._read, digests)

    def _saved(self, records: SessionRecords, checkpoint: CheckpointRow) -> SavedCheckpoint:
        return SavedCheckpoint(
            checkpoint.checkpoint_id,
            checkpoint.after_seq,
            checkpoint.manifest,
            tuple(records.checkpoints.digests(self._session_id, checkpoint.checkpoint_id)),
            _unsaved.decode(checkpoint.unsaved) if checkpoint.unsaved else (),
        )

    def _check_size(self, what: str, data: bytes) -> None:
        if len(data) > self._connection.max_value:
            raise StoreError(
                f"{what} has {len(data):,} bytes, and an SQLite file holds values of up to "
                f"{self._connection.max_value:,}; make it smaller, or keep it in a file of its own"
            )


def spec_options(spec: Spec) -> bytes:
    """Give what stands beside the code in an execution's row."""
    return _encode(SpecOptions(spec.timeout, spec.result_mode, spec.store_history))


def entry_of(execution: ExecutionRow) -> Entry:
    """Give a row of the log as a history's entry."""
    options = _options.decode(execution.options)
    return Entry(
        execution.seq,
        execution.execution_id,
        Spec(execution.code, options.timeout, options.result_mode, options.store_history),
        execution.status,
        execution.attempts,
    )


def _call_record(call: CallRow) -> CallRecord:
    return CallRecord(call.call_id, call.name, call.args_digest, call.outcome, call.attempt)


def _settled(execution_id: str, outcome: RecordedOutcome) -> bytes:
    value = _codec.encode(Settled.of(execution_id, outcome.data, rejected=outcome.rejected))
    return msgspec.json.encode(value)


_log: Final = logging.getLogger(__name__)


class SqliteJournal(SqliteRecord, ResonateJournal):
    """Implements `Journal` on a `SqliteConnection`, which it owns. Make it with `open`."""

    def __init__(
        self, connection: SqliteConnection, lease_renewal: LeaseRenewal, on_lost: Callable[[StoreError], None]
    ) -> None:
        """Be the record of the session that `ownership` is of; the loop must be running."""
        session_id = lease_renewal.lease.session_id

        def connect(bridge: ProtocolBridge) -> Engine:
            return Engine(
                connection,
                (connection,),
                group=session_group(session_id),
                pid=connection.pid,
                bridge=bridge,
                on_failure=self._on_function_failure,
            )

        SqliteRecord.__init__(self, connection, lease_renewal)
        ResonateJournal.__init__(self, session_id, connect, on_lost)

    @classmethod
    async def open(
        cls,
        connection: SqliteConnection,
        session_id: str,
        *,
        on_lost: Callable[[StoreError], None],
        ttl: float,
        wait: float,
    ) -> Self:
        """Take the session over, and be its record.

        Args:
            connection: opened for the session's group. It is closed with the journal, and also when this
                fails.
            session_id: the session.
            on_lost: called once when another owner has taken over: nothing can be recorded any more.
            ttl: seconds for which the session stays ours if this process stops.
            wait: seconds to wait while it is somebody else's.

        Raises:
            SessionBusy: somebody else owns the session.
            StoreError: the store cannot be read or written.
        """
        journal: Self

        def lost(error: LeaseLost) -> None:
            journal.lose(error)

        try:
            lease_renewal = await LeaseRenewal.take(connection, session_id, ttl=ttl, wait=wait, on_lost=lost)
        except BaseException:
            connection.close()
            raise
        journal = cls(connection, lease_renewal, on_lost)
        try:
            # What the last owner held, and what was on its way to it, comes to us.
            await connection.reclaim(session_prefix(session_id))
        except BaseException:
            await journal.close()
            raise
        return journal

    async def _begin(self, execution_id: str, digest: str, spec: Spec) -> BegunExecution:
        def begin(records: SessionRecords) -> BegunExecution:
            execution, new = records.executions.start(
                self._lease, execution_id, digest, spec.code, spec_options(spec)
            )
            outcome = None
            if execution.status != "started":
                outcome = records.executions.outcome(self.session_id, execution_id)
            return BegunExecution(entry_of(execution), execution.code_digest, new, outcome)

        return await self._write(begin)

    async def _end(
        self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None, *, keep: bool
    ) -> bytes:
        self._check_size(f"the outcome of execution {execution_id!r}", outcome.data)
        if keep:
            # From here on it is not lost for as long as this process lives.
            self._unrecorded.setdefault(execution_id, outcome)
        # The promise's id needs no asking: should it not exist yet, its function will come and recall.
        recorded = await self._write(
            lambda records: records.executions.outcome(self.session_id, execution_id),
            {execution_id: outcome},
        )
        return outcome.data if recorded is None else recorded

    async def _known(self, execution_id: str) -> RecordedOutcome | None:
        def read(records: SessionRecords) -> RecordedOutcome | None:
            execution = records.executions.get(self.session_id, execution_id)
            data = records.executions.outcome(self.session_id, execution_id)
            if execution is None or data is None:
                return None
            return RecordedOutcome(data, execution.status == "rejected")

        return await self._read(read)

    async def _create_awaited(self, root: str) -> None:
        await self._engine.create_awaited(root)

    async def _give_up(self) -> None:
        try:
            if self._unrecorded:
                await self._write(lambda records: None)
        except StoreError as error:
            _log.error("outcomes of executions %s are lost: %s", sorted(self._unrecorded), error)
        await self._engine.stop()
        await self._lease_renewal.give_up()
        self._connection.close()
