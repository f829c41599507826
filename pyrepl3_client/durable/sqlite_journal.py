"""`SqliteJournal`: a session's record in an SQLite file.

One truth: what the `executions`, `calls` and `checkpoints` tables say counts, and the promise of an
execution is resolved in the same transaction that records its outcome, so whoever looks after a crash
finds both or neither. Input and capability calls are recorded in `calls` (their intent and outcome take
0.1 ms together), and not as promises once more (0.2 ms on top): nobody but the session awaits them.
"""

import logging
from collections.abc import Callable
from typing import Final, Self

from pyrepl3_client._journal import Spec
from pyrepl3_client.durable.bridge import ProtocolBridge
from pyrepl3_client.durable.engine import Engine
from pyrepl3_client.durable.identity import session_group, session_prefix
from pyrepl3_client.durable.journal import Begun, Outcome, ResonateJournal
from pyrepl3_client.durable.ownership import Ownership
from pyrepl3_client.durable.record import SqliteRecord, entry_of, spec_options
from pyrepl3_client.durable.sqlite import LeaseLost, SessionRecords, SqliteConnection
from pyrepl3_client.errors import StoreError

_log: Final = logging.getLogger(__name__)


class SqliteJournal(SqliteRecord, ResonateJournal):
    """Implements `Journal` on a `SqliteConnection`, which it owns. Make it with `open`."""

    def __init__(
        self, connection: SqliteConnection, ownership: Ownership, on_lost: Callable[[StoreError], None]
    ) -> None:
        """Be the record of the session that `ownership` is of; the loop must be running."""
        session_id = ownership.lease.session_id

        def connect(bridge: ProtocolBridge) -> Engine:
            return Engine(
                connection,
                (connection,),
                group=session_group(session_id),
                pid=connection.pid,
                bridge=bridge,
                on_failure=self._on_function_failure,
            )

        SqliteRecord.__init__(self, connection, ownership)
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
            ownership = await Ownership.take(connection, session_id, ttl=ttl, wait=wait, on_lost=lost)
        except BaseException:
            connection.close()
            raise
        journal = cls(connection, ownership, on_lost)
        try:
            # What the last owner held, and what was on its way to it, comes to us.
            await connection.reclaim(session_prefix(session_id))
        except BaseException:
            await journal.close()
            raise
        return journal

    async def _begin(self, execution_id: str, digest: str, spec: Spec) -> Begun:
        def begin(records: SessionRecords) -> Begun:
            execution, new = records.executions.start(
                self._lease, execution_id, digest, spec.code, spec_options(spec)
            )
            outcome = None
            if execution.status != "started":
                outcome = records.executions.outcome(self.session_id, execution_id)
            return Begun(entry_of(execution), execution.code_digest, new, outcome)

        return await self._write(begin)

    async def _end(self, execution_id: str, outcome: Outcome, promise_id: str | None, *, keep: bool) -> bytes:
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

    async def _known(self, execution_id: str) -> Outcome | None:
        def read(records: SessionRecords) -> Outcome | None:
            execution = records.executions.get(self.session_id, execution_id)
            data = records.executions.outcome(self.session_id, execution_id)
            if execution is None or data is None:
                return None
            return Outcome(data, execution.status == "rejected")

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
        await self._ownership.give_up()
        self._connection.close()
