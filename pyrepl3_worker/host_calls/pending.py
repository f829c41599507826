"""Answers that calls wait for, and whether a caller awaits."""

import asyncio
import opcode
import threading
from asyncio import get_running_loop  # by name: the code may replace asyncio's own
from collections.abc import Callable, Coroutine, Generator
from types import FrameType, TracebackType
from typing import Any, Final

COROUTINE_FLAGS: Final = 0x80 | 0x200
"""CO_COROUTINE and CO_ASYNC_GENERATOR of a code object's flags."""


class Answer:
    """The answer to a call: a value or an error, settled once."""

    __slots__ = ("_lock", "_on_settled", "done", "error", "value")

    def __init__(self) -> None:
        """Begin unsettled."""
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._on_settled: Callable[[], None] | None = None

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Settle the answer, from any thread. The first call wins; return whether this was the first."""
        with self._lock:
            if self.done:
                return False
            self.value, self.error = value, error
            self.done = True
            # Inside the lock: the waiter may free what the callback uses once it has had the lock.
            if self._on_settled is not None:
                self._on_settled()
            return True

    def call_when_settled(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the answer is settled, now if it is already."""
        with self._lock:
            if not self.done:
                self._on_settled = callback
                return
        callback()

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class PendingCall(Coroutine[Any, Any, Any]):
    """A call that has been sent. It can be awaited, gathered, or made a task, like a coroutine."""

    __slots__ = ("_future", "_iterator")

    def __init__(self, answer: Answer) -> None:
        """Wait for `answer` on the running loop."""
        loop = get_running_loop()
        self._future: asyncio.Future[Any] = loop.create_future()
        self._iterator: Generator[Any, None, Any] | None = None

        def settle() -> None:
            if self._future.done():
                return
            if answer.error is not None:
                self._future.set_exception(answer.error)
            else:
                self._future.set_result(answer.value)

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle)

        answer.call_when_settled(wake)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the answer."""
        return self._future.__await__()

    def send(self, value: Any, /) -> Any:
        """Run until the answer is there, as a coroutine does."""
        if self._iterator is None:
            self._iterator = self._future.__await__()
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
            self._iterator = self._future.__await__()
        if val is None and tb is None:
            return self._iterator.throw(typ)
        return self._iterator.throw(typ, val, tb)

    def close(self) -> None:
        """Stop waiting."""
        if self._iterator is not None:
            self._iterator.close()


def in_coroutine(frame: FrameType | None) -> bool:
    """Return whether a call is written in a coroutine, or in a lambda or generator expression in one."""
    while frame is not None and frame.f_code.co_name in ("<lambda>", "<genexpr>"):
        frame = frame.f_back
    if frame is None or not frame.f_code.co_flags & COROUTINE_FLAGS:
        return False
    return asyncio._get_running_loop() is not None  # pyright: ignore[reportPrivateUsage] - asking without raising


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
