"""Pickles the names of a namespace, in groups of names that share objects.

Each name is pickled by itself, so an object that can't be saved does not affect other names. Names that
share objects are found by the objects that their pickles have met, and are pickled once more, together.
The groups of the last checkpoint are tried first: if they still hold, nothing is pickled twice.
"""

from _pickle import dumps
from collections.abc import Mapping, Sequence
from itertools import chain
from time import monotonic  # by name: the code may replace it
from types import ModuleType
from typing import Final, cast

import msgspec

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.checkpoint.earlier import describe_earlier
from pyrepl3_worker.checkpoint.fingerprints import is_long
from pyrepl3_worker.checkpoint.foreign_code import loads_by_foreign_code
from pyrepl3_worker.checkpoint.grouping import Names, groups_sharing_objects
from pyrepl3_worker.checkpoint.manifest import NameGroup, bound_names
from pyrepl3_worker.checkpoint.pickler import PROTOCOL, NamespacePickler, identity_matters, is_shareable
from pyrepl3_worker.checkpoint.position import Position
from pyrepl3_worker.checkpoint.reducers import needs_plain_instances, overrides_item_methods
from pyrepl3_worker.checkpoint.scope import PicklerContext, import_name
from pyrepl3_worker.checkpoint.time_budget import BudgetExceeded, TimeBudget
from pyrepl3_worker.checkpoint.unsaveable import Unsaveable, describe_save_error
from pyrepl3_worker.rendering.reprs import encodable, type_name


class PickledGroup(msgspec.Struct, frozen=True, eq=False):
    """A group of names, pickled."""

    names: Names
    """In the order in which they were pickled."""
    data: bytes
    buffers: list[memoryview] = []
    sources: set[str] = set()
    """Filenames of the cells whose functions are in it."""
    objects: dict[str, set[int]] = {}
    """By name, the ids of the objects it holds whose identity matters."""
    dependencies: dict[str, set[str]] = {}
    """By name, the definitions of other groups that it refers to."""
    runs_code: bool = False
    """Whether loading it may run code of the session, or of a library that is not known to load well."""
    portable: bool = True
    """Whether another version of Python can load it."""


class SlowObject(msgspec.Struct, frozen=True, eq=False):
    """An object whose pickling took too long and was stopped."""

    value: object
    reason: str
    retry_at: float
    """When it is tried again (`time.monotonic`): it may cost a hundredth of the session's time at most."""


class _SaveError(Exception):
    """A name can't be saved."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason


class _IdentityMatters(dict[type, bool]):
    """Whether the identity of a type's instances matters, looked up at the speed of a dict."""

    def __missing__(self, kind: type) -> bool:
        self[kind] = found = identity_matters(kind)
        return found


class _LoadsByForeignCode(dict[type, bool]):
    """Whether loading a type's instances may run foreign code; for one checkpoint, since classes change."""

    def __missing__(self, kind: type) -> bool:
        made_plainly = needs_plain_instances(kind) and not overrides_item_methods(kind)
        self[kind] = found = not made_plainly and loads_by_foreign_code(kind)
        return found


_matters: Final = _IdentityMatters()
_MAX_PLAIN_LENGTH: Final = 64 * 1024
"""Characters or bytes of a text that need no time limit."""
_MAX_REASON_CHARS: Final = 1000


def _is_plain(value: object) -> bool:
    """Return whether pickle saves a value by itself, at once: most results of cells, and many variables."""
    # By identity: the hash of a class, and what it is equal to, may be its metaclass's.
    kind = type(value)
    if kind is str or kind is bytes:
        return not is_long(value, _MAX_PLAIN_LENGTH)
    return kind is int or kind is float or kind is bool or value is None


def _truncate_reason(reason: str) -> str:
    return reason if len(reason) <= _MAX_REASON_CHARS else f"{reason[:_MAX_REASON_CHARS]}…"


