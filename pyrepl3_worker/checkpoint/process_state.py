"""Saves and restores the state of the process that no name holds: cwd, environment, random numbers, settings.

It is part of every checkpoint, and restored before the objects, whose imports then find what they found; and
once more after them, since a module that is imported may set it too. What is as it was when the session began
is not saved, and a restore puts it back to that.
"""

import sys
from _pickle import dumps, loads  # `pickle`, which the code may patch, imports much more
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import msgspec

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.checkpoint.initial_state import InitialState
from pyrepl3_worker.checkpoint.manifest import (
    BlobCollector,
    SavedState,
    join_blobs,
    python_version,
    why_not_portable,
)
from pyrepl3_worker.checkpoint.pickler import PROTOCOL, NamespacePickler, NamespaceUnpickler
from pyrepl3_worker.checkpoint.reducers import IN_CONTEXT
from pyrepl3_worker.checkpoint.scope import PicklerContext
from pyrepl3_worker.checkpoint.time_budget import TimeBudget
from pyrepl3_worker.checkpoint.unsaveable import describe_restore_error
from pyrepl3_worker.isolation.own_imports import is_loaded
from pyrepl3_worker.rendering.reprs import encodable, type_name

STATE_TYPE: Final = "process state"
"""What a report says in the place of a type."""
_DECIMAL_CONTEXT: Final = "decimal.getcontext()"

type _Pickled = tuple[bytes, list[memoryview], bool]
"""A pickle, its out-of-band buffers, and whether another Python may load it."""
type Report = Callable[[str, str], None]
"""Takes the name of a part of the state that can't be kept, and why."""


class Saver(msgspec.Struct, frozen=True, eq=False):
    """Saves and restores one part of the process's state."""

    name: str
    """What a report calls it: where a user finds it."""
    module: str
    """The module that has this state; while it is not imported there is none. Empty: always there."""
    save: Callable[[InitialState, Report], Any]
    """Returns plain data; None for the state that a fresh worker has."""
    restore: Callable[[Any, InitialState], None]
    """Takes what `save` has returned, None included."""
    holds_objects: bool = False
    """Whether the data may hold the session's own functions and objects, and is pickled as its names are."""


class _RegisteredSaver(msgspec.Struct, frozen=True, eq=False):
    save: Callable[[], Any]
    restore: Callable[[Any], None]


_registered: Final[dict[str, _RegisteredSaver]] = {}


def register(name: str, save: Callable[[], Any], restore: Callable[[Any], None]) -> None:
    """Have checkpoints keep a part of the process's state, such as the settings of a library.

    Both functions travel with the checkpoint, so they may be the session's own or a module's. A worker that
    takes the place of this one calls `restore` before it restores the session's names, and once more after
    them; it knows the registration from then on.

        from pyrepl3_worker.checkpoint.process_state import register
        register("mylib.settings", lambda: dict(mylib.settings), mylib.settings.update)

    Args:
        name: what reports call it; a second registration of the name replaces the first.
        save: returns the state, as something that pickles and is the same while the state is; None for
            nothing to keep.
        restore: called with what `save` has returned.

    Raises:
        TypeError: the name is no text, or one of the functions can't be called.
    """
    if type(name) is not str:
        raise TypeError(f"a part of the state has a text as its name, not {type_name(name)}")
    for function in (save, restore):
        if not callable(function):
            raise TypeError(f"{name!r} needs two functions, and one of them is {type_name(function)}")
    _registered[encodable(name)] = _RegisteredSaver(save, restore)


