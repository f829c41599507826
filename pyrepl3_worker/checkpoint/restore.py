"""A checkpoint on its way back into the namespace."""

import linecache
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.checkpoint import manifest
from pyrepl3_worker.checkpoint.manifest import BlobRefs, Manifest, NameGroup
from pyrepl3_worker.checkpoint.pickler import NamespaceUnpickler
from pyrepl3_worker.checkpoint.time_budget import TimeBudget
from pyrepl3_worker.checkpoint.unsaveable import describe
from pyrepl3_worker.rendering.reprs import type_name


class CheckpointReader(Mapping[str, object]):
    """A checkpoint on its way back; as a mapping, it restores what is asked for first."""

    def __init__(
        self,
        namespace: dict[str, Any],
        found: Manifest,
        blobs: Mapping[str, bytes],
        budget: TimeBudget,
        keep: Collection[str] = (),
    ) -> None:
        """Be about to fill `namespace`; objects' own code may take as long as `patience` has it.

        The variables in `keep` are left as they are, whatever was saved for them.
        """
        past = found.history
        self._aside = frozenset(() if past is None else past.results)
        """Names of results: they are no variables."""
        self._kept = frozenset(keep) - self._aside
        self._untouched = self._aside | self._kept
        """Names that are not bound, nor removed."""
        self._aliases = dict[str, str]() if past is None else past.aliases
        self._budget = budget
        self._loaded_modules: dict[str, object] = {}
        self._namespace = namespace
        self._manifest = found
        self._blobs = blobs
        self._groups = {name: group for group in found.groups for name in group.names}
        self._values: dict[str, object] = {}
        self._reasons: dict[str, str] = {}
        self._loading: set[str] = set()

    @property
    def names(self) -> list[str]:
        """What is there again."""
        return [
            *(name for name in self._values if name not in self._untouched),
            *(name for name in self._loaded_modules if name not in self._untouched),
            *(name for name in self._manifest.globals if name not in self._untouched),
        ]

    def results(self) -> dict[str, object]:
        """Give what is there again of the results."""
        found = {**self._values, **self._loaded_modules}
        found |= dict.fromkeys(self._manifest.globals, self._namespace)
        there = self._namespace
        found |= {name: there[variable] for name, variable in self._aliases.items() if variable in there}
        return {name: found[name] for name in self._aside if name in found}

    def unsaved(self) -> list[Unsaved]:
        """What is not."""
        return [
            Unsaved(name, self._type_name(name), reason)
            for name, reason in self._reasons.items()
            if name not in self._kept
        ]

    def _type_name(self, name: str) -> str:
        group = self._groups.get(name)
        return "module" if group is None else group.type_names[group.names.index(name)]

    def run(self) -> None:
        """Bring everything back that can be."""
        for filename, content in self._manifest.sources.items():
            self._add_source(filename, content)
        for name in self._manifest.globals:
            if name not in self._untouched:
                self._namespace[name] = self._namespace
        for name, module in self._manifest.modules.items():
            if name not in self._kept:
                self._import(name, module)
        # Of a group that is kept as a whole, nothing is loaded, unless somebody refers to what is not there.
        waiting = [group for group in self._manifest.groups if not self._kept.issuperset(group.names)]
        while waiting:
            # What fails may have wanted a name, in the objects' own code, that was not there yet.
            left = [group for group in waiting if not self._load(group)]
            if len(left) == len(waiting):
                break
            waiting = left

    def _add_source(self, filename: str, content: BlobRefs) -> None:
        # Also if it is there: it would go with the code that it is kept for now (see `sources`).
        try:
            source = manifest.take(content, self._blobs).decode("utf-8", "surrogatepass")
        except (LookupError, UnicodeError):
            return  # tracebacks will lack the lines, and nothing else
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)

    def _import(self, name: str, module: str) -> None:
        try:
            found = self._budget.run(import_module, module)
        except BaseException as error:  # the module's code may raise SystemExit as well
            if name not in self._untouched:
                self._namespace.pop(name, None)
            self._reasons[name] = f"importing {module} failed: {self._describe(error)}"
        else:
            self._loaded_modules[name] = found
            if name not in self._untouched:
                self._namespace[name] = found

    def _load(self, group: NameGroup) -> bool:
        """Restore a group unless it is there; tell whether it is."""
        first = group.names[0]
        if first in self._values:
            return True
        if first in self._loading:
            raise LookupError(f"{first!r} is needed to restore itself")
        self._loading.add(first)
        try:
            data = manifest.take(group.pickle, self._blobs)
            buffers = [manifest.take(content, self._blobs) for content in group.buffers]
            loader = NamespaceUnpickler(data, buffers, self._namespace, self)
            values = {name: self._budget.run(loader.load) for name in group.names}
        except BaseException as error:  # its code may raise SystemExit as well; nobody else's stands here
            self._reasons |= dict.fromkeys(group.names, self._describe(error))
            for name in group.names:
                if name not in self._untouched:
                    self._namespace.pop(name, None)
            return False
        finally:
            self._loading.discard(first)
        self._values |= values
        for name, value in values.items():
            if name not in self._untouched:
                self._namespace[name] = value
        for name in group.names:
            self._reasons.pop(name, None)
        return True

    def _describe(self, error: BaseException) -> str:
        try:
            return self._budget.run(describe, error)
        except BaseException:  # its text does not come, for whatever reason
            return type_name(error)

    def __getitem__(self, name: str) -> object:
        """Give what a name is bound to.

        Raises:
            LookupError: it can't be restored, or is nothing that the session has.
        """
        if name in self._kept and name in self._namespace:
            return self._namespace[name]
        group = self._groups.get(name)
        if group is not None and self._load(group):
            return self._values[name]
        if group is None and name in self._namespace:
            return self._namespace[name]  # a capability, or the like
        reason = self._reasons.get(name, "this session does not have it")
        raise LookupError(f"it needs {name!r}: {reason}")

    def __iter__(self) -> Iterator[str]:
        """Go over what was saved."""
        return iter(self._groups)

    def __len__(self) -> int:
        """Count it."""
        return len(self._groups)
