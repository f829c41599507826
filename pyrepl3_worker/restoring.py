"""A checkpoint on its way back into the namespace."""

import linecache
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker import manifest
from pyrepl3_worker.manifest import Content, Group, Manifest
from pyrepl3_worker.pickling import Loader
from pyrepl3_worker.reprs import encodable, type_name
from pyrepl3_worker.unsaveable import Unsaveable


class Restoring(Mapping[str, object]):
    """A checkpoint on its way back; as a mapping, it restores what is asked for first."""

    def __init__(self, namespace: dict[str, Any], found: Manifest, blobs: Mapping[str, bytes]) -> None:
        """Be about to fill `namespace`."""
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
            *self._values,
            *(name for name in self._manifest.modules if name not in self._reasons),
            *self._manifest.globals,
        ]

    def unsaved(self) -> list[Unsaved]:
        """What is not."""
        return [Unsaved(name, self._type_name(name), reason) for name, reason in self._reasons.items()]

    def _type_name(self, name: str) -> str:
        group = self._groups.get(name)
        return "module" if group is None else group.type_names[group.names.index(name)]

    def run(self) -> None:
        """Bring everything back that can be."""
        for filename, content in self._manifest.sources.items():
            self._add_source(filename, content)
        for name in self._manifest.globals:
            self._namespace[name] = self._namespace
        for name, module in self._manifest.modules.items():
            self._import(name, module)
        waiting = self._manifest.groups
        while waiting:
            # What fails may have wanted a name, in the objects' own code, that was not there yet.
            left = [group for group in waiting if not self._load(group)]
            if len(left) == len(waiting):
                break
            waiting = left

    def _add_source(self, filename: str, content: Content) -> None:
        if filename in linecache.cache:
            return
        try:
            source = manifest.take(content, self._blobs).decode("utf-8", "surrogatepass")
        except (LookupError, UnicodeError):
            return  # tracebacks will lack the lines, and nothing else
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)

    def _import(self, name: str, module: str) -> None:
        try:
            self._namespace[name] = import_module(module)
        except TimeoutError:
            raise  # a deadline's
        except Exception as error:
            self._namespace.pop(name, None)
            self._reasons[name] = f"importing {module} failed: {describe(error)}"

    def _load(self, group: Group) -> bool:
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
            loader = Loader(data, buffers, self._namespace, self)
            values = {name: loader.load() for name in group.names}
        except TimeoutError:
            raise  # a deadline's
        except Exception as error:
            self._reasons |= dict.fromkeys(group.names, describe(error))
            for name in group.names:
                self._namespace.pop(name, None)
            return False
        finally:
            self._loading.discard(first)
        self._values |= values
        self._namespace.update(values)
        for name in group.names:
            self._reasons.pop(name, None)
        return True

    def __getitem__(self, name: str) -> object:
        """Give what a name is bound to.

        Raises:
            LookupError: it can't be restored, or is nothing that the session has.
        """
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


def describe(error: Exception) -> str:
    """Give the reason that an exception is, also when its own text fails."""
    if isinstance(error, LookupError | Unsaveable) and error.args and type(error.args[0]) is str:
        return encodable(error.args[0])
    try:
        return encodable(f"{type_name(error)}: {error}")
    except Exception as second:
        return f"{type_name(error)} (its text raises {type_name(second)})"
