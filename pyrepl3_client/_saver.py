"""Checkpoints: taken by the worker, kept by the record, and when to take one without being asked.

A worker answers nothing else while it takes a checkpoint. So an automatic one is asked for when a cell
has ended and the session has been idle for a moment (longer where the last one took long); without such
moments, when there are many cells, or much work, that a recovery would have to run again.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from pyrepl3_client._incarnation import Incarnation
from pyrepl3_client._journal import Record, SavedCheckpoint
from pyrepl3_client._nursery import Nursery
from pyrepl3_client._parts import Parts
from pyrepl3_client.errors import ProtocolError, PyRepl3Error, SessionClosed, WorkerDied
from pyrepl3_schemas.messages import Checkpoint, Checkpointed, Restore, Restored

_logger: Final = logging.getLogger("pyrepl3_client")
AUTOMATIC: Final = "(automatic)"

_IDLE: Final = 0.02
"""Seconds without work after which a checkpoint disturbs nobody."""
_MANY: Final = 1000
"""Cells since the last checkpoint at which one is due, idle or not."""
_WORTH: Final = 20.0
"""A checkpoint is due, idle or not, when the cells since the last one have run this many times as long."""
_LEAST_WORK: Final = 1.0
"""Seconds of work that are not worth a checkpoint while the session is busy."""
_MARGIN: Final = 1024
_BLOB_MARGIN: Final = 16


class Saver:
    """Takes and restores the checkpoints of one session."""

    def __init__(
        self,
        nursery: Nursery,
        record: Record,
        worker: Callable[[], Incarnation | None],
        position: Callable[[], tuple[int, bool]],
        *,
        automatic: bool,
        eager: bool,
        max_bytes: int,
    ) -> None:
        """Record in `record`.

        Args:
            nursery: owns the task that saves.
            record: where checkpoints go.
            worker: gives the worker that takes executions now, if there is one.
            position: gives the number of the last execution that was sent, and whether one is under way.
            automatic: take checkpoints without being asked.
            eager: take one after every cell, without waiting for an idle moment.
            max_bytes: most bytes that one may bring.
        """
        self._max_bytes = max_bytes
        self._nursery = nursery
        self._record = record
        self._worker = worker
        self._position = position
        self._automatic = automatic
        self._eager = eager
        self._known: tuple[str, ...] = ()
        self._lock = asyncio.Lock()
        self._cells = 0
        self._work = 0.0
        self._cost = 0.0
        self._stirred = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def dirty(self) -> bool:
        """Whether anything has run since the last checkpoint."""
        return self._cells > 0

    def ended(self, duration: float, *, urgent: bool) -> None:
        """Take note of a cell that has ended after `duration` seconds; `urgent` ones cannot be run again."""
        if not self._automatic:
            return
        self._cells += 1
        self._work += duration
        self._stirred = True
        self._plan(urgent=urgent)

    def _plan(self, *, urgent: bool) -> None:
        if self._task is not None:
            return  # it plans again when it is done
        if urgent or self._eager or self._is_due():
            self._begin()
        elif self._timer is None:
            self._timer = self._nursery.loop.call_later(max(_IDLE, 2 * self._cost), self._on_timer)

    def stop(self) -> None:
        """Take no more checkpoints unasked."""
        self._automatic = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()

    def _is_due(self) -> bool:
        return self._cells >= _MANY or self._work > max(_LEAST_WORK, _WORTH * self._cost)

    def _on_timer(self) -> None:
        self._timer = None
        _, busy = self._position()
        if not self._stirred and not busy:
            self._begin()
            return
        self._stirred = False
        if not busy:
            # The end of what runs stirs again; without it nobody would.
            self._timer = self._nursery.loop.call_later(max(_IDLE, 2 * self._cost), self._on_timer)

    def _begin(self) -> None:
        if self._worker() is not None:
            task = self._nursery.start(self._save_unasked(), "checkpoint")
            if not task.done():
                self._task = task

    async def _save_unasked(self) -> None:
        try:
            await self.save(AUTOMATIC)
        except (WorkerDied, SessionClosed):
            # Their ends are told elsewhere.
            return
        except PyRepl3Error as error:
            # Nothing is lost: a recovery runs the cells again. The next cell leads to another try.
            _logger.warning("an automatic checkpoint failed: %s", error)
            return
        finally:
            self._task = None
        if self._automatic and self._cells:
            self._plan(urgent=False)

    # --- saving --------------------------------------------------------------------------------------

    async def save(self, checkpoint_id: str, timeout: float | None = None) -> Checkpointed:
        """Have a checkpoint taken and recorded; give the worker's last word on it.

        Raises:
            WorkerDied, SessionClosed: there is no worker to take it, or it died.
            WorkerUnresponsive: it took longer than `timeout` seconds, for it or for a part of it.
            StoreError: it could not be recorded.
        """
        async with self._lock:
            worker = self._worker()
            if worker is None:
                raise WorkerDied("there is no worker that could take a checkpoint")
            seq, _ = self._position()
            cells, work = self._cells, self._work
            self._cells, self._work = 0, 0.0
            started = self._nursery.loop.time()
            try:
                saved = await self._take(worker, checkpoint_id, seq, timeout)
            except BaseException:
                self._cells += cells
                self._work += work
                raise
            self._cost = self._nursery.loop.time() - started
            return saved

    async def _take(
        self, worker: Incarnation, checkpoint_id: str, seq: int, timeout: float | None
    ) -> Checkpointed:
        parts = Parts(self._known, self._max_bytes)
        while True:
            # One that is longer than a frame comes in parts; the last one has the data.
            request = Checkpoint(checkpoint_id=checkpoint_id, known=[*self._known, *parts.blobs])
            part = await worker.requests.ask(request, Checkpointed, checkpoint_id, timeout, urgent=False)
            try:
                if parts.add(part):
                    break
            except ProtocolError as error:
                worker.connection.end(f"it broke the protocol: {error}", error)
                raise
        needs = tuple(part.needs)
        await self._record.save(
            SavedCheckpoint(checkpoint_id, seq, part.data, needs, tuple(part.unsaved)), parts.blobs
        )
        self._known = needs
        return part

    # --- restoring -----------------------------------------------------------------------------------

    async def restore(
        self, worker: Incarnation, checkpoint: SavedCheckpoint, timeout: float | None = None
    ) -> Restored:
        """Bring a checkpoint back in a worker, in as many frames as it takes.

        Raises:
            WorkerDied, WorkerUnresponsive: as for `save`.
            ProtocolError: the worker cannot read it.
            StoreError: its blobs cannot be read.
        """
        blobs = await self._record.blobs(checkpoint.digests)
        limit = worker.connection.max_frame_bytes
        part: dict[str, bytes] = {}
        start = size = len(checkpoint.manifest) + len(checkpoint.checkpoint_id) * 4 + _MARGIN
        if start > limit:
            raise ProtocolError(f"checkpoint {checkpoint.checkpoint_id!r} has too many names for one frame")
        name = checkpoint.checkpoint_id
        for digest, blob in blobs.items():
            if part and size + len(blob) > limit:
                await worker.requests.ask(
                    Restore(checkpoint_id=name, blobs=part), Restored, name, timeout, urgent=False
                )
                part, size = {}, start
            part[digest] = blob
            size += len(blob) + len(digest) + _BLOB_MARGIN
        last = Restore(checkpoint_id=name, data=checkpoint.manifest, blobs=part)
        restored = await worker.requests.ask(last, Restored, name, timeout, urgent=False)
        self._known = checkpoint.digests
        return restored

    def forget(self) -> None:
        """Another worker, another namespace: nothing is known there."""
        self._cells = 0
        self._work = 0.0
