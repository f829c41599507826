"""The steps of a cancel, deadlines, and the outcomes of executions that were stopped.

Step 1 asks the worker once, step 2 asks again (it raises at every line then), step 3 kills the worker.
Asking again takes the next step at once; otherwise time does. An execution that is still queued is not
worth a worker's death: it is only given up on the client's side, and the steps go on when its turn comes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._execution.time_limit import TimeLimit
from pyrepl3_schemas.lifecycle import ExecutionState
from pyrepl3_schemas.messages import CancelReason, Error, Result

_FIRST_WAKE_AGAIN: Final = 0.02
"""Seconds after which the worker is woken again, for the first time; then after twice as long each time.

A signal that strikes just before a system call begins interrupts nothing, and Python's handler waits then."""


@dataclass(slots=True)
class _Entry:
    """An execution that has a deadline, or is being stopped."""

    execution: ExecutionRecord
    limit: TimeLimit | None
    """How long it may run."""
    behind: frozenset[object] = frozenset()
    """What the worker was to do before it, when it was sent; see `hold`."""
    reason: CancelReason = "timeout"
    step: int = 0
    timer: asyncio.TimerHandle | None = None
    wake_timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class CancelActions:
    """What the steps of a cancel call."""

    ask: Callable[[ExecutionRecord, CancelReason], None]
    """Send the cancel message and the wake-up signal."""
    wake: Callable[[], None]
    """Send the wake-up signal again."""
    give_up: Callable[[ExecutionRecord, CancelReason], None]
    """End a queued execution as cancelled, whatever the worker says later."""
    kill: Callable[[str], None]
    """Kill the worker, for a reason."""
    first: Callable[[], ExecutionRecord | None]
    """The execution that runs: the oldest that is not over."""
    is_paused: Callable[[str], bool]
    """Whether an execution waits for an answer that stops its clock."""
    cpu_seconds: Callable[[], float | None]
    """The CPU time that the worker's processes have used, if there is a worker."""


