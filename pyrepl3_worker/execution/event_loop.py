"""Loops that code runs inside a cell, although the session's loop runs already.

`asyncio.run`, `asyncio.Runner`, `run_until_complete` and `run_forever` refuse to work where a loop runs. A
cell is called by the session's loop, so here they hide that loop and its current task while they work, and
show them again afterwards: the code's loop runs as it would anywhere, and the session's waits for it, as for
any other call. The session's own loop runs on inside of itself when it is what the code runs.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import weakref
from asyncio import (
    AbstractEventLoop,
    BaseEventLoop,
    Future,
    Runner,
    Task,
    events,
    futures,
    get_running_loop,
    runners,
    tasks,
)  # by name: the code may replace its own
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import wraps
from types import FrameType
from typing import Any, Final, cast

from pyrepl3_worker.errors import AsyncContextError
from pyrepl3_worker.execution.canceller import Canceller
from pyrepl3_worker.execution.tasks import CoroutineManager
from pyrepl3_worker.interrupts.signals import runs_loop, runs_user_code

_RUNNING_METHODS: Final = ("run_until_complete", "run_forever")


class EventLoopCoordinator:
    """Gives code access to the session's loop, also where no loop runs, and lets it run loops of its own."""

    def __init__(
        self, loop: AbstractEventLoop, manager: CoroutineManager, canceller: Canceller | None = None
    ) -> None:
        """Coordinate for `loop`, which runs on the thread that constructs this (or will).

        Args:
            loop: the session's, which is one of asyncio's own.
            manager: owns the code's tasks.
            canceller: stops the code; None where nothing is stopped.
        """
        self.loop = loop
        self._manager = manager
        self.canceller = canceller
        self._thread = threading.get_ident()
        self._queue: list[Coroutine[Any, Any, Any]] = []
        self.renew_reader: Callable[[], None] | None = None
        """Has the client's messages read on the session's loop by a handle that does not run now."""
        self.policy_loop = _PolicyLoop(loop)
        self.hidden = False
        """Whether code runs a loop of its own, so that the session's is hidden."""

    def is_on_loop_thread(self) -> bool:
        """Return whether the caller runs on the session's loop's thread."""
        return threading.get_ident() == self._thread

    def ensure_event_loop(self) -> AbstractEventLoop:
        """Return the loop that runs here, else the session's.

        Raises:
            AsyncContextError: the session's loop is closed.
        """
        try:
            return get_running_loop()
        except RuntimeError:
            if self.loop.is_closed():
                raise AsyncContextError("the session's event loop is closed") from None
            return self.loop

    def queue_for_async(self, coro: Coroutine[Any, Any, Any]) -> Task[Any] | None:
        """Run a coroutine as a task now if a loop runs here, else when `flush_queue` is called."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            self._queue.append(coro)
            return None
        return loop.create_task(coro)

    async def flush_queue(self) -> list[Any]:
        """Run what was queued; return the results, with exceptions in their places."""
        queued, self._queue = self._queue, []
        return await asyncio.gather(*queued, return_exceptions=True)

    # --- loops of the code ---------------------------------------------------------------------------

    def install(self) -> None:
        """Let what runs loops work inside the session's, and third-party loops that are there or come."""
        asyncio.run = runners.run = self.make_runner(runners.run)
        Runner.run = self._make_method(Runner.run, Runner.get_loop)
        for name in _RUNNING_METHODS:
            setattr(BaseEventLoop, name, self._make_method(getattr(BaseEventLoop, name), _itself))
        for cls in AbstractEventLoop.__subclasses__():
            self._adopt_foreign_loop(cls)

        def adopt_subclass(cls: type[AbstractEventLoop], **options: Any) -> None:
            super(AbstractEventLoop, cls).__init_subclass__(**options)
            self._adopt_foreign_loop(cls)

        AbstractEventLoop.__init_subclass__ = classmethod(adopt_subclass)  # pyright: ignore[reportAttributeAccessIssue] - it is one

    def _adopt_foreign_loop(self, cls: type[AbstractEventLoop]) -> None:
        """Let a loop of another library (uvloop's) run inside the session's."""
        if issubclass(cls, BaseEventLoop):
            return  # it has, or calls, the methods that are adopted already
        for name in _RUNNING_METHODS:
            setattr(cls, name, self._make_method(getattr(cls, name), _itself))

    def make_runner(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does what `function` does, also where the session's loop runs.

        Args:
            function: runs a loop of its own, or code that does, and expects that none runs yet.
        """

        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            # Not marked by `runs_user_code`: a cancel raised here would leave the session's loop hidden.
            if not self.runs_here():
                return _call(function, arguments, options)
            with _Hidden(self):
                return _call(function, arguments, options)

        return run

    def make_interruptible_runner(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same for a function whose loop handles SIGINT itself, and is stopped in that way.

        Args:
            function: runs a loop that is none of asyncio's (trio's).
        """
        runner = self.make_runner(function)

        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            if self.canceller is None or not self.is_on_loop_thread():
                return runner(*arguments, **options)
            return _run_interruptible(self.canceller, runner, arguments, options)

        return run

    def _make_method(self, method: Callable[..., Any], loop_of: Callable[[Any], Any]) -> Callable[..., Any]:
        """Return a method that does what `method` does, also where the session's loop runs.

        Args:
            method: runs the loop that its object is, or has.
            loop_of: returns that loop.
        """

        @wraps(method)
        def run(this: Any, *arguments: Any, **options: Any) -> Any:
            if this is self.loop and self.runs_here():
                with _LeftTask(self):
                    return self._run_on(*arguments, **options)
            arguments = (this, *arguments)
            if not (self.runs_here() or self._is_hidden_here()):
                return _call(method, arguments, options)
            with _Hidden(self), _WithCallPaths(_call(loop_of, (this,), {}), self._manager.task_factory):
                if isinstance(this, BaseEventLoop | Runner) or self.canceller is None:
                    return _call(method, arguments, options)
                return _run_foreign(self.canceller, method, arguments, options)

        return run

    def runs_here(self) -> bool:
        """Return whether the session's loop is the one that runs in this thread."""
        return events._get_running_loop() is self.loop  # pyright: ignore[reportPrivateUsage] - asyncio has no public way to ask without raising

    def _is_hidden_here(self) -> bool:
        return (
            self.hidden and self.is_on_loop_thread() and events._get_running_loop() is None  # pyright: ignore[reportPrivateUsage] - as above
        )

    # --- the session's loop, run by the code ---------------------------------------------------------

    def _run_on(self, future: Any = None) -> Any:
        """Do what `run_until_complete`, or without a future `run_forever`, does, inside of the running loop.

        Raises:
            RuntimeError: the loop was stopped before the future was done.
            BaseException: what the future raises, or a cancel.
        """
        loop: Any = self.loop
        if future is None:
            self._turn_until(lambda: False)
            return None
        is_new = not futures.isfuture(future)
        awaited: Future[Any] = tasks.ensure_future(future, loop=loop)
        try:
            if not self._turn_until(awaited.done):
                raise RuntimeError("Event loop stopped before Future completed.")
        finally:
            if is_new and not awaited.done():
                awaited.cancel()
        return awaited.result()

    def _turn_until(self, is_done: Callable[[], bool]) -> bool:
        """Run the loop turn by turn; return False if the code has stopped it."""
        loop: Any = self.loop
        self._renew_reader()
        try:
            while not is_done():
                _run_once(loop)
                if self.canceller is not None:
                    self.canceller.raise_in_held_turn()
                if loop._stopping:
                    loop._stopping = False
                    return is_done()
        finally:
            self._renew_reader()
        return True

    def _renew_reader(self) -> None:
        # The cell was started by the reader's handle, and a handle's context is not entered twice.
        if self.renew_reader is not None:
            Context().run(self.renew_reader)


class _PolicyLoop:
    """What `asyncio.get_event_loop()` finds in the loop's thread where no loop runs: the code has its own.

    asyncio's policy keeps it. One that the code has set is left alone.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._policy: Any = _current_policy()
        self._of_code: dict[str, Any] = {}  # as in a thread in which none was set

    def show_that_of_code(self) -> None:
        """Let the policy find what the code has left there, in place of the session's loop."""
        if self._is_in_force() and self._kept.get("_loop") is self._loop:
            self._keep(self._of_code)

    def show_that_of_session(self) -> None:
        """Let the policy find the session's loop again; what the code leaves is for the next time."""
        if self._is_in_force():
            self._of_code = dict(self._kept)
            self._keep({"_loop": self._loop, "_set_called": True})

    def _is_in_force(self) -> bool:
        return self._policy is not None and _current_policy() is self._policy

    @property
    def _kept(self) -> dict[str, Any]:
        return self._policy._local.__dict__

    def _keep(self, found: dict[str, Any]) -> None:
        kept = self._kept
        kept.clear()
        kept.update(found)


def _current_policy() -> Any:
    # The function makes one where there is none, and is deprecated since 3.14.
    return vars(events)["_event_loop_policy"]


class _Hidden:
    """A context in which the session's loop, if it runs here, is hidden with its current task.

    A class, as the next ones: the code may have replaced parts of `contextlib`.
    """

    def __init__(self, coordinator: EventLoopCoordinator) -> None:
        self._coordinator = coordinator
        self._left = _LeftTask(coordinator) if coordinator.runs_here() else None

    def __enter__(self) -> None:
        if self._left is not None:
            self._hidden_before, self._coordinator.hidden = self._coordinator.hidden, True
            self._left.__enter__()
            events._set_running_loop(None)  # pyright: ignore[reportPrivateUsage] - documented for third-party loops
            self._coordinator.policy_loop.show_that_of_code()
            self._generator_hooks = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(None, None)

    def __exit__(self, *_: object) -> None:
        if self._left is not None:
            events._set_running_loop(self._coordinator.loop)  # pyright: ignore[reportPrivateUsage]
            sys.set_asyncgen_hooks(*self._generator_hooks)
            self._left.__exit__()
            self._coordinator.hidden = self._hidden_before
            self._coordinator.policy_loop.show_that_of_session()


class _LeftTask:
    """A context in which the task that runs on the session's loop is not the current one."""

    def __init__(self, coordinator: EventLoopCoordinator) -> None:
        self._loop, self._canceller = coordinator.loop, coordinator.canceller
        self._task = tasks.current_task(self._loop)

    def __enter__(self) -> None:
        if self._task is not None:
            tasks._leave_task(self._loop, self._task)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType] - documented for third-party loops
            if self._canceller is not None:
                self._held_before, self._canceller.held_task = self._canceller.held_task, self._task

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            if self._canceller is not None:
                self._canceller.held_task = self._held_before
            tasks._enter_task(self._loop, self._task)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]


