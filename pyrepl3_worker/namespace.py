"""The session's one live namespace: the dict of the module `__main__`, never copied, never replaced.

So functions, classes, comprehensions and recursion all see it, and what a cell defines pickles by name.
"""

import sys
from collections import deque
from collections.abc import Collection, Mapping
from itertools import islice
from sys import getsizeof
from types import FunctionType, MappingProxyType, MethodDescriptorType, ModuleType
from typing import Any, Final, Literal, cast

from pyrepl3_worker.errors import NamespaceError

type ExecutionContext = Literal["async", "thread", "sync"]

MODULE_KEYS: Final = frozenset(
    {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__", "__annotations__"}
)
CODE_MODULE_KEYS: Final = frozenset({"__doc__", "__annotations__"})
"""Those of MODULE_KEYS that a module's code sets itself."""
_LAST_EXCEPTION: Final = "_last_exception"
ENGINE_INTERNALS: Final = frozenset({"_", "__", "___", "_i", "_ii", "_iii", "In", "Out"})
RESULT_NAMES: Final = ("_", "__", "___")
_OUT_LIMIT: Final = 1000
_OUT_BYTES: Final = 64 * 1024 * 1024
_LARGE_BYTES: Final = 4096
"""Results that are smaller are not counted."""
_IN_LIMIT: Final = 10_000
_SMALL_TYPES: Final = frozenset({int, float, bool, complex})
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset, deque})
_SIZED_TYPES: Final = frozenset({*_SMALL_TYPES, *_CONTAINERS, str, bytes, bytearray, type(None)})
_SAMPLE: Final = 10_000
"""Members of a container that are looked at for its size."""