class CancellationLadder:
    """The executions of one session that have a timeout or are being cancelled."""

    def __init__(self, actions: CancelActions, cancel_grace: float, kill_grace: float) -> None:
        """Wait `cancel_grace` seconds between steps 1 and 2, `kill_grace` between 2 and 3."""
        self._loop = asyncio.get_running_loop()
        self._actions = actions
        self._cancel_grace = cancel_grace
        self._kill_grace = kill_grace
        self._entries: dict[str, _Entry] = {}
        self._holds: set[object] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is timed or being stopped; `advance` and `forget` need not be called then."""
        return not self._entries

    def reason(self, execution: ExecutionRecord) -> CancelReason | None:
        """Return why it was asked to stop, None when it was not."""
        entry = self._entries.get(execution.execution_id)
        return None if entry is None or entry.step == 0 else entry.reason

    def start_timeout(self, execution: ExecutionRecord, seconds: float) -> None:
        """Stop an execution when it has run for `seconds`; see `TimeLimit`."""
        limit = TimeLimit(seconds, self._loop.time, self._actions.cpu_seconds)
        self._entries[execution.execution_id] = _Entry(execution, limit, frozenset(self._holds))
        self.advance()

    def hold(self) -> object:
        """Take note that the worker has something else to do: what is sent from now on begins after it.

        Returns:
            What `release` takes when that is done.
        """
        held = object()
        self._holds.add(held)
        return held

    def release(self, held: object) -> None:
        """Take note that the worker has done it."""
        self._holds.discard(held)
        self.advance()

    def note_pause(self, execution_id: str) -> None:
        """Take note that an execution has begun or ceased to wait for an answer that stops its clock."""
        entry = self._entries.get(execution_id)
        if entry is None or entry.limit is None or entry.step > 0 or not entry.limit.began:
            return
        entry.limit.note(paused=self._actions.is_paused(execution_id))
        if entry.timer is not None:
            entry.timer.cancel()
        self._look_at_limit(entry, entry.limit)

    def cancel(self, execution: ExecutionRecord, reason: CancelReason) -> None:
        """Begin to stop an execution, or take the next step."""
        entry = self._entries.get(execution.execution_id)
        if entry is None:
            entry = self._entries[execution.execution_id] = _Entry(execution, None)
        if entry.step == 0:
            entry.reason = reason
        if entry.step < 2:
            self._next_step(entry)

    def advance(self) -> None:
        """Start the clock of the execution that runs, which may be another one now."""
        first = self._actions.first()
        entry = None if first is None else self._entries.get(first.execution_id)
        if entry is None or entry.timer is not None:
            return
        if entry.step > 0:
            self._set_timer(entry)
        elif entry.limit is not None and not entry.behind & self._holds:
            entry.limit.begin(paused=self._actions.is_paused(entry.execution.execution_id))
            self._look_at_limit(entry, entry.limit)

    def _look_at_limit(self, entry: _Entry, limit: TimeLimit) -> None:
        remaining = limit.remaining()
        if remaining > 0:
            entry.timer = self._loop.call_later(remaining, self._look_at_limit, entry, limit)
        else:
            self._next_step(entry)

    def forget(self, execution: ExecutionRecord) -> None:
        """Forget an execution that is over."""
        entry = self._entries.pop(execution.execution_id, None)
        if entry is not None:
            _stop_timers(entry)

    def _next_step(self, entry: _Entry) -> None:
        _stop_timers(entry)
        runs = self._actions.first() is entry.execution
        if entry.step >= 1 and not runs:
            self._actions.give_up(entry.execution, entry.reason)
            return
        entry.step += 1
        if entry.step == 1 and not entry.execution.done:
            # One that is over for its caller (its record failed under it) still has to free the worker.
            entry.execution.move(ExecutionState.CANCELLING)
        if entry.step <= 2:
            self._set_timer(entry)
            self._actions.ask(entry.execution, entry.reason)
            if runs:
                self._wake_later(entry, _FIRST_WAKE_AGAIN)
        else:
            self._actions.kill(
                f"execution {entry.execution.execution_id!r} did not stop ({entry.reason}) "
                f"within {self._cancel_grace:g} + {self._kill_grace:g} seconds"
            )

    def _wake_later(self, entry: _Entry, delay: float) -> None:
        def wake() -> None:
            self._actions.wake()
            self._wake_later(entry, 2 * delay)

        entry.wake_timer = self._loop.call_later(delay, wake)

    def _set_timer(self, entry: _Entry) -> None:
        grace = self._cancel_grace if entry.step == 1 else self._kill_grace
        entry.timer = self._loop.call_later(grace, self._next_step, entry)


def _stop_timers(entry: _Entry) -> None:
    for timer in (entry.timer, entry.wake_timer):
        if timer is not None:
            timer.cancel()
    entry.timer = entry.wake_timer = None


def must_not_rerun(message: Result | Error) -> bool:
    """Return whether an execution is not to be run again for its effect.

    It was stopped, and how far it came is not known.
    """
    return not isinstance(message, Result) and message.kind in ("cancelled", "timeout")


def cancelled_error(execution_id: str, reason: CancelReason, what: str) -> Error:
    """Return the outcome of an execution that was stopped without a message from its worker."""
    text = f"execution {execution_id!r} {what}"
    return Error(
        kind="timeout" if reason == "timeout" else "cancelled",
        exception="CancellationError",
        message=text,
        traceback=f"CancellationError: {text}",
        execution_id=execution_id,
    )


def stopped_behind(execution: ExecutionRecord, failed: ExecutionRecord, how: str) -> Error:
    """Return the outcome of an execution that is not run, since another one has failed."""
    return cancelled_error(
        execution.execution_id,
        "cancelled",
        f"was not run: {failed.execution_id!r}, which it was queued behind with "
        f'on_error="stop_queue", has failed ({how})',
    )


def cancelled_before_start(execution: ExecutionRecord, reason: CancelReason) -> Error:
    """Return the outcome of an execution that was cancelled before it began."""
    again = "" if execution.attempts == 1 else " again: its worker had died"
    return cancelled_error(execution.execution_id, reason, f"was cancelled before it began{again}")