def call_in_place(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in the context that is there."""
    return function(*arguments)


class ProcessState:
    """Saves the state of this process into manifests, and restores it from them."""

    def __init__(
        self,
        start: InitialState,
        budget: TimeBudget,
        in_context: Callable[..., Any] = call_in_place,
    ) -> None:
        """Save what differs from `start`.

        Args:
            start: the state that the session began with.
            budget: limits the time that the code of a registered part may take.
            in_context: calls a function in the context that cells run in: decimal's and NumPy's settings
                are context variables.
        """
        self._start = start
        self._budget = budget
        self.in_context = in_context
        """Calls a function in the context that cells run in."""
        self._savers: dict[str, Saver] | None = None

    def _find_savers(self) -> dict[str, Saver]:
        if self._savers is None:
            from pyrepl3_worker.checkpoint import (
                interpreter_state,
                ipython_state,
                library_state,
                logging_state,
                runtime_state,
            )

            found = (
                *interpreter_state.SAVERS,
                *runtime_state.SAVERS,
                *logging_state.SAVERS,
                *library_state.SAVERS,
                *ipython_state.SAVERS,
            )
            self._savers = {saver.name: saver for saver in found}
        return self._savers

    def live_names(self) -> dict[int, str]:
        """Return the names that stand in pickles for what each worker has one of, by the objects' ids."""
        names = dict[int, str]()
        if _some_logger_has_a_handler():
            from pyrepl3_worker.checkpoint.logging_state import live_handlers

            names = {id(handler): name for name, handler in live_handlers().items()}
        if is_loaded("decimal"):
            names[id(self.live_object(_DECIMAL_CONTEXT))] = _DECIMAL_CONTEXT
        return names

    def live_object(self, name: str) -> object:
        """Return what this worker has under one of those names; None for any other name."""
        if name == IN_CONTEXT:
            return self.in_context
        if name.startswith("logging."):
            from pyrepl3_worker.checkpoint.logging_state import live_handlers

            return live_handlers().get(name)
        if name != _DECIMAL_CONTEXT:
            return None
        from decimal import getcontext

        return self.in_context(getcontext)

    # --- saving --------------------------------------------------------------------------------------

    def save(
        self, collector: BlobCollector, context: PicklerContext, failed: dict[str, str]
    ) -> list[SavedState]:
        """Return the state for a manifest; put into `failed` what can't be saved, and why."""
        saved: list[SavedState] = []
        for saver in self._find_savers().values():
            if saver.module and not is_loaded(saver.module):
                continue
            if saver.holds_objects:
                save_objects = self._pickle_objects
                pickled: Any = self._attempt(
                    saver.name, failed, self._budget.run_data, save_objects, saver, context, failed
                )
                if pickled is not None:
                    saved.append(_store_objects(saver.name, pickled, collector))
                continue
            data = self._save_one(saver, failed)
            if data is not None:
                saved.append(SavedState(saver.name, collector.add(data)))
        for name, registered in list(_registered.items()):
            pickled = self._attempt(
                name, failed, self._budget.run, self._pickle_registered, registered, context
            )
            if pickled is not None:
                saved.append(_store_objects(name, pickled, collector, own=True))
        return saved

    def _save_one(self, saver: Saver, failed: dict[str, str]) -> bytes | None:
        def save() -> bytes | None:
            value = saver.save(self._start, failed.__setitem__)
            return None if value is None else dumps(value, PROTOCOL)

        return self._attempt(saver.name, failed, self._budget.run_data, self.in_context, save)

    def _pickle_objects(
        self, saver: Saver, context: PicklerContext, failed: dict[str, str]
    ) -> _Pickled | None:
        value = self.in_context(saver.save, self._start, failed.__setitem__)
        return None if value is None else _pickle(value, context)

    def _pickle_registered(self, registered: _RegisteredSaver, context: PicklerContext) -> _Pickled | None:
        value = self.in_context(registered.save)
        return None if value is None else _pickle((registered.save, registered.restore, value), context)

    def _attempt[**P, R](
        self, name: str, failed: dict[str, str], function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R | None:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # a setting's own code may raise SystemExit as well
            failed[name] = self._describe(error)
            return None

    def _describe(self, error: BaseException) -> str:
        try:
            return self._budget.run(describe_restore_error, error)
        except BaseException:  # its `__str__` fails or takes too long
            return type_name(error)

    # --- restoring -----------------------------------------------------------------------------------

    def restore(
        self,
        saved: list[SavedState],
        blobs: Mapping[str, bytes],
        namespace: dict[str, Any],
        names: Mapping[str, object],
        saved_by: str,
    ) -> dict[str, str]:
        """Make the process's state what it was; return what could not be restored, by name, and why.

        Args:
            saved: the manifest's.
            blobs: blobs by their digests.
            namespace: the live namespace, for the functions of registered parts.
            names: restores a name of the namespace when it is asked for it.
            saved_by: the version of Python that has saved it.
        """
        failed: dict[str, str] = {}
        found = {state.name: state for state in saved if not state.own}
        for saver in self._find_savers().values():
            state = found.pop(saver.name, None)
            if state is None:
                if not saver.module or is_loaded(saver.module):
                    arguments = (self.in_context, saver.restore, None, self._start)
                    self._attempt(saver.name, failed, self._budget.run_data, *arguments)
            elif saver.holds_objects and not state.portable and saved_by != python_version():
                failed[saver.name] = why_not_portable(saved_by)
            elif saver.holds_objects:
                load = self._restore_objects
                self._attempt(
                    saver.name, failed, self._budget.run_data, load, saver, state, blobs, namespace, names
                )
            elif self._import(saver, failed):
                self._attempt(
                    saver.name, failed, self._budget.run_data, self._restore_one, saver, state, blobs
                )
        failed |= dict.fromkeys(found, "this worker does not know it")
        for state in saved:
            if state.own and not state.portable and saved_by != python_version():
                failed[state.name] = why_not_portable(saved_by)
            elif state.own:
                restore_own = self._restore_registered
                self._attempt(
                    state.name, failed, self._budget.run, restore_own, state, blobs, namespace, names
                )
        return failed

    def _import(self, saver: Saver, failed: dict[str, str]) -> bool:
        if saver.module and not is_loaded(saver.module):
            try:
                self._budget.run_untimed(import_module, saver.module)
            except BaseException as error:
                failed[saver.name] = f"importing {saver.module} failed: {self._describe(error)}"
                return False
        return True

    def _restore_one(self, saver: Saver, state: SavedState, blobs: Mapping[str, bytes]) -> None:
        data = bytes(join_blobs(state.data, blobs))
        ignored: dict[str, str] = {}
        present = self.in_context(saver.save, self._start, ignored.__setitem__)
        if present is None or dumps(present, PROTOCOL) != data:
            self.in_context(saver.restore, loads(data), self._start)

    def _restore_objects(
        self,
        saver: Saver,
        state: SavedState,
        blobs: Mapping[str, bytes],
        namespace: dict[str, Any],
        names: Mapping[str, object],
    ) -> None:
        self.in_context(saver.restore, self._load(state, blobs, namespace, names), self._start)

    def _load(
        self,
        state: SavedState,
        blobs: Mapping[str, bytes],
        namespace: dict[str, Any],
        names: Mapping[str, object],
    ) -> Any:
        buffers = [join_blobs(content, blobs) for content in state.buffers]
        return NamespaceUnpickler(
            join_blobs(state.data, blobs), buffers, namespace, names, self._budget
        ).load()

    def _restore_registered(
        self,
        state: SavedState,
        blobs: Mapping[str, bytes],
        namespace: dict[str, Any],
        names: Mapping[str, object],
    ) -> None:
        save, restore, value = self._load(state, blobs, namespace, names)
        register(state.name, save, restore)
        self.in_context(restore, value)


def _some_logger_has_a_handler() -> bool:
    library: Any = sys.modules.get("logging")
    if library is None:
        return False
    loggers: list[Any] = [library.root, *library.root.manager.loggerDict.values()]
    fields: list[dict[str, Any]] = [vars(each) for each in loggers]
    return any(each.get("handlers") for each in fields)


def _pickle(value: object, context: PicklerContext) -> _Pickled:
    pickler = NamespacePickler(context, frozenset())
    pickler.dump(value)
    return pickler.data, pickler.buffers, pickler.is_portable(set(map(type, pickler.seen)))


def _store_objects(
    name: str, pickled: _Pickled, collector: BlobCollector, *, own: bool = False
) -> SavedState:
    data, buffers, portable = pickled
    kept = [collector.add(each) for each in buffers]
    saved = SavedState(name, collector.add(data), kept, own=own, portable=portable)
    for buffer in buffers:
        buffer.release()
    return saved


def describe_state(failed: Mapping[str, str]) -> Iterator[Unsaved]:
    """Return what a report says of the parts that could not be saved or restored."""
    return (Unsaved(encodable(name), STATE_TYPE, encodable(reason)) for name, reason in failed.items())
