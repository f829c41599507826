"""One checkpoint in the making: the names of a namespace, pickled in groups.

Each name is pickled by itself, so one object that can't be saved takes nothing else with it. Names that
share objects are found by what their pickles have met, and are pickled once more, together. Who knows
earlier groups has them tried first: then nothing is pickled twice.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final, cast

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.pickling import Saver, identity_matters
from pyrepl3_worker.reprs import encodable, type_name
from pyrepl3_worker.scope import Scope, is_provided
from pyrepl3_worker.sharing import Names, groups_by_sharing
from pyrepl3_worker.unsaveable import explain


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


class _Failure(Exception):  # noqa: N818 - it is a finding, and reported as one
    """A name can't be saved."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason


class _Matters(dict[type, bool]):
    """Whether the identity of a type's instances matters, looked up at the speed of a dict."""

    def __missing__(self, kind: type) -> bool:
        self[kind] = found = identity_matters(kind)
        return found


_matters: Final = _Matters()


class Saving:
    """What is in a namespace, sorted out by how it is saved."""

    def __init__(self, namespace: dict[str, object], hidden: frozenset[str]) -> None:
        """Look at the namespace as it is now, past the `hidden` names."""
        self._namespace = namespace
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
            if type(name) is str and name not in hidden:
                self._sort_out(name, value)
        self.scope = Scope(namespace, self.values)

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
        return [
            Unsaved(encodable(name), type_name(self._namespace.get(name)), reason)
            for name, reason in self.failed.items()
        ]

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
        for group in groups_by_sharing(ordered, inside):
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
        saver = Saver(self.scope, frozenset(names))
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

    def _dump(self, saver: Saver, name: str) -> None:
        value = self.values[name]
        before = len(saver.seen)
        try:
            saver.dump(value)
        except TimeoutError:
            raise  # a deadline's, raised from outside into the object's own code
        except Exception as error:
            culprit = saver.seen[-1] if len(saver.seen) > before else value
            raise _Failure(name, encodable(explain(error, culprit, value))) from None

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
