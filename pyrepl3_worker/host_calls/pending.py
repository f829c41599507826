"""Answers that calls wait for, the awaitables that code gets, and whether a caller awaits."""

import asyncio
import opcode
import threading
from asyncio import get_running_loop  # by name: the code may replace asyncio's own
from collections.abc import Callable, Coroutine, Generator
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Protocol

from pyrepl3_worker.errors import AsyncContextError
from pyrepl3_worker.execution.execution import CallPath

COROUTINE_FLAGS: Final = 0x80 | 0x200
"""CO_COROUTINE and CO_ASYNC_GENERATOR of a code object's flags."""


class Answer:
    """The answer to a call: a value or an error, settled once."""

    __slots__ = (
        "_lock",
        "_on_settled",
        "call_id",
        "done",
        "error",
        "execution_id",
        "place",
        "value",
        "waiting",
    )

    def __init__(self, call_id: str, execution_id: str, place: tuple[CodeType, int] | None = None) -> None:
        """Begin unsettled.

        Args:
            call_id: the call's.
            execution_id: the execution's that has made it.
            place: the code that has asked, and the offset of its instruction; None where it is not needed.
        """
        self.place = place
        self.call_id = call_id
        self.execution_id = execution_id
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiting = 0
        """How many tasks await it."""
        self._lock = threading.Lock()
        self._on_settled: list[Callable[[], None]] = []

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Settle the answer, from any thread. The first call wins; return whether this was the first."""
        with self._lock:
            if self.done:
                return False
            self.value, self.error = value, error
            self.done = True
            # Inside the lock: the waiter may free what the callback uses once it has had the lock.
            for callback in self._on_settled:
                callback()
            return True

    def call_when_settled(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the answer is settled, now if it is already."""
        with self._lock:
            if not self.done:
                self._on_settled.append(callback)
                return
        callback()

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class CallOwner(Protocol):
    """What an awaitable asks of the `HostCaller` that sent its call."""

    def may_await_here(self) -> bool:
        """Return whether this thread's loops are the session's."""
        ...

    def read_on(self, loop: asyncio.AbstractEventLoop, /) -> Callable[[], None]:
        """Have answers read on this loop, which the code may run itself; return what ends that."""
        ...

    def give_up(self, answer: Answer) -> None:
        """Tell the host that an answer is no longer waited for, if it has not come."""
        ...

    def never_awaited(self, call: "PendingCall") -> None:
        """Tell the user of a call that was never awaited, and that nothing holds any more."""
        ...


