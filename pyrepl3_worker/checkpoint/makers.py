"""Makes again, by kind, what pickle can't save: locks, queues, weak references, pools, generators.

Each kind has a function that says how an object of it is made again, or raises `Unsaveable` where that would
be another one: a lock that is held, a queue that is waited for, a pool with work in flight. Files
and databases are in `resource_makers`. Kinds are found by name: no library is imported for its makers.
"""

import asyncio
import inspect
import re
import struct
import threading
import weakref
from collections.abc import Callable
from gc import get_referents
from queue import SimpleQueue
from types import FunctionType, GeneratorType
from typing import Any, Final, cast

import pyrepl3_worker
from pyrepl3_worker.checkpoint.by_value import ReduceValue
from pyrepl3_worker.checkpoint.iterators import MAKERS as ITERATOR_MAKERS
from pyrepl3_worker.checkpoint.memory_maps import reduce_mmap
from pyrepl3_worker.checkpoint.resource_makers import MAKERS as RESOURCE_MAKERS
from pyrepl3_worker.checkpoint.unsaveable import Unsaveable
from pyrepl3_worker.rendering.static_lookup import module_name

type Maker = Callable[[Any], ReduceValue]


def find_maker(kind: type[Any]) -> Maker | None:
    """Return how objects of exactly this type are made again; None if it has no maker."""
    return _MAKERS.get(f"{module_name(kind)}.{kind.__qualname__}")


# --- locks ----------------------------------------------------------------------------------------------


def _reduce_lock(lock: Any) -> ReduceValue:
    if lock.locked():
        raise Unsaveable("a lock that is held belongs to the thread that holds it")
    return make_lock, ()


def make_lock() -> threading.Lock:
    """Make a lock that is free."""
    return threading.Lock()


def _reduce_rlock(lock: Any) -> ReduceValue:
    # Before Python 3.14 it has no `locked`.
    if lock._is_owned() or not _is_free(lock):
        raise Unsaveable("a lock that is held belongs to the thread that holds it")
    return make_rlock, ()


def _is_free(lock: Any) -> bool:
    free: bool = lock.acquire(blocking=False)
    if free:
        lock.release()
    return free


def make_rlock() -> Any:
    """Make a re-entrant lock that is free."""
    return threading.RLock()


# --- queues, and what belongs to an event loop ------------------------------------------------------------


def _reduce_simple_queue(queue: SimpleQueue[Any]) -> ReduceValue:
    # What it holds can only be taken out, and is put back at once: no other code of the session runs now.
    items: list[Any] = []
    while not queue.empty():
        items.append(queue.get_nowait())
    for item in items:
        queue.put(item)
    return make_simple_queue, (), items, None, None, fill_simple_queue


def make_simple_queue() -> SimpleQueue[Any]:
    """Make an empty queue."""
    return SimpleQueue()


def fill_simple_queue(queue: SimpleQueue[Any], items: list[Any]) -> None:
    """Put items into a queue."""
    for item in items:
        queue.put(item)


_WAITERS: Final = ("_getters", "_putters", "_waiters")


def reduce_loop_bound(value: Any) -> ReduceValue:
    """Return the reduce value of one of asyncio's queues and locks: the first use binds it to a loop."""
    state = dict[str, Any](value.__dict__)
    if any(state.get(name) for name in _WAITERS):
        raise Unsaveable("a task that waits for it can't be saved")
    if type(value) is asyncio.Lock and state["_locked"]:
        raise Unsaveable("a lock that is held belongs to the task that holds it")
    state["_loop"] = None
    return make_empty, (type(value),), state


def make_empty(kind: type[Any]) -> Any:
    """Make an object without attributes; pickle sets them."""
    return object.__new__(kind)


# --- weak references --------------------------------------------------------------------------------------


def _reduce_reference(reference: weakref.ref[Any]) -> ReduceValue:
    # The target is in the pickle, and lives on if something else that comes back holds it.
    target = reference()
    if target is None:
        return make_dead_reference, ()
    return make_reference, (target, reference.__callback__)


def make_reference(target: Any, callback: Any) -> weakref.ref[Any]:
    """Make a weak reference."""
    return weakref.ref(target) if callback is None else weakref.ref(target, callback)


class _Gone:
    """Is gone when it is made."""


def make_dead_reference() -> weakref.ref[Any]:
    """Make a weak reference whose target is gone."""
    return weakref.ref(_Gone())


def _reduce_weak_method(reference: weakref.WeakMethod[Any]) -> ReduceValue:
    method = reference()
    return (make_dead_reference, ()) if method is None else (weakref.WeakMethod, (method,))


def _reduce_proxy(proxy: Any) -> ReduceValue:
    try:
        # Every attribute of a proxy is its target's: this method is bound to that.
        target = object.__getattribute__(proxy, "__class__") and proxy.__reduce_ex__.__self__
    except ReferenceError:
        return make_dead_proxy, ()
    return make_proxy, (target,)


def make_proxy(target: Any) -> Any:
    """Make a weak proxy."""
    return weakref.proxy(target)


def make_dead_proxy() -> Any:
    """Make a weak proxy whose target is gone."""
    return weakref.proxy(_Gone())


# --- pools and threads ------------------------------------------------------------------------------------


