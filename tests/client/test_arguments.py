"""Every public argument refuses what it cannot be: at the call, by name, with the value and what to do.

The table is by the arguments' names. An argument that is added anywhere in the public API and has no row
fails `test_every_argument_has_a_row`.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, cast

import msgspec
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ExecutorConfig, ResourceLimits, SandboxPolicy, WorkerConfig, capability, sync
from tests.helpers.leak_check import Resources

HUGE = "x" * 100_000
NO_TEXT = "\ud800"
"""A lone surrogate: no encoding has it."""
NAN = math.nan


def f() -> None:
    """Be a host function."""


class Bytes:
    """A path that is no text."""

    def __fspath__(self) -> bytes:
        """Return bytes."""
        return b"bytes"


ANY_WRONG: tuple[Any, ...] = (5, 1.5, b"bytes", ["x"], {"x": 1}, object())
WORD = (*ANY_WRONG, "", "another", HUGE, NO_TEXT, None)
ID = (*ANY_WRONG, "", "a:b", HUGE, NO_TEXT, NAN)
CODE = (*ANY_WRONG, None, NO_TEXT, NAN)
SECONDS = (b"1", "1", "", [1], 0, -1, NAN, math.inf, 10**400, True)
GRACE = (b"1", "1", "", [1], -1, NAN, math.inf, 10**400, True, None)
COUNT = ("1", b"", [1], 1.5, 0, -1, NAN, True)
LIMIT = (*COUNT, 2**80)
YES_OR_NO: tuple[object, ...] = (1, 0, "", "yes", NAN, None, [])
CALLABLE = (5, "print", b"", [f], NAN)
PATH = (5, b"bytes", Bytes(), "", "a\0b", NO_TEXT, NAN, ["x"])
PATHS = ("/data", 5, [5], ("relative",), ("/",), ("/a\0b",), (b"/bytes",), (f"/{NO_TEXT}",), NAN)
NAMES = ("numpy", 5, [5], ("a b",), ("",), (NO_TEXT,), NAN)

BAD: dict[str, tuple[Any, ...]] = {
    # open_session, WorkerPool
    "session_id": ID,
    "store": (*PATH, "ftp://host", "http://", "sqlite://host/path", "postgresql://[/", True),
    "config": (5, "config", {}, ExecutorConfig(), WorkerConfig, None),
    "capabilities": (5, "f", f, [f], {1: f}, {"": f}, {"a b": f}, {"f": 5}, {"open": f}, {HUGE: f}),
    "on_output": CALLABLE,
    "on_input": CALLABLE,
    "on_display": CALLABLE,
    "on_recovery": CALLABLE,
    "on_event": CALLABLE,
    "recovery": WORD,
    "url": (*PATH, "ftp://host", "http://", "sqlite://host/path", "memory:", "http://host", True),
    "create": YES_OR_NO,
    "older_than": GRACE,
    "max_attempts": COUNT,
    "allow_weaker_confinement": YES_OR_NO,
    "wait": GRACE,
    "size": (*COUNT, 10**9),
    "warm": NAMES,
    "fork": YES_OR_NO,
    "max_sessions": (*COUNT, 10**9),
    "acquire_timeout": SECONDS,
    "idle_timeout": SECONDS,
    "session": (5, "session", b"", [f], NAN, None),
    "WorkerPool.session.name": ID,
    "WorkerPool.close_session.name": ID,
    "sync.WorkerPool.session.name": ID,
    "sync.WorkerPool.close_session.name": ID,
    "launch": CALLABLE,
    # sessions and executions
    "code": CODE,
    "execution_id": ID,
    "timeout": SECONDS,
    "result_mode": WORD,
    "filename": (5, b"bytes", Bytes(), "", HUGE, "a\nb", NO_TEXT, NAN, ["x"], "<cell 1>"),
    "first_line": (*LIMIT,),
    "on_error": WORD,
    "check": YES_OR_NO,
    "reason": WORD,
    "name": (*ANY_WRONG, "", "missing", HUGE, NO_TEXT, NAN, None),
    "names": (*ANY_WRONG, "", "missing", HUGE, NO_TEXT, NAN, None),
    "arrow": YES_OR_NO,
    "max_bytes": LIMIT,
    "stream": WORD,
    "start": ("1", b"", 1.5, NAN, True, [1]),
    "stop": ("1", b"", 1.5, NAN, True, [1]),
    "run": (*ANY_WRONG, "", "1", "1.", "1.x", "-1.1", "1.1.1", "1.\u0663", NO_TEXT, NAN, "1." + HUGE),
    "cursor": ("1", b"", 1.5, NAN, True, [1]),
    "checkpoint_id": ID,
    # files
    "path": PATH,
    "data": (5, "text", ["x"], NAN, None, {}),
    "recursive": YES_OR_NO,
    "to": PATH,
    "from_": PATH,
    # capability
    "function": (5, "f", b"", None, [f], NAN),
    "repeatable": YES_OR_NO,
    "awaitable": (1, 0, "", "yes", NAN, []),
    "errors": WORD,
    "max_calls": ("1", b"", 1.5, -1, NAN, True),
    "approve": CALLABLE,
    "pauses_timeout": YES_OR_NO,
    # WorkerConfig
    "executor": (5, "executor", {}, WorkerConfig(), None),
    "python": (5, b"python", "", "a\0b", NO_TEXT, None, NAN),
    "cwd": (5, b"bytes", "", "a\0b", NO_TEXT, NAN, ["x"]),
    "env": (
        5,
        "A=1",
        ["A=1"],
        {"A": 1},
        {1: "A"},
        {"": "x"},
        {"A=": "x"},
        {"A": "a\0b"},
        {"A": NO_TEXT},
        NAN,
    ),
    "confinement": WORD,
    "sandbox": (5, "sandbox", {}, None),
    "limits": (5, "limits", {}, None),
    "confinement_required": YES_OR_NO,
    "inherit_env": YES_OR_NO,
    "host_errors": WORD,
    "report": (5, "data", ["other"], [5], [["data"]], NAN, None, (NO_TEXT,)),
    "spawn_timeout": (*GRACE, 0),
    "cancel_grace": GRACE,
    "kill_grace": GRACE,
    "close_grace": GRACE,
    "stall_timeout": SECONDS,
    "max_checkpoint_bytes": COUNT,
    "max_store_bytes": COUNT,
    "max_spill_bytes": ("1", b"", [1], 1.5, -1, NAN, True, 5, 2**80),
    "spill_directory": (5, b"bytes", "", "relative", "/a\0b", f"/{NO_TEXT}", NAN, ["/x"]),
    # SandboxPolicy
    "readable": PATHS,
    "writable": PATHS,
    "network": YES_OR_NO,
    "hosts": (443, "pypi.org:443", (443,), (b"x",), ("x:0",), ("127.1",), (NO_TEXT,), NAN, None),
    "tcp_ports": (443, "443", ("443",), (0,), (-1,), (70_000,), (True,), (NAN,), NAN),
    "work_bytes": LIMIT,
    # ResourceLimits
    "max_processes": LIMIT,
    "max_memory_bytes": LIMIT,
    "max_cpu_seconds": LIMIT,
    "max_open_files": LIMIT,
    "max_file_bytes": LIMIT,
    # ExecutorConfig
    "max_execution_time": SECONDS,
    "max_memory_usage": LIMIT,
    "max_coroutines": LIMIT,
    "max_output_bytes": LIMIT,
    "max_display_bytes": LIMIT,
    "max_repr_chars": LIMIT,
    "max_frame_bytes": LIMIT,
    "cache_size": ("1", b"", [1], 1.5, -1, NAN, True, 2**80),
    "allow_imports": YES_OR_NO,
    "allowed_modules": (5, "numpy", [5], NAN, b"x", [NO_TEXT], [""]),
    "denied_modules": (5, "numpy", [5], NAN, b"x", [NO_TEXT], [""]),
    "auto_fix": YES_OR_NO,
    "blocking": WORD,
    "syntax": WORD,
    # RecoveryBar
    "RecoveryBar.stream": (5, "stderr", b"", NAN),
}
"""By an argument's name: what it cannot be."""

