"""`ResonateRunner`: runs executions as durable functions, whose promises stand for their outcomes.

It holds what is common to all stores: the order of executions, their submission through the bridge, their
settlement, and the close. An `ExecutionStore` holds what differs: where and how they are recorded.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from pyrepl3_client._journal.id_conflict import conflict
from pyrepl3_client._journal.outcomes import EndedOutcome, decode_outcome
from pyrepl3_client._journal.protocol import BridgeMetrics, Entry, OnTrouble, Spec, log_trouble
from pyrepl3_client.durable.resonate.bridge import PendingExecution, ProtocolBridge
from pyrepl3_client.durable.resonate.engine import Engine, ResonateConnection
from pyrepl3_client.durable.resonate.ids import awaited_id, code_digest, root_id, session_group
from pyrepl3_client.errors import LeaseLost, StoreError
from pyrepl3_schemas.messages import Result

# Seconds for which a recorded execution waits for its durable function to come.
SUBMIT_TIMEOUT: Final = 30.0


class RecordedOutcome(msgspec.Struct, frozen=True):
    """An outcome that is recorded, or is to be."""

    data: bytes
    rejected: bool


class BegunExecution(msgspec.Struct, frozen=True):
    """An execution as it is recorded, with its outcome if it has one."""

    entry: Entry
    digest: str
    """Of its code."""
    new: bool
    outcome: bytes | None = None
    settled_orphan: bool = False
    """Whether its promise had to be resolved for an earlier owner, whose durable function still waits."""


class ExecutionStore(Protocol):
    """What a runner needs of the store in which executions are recorded.

    All but `close` raise `StoreError` when the store fails, and `LeaseLost` when the session has another
    owner.
    """

    async def begin(self, execution_id: str, digest: str, spec: Spec) -> BegunExecution:
        """Record an execution, or look up the one of that id."""
        ...

    async def end(
        self, execution_id: str, outcome: RecordedOutcome, promise_id: str | None, *, keep: bool
    ) -> bytes:
        """Record an outcome, resolve its promise, and return the outcome on record, which is the first one.

        Args:
            execution_id: of a recorded execution.
            outcome: what came of it.
            promise_id: the promise that stands for it; None while it is not known to exist.
            keep: whether to record the outcome later, before anything else, if that fails now.
        """
        ...

    async def find_outcome(self, execution_id: str) -> RecordedOutcome | None:
        """Look up a recorded outcome."""
        ...

    async def create_awaited(self, root: str) -> None:
        """Create the promise that stands for an outcome, unless its durable function has created it."""
        ...

    async def close(self, engine: Engine) -> None:
        """Record the kept outcomes, release the session, and stop the engine. Never raises `StoreError`.

        The store does all three, since their order depends on it.
        """
        ...


class ResonateRunner:
    """Runs the executions of one session, one durable function each, and settles their promises.

    Args:
        session_id: the session, which this process owns.
        store: where the executions are recorded.
        connection: carries Resonate's requests and messages.
        on_lost: called once when another owner has taken the session over.
    """

    def __init__(
        self,
        session_id: str,
        store: ExecutionStore,
        connection: ResonateConnection,
        on_lost: Callable[[StoreError], None],
        on_trouble: OnTrouble = log_trouble,
    ) -> None:
        """Connect Resonate to a new bridge; the loop must be running."""
        self._session_id: Final = session_id
        self._store: Final = store
        self._on_lost: Final = on_lost
        self._on_trouble: Final = on_trouble
        self._bridge: Final = ProtocolBridge(self._settle_orphan)
        self._engine: Final = Engine(
            connection,
            group=session_group(session_id),
            bridge=self._bridge,
            on_failure=self._on_function_failure,
        )
        self._start_lock: Final = asyncio.Lock()
        self._starting: PendingExecution | None = None
        """The execution whose durable function is being waited for."""
        self._closing: asyncio.Task[None] | None = None

    @property
    def metrics(self) -> BridgeMetrics:
        """What the bridge has done."""
        return self._bridge.metrics

    # --- executions ----------------------------------------------------------------------------------

    async def execute(
        self, execution_id: str, spec: Spec, submit: Callable[[Entry], None]
    ) -> tuple[bytes, bool]:
        """Run an execution once and return its outcome, as `Journal.execute` describes it."""
        try:
            digest, root = code_digest(spec.code), root_id(self._session_id, execution_id)
        except UnicodeEncodeError as error:
            raise StoreError(f"execution {execution_id!r} holds text that is no Unicode: {error}") from error
        async with self._start_lock:
            self._require_open()
            begun = await self._store.begin(execution_id, digest, spec)
            if begun.settled_orphan:
                await self._engine.follow(root)
            if begun.digest != digest:
                raise conflict(execution_id, begun.entry.spec.code, spec.code)
            if begun.outcome is not None:
                return begun.outcome, True
            pending = self._bridge.find_pending(execution_id)
            if pending is not None and pending.abandoned:
                # The session has it no more (the store had failed under it): it is to be run again.
                self._bridge.forget(pending)
                pending = None
            if pending is None:
                pending = self._bridge.expect(execution_id, lambda: submit(begun.entry))
                await self._start(pending, root, digest, new=begun.new)
        return await pending.wait_outcome(), False

    async def _start(self, pending: PendingExecution, root: str, digest: str, *, new: bool) -> None:
        self._starting = pending
        try:
            await self._engine.start(root, pending.execution_id, digest)
            if not new and not pending.submitted:
                # Its function was run before, and sleeps; or it failed with the store and holds its task
                # until that lapses, or an earlier owner does. When it comes, it finds its promise there.
                await self._store.create_awaited(root)
                self._bridge.submit_again(pending.execution_id, awaited_id(root))
            await pending.wait_submitted(SUBMIT_TIMEOUT)
        except BaseException as error:
            if not pending.submitted:
                self._bridge.forget(pending)
            pending.abandoned = True
            if isinstance(error, LeaseLost):
                self._bridge.close(error)
            raise
        finally:
            self._starting = None

    def _on_function_failure(self, error: StoreError) -> None:
        """Stop waiting for a function that does not come: the next `execute` of its id starts it anew."""
        if self._starting is not None and not self._starting.submitted:
            self._bridge.fail(self._starting.execution_id, error)

    async def _settle_orphan(self, execution_id: str, promise_id: str) -> None:
        """Resolve the promise of a function that has no waiter here, if its outcome is known."""
        try:
            known = await self._store.find_outcome(execution_id)
            if known is not None:
                await self._store.end(execution_id, known, promise_id, keep=False)
        except StoreError as error:
            # It sleeps on, and is found again when the session is next opened. Nothing is lost by that:
            # what counts is the record.
            self._on_trouble("an outcome cannot be looked up", error, execution_id=execution_id)

    async def follow(self, execution_id: str) -> None:
        """Have the close wait for the function of an execution whose orphaned promise was just resolved.

        Raises:
            StoreError: the store failed.
        """
        await self._engine.follow(root_id(self._session_id, execution_id))

    async def succeeded(self, execution_id: str) -> bool | None:
        """Return whether an execution ran to its end without an error; None if it did not run to its end."""
        known = await self._store.find_outcome(execution_id)
        outcome = None if known is None else decode_outcome(known.data)
        return isinstance(outcome.last, Result) if isinstance(outcome, EndedOutcome) else None

    async def outcome(self, execution_id: str) -> bytes | None:
        """Return a recorded outcome; None if there is none.

        Raises:
            StoreError: the store failed.
        """
        known = await self._store.find_outcome(execution_id)
        return None if known is None else known.data

    async def settle(self, execution_id: str, outcome: bytes, *, rejected: bool) -> None:
        """Record an outcome, resolve its promise, and let its `execute` return."""
        self._require_open()
        pending = self._bridge.find_pending(execution_id)
        promise_id = None if pending is None else pending.promise_id
        try:
            recorded = await self._store.end(
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
        self._engine.mark_settled(root_id(self._session_id, execution_id))
        self._bridge.settle(execution_id, recorded)

    # --- the end -------------------------------------------------------------------------------------

    def lose_session(self, error: LeaseLost) -> None:
        """Fail everything that waits: the session has another owner."""
        self._bridge.close(error)
        self._on_lost(error)

    def _require_open(self) -> None:
        if self._closing is not None:
            raise StoreError(f"the record of session {self._session_id!r} is closed; open the session again")

    async def close(self) -> None:
        """Release the session; executions under way stay recorded. Idempotent, and never raises."""
        if self._closing is None:
            self._bridge.close(
                StoreError(
                    f"session {self._session_id!r} was closed; the execution stays recorded, and goes on "
                    "when the session is opened again and it is asked for under the same id"
                )
            )
            self._closing = asyncio.get_running_loop().create_task(
                self._store.close(self._engine), name=f"close the record of {self._session_id}"
            )
        await asyncio.shield(self._closing)