class PendingCall(Coroutine[Any, Any, Any]):
    """A call that has been sent. It can be awaited, gathered, or made a task, like a coroutine.

    A cancel of the task that awaits it gives the call up, as it would end a coroutine; so does the end of
    the last reference to it. What is done to it in the place of its value explains itself.
    """

    __slots__ = ("__weakref__", "_answer", "_iterator", "_owner", "_started", "line", "name", "path")

    def __init__(
        self, name: str, answer: Answer, owner: CallOwner, path: CallPath | None, line: tuple[str, int]
    ) -> None:
        """Stand for a call.

        Args:
            name: the host function's.
            answer: the answer to it.
            owner: has sent it.
            path: the call path that it was made on, whose execution is told when it is never awaited.
            line: the file and the number of the line that has made it.
        """
        self.name = name
        self.path = path
        self.line = line
        self._answer = answer
        self._owner = owner
        self._started = False
        self._iterator: Generator[Any, None, Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the answer."""
        self._started = True
        return self._wait()

    def _wait(self) -> Generator[Any, None, Any]:
        answer = self._answer
        if not answer.done:
            if not self._owner.may_await_here():
                raise AsyncContextError(
                    f"{self.name}() belongs to the session's event loop, and this is thread "
                    f"{threading.current_thread().name!r}: {_in_a_thread(self.name)}"
                )
            loop = get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_set_done, future)

            answer.waiting += 1
            stop_reading = self._owner.read_on(loop)
            try:
                answer.call_when_settled(wake)
                yield from future
            finally:
                stop_reading()
                answer.waiting -= 1
                if not answer.done and not answer.waiting:
                    self._owner.give_up(answer)
        return answer.result()

    def send(self, value: Any, /) -> Any:
        """Run until the answer is there, as a coroutine does."""
        if self._iterator is None:
            self._iterator = self.__await__()
        return self._iterator.send(value)

    def throw(
        self,
        typ: Any,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """Raise where it waits."""
        if self._iterator is None:
            self._iterator = self.__await__()
            # Thrown into before it has begun to wait: a generator would not come past its `finally`.
            self._give_up()
        if val is None and tb is None:
            return self._iterator.throw(typ)
        return self._iterator.throw(typ, val, tb)

    def close(self) -> None:
        """Stop waiting, and give the call up."""
        self._started = True
        if self._iterator is not None:
            self._iterator.close()
        self._give_up()

    def _give_up(self) -> None:
        if not self._answer.done and not self._answer.waiting:
            self._owner.give_up(self._answer)

    def __del__(self) -> None:
        """Give the call up: nothing can await it any more."""
        if not self._started:
            self._owner.never_awaited(self)
        self._give_up()

    # --- what is done to it in the place of its value --------------------------------------------------

    def explain(self) -> str:
        """Return what it is, and what to write."""
        text = f"{self.name}() is a coroutine function here: write await {self.name}(…)"
        return text if self._owner.may_await_here() else f"{text}; {_in_a_thread(self.name)}"

    def __repr__(self) -> str:
        """Say what it is, and what to write."""
        if self._started:
            state = "answered" if self._answer.done else "awaited"
            return f"<call of {self.name}(), {state}>"
        return f"<call of {self.name}(), not awaited: {self.explain()}>"

    def __format__(self, spec: str, /) -> str:
        """Format its repr; a format for numbers explains itself."""
        try:
            return format(repr(self), spec)
        except ValueError:
            raise TypeError(self.explain()) from None

    def __copy__(self) -> "PendingCall":
        """Return itself: it is one call."""
        return self

    def __deepcopy__(self, memo: object, /) -> "PendingCall":
        """Return itself: it is one call."""
        return self

    def __reduce__(self) -> Any:
        """Refuse to be pickled: the call is under way in this process.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"a call of {self.name}() cannot be saved; await it, and keep its value")

    def __getattr__(self, name: str) -> Any:
        """Explain an unknown attribute; a task that is made of it asks for its name.

        Raises:
            AttributeError: it has no such attribute.
        """
        if name in ("__name__", "__qualname__"):
            return self.name
        raise AttributeError(f"a call has no attribute {name!r}: {self.explain()}", name=name, obj=self)


_OPERATORS: Final = (
    "call", "bool", "len", "iter", "aiter", "contains", "getitem", "setitem", "delitem",
    "lt", "le", "gt", "ge", "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow",
    "lshift", "rshift", "and", "xor", "or", "radd", "rsub", "rmul", "rmatmul", "rtruediv", "rfloordiv",
    "rmod", "rdivmod", "rpow", "rlshift", "rrshift", "rand", "rxor", "ror", "neg", "pos", "abs", "invert",
    "int", "float", "complex", "index", "round", "trunc", "floor", "ceil",
    "enter", "exit", "aenter", "aexit",
)  # fmt: skip


def _refuse(self: PendingCall, *_: object, **__: object) -> Any:
    raise TypeError(self.explain())


for _name in _OPERATORS:
    setattr(PendingCall, f"__{_name}__", _refuse)


def _set_done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _in_a_thread(name: str) -> str:
    return (
        f"in a thread use asyncio.run_coroutine_threadsafe({name}(…), loop) with the session's loop, or have "
        f"{name} offered as a plain def, or with capability(…, awaitable=False)"
    )


_CALL_OPCODES: Final = frozenset(
    opcode.opmap[name] for name in ("CALL", "CALL_KW", "CALL_FUNCTION_EX") if name in opcode.opmap
)
_CACHE_OPCODE: Final = opcode.opmap["CACHE"]
_GET_AWAITABLE_OPCODE: Final = opcode.opmap["GET_AWAITABLE"]


def is_awaited(frame: FrameType) -> bool:
    """Return whether the instruction after the call that `frame` is in awaits its result."""
    code = frame.f_code.co_code
    at = frame.f_lasti
    # Python 3.12 stands on the last of the call's caches, later versions on the call.
    while at > 0 and code[at] == _CACHE_OPCODE:
        at -= 2
    if at < 0 or code[at] not in _CALL_OPCODES:
        return False
    at += 2
    while at < len(code) and code[at] == _CACHE_OPCODE:
        at += 2
    return at < len(code) and code[at] == _GET_AWAITABLE_OPCODE
