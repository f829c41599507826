"""Loads a checkpoint's groups back into a namespace."""

import linecache
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.checkpoint import manifest
from pyrepl3_worker.checkpoint.manifest import BlobRefs, Manifest, NameGroup, bound_names
from pyrepl3_worker.checkpoint.pickler import NamespaceUnpickler
from pyrepl3_worker.checkpoint.position import Position
from pyrepl3_worker.checkpoint.time_budget import TimeBudget
from pyrepl3_worker.checkpoint.unsaveable import describe_restore_error
from pyrepl3_worker.code.cell_sources import linecache_entry
from pyrepl3_worker.code.own_frames import is_cell_file, named_cell_files
from pyrepl3_worker.rendering.reprs import type_name


class CheckpointReader(Mapping[str, object]):
    """Restores a checkpoint. As a mapping, it restores the value of a name when it is first asked for it.

    Pickles look names up in it (`LAZY_NAMES`), so that the groups need no order.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        saved: Manifest,
        blobs: Mapping[str, bytes],
        budget: TimeBudget,
        keep: Collection[str] = (),
        live_object: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Prepare to fill `namespace`; nothing is restored yet.

        Args:
            namespace: the live dict.
            saved: the checkpoint's manifest.
            blobs: the blobs by their digests.
            budget: limits the time that objects' own code may take.
            keep: variables that are left as they are, whatever was saved for them.
            live_object: returns what each worker has one of, by the name that stands for it in pickles.
        """
        history = saved.history
        self._result_names = frozenset(() if history is None else history.results)
        """Names under which results are saved: they are no variables."""
        self._kept_names = frozenset(keep) - self._result_names
        self._untouched_names = self._result_names | self._kept_names
        """Names that are neither bound nor removed."""
        self._aliases = dict[str, str]() if history is None else history.aliases
        self._budget = budget
        self._modules: dict[str, object] = {}
        self._namespace = namespace
        self._live_object = live_object
        self._manifest = saved
        self._blobs = blobs
        self._groups = {name: group for group in saved.groups for name in bound_names(group)}
        self._values: dict[str, object] = {}
        self._failures: dict[str, str] = {}
        self._loading: set[str] = set()
        self.position = Position()
        """Gets the names as they are restored."""

    @property
    def restored_names(self) -> list[str]:
        """The variables that have been restored."""
        return [
            *(name for name in self._values if name not in self._untouched_names),
            *(name for name in self._modules if name not in self._untouched_names),
            *(name for name in self._manifest.globals if name not in self._untouched_names),
        ]

    def restored_groups(self) -> list[NameGroup]:
        """Return the groups that have been restored."""
        return [group for group in self._manifest.groups if bound_names(group)[0] in self._values]

    def restored_results(self) -> dict[str, object]:
        """Return the results that have been restored, by the names that they were saved under."""
        found = {**self._values, **self._modules}
        found |= dict.fromkeys(self._manifest.globals, self._namespace)
        namespace = self._namespace
        found |= {
            name: namespace[variable] for name, variable in self._aliases.items() if variable in namespace
        }
        return {name: found[name] for name in self._result_names if name in found}

    def not_restored(self) -> list[Unsaved]:
        """Return the names that could not be restored, with the reasons."""
        return [
            Unsaved(name, self._type_name(name), reason)
            for name, reason in self._failures.items()
            if name not in self._kept_names
        ]

    def _type_name(self, name: str) -> str:
        group = self._groups.get(name)
        return "module" if group is None else group.type_names[group.names.index(name)]

    def restore_all(self) -> None:
        """Restore everything that can be restored."""
        for filename, content in self._manifest.sources.items():
            self._add_source(filename, content)
        for name in self._manifest.globals:
            if name not in self._untouched_names:
                self._namespace[name] = self._namespace
        for name, module in self._manifest.modules.items():
            if name not in self._kept_names:
                self._import_module(name, module)
        # A group of which all names are kept is not loaded, unless another refers to a name that is missing.
        waiting = [
            group for group in self._manifest.groups if not self._kept_names.issuperset(bound_names(group))
        ]
        while waiting:
            # A group may have failed because its objects' own code used a name that was not restored yet.
            left = [group for group in waiting if not self._load_group(group)]
            if len(left) == len(waiting):
                break
            waiting = left

    def _add_source(self, filename: str, content: BlobRefs) -> None:
        # Also if it is there: `CellSources` would remove that entry together with its code.
        try:
            source = manifest.join_blobs(content, self._blobs).decode("utf-8", "surrogatepass")
        except (LookupError, UnicodeError):
            return  # only the lines in tracebacks are missing
        linecache.cache[filename] = linecache_entry(filename, source)
        if not is_cell_file(filename):
            named_cell_files.add(filename)

    def _import_module(self, name: str, module: str) -> None:
        try:
            self.position.next(module)
            found = self._budget.run_untimed(import_module, module)
        except BaseException as error:  # the module's code may raise SystemExit as well
            if name not in self._untouched_names:
                self._namespace.pop(name, None)
            self._failures[name] = f"importing {module} failed: {self._describe(error)}"
        else:
            self._modules[name] = found
            if name not in self._untouched_names:
                self._namespace[name] = found

    def _load_group(self, group: NameGroup) -> bool:
        """Restore a group, if it is not restored yet; return whether it is now."""
        names = bound_names(group)
        first = names[0]
        if first in self._values:
            return True
        if first in self._loading:
            raise LookupError(f"{first!r} is needed to restore itself")
        if not self._is_loadable(group):
            self._fail(group, manifest.why_not_portable(self._manifest.python))
            return False
        self._loading.add(first)
        try:
            data = manifest.join_blobs(group.pickle, self._blobs)
            buffers = [manifest.join_blobs(content, self._blobs) for content in group.buffers]
            loader = NamespaceUnpickler(data, buffers, self._namespace, self, self._budget)
            values = {name: self._load_name(loader, name) for name in group.names}
        except BaseException as error:  # its code may raise SystemExit as well; no other code runs here
            self._fail(group, self._describe(error))
            return False
        finally:
            self._loading.discard(first)
        for name in names:
            self._values[name] = values[name]
            if name not in self._untouched_names:
                self._namespace[name] = values[name]
            self._failures.pop(name, None)
        return True

    def _is_loadable(self, group: NameGroup) -> bool:
        return group.portable or self._manifest.python == manifest.python_version()

    def _fail(self, group: NameGroup, reason: str) -> None:
        names = bound_names(group)
        self._failures |= dict.fromkeys(names, reason)
        for name in names:
            if name not in self._untouched_names:
                self._namespace.pop(name, None)

    def _load_name(self, loader: NamespaceUnpickler, name: str) -> object:
        self.position.next(name)
        return self._budget.run(loader.load)

    def _describe(self, error: BaseException) -> str:
        try:
            return self._budget.run(describe_restore_error, error)
        except BaseException:  # its `__str__` fails or takes too long
            return type_name(error)

    def __getitem__(self, name: str) -> object:
        """Return the value of a name, restored if it is not restored yet.

        Raises:
            LookupError: it can't be restored, or the session has no such name.
        """
        if name in self._kept_names and name in self._namespace:
            return self._namespace[name]
        group = self._groups.get(name)
        if group is not None and self._load_group(group):
            return self._values[name]
        if group is None and name in self._namespace:
            return self._namespace[name]  # a capability, for example
        live = self._live_object(name)
        if live is not None:
            return live
        reason = self._failures.get(name, "this session does not have it")
        raise LookupError(f"it needs {name!r}: {reason}")

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names that were saved."""
        return iter(self._groups)

    def __len__(self) -> int:
        """Return the number of names that were saved."""
        return len(self._groups)
