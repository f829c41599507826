"""Checkpoints: saving and restoring one, and when to save one automatically.

A worker answers nothing else while it creates a checkpoint. So an automatic one is requested when a cell
has ended and the session has been idle for a moment (longer where the last one took long); without such
moments, when there are many cells, or much work, that a recovery would have to run again.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import anyio

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._journal.protocol import RESET, Record, SavedCheckpoint
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.events import CheckpointEvent, EventState
from pyrepl3_client._text import printable
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client.errors import (
    CheckpointTooLarge,
    ProtocolError,
    PyRepl3Error,
    SessionClosed,
    WorkerDied,
    WorkerUnresponsive,
)
from pyrepl3_schemas.messages import Checkpoint, Checkpointed, Progress, Restore, Restored, Unsaved

AUTOMATIC: Final = "(automatic)"

_IDLE_SECONDS: Final = 0.02
"""Seconds without work after which an automatic checkpoint is unlikely to make a cell wait."""
_MAX_CELLS: Final = 1000
"""Cells since the last checkpoint at which one is due, idle or not."""
_WORK_PER_SAVE: Final = 20.0
"""A checkpoint is due, idle or not, when the cells since the last one have run this many times as long."""
_MIN_WORK_SECONDS: Final = 1.0
"""Seconds of work that are not worth a checkpoint while the session is busy."""
_CODE_SECONDS: Final = 5.0
"""How long the objects' own code may take in an automatic checkpoint."""
SILENCE_SECONDS: Final = 60.0
"""How long such a checkpoint, or a recovery's restore, may be silent until the worker is taken to be stuck.

It tells once a second what it is at, unless a call in C holds Python's lock."""
_LAST_SILENCE_SECONDS: Final = 5.0
"""The same for the checkpoint of a session that is being closed: the caller of `close` waits for that."""
_ANSWER_SECONDS: Final = 5.0
"""Of a checkpoint's time limit, what is left for its answer to come; a fifth of short limits."""
_FILE_LOST: Final = (
    "session.files changed it after the last checkpoint, and its worker died; it is as it was then, or as "
    "the cells that ran again have made it"
)
_MAX_URGENT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a file that are saved in some hundredths of a second."""
_FRAME_MARGIN: Final = 1024
_BLOB_MARGIN: Final = 16


class CheckpointScheduler:
    """Saves and restores the checkpoints of one session, and schedules the automatic ones."""

    def __init__(
        self,
        task_owner: TaskOwner,
        record: Record,
        queue: ExecutionQueue,
        worker: Callable[[], WorkerHandle | None],
        *,
        on_trouble: Callable[[str], None],
        telemetry: Telemetry,
        automatic: bool,
        eager: bool,
        max_bytes: int,
        unusable_error: Callable[[], Exception],
    ) -> None:
        """Record in `record`.

        Args:
            task_owner: owns the task that saves.
            record: where checkpoints go.
            queue: the session's executions.
            worker: returns the worker that takes executions now, if there is one.
            on_trouble: called with a text when an automatic checkpoint has cost its worker.
            telemetry: checkpoints and their failures are announced to it.
            automatic: save automatic checkpoints.
            eager: save one after every cell, without waiting for an idle moment.
            max_bytes: most bytes that one may bring.
            unusable_error: says why there is no worker that takes executions now.
        """
        self._unusable_error = unusable_error
        self._max_bytes = max_bytes
        self._task_owner = task_owner
        self._record = record
        self._queue = queue
        self._worker = worker
        self._on_trouble = on_trouble
        self._telemetry = telemetry
        self._automatic = automatic
        self._eager = eager
        self._known_digests: tuple[str, ...] = ()
        self._lock = asyncio.Lock()
        self._cells = 0
        self._work_seconds = 0.0
        self._files: dict[str, None] = {}
        """Files of the session's own directory that its program has changed since the last checkpoint."""
        self._last_save_seconds = 0.0
        self._new_bytes = 0
        """Of the last checkpoint."""
        self._most_work_seconds = _MIN_WORK_SECONDS
        """Seconds of work after which a checkpoint is due, idle or not."""
        self._active_since_timer = False
        self._failures = 0
        """Automatic checkpoints in a row that have ended their worker or were too large."""
        self._misbehaved_worker: WorkerHandle | None = None
        """The worker that was ended for a checkpoint that broke the protocol."""
        self._cells_to_skip = 0
        """Cells that have to end before the next one is tried."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def has_unsaved_work(self) -> bool:
        """Whether automatic checkpoints are on, and anything has run since the last one on record."""
        return self._automatic and (self._cells > 0 or self._lock.locked())

    def execution_ended(self, duration: float, *, urgent: bool) -> None:
        """Take note of a cell that has ended after `duration` seconds; `urgent` ones cannot be run again."""
        if not self._automatic:
            return
        self._cells += 1
        self._work_seconds += duration
        self._active_since_timer = True
        if self._cells_to_skip:
            self._cells_to_skip -= 1
        # Most cells end while the timer of an earlier one runs: there is nothing to schedule then.
        if (
            self._timer is None
            or urgent
            or self._eager
            or self._cells >= _MAX_CELLS
            or self._work_seconds > self._most_work_seconds
        ):
            self._schedule(urgent=urgent)

    def file_changed(self, path: str, size: int) -> None:
        """Take note of a file of the session's own directory that its program has changed.

        No cell does that again. But what runs next is not to wait until a large one (`size` bytes) is saved.
        """
        self._files[path] = None
        self.execution_ended(0.0, urgent=size <= _MAX_URGENT_BYTES)

    def take_lost_files(self) -> tuple[Unsaved, ...]:
        """Return what a recovery has not brought back of the files that the program had changed."""
        files, self._files = self._files, {}
        return tuple(Unsaved(f"file {path!r}", "file", _FILE_LOST) for path in files)

    def note_replay(self) -> None:
        """Take note of a namespace that was brought back by running cells again."""
        if self._automatic:
            self._cells += 1
            self._schedule(urgent=False)

    def _schedule(self, *, urgent: bool) -> None:
        if not self._may_start():
            return
        if urgent or self._eager or self._is_due():
            self._start_save()
        elif self._timer is None:
            self._timer = self._task_owner.loop.call_later(
                max(_IDLE_SECONDS, 2 * self._last_save_seconds), self._on_timer
            )

    def _may_start(self) -> bool:
        # One that is under way schedules again when it is done; while cells are skipped, their ends do.
        return self._task is None and not self._cells_to_skip

    def stop(self) -> None:
        """Save no more automatic checkpoints."""
        self._automatic = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()

    def _is_due(self) -> bool:
        return self._cells >= _MAX_CELLS or self._work_seconds > self._most_work_seconds

    def _on_timer(self) -> None:
        self._timer = None
        busy = self._queue.oldest is not None
        if not self._active_since_timer and not busy:
            if self._cells and self._may_start():
                self._start_save()
            return
        self._active_since_timer = False
        if not busy:
            # While a cell runs, no timer is needed: its end schedules again.
            self._timer = self._task_owner.loop.call_later(
                max(_IDLE_SECONDS, 2 * self._last_save_seconds), self._on_timer
            )

    def _start_save(self) -> None:
        if self._worker() is not None:
            task = self._task_owner.start(self._save_automatically(), "checkpoint")
            if not task.done():
                self._task = task

    async def _save_automatically(self) -> None:
        worker = self._worker()
        try:
            await self.save(AUTOMATIC, code_seconds=_CODE_SECONDS, silence=SILENCE_SECONDS)
        except WorkerDied as error:
            self.announce_failure(error)
            self._worker_lost(error)
            return
        except WorkerUnresponsive as error:
            self.announce_failure(error)
            if worker is not None:
                worker.connection.kill(f"its checkpoint did not end: {error}")
            self._worker_lost(error)
            return
        except SessionClosed:
            return
        except CheckpointTooLarge as error:
            self.announce_failure(error)
            self._postpone(f"no automatic checkpoint was taken ({error})")
            return
        except PyRepl3Error as error:
            # Nothing is lost: a recovery runs the cells again. The next cell leads to another try.
            self.announce_failure(error)
            if worker is not None and worker is self._misbehaved_worker:
                self._worker_lost(error)
            return
        finally:
            self._task = None
        self._failures = 0
        if self._automatic and self._cells:
            self._schedule(urgent=False)

    def _worker_lost(self, error: PyRepl3Error) -> None:
        self._postpone(f"an automatic checkpoint ended its worker ({error})")

    def _postpone(self, what: str) -> None:
        """Wait longer each time, or the next worker, filled again, would end the same way at once."""
        self._failures += 1
        self._cells_to_skip = 2**self._failures
        self._on_trouble(
            f"{what}; the next one is tried after {self._cells_to_skip} more cells, and until then a "
            "recovery runs again what came after the last one"
        )

    async def save_last(self) -> None:
        """Wait for a checkpoint that is under way, and save what has run since: the session ends.

        It is not given up because there is much to save, but when the worker tells nothing for long.

        Raises:
            PyRepl3Error: as `save`.
        """
        with anyio.move_on_after(SILENCE_SECONDS) as limit:
            async with self._lock:
                pass
        if limit.cancelled_caught:
            raise WorkerUnresponsive(f"a checkpoint was under way for over {SILENCE_SECONDS:g} s")
        if self._cells:
            await self.save(AUTOMATIC, silence=_LAST_SILENCE_SECONDS)

    # --- saving --------------------------------------------------------------------------------------

    async def save(
        self,
        checkpoint_id: str,
        timeout: float | None = None,
        code_seconds: float | None = None,
        silence: float | None = None,
    ) -> Checkpointed:
        """Have a checkpoint created and recorded; return the worker's last message about it.

        Args:
            checkpoint_id: its name.
            timeout: seconds for the whole. What is not saved a little before that is named as not saved.
            code_seconds: an object whose own code takes longer (the worker's choice by default) is not saved.
            silence: seconds for which the worker may tell nothing; None for no limit but `timeout`.

        Raises:
            WorkerDied, SessionClosed: there is no worker to take it, or it died.
            WorkerUnresponsive: it took longer than `timeout` seconds, for it or for a part of it, or told
                nothing for `silence` seconds.
            StoreError: it could not be recorded.
        """
        async with self._lock:
            worker = self._worker()
            if worker is None:
                raise self._unusable_error()
            seq = self._queue.last_number
            cells, work = self._cells, self._work_seconds
            files, self._files = self._files, {}
            self._cells, self._work_seconds = 0, 0.0
            started = self._task_owner.loop.time()
            try:
                saved = await self._request(worker, checkpoint_id, seq, timeout, code_seconds, silence)
            except BaseException as error:
                self._cells += cells
                self._work_seconds += work
                self._files = files | self._files
                if checkpoint_id != AUTOMATIC and isinstance(error, PyRepl3Error):
                    self.announce_failure(error, checkpoint_id)
                raise
            self._last_save_seconds = self._task_owner.loop.time() - started
            self._most_work_seconds = max(_MIN_WORK_SECONDS, _WORK_PER_SAVE * self._last_save_seconds)
            self._announce(
                checkpoint_id,
                seconds=self._last_save_seconds,
                size=self._new_bytes,
                unsaved=tuple(unsaved.name for unsaved in saved.unsaved),
            )
            return saved

    def announce_failure(self, error: Exception, checkpoint_id: str = AUTOMATIC) -> None:
        """Announce that a checkpoint could not be taken."""
        self._announce(checkpoint_id, "failed", message=str(error))

    def _announce(
        self,
        checkpoint_id: str,
        state: EventState = "done",
        *,
        seconds: float = 0.0,
        size: int = 0,
        unsaved: tuple[str, ...] = (),
        message: str = "",
    ) -> None:
        self._telemetry.announce(
            CheckpointEvent(
                **self._telemetry.whose,
                checkpoint_id=checkpoint_id,
                state=state,
                automatic=checkpoint_id == AUTOMATIC,
                seconds=seconds,
                size=size,
                unsaved=unsaved,
                message=printable(message),
            )
        )

    async def _request(
        self,
        worker: WorkerHandle,
        checkpoint_id: str,
        seq: int,
        timeout: float | None,
        code_seconds: float | None,
        silence: float | None,
    ) -> Checkpointed:
        parts = CheckpointAssembler(self._known_digests, self._max_bytes)
        while True:
            # One that is longer than a frame comes in parts; the last one has the data.
            known = [*self._known_digests, *parts.blobs]
            request = Checkpoint(
                checkpoint_id=checkpoint_id,
                known=known,
                timeout=code_seconds,
                total_timeout=None if timeout is None else timeout - min(_ANSWER_SECONDS, timeout / 5),
            )
            ask = worker.requests
            with self._queue.worker_occupied():
                if silence is None:
                    part = await ask.ask(request, Checkpointed, checkpoint_id, timeout, urgent=False)
                else:
                    part = await ask.ask_patiently(request, Checkpointed, checkpoint_id, silence)
            try:
                if parts.add(part):
                    break
            except ProtocolError as error:
                self._misbehaved_worker = worker
                worker.connection.kill(f"it broke the protocol: {error}", error)
                raise
        needs = tuple(part.needs)
        await self._record.save(
            SavedCheckpoint(checkpoint_id, seq, part.data, needs, tuple(part.unsaved)), parts.blobs
        )
        self._known_digests = needs
        self._new_bytes = len(part.data) + sum(map(len, parts.blobs.values()))
        return part

    # --- restoring -----------------------------------------------------------------------------------

    async def restore(
        self,
        worker: WorkerHandle,
        checkpoint: SavedCheckpoint,
        timeout: float | None = None,
        *,
        history: bool = True,
        keep: list[str] | None = None,
        silence: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Restored:
        """Bring a checkpoint back in a worker, in as many frames as it takes; with `In` and `Out` or without.

        Variables in `keep` are left as they are. `timeout` and `silence` are as for `save`; with `silence`,
        `on_progress` gets what the worker tells.

        Raises:
            WorkerDied, WorkerUnresponsive: as for `save`.
            ProtocolError: the worker cannot read it.
            StoreError: its blobs cannot be read.
        """
        blobs = await self._record.blobs(checkpoint.digests)
        limit = worker.connection.max_frame_bytes
        part: dict[str, bytes] = {}
        start = size = len(checkpoint.manifest) + len(checkpoint.checkpoint_id) * 4 + _FRAME_MARGIN
        if start > limit:
            raise ProtocolError(f"checkpoint {checkpoint.checkpoint_id!r} has too many names for one frame")
        name = checkpoint.checkpoint_id
        for digest, blob in blobs.items():
            if part and size + len(blob) > limit:
                await self._ask_to_restore(
                    worker, Restore(checkpoint_id=name, blobs=part), timeout, silence, on_progress
                )
                part, size = {}, start
            part[digest] = blob
            size += len(blob) + len(digest) + _BLOB_MARGIN
        last = Restore(
            checkpoint_id=name, data=checkpoint.manifest, blobs=part, history=history, keep=keep or []
        )
        restored = await self._ask_to_restore(worker, last, timeout, silence, on_progress)
        self._known_digests = checkpoint.digests
        return restored

    async def _ask_to_restore(
        self,
        worker: WorkerHandle,
        request: Restore,
        timeout: float | None,
        silence: float | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> Restored:
        name = request.checkpoint_id
        with self._queue.worker_occupied():
            if silence is None:
                return await worker.requests.ask(request, Restored, name, timeout, urgent=False)
            return await worker.requests.ask_patiently(request, Restored, name, silence, on_progress)

    async def restore_named(
        self, worker: WorkerHandle, checkpoint_id: str, timeout: float | None
    ) -> Restored:
        """Make the namespace what it was at a checkpoint of this session. See `Session.restore`."""
        checkpoint = await self._record.checkpoint(checkpoint_id)
        if checkpoint is None:
            known = ", ".join(repr(name) for name in await self._record.checkpoint_ids()) or "none"
            raise ValueError(f"there is no checkpoint {checkpoint_id!r} in this session; there are: {known}")
        restored = await self.restore(worker, checkpoint, timeout, history=False)
        # From here on this is what the session's history starts from.
        start = SavedCheckpoint(
            RESET, self._queue.last_number, checkpoint.manifest, checkpoint.digests, checkpoint.unsaved
        )
        await self._record.save(start, {})
        # That has the history of then; the next one, of now.
        self.execution_ended(0.0, urgent=True)
        return restored

    def reset(self) -> None:
        """Count from zero: the session has a new worker with an empty namespace."""
        self._cells = 0
        self._work_seconds = 0.0
        self._files.clear()


class CheckpointAssembler:
    """Collects the contents of one checkpoint.

    Whether they are what their digests say is the store's to check, where it keeps them for others, and a
    worker's when it restores them: a session's memory gives them to the session's own workers alone.
    """

    def __init__(self, known: Iterable[str], max_bytes: int) -> None:
        """Hold nothing; the client has the contents of the `known` digests, and takes `max_bytes` more."""
        self.blobs: dict[str, bytes] = {}
        self._known_digests = frozenset(known)
        self._max_bytes = max_bytes
        self._bytes = 0

    def add(self, part: Checkpointed) -> bool:
        """Add a part; return whether it was the last.

        Raises:
            ProtocolError: it brings nothing, or what was not asked for; or the last one needs what never
                came.
            CheckpointTooLarge: together the parts have more bytes than are allowed.
        """
        for digest, blob in part.blobs.items():
            if digest in self._known_digests or digest in self.blobs:
                raise ProtocolError("a part of its checkpoint brings contents that we have already")
            self._bytes += len(blob) + len(digest)
        if self._bytes > self._max_bytes:
            raise CheckpointTooLarge(
                f"the checkpoint takes more than {self._max_bytes:,} bytes (max_checkpoint_bytes): raise "
                "that in the WorkerConfig, or keep less in the namespace"
            )
        self.blobs.update(part.blobs)
        if not part.data:
            if not part.blobs:
                raise ProtocolError("a part of its checkpoint is empty and not the last")
            return False
        missing = sum(digest not in self._known_digests and digest not in self.blobs for digest in part.needs)
        if missing:
            raise ProtocolError(f"its checkpoint needs {missing:,} contents that it never sent")
        return True
