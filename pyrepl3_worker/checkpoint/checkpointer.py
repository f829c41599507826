"""Creates and restores checkpoints: name by name, incremental, and with a report of what is not saved.

What is sent again is decided by digest alone: whether a list has changed cannot be known without reading
it. Only constants (numbers, texts, tuples of them) and plain functions are not pickled again as long as
they are the same objects.

Measured on two shared cores, when nothing or little has changed since the last checkpoint: a 100 MB NumPy
array 65 ms (its hash; only changed parts are copied), 12,000 dicts (1 MB) 27 ms, 10,000 objects in a list
33 ms, under 10,000 names of their own 320 ms, 10,000 numbers 34 ms, 200 functions 1 ms. The first one takes
longer where constants are new (10,000 numbers: 190 ms) or arrays copied (130 ms). Restoring the array takes
130 ms, all the others less than 100 ms.
"""

import linecache
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.messages import Checkpointed, Restore, Restored, Unsaved
from pyrepl3_worker.checkpoint import manifest
from pyrepl3_worker.checkpoint.earlier import EarlierValues
from pyrepl3_worker.checkpoint.fingerprints import fingerprint
from pyrepl3_worker.checkpoint.grouping import Names
from pyrepl3_worker.checkpoint.history import CellHistory
from pyrepl3_worker.checkpoint.loadable import LoadCheck
from pyrepl3_worker.checkpoint.manifest import (
    CHUNK_BYTES,
    BlobCollector,
    Manifest,
    NameGroup,
    SavedHistory,
    SavedState,
    bound_names,
)
from pyrepl3_worker.checkpoint.position import Position
from pyrepl3_worker.checkpoint.process_state import ProcessState, describe_state
from pyrepl3_worker.checkpoint.restore import CheckpointReader
from pyrepl3_worker.checkpoint.save import CheckpointWriter, PickledGroup, SlowObject
from pyrepl3_worker.checkpoint.scope import call_directly
from pyrepl3_worker.checkpoint.time_budget import TimeBudget
from pyrepl3_worker.checkpoint.work_directory import WorkDirectory
from pyrepl3_worker.rendering.reprs import type_name

_ALWAYS_HIDDEN: Final = frozenset({"__warningregistry__"})
_WIRE_MARGIN: Final = 4096
"""Bytes of a frame that are reserved for everything but the blobs and the data."""
_DIGEST_BYTES: Final = 66
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Manifest).decode


class _SavedConstant(msgspec.Struct, frozen=True, eq=False):
    """A value that cannot have changed while its fingerprint is the same, and how it was saved."""

    value: object
    fingerprint: object
    group: NameGroup


