"""`SqliteJournal`: a session's record in the tables of an SQLite file."""

from collections.abc import Callable, Collection, Mapping
from typing import Final, Self

import msgspec

from pyrepl3_client._journal.protocol import (
    BridgeMetrics,
    CallRecord,
    Entry,
    History,
    SavedCheckpoint,
    Spec,
    TextPart,
    TextSize,
    recorded_level,
    text_size,
)
from pyrepl3_client.durable.resonate.engine import ResonateConnection
from pyrepl3_client.durable.resonate.ids import session_prefix
from pyrepl3_client.durable.resonate.runner import ResonateRunner
from pyrepl3_client.durable.sqlite import CallRow, CheckpointRow, SessionRecords, SqliteConnection
from pyrepl3_client.durable.sqlite.blob_transfer import put_blobs, read_blobs
from pyrepl3_client.durable.sqlite.executions import SessionTransactions, SqliteExecutionStore, entry_of
from pyrepl3_client.durable.sqlite.lease_renewal import LeaseRenewal
from pyrepl3_client.durable.sqlite.tables.usage import CALL_BYTES
from pyrepl3_client.errors import LeaseLost, StoreError
from pyrepl3_schemas.confinement import Level
from pyrepl3_schemas.messages import StreamName, Unsaved

_encode: Final = msgspec.msgpack.Encoder().encode
_unsaved: Final = msgspec.msgpack.Decoder(tuple[Unsaved, ...])


