"""Functions and classes of the session in other processes, which `multiprocessing` starts.

It pickles them by name, and a process that is not forked finds no such names: its `__main__` is not the
session's. So what the session has defined is sent by value, with the globals that it uses, and becomes
part of the other process's `__main__`; what comes back from there is pickled by name again.
"""

import dis
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from operator import call, getitem
from pickle import PicklingError
from runpy import run_path
from types import CodeType, FunctionType
from typing import Any, Final, cast

from pyrepl3_worker.checkpoint.by_value import PickledAs, ReduceValue, class_member
from pyrepl3_worker.checkpoint.pickler import NamespacePickler
from pyrepl3_worker.checkpoint.received import receive, receive_definition, remember
from pyrepl3_worker.checkpoint.scope import PicklerContext
from pyrepl3_worker.isolation.lending import lent_folders

_MAX_ROUNDS: Final = 100
"""Each finds globals of what the one before has found."""


class DefinitionSender:
    """Pickles what the session has defined for other processes."""

    def __init__(self, namespace: dict[str, Any], hidden: frozenset[str]) -> None:
        """Send from `namespace`; names in `hidden` are the session's own and not sent."""
        self._namespace = namespace
        self._hidden = hidden
        self._pid = os.getpid()

    def reduce(self, value: Any, reducers: dict[type, Callable[[Any], Any]]) -> Any:
        """Return how to pickle an object that is about to be sent; NotImplemented for pickle's own way.

        Args:
            value: a function or class.
            reducers: by type, `multiprocessing`'s own ways.

        Raises:
            PicklingError: it cannot be sent.
        """
        context = PicklerContext(self._namespace, self._visible())
        if not context.is_definition(value):
            return NotImplemented
        for kind, reduce in reducers.items():
            context.reducers_by_type[kind] = _as_reducer(reduce)
        data, buffers = self._pickle(context, value)
        folders = lent_folders()
        if not folders:
            return receive, (data, buffers)
        # Nothing of the worker's is found by name there: a script of its is run by its path.
        script = PickledAs((run_path, (f"{folders['pyrepl3_worker']}/isolation/lent_start.py",)))
        found = PickledAs((getitem, (script, "receive")))
        return call, (found, folders, data, buffers)

    def _visible(self) -> dict[str, Any]:
        return {name: value for name, value in list(self._namespace.items()) if name not in self._hidden}

    def _pickle(self, context: PicklerContext, value: Any) -> tuple[bytes, list[bytearray]]:
        """Pickle a definition with the globals that it uses, and those that they use."""
        names: set[str] = set()
        not_sent: dict[str, str] = {}
        owner = context.find_definition(value)
        if owner is not None:
            names.add(owner[0])  # so that its instances can be pickled there by its name
        for _ in range(_MAX_ROUNDS):
            sent = {name: self._namespace[name] for name in sorted(names - not_sent.keys())}
            try:
                pickler = _dump(context, self._pid, (value, sent, not_sent))
            except Exception as error:
                refused = self._find_refused(context, sent)
                if not refused:
                    raise PicklingError(
                        f"{value.__qualname__} cannot be sent to another process: {error}"
                    ) from error
                not_sent |= refused
                continue
            needed = self._globals_of(pickler.functions) - names
            if not needed:
                return pickler.data, pickler.copied_buffers()
            names |= needed
        raise PicklingError(f"{value.__qualname__} uses too many globals to be sent to another process")

    def _find_refused(self, context: PicklerContext, sent: dict[str, Any]) -> dict[str, str]:
        """Return which of these names cannot be sent, with the reasons."""
        refused: dict[str, str] = {}
        for name, value in sent.items():
            try:
                _dump(context, self._pid, value)
            except Exception as error:
                refused[name] = str(error) or type(error).__name__
        return refused

    def _globals_of(self, functions: Iterable[FunctionType]) -> set[str]:
        """Return the names of the session that functions use."""
        names: set[str] = set()
        for function in functions:
            if function.__globals__ is self._namespace:
                names |= global_names(function.__code__)
        return {name for name in names if name in self._namespace and name not in self._hidden}


class _SendingPickler(NamespacePickler):
    """Pickles each definition that has a name in the session for itself, so that it is one object there."""

    def __init__(self, context: PicklerContext, pid: int, outer: tuple[str, ...] = ()) -> None:
        """Pickle for other processes than `pid`; `outer` are the names of what is being pickled."""
        super().__init__(context, frozenset(outer[-1:]))
        self._pid = pid
        self._outer = outer
        self._inner: dict[str, ReduceValue] = {}
        self._inner_functions: list[FunctionType] = []

    @property
    def functions(self) -> list[FunctionType]:
        """The functions that were pickled, those of other definitions included."""
        own = [value for value in self.seen if type(value) is FunctionType]
        return own + self._inner_functions

    def copied_buffers(self) -> list[bytearray]:
        """Return the memory of arrays, which can be changed there."""
        return [bytearray(buffer) for buffer in self.buffers]

    def reference_by_name(self, value: FunctionType | type) -> ReduceValue | None:
        """Return how to make a definition of another name; None if it is a part of this one."""
        owner = self.context.find_definition(value)
        if owner is None or owner[0] in self._outer[-1:]:
            return None
        name, path = owner
        if name in self._outer:
            raise PicklingError(f"{name} and {self._outer[-1]} hold one another")
        reduced = self._inner.get(name)
        if reduced is None:
            reduced = self._inner[name] = self._reduce_definition(name)
        return (class_member, (PickledAs(reduced), ".".join(path))) if path else reduced

    def _reduce_definition(self, name: str) -> ReduceValue:
        value = self.context.namespace[name]
        pickler = _dump(self.context, self._pid, value, (*self._outer, name))
        self._inner_functions += pickler.functions
        data, buffers = pickler.data, pickler.copied_buffers()
        digest = blake2b(data, digest_size=16)
        for buffer in buffers:
            digest.update(buffer)
        remember(digest.digest(), value)
        return receive_definition, (name, self._pid, id(value), digest.digest(), data, buffers)


def _dump(context: PicklerContext, pid: int, value: Any, outer: tuple[str, ...] = ()) -> _SendingPickler:
    pickler = _SendingPickler(context, pid, outer)
    pickler.dump(value)
    return pickler


def _as_reducer(reduce: Callable[[Any], Any]) -> Callable[[object, Any], Any]:
    return lambda _, value: reduce(value)


@lru_cache(maxsize=4096)
def global_names(code: CodeType) -> frozenset[str]:
    """Return the names of globals that a code object reads, those of the functions inside of it included."""
    names = {
        cast(str, instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= global_names(constant)
    return frozenset(names)
