"""The record of a session in this process's memory: it outlives workers, not the process.

There is no promise behind it: after this process's end nothing could use one, and it would cost each
execution a millisecond.
"""

from collections.abc import Collection, Mapping

import msgspec

from pyrepl3_client._journal.assigned_names import assigned_names
from pyrepl3_client._journal.id_conflict import conflict
from pyrepl3_client._journal.protocol import CallRecord, Entry, History, SavedCheckpoint, Spec, Status
from pyrepl3_client.errors import StoreError


class _MemoryEntry(msgspec.Struct, gc=False):
    """An execution, its outcome where it can be asked for again, and its calls."""

    seq: int
    execution_id: str
    spec: Spec
    named: bool
    status: Status = "started"
    attempts: int = 0
    outcome: bytes | None = None
    succeeded: bool | None = None
    calls: dict[str, CallRecord] | None = None

    @property
    def entry(self) -> Entry:
        return Entry(self.seq, self.execution_id, self.spec, self.status, self.attempts)


class MemoryJournal:
    """Implements `Record`; executions begin and end in it without awaiting.

    Executions whose ids were made up are forgotten when a checkpoint covers them, unless a name that it
    could not save may come from them; named ones are kept with their outcomes.
    """

    def __init__(self, *, keep_all: bool = False, keep_none: bool = False) -> None:
        """Hold nothing.

        `keep_all` keeps every execution, for sessions that run them all again; `keep_none` forgets those
        whose ids were made up when they end, for sessions that never run one again.
        """
        self._keep_all = keep_all
        self._keep_none = keep_none
        self._kept: dict[str, _MemoryEntry] = {}
        """In order: what a recovery may have to run again."""
        self._covered: dict[str, _MemoryEntry] = {}
        """Named executions that a checkpoint has covered: only their outcomes matter."""
        self._last_seq = 0
        self._checkpoints: dict[str, SavedCheckpoint] = {}
        self._blobs: dict[str, bytes] = {}

    # --- executions ----------------------------------------------------------------------------------

    def begin(self, execution_id: str, spec: Spec, *, named: bool) -> int:
        """Record an execution that is new; return its number."""
        seq = self._last_seq = self._last_seq + 1
        self._kept[execution_id] = _MemoryEntry(seq, execution_id, spec, named)
        return seq

    def find(self, execution_id: str, code: str) -> bytes | None:
        """Look up an execution by its id; return its outcome, if it is there and has one.

        Raises:
            ExecutionIdConflict: the id stands for other code.
        """
        kept = self._kept.get(execution_id) or self._covered.get(execution_id)
        if kept is None:
            return None
        if kept.spec.code != code:
            raise conflict(execution_id, kept.spec.code, code)
        return kept.outcome

    def outcome(self, execution_id: str) -> bytes | None:
        """Return the outcome of an execution that can be asked for again, if it has one."""
        kept = self._kept.get(execution_id) or self._covered.get(execution_id)
        return None if kept is None else kept.outcome

    def end(
        self,
        execution_id: str,
        outcome: bytes | None,
        *,
        rejected: bool,
        succeeded: bool | None = None,
    ) -> None:
        """Record how an execution went, and its outcome, which is needed of a named one only."""
        kept = self._kept.get(execution_id)
        if kept is None or kept.status != "started":
            return
        if kept.named:
            kept.outcome = outcome
        elif self._keep_none or (rejected and not self._keep_all):
            del self._kept[execution_id]
            return
        kept.succeeded = succeeded
        kept.status = "rejected" if rejected else "finished"

    def discard(self, execution_id: str) -> None:
        """Forget an execution that could not be sent."""
        self._kept.pop(execution_id, None)

    async def succeeded(self, execution_id: str) -> bool | None:
        """Return whether an execution ended without an error."""
        return self._require(execution_id).succeeded

    async def add_death(self, execution_id: str) -> int:
        """Count a death."""
        kept = self._require(execution_id)
        kept.attempts += 1
        return kept.attempts

    async def load(self) -> History:
        """Return the newest checkpoint and what came after it."""
        newest = None
        for checkpoint in self._checkpoints.values():
            if newest is None or checkpoint.after_seq >= newest.after_seq:
                newest = checkpoint
        after = 0 if newest is None else newest.after_seq
        entries = (k.entry for k in self._kept.values() if k.seq > after or k.status == "started")
        return History(newest, tuple(entries))

    async def entries(self, up_to_seq: int) -> list[Entry]:
        """Return the executions up to a number that are still known."""
        return [kept.entry for kept in self._kept.values() if kept.seq <= up_to_seq]

    # --- calls ---------------------------------------------------------------------------------------

    async def calls(self, execution_id: str) -> dict[str, CallRecord]:
        """Return an execution's calls."""
        return dict(self._require(execution_id).calls or {})

    async def begin_call(self, execution_id: str, call: CallRecord) -> CallRecord | None:
        """Record a call before it is made; not one of an execution that is never run again."""
        kept = self._kept.get(execution_id)
        if kept is None:
            return None
        if call.call_id in (kept.calls or {}):
            return self._call(execution_id, call.call_id)
        if kept.calls is None:
            kept.calls = {}
        kept.calls[call.call_id] = call
        return None

    async def retry_call(self, execution_id: str, call_id: str) -> int:
        """Count another attempt at a call."""
        attempt = self._call(execution_id, call_id).attempt + 1
        self._replace_call(execution_id, call_id, attempt=attempt)
        return attempt

    async def finish_call(self, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record a call's outcome; not for an execution that is never run again."""
        if execution_id in self._kept and self._call(execution_id, call_id).outcome is None:
            self._replace_call(execution_id, call_id, outcome=outcome)

    def _call(self, execution_id: str, call_id: str) -> CallRecord:
        call = (self._require(execution_id).calls or {}).get(call_id)
        if call is None:
            raise StoreError(f"call {call_id!r} was never recorded")
        return call

    def _replace_call(self, execution_id: str, call_id: str, **changes: object) -> None:
        calls = self._require(execution_id).calls
        if calls is not None:
            calls[call_id] = msgspec.structs.replace(calls[call_id], **changes)

    def _require(self, execution_id: str) -> _MemoryEntry:
        kept = self._kept.get(execution_id)
        if kept is None:
            raise StoreError(f"there is no execution {execution_id!r} in this session's record")
        return kept

    # --- checkpoints ---------------------------------------------------------------------------------

    async def save(self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes]) -> None:
        """Keep a checkpoint and its blobs; forget what cannot be needed any more."""
        self._blobs.update(blobs)
        missing = [digest for digest in checkpoint.digests if digest not in self._blobs]
        if missing:
            raise StoreError(f"checkpoint {checkpoint.checkpoint_id!r} names {len(missing)} missing blobs")
        self._checkpoints.pop(checkpoint.checkpoint_id, None)
        self._checkpoints[checkpoint.checkpoint_id] = checkpoint
        named = {digest for kept in self._checkpoints.values() for digest in kept.digests}
        for digest in [digest for digest in self._blobs if digest not in named]:
            del self._blobs[digest]
        self._drop_covered(checkpoint)

    def _drop_covered(self, checkpoint: SavedCheckpoint) -> None:
        if self._keep_all:
            return
        lost = {unsaved.name for unsaved in checkpoint.unsaved}
        covered: list[_MemoryEntry] = []
        for kept in reversed(self._kept.values()):
            if kept.seq > checkpoint.after_seq or kept.status == "started":
                continue
            # Of the cells that made a lost name, a recovery runs the newest again (see `Replay`).
            made = lost & assigned_names(kept.spec.code) if lost and kept.status == "finished" else None
            if made:
                lost -= made
            else:
                covered.append(kept)
        for kept in covered:
            del self._kept[kept.execution_id]
            if kept.named:
                kept.calls = None
                self._covered[kept.execution_id] = kept

    async def checkpoint(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""
        return self._checkpoints.get(checkpoint_id)

    async def checkpoint_ids(self) -> list[str]:
        """Return the names of all checkpoints."""
        return [c.checkpoint_id for c in sorted(self._checkpoints.values(), key=lambda c: c.after_seq)]

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Return blobs."""
        try:
            return {digest: self._blobs[digest] for digest in digests}
        except KeyError as error:
            raise StoreError(f"there is no blob {error.args[0]!r} in this session's record") from None
