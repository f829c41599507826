"""Loads once, in a forked child, what a checkpoint is about to call saved.

A `__setstate__` or a `__reduce__`'s maker may fail where pickling did not, unnoticed before the restore. So
what only foreign code can load is loaded in trial, and what fails is reported as not saved.

- Which groups: those that are new or changed (or whose definitions are), and hold an object whose load
  calls methods of the session's classes or of a library outside of `foreign_code.TRUSTED`. Plain data, and
  instances that are made without their own code, need no trial. An unchanged namespace is not tried again.
- Why a child, never here: that code may start threads, count itself in a registry, draw random numbers; its
  copies' `__del__` may remove the files of the live objects. A child's memory is its own, and it ends by
  `os._exit`. Hooks of the code's own for forks (`os.register_at_fork`) run here, as at any fork.
- Where no child is possible, nothing is tried and nothing is claimed: beside Python threads that are not the
  worker's (one of them inside BLAS would hold the fork up for ever; its locks would stand still) and beside
  GPU contexts and libraries that do not bear a fork. Idle threads of BLAS end before a fork by its handlers.
- Into what: a namespace of its own, never the live one. What the code looks up is loaded on demand from the
  same checkpoint (`_Namespace`), so a helper that is not saved is missed here as it would be after a death.
- The outside stays untouched: all fds but the report's are closed, stdin, stdout and stderr are /dev/null,
  and an audit hook refuses what is not known to stay inside (`_HARMLESS_EVENTS`; reading files is, writing
  and connecting are not), and imports of libraries, which take as long as they take. What wanted out is
  *undecided*: it stays saved, since a restore may well succeed. So does what ran out of memory, which a copy
  beside the original may.
- Time: that of objects' own code in saving. A load that takes longer is killed, and reported as slow.
"""

import builtins
import gc
import os
import select
import signal
import sys
from asyncio import events
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from threading import get_ident
from time import monotonic  # by name: the code may replace it
from types import FrameType, FunctionType, ModuleType
from typing import Any, Final, NoReturn

import msgspec

import pyrepl3_worker
from pyrepl3_worker.checkpoint.digests import sha256
from pyrepl3_worker.checkpoint.manifest import BlobCollector, NameGroup
from pyrepl3_worker.checkpoint.pickler import NamespacePickler, NamespaceUnpickler
from pyrepl3_worker.checkpoint.process_state import ProcessState
from pyrepl3_worker.checkpoint.save import CheckpointWriter, PickledGroup
from pyrepl3_worker.checkpoint.scope import belongs_to_worker
from pyrepl3_worker.checkpoint.time_budget import TimeBudget, describe_excess
from pyrepl3_worker.checkpoint.unsaveable import describe_restore_error
from pyrepl3_worker.rendering.reprs import type_name

_HARMLESS_EVENTS: Final = frozenset(
    {
        "_thread.start_joinable_thread", "_thread.start_new_thread", "array.__new__", "builtins.id",
        "code.__new__", "compile", "exec", "function.__new__", "gc.get_objects", "gc.get_referents",
        "gc.get_referrers", "marshal.dumps", "marshal.load", "marshal.loads", "object.__delattr__",
        "object.__getattr__", "object.__setattr__", "os.listdir", "os.scandir", "os.walk",
        "pickle.find_class", "sys._current_frames", "sys._getframe", "sys._getframemodulename",
        "sys.excepthook", "sys.unraisablehook", "time.sleep",
    }
)  # fmt: skip
"""Audit events (PEP 578) of what leaves nothing behind when the process is gone."""
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER_FORKED: Final = frozenset({"cupy", "grpc", "jax", "tensorflow"})
_OUR_THREADS: Final = frozenset({pyrepl3_worker.__name__.partition(".")[0], "threading"})
_FATAL_SIGNALS: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
)
_POLL_SECONDS: Final = 0.2
_ORPHAN_SECONDS: Final = 60
"""After which a child ends whose parent has died."""
_encode: Final = msgspec.msgpack.Encoder().encode


class Verdict(msgspec.Struct, frozen=True):
    """What a trial has found out about a group."""

    reason: str = ""
    """Why it can't be loaded; empty if it can, or if that can't be told here."""
    seconds: float = 0.0
    """How long it took, where it was stopped."""


