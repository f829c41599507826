"""One checkpoint in the making: the names of a namespace, pickled in groups.

Each name is pickled by itself, so one object that can't be saved takes nothing else with it. Names that
share objects are found by what their pickles have met, and are pickled once more, together. Who knows
earlier groups has them tried first: then nothing is pickled twice.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic  # by name: the code may replace it
from types import ModuleType
from typing import Final, cast

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.checkpoint.grouping import Names, groups_sharing_objects
from pyrepl3_worker.checkpoint.pickler import NamespacePickler, identity_matters
from pyrepl3_worker.checkpoint.scope import PicklerContext, is_provided
from pyrepl3_worker.checkpoint.time_budget import BudgetExceeded, TimeBudget
from pyrepl3_worker.checkpoint.unsaveable import explain
from pyrepl3_worker.rendering.reprs import encodable, type_name


@dataclass(frozen=True, slots=True)
class Pickled:
    """A group, written."""

    names: Names
    """In the order in which they were written."""
    data: bytes
    buffers: list[memoryview]
    sources: set[str]
    """Cells whose functions are in it."""
    objects: dict[str, set[int]]
    """By name, the objects it holds whose identity matters."""
    needs: dict[str, set[str]]
    """By name, the definitions of other groups that it refers to."""


@dataclass(frozen=True, slots=True)
class OverTime:
    """An object that had to be stopped."""

    value: object
    reason: str
    again: float
    """When it is worth another try: it costs a hundredth of the session's time at most."""


class _Failure(Exception):  # noqa: N818 - it is a finding, and reported as one
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


_matters: Final = _IdentityMatters()
_LONGEST_REASON: Final = 1000