def estimated_size(value: object) -> int:
    """Return about how many bytes a value takes, with its members if it is a built-in container.

    Args:
        value: anything; nothing that the session's own code defines is called, since it may never return.
    """
    try:
        size = _own_size(value)
        if type(value) not in _CONTAINERS:
            return size
    except Exception:  # a metaclass of the code's own forbids a hash
        return 0
    container = cast("Any", value)
    members: Collection[Any] = container.values() if type(value) is dict else container
    try:
        count = len(members)
        sample = sum(map(_own_size, islice(members, _SAMPLE)))
    except Exception:
        return size  # another thread changes it; or as above
    return size + (sample if count <= _SAMPLE else sample * count // _SAMPLE)


def _own_size(value: object) -> int:
    kind = type(value)
    if kind in _SIZED_TYPES:
        return getsizeof(value)
    # Not by attribute: a metaclass of the code's own may answer for it.
    for base in type.__dict__["__mro__"].__get__(kind):
        method = type.__dict__["__dict__"].__get__(base).get("__sizeof__")
        if method is not None:
            if type(method) is FunctionType and method.__module__ != "__main__":
                break  # a library's, such as that of pandas
            if type(method) is MethodDescriptorType:
                break
            return object.__sizeof__(value)
    try:
        return getsizeof(value)
    except Exception:
        return 0


class _BoundedOut(dict[int, Any]):
    """`Out`: results by cell number. The oldest are dropped, so that memory does not grow with use.

    At most 1,000 are kept, and of the large ones 64 MiB, by estimate; the newest always.
    """

    __slots__ = ("_large", "_numbers")

    def __init__(self) -> None:
        super().__init__()
        # Beside the dict, whose own first key is found by passing over all that were deleted before it.
        self._numbers: deque[int] = deque()
        self._large: dict[int, int] = {}
        """Bytes of the large results, by number, the oldest first."""

    def __setitem__(self, number: int, value: Any) -> None:
        if number not in self:
            self._numbers.append(number)
        super().__setitem__(number, value)
        self._bound_size(number, value)
        if len(self) > _OUT_LIMIT or len(self._numbers) > 2 * _OUT_LIMIT:
            self._shrink()

    def record(self, number: int, value: Any) -> None:
        """Set the result of a cell that is newer than all others."""
        numbers = self._numbers
        numbers.append(number)
        super().__setitem__(number, value)
        kind = cast("type[object]", type(value))
        if not (kind is int or kind is float or kind is bool or kind is complex):
            self._bound_size(number, value)
        size = len(self)
        if size > _OUT_LIMIT:
            if size == len(numbers):
                self.pop(numbers.popleft(), None)
            if len(self) > _OUT_LIMIT:
                self._shrink()
        elif len(numbers) > 2 * _OUT_LIMIT:
            self._shrink()

    def __reduce__(self) -> tuple[type, tuple[dict[int, Any]]]:
        """Pickle and copy as a plain dict, which is not bounded."""
        return dict, (dict(self),)

    def _bound_size(self, number: int, value: Any) -> None:
        large = self._large
        large.pop(number, None)
        size = estimated_size(value)
        if size < _LARGE_BYTES:
            return
        large[number] = size
        if sum(large.values()) <= _OUT_BYTES:
            return
        # The code may have deleted some.
        large = self._large = {number: size for number, size in large.items() if number in self}
        total = sum(large.values())
        for oldest in list(large):
            if total <= _OUT_BYTES or oldest == number:
                break
            total -= large.pop(oldest)
            self.pop(oldest, None)

    def _shrink(self) -> None:
        numbers = self._numbers
        if len(numbers) > 2 * _OUT_LIMIT:
            numbers = self._numbers = deque(self)
        while len(self) > _OUT_LIMIT:
            if len(numbers) != len(self):
                # The code has deleted some, or set them by `update`.
                numbers = self._numbers = deque(self)
            self.pop(numbers.popleft(), None)


class _RecentValues:
    """The newest three of a kind, bound to three names until the code binds those to something else."""

    __slots__ = ("_bound_by_code", "_namespace", "names", "values")

    def __init__(self, namespace: dict[str, Any], newest: str, middle: str, oldest: str) -> None:
        """Bind the names to empty strings."""
        self._namespace = namespace
        self.names = newest, middle, oldest
        self.values: tuple[Any, Any, Any] = ("", "", "")
        self._bound_by_code: set[str] = set()
        namespace.update(dict.fromkeys(self.names, ""))

    def push(self, value: object) -> None:
        """Make `value` the newest and drop the oldest."""
        namespace, (newest, middle, oldest), (first, second, third) = self._namespace, self.names, self.values
        self.values = value, first, second
        if (
            not self._bound_by_code
            and namespace.get(newest) is first
            and namespace.get(middle) is second
            and namespace.get(oldest) is third
        ):
            # The code has bound none of the three, as is nearly always so.
            namespace[newest], namespace[middle], namespace[oldest] = value, first, second
            return
        for name, was, now in zip(self.names, (first, second, third), self.values, strict=True):
            if name in self._bound_by_code:
                if name in namespace:
                    continue
                # The code has deleted it, which is how one gets the session's back.
                self._bound_by_code.discard(name)
                namespace[name] = now
            elif namespace.get(name) is was:
                namespace[name] = now
            else:
                self._bound_by_code.add(name)


class NamespaceManager:
    """Owns the namespace and the engine internals in it (`_ __ ___ _i _ii _iii In Out`).

    A name that the code itself has bound to something else is left alone from then on, as IPython
    does.
    """

    def __init__(
        self, initial: Mapping[str, object] | None = None, *, module: ModuleType | None = None
    ) -> None:
        """Use the dict of a module.

        Args:
            initial: names to bind at once.
            module: whose dict to use; None for a new module called `__main__`.
        """
        self.module = module if module is not None else ModuleType("__main__")
        self.namespace: dict[str, Any] = self.module.__dict__
        self.namespace.setdefault("__builtins__", sys.modules["builtins"])
        self.hidden_names = MODULE_KEYS | ENGINE_INTERNALS | {_LAST_EXCEPTION}
        """Names in it that are not the code's own."""
        self._inputs: list[str] = [""]
        self._outputs = _BoundedOut()
        self.namespace.update(In=self._inputs, Out=self._outputs)
        self._recent_inputs = _RecentValues(self.namespace, "_i", "_ii", "_iii")
        self._recent_results = _RecentValues(self.namespace, *RESULT_NAMES)
        if initial is not None:
            self.namespace.update(initial)

    def install(self) -> None:
        """Make the module the process's `__main__`."""
        sys.modules["__main__"] = self.module

    def hide(self, names: frozenset[str]) -> None:
        """Count further names as not the code's own.

        Args:
            names: what the session itself binds in the namespace.
        """
        self.hidden_names |= names

    def get_for_execution(self, context: ExecutionContext = "async") -> dict[str, Any]:
        """Return the live dict. Every context runs in the same one; nothing is copied.

        Args:
            context: where the code would run; of no effect.

        Returns:
            The namespace itself.
        """
        del context
        return self.namespace

    def update_namespace(self, updates: Mapping[str, object], source_context: str = "") -> None:
        """Bind names.

        Args:
            updates: values by name.
            source_context: who binds them, for the error's text.

        Raises:
            NamespaceError: a name is no string.
        """
        for name in updates:
            if type(name) is not str:
                raise NamespaceError(f"{source_context or 'update'}: a name must be a str, not {name!r}")
        self.namespace.update(updates)

    def merge_thread_results(
        self, results: Mapping[str, object], original: Mapping[str, object] | None = None
    ) -> set[str]:
        """Bind what differs between `results` and `original`, by identity.

        Code on the blocking thread runs in the live dict, so there is nothing to merge then; this is
        for a caller that ran code over a copy.

        Args:
            results: the copy after the run.
            original: the copy before it; without it nothing counts as changed.

        Returns:
            The names that were bound.

        Raises:
            NamespaceError: a name is no string.
        """
        before = self.namespace if original is None or original is results else original
        missing = object()
        changed = {
            name
            for name, value in results.items()
            if name not in MODULE_KEYS and before.get(name, missing) is not value
        }
        self.update_namespace({name: results[name] for name in changed}, source_context="thread")
        return changed

    def get_snapshot(self) -> Mapping[str, Any]:
        """Return a read-only shallow copy of the code's own names.

        Returns:
            Values by name, without a module's own keys and the engine internals.
        """
        hidden = MODULE_KEYS | ENGINE_INTERNALS
        return MappingProxyType({name: value for name, value in self.namespace.items() if name not in hidden})

    # --- the history as a whole, for checkpoints ----------------------------------------------------------

    @property
    def inputs(self) -> list[str]:
        """The sources of the cells by number: what `In` is bound to unless the code binds it anew."""
        return self._inputs

    @property
    def outputs(self) -> dict[int, Any]:
        """The results of the cells by number: what `Out` is bound to unless the code binds it anew."""
        return self._outputs

    def recent_result(self, name: str) -> Any:
        """Return one of the last three results, whatever the code has bound to its name.

        Args:
            name: one of RESULT_NAMES: `_`, `__` or `___`.
        """
        return self._recent_results.values[RESULT_NAMES.index(name)]

    def names_bound_by_code(self) -> frozenset[str]:
        """Return the engine internals that the code itself has bound to something else."""
        ours: dict[str, Any] = {"In": self._inputs, "Out": self._outputs}
        for recent in (self._recent_inputs, self._recent_results):
            ours.update(zip(recent.names, recent.values, strict=True))
        namespace = self.namespace
        return frozenset(name for name, value in ours.items() if namespace.get(name, value) is not value)

    def restore_history(
        self, inputs: list[str], outputs: Mapping[int, Any], recent: Mapping[str, object]
    ) -> None:
        """Replace the history by another worker's.

        Args:
            inputs: sources by cell number.
            outputs: results by cell number.
            recent: the last results by their RESULT_NAMES.
        """
        overridden = self.names_bound_by_code()
        self._inputs[:] = inputs or [""]
        self._outputs.clear()
        for number, value in outputs.items():
            self._outputs[number] = value
        first, second, third = [*reversed(inputs[-4:-1]), "", "", ""][:3]
        self._recent_inputs.values = first, second, third
        first, second, third = (recent.get(name, "") for name in RESULT_NAMES)
        self._recent_results.values = first, second, third
        for kind in (self._recent_inputs, self._recent_results):
            for name, value in zip(kind.names, kind.values, strict=True):
                if name not in overridden:
                    self.namespace[name] = value

    # --- recording -----------------------------------------------------------------------------------------

    def record_input(self, source: str) -> int:
        """Append a cell's source to `In`.

        Args:
            source: the source as it was submitted.

        Returns:
            The cell's number.
        """
        inputs = self._inputs
        self._recent_inputs.push(inputs[-1] if inputs else "")
        inputs.append(source)
        if len(inputs) > _IN_LIMIT:
            # The numbers stay right, the oldest source is dropped.
            inputs[-_IN_LIMIT] = ""
        return len(inputs) - 1

    def record_output(self, number: int, value: object) -> None:
        """Record a cell's value in `Out` and `_`.

        Args:
            number: the cell's number.
            value: its value; None is not recorded.
        """
        if value is None or value is self._outputs:
            return
        self._recent_results.push(value)
        self._outputs.record(number, value)
