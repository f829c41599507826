"""One session's Resonate instance: it starts durable functions, and its failures become `StoreError`."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from resonate.codec import Codec, NoopEncryptor
from resonate.error import PlatformError, ServerError
from resonate.handle import ResonateHandle
from resonate.heartbeat import NoopHeartbeat
from resonate.observability import BackgroundTaskFailed, Event, logging_observer
from resonate.resonate import Resonate
from resonate.retry import Never
from resonate.send import Sender
from resonate.timing import now_ms
from resonate.transport import Transport
from resonate.types import PromiseCreateReq
from resonate_base import ConnectorError, Network, ResonateError, Source

from pyrepl3_client.durable.resonate.bridge import ProtocolBridge
from pyrepl3_client.durable.resonate.function import FOREVER, OutcomeRef, async_execute
from pyrepl3_client.durable.resonate.ids import FUNCTION, VERSION, awaited_id, awaited_tags
from pyrepl3_client.errors import StoreError


class ResonateConnection(msgspec.Struct, frozen=True):
    """How a store is reached."""

    network: Network
    """Carries requests."""
    sources: tuple[Source, ...]
    """Bring messages; the first one knows the form of an address."""
    pid: str
    """This process's name there, under which it holds tasks."""
    refresh: float = 0.0
    """Seconds between two reads of what is pending, for a source that may lose messages; 0 for one that
    does not."""


class Engine:
    """Starts the durable functions of a session's executions, and lets them return.

    Args:
        connection: reaches the store.
        group: to which the session's tasks are addressed.
        bridge: to which the durable function hands executions.
        on_failure: called when a durable function, or what Resonate does around it, failed with the store:
            the function does not return then, unless it is started again.
    """

    def __init__(
        self,
        connection: ResonateConnection,
        *,
        group: str,
        bridge: ProtocolBridge,
        on_failure: Callable[[StoreError], None],
    ) -> None:
        """Connect; the loop must be running."""
        self._on_failure: Final = on_failure
        self._network: Final = _FailureRecordingNetwork(connection.network)
        self.resonate: Final = Resonate(
            network=self._network,
            sources=connection.sources,
            group=group,
            pid=connection.pid,
            # The function fails only where the store does, and that is no outcome.
            retry_policy=Never(),
            # It holds its task for as long as one promise takes to be created: no lease needs renewing.
            heartbeat=NoopHeartbeat(),
            subscription_refresh_secs=connection.refresh,
            observer=self._observe,
            # The environment's variables name other programs' servers, not this store.
            env={},
            autostart=False,
        )
        self.resonate.with_dependency(bridge)
        self.resonate.register(async_execute, name=FUNCTION, version=VERSION)
        self._executions: Final = self.resonate.options(timeout=FOREVER)
        self._started: Final[dict[str, ResonateHandle[OutcomeRef]]] = {}
        """Functions that have not returned, by their roots."""
        self._settled: Final[set[str]] = set()
        """Those whose promise has settled, so that they return soon."""
        self.resonate.start()

    async def start(self, root: str, execution_id: str, code_digest: str) -> None:
        """Start an execution's durable function, unless it was started before.

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
        """Let `wait_returned` wait for a function that an earlier owner started; its promise has settled.

        Raises:
            StoreError: the store failed.
        """
        try:
            self._started[root] = await self.resonate.get(root)
        except ResonateError as error:
            raise translate_error(error) from error
        self.mark_settled(root)

    def mark_settled(self, root: str) -> None:
        """Record that a function's promise has settled, so that it returns soon."""
        self._settled.add(root)
        for other in [other for other in self._settled if self._returned(other)]:
            self._settled.discard(other)
            self._started.pop(other, None)

    def _returned(self, root: str) -> bool:
        handle = self._started.get(root)
        return handle is None or handle.done()

    async def wait_returned(self, timeout: float) -> None:
        """Wait until functions whose promise has settled have returned, or `timeout` seconds are over."""
        waiting = [self._started[root].result() for root in self._settled if not self._returned(root)]
        if not waiting:
            return
        tasks = [asyncio.ensure_future(one) for one in waiting]
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        # Whatever they returned, or however they failed, is on record: this is only about their end.
        await asyncio.gather(*tasks, return_exceptions=True)

    def _observe(self, event: Event) -> None:
        if isinstance(event, BackgroundTaskFailed) and self._network.failure is not None:
            self._on_failure(translate_error(self._network.failure))
        else:
            logging_observer(event)

    async def stop(self) -> None:
        """Let running functions reach their next wait, and disconnect. Never raises `StoreError`."""
        # A message that was just sent is handed over in the loop's next turn: let its function begin.
        await asyncio.sleep(0)
        await self.resonate.stop()
        # The refresh loop has been cancelled, and ends in the loop's next turn.
        await asyncio.sleep(0)


class _FailureRecordingNetwork:
    """A `Network` that keeps its last failure: Resonate reports no more of it than a text."""

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


async def create_awaited(network: Network, root: str) -> None:
    """Create the promise that stands for an execution's outcome, unless its function has created it.

    Raises:
        StoreError: the store failed.
    """
    request = PromiseCreateReq(
        id=awaited_id(root),
        timeout_at=now_ms() + int(FOREVER.total_seconds() * 1000),
        param=Codec(NoopEncryptor()).encode(None),
        tags=awaited_tags(root),
    )
    try:
        await Sender(Transport(network), None).promise_create(request)
    except ResonateError as error:
        raise translate_error(error) from error


class _StoreFailuresInALine(logging.Filter):
    """Says in one line what Resonate logs with a traceback of a store that fails.

    That is no defect, neither Resonate's nor ours: the caller is told, and the function returns when the
    store is well again. The line says what the store said.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        cause = error.cause if isinstance(error, PlatformError) else error
        if isinstance(cause, ConnectorError) and isinstance(cause.error, StoreError):
            record.msg, record.args = "%s: %s", (record.getMessage(), cause.error)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


logging.getLogger("resonate.core").addFilter(_StoreFailuresInALine())


def is_not_found(error: ResonateError) -> bool:
    """Return whether an error means that there is no such promise."""
    return isinstance(error, ServerError) and error.code == 404


def translate_error(error: ResonateError) -> StoreError:
    """Return a failure of Resonate's as a `StoreError`: the one within, where our own store failed."""
    if isinstance(error, ConnectorError):
        inner = error.error
        if isinstance(inner, StoreError):
            return inner
        return StoreError(f"the store cannot be reached: {type(inner).__name__}: {inner}")
    return StoreError(f"the store refused a request: {error}")
