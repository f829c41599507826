"""What a session keeps beside its promises: who owns it, what it executed, and what was answered to it."""

import contextlib
from collections.abc import Generator
from typing import Final

from resonate.timing import Clock

from pyrepl3_client.durable.sqlite.tables.calls import CallTable
from pyrepl3_client.durable.sqlite.tables.checkpoints import CheckpointTable
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.executions import ExecutionTable
from pyrepl3_client.durable.sqlite.tables.leases import LeaseTable
from pyrepl3_client.durable.sqlite.tables.overview import Overview
from pyrepl3_client.durable.sqlite.tables.texts import TextTable
from pyrepl3_client.durable.sqlite.tables.usage import Usage


class SessionRecords:
    """The records of all sessions in a store, by subject.

    All is synchronous: each call is one short transaction on the store's connection, and several of
    them are one inside `with records.transaction()`. What writes for a session takes the session's
    lease, and is refused once the session has another owner. To be called on the thread that opened
    the store.

    Every call raises `StoreError` when the store cannot be read or written (`StoreBusy` when other
    processes kept it locked for longer than the busy timeout), and those that take a lease raise
    `LeaseLost` when it no longer counts; nothing is written then.

    Args:
        database: the store.
        clock: returns milliseconds since the epoch.

    Example:
        lease = records.leases.acquire("analysis-7", owner="host:4711", ttl=10.0)
        records.executions.start(lease, "step-3", code_digest="...", code="x = 1")
        records.executions.finish(lease, "step-3", outcome=b"...")
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        """Work on `database`."""
        self._database: Final = database
        self.leases: Final = LeaseTable(database, clock)
        self.executions: Final = ExecutionTable(database, clock, self.leases)
        self.calls: Final = CallTable(database, self.leases)
        self.texts: Final = TextTable(database, self.leases)
        self.usage: Final = Usage(database)
        self.checkpoints: Final = CheckpointTable(database, clock, self.leases)
        self.overview: Final = Overview(database, self.leases, self.checkpoints)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Generator[None]:
        """Make several calls one transaction. The body must not await.

        Args:
            durable: have it (and all before it) on the disk before returning, also where the store is
                opened with `synchronous="NORMAL"`. Costs one sync of the disk.
        """
        with self._database.write(durable=durable):
            yield
