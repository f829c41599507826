"""HostCaller: sends `input()` and calls of host functions to the client and waits for the answers.

A call is numbered by its place in the code (see `CallPath`) and sent. A coroutine awaits the answer; code
on the loop's thread waits while the session reads messages; other threads block.
"""

import os
import select
import sys
import threading
import time
from asyncio import AbstractEventLoop  # by name: the code may replace asyncio's own
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any, Final

import msgspec

from pyrepl3_schemas.codec import decode_value, encode_value
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import (
    Abandoned,
    Call,
    CallError,
    CallResponse,
    FromWorker,
    Input,
    InputResponse,
)
from pyrepl3_worker.errors import AsyncContextError, ExecutionError
from pyrepl3_worker.execution.execution import WorkerExecution, current_path
from pyrepl3_worker.host_calls.errors import make_exception
from pyrepl3_worker.host_calls.functions import describe
from pyrepl3_worker.host_calls.pending import COROUTINE_FLAGS, Answer, PendingCall, is_awaited
from pyrepl3_worker.interrupts.signals import Interrupt

_SHORT_SLEEP_SECONDS: Final = 0.002


class HostCaller:
    """Sends calls, lets each caller wait in the way it can, and delivers the answers."""

    def __init__(
        self,
        send: Callable[[FromWorker], None],
        send_at_once: Callable[[FromWorker], None],
        wait_and_dispatch: Callable[[], None],
        wake_loop_thread: Callable[[], None],
        blocking_thread_id: Callable[[], int | None],
        reader_fd: int,
        read_on: Callable[[AbstractEventLoop], Callable[[], None]],
        unwind: Callable[[], BaseException | None],
        *,
        sends_abandoned: bool = True,
    ) -> None:
        """Must be called on the loop's thread.

        Args:
            send: writes a message after the output before it, from any thread.
            send_at_once: writes a message, from any thread, also in a finalizer.
            wait_and_dispatch: blocks the loop's thread until something has been read, and dispatches that.
            wake_loop_thread: makes the loop's thread read messages, even if code holds it; from any thread.
            blocking_thread_id: returns the identifier of the thread for blocking code, or None before it
                is started.
            reader_fd: becomes readable when something has arrived.
            read_on: has messages read on a loop too, if it is one that the code runs; returns what ends that.
            unwind: called when code that was interrupted in a prompt asks at the same place again; returns
                what to raise there, or None if the execution is not being stopped.
            sends_abandoned: whether the client is told which answers are no longer waited for.
        """
        self._send = send
        self._send_at_once = send_at_once
        self._wait_and_dispatch = wait_and_dispatch
        self._wake_loop_thread = wake_loop_thread
        self._reader_fd = reader_fd
        self.read_on: Final = read_on
        self._loop_thread = threading.get_ident()
        self._blocking_thread_id = blocking_thread_id
        self.running: WorkerExecution | None = None
        self._pending: dict[str, Answer] = {}
        self._sends_abandoned = sends_abandoned
        self._interrupt: Interrupt | None = None
        self._unwind = unwind
        self._given_up_at: tuple[CodeType, int] | None = None
        """Where the prompt was asked that the running execution has last given up."""
        self._wake_blocking: Callable[[], bool] | None = None
        self._lock = threading.Lock()
        self.forked = False

    @property
    def pending_count(self) -> int:
        """How many calls and prompts have no answer yet."""
        return len(self._pending)

    # --- asking --------------------------------------------------------------------------------------

    def request_input(self, prompt: str, *, password: bool, frame: FrameType) -> Any:
        """Ask for a line. Return an awaitable when the instruction after the call awaits, else the line.

        Args:
            prompt: shown before the line is read.
            password: whether the line must not be shown.
            frame: the frame that calls `input`.
        """
        if self.is_awaited(frame):
            return self._awaitable("input", self._send_input(prompt, password=password, frame=frame), frame)
        return self.read_line(prompt, password=password, frame=frame)

    @staticmethod
    def is_awaited(frame: FrameType) -> bool:
        """Return whether what the call in a frame gives is awaited at once."""
        return bool(frame.f_code.co_flags & COROUTINE_FLAGS) and is_awaited(frame)

    def read_line(self, prompt: str, *, password: bool, frame: FrameType) -> str:
        """Ask for a line and wait.

        Args:
            prompt: shown before the line is read.
            password: whether the line must not be shown.
            frame: the code's innermost frame.

        Raises:
            EOFError: there is no more input, or no execution that could ask for it.
        """
        return self._wait(self._send_input(prompt, password=password, frame=frame))

    def _send_input(self, prompt: str, *, password: bool, frame: FrameType) -> Answer:
        if self.forked:
            raise EOFError("a forked child of the worker cannot ask for input")
        numbered = self._next_number("input")
        if numbered is None:
            raise EOFError("no execution is running that could ask")
        execution_id, number = numbered
        place = frame.f_code, frame.f_lasti
        if place == self._given_up_at and self.may_await_here() and (error := self._unwind()) is not None:
            raise error
        input_id = f"{execution_id}:input:{number}"
        answer = Answer(input_id, execution_id, place)
        self._pending[input_id] = answer
        self._send(
            Input(input_id=input_id, execution_id=execution_id, prompt=_encodable(prompt), password=password)
        )
        return answer

    def make_capability(
        self, name: str, signature: str, doc: str, *, awaitable: bool = False
    ) -> Callable[..., Any]:
        """Return the callable that stands for a host function.

        Args:
            name: the host function's.
            signature: its parameters, as text.
            doc: its docstring.
            awaitable: whether a call gives an awaitable; else it blocks and gives the value, but where the
                call is itself what `await` waits for.
        """
        function = self.make_function(name, awaitable=awaitable)
        describe(function, name, signature, doc, awaitable=awaitable)
        return function

    def make_function(self, name: str, *, awaitable: bool = False) -> Callable[..., Any]:
        """Return the same without what describes it to people."""

        def call_awaitable(*args: Any, **kwargs: Any) -> Any:
            return self._awaitable(name, self._send_call(name, args, kwargs), sys._getframe(1))  # pyright: ignore[reportPrivateUsage] - the line that calls

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = self._send_call(name, args, kwargs)
            frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - whether the caller awaits
            if frame.f_code.co_flags & COROUTINE_FLAGS and is_awaited(frame):
                return self._awaitable(name, answer, frame)
            return self._wait(answer)

        return call_awaitable if awaitable else call

    def _awaitable(self, name: str, answer: Answer, frame: FrameType) -> PendingCall:
        return PendingCall(name, answer, self, current_path.get(), (frame.f_code.co_filename, frame.f_lineno))

    def _send_call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        if self.forked:
            raise AsyncContextError("a forked child of the worker cannot call host functions")
        try:
            raw_args, raw_kwargs = encode_value(args), encode_value(kwargs)
        except LocalProtocolError as error:
            for argument in (*args, *kwargs.values()):
                if type(argument) is PendingCall:
                    raise TypeError(
                        f"an argument of {name}() was not awaited: {argument.explain()}"
                    ) from None
            raise TypeError(f"{name}() takes plain data alone: {error.reason}") from None
        numbered = self._next_number(name)
        if numbered is None:
            raise AsyncContextError(f"{name}() was called when no execution was running")
        execution_id, number = numbered
        call_id = f"{execution_id}:{name}:{number}"
        answer = Answer(call_id, execution_id)
        self._pending[call_id] = answer
        try:
            self._send(
                Call(
                    call_id=call_id,
                    execution_id=execution_id,
                    capability=name,
                    args=raw_args,
                    kwargs=raw_kwargs,
                )
            )
        except LocalProtocolError as error:
            del self._pending[call_id]
            raise ValueError(f"the arguments of {name}() are too large to send: {error.reason}") from None
        return answer

    def _next_number(self, name: str) -> tuple[str, str] | None:
        """Return the id of the execution that a call of `name` belongs to, and the call's number in it.

        A task or thread that outlives its execution goes on to call in its name. None when the caller has no
        call path and nothing runs either.
        """
        path = current_path.get()
        if path is not None:
            return path.execution.execution_id, path.next_number(name)
        running = self.running
        # It may end just now, on the loop's thread.
        path = None if running is None else running.path
        return None if path is None else (path.execution.execution_id, path.next_number(name))

    # --- waiting -------------------------------------------------------------------------------------

    def on_blocking_thread(self) -> bool:
        """Return whether the caller runs on the thread for blocking code."""
        return threading.get_ident() == self._blocking_thread_id()

    def _wait(self, answer: Answer) -> Any:
        try:
            if threading.get_ident() == self._loop_thread:
                while not answer.done:
                    self._wait_and_dispatch()
            else:
                self._wait_in_thread(answer)
        finally:
            self.give_up(answer)
        return answer.result()

    def may_await_here(self) -> bool:
        """Return whether this thread's loops are the session's: its own, or those that cells run."""
        here = threading.get_ident()
        return here == self._loop_thread or here == self._blocking_thread_id()

    def give_up(self, answer: Answer) -> None:
        """Tell the host that an answer is no longer waited for, if it has not come.

        May run in a finalizer, wherever that is: it takes no lock but that of the writer, which waits for no
        other.
        """
        if self._pending.pop(answer.call_id, None) is None:
            return
        if self.running is not None and self.running.cancel_count:
            self._given_up_at = answer.place
        answer.settle(error=ExecutionError("the call was given up: what waited for it was cancelled"))
        if self._sends_abandoned and not self.forked:
            with suppress(OSError):  # the client is gone
                self._send_at_once(Abandoned(answer.call_id, answer.execution_id))

    def never_awaited(self, call: PendingCall) -> None:
        """Warn of a call that was never awaited, in the name of the execution that has made it."""
        if self.forked:
            return
        import warnings

        token = None if call.path is None else current_path.set(call.path)
        try:
            warnings.warn_explicit(
                f"the call of {call.name}() was never awaited, and is given up: {call.explain()}",
                RuntimeWarning,
                *call.line,
                registry={},
            )
        finally:
            if token is not None:
                current_path.reset(token)

    def _wait_in_thread(self, answer: Answer) -> None:
        """Block this thread, and make the loop's thread read messages, whatever the code does there."""
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            answer.call_when_settled(lambda: os.eventfd_write(wake, 1))
            both, alone = select.poll(), select.poll()
            both.register(wake, select.POLLIN)
            both.register(self._reader_fd, select.POLLIN)
            alone.register(wake, select.POLLIN)
            with self._interruptible(answer):
                while not answer.done:
                    both.poll()
                    if answer.done:
                        break
                    self._wake_loop_thread()
                    alone.poll(1)
        finally:
            # Nothing may write to the fd once it is closed, and perhaps reused.
            answer.settle(error=ExecutionError("the wait has ended"))
            os.close(wake)

    def _interruptible(self, answer: Answer) -> "_InterruptibleWait":
        return _InterruptibleWait(self, lambda error: answer.settle(error=error))

    def sleep(self, seconds: object) -> None:
        """Sleep for `seconds` on the blocking thread, where no signal can interrupt `time.sleep`.

        Raises:
            ValueError, TypeError, OverflowError: as `time.sleep` does.
        """
        if not isinstance(seconds, int | float) or not _SHORT_SLEEP_SECONDS < seconds < threading.TIMEOUT_MAX:
            _original_sleep(seconds)  # pyright: ignore[reportArgumentType] - it says what is wrong with it
            return
        wake = threading.Lock()
        wake.acquire()
        woken: list[BaseException] = []

        def interrupt(error: BaseException) -> bool:
            woken.append(error)
            wake.release()
            return True

        with _InterruptibleWait(self, interrupt):
            wake.acquire(timeout=seconds)
        if woken:
            raise woken[0]

    def interrupt_blocking(self, interrupt: Interrupt) -> bool:
        """Raise in the blocking thread if it waits here, or as soon as it is about to wait here.

        Returns:
            Whether it waited here, and will raise.
        """
        with self._lock:
            self._interrupt = interrupt
            # Inside the lock, which the thread takes to leave its wait: so it sees the error.
            return self._wake_blocking is not None and self._wake_blocking()

    # --- answering -----------------------------------------------------------------------------------

    def deliver_input(self, message: InputResponse) -> None:
        """Settle an `input()` with its answer. An answer to a call that has been dropped is ignored."""
        answer = self._pending.pop(message.input_id, None)
        if answer is None:
            return
        if message.error is not None:
            answer.settle(error=RuntimeError(f"the input could not be had: {message.error}"))
        elif message.data is None or message.eof:
            end = EOFError("EOF when reading a line")
            end.add_note("input() gets its answers from the on_input of the program that runs this session")
            answer.settle(error=end)
        else:
            answer.settle(message.data)

    def deliver_call(self, message: CallResponse) -> None:
        """Settle a call of a host function. An answer to a call that has been dropped is ignored."""
        answer = self._pending.pop(message.call_id, None)
        if answer is None:
            return
        if message.error is not None:
            answer.settle(error=make_exception(message.error))
        elif isinstance(message.value, msgspec.Raw):
            try:
                value = decode_value(message.value)
            except RemoteProtocolError as error:
                # The frame is valid, so the session goes on; the caller must not wait for ever.
                why = CallError("CapabilityError", f"the answer is unreadable: {error}")
                answer.settle(error=make_exception(why))
            else:
                answer.settle(value)
        else:
            answer.settle(None)

    def execution_ended(self) -> None:
        """Drop an interrupt that was not claimed. Calls that something holds go on as late ones."""
        self._interrupt = self._given_up_at = None


class _InterruptibleWait:
    """A context in which an interrupt wakes the blocking thread by `wake(error)`, if that returns True."""

    def __init__(self, calls: HostCaller, wake: Callable[[BaseException], bool]) -> None:
        self._calls = calls
        self._wake = wake

    def _wake_if_interrupted(self) -> bool:
        interrupt = self._calls._interrupt  # pyright: ignore[reportPrivateUsage] - one idea in two classes
        error = None if interrupt is None else interrupt.claim()
        if interrupt is None or error is None:
            return False
        if not self._wake(error):
            # The answer had come: the code goes on, and is interrupted there.
            interrupt.unclaim(error)
            return False
        return True

    def __enter__(self) -> None:
        if self._calls.on_blocking_thread():
            with self._calls._lock:  # pyright: ignore[reportPrivateUsage]
                self._calls._wake_blocking = self._wake_if_interrupted  # pyright: ignore[reportPrivateUsage]
            self._wake_if_interrupted()

    def __exit__(self, *details: object) -> None:
        if self._calls.on_blocking_thread():
            with self._calls._lock:  # pyright: ignore[reportPrivateUsage]
                self._calls._wake_blocking = None  # pyright: ignore[reportPrivateUsage]


_original_sleep = time.sleep


def _encodable(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