class _Report(msgspec.Struct, array_like=True):
    """A line of a child's report: a group is begun (no outcome), loaded, undecided, or failed.

    Before "failed" comes "describing", since its text is made by the code too.
    """

    index: int
    outcome: str = ""
    reason: str = ""


_decode: Final = msgspec.msgpack.Decoder(_Report).decode


def try_to_load(
    groups: Sequence[PickledGroup],
    all_groups: Sequence[PickledGroup],
    writer: CheckpointWriter,
    hidden: frozenset[str],
    budget: TimeBudget,
    process_state: ProcessState | None,
) -> list[Verdict]:
    """Load groups in a child process; return a verdict for each, in their order.

    Args:
        groups: what is loaded.
        all_groups: all that were pickled, for what `groups` refers to.
        writer: knows the names that were not pickled anew.
        hidden: names that every worker's namespace has.
        budget: has the time that objects' own code may take.
        process_state: knows what each worker has one of.

    Returns:
        Fewer verdicts than groups, or none, where this process can't be forked now.
    """
    verdicts: list[Verdict] = []
    while len(verdicts) < len(groups):
        if not _may_fork():
            break
        names = _Names(all_groups, writer, hidden, process_state)
        found = _run_child(groups[len(verdicts) :], names, budget)
        if not found:
            break
        verdicts += found
    return verdicts


def trial_keys(
    groups: Sequence[PickledGroup],
    all_groups: Sequence[PickledGroup],
    writer: CheckpointWriter,
    unchanged: Mapping[str, NameGroup],
) -> list[bytes]:
    """Return for each group a digest of what its loading depends on: itself, definitions, and modules.

    What its code looks up besides, a variable, is not in it: a group is not loaded again when that changes.
    """
    context = writer.context
    collector = BlobCollector(())
    definitions = {name: refs.pickle for name, refs in unchanged.items()}
    for group in all_groups:
        if any(context.is_definition(writer.values[name]) for name in group.names):
            definitions |= dict.fromkeys(group.names, collector.add(group.data))
    found = {name: refs for name, refs in definitions.items() if context.is_definition(writer.values[name])}
    common = sha256(_encode((sorted(found.items()), sorted(writer.modules)))).digest()
    keys: list[bytes] = []
    for group in groups:
        digest = sha256(group.data)
        digest.update(common)
        digest.update(_encode(group.names))
        keys.append(digest.digest())
    return keys


def _may_fork() -> bool:
    if not _NEVER_FORKED.isdisjoint(sys.modules):
        return False
    cuda = sys.modules.get("torch.cuda")
    if cuda is not None and vars(cuda).get("_initialized"):
        return False
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - its documented name
    return all(ident == get_ident() or _is_ours(frame) for ident, frame in frames.items())


def _is_ours(frame: FrameType | None) -> bool:
    while frame is not None:
        name: object = frame.f_globals.get("__name__")
        if type(name) is not str or name.partition(".")[0] not in _OUR_THREADS:
            return False
        frame = frame.f_back
    return True


# --- the parent's side ----------------------------------------------------------------------------------


def _run_child(groups: Sequence[PickledGroup], names: "_Names", budget: TimeBudget) -> list[Verdict]:
    """Load groups in a child; return verdicts up to and with the group that ended it, if one did."""
    reading, writing = os.pipe()
    loop = events._get_running_loop()  # pyright: ignore[reportPrivateUsage] - also where there is none
    started = monotonic()
    share = budget.share()
    try:
        pid = _fork_without_warning()
    except (OSError, RuntimeError):  # no more processes or memory
        os.close(reading)
        os.close(writing)
        return []
    if pid == 0:
        _be_child(groups, names, writing, loop)
    os.close(writing)
    killed, status = True, 0
    try:
        data, killed = _read_report(reading, pid, share)
    finally:
        os.close(reading)
        if killed:
            os.kill(pid, signal.SIGKILL)
        try:
            status = os.waitpid(pid, 0)[1]
        except ChildProcessError:
            status = signal.SIGKILL  # the code reaps all children: its status is unknown
        taken = monotonic() - started
        budget.charge(taken)
    return _read_verdicts(data, status, describe_excess(share) if killed else "", taken)


