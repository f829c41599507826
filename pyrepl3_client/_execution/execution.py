"""The handle of an execution, as users get it: iterate over its messages, await its result, cancel it."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Final, get_args

from pyrepl3_client._execution.event_log import Event, EventLog
from pyrepl3_client._execution.kept_output import checked_part
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client.config import checked_choice
from pyrepl3_client.results import ExecutionResult
from pyrepl3_schemas.lifecycle import ExecutionState
from pyrepl3_schemas.messages import CancelReason, StreamName

CANCEL_REASONS: Final = frozenset(get_args(CancelReason.__value__))


class Execution:
    """Code that has been submitted. Made by `Session.start`.

    Awaiting it is awaiting its `result()`. Iterating yields its messages in order, ending after its
    `Result` or `Error`; the iteration may begin late. While an iteration is open, code that writes faster
    than the iteration reads is made to wait.

    Two handles of the same execution are equal: `Session.start` returns one each time it is called.
    """

    __slots__ = ("_record",)

    def __init__(self, record: ExecutionRecord) -> None:
        """Stand for the execution that `record` describes."""
        self._record = record

    def __repr__(self) -> str:
        """Show id and state."""
        return f"<Execution {self.execution_id!r} {self.state.value}>"

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a handle of the same execution."""
        return self._record is other._record if isinstance(other, Execution) else NotImplemented

    def __hash__(self) -> int:
        """Return the same number for each handle of the same execution."""
        return hash(self._record)

    @property
    def execution_id(self) -> str:
        """Its id: the one it was started with, or one that was made up."""
        return self._record.execution_id

    @property
    def code(self) -> str:
        """The source that was submitted."""
        return self._record.code

    @property
    def state(self) -> ExecutionState:
        """Its state: queued, running, cancelling or finished."""
        return self._record.state

    @property
    def attempts(self) -> int:
        """How many workers have run it or begun to, the present one included."""
        return self._record.attempts

    def result(self) -> Coroutine[Any, Any, ExecutionResult]:
        """Wait for the outcome.

        Cancelling this wait leaves the execution alone.

        Returns:
            The outcome; each call returns the same.

        Raises:
            ExecutionFailed, ExecutionTimeout, ExecutionCancelled: the code failed, and the execution was
                started with `check=True`.
            WorkerDied: its worker ended before it did; with `check=False` that is an error of kind `died`.
            SessionClosed: its session was closed before it ended.
            Exception: what `on_output` or `on_display` raised for this execution, once it has ended.
        """
        # The record's coroutine as it is: one around it would be one more step for each wake-up.
        return self._record.result()

    def __await__(self) -> Generator[Any, None, ExecutionResult]:
        """Wait for the outcome, as `result` does."""
        return self._record.result().__await__()

    async def cancel(self, reason: CancelReason = "cancelled") -> None:
        """Stop the execution and wait until it is over: its worker is free then, or dead.

        Asking again before it is over goes a step further at once. Nothing happens when it is over.

        Args:
            reason: `cancelled` raises asyncio.CancelledError in the code, `interrupt` KeyboardInterrupt,
                `timeout` TimeoutError.

        Raises:
            ValueError: `reason` is none of these.
        """
        checked_choice("reason", reason, CANCEL_REASONS)
        await self._record.cancel(reason)

    async def output(self, start: int = 0, stop: int | None = None, stream: StreamName = "stdout") -> str:
        """Read a part of what the code has written to a stream, also what its result leaves out.

        The text is that of the whole stream, without the marker that stands in the result where output was
        cut; positions are as those of a slice. It may be asked for while the code runs, for what it has
        written by then, and after its end, by whatever that came, until the session is closed. Late
        output is not in it.

        Example:
            `await execution.output(-1000)` reads the last thousand characters.

        Args:
            start: the first character, from 0 on; below 0 it is counted from the end.
            stop: the first character that is not wanted; None reads to the end.
            stream: `stdout` or `stderr`.

        Returns:
            The characters from `start` to `stop`, fewer where the text ends before.

        Raises:
            OutputNotKept: something of that part is not kept: there was no room for it
                (`WorkerConfig.max_spill_bytes`). The text says which part is.
            SessionClosed: the session is closed, and its output was cut.
            StoreError: the record cannot be read.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        return await self._record.read_output(*checked_part(start, stop, stream))

    def __aiter__(self) -> "Events":
        """Iterate over the messages. Each message comes once, in one iteration.

        Returns:
            An asynchronous iterator. It raises WorkerDied or SessionClosed when the last message cannot come.
        """
        return Events(self._record, self._record.event_log())


class Events:
    """One iteration over an execution's messages. Made by `Execution.__aiter__`."""

    def __init__(self, record: ExecutionRecord, log: EventLog) -> None:
        """Begin: from now on the code waits while this iteration is slow."""
        self._record = record
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._open = True
        log.readers += 1

    def __aiter__(self) -> "Events":
        """Return the iterator itself."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next message.

        Returns:
            The message.

        Raises:
            StopAsyncIteration: the last message has been returned.
            WorkerDied, SessionClosed: no more messages will come, and the last has not.
        """
        while True:
            event = self._log.take()
            if event is not None:
                return event
            if self._record.settled:
                self._close()
                if self._record.failure is not None:
                    raise self._record.failure
                raise StopAsyncIteration
            await self._log.wait()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._log.readers -= 1
            if not self._log.readers:
                self._log.release()

    def __del__(self) -> None:
        """Let the code go on when an iteration was left in the middle: it must not wait for ever."""
        if self._open and not self._loop.is_closed():
            # The collector may run this in any thread.
            self._loop.call_soon_threadsafe(self._close)