class CheckpointWriter:
    """Saves one namespace once: sorts its names by how they are saved, and pickles the values."""

    def __init__(
        self,
        namespace: dict[str, object],
        hidden: frozenset[str],
        results: Mapping[str, object],
        budget: TimeBudget,
        slow: dict[str, SlowObject],
        position: Position,
    ) -> None:
        """Classify the names of the namespace as it is now.

        Args:
            namespace: the live dict.
            hidden: names that are left out.
            results: values that are saved too, under names that are no variables.
            budget: limits the time that objects' own code may take.
            slow: by name, the objects that were stopped in earlier checkpoints; kept up to date.
            position: gets the names as they are pickled.
        """
        self._position = position
        self._namespace = namespace
        self._budget = budget
        self._slow = slow
        self.results = results
        self.values: dict[str, object] = {}
        """By name, the values to be pickled."""
        self.modules: dict[str, str] = {}
        self.globals: list[str] = []
        """Names bound to the namespace itself."""
        self.failed: dict[str, str] = {}
        """By name, why it can't be saved."""
        self.overdue: set[str] = set()
        """Of those, the names that might be saved with more time or memory."""
        self._earlier: dict[str, NameGroup] = {}
        """By name, the group of an earlier checkpoint that still has its value."""
        self._pickled: dict[Names, PickledGroup] = {}
        self._runs_code = _LoadsByForeignCode()
        self._buffers: list[list[memoryview]] = []
        """The arrays' memory, of all that was pickled."""
        self._kept_alive: list[object] = []
        """All objects that were met, so that no id is used again until the groups are known."""
        for name, value in list(namespace.items()):
            if type(name) is str and name not in hidden and not (name == "__doc__" and value is None):
                self._classify(name, value)
        for name, value in results.items():
            self._classify(name, value)
        for name, known in list(slow.items()):
            value = self.values.get(name)
            if value is not known.value:
                del slow[name]
            elif monotonic() < known.retry_at:
                del self.values[name]
                self.failed[name] = known.reason
                self.overdue.add(name)
        self.context = PicklerContext(namespace, self.values)
        self.context.call_code = budget.call_code

    def _classify(self, name: str, value: object) -> None:
        if encodable(name) != name:
            self.failed[name] = "its name is not text that could be stored"
        elif value is self._namespace:
            self.globals.append(name)
        elif issubclass(type(value), ModuleType):
            try:
                self.modules[name] = import_name(cast(ModuleType, value))
            except Unsaveable as error:
                self.failed[name] = str(error)
        else:
            self.values[name] = value

    def unsaved(self) -> list[Unsaved]:
        """Return the names that can't be saved, with the reasons."""
        also = self.result_aliases()
        return [self._describe(name) for name in self.failed if name not in also]

    def _describe(self, name: str) -> Unsaved:
        kind, reason = type_name(self.current_value(name)), _truncate_reason(self.failed[name])
        earlier = self._earlier.get(name)
        if earlier is None:
            return Unsaved(encodable(name), kind, reason)
        return Unsaved(name, kind, reason + describe_earlier(earlier), earlier.as_of)

    def current_value(self, name: str) -> object:
        """Return the value that a name or result has now."""
        return self.results[name] if name in self.results else self._namespace.get(name)

    def note_earlier(self, groups: Sequence[NameGroup]) -> None:
        """Report of the names of these groups that they keep earlier values."""
        for group in groups:
            self._earlier |= dict.fromkeys(bound_names(group), group)

    def result_aliases(self) -> dict[str, str]:
        """Return the variables of those results that can't be saved: they are reported as variables."""
        by_id = {id(self._namespace.get(name)): name for name in self.failed if name not in self.results}
        return {
            name: by_id[id(value)]
            for name, value in self.results.items()
            if name in self.failed and id(value) in by_id
        }

    def close(self) -> None:
        """Release all objects and the arrays' memory."""
        for buffer in chain.from_iterable(self._buffers):
            buffer.release()
        self._pickled.clear()
        self._kept_alive.clear()

    def pickle(self, names: list[str], earlier: Sequence[Names]) -> list[PickledGroup]:
        """Pickle `names` in groups, and try the groups of `earlier` first.

        The same names with the same values make the same groups in the same order.
        """
        position = {name: index for index, name in enumerate(names)}
        single = dict.fromkeys(names)
        for group in earlier:
            block = tuple(sorted((name for name in group if name in single), key=position.__getitem__))
            if len(block) > 1:
                for name in block:
                    del single[name]
                self._pickle_group_or_names(block)
        plain: list[PickledGroup] = []
        for name in single:
            value = self.values[name]
            if _is_plain(value):
                self._position.next(name)
                plain.append(PickledGroup((name,), dumps(value, PROTOCOL)))
            else:
                self._pickle_group_or_names((name,))
        objects: dict[str, set[int]] = {}
        dependencies: dict[str, set[str]] = {}
        for pickled in self._pickled.values():
            objects |= pickled.objects
            dependencies |= pickled.dependencies
        ordered = {name: objects[name] for name in names if name in objects}
        inside = {name: found & ordered.keys() for name, found in dependencies.items() if found}
        found: list[PickledGroup] = []
        for group in groups_sharing_objects(ordered, inside):
            if group not in self._pickled:
                self._pickle_group_or_names(group)
            whole = self._pickled.get(group)
            # If a group fails, but its names do not, they are saved alone and share no objects any more.
            parts = [self._pickled.get((name,)) for name in group] if whole is None else [whole]
            found += [part for part in parts if part is not None]
        return plain + self._drop_missing_dependencies(found)

    def _pickle_group_or_names(self, names: Names) -> None:
        """Pickle a group; if that fails, pickle each of its names alone."""
        try:
            self._pickled[names] = self._pickle_group(names)
        except _SaveError as failure:
            if len(names) == 1:
                self.failed[failure.name] = failure.reason
                return
            for name in names:
                if (name,) not in self._pickled:
                    self._pickle_group_or_names((name,))

    def _pickle_group(self, names: Names) -> PickledGroup:
        pickler, pickled = self._pickle_group_once(names)
        overlapping = pickler.overlapping_arrays() - self.context.viewed_arrays
        if overlapping:
            # Arrays of one memory: once more, now as views of each other. Before, none knew of the rest.
            self.context.viewed_arrays |= overlapping
            _, pickled = self._pickle_group_once(names)
        return pickled

    def _pickle_group_once(self, names: Names) -> tuple[NamespacePickler, PickledGroup]:
        # Definitions first: a class's attributes may hold instances of it.
        is_definition = self.context.is_definition
        order = names
        if len(names) > 1:
            order = tuple(sorted(names, key=lambda name: not is_definition(self.values[name])))
        pickler = NamespacePickler(self.context, frozenset(names))
        self._buffers.append(pickler.buffers)
        self._kept_alive.append(pickler.seen)
        objects: dict[str, set[int]] = {}
        dependencies: dict[str, set[str]] = {}
        first_holders: dict[int, str] = {}
        for name in order:
            start = len(pickler.seen)
            pickler.saved_by_value, pickler.dependencies = set(), set()
            pickler.viewed_bases = set()
            self._pickle_name(pickler, name)
            met = {id(obj) for obj in pickler.seen[start:] if _matters[type(obj)]}
            objects[name] = (met - pickler.saved_by_reference) | pickler.saved_by_value
            objects[name] |= pickler.viewed_bases
            dependencies[name] = pickler.dependencies
            if len(order) > 1:
                self._add_shared(name, pickler, start, first_holders, objects)
            if id(self._namespace) in objects[name]:
                raise _SaveError(name, "it holds the session's whole namespace (globals())")
        # The pickler itself is not kept: each holds several KiB.
        kinds = set(map(type, pickler.seen))
        runs_code = pickler.may_need_hash_early or any(map(self._runs_code.__getitem__, kinds))
        portable = pickler.is_portable(kinds)
        return pickler, PickledGroup(
            order, pickler.data, pickler.buffers, pickler.sources, objects, dependencies, runs_code, portable
        )

    def _add_shared(
        self,
        name: str,
        pickler: NamespacePickler,
        start: int,
        first_holders: dict[int, str],
        objects: dict[str, set[int]],
    ) -> None:
        """Add to `objects` what a name shares with the names of its group that were pickled before it.

        The pickler does not look again into what it has pickled for another name. So what is inside is not
        met a second time, and what holds it stands for it.
        """
        seen = pickler.seen[start:]
        met = dict(zip(map(id, seen), seen, strict=True))
        again = met.keys() & first_holders.keys()
        for identity in again - objects[name] - pickler.saved_by_reference:
            if is_shareable(self.context, met[identity]):
                objects[first_holders[identity]].add(identity)
                objects[name].add(identity)
        first_holders |= dict.fromkeys(met.keys() - again, name)

    def _pickle_name(self, pickler: NamespacePickler, name: str) -> None:
        value = self.values[name]
        self._position.next(name)
        before = len(pickler.seen)
        started = monotonic()
        try:
            self._budget.run_data(pickler.dump, value)
        except BudgetExceeded as error:
            culprit = pickler.seen[-1] if len(pickler.seen) > before else value
            reason = encodable(describe_save_error(error, culprit, value))
            now = monotonic()
            self.overdue.add(name)
            self._slow[name] = SlowObject(value, reason, now + 100 * (now - started))
            raise _SaveError(name, reason) from None
        except BaseException as error:  # its code may raise SystemExit as well; no other code runs here
            culprit = pickler.seen[-1] if len(pickler.seen) > before else value
            if isinstance(error, MemoryError):
                self.overdue.add(name)
            try:
                reason = self._budget.run(describe_save_error, error, culprit, value)
            except BaseException:  # its `__str__` fails or takes too long
                reason = type_name(error)
            raise _SaveError(name, encodable(reason)) from None

    def pickle_alone(self, names: Names) -> list[PickledGroup]:
        """Pickle each name of a group by itself, and report those that can't be; nothing is grouped yet."""
        found: list[PickledGroup] = []
        for name in names:
            try:
                found.append(self._pickle_group((name,)))
            except _SaveError as failure:
                self.failed[name] = failure.reason
        return found

    def regroup(self, alone: Sequence[PickledGroup]) -> list[PickledGroup]:
        """Pickle names in groups, by what they share; each was pickled alone, and they were a group's."""
        objects = {name: ids for pickled in alone for name, ids in pickled.objects.items()}
        dependencies = {name: found for pickled in alone for name, found in pickled.dependencies.items()}
        inside = {name: found & objects.keys() for name, found in dependencies.items()}
        single = {pickled.names: pickled for pickled in alone}
        found: list[PickledGroup] = []
        for group in groups_sharing_objects(objects, inside):
            try:
                found.append(single[group] if group in single else self._pickle_group(group))
            except _SaveError as failure:
                self.failed |= dict.fromkeys(group, failure.reason)
        return found

    def drop_unloadable(
        self, groups: list[PickledGroup], failed: Mapping[Names, str], slow: Mapping[Names, float]
    ) -> list[PickledGroup]:
        """Report groups that can't be loaded as not saved, and what depends on them; return the others.

        Args:
            groups: what `pickle` has returned.
            failed: by a group's names, the reason.
            slow: by a group's names, the seconds after which its loading was stopped.
        """
        for names, reason in failed.items():
            for name in names:
                self.failed[name] = encodable(reason)
                if names in slow:
                    self.overdue.add(name)
                    retry_at = monotonic() + 100 * slow[names]
                    self._slow[name] = SlowObject(self.values[name], encodable(reason), retry_at)
        return self._drop_missing_dependencies([group for group in groups if group.names not in failed])

    def _drop_missing_dependencies(self, found: list[PickledGroup]) -> list[PickledGroup]:
        """Drop groups that refer to definitions that could not be saved; then what refers to those groups."""
        while True:
            kept: list[PickledGroup] = []
            for pickled in found:
                needed = {need for dependencies in pickled.dependencies.values() for need in dependencies}
                missing = sorted(needed & self.failed.keys())
                if missing:
                    reason = f"it needs {missing[0]}, which can't be saved"
                    self.failed |= dict.fromkeys(pickled.names, reason)
                    if self.overdue.issuperset(missing):
                        self.overdue.update(pickled.names)
                else:
                    kept.append(pickled)
            if len(kept) == len(found):
                return kept
            found = kept
