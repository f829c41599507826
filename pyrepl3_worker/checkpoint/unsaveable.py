"""The reasons why an object cannot be saved or restored, in words."""

from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    GeneratorType,
    TracebackType,
)
from typing import Any, Final

from pyrepl3_worker.checkpoint.time_budget import BudgetExceeded
from pyrepl3_worker.rendering.reprs import encodable, type_name
from pyrepl3_worker.rendering.static_lookup import module_name

_LOCK: Final = "a lock belongs to the threads of one process"
_FILE: Final = "an open file belongs to one process; open it again"
_RUNNING: Final = "running code can't be saved; start it again"
_POOL: Final = "a pool's workers belong to one process"
_CONTEXT: Final = "a context and its tokens belong to running code"
_LOOP: Final = "an event loop belongs to one process"

_BY_TYPE: Final[dict[type, str]] = {
    GeneratorType: "a generator's place in its code can't be saved",
    CoroutineType: "a coroutine's place in its code can't be saved",
    AsyncGeneratorType: "an asynchronous generator's place in its code can't be saved",
    FrameType: "a frame belongs to running code",
    TracebackType: "a traceback holds the frames of running code",
}
_BY_NAME: Final = {
    "_thread.lock": _LOCK,
    "_thread.RLock": _LOCK,
    "_io._IOBase": _FILE,
    "_socket.socket": "a connection belongs to one process; connect again",
    "_ssl._SSLContext": "keys and certificates of a TLS context can't be read back",
    "threading.Thread": _RUNNING,
    "_thread._ThreadHandle": _RUNNING,
    "_thread._local": "it is a different one in each thread",
    "_asyncio.Task": _RUNNING,
    "_asyncio.Future": "who is waiting for it can't be saved",
    "asyncio.futures.Future": "who is waiting for it can't be saved",
    "concurrent.futures._base.Future": "who is waiting for it can't be saved",
    "asyncio.events.AbstractEventLoop": _LOOP,
    "concurrent.futures._base.Executor": _POOL,
    "multiprocessing.pool.Pool": _POOL,
    "multiprocessing.process.BaseProcess": "a child process can't be adopted by another parent",
    "subprocess.Popen": "a child process can't be adopted by another parent",
    "sqlite3.Connection": "a database connection belongs to one process; connect again",
    "sqlite3.Cursor": "a cursor belongs to its database connection",
    "_contextvars.Context": _CONTEXT,
    "_contextvars.Token": _CONTEXT,
    "weakref.ReferenceType": "a weak reference does not keep what it refers to",
    "weakref.ProxyType": "a weak reference does not keep what it refers to",
    "weakref.CallableProxyType": "a weak reference does not keep what it refers to",
    "select.epoll": _FILE,
    "select.poll": _FILE,
    "posix.ScandirIterator": _FILE,
}
_IN_MEMORY: Final = frozenset({"_io.BytesIO", "_io.StringIO"})


class Unsaveable(Exception):  # noqa: N818 - it is an outcome, and reported as one
    """An object can't be saved; the text says why."""


class WrongThread(Unsaveable):
    """An object can't be saved on this thread; on the one where cells block, it may be."""


def unsaveable_reason(kind: type[Any]) -> str | None:
    """Return why instances of a type can't be saved; None if that is not known without trying."""
    found = _BY_TYPE.get(kind)
    if found is not None:
        return found
    for base in kind.__mro__:
        name = f"{module_name(base)}.{base.__qualname__}"
        if name in _IN_MEMORY:
            return None
        if name in _BY_NAME:
            return _BY_NAME[name]
    return None


def describe_save_error(error: BaseException, culprit: object, value: object) -> str:
    """Return in words why a value could not be saved, where pickling failed at its part `culprit`."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    where = "" if culprit is value else f" (inside, at a {type_name(culprit)})"
    if isinstance(error, Unsaveable | BudgetExceeded):
        return f"{error}{where}"
    try:
        text = str(error)
    except Exception as second:
        text = f"(its text raises {type_name(second)})"
    return f"{type_name(error)}: {text}{where}"


def describe_restore_error(error: BaseException) -> str:
    """Return in words why a value could not be restored, also when the exception's `__str__` fails."""
    if (
        isinstance(error, LookupError | Unsaveable | BudgetExceeded)
        and error.args
        and type(error.args[0]) is str
    ):
        return encodable(error.args[0])
    try:
        return encodable(f"{type_name(error)}: {error}")
    except Exception as second:
        return f"{type_name(error)} (its text raises {type_name(second)})"
