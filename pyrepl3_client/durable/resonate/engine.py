"""One session's Resonate: its instance, its function, and its failures told as ours."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from resonate.error import ServerError
from resonate.handle import ResonateHandle
from resonate.heartbeat import NoopHeartbeat
from resonate.observability import BackgroundTaskFailed, Event, logging_observer
from resonate.resonate import Resonate
from resonate.retry import Never
from resonate.timing import now_ms
from resonate.types import Value
from resonate_base import ConnectorError, Network, ResonateError, Source

from pyrepl3_client.durable.resonate.bridge import ProtocolBridge
from pyrepl3_client.durable.resonate.function import FOREVER, Settled, async_execute
from pyrepl3_client.durable.resonate.ids import FUNCTION, VERSION, awaited_id, awaited_tags
from pyrepl3_client.errors import StoreError


class Engine:
    """Starts the durable function of executions, and lets it come to its end.

    Args:
        network: carries requests to the store.
        sources: bring its messages.
        group: to which the session's tasks are addressed.
        pid: under which they are held.
        bridge: to which the durable function hands executions.
        refresh: seconds between two looks at what is pending, for a source that may lose messages; 0 for
            one that does not.
        on_failure: called when a function of ours, or what Resonate does around it, failed with the store:
            it does not come to its end by itself.
    """

    def __init__(
        self,
        network: Network,
        sources: Sequence[Source],
        *,
        group: str,
        pid: str,
        bridge: ProtocolBridge,
        on_failure: Callable[[StoreError], None],
        refresh: float = 0.0,
    ) -> None:
        """Connect; the loop must be running."""
        self._on_failure: Final = on_failure
        self._wire: Final = _Wire(network)
        self.resonate: Final = Resonate(
            network=self._wire,
            sources=sources,
            group=group,
            pid=pid,
            # The function fails only where the store does, and that is no outcome.
            retry_policy=Never(),
            # It holds its task for as long as one promise takes to be created: no lease needs renewing.
            heartbeat=NoopHeartbeat(),
            subscription_refresh_secs=refresh,
            observer=self._observe,
            # What the environment says of other programs' servers is not about this store.
            env={},
            autostart=False,
        )
        self.resonate.with_dependency(bridge)
        self.resonate.register(async_execute, name=FUNCTION, version=VERSION)
        self._executions: Final = self.resonate.options(timeout=FOREVER)
        self._started: Final[dict[str, ResonateHandle[Settled]]] = {}
        """Functions that have not returned, by their roots."""
        self._ending: Final[set[str]] = set()
        """Those whose promise has settled, so that they return soon."""
        self.resonate.start()

    async def start(self, root: str, execution_id: str, code_digest: str) -> None:
        """Start an execution's durable function, or find that it was started before.

        Raises:
            StoreError: the store failed, or refused it.
        """
        handle = self._executions.run(root, async_execute, execution_id, code_digest)
        try:
            await handle.id()
        except ResonateError as error:
            raise translate_error(error) from error
        self._started[root] = handle

    async def follow(self, root: str) -> None:
        """Wait, in the end, for a function too that was started by an earlier owner; its promise has settled.

        Raises:
            StoreError: the store failed.
        """
        try:
            self._started[root] = await self.resonate.get(root)
        except ResonateError as error:
            raise translate_error(error) from error
        self.ended(root)

    def ended(self, root: str) -> None:
        """Take note that a function's promise has settled."""
        self._ending.add(root)
        for other in [other for other in self._ending if self._returned(other)]:
            self._ending.discard(other)
            self._started.pop(other, None)

    def _returned(self, root: str) -> bool:
        handle = self._started.get(root)
        return handle is None or handle.done()

    async def finish(self, timeout: float) -> None:
        """Wait until functions whose promise has settled have returned, or `timeout` seconds are over."""
        waiting = [self._started[root].result() for root in self._ending if not self._returned(root)]
        if not waiting:
            return
        tasks = [asyncio.ensure_future(one) for one in waiting]
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        # Whatever they returned, or however they failed, is on record: this is only about their end.
        await asyncio.gather(*tasks, return_exceptions=True)

    def _observe(self, event: Event) -> None:
        if isinstance(event, BackgroundTaskFailed) and self._wire.failure is not None:
            self._on_failure(translate_error(self._wire.failure))
        else:
            logging_observer(event)

    async def create_awaited(self, root: str) -> None:
        """Create the promise that stands for an execution's outcome, unless its function has.

        Raises:
            StoreError: the store failed.
        """
        timeout_at = now_ms() + int(FOREVER.total_seconds() * 1000)
        try:
            await self.resonate.promises.create(awaited_id(root), timeout_at, Value(), awaited_tags(root))
        except ResonateError as error:
            raise translate_error(error) from error

    async def stop(self) -> None:
        """Let functions under way come to their next wait, and disconnect. Never raises `StoreError`."""
        # A message that was just sent is handed over in the loop's next turn: let its function begin.
        await asyncio.sleep(0)
        await self.resonate.stop()
        # The refresh loop has been cancelled, and ends in the loop's next turn.
        await asyncio.sleep(0)


class _Wire:
    """A `Network` that remembers how it last failed: Resonate says of that no more than a text."""

    def __init__(self, network: Network) -> None:
        self._network: Final = network
        self.failure: ConnectorError | None = None

    async def start(self) -> None:
        await self._network.start()

    async def stop(self) -> None:
        await self._network.stop()

    async def send(self, req: str, headers: dict[str, str] | None = None) -> str:
        try:
            return await self._network.send(req, headers)
        except ConnectorError as error:
            self.failure = error
            raise


def is_missing(error: ResonateError) -> bool:
    """Say whether an error means that there is no such promise."""
    return isinstance(error, ServerError) and error.code == 404


def translate_error(error: ResonateError) -> StoreError:
    """Give a failure of Resonate's as a `StoreError`: the one within, where our own store failed."""
    if isinstance(error, ConnectorError):
        inner = error.error
        if isinstance(inner, StoreError):
            return inner
        return StoreError(f"the store cannot be reached: {type(inner).__name__}: {inner}")
    return StoreError(f"the store refused a request: {error}")
