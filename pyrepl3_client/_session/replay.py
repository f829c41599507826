"""Brings a namespace back in a new worker: from a checkpoint, and by running cells again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from pyrepl3_client._execution.handlers import NO_HANDLERS
from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord, watch_execution
from pyrepl3_client._journal.assigned_names import assigned_names
from pyrepl3_client._journal.protocol import RESET, Entry, Record, SavedCheckpoint
from pyrepl3_client._log import fields, write
from pyrepl3_client._session.checkpoints import SILENCE_SECONDS, CheckpointScheduler
from pyrepl3_client._session.recovery_progress import ProgressTeller
from pyrepl3_client._session.recovery_report import RecoveryPolicy, Skipped
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.log import RECOVERY_LOGGER, WARNING
from pyrepl3_client._text import truncated
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client.errors import ProtocolError
from pyrepl3_schemas.messages import Restored, Unsaved

NOT_WHOLE: Final = "(not restored whole)"
"""The name of the last checkpoint of which something did not come back that was in it."""
_RESTORE: Final = "(restore)"
"""What stands for the checkpoint among what was left out."""
SLOW_SECONDS: Final = 10.0
"""Seconds after which the log says what a recovery is waiting for."""


class Replay:
    """One recovery. When a worker dies under it, it is run anew in the next one, and learns from that."""

    def __init__(
        self,
        queue: ExecutionQueue,
        record: Record,
        checkpoints: CheckpointScheduler,
        policy: RecoveryPolicy,
        max_attempts: int,
        diverged: dict[str, str],
        clear_directory: Callable[[], Awaitable[None]],
        teller: ProgressTeller,
        telemetry: Telemetry,
    ) -> None:
        """Prepare.

        Args:
            queue: sends the cells that run again.
            record: what is on record.
            checkpoints: restores a checkpoint.
            policy: what is run again.
            max_attempts: how many workers one cell may cost.
            diverged: filled, while cells run again, with those that asked for something else.
            clear_directory: empties the session's own directory, where no checkpoint says what was in it.
            teller: tells what this is at.
            telemetry: has executions that run again watched.
        """
        self._clear_directory = clear_directory
        self._queue = queue
        self._record = record
        self._checkpoints = checkpoints
        self._policy = policy
        self._max_attempts = max_attempts
        self._diverged = diverged
        self._deaths: Counter[str] = Counter()
        self._crashed: set[str] = set()
        """Executions that have ended a worker by their own doing."""
        self._running_id = ""
        self._teller = teller
        self._telemetry = telemetry
        self._to_run = 0
        """Executions that are to be run again, as far as known."""
        self._unrestorable = ""
        """Why the newest checkpoint cannot be brought back."""
        self._reset()

    def _reset(self) -> None:
        self.restored_from: str | None = None
        self.replayed: list[str] = []
        self.lost: dict[str, Unsaved] = {}
        self.outdated: dict[str, Unsaved] = {}
        self.remade: dict[str, str] = {}
        self._skips: dict[str, Skipped] = {}

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out."""
        return tuple(self._skips.values())

    def _skip(self, entry: Entry, reason: str) -> None:
        names = tuple(sorted(assigned_names(entry.spec.code)))
        self._skips[entry.execution_id] = Skipped(entry.execution_id, reason, names)

    def count_failure(self, *, own_doing: bool) -> None:
        """The worker died under us, by the code's own doing or not: count it against what it was at."""
        self._deaths[self._running_id] += 1
        if own_doing and self._running_id:
            self._crashed.add(self._running_id)  # it would do so again
        if self._running_id == "" and self._deaths[""] >= self._max_attempts:
            self._unrestorable = "restoring it ended its worker each time"

    async def run(self, worker: WorkerHandle) -> None:
        """Bring the namespace back in a worker that is ready and empty.

        Raises:
            WorkerDied: the worker died under it.
            WorkerUnresponsive: it is stuck.
            ProtocolError: it cannot bring the checkpoint back.
            StoreError: the record cannot be read.
        """
        self._reset()
        self._running_id = ""
        checkpoint, entries = await self._plan()
        if checkpoint is not None and checkpoint.manifest:
            await self._restore(worker, checkpoint)
        else:
            await self._clear_directory()
        self._to_run = len(self.replayed) + len(entries)
        for entry in entries:
            await self._run_again(worker, entry)
        self._running_id = ""
        # What was sent to the last worker and has not ended is not in this namespace.
        start = 0 if checkpoint is None else checkpoint.after_seq
        self._queue.last_number = max([start, *(entry.seq for entry in entries)])

    async def _plan(self) -> tuple[SavedCheckpoint | None, list[Entry]]:
        """Return what to restore, and which executions to run again after that."""
        if self._policy == "replay":
            checkpoint = await self._record.checkpoint(RESET)
            start = 0 if checkpoint is None else checkpoint.after_seq
            known = [e for e in await self._record.entries(2**62) if e.seq > start]
        else:
            history = await self._record.load()
            checkpoint = history.checkpoint
            start = 0 if checkpoint is None else checkpoint.after_seq
            known = [e for e in history.entries if e.seq > start]
            if checkpoint is not None and self._unrestorable:
                return await self._plan_without(checkpoint, known)
        await self._report_stopped(known)
        ended = [entry for entry in known if self._has_ended(entry)]
        if self._policy == "checkpoint":
            for entry in ended:
                self._skip(entry, "it ended after the checkpoint, and finished cells are not run again")
            ended = []
        return checkpoint, ended

    async def _plan_without(
        self, checkpoint: SavedCheckpoint, later: list[Entry]
    ) -> tuple[SavedCheckpoint, list[Entry]]:
        """Do without a checkpoint that cannot be brought back: run again all that is on record.

        In its place comes an empty one, so that what is saved next is newer.
        """
        name = checkpoint.checkpoint_id
        first = await self._last_seq_before_restart()
        again = [entry for entry in await self._record.entries(2**62) if entry.seq > first]
        if self._policy == "checkpoint":
            again = []
        reason = f"checkpoint {name!r} cannot be restored: {self._unrestorable}"
        if again:
            reason += "; the cells that are on record are run again instead"
        self._skips[_RESTORE] = Skipped(_RESTORE, reason)
        if not again and name != RESET:
            # The next one takes its place; a Python that can read it finds it under another name.
            await self._record.save(
                msgspec.structs.replace(checkpoint, checkpoint_id=f"(unread, {name} {checkpoint.after_seq})"),
                {},
            )
        await self._report_stopped(again or later)
        empty = SavedCheckpoint(name, checkpoint.after_seq, b"", ())
        return empty, [entry for entry in again if self._has_ended(entry)]

    async def _last_seq_before_restart(self) -> int:
        """Return the number of the last execution before a restart: up to it none counts; 0 without one."""
        reset = await self._record.checkpoint(RESET)
        return 0 if reset is None or reset.manifest else reset.after_seq

    async def _report_stopped(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.status != "rejected":
                continue
            if await self._record.succeeded(entry.execution_id) is not None:
                self._skip(
                    entry,
                    "it was stopped, or took longer than it had; what it had done by then is not made again",
                )

    def _has_ended(self, entry: Entry) -> bool:
        if entry.status == "started":
            return self._queue.ending.get(entry.execution_id) is False
        return entry.status == "finished"

    async def _restore(self, worker: WorkerHandle, checkpoint: SavedCheckpoint) -> None:
        try:
            restored = await self._restore_once(worker, checkpoint, [])
        except ProtocolError as error:
            if not worker.connection.exited.done():
                # Its worker has said so, and so would the next one.
                self._unrestorable = str(error)
            raise
        self.restored_from = checkpoint.checkpoint_id
        self.lost = {unsaved.name: unsaved for unsaved in restored.unsaved if unsaved.as_of is None}
        self.outdated = {unsaved.name: unsaved for unsaved in restored.unsaved if unsaved.as_of is not None}
        known = {unsaved.name for unsaved in checkpoint.unsaved}
        if self.lost and self._policy == "auto":
            await self._remake_names(worker, checkpoint)
        if checkpoint.checkpoint_id != RESET and self.lost.keys() - known:
            # What is saved next lacks these names: it takes this one's place, but not its contents.
            kept = msgspec.structs.replace(checkpoint, checkpoint_id=NOT_WHOLE)
            await self._record.save(kept, {})

    async def _restore_once(
        self, worker: WorkerHandle, checkpoint: SavedCheckpoint, keep: list[str]
    ) -> Restored:
        self._teller.at("restoring")
        return await self._checkpoints.restore(
            worker, checkpoint, keep=keep, silence=SILENCE_SECONDS, on_progress=self._teller.worker_is_at
        )

    async def _remake_names(self, worker: WorkerHandle, checkpoint: SavedCheckpoint) -> None:
        """Run again the cells that made what the checkpoint could not hold.

        They see the namespace as it was saved, and afterwards it is restored once more, so that only those
        names come from them.
        """
        # What is lost of `Out` alone, under a number, no cell has bound.
        wanted = {name for name in self.lost if name.isidentifier()}
        makers: list[Entry] = []
        first = await self._last_seq_before_restart()
        for entry in reversed(await self._record.entries(checkpoint.after_seq)):
            if not wanted or entry.seq <= first:
                break
            made = wanted & assigned_names(entry.spec.code) if entry.status == "finished" else set[str]()
            if made:
                makers.append(entry)
                wanted -= made
                self.remade.update(dict.fromkeys(made, entry.execution_id))
        if not makers:
            return
        self._to_run = len(makers)
        for entry in reversed(makers):
            await self._run_again(worker, entry)
        self._running_id = ""
        there = await worker.names()
        # What needs another name that was made again has a value in the checkpoint, and can have it now.
        keep = [
            name
            for name, unsaved in self.lost.items()
            if name in there and not unsaved.reason.startswith("it needs ")
        ]
        await self._restore_once(worker, checkpoint, keep)
        there = await worker.names()
        self.lost = {name: unsaved for name, unsaved in self.lost.items() if name not in there}
        self.remade = {name: maker for name, maker in self.remade.items() if name in keep and name in there}

    async def _run_again(self, worker: WorkerHandle, entry: Entry) -> None:
        """Run an execution again, silently; its calls and prompts are answered from the record."""
        execution_id = entry.execution_id
        deaths = self._deaths[execution_id]
        if execution_id in self._crashed or deaths >= self._max_attempts:
            often = "" if deaths == 1 else f" {deaths} times"
            self._skip(entry, f"it ended its worker{often} when run again")
            return
        self._running_id = execution_id
        self._teller.at("running again", execution_id, len(self.replayed), self._to_run)
        self._queue.call_log.expect(execution_id, await self._record.calls(execution_id), closed=True)
        execution = ExecutionRecord(
            self._queue, execution_id, entry.spec, entry.spec.timeout, NO_HANDLERS,
            check=False, keep=False, is_replay=True,
        )  # fmt: skip
        if worker.connection.exited.done():
            raise worker.died_error()  # while the record was read, when nothing of it could be abandoned
        watch_execution(self._telemetry, execution)
        self._queue.send(execution)
        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._warn_slow, execution_id)
        try:
            result = await execution.result()
        finally:
            slow.cancel()
        if result.error is not None and result.error.kind == "died":
            raise worker.died_error()  # unchecked, its worker's death is a result
        self.replayed.append(execution_id)
        if execution_id in self._diverged:
            self._skip(entry, self._diverged.pop(execution_id))
        elif result.error is not None and result.error.kind in ("cancelled", "timeout"):
            self._skip(entry, f"it did not end by itself when run again: {result.error.message}")
        elif result.error is not None and await self._record.succeeded(execution_id):
            failure = truncated(f"{result.error.type}: {result.error.message}")
            self._skip(entry, f"it failed when run again: {failure}")

    def _warn_slow(self, execution_id: str) -> None:
        write(
            RECOVERY_LOGGER,
            WARNING,
            "a session that comes back has been running %r again for %g s; session.cancel() leaves it out, "
            "and so does opening it with recovery='checkpoint'",
            execution_id,
            SLOW_SECONDS,
            extra=fields(self._telemetry.session_id, execution_id, self._telemetry.worker),
        )