class Checkpointer:
    """Takes and restores checkpoints of one namespace."""

    def __init__(
        self,
        namespace: dict[str, Any],
        hidden: frozenset[str],
        max_bytes: int | None = None,
        *,
        history: CellHistory | None = None,
        budget: TimeBudget | None = None,
        process_state: ProcessState | None = None,
        call_on_blocking_thread: Callable[..., Any] = call_directly,
        work_directory: WorkDirectory | None = None,
    ) -> None:
        """Save and restore `namespace`, except for the `hidden` names, which belong to the session itself.

        Args:
            namespace: the live dict, `__main__`'s.
            hidden: names that are neither saved nor restored.
            max_bytes: most bytes of one answer. A larger checkpoint comes in parts: after an answer
                without `data`, the client asks again. None puts everything into one answer.
            history: the history of cells, saved and restored with the namespace.
            budget: limits the time that objects' own code may take; None waits for it without limit.
            process_state: the state of the process, saved and restored with the namespace.
            call_on_blocking_thread: calls a function on the thread of cells that block.
            work_directory: the session's own directory, saved and restored with the namespace.
        """
        self._call_on_blocking_thread = call_on_blocking_thread
        self._work_directory = work_directory
        self._namespace = namespace
        self._hidden = hidden | _ALWAYS_HIDDEN
        self._max_bytes = max_bytes
        self._chunk = CHUNK_BYTES if max_bytes is None else min(CHUNK_BYTES, max_bytes // 2)
        self._history = history
        self._budget = TimeBudget() if budget is None else budget
        self._process_state = process_state
        self.position = Position()
        """What is being done."""
        self._slow_objects: dict[str, SlowObject] = {}
        self._last_groups: list[Names] = []
        """Groups of more than one name in the last checkpoint."""
        self._constants: dict[str, _SavedConstant] = {}
        self._earlier = EarlierValues()
        self._load_check = LoadCheck(self._budget, process_state)
        self._unsent_parts: dict[str, deque[Checkpointed]] = {}
        self._last_sent: frozenset[str] = frozenset()
        """Digests of the blobs in the part that was sent last."""
        self._received_blobs: dict[str, dict[str, bytes]] = {}
        self._restored_classes: dict[str, type] = {}
        """By name, the classes that the last restore made, or left as they were."""

    def create_checkpoint(
        self,
        checkpoint_id: str,
        known: Collection[str],
        timeout: float | None = None,
        total_timeout: float | None = None,
    ) -> Checkpointed:
        """Save the namespace, or return the next part of a checkpoint that is being sent.

        Args:
            checkpoint_id: the checkpoint's name. While parts of it are left, the next one is returned.
            known: digests of blobs that the client has, which are not sent. When those of the last part
                are missing, the checkpoint is created again from the beginning.
            timeout: seconds that objects' own code may take in all; None for ten. An object that takes
                more than half of what is left of them is stopped, and reported.
            total_timeout: seconds for everything, plain data too; None for as long as it takes.

        Returns:
            The checkpoint, or a part of it, with the names that could not be saved and why.
        """
        rest = self._unsent_parts.get(checkpoint_id)
        if rest and self._last_sent.issubset(known):
            return self._send_part(rest.popleft())
        started = time.perf_counter()
        history = self._history
        hidden, results = self._hidden, dict[str, object]()
        if history is not None:
            hidden, results = history.hidden_names(hidden), history.results()
        self._budget.start(timeout, total_timeout)
        writer = CheckpointWriter(
            self._namespace, hidden, results, self._budget, self._slow_objects, self.position
        )
        self.position.start(len(writer.values), saving=True)
        if self._process_state is not None:
            writer.context.live_objects = self._process_state.live_names()
            writer.context.in_context = self._process_state.in_context
        writer.context.call_on_blocking_thread = self._call_on_blocking_thread
        collector = BlobCollector(known, self._chunk)
        try:
            saved = self._write_manifest(writer, collector, hidden)
        finally:
            self._budget.stop()
            writer.close()
        answer = Checkpointed(
            checkpoint_id=checkpoint_id,
            data=_encode(saved),
            blobs=collector.blobs,
            unsaved=saved.unsaved,
            duration=time.perf_counter() - started,
            needs=manifest.blob_digests(saved),
        )
        first, *others = self._split_into_parts(answer)
        self._unsent_parts = {checkpoint_id: deque(others)}
        return self._send_part(first)

    def _send_part(self, part: Checkpointed) -> Checkpointed:
        self._last_sent = frozenset(part.blobs)
        return part

    def _write_manifest(
        self, writer: CheckpointWriter, collector: BlobCollector, hidden: frozenset[str]
    ) -> Manifest:
        saved_history: SavedHistory | None = None
        unchanged: dict[str, NameGroup] = {}
        for name, value in writer.values.items():
            constant = self._constants.get(name)
            if (
                constant is not None
                and constant.value is value
                and constant.fingerprint == fingerprint(value)
                and collector.has_all_of(constant.group.pickle)
            ):
                unchanged[name] = constant.group
        pickled = writer.pickle([name for name in writer.values if name not in unchanged], self._last_groups)
        self._last_groups = [group.names for group in pickled if len(group.names) > 1]
        pickled = self._load_check.drop_unloadable(writer, pickled, unchanged, hidden)
        groups = [*unchanged.values(), *(_store_group(group, writer, collector) for group in pickled)]
        outdated = self._earlier.keep(writer.overdue, writer.failed.keys(), writer.current_value, collector)
        writer.note_earlier(outdated)
        self._constants = {
            name: _SavedConstant(value, mark, group)
            for group in groups
            if len(group.names) == 1
            for name in group.names
            if (mark := fingerprint(value := writer.values[name])) is not None
        }
        groups += outdated
        self._earlier.remember(groups, writer.current_value, self._last_cell())
        position = {name: index for index, name in enumerate(writer.values)}

        def rank(group: NameGroup) -> tuple[bool, int]:
            # Objects may look for constants and functions while they are being restored.
            first = bound_names(group)[0]
            early = first in self._constants or writer.context.is_definition(writer.current_value(first))
            return not early, position.get(first, len(position))

        groups.sort(key=rank)
        if self._history is not None:
            saved_history = self._history.save(writer.results, writer.result_aliases(), collector)
        state: list[SavedState] = []
        state_failures: dict[str, str] = {}
        if self._process_state is not None:
            state = self._process_state.save(collector, writer.context, state_failures)
        files, unsaved_files = (
            (None, list[Unsaved]()) if self._work_directory is None else self._work_directory.save(collector)
        )
        filenames = sorted({filename for group in groups for filename in group.sources})
        return Manifest(
            version=manifest.VERSION,
            python=manifest.python_version(),
            groups=groups,
            modules=writer.modules,
            globals=writer.globals,
            sources={
                filename: collector.add("".join(lines).encode("utf-8", "surrogatepass"))
                for filename in filenames
                if (lines := linecache.getlines(filename))
            },
            unsaved=[*writer.unsaved(), *describe_state(state_failures), *unsaved_files],
            history=saved_history,
            state=state,
            files=files,
        )

    def _last_cell(self) -> int:
        return 0 if self._history is None else self._history.last_cell()

    def _split_into_parts(self, answer: Checkpointed) -> list[Checkpointed]:
        """Split an answer so that no part takes more than `max_bytes`."""
        most = self._max_bytes
        if most is None:
            return [answer]
        parts: list[Checkpointed] = []
        blobs: dict[str, bytes] = {}
        # Four bytes a character at most, and the lengths of the texts.
        said = sum(len(each.name) + len(each.type_name) + len(each.reason) + 9 for each in answer.unsaved)
        start = len(answer.data) + _WIRE_MARGIN + _DIGEST_BYTES * len(answer.needs) + 4 * said
        size = start = min(start, most)
        for digest, blob in answer.blobs.items():
            if blobs and size + len(blob) > most:
                parts.append(Checkpointed(checkpoint_id=answer.checkpoint_id, blobs=blobs))
                blobs, size = {}, start
            blobs[digest] = blob
            size += len(blob) + len(digest)
        return [*parts, msgspec.structs.replace(answer, blobs=blobs)]

    def restore(self, message: Restore) -> Restored:
        """Restore a checkpoint: the namespace is as it was, except for what is reported.

        Names that the checkpoint does not know are removed. Names that it could not save are left as they
        are, and so are those in the message's `keep`. The history (`In`, `Out`, the numbering) is restored
        if the message's `history` says so.

        Args:
            message: the checkpoint. One without `data` brings only blobs, for a checkpoint that takes
                several frames.

        Returns:
            The names that are restored, and those that are not, with the reasons.

        Raises:
            LocalProtocolError: the data is no checkpoint that this worker can read; nothing has changed.
        """
        started = time.perf_counter()
        blobs = self._received_blobs.setdefault(message.checkpoint_id, {})
        blobs.update(message.blobs)
        if not message.data:
            return Restored(checkpoint_id=message.checkpoint_id)
        del self._received_blobs[message.checkpoint_id]
        saved = _decode_manifest(message.data)
        keep = frozenset(message.keep)
        if keep:
            # Kept values may be instances of these classes, which a second restore would make again.
            keep = keep.union(
                name for name, known in self._restored_classes.items() if self._namespace.get(name) is known
            )
        # Files first: what is restored after them may import or open them.
        lost_files = list[Unsaved]()
        if self._work_directory is not None and saved.files is not None:
            lost_files = self._work_directory.restore(saved.files, blobs)
        self._remove_unknown_names(saved, keep)
        state = self._process_state
        reader = (
            CheckpointReader(self._namespace, saved, blobs, self._budget, keep)
            if state is None
            else CheckpointReader(self._namespace, saved, blobs, self._budget, keep, state.live_object)
        )
        reader.position = self.position
        self.position.start(
            sum(len(bound_names(group)) for group in saved.groups) + len(saved.modules), saving=False
        )
        self._budget.start(message.timeout)
        state_failures: dict[str, str] = {}
        try:
            if state is not None:
                state.restore(saved.state, blobs, self._namespace, reader, saved.python)
            reader.restore_all()
            if state is not None:
                # What the objects' imports have changed.
                state_failures = state.restore(saved.state, blobs, self._namespace, reader, saved.python)
        finally:
            self._budget.stop()
        names = (name for group in saved.groups for name in bound_names(group))
        self._restored_classes = {
            name: kind for name in names if isinstance(kind := self._namespace.get(name), type)
        }
        not_restored = reader.not_restored()
        without = {*keep, *(unsaved.name for unsaved in not_restored)}
        lost = [unsaved for unsaved in saved.unsaved if unsaved.name not in without]
        lost += not_restored
        lost += describe_state(state_failures)
        lost += lost_files
        results = frozenset(() if saved.history is None else saved.history.results)
        if not message.history:
            lost = [unsaved for unsaved in lost if unsaved.name not in results]
        elif self._history is not None and saved.history is not None:
            self._history.restore(saved.history, reader.restored_results(), blobs)
        self._last_groups = [names for group in saved.groups if len(names := tuple(bound_names(group))) > 1]
        self._earlier.remember(reader.restored_groups(), self._namespace.get, self._last_cell())
        self._constants = {}
        self._unsent_parts = {}
        self._slow_objects.clear()
        return Restored(
            checkpoint_id=message.checkpoint_id,
            names=reader.restored_names,
            unsaved=lost,
            duration=time.perf_counter() - started,
        )

    def _remove_unknown_names(self, saved: Manifest, keep: frozenset[str]) -> None:
        kept = {*keep, *(name for group in saved.groups for name in bound_names(group))}
        kept.update(saved.modules, saved.globals, (unsaved.name for unsaved in saved.unsaved))
        for name in list(self._namespace):
            if name in kept or name in self._hidden:
                continue
            if name == "__doc__":
                self._namespace[name] = None
            else:
                del self._namespace[name]


def _store_group(pickled: PickledGroup, writer: CheckpointWriter, collector: BlobCollector) -> NameGroup:
    return NameGroup(
        names=pickled.names,
        type_names=tuple(type_name(writer.values[name]) for name in pickled.names),
        pickle=collector.add(pickled.data),
        buffers=tuple(map(collector.add, pickled.buffers)),
        sources=tuple(sorted(pickled.sources)),
        portable=pickled.portable,
        needs=tuple(sorted(set[str]().union(*pickled.dependencies.values()) - set(pickled.names))),
    )


def _decode_manifest(data: bytes) -> Manifest:
    try:
        saved = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise LocalProtocolError(f"this is no checkpoint: {error}") from error
    if saved.version != manifest.VERSION:
        raise LocalProtocolError(
            f"the checkpoint has format {saved.version}, and this worker reads only {manifest.VERSION}"
        )
    return saved