class SqliteJournal:
    """Implements `Journal` on a `SqliteConnection`, which it owns. Make it with `open`."""

    def __init__(
        self,
        connection: SqliteConnection,
        lease_renewal: LeaseRenewal,
        on_lost: Callable[[StoreError], None],
        max_bytes: int | None = None,
    ) -> None:
        """Record the session whose lease `lease_renewal` holds; the loop must be running."""
        self._lease: Final = lease_renewal.lease
        self._session_id: Final = lease_renewal.lease.session_id
        self._transactions: Final = SessionTransactions(connection, lease_renewal, max_bytes)
        self._budget: Final = self._transactions.budget
        self._runner: Final = ResonateRunner(
            self._session_id,
            SqliteExecutionStore(self._transactions),
            ResonateConnection(connection, (connection,), connection.pid),
            on_lost,
            connection.on_trouble,
        )

    @classmethod
    async def open(
        cls,
        connection: SqliteConnection,
        session_id: str,
        *,
        on_lost: Callable[[StoreError], None],
        ttl: float,
        wait: float,
        max_bytes: int | None = None,
    ) -> Self:
        """Take the session over, and return its record.

        Args:
            connection: opened for the session's group. It is closed with the journal, and also when this
                fails.
            session_id: the session.
            on_lost: called once when another owner has taken over: nothing can be recorded any more.
            ttl: seconds for which this process keeps the session if it stops.
            wait: seconds to wait while the session has another owner.
            max_bytes: that the session may have on record; None is no bound.

        Raises:
            SessionBusy: the session has another owner.
            StoreError: the store cannot be read or written.
        """
        journal: Self

        def lost(error: LeaseLost) -> None:
            journal._runner.lose_session(error)

        try:
            lease_renewal = await LeaseRenewal.acquire(
                connection, session_id, ttl=ttl, wait=wait, on_lost=lost
            )
        except BaseException:
            connection.close()
            raise
        journal = cls(connection, lease_renewal, on_lost, max_bytes)
        try:
            await journal._measure()
            # Tasks that the last owner held, or was about to get, are offered to this one.
            await connection.reclaim(session_prefix(session_id))
        except BaseException:
            await journal.close()
            raise
        return journal

    async def _measure(self) -> None:
        """Take what is on record into the budget, if there is a bound: it is asked for only then."""
        if self._budget.is_bounded:
            self._budget.set_used(
                await self._transactions.read(lambda records: records.usage.executions(self._session_id)),
                await self._transactions.read(lambda records: records.usage.checkpoints(self._session_id)),
            )

    # --- executions ----------------------------------------------------------------------------------

    @property
    def metrics(self) -> BridgeMetrics:
        """What the bridge has done."""
        return self._runner.metrics

    @property
    def store_path(self) -> str | None:
        """The file that it is in; None for one in memory."""
        return self._transactions.connection.file_path

    @property
    def opening(self) -> int:
        """How often the session has been opened: its lease has been taken so often, and more."""
        return self._lease.token

    @property
    def takes_running_text(self) -> bool:
        """True: a part can be written in place of a shorter one."""
        return True

    async def level(self) -> Level | None:
        """Return the confinement level on record."""
        found = await self._transactions.read(lambda records: records.leases.level(self._session_id))
        return None if found is None else recorded_level(found)

    async def record_level(self, level: Level) -> None:
        """Record the confinement level."""
        await self._transactions.write(lambda records: records.leases.set_level(self._lease, level))

    async def outcome(self, execution_id: str) -> bytes | None:
        """Return a recorded outcome."""
        return await self._runner.outcome(execution_id)

    async def execute(
        self, execution_id: str, spec: Spec, submit: Callable[[Entry], None]
    ) -> tuple[bytes, bool]:
        """Run an execution once and return its outcome."""
        return await self._runner.execute(execution_id, spec, submit)

    async def settle(self, execution_id: str, outcome: bytes, *, rejected: bool) -> None:
        """Record an outcome, and let its `execute` return."""
        await self._runner.settle(execution_id, outcome, rejected=rejected)

    async def succeeded(self, execution_id: str) -> bool | None:
        """Return whether an execution ran to its end without an error."""
        return await self._runner.succeeded(execution_id)

    async def load(self) -> History:
        """Return the newest checkpoint and what came after it."""

        def read(records: SessionRecords) -> History:
            newest = records.checkpoints.newest(self._session_id)
            after = 0 if newest is None else newest.after_seq
            executions = records.executions.unfinished(self._session_id, after)
            executions += records.executions.after(self._session_id, after)
            checkpoint = None if newest is None else self._saved(records, newest)
            return History(checkpoint, tuple(map(entry_of, executions)))

        # One transaction, though it only reads: no write may come between two of its statements.
        return await self._transactions.write(read)

    async def entries(self, up_to_seq: int) -> list[Entry]:
        """Return all executions up to a number, in order."""
        found = await self._transactions.read(
            lambda records: records.executions.up_to(self._session_id, up_to_seq)
        )
        return [entry_of(execution) for execution in found]

    async def add_death(self, execution_id: str) -> int:
        """Count a death that cost an execution its run."""
        return await self._transactions.write(
            lambda records: records.executions.add_death(self._lease, execution_id)
        )

    async def exempt_next_death(self, execution_id: str) -> None:
        """Record that the next death costs an execution nothing."""
        await self._transactions.write(
            lambda records: records.executions.add_death(self._lease, execution_id, -1)
        )

    # --- what executions wrote -----------------------------------------------------------------------

    async def put_text(
        self, execution_id: str, stream: StreamName, n: int, part: TextPart, max_bytes: int
    ) -> bool:
        """Store a part of what an execution wrote, if there is room."""

        def put(records: SessionRecords) -> tuple[bool, int]:
            before = records.usage.texts(self._session_id) if self._budget.is_bounded else 0
            within = min(max_bytes, before + max(self._budget.room, 0))
            stored = records.texts.put(self._lease, execution_id, stream, n, part, within)
            after = records.usage.texts(self._session_id) if self._budget.is_bounded else 0
            return stored, after - before

        stored, more = await self._transactions.write(put)
        self._budget.add(more)
        return stored

    async def text_keys(self, prefix: str) -> list[str]:
        """Return under which keys that begin with a prefix there are texts."""
        return await self._transactions.read(lambda records: records.texts.keys(self._session_id, prefix))

    async def drop_text(self, key: str) -> None:
        """Drop what an execution wrote."""

        def drop(records: SessionRecords) -> int:
            before = records.usage.texts(self._session_id) if self._budget.is_bounded else 0
            records.texts.drop(self._lease, key)
            return before - records.usage.texts(self._session_id) if before else 0

        self._budget.add(-await self._transactions.write(drop))

    async def text_size(self, execution_id: str, stream: StreamName) -> TextSize | None:
        """Return how much is kept of what an execution wrote."""

        def read(records: SessionRecords) -> TextSize | None:
            count = records.texts.count(self._session_id, execution_id, stream)
            last = records.texts.get(self._session_id, execution_id, stream, count)
            return None if last is None else text_size(count, last)

        return await self._transactions.read(read)

    async def text_part(self, execution_id: str, stream: StreamName, n: int) -> TextPart | None:
        """Return a part of what an execution wrote."""
        return await self._transactions.read(
            lambda records: records.texts.get(self._session_id, execution_id, stream, n)
        )

    # --- calls ---------------------------------------------------------------------------------------

    async def calls(self, execution_id: str) -> dict[str, CallRecord]:
        """Return an execution's calls, in the order of their intents."""
        found = await self._transactions.read(
            lambda records: records.calls.of(self._session_id, execution_id)
        )
        return {call.call_id: _call_record(call) for call in found}

    async def begin_call(self, execution_id: str, call: CallRecord) -> CallRecord | None:
        """Record that a call is about to be made, or return the one that is on record."""

        def begin(records: SessionRecords) -> tuple[CallRow, bool]:
            known, new = records.calls.begin_call(
                self._lease, execution_id, call.call_id, call.name, call.digest
            )
            if new:
                self._budget.require(f"call {call.call_id!r}", CALL_BYTES)
            return known, new

        known, new = await self._transactions.write(begin)
        self._budget.add(CALL_BYTES if new else 0)
        return None if new else _call_record(known)

    async def retry_call(self, execution_id: str, call_id: str) -> int:
        """Record that a call without outcome is made again."""
        return await self._transactions.write(
            lambda records: records.calls.retry_call(self._lease, execution_id, call_id)
        )

    async def finish_call(self, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record a call's outcome."""
        self._transactions.check_size(f"the outcome of call {call_id!r}", outcome)
        self._budget.require(f"the outcome of call {call_id!r}", len(outcome))
        await self._transactions.write(
            lambda records: records.calls.finish_call(self._lease, execution_id, call_id, outcome)
        )
        self._budget.add(len(outcome))

    # --- checkpoints ---------------------------------------------------------------------------------

    async def save(self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes]) -> None:
        """Store a checkpoint, after those of its blobs that are new."""
        name = checkpoint.checkpoint_id
        self._transactions.check_size(f"the manifest of checkpoint {name!r}", checkpoint.manifest)
        await self._require_room(checkpoint, blobs)
        await put_blobs(self._transactions.write, blobs, f"checkpoint {name!r}")

        def save(records: SessionRecords) -> int:
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
            return records.usage.checkpoints(self._session_id) if self._budget.is_bounded else 0

        self._budget.set_checkpoints(await self._transactions.write(save))

    async def _require_room(self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes]) -> None:
        """Check that there is room for a checkpoint, in place of one of the same id."""
        if not self._budget.is_bounded or not checkpoint.manifest:
            return
        name = checkpoint.checkpoint_id

        def measure(records: SessionRecords) -> int:
            total = records.usage.checkpoints(self._session_id, name, checkpoint.digests)
            total += sum(len(blobs[digest]) for digest in records.usage.absent(list(blobs)))
            return total - records.usage.checkpoints(self._session_id)

        more = await self._transactions.read(measure)
        self._budget.require(f"checkpoint {name!r}", more + len(checkpoint.manifest))

    async def checkpoint(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""

        def read(records: SessionRecords) -> SavedCheckpoint | None:
            found = records.checkpoints.get(self._session_id, checkpoint_id)
            return None if found is None else self._saved(records, found)

        return await self._transactions.read(read)

    async def checkpoint_ids(self) -> list[str]:
        """Return the names of all checkpoints, from the earliest point of the history on."""
        found = await self._transactions.read(lambda records: records.checkpoints.of(self._session_id))
        return [checkpoint.checkpoint_id for checkpoint in found]

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Read blobs."""
        return await read_blobs(self._transactions.read, digests)

    def _saved(self, records: SessionRecords, checkpoint: CheckpointRow) -> SavedCheckpoint:
        return SavedCheckpoint(
            checkpoint.checkpoint_id,
            checkpoint.after_seq,
            checkpoint.manifest,
            tuple(records.checkpoints.digests(self._session_id, checkpoint.checkpoint_id)),
            _unsaved.decode(checkpoint.unsaved) if checkpoint.unsaved else (),
        )

    # --- the end -------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Release the session; executions under way stay recorded."""
        await self._runner.close()


def _call_record(call: CallRow) -> CallRecord:
    return CallRecord(call.call_id, call.name, call.args_digest, call.outcome, call.attempt)