class _WithCallPaths:
    """A context in which a loop gives its tasks call paths, unless the code has them made in its own way."""

    def __init__(self, loop: AbstractEventLoop, factory: Callable[..., Task[Any]]) -> None:
        self._loop, self._factory = loop, factory
        self._set = False

    def __enter__(self) -> None:
        with suppress(NotImplementedError):  # a loop that was written for a test has no factories
            if self._loop.get_task_factory() is None:
                self._loop.set_task_factory(self._factory)
                self._set = True

    def __exit__(self, *_: object) -> None:
        if self._set and self._loop.get_task_factory() == self._factory:
            self._loop.set_task_factory(None)


def _itself(loop: AbstractEventLoop) -> AbstractEventLoop:
    return loop


@runs_loop
def _run_once(loop: Any) -> None:
    loop._run_once()


_LOOP_HELPERS: Final = frozenset(module.__file__ for module in (signal, socket, weakref))


def _is_between_callbacks(file: str) -> bool:
    """Return whether a third-party loop calls this file's functions itself, between two callbacks.

    uvloop has a function that does nothing, so that Python handles signals.
    """
    return file in _LOOP_HELPERS or os.path.basename(file) == "_noop.py"


@runs_user_code
def _call(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return function(*arguments, **options)


_CALL_CODE: Final = _call.__code__  # pyright: ignore[reportFunctionMemberAccess] - a plain function


def _run_foreign(
    canceller: Canceller,
    method: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Run another library's loop. What is raised while that waits may be logged there, so it is stopped."""
    loop: AbstractEventLoop = arguments[0]
    raised: list[BaseException] = []

    def stop_if_idle(error: BaseException, frame: FrameType | None) -> bool:
        # A loop in C has no frames itself: what it calls is a callback, or a part of the library.
        called: FrameType | None = None
        while frame is not None and frame.f_code is not _CALL_CODE:
            called, frame = frame, frame.f_back
        if called is not None and not _is_between_callbacks(called.f_code.co_filename):
            return False
        raised.append(error)
        loop.call_soon_threadsafe(loop.stop)
        return True

    before, canceller.raise_elsewhere = canceller.raise_elsewhere, stop_if_idle
    value: Any = None
    try:
        value = _call(method, arguments, options)
    except RuntimeError:
        if not raised:  # it was not stopped before its future was done
            raise
    finally:
        canceller.raise_elsewhere = before
    if raised:
        raise raised[0]
    return value


def _run_interruptible(
    canceller: Canceller, run: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Run a loop that has its own way to end at a SIGINT. What is to be raised in its midst goes that way."""
    raised: list[BaseException] = []

    def interrupt(error: BaseException, frame: FrameType | None) -> bool:
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler) or handler is signal.default_int_handler:
            return False
        try:
            handler(signal.SIGINT, frame)
        except KeyboardInterrupt:  # the code is at work, and no part of the loop
            return False
        raised.append(error)
        return True

    before, canceller.raise_elsewhere = canceller.raise_elsewhere, interrupt
    try:
        return run(*arguments, **options)
    except BaseException as ended:
        if not raised or not _holds_interrupt(ended):
            raise
        raise raised[0] from (None if type(ended) is KeyboardInterrupt else ended)
    finally:
        canceller.raise_elsewhere = before


def _holds_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        members: tuple[BaseException, ...] = cast("Any", error).exceptions
        return any(map(_holds_interrupt, members))
    return isinstance(error, KeyboardInterrupt)
