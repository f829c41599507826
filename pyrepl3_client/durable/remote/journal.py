"""`RemoteJournal`: a session's record on a Resonate server, or in PostgreSQL with resonate-pg."""

from collections.abc import Callable, Collection, Mapping
from typing import Final, Self

from pyrepl3_client._journal.protocol import (
    BridgeMetrics,
    CallRecord,
    Entry,
    History,
    OnTrouble,
    SavedCheckpoint,
    Spec,
    TextPart,
    TextSize,
    log_trouble,
    recorded_level,
)
from pyrepl3_client.durable.remote.calls import RemoteCallStore
from pyrepl3_client.durable.remote.checkpoints import RemoteCheckpointStore
from pyrepl3_client.durable.remote.executions import RemoteExecutionStore
from pyrepl3_client.durable.remote.fenced_store import FencedStore
from pyrepl3_client.durable.remote.large_values import LargeValueStore
from pyrepl3_client.durable.remote.texts import RemoteTextStore
from pyrepl3_client.durable.resonate.engine import ResonateConnection
from pyrepl3_client.durable.resonate.runner import ResonateRunner
from pyrepl3_client.errors import LeaseLost, StoreError
from pyrepl3_schemas.confinement import Level
from pyrepl3_schemas.messages import StreamName


class RemoteJournal:
    """Implements `Journal` on promises alone. Make it with `open`."""

    def __init__(
        self, connection: ResonateConnection, store: FencedStore, on_lost: Callable[[StoreError], None]
    ) -> None:
        """Record the session of `store`; the loop must be running."""
        data = LargeValueStore(store)
        self._executions: Final = RemoteExecutionStore(store, data)
        self._calls: Final = RemoteCallStore(store, data, self._executions)
        self._texts: Final = RemoteTextStore(store, data, self._executions)
        self._checkpoints: Final = RemoteCheckpointStore(store, data)
        self._store: Final = store
        self._runner: Final = ResonateRunner(
            store.session_id, self._executions, connection, on_lost, store.on_trouble
        )

    @classmethod
    async def open(
        cls,
        connection: ResonateConnection,
        session_id: str,
        *,
        on_lost: Callable[[StoreError], None],
        on_trouble: OnTrouble = log_trouble,
        ttl: float,
        wait: float,
    ) -> Self:
        """Take the session over, and return its record.

        Args:
            connection: a new one. Its network and sources are stopped with the journal, and also when this
                fails.
            session_id: the session.
            on_lost: called once when another owner has taken over: nothing can be recorded any more.
            on_trouble: gets what could not be done beside what callers are told.
            ttl: seconds for which this process keeps the session if it stops.
            wait: seconds to wait while the session has another owner.

        Raises:
            SessionBusy: the session has another owner.
            StoreError: the store cannot be reached, read or written.
        """
        journal: Self

        def lost(error: LeaseLost) -> None:
            journal._runner.lose_session(error)

        store = FencedStore(
            connection.network,
            session_id,
            target=connection.sources[0].resolve_target,
            pid=connection.pid,
            ttl=ttl,
            on_lost=lost,
            on_trouble=on_trouble,
        )
        # Resonate listens only after this: until then the session's tasks belong to the present owner.
        try:
            await store.acquire(wait)
        except BaseException:
            for one in (*connection.sources, connection.network):
                await one.stop()
            raise
        journal = cls(connection, store, on_lost)
        try:
            await journal._prepare()
        except BaseException:
            await journal.close()
            raise
        return journal

    async def _prepare(self) -> None:
        """Find the newest execution and checkpoint, and complete what a killed owner left half recorded."""
        newest = await self._executions.prepare()
        await self._checkpoints.prepare()
        if newest is not None:
            await self._settle_orphan(newest)

    async def _settle_orphan(self, execution_id: str) -> None:
        if await self._executions.settle_orphan(execution_id):
            await self._runner.follow(execution_id)

    # --- executions ----------------------------------------------------------------------------------

    @property
    def store_path(self) -> str | None:
        """None: it is not in a file."""
        return None

    @property
    def metrics(self) -> BridgeMetrics:
        """What the bridge has done."""
        return self._runner.metrics

    @property
    def opening(self) -> int:
        """How often the session has been opened."""
        return self._store.owner_count

    @property
    def takes_running_text(self) -> bool:
        """False: nothing that is on record can be replaced, and each addition would stay."""
        return False

    async def level(self) -> Level | None:
        """Return the confinement level on record."""
        found = await self._store.level()
        return None if found is None else recorded_level(found)

    async def record_level(self, level: Level) -> None:
        """Record the confinement level."""
        await self._store.record_level(level)

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
        await self._executions.record_kept()
        checkpoint = await self._checkpoints.newest()
        after = 0 if checkpoint is None else checkpoint.after_seq
        numbers = {*self._checkpoints.unfinished, *range(after + 1, self._executions.last_seq + 1)}
        entries = await self._executions.entries(numbers)
        for execution_id in self._executions.ended_ids():
            await self._settle_orphan(execution_id)
        return History(
            checkpoint, tuple(entry for entry in entries if entry.seq > after or entry.status == "started")
        )

    async def entries(self, up_to_seq: int) -> list[Entry]:
        """Return all executions up to a number, in order."""
        return await self._executions.entries(range(1, min(up_to_seq, self._executions.last_seq) + 1))

    async def add_death(self, execution_id: str) -> int:
        """Count a death that cost an execution its run."""
        return await self._executions.add_death(execution_id)

    async def exempt_next_death(self, execution_id: str) -> None:
        """Record that the next death costs an execution nothing."""
        await self._executions.exempt_next_death(execution_id)

    # --- what executions wrote -----------------------------------------------------------------------

    async def put_text(
        self, execution_id: str, stream: StreamName, n: int, part: TextPart, max_bytes: int
    ) -> bool:
        """Store a part of what an execution wrote, if there is room."""
        return await self._texts.put(execution_id, stream, n, part, max_bytes)

    async def text_keys(self, prefix: str) -> list[str]:
        """Return nothing: there is a text of an execution as a whole alone."""
        return []

    async def drop_text(self, key: str) -> None:
        """Do nothing: there is none."""

    async def text_size(self, execution_id: str, stream: StreamName) -> TextSize | None:
        """Return how much is kept of what an execution wrote."""
        return await self._texts.size(execution_id, stream)

    async def text_part(self, execution_id: str, stream: StreamName, n: int) -> TextPart | None:
        """Return a part of what an execution wrote."""
        return await self._texts.part(execution_id, stream, n)

    # --- calls ---------------------------------------------------------------------------------------

    async def calls(self, execution_id: str) -> dict[str, CallRecord]:
        """Return an execution's calls, in the order of their intents."""
        return await self._calls.of(execution_id)

    async def begin_call(self, execution_id: str, call: CallRecord) -> CallRecord | None:
        """Record that a call is about to be made, or return the one that is on record."""
        return await self._calls.begin(execution_id, call)

    async def retry_call(self, execution_id: str, call_id: str) -> int:
        """Record that a call without outcome is made again."""
        return await self._calls.retry(execution_id, call_id)

    async def finish_call(self, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record a call's outcome. The first one stays."""
        await self._calls.finish(execution_id, call_id, outcome)

    # --- checkpoints ---------------------------------------------------------------------------------

    async def save(self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes]) -> None:
        """Store a checkpoint, after those of its blobs that are new."""
        await self._executions.record_kept()
        after = checkpoint.after_seq
        unfinished = self._executions.unfinished(after, self._checkpoints.unfinished)
        await self._checkpoints.save(checkpoint, blobs, unfinished)
        self._executions.forget_ended(after)

    async def checkpoint(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""
        return await self._checkpoints.get(checkpoint_id)

    async def checkpoint_ids(self) -> list[str]:
        """Return the names of all checkpoints, from the earliest point of the history on."""
        return self._checkpoints.ids()

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Read blobs."""
        return await self._checkpoints.blobs(digests)

    # --- the end -------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Release the session; executions under way stay recorded."""
        await self._runner.close()