def _fork_without_warning() -> int:
    """Fork. Python warns of threads, also of ours, and the code may have made errors of warnings."""
    warnings: Any = sys.modules["warnings"]
    filters = warnings.filters
    warnings.filters = [("ignore", None, DeprecationWarning, None, 0)]
    try:
        return os.fork()
    finally:
        warnings.filters = filters


def _read_report(fd: int, pid: int, seconds: float) -> tuple[bytes, bool]:
    """Read until the child has ended; return what it said, and whether it took too long."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    deadline = monotonic() + seconds
    parts: list[bytes] = []
    waited = 0.0
    while True:
        if poller.poll(_POLL_SECONDS * 1000):
            part = os.read(fd, 65536)
            if not part:
                return b"".join(parts), False
            parts.append(part)
        elif monotonic() >= deadline:
            # The time in which it only waited for a processor does not count.
            total = _seconds_without_processor(pid)
            if total - waited < _POLL_SECONDS:
                return b"".join(parts), True
            deadline += total - waited
            waited = total


def _seconds_without_processor(pid: int) -> float:
    try:
        fd = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0.0
    try:
        return int(os.read(fd, 256).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
    finally:
        os.close(fd)


def _read_verdicts(data: bytes, status: int, excess: str, taken: float) -> list[Verdict]:
    verdicts: list[Verdict] = []
    last = _Report(0, "loaded")
    file = BytesIO(data)
    while len(size := file.read(4)) == 4 and len(line := file.read(int.from_bytes(size))) > 0:
        last = _decode(line)
        if last.outcome not in ("", "describing"):
            verdicts.append(Verdict(last.reason))
    if last.outcome == "describing":
        verdicts.append(Verdict(last.reason, taken))
    elif not last.outcome and excess:
        verdicts.append(Verdict(excess, taken))
    elif not last.outcome:
        verdicts.append(Verdict(_describe_end(status)))
    return verdicts


def _describe_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in _FATAL_SIGNALS:
            return ""  # killed from outside, or memory was short
        return f"loading it ends the process ({signal.Signals(number).name})"
    return f"loading it ends the process (exit code {os.waitstatus_to_exitcode(status)})"


# --- the child's side -----------------------------------------------------------------------------------


class _LeavesProcess(BaseException):
    """Code in a trial wanted to do something whose effect outlasts the process."""


class _Guard:
    """Refuses what reaches out of the process, and remembers that it was tried."""

    def __init__(self) -> None:
        self.refused = False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _HARMLESS_EVENTS or event.startswith("cpython."):
            return
        if event == "import" and arguments[0].partition(".")[0] in sys.stdlib_module_names:
            return
        if event == "open" and not (type(arguments[2]) is int and arguments[2] & _WRITING):
            return
        self.refuse()

    def refuse(self, *_: object, **__: object) -> NoReturn:
        self.refused = True
        raise _LeavesProcess


def _be_child(groups: Sequence[PickledGroup], names: "_Names", report_fd: int, loop: Any) -> NoReturn:
    try:
        gc.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_ORPHAN_SECONDS)
        signal.set_wakeup_fd(-1)
        _close_all_but(report_fd)
        events._set_running_loop(loop)  # pyright: ignore[reportPrivateUsage] - forks lose it, restores have it
        guard = _Guard()
        for name, value in list(vars(builtins).items()):
            if not name.startswith("__") and belongs_to_worker(value):
                setattr(builtins, name, guard.refuse)
        namespace = names.enter()
        kept: list[object] = [sys.modules.get("__main__")]
        main = sys.modules["__main__"] = ModuleType("__main__")
        kept.append(main)
        sys.addaudithook(guard.audit)
        for index, group in enumerate(groups):
            _write_report(report_fd, _Report(index))
            guard.refused = False
            outcome, reason = "loaded", ""
            try:
                names.load(group)
            except BaseException as error:  # whatever its code raises
                kept.append(error)
                if not guard.refused and not isinstance(error, MemoryError):
                    outcome, reason = "failed", type_name(error)
                    _write_report(report_fd, _Report(index, "describing", reason))
                    reason = _describe(error)
            if guard.refused:
                outcome, reason = "undecided", ""
            _write_report(report_fd, _Report(index, outcome, reason))
        kept.append(namespace)
        os._exit(0)
    finally:
        os._exit(1)


def _describe(error: BaseException) -> str:
    try:
        return describe_restore_error(error)
    except BaseException:
        return type_name(error)


def _close_all_but(fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    # The live streams may be locked by a thread that the child does not have.
    sys.stdin, sys.stdout, sys.stderr = (open(standard, mode) for standard, mode in enumerate("rww"))  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    os.closerange(3, fd)
    os.closerange(fd + 1, max(fd + 1, *map(int, os.listdir("/proc/self/fd"))) + 1)


def _write_report(fd: int, report: _Report) -> None:
    data = _encode(report)
    data = memoryview(len(data).to_bytes(4) + data)
    while data:
        data = data[os.write(fd, data) :]


class _Namespace(dict[str, Any]):
    """The namespace of a trial: a name is restored when code looks for it."""

    names: "_Names"

    def __missing__(self, name: str) -> object:
        try:
            return self.names.find_global(name)
        except LookupError as error:
            raise KeyError(name) from error


class _Names(Mapping[str, object]):
    """The names of a checkpoint, each restored when it is first asked for, as `CheckpointReader` does."""

    def __init__(
        self,
        groups: Sequence[PickledGroup],
        writer: CheckpointWriter,
        hidden: frozenset[str],
        process_state: ProcessState | None,
    ) -> None:
        self._groups = {name: group for group in groups for name in group.names}
        self._writer = writer
        self._hidden = hidden
        self._process_state = process_state
        self._loading: set[str] = set()
        self._values: dict[str, object] = {}
        self._failures: dict[str, str] = {}
        self._budget = TimeBudget()
        self._namespace = _Namespace()

    def enter(self) -> dict[str, Any]:
        """Return the namespace, with what every worker's has."""
        live = self._writer.context.namespace
        self._namespace.names = self
        for name in self._hidden | {"__name__", "__builtins__"}:
            if name in live:
                self._namespace[name] = live[name]
        return self._namespace

    def load(self, group: PickledGroup) -> None:
        """Restore a group, if it is not restored yet.

        Raises:
            BaseException: its code raised it.
        """
        first = group.names[0]
        if first in self._values:
            return
        if first in self._loading:
            raise LookupError(f"{first!r} is needed to restore itself")
        self._loading.add(first)
        try:
            loader = NamespaceUnpickler(group.data, group.buffers, self._namespace, self, self._budget)
            values = {name: loader.load() for name in group.names}
        finally:
            self._loading.discard(first)
        self._values |= values
        self._namespace |= {name: value for name, value in values.items() if name not in self._writer.results}

    def find_global(self, name: str) -> object:
        """Return the value of a global name, as code in a restored namespace finds it.

        Raises:
            LookupError: there is none.
        """
        writer = self._writer
        if name in writer.results:
            raise LookupError(name)
        if name in writer.globals:
            return self._namespace
        if name in writer.modules:
            return writer.context.namespace[name]
        return self[name]

    def __getitem__(self, name: str) -> object:
        """Return the value of a name.

        Raises:
            LookupError: it can't be restored, or the checkpoint does not have it.
        """
        if name in self._values:
            return self._values[name]
        group = self._groups.get(name)
        if group is not None:
            try:
                self.load(group)
            except Exception as error:
                self._failures[name] = _describe(error)
                raise LookupError(f"it needs {name!r}: {self._failures[name]}") from error
            return self._values[name]
        writer = self._writer
        if name in writer.values and name not in writer.failed:
            found = self._values[name] = self._remake(name, writer.values[name])
            return found
        if name in self._hidden and name in writer.context.namespace:
            return writer.context.namespace[name]
        live = None if self._process_state is None else self._process_state.live_object(name)
        if live is None:
            reason = writer.failed.get(name, "this session does not have it")
            raise LookupError(f"it needs {name!r}: {reason}")
        return live

    def _remake(self, name: str, value: object) -> object:
        """Return what was not pickled anew, since it has not changed: a constant, or a function."""
        if type(value) is not FunctionType:
            return value
        pickler = NamespacePickler(self._writer.context, frozenset((name,)))
        pickler.dump(value)
        return NamespaceUnpickler(pickler.data, pickler.buffers, self._namespace, self, self._budget).load()

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names that were pickled."""
        return iter(self._groups)

    def __len__(self) -> int:
        """Return the number of names that were pickled."""
        return len(self._groups)
