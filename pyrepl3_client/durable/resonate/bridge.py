"""`ProtocolBridge`: between durable functions, which await promises, and the session, which settles them.

It touches no transport and no store. A durable function hands it the promise that stands for an execution;
the bridge submits that execution to the session, once, and the session, which receives the worker's
messages, settles it. Resonate runs a durable function again from the top whenever it resumes it, so a
repeated submission starts nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from pyrepl3_client._journal.protocol import BridgeMetrics
from pyrepl3_client.durable.resonate.ids import execution_key
from pyrepl3_client.errors import BridgeTimeout, StoreError


class PendingExecution:
    """One execution, its promise, and the tasks that wait for its outcome."""

    __slots__ = ("_outcome", "_submit", "_submitted", "abandoned", "execution_id", "promise_id")

    def __init__(self, execution_id: str, submit: Callable[[], None]) -> None:
        """Have `submit` called once the promise stands."""
        loop = asyncio.get_running_loop()
        self.execution_id = execution_id
        self.promise_id: str | None = None
        self.abandoned = False
        """Whether its caller was cancelled, and has withdrawn the execution from the session."""
        self._submit = submit
        self._submitted: asyncio.Future[None] = loop.create_future()
        self._outcome: asyncio.Future[bytes] = loop.create_future()

    @property
    def submitted(self) -> bool:
        """Whether it was handed to the session."""
        return self._submitted.done()

    @property
    def done(self) -> bool:
        """Whether it has its outcome, or has failed."""
        return self._outcome.done()

    def submit(self, promise_id: str) -> bool:
        """Hand it to the session, unless that was done before; return whether it was done now."""
        self.promise_id = promise_id
        if self._submitted.done() or self._outcome.done():
            return False
        self._submitted.set_result(None)
        try:
            self._submit()
        except Exception as error:  # noqa: BLE001 - the waiters get it; Resonate would record it
            self.fail(error)
        return True

    def resolve(self, outcome: bytes) -> None:
        """Set its outcome, which the waiters return."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """Make the waiters raise an error: the outcome cannot be reached here."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            # There may be no waiter left: asyncio must not log that the error was never retrieved.
            self._outcome.exception()

    async def wait_submitted(self, timeout: float) -> None:
        """Wait until the session has it, or it has failed.

        Raises:
            BridgeTimeout: its durable function did not come within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait((self._submitted, self._outcome), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise BridgeTimeout(
                "execute", self.execution_id, execution_key(self.execution_id), timeout
            ) from None

    async def wait_outcome(self) -> bytes:
        """Wait for the outcome; several may.

        Raises:
            StoreError: the outcome cannot be reached here; the text gives the reason.
        """
        try:
            return await asyncio.shield(self._outcome)
        except asyncio.CancelledError:
            self.abandoned = True
            raise


class ProtocolBridge:
    """Correlates promises and executions, and lets each execution be submitted at most once.

    Args:
        settle_orphan: called with the ids of an execution and its promise when a durable function comes that
            has no waiter in this process: left over from another one, or already settled. It settles the
            promise if the outcome is known.
    """

    def __init__(self, settle_orphan: Callable[[str, str], Awaitable[None]]) -> None:
        """Start without executions."""
        self._settle_orphan: Final = settle_orphan
        self._pending: Final[dict[str, PendingExecution]] = {}
        self._settled_ids: Final[set[str]] = set()
        """Ids whose promise was resolved here, and whose function has not resumed yet."""
        self._high_water = 0
        self._submissions = 0
        self._replays = 0
        self._closed: StoreError | None = None

    @property
    def metrics(self) -> BridgeMetrics:
        """What it has done so far."""
        return BridgeMetrics(len(self._pending), self._high_water, self._submissions, self._replays)

    def expect(self, execution_id: str, submit: Callable[[], None]) -> PendingExecution:
        """Wait for an execution's outcome; its durable function is about to be started.

        Args:
            execution_id: of an execution that is recorded, has no outcome, and is not `pending` here.
            submit: hands the execution to the session. Called at most once.

        Raises:
            StoreError: the bridge is closed.
        """
        if self._closed is not None:
            raise StoreError(*self._closed.args)
        pending = self._pending[execution_id] = PendingExecution(execution_id, submit)
        self._high_water = max(self._high_water, len(self._pending))
        return pending

    def find_pending(self, execution_id: str) -> PendingExecution | None:
        """Look up an execution that has no outcome yet."""
        return self._pending.get(execution_id)

    def forget(self, pending: PendingExecution) -> None:
        """Drop an execution that was not submitted, and has no waiter left."""
        if self._pending.get(pending.execution_id) is pending:
            del self._pending[pending.execution_id]

    async def submit(self, execution_id: str, promise_id: str) -> None:
        """Submit an execution under its promise; a durable function calls this each time it runs."""
        pending = self._pending.get(execution_id)
        if pending is not None:
            self._submit_pending(pending, promise_id)
            return
        self._replays += 1
        if execution_id in self._settled_ids:
            self._settled_ids.discard(execution_id)
        elif self._closed is None:
            await self._settle_orphan(execution_id, promise_id)

    def submit_again(self, execution_id: str, promise_id: str) -> None:
        """Submit an execution whose function waits for its promise already, and so does not call `submit`."""
        pending = self._pending.get(execution_id)
        if pending is not None:
            self._submit_pending(pending, promise_id)

    def _submit_pending(self, pending: PendingExecution, promise_id: str) -> None:
        if pending.submit(promise_id):
            self._submissions += 1
            if pending.done:
                # The session did not take it: the next `execute` of its id starts anew.
                self.forget(pending)
        else:
            self._replays += 1

    def settle(self, execution_id: str, outcome: bytes) -> None:
        """Set an execution's outcome, which is recorded by now and its promise resolved, for its waiters."""
        pending = self._pending.pop(execution_id, None)
        if pending is None:
            return
        if pending.promise_id is not None:
            self._settled_ids.add(execution_id)
        pending.resolve(outcome)

    def fail(self, execution_id: str, error: Exception) -> None:
        """Fail an execution's waiters: its outcome cannot be reached here; it stays recorded."""
        pending = self._pending.pop(execution_id, None)
        if pending is not None:
            pending.fail(error)

    def fail_all(self, reason: StoreError) -> None:
        """End all waiting, for a reason. The promises stay as they are, for the session's next owner."""
        pending = list(self._pending.values())
        self._pending.clear()
        for one in pending:
            # One object each: a traceback is added to whatever is raised.
            one.fail(type(reason)(*reason.args))

    def close(self, reason: StoreError) -> None:
        """End all waiting, and wait for nothing from now on."""
        if self._closed is None:
            self._closed = reason
            self.fail_all(reason)