def _reduce_thread_pool(pool: Any) -> ReduceValue:
    if pool._shutdown or pool._broken:
        raise Unsaveable("a pool that was shut down takes no work")
    if pool._work_queue.qsize() or pool._idle_semaphore._value < len(pool._threads):
        raise Unsaveable("a pool's work in flight can't be saved")
    options = pool._max_workers, pool._thread_name_prefix, pool._initializer, pool._initargs
    if any(type(each) not in (int, str, FunctionType, tuple, type(None)) for each in options):
        raise Unsaveable("a pool's workers belong to one process")
    return make_thread_pool, options


def make_thread_pool(workers: int, prefix: str, initializer: Any, arguments: tuple[Any, ...]) -> Any:
    """Make a pool; its threads start with its first work."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(workers, prefix, initializer, arguments)


def _reduce_process_pool(pool: Any) -> ReduceValue:
    if pool._shutdown_thread or pool._broken:
        raise Unsaveable("a pool that was shut down takes no work")
    if pool._pending_work_items:
        raise Unsaveable("a pool's work in flight can't be saved")
    method: str = pool._mp_context.get_start_method()
    options = pool._max_workers, pool._initializer, pool._initargs, pool._max_tasks_per_child
    return make_process_pool, (method, *options)


def make_process_pool(
    method: str, workers: int, initializer: Any, arguments: tuple[Any, ...], most_tasks: int | None
) -> Any:
    """Make a pool; its processes start with its first work, by the start `method` of multiprocessing."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, context, initializer, arguments, max_tasks_per_child=most_tasks)


def _reduce_thread_local(local: Any) -> ReduceValue:
    return make_thread_local, (), dict(local.__dict__), None, None, fill_thread_local


def make_thread_local() -> threading.local:
    """Make an object with attributes of each thread's own."""
    return threading.local()


def fill_thread_local(local: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes that the code's own thread sees."""
    local.__dict__.update(attributes)


# --- generators -------------------------------------------------------------------------------------------


def _reduce_generator(generator: "GeneratorType[Any, Any, Any]") -> ReduceValue:
    state = inspect.getgeneratorstate(generator)
    if state == inspect.GEN_CLOSED:
        return make_ended_generator, ()
    code = generator.gi_code
    functions = [
        each for each in get_referents(generator) if type(each) is FunctionType and each.__code__ is code
    ]
    if state != inspect.GEN_CREATED or len(functions) != 1:
        raise Unsaveable("a generator's place in its code can't be saved")
    frame: Any = generator.gi_frame
    names, found = code.co_varnames, frame.f_locals
    positional = code.co_argcount
    last = positional + code.co_kwonlyargcount
    arguments = [found[name] for name in names[:positional]]
    keywords = {name: found[name] for name in names[positional:last]}
    if code.co_flags & inspect.CO_VARARGS:
        arguments += found[names[last]]
        last += 1
    if code.co_flags & inspect.CO_VARKEYWORDS:
        keywords |= found[names[last]]
    return make_generator, (functions[0], tuple(arguments), keywords)


def make_generator(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Make a generator that has not begun."""
    return function(*arguments, **keywords)


def make_ended_generator() -> Any:
    """Make a generator that has ended."""
    ended = (each for each in ())
    next(ended, None)
    return ended


# --- compiled things ---------------------------------------------------------------------------------------


def _reduce_struct(compiled: struct.Struct) -> ReduceValue:
    return struct.Struct, (compiled.format,)


def _reduce_match(match: re.Match[Any]) -> ReduceValue:
    pattern: Any = match.re
    for name, start in (("match", match.pos), ("fullmatch", match.pos), ("search", match.pos)):
        again: Any = getattr(pattern, name)(match.string, start, match.endpos)
        if again is not None and again.regs == cast(Any, match).regs:
            return make_match, (pattern, name, match.string, start, match.endpos)
    raise Unsaveable("a match that an iteration has found can't be found again")


def make_match(pattern: Any, name: str, text: Any, start: int, end: int) -> Any:
    """Match again."""
    return getattr(pattern, name)(text, start, end)


def _refuse_finalizer(_: Any) -> ReduceValue:
    raise Unsaveable("a finalizer belongs to an object of one process")


def _reduce_display_handle(handle: Any) -> ReduceValue:
    return handle.__reduce__()


_MAKERS: Final[dict[str, Maker]] = {
    f"{pyrepl3_worker.__name__}.rendering.display.DisplayHandle": _reduce_display_handle,
    "_thread.lock": _reduce_lock,
    "_thread.RLock": _reduce_rlock,
    "_queue.SimpleQueue": _reduce_simple_queue,
    **dict.fromkeys(
        (
            "asyncio.queues.Queue", "asyncio.queues.PriorityQueue", "asyncio.queues.LifoQueue",
            "asyncio.locks.Lock", "asyncio.locks.Event", "asyncio.locks.Condition",
            "asyncio.locks.Semaphore", "asyncio.locks.BoundedSemaphore",
        ),
        reduce_loop_bound,
    ),
    "weakref.ReferenceType": _reduce_reference,
    "weakref.ProxyType": _reduce_proxy,
    "weakref.CallableProxyType": _reduce_proxy,
    "weakref.WeakMethod": _reduce_weak_method,
    "weakref.finalize": _refuse_finalizer,
    "concurrent.futures.thread.ThreadPoolExecutor": _reduce_thread_pool,
    "concurrent.futures.process.ProcessPoolExecutor": _reduce_process_pool,
    "_thread._local": _reduce_thread_local,
    "builtins.generator": _reduce_generator,
    "_struct.Struct": _reduce_struct,
    "re.Match": _reduce_match,
    "mmap.mmap": reduce_mmap,
    **ITERATOR_MAKERS,
    **RESOURCE_MAKERS,
}  # fmt: skip