def _short(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


class CheckpointWriter:
    """What is in a namespace, sorted out by how it is saved."""

    def __init__(
        self,
        namespace: dict[str, object],
        hidden: frozenset[str],
        results: Mapping[str, object],
        budget: TimeBudget,
        slow: dict[str, OverTime],
    ) -> None:
        """Look at the namespace as it is now.

        Args:
            namespace: the live dict.
            hidden: names to look past.
            results: what is saved beside, under names that are no variables.
            budget: bounds what objects' own code may take.
            slow: what had to be stopped earlier, by name; kept up to date.
        """
        self._namespace = namespace
        self._budget = budget
        self._slow = slow
        self.results = results
        self.values: dict[str, object] = {}
        """What is pickled."""
        self.modules: dict[str, str] = {}
        self.globals: list[str] = []
        """Names bound to the namespace itself."""
        self.failed: dict[str, str] = {}
        """Why names can't be saved."""
        self._pickled: dict[Names, Pickled] = {}
        self._alive: list[object] = []
        """All that was met, so that an id means the same object until the groups are known."""
        for name, value in list(namespace.items()):
            if type(name) is str and name not in hidden and not (name == "__doc__" and value is None):
                self._sort_out(name, value)
        for name, value in results.items():
            self._sort_out(name, value)
        for name, known in list(slow.items()):
            value = self.values.get(name)
            if value is not known.value:
                del slow[name]
            elif monotonic() < known.again:
                del self.values[name]
                self.failed[name] = known.reason
        self.scope = PicklerContext(namespace, self.values)

    def _sort_out(self, name: str, value: object) -> None:
        if encodable(name) != name:
            self.failed[name] = "its name is not text that could be stored"
        elif value is self._namespace:
            self.globals.append(name)
        elif issubclass(type(value), ModuleType):
            module = vars(cast(ModuleType, value)).get("__name__")
            if type(module) is str and sys.modules.get(module) is value:
                self.modules[name] = module
            else:
                self.failed[name] = "a module that was made by hand can't be imported again"
        elif not is_provided(name, value):
            self.values[name] = value

    def unsaved(self) -> list[Unsaved]:
        """Give the report."""
        known: dict[str, object] = {**self._namespace, **self.results}
        also = self.aliases()
        return [
            Unsaved(encodable(name), type_name(known.get(name)), _short(reason))
            for name, reason in self.failed.items()
            if name not in also
        ]

    def aliases(self) -> dict[str, str]:
        """Give the results that can't be saved and are variables too, which are reported as those."""
        by_id = {id(self._namespace.get(name)): name for name in self.failed if name not in self.results}
        return {
            name: by_id[id(value)]
            for name, value in self.results.items()
            if name in self.failed and id(value) in by_id
        }

    def close(self) -> None:
        """Let go of all objects, and of the arrays' memory."""
        for pickled in self._pickled.values():
            for buffer in pickled.buffers:
                buffer.release()
        self._pickled.clear()
        self._alive.clear()

    def pickle(self, names: list[str], earlier: Sequence[Names]) -> list[Pickled]:
        """Pickle `names` in groups, trying those of `earlier` first.

        The same names with the same values give the same groups in the same order.
        """
        position = {name: index for index, name in enumerate(names)}
        single = dict.fromkeys(names)
        for group in earlier:
            block = tuple(sorted((name for name in group if name in single), key=position.__getitem__))
            if len(block) > 1:
                for name in block:
                    del single[name]
                self._try(block)
        for name in single:
            self._try((name,))
        objects: dict[str, set[int]] = {}
        needs: dict[str, set[str]] = {}
        for pickled in self._pickled.values():
            objects |= pickled.objects
            needs |= pickled.needs
        ordered = {name: objects[name] for name in names if name in objects}
        inside = {name: found & ordered.keys() for name, found in needs.items() if found}
        found: list[Pickled] = []
        for group in groups_sharing_objects(ordered, inside):
            if group not in self._pickled:
                self._try(group)
            whole = self._pickled.get(group)
            # A group that fails, though its members do not, comes back without what they share.
            parts = [self._pickled.get((name,)) for name in group] if whole is None else [whole]
            found += [part for part in parts if part is not None]
        return self._without_broken_needs(found)

    def _try(self, names: Names) -> None:
        """Pickle a group; when that fails, every name for itself."""
        try:
            self._pickled[names] = self._pickle(names)
        except _Failure as failure:
            if len(names) == 1:
                self.failed[failure.name] = failure.reason
                return
            for name in names:
                if (name,) not in self._pickled:
                    self._try((name,))

    def _pickle(self, names: Names) -> Pickled:
        # Definitions first: what they are made from may hold instances of them.
        is_definition = self.scope.is_definition
        order = names
        if len(names) > 1:
            order = tuple(sorted(names, key=lambda name: not is_definition(self.values[name])))
        saver = NamespacePickler(self.scope, frozenset(names))
        self._alive.append(saver.seen)
        objects: dict[str, set[int]] = {}
        needs: dict[str, set[str]] = {}
        for name in order:
            start = len(saver.seen)
            saver.owned, saver.needs = set(), set()
            self._dump(saver, name)
            met = {id(obj) for obj in saver.seen[start:] if _matters[type(obj)]}
            objects[name] = (met - saver.by_name) | saver.owned
            needs[name] = saver.needs
            if id(self._namespace) in objects[name]:
                raise _Failure(name, "it holds the session's whole namespace (globals())")
        # The pickler itself is not kept: each holds several KiB.
        return Pickled(order, saver.data, saver.buffers, saver.sources, objects, needs)

    def _dump(self, saver: NamespacePickler, name: str) -> None:
        value = self.values[name]
        before = len(saver.seen)
        started = monotonic()
        try:
            self._budget.run(saver.dump, value)
        except BudgetExceeded as error:
            culprit = saver.seen[-1] if len(saver.seen) > before else value
            reason = encodable(explain(error, culprit, value))
            now = monotonic()
            self._slow[name] = OverTime(value, reason, now + 100 * (now - started))
            raise _Failure(name, reason) from None
        except BaseException as error:  # its code may raise SystemExit as well; nobody else's stands here
            culprit = saver.seen[-1] if len(saver.seen) > before else value
            try:
                reason = self._budget.run(explain, error, culprit, value)
            except BaseException:  # its text does not come, for whatever reason
                reason = type_name(error)
            raise _Failure(name, encodable(reason)) from None

    def _without_broken_needs(self, found: list[Pickled]) -> list[Pickled]:
        """Drop what refers to definitions that could not be saved, and then what refers to that."""
        while True:
            kept: list[Pickled] = []
            for pickled in found:
                needed = {need for needs in pickled.needs.values() for need in needs}
                missing = sorted(needed & self.failed.keys())
                if missing:
                    reason = f"it needs {missing[0]}, which can't be saved"
                    self.failed |= dict.fromkeys(pickled.names, reason)
                else:
                    kept.append(pickled)
            if len(kept) == len(found):
                return kept
            found = kept