FREE = {
    "values": "any plain data by any name: see the table of values, and the rows of `set` below",
}

MADE_BY_THE_CLIENT = {
    "Execution", "Session", "SessionOpener", "CallContext", "CallRequest", "Capability", "Prompt",
    "WorkerInfo", "BridgeMetrics", "FileInfo",
    "SessionFiles", "Completeness", "DeathCertificate", "ErrorInfo", "ExecutionResult",
    "Recovery", "RecoveryProgress", "RunOutput", "Skipped", "KeptSession", "PoolStats",
    "Diagnosis", "MachineCheck",
    "Store", "StoredSession", "StoredExecution", "StoredCheckpoint", "PrunedStore",
}  # fmt: skip
"""Classes that users do not call: handles, reports, and results."""


def is_data(value: type) -> bool:
    """Whether a class is a message, an error or an enum: its objects are made by the client, or by none."""
    return issubclass(value, (BaseException, Enum)) or (
        issubclass(value, msgspec.Struct)
        and value.__module__ in ("pyrepl3_schemas.messages", "pyrepl3_client._telemetry.events")
    )


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield everything that a user may call, by a name: functions, classes, and methods of classes."""
    for module, prefix in ((pyrepl3, ""), (sync, "sync.")):
        for name in module.__all__:
            value = vars(module)[name]
            if inspect.isfunction(value):
                yield prefix + name, value
            elif inspect.isclass(value) and not is_data(value):
                if name not in MADE_BY_THE_CLIENT:
                    yield prefix + name, value
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{prefix}{name}.{method}", function


def arguments() -> list[tuple[str, str]]:
    """Return each argument of the public API, by what takes it and its name."""
    return [
        (called, parameter)
        for called, function in public_callables()
        for parameter in inspect.signature(function).parameters
        if parameter != "self" and not called.startswith("ExecutionResult")
    ]


def test_every_argument_has_a_row() -> None:
    taken = {name for _, name in arguments()} | {f"{called}.{name}" for called, name in arguments()}
    assert {name for _, name in arguments() if name not in BAD and name not in FREE} == set()
    assert set(BAD) - taken == set()


def test_signatures_are_for_readers() -> None:
    wrong: list[str] = []
    for called, function in public_callables():
        parameters = inspect.signature(function).parameters.values()
        wrong += [f"{called}({each.name})" for each in parameters if each.name.startswith("_")]
        defaults = [(each.name, repr(each.default)) for each in parameters if each.name != "python"]
        wrong += [f"{called}({name}={text})" for name, text in defaults if len(text) > 30 or " at 0x" in text]
    assert wrong == []


def refused(what: str, name: str, value: object, call: Callable[[], object]) -> str:
    """Call, and return in words what is wrong with how it refuses; empty if nothing is."""
    shown = repr(value)
    label = f"{what}({name}={shown[:60]})"
    try:
        call()
    except (ValueError, TypeError, pyrepl3.PyRepl3Error) as error:
        text = str(error)
        if len(text) > 1500:
            return f"{label}: its text has {len(text)} characters"
        kind = type(value).__name__
        several = cast("Iterable[object]", value) if isinstance(value, list | tuple | dict) else ()
        inner = [repr(each)[:20] for each in several]
        if name not in text and not (isinstance(error, pyrepl3.PyRepl3Error) and name in LOOSELY):
            return f"{label}: does not name the argument: {type(error).__name__}: {text}"
        if name == "store" and "://" in shown:
            return ""  # of a URL, which may hold a password, what is shown is the scheme
        if not any(sign in text for sign in (shown[:20], shown[1:20], kind, *inner, "characters", "bytes")):
            return f"{label}: does not show the value: {type(error).__name__}: {text}"
    except Exception as error:
        return f"{label}: {type(error).__name__}: {error}"
    else:
        return f"{label}: taken"
    return ""


LOOSELY = {"store", "capabilities", "code", "name", "names", "checkpoint_id"}
"""Arguments whose own errors (StoreError, CapabilityError, …) name the thing itself, not the argument."""


def complaints(what: str, function: Callable[..., Any], rest: dict[str, Any]) -> list[str]:
    """Call with each bad value of each argument, and return what is wrong with how that is refused."""
    wrong: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in FREE:
            continue
        for value in BAD.get(f"{what}.{parameter.name}", BAD[parameter.name]):
            if value is None and parameter.default is None:
                continue
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                wrong.append(refused(what, parameter.name, value, lambda v=value: function(v)))
                continue
            given = {**rest, parameter.name: value}
            if parameter.name == "first_line":
                given["filename"] = "f.py"
            wrong.append(refused(what, parameter.name, value, lambda g=given: function(**g)))
    return [each for each in wrong if each]


def settled(resources: Resources) -> tuple[object, ...]:
    """Return what must not change: processes, threads, fds."""
    return resources.children, {thread.name for thread in resources.threads}, resources.fds


OPENERS: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    ("open_session", pyrepl3.open_session, {}),
    ("sync.open_session", sync.open_session, {}),
    ("WorkerPool", pyrepl3.WorkerPool, {"size": 1}),
    ("sync.WorkerPool", sync.WorkerPool, {"size": 1}),
    ("WorkerPool.open_session", pyrepl3.WorkerPool(1).open_session, {}),
    ("WorkerPool.session", pyrepl3.WorkerPool(1).session, {"name": "s"}),
    ("WorkerConfig", WorkerConfig, {}),
    ("ExecutorConfig", ExecutorConfig, {}),
    ("SandboxPolicy", SandboxPolicy, {}),
    ("ResourceLimits", ResourceLimits, {}),
    ("capability", capability, {"function": f}),
    ("RecoveryBar", pyrepl3.RecoveryBar, {}),
]


@pytest.mark.parametrize(("what", "function", "rest"), OPENERS, ids=[row[0] for row in OPENERS])
def test_what_cannot_be_is_refused_before_anything_is_started(
    what: str, function: Callable[..., Any], rest: dict[str, Any]
) -> None:
    before = Resources()
    assert complaints(what, function, rest) == []
    after = Resources()
    assert settled(after) == settled(before)


def test_a_synchronous_pool_that_is_open_refuses_what_cannot_be() -> None:
    with sync.WorkerPool(1, fork=False) as pool:
        rest = {"session": {"name": "s"}, "close_session": {"name": "s"}}
        for method in ("open_session", "acquire", "release", "session", "close_session", "drain"):
            what = f"sync.WorkerPool.{method}"
            assert complaints(what, getattr(pool, method), rest.get(method, {})) == []
        assert pool.stats().opened == 0
    with pytest.raises(pyrepl3.SessionClosed, match="the pool is not open: use it as `with WorkerPool"):
        pool.open_session()


METHODS: dict[str, dict[str, Any]] = {
    "start": {"code": "1"},
    "execute": {"code": "1"},
    "cancel": {},
    "get": {"name": "x"},
    "withdraw": {},
    "checkpoint": {},
    "restore": {"checkpoint_id": "c"},
    "ping": {},
    "stats": {},
    "complete": {"code": "1"},
    "inspect": {"code": "1"},
    "is_complete": {"code": "1"},
    "variables": {},
    "output": {"execution_id": "e"},
    "runs": {"execution_id": "e"},
}


FILE_METHODS: dict[str, dict[str, Any]] = {
    "read": {"path": "p"},
    "write": {"path": "p", "data": b""},
    "list": {},
    "remove": {"path": "p"},
    "download": {"path": "p", "to": "/t"},
    "upload": {"from_": "/f", "path": "p"},
}


def test_the_methods_of_sessions_are_all_here() -> None:
    def takers(of: str) -> set[str]:
        return {
            what.rpartition(".")[2] for what, _ in arguments() if what.startswith((f"{of}.", f"sync.{of}."))
        }

    assert takers("Session") == {*METHODS, "set", "offer"}
    assert takers("SessionFiles") == set(FILE_METHODS)


def check_methods(
    what: str, session: Any, call: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> list[str]:
    """Call each method of a session, and of an execution of it, with what it cannot take."""
    wrong: list[str] = []
    for method, rest in METHODS.items():
        wrong += complaints(f"{what}.{method}", call(getattr(session, method)), rest)
    for method, rest in FILE_METHODS.items():
        wrong += complaints(f"{what}Files.{method}", call(getattr(session.files, method)), rest)
    return wrong


def test_a_session_refuses_it_and_goes_on() -> None:
    with sync.open_session() as session:
        session.execute("x = 1")
        before, worker = Resources(), session.worker
        assert check_methods("Session", session, lambda method: method) == []
        execution = session.start("2")
        assert complaints("Execution.cancel", execution.cancel, {}) == []
        assert complaints("Execution.output", execution.output, {}) == []
        for name, value in {"a b": 1, "_": 1, "__x__": 1, "class": 1, "": 1, NO_TEXT: 1}.items():
            assert (
                refused("set", repr(name)[1:-1][:20], name, lambda n=name, v=value: session.set(**{n: v}))
                == ""
            )
        for name in ("open", "a b", "", "class", NO_TEXT, HUGE):
            assert refused("offer", repr(name)[1:-1][:20], name, lambda n=name: session.offer(**{n: f})) == ""
        for value in (5, "f", None, [f]):
            assert refused("offer", "f", value, lambda v=value: session.offer(f=v)) == ""  # pyright: ignore[reportArgumentType]
        with pytest.raises(pyrepl3.TransferError, match="'x' cannot be set"):
            session.set(x=object())
        assert session.execute("x").value == 1
        assert session.worker == worker
        assert settled(Resources()) == settled(before)


ASKED_FIRST = ("Session.get(name='", "Session.restore(checkpoint_id='")
"""What only the worker or the record can know: the async call waits for them."""


@pytest.mark.anyio
async def test_an_async_session_refuses_it_and_goes_on(session: pyrepl3.Session) -> None:
    def driven(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> object:
            outcome: Any = method(*args, **kwargs)
            if not hasattr(outcome, "__await__") or type(outcome) is pyrepl3.Execution:
                return outcome
            # What is refused by the client waits for nothing.
            try:
                outcome.__await__().send(None)
            finally:
                outcome.close()
            return outcome

        run.__signature__ = inspect.signature(method)  # pyright: ignore[reportFunctionMemberAccess]
        return run

    await session.execute("x = 1")
    before, worker = Resources(), session.worker
    wrong = check_methods("Session", session, driven)
    assert [each for each in wrong if not each.startswith(ASKED_FIRST)] == []
    assert (await session.execute("x")).value == 1
    assert session.worker == worker
    assert settled(Resources()) == settled(before)
