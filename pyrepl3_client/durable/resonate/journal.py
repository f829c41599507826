"""`ResonateJournal`: each execution of a session is a durable function, whose promise stands for its outcome.

What is common to all stores: the order of executions, submission through the bridge, and the end. Where
and how things are recorded is a store's own affair, see `SqliteJournal` and `PromiseJournal`.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

import msgspec

from pyrepl3_client._journal.outcomes import Ended, decode_outcome
from pyrepl3_client._journal.protocol import Entry, Spec, conflict
from pyrepl3_client.durable.lease.errors import LeaseLost
from pyrepl3_client.durable.resonate.bridge import BridgeMetrics, PendingExecution, ProtocolBridge
from pyrepl3_client.durable.resonate.engine import Engine
from pyrepl3_client.durable.resonate.ids import awaited_id, code_digest, root_id
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.messages import Result

_log: Final = logging.getLogger(__name__)

# Seconds for which a recorded execution waits for its durable function to come.
SUBMIT_TIMEOUT: Final = 30.0


class RecordedOutcome(msgspec.Struct, frozen=True):
    """An outcome that is to be recorded."""

    data: bytes
    rejected: bool


class BegunExecution(msgspec.Struct, frozen=True):
    """An execution as it is recorded, with its outcome if it has one."""

    entry: Entry
    digest: str
    """Of its code."""
    new: bool
    outcome: bytes | None = None


class ResonateJournal(ABC):
    """The half of a `Journal` that sees executions through."""

    def __init__(
        self,
        session_id: str,
        connect: Callable[[ProtocolBridge], Engine],
        on_lost: Callable[[StoreError], None],
    ) -> None:
        """Connect Resonate to a new bridge; the loop must be running."""
        self.session_id: Final = session_id
        self._on_lost: Final = on_lost
        self._bridge: Final = ProtocolBridge(self._settle_orphan)
        self._engine: Final = connect(self._bridge)
        self._order: Final = asyncio.Lock()
        self._starting: PendingExecution | None = None
        """The execution whose function is being waited for."""
        self._replays = 0
        self._closing: asyncio.Task[None] | None = None

    @property
    def replays(self) -> int:
        """How many executions were answered from the record."""
        return self._replays

    @property
    def metrics(self) -> BridgeMetrics:
        """What the bridge has done."""
        return self._bridge.metrics

    # --- what a store does ---------------------------------------------------------------------------

    @abstractmethod
    async def _begin(self, execution_id: str, digest: str, spec: Spec) -> BegunExecution:
        """Record an execution, or look up the one of that id."""

    @abstractmethod
    async def _end(
        self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None, *, keep: bool
    ) -> bytes:
        """Record an outcome and resolve its promise; give the outcome that is on record, the first one.

        Args:
            execution_id: whose.
            outcome: what came of it.
            promise_id: the promise that stands for it, once it is known to exist.
            keep: whether to record it later, before anything else, if that fails now.
        """

    @abstractmethod
    async def _known(self, execution_id: str) -> RecordedOutcome | None:
        """Look up a recorded outcome."""

    @abstractmethod
    async def _create_awaited(self, root: str) -> None:
        """Create the promise that stands for an execution's outcome, unless its function has."""

    @abstractmethod
    async def _give_up(self) -> None:
        """Record what was kept, let the next owner have the session, and disconnect. Never raises."""

    # --- executions ----------------------------------------------------------------------------------

    async def execute(
        self, execution_id: str, spec: Spec, submit: Callable[[Entry], None]
    ) -> tuple[bytes, bool]:
        """See an execution through."""
        try:
            digest, root = code_digest(spec.code), root_id(self.session_id, execution_id)
        except UnicodeEncodeError as error:
            raise StoreError(f"execution {execution_id!r} holds text that is no Unicode: {error}") from error
        async with self._order:
            self._require_open()
            begun = await self._begin(execution_id, digest, spec)
            if begun.digest != digest:
                raise conflict(execution_id, begun.entry.spec.code, spec.code)
            if begun.outcome is not None:
                self._replays += 1
                return begun.outcome, True
            pending = self._bridge.pending(execution_id)
            if pending is not None and pending.given_up:
                # The session has it no more (the store had failed under it): it is to be run again.
                self._bridge.forget(pending)
                pending = None
            if pending is None:
                pending = self._bridge.expect(execution_id, lambda: submit(begun.entry))
                await self._start(pending, root, digest, new=begun.new)
        return await pending.outcome(), False

    async def _start(self, pending: PendingExecution, root: str, digest: str, *, new: bool) -> None:
        self._starting = pending
        try:
            await self._engine.start(root, pending.execution_id, digest)
            if not new and not pending.submitted:
                # Its function was run before, and sleeps; or it failed with the store and holds its task
                # until that lapses, or an earlier owner does. When it comes, it finds its promise there.
                await self._create_awaited(root)
                self._bridge.submit_again(pending.execution_id, awaited_id(root))
            await pending.until_submitted(SUBMIT_TIMEOUT)
        except BaseException as error:
            if not pending.submitted:
                self._bridge.forget(pending)
            pending.given_up = True
            if isinstance(error, LeaseLost):
                self._bridge.close(error)
            raise
        finally:
            self._starting = None

    def _on_function_failure(self, error: StoreError) -> None:
        """Do not wait for a function that does not come: whoever asks again is served without it."""
        if self._starting is not None and not self._starting.submitted:
            self._bridge.fail(self._starting.execution_id, error)

    async def _settle_orphan(self, execution_id: str, promise_id: str) -> None:
        """A function came for which nobody waits: have its promise resolved, if the outcome is known."""
        try:
            known = await self._known(execution_id)
            if known is not None:
                await self._end(execution_id, known, promise_id, keep=False)
        except StoreError as error:
            # It sleeps on, and is found again when the session is next opened. Nothing is lost by that:
            # what counts is the record.
            _log.warning("cannot look up the outcome of execution %r: %s", execution_id, error)

    async def succeeded(self, execution_id: str) -> bool | None:
        """Say whether an execution ran to its end without an error."""
        known = await self._known(execution_id)
        outcome = None if known is None else decode_outcome(known.data)
        return isinstance(outcome.last, Result) if isinstance(outcome, Ended) else None

    async def settle(self, execution_id: str, outcome: bytes, *, rejected: bool) -> None:
        """Record an outcome, resolve its promise, and let its `execute` return."""
        self._require_open()
        pending = self._bridge.pending(execution_id)
        promise_id = None if pending is None else pending.promise_id
        try:
            recorded = await self._end(
                execution_id, RecordedOutcome(outcome, rejected), promise_id, keep=pending is not None
            )
        except BaseException as error:
            self._bridge.fail(
                execution_id,
                error
                if isinstance(error, StoreError)
                else StoreError(f"the outcome of execution {execution_id!r} was not recorded: {error!r}"),
            )
            raise
        self._engine.ended(root_id(self.session_id, execution_id))
        self._bridge.settle(execution_id, recorded)

    # --- the end -------------------------------------------------------------------------------------

    def lose(self, error: LeaseLost) -> None:
        """End all waiting: the session has another owner."""
        self._bridge.close(error)
        self._on_lost(error)

    def _require_open(self) -> None:
        if self._closing is not None:
            raise StoreError(f"the record of session {self.session_id!r} is closed; open the session again")

    async def close(self) -> None:
        """Give the session up; executions under way stay recorded."""
        if self._closing is None:
            self._bridge.close(
                StoreError(
                    f"session {self.session_id!r} was closed; the execution stays recorded, and goes on when "
                    "the session is opened again and it is asked for under the same id"
                )
            )
            self._closing = asyncio.get_running_loop().create_task(
                self._give_up(), name=f"close the record of {self.session_id}"
            )
        await asyncio.shield(self._closing)
