"""`PromiseJournal`: a session's record on a Resonate server, or in PostgreSQL with resonate-pg."""

import logging
from collections.abc import Callable, Sequence
from typing import Final, Self

from resonate_base import Network, Source

from pyrepl3_client.durable.lease.errors import LeaseLost
from pyrepl3_client.durable.remote.fenced_store import FencedStore
from pyrepl3_client.durable.remote.record import PromiseRecord
from pyrepl3_client.durable.resonate.bridge import ProtocolBridge
from pyrepl3_client.durable.resonate.engine import Engine
from pyrepl3_client.durable.resonate.ids import awaited_id, awaited_tags, session_group
from pyrepl3_client.durable.resonate.journal import ResonateJournal
from pyrepl3_client.errors import StoreError

_log: Final = logging.getLogger(__name__)

# Seconds between two looks at what is pending: a message can be lost on its way.
_REFRESH: Final = 60.0
# Seconds for which closing waits until the last functions have returned. What remains does so when the
# session is next opened.
FINISH_TIMEOUT: Final = 5.0


class PromiseJournal(PromiseRecord, ResonateJournal):
    """Implements `Journal` on promises alone. Make it with `open`."""

    def __init__(
        self,
        network: Network,
        sources: Sequence[Source],
        store: FencedStore,
        *,
        pid: str,
        on_lost: Callable[[StoreError], None],
    ) -> None:
        """Be the record of the session that `store` is of; the loop must be running."""

        def connect(bridge: ProtocolBridge) -> Engine:
            return Engine(
                network,
                sources,
                group=session_group(store.session_id),
                pid=pid,
                bridge=bridge,
                on_failure=self._on_function_failure,
                refresh=_REFRESH,
            )

        PromiseRecord.__init__(self, store)
        ResonateJournal.__init__(self, store.session_id, connect, on_lost)

    @classmethod
    async def open(
        cls,
        network: Network,
        sources: Sequence[Source],
        session_id: str,
        *,
        pid: str,
        on_lost: Callable[[StoreError], None],
        ttl: float,
        wait: float,
    ) -> Self:
        """Take the session over, and be its record.

        Args:
            network: carries requests. It is stopped with the journal, and also when this fails.
            sources: bring messages; the first one knows what an address looks like. They are stopped too.
            session_id: the session.
            pid: a new name for this process's connection.
            on_lost: called once when another owner has taken over: nothing can be recorded any more.
            ttl: seconds for which the session stays ours if this process stops.
            wait: seconds to wait while it is somebody else's.

        Raises:
            SessionBusy: somebody else owns the session.
            StoreError: the store cannot be reached, read or written.
        """
        journal: Self

        def lost(error: LeaseLost) -> None:
            journal.lose(error)

        store = FencedStore(
            network, session_id, target=sources[0].resolve_target, pid=pid, ttl=ttl, on_lost=lost
        )
        # No sooner does Resonate listen: the session's tasks are the present owner's.
        try:
            await store.acquire(wait)
        except BaseException:
            for connection in (*sources, network):
                await connection.stop()
            raise
        journal = cls(network, sources, store, pid=pid, on_lost=on_lost)
        try:
            await journal.prepare()
        except BaseException:
            await journal.close()
            raise
        return journal

    async def _create_awaited(self, root: str) -> None:
        await self._store.create(awaited_id(root), b"", tags=awaited_tags(root))

    async def _mended(self, promise_id: str) -> None:
        await self._engine.follow(promise_id.partition(":")[0])

    async def _give_up(self) -> None:
        try:
            await self._catch_up()
        except StoreError as error:
            _log.error("outcomes of executions %s are lost: %s", sorted(self._unrecorded), error)
        await self._engine.finish(FINISH_TIMEOUT)
        await self._store.give_up()
        await self._engine.stop()
