"""One incarnation of a scripted worker: the worker's ends of the pipes, and its answers to messages."""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from pyrepl3_client._launch.worker import ExitStatus, WorkerPipes
from pyrepl3_client._wire.captured_output import bytes_waiting
from pyrepl3_schemas.codec import WorkerDecoder, encode, encode_value
from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.messages import (
    Abandoned,
    Call,
    CallResponse,
    Cancel,
    CancelReason,
    Checkpoint,
    Checkpointed,
    Chunk,
    Complete,
    Completions,
    Display,
    Error,
    Execute,
    FromWorker,
    GetStats,
    Hello,
    Input,
    InputResponse,
    Inspect,
    Inspection,
    Metrics,
    Offer,
    Output,
    Ping,
    Pong,
    Ready,
    Request,
    RequestError,
    Response,
    Restore,
    Restored,
    Result,
    Shutdown,
    Stats,
    StreamName,
    ToWorker,
    Withdraw,
)

type Script = Callable[["Run"], Awaitable[object]]
"""Runs in place of one execution's code: it returns the value, or raises the code's error."""

_SIGKILL: Final = 9
_NO_METRICS: Final = Metrics(
    total_executions=0,
    successful_executions=0,
    failed_executions=0,
    total_duration=0.0,
    duration_buckets=[],
    mode_distribution={},
    cache_hits=0,
    cache_misses=0,
    cache_hit_rate=0.0,
    ast_transforms=0,
    active_tasks=0,
    tasks_created=0,
    output_bytes=0,
)


class ScriptedBehaviour(Protocol):
    """What decides how scripted processes answer: a `ScriptedWorker`. Its attributes hold the rest."""

    ready: Ready
    unanswered: set[type[ToWorker]]
    wakeup_signals: int

    def note(self, message: ToWorker) -> None:
        """Record a message that has come."""
        ...

    def script_for(self, code: str) -> Script:
        """Return the script of `code`."""
        ...


class CallFailed(Exception):  # noqa: N818 - named like the message it stands for
    """Raised by a script's `call` when the host function failed; its text is the exception's message.

    Args:
        exception: the type name of the host function's exception.
        message: that exception's text.
    """

    def __init__(self, exception: str, message: str) -> None:
        """Keep the exception's type name."""
        super().__init__(message)
        self.exception = exception


class Run:
    """One execution, as its script sees it."""

    def __init__(self, process: "ScriptedProcess", message: Execute) -> None:
        """Describe the execution; scripted processes do this."""
        self.message = message
        """The message that asked for the execution."""
        self.reason: CancelReason | None = None
        """Why the execution is being cancelled; None when it is not."""
        self._process = process
        self._inputs = 0
        self._calls: dict[str, int] = {}

    def print(self, text: str, stream: StreamName = "stdout", *, captured: bool = False) -> None:
        """Send text as output, as `print` does.

        Args:
            text: what is printed, with its line ends.
            stream: "stdout" or "stderr".
            captured: whether the text comes after what has been written to fds 1 and 2 with `write`.
        """
        out, err = self._process.unread_captured_bytes() if captured else (0, 0)
        owner = self.message.execution_id
        self.send(Output(stream, text, owner, captured_stdout=out, captured_stderr=err))

    def write(self, data: bytes, stream: StreamName = "stdout") -> None:
        """Write to fd 1 or 2, past Python.

        Args:
            data: at most what the pipe has room for.
            stream: "stdout" is fd 1, "stderr" is fd 2.
        """
        self._process.write_captured(data, stream)

    def display(self, data: dict[str, str]) -> None:
        """Display a rich object.

        Args:
            data: its representations by MIME type.
        """
        self.send(Display(data=data, execution_id=self.message.execution_id))

    def send(self, message: FromWorker) -> None:
        """Send any message to the client.

        Args:
            message: what is sent.
        """
        self._process.send(message)

    async def input(self, prompt: str = "", *, password: bool = False) -> str:
        """Ask for a line of input, as `input()` does.

        Args:
            prompt: the prompt's text.
            password: whether the answer is not to be shown.

        Returns:
            The line, without its end.

        Raises:
            EOFError: there is no answer.
            RuntimeError: the session's `on_input` failed.
        """
        self._inputs += 1
        execution_id = self.message.execution_id
        input_id = f"{execution_id}:input:{self._inputs}"
        answer = await self._process.request(
            input_id,
            Input(input_id=input_id, execution_id=execution_id, prompt=prompt, password=password),
        )
        assert isinstance(answer, InputResponse)
        if answer.error is not None:
            raise RuntimeError(answer.error)
        if answer.data is None:
            raise EOFError("EOF when reading a line")
        return answer.data

    async def call(self, capability: str, *args: object, **kwargs: object) -> Any:
        """Call a host function.

        Args:
            capability: the function's name.
            *args: its arguments, which have to encode.
            **kwargs: its keyword arguments, likewise.

        Returns:
            Its value, as plain data.

        Raises:
            CallFailed: the function failed.
        """
        number = self._calls[capability] = self._calls.get(capability, 0) + 1
        execution_id = self.message.execution_id
        call_id = f"{execution_id}:{capability}:{number}"
        call = Call(
            call_id=call_id,
            execution_id=execution_id,
            capability=capability,
            args=encode_value(args),
            kwargs=encode_value(kwargs),
        )
        answer = await self._process.request(call_id, call)
        assert isinstance(answer, CallResponse)
        if answer.error is not None:
            raise CallFailed(answer.error.exception, answer.error.message)
        return msgspec.msgpack.decode(answer.value) if isinstance(answer.value, msgspec.Raw) else None


class ScriptedProcess:
    """One incarnation: it has the worker's ends of the pipes, and answers the client's messages."""

    def __init__(self, behaviour: ScriptedBehaviour) -> None:
        """Listen on the running loop.

        Args:
            behaviour: the `ScriptedWorker` that says what to answer.
        """
        self.pid = behaviour.ready.pid
        self._behaviour = behaviour
        self._loop = asyncio.get_running_loop()
        self._pipes = [os.pipe() for _ in range(6)]
        for ends in self._pipes:
            for fd in ends:
                os.set_blocking(fd, False)
        requests, answers, out, err, stderr, exited = self._pipes
        self.pipes = WorkerPipes(requests[1], answers[0], out[0], err[0], stderr[0], exited[0])
        self._reader, self._writer = requests[0], answers[1]
        self._captured: dict[StreamName, int] = {"stdout": out[1], "stderr": err[1]}
        self._stderr, self._exit_fd = stderr[1], exited[1]
        self._decoder = WorkerDecoder()
        self._unsent = bytearray()
        self._queue: deque[Execute | Checkpoint | Restore] = deque()
        self._running: Run | None = None
        self._task: asyncio.Task[None] | None = None
        self._answers: dict[str, asyncio.Future[ToWorker]] = {}
        self._exit_status: ExitStatus | None = None
        self.ignores_eof = False
        """Whether the process lives on when the client closes the pipe to it."""
        self._loop.add_reader(self._reader, self._on_readable)

    # --- for tests -----------------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait to be sent, since the pipe to the client is full."""
        return len(self._unsent)

    @property
    def ended(self) -> bool:
        """Whether the process has ended, by itself or killed by the client."""
        return self._exit_status is not None

    def send(self, message: FromWorker) -> None:
        """Send a message to the client.

        Args:
            message: what is sent; nothing is when the process has ended.
        """
        self.send_bytes(encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes to the client, also such that are no messages.

        Args:
            data: what is sent; nothing is when the process has ended.
        """
        if self._exit_status is not None:
            return
        self._unsent += data
        self._on_writable()
        if self._unsent:
            self._loop.add_writer(self._writer, self._on_writable)

    def unread_captured_bytes(self) -> tuple[int, int]:
        """Return how many bytes written to fds 1 and 2 the client has not read yet."""
        stdout, stderr = map(bytes_waiting, self._captured.values())
        return stdout, stderr

    def write_captured(self, data: bytes, stream: StreamName = "stdout") -> None:
        """Write to fd 1 or 2, past Python.

        Args:
            data: at most what the pipe has room for.
            stream: "stdout" is fd 1, "stderr" is fd 2.
        """
        os.write(self._captured[stream], data)

    def write_stderr(self, text: str) -> None:
        """Write text to the worker's own stderr.

        Args:
            text: at most what the pipe has room for.
        """
        os.write(self._stderr, text.encode())

    def exit(self, exit_code: int | None = None, signal: int | None = None) -> None:
        """End the process at once, with an exit code or by a signal. Idempotent.

        Args:
            exit_code: its exit status, or None.
            signal: the number of the signal that ends it, or None.
        """
        if self._exit_status is not None:
            return
        self._exit_status = ExitStatus(exit_code, signal)
        if self._task is not None:
            self._task.cancel()
        self._loop.remove_reader(self._reader)
        self._loop.remove_writer(self._writer)
        for fd in (self._reader, self._writer, *self._captured.values(), self._stderr, self._exit_fd):
            os.close(fd)

    def close_output(self) -> None:
        """Close the pipe to the client; the process lives on."""
        self._loop.remove_writer(self._writer)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._writer, inheritable=False)
        os.close(null)

    async def request(self, key: str, message: Input | Call) -> ToWorker:
        """Send an `input` or a `call`, and wait for the client's answer.

        Args:
            key: the id that the answer will carry.
            message: the request.

        Returns:
            The `input_response` or `call_response`.
        """
        answer = self._answers[key] = self._loop.create_future()
        self.send(message)
        try:
            return await answer
        except asyncio.CancelledError:
            self.send(Abandoned(key, message.execution_id))
            raise
        finally:
            del self._answers[key]

    # --- for the client ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Count the wake-up signal."""
        self._behaviour.wakeup_signals += 1

    def kill(self) -> None:
        """End the process as by SIGKILL. Idempotent."""
        self.exit(signal=_SIGKILL)

    def kill_outermost(self) -> None:
        """End the process as by SIGKILL. Idempotent."""
        self.kill()

    def reap(self) -> ExitStatus:
        """Return how the process ended."""
        assert self._exit_status is not None
        return self._exit_status

    # --- inside --------------------------------------------------------------------------------------

    def _on_writable(self) -> None:
        try:
            written = os.write(self._writer, self._unsent)
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._unsent)
        del self._unsent[:written]
        if not self._unsent:
            self._loop.remove_writer(self._writer)

    def _on_readable(self) -> None:
        data = os.read(self._reader, 2**16)
        if not data:
            self._loop.remove_reader(self._reader)
            if not self.ignores_eof:
                self.exit(0)
            return
        for message in self._decoder.feed(data):
            self._behaviour.note(message)
            if type(message) not in self._behaviour.unanswered:
                self._dispatch(message)

    def _dispatch(self, message: ToWorker) -> None:
        match message:
            case Hello():
                self.send(self._behaviour.ready)
            case Execute() | Checkpoint() | Restore():
                self._queue.append(message)
                self._start_next()
            case InputResponse():
                self._set_answer(message.input_id, message)
            case CallResponse():
                self._set_answer(message.call_id, message)
            case Cancel():
                self._cancel(message)
            case Offer() | Withdraw():
                pass  # a script calls whatever it says
            case Complete():
                self.send(Completions(request_id=message.request_id))
            case Inspect():
                self.send(Inspection(request_id=message.request_id))
            case Ping():
                current = None if self._running is None else self._running.message.execution_id
                self.send(Pong(nonce=message.nonce, queue=len(self._queue), current_execution=current))
            case GetStats():
                self.send(Stats(metrics=_NO_METRICS, request_id=message.request_id))
            case Request():
                error = RequestError("LookupError", f"a scripted worker answers no {message.kind} requests")
                self.send(Response(message.request_id, error=error))
            case Chunk():
                pass  # of a request that is answered
            case Shutdown():
                self.exit(0)

    def _set_answer(self, key: str, message: ToWorker) -> None:
        answer = self._answers.get(key)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _start_next(self) -> None:
        while self._running is None and self._queue and self._exit_status is None:
            match self._queue.popleft():
                case Execute() as message:
                    self._running = Run(self, message)
                    self._task = self._loop.create_task(self._run_script(self._running))
                case Checkpoint() as message:
                    self.send(Checkpointed(checkpoint_id=message.checkpoint_id, data=b"scripted"))
                case Restore() as message:
                    self.send(Restored(checkpoint_id=message.checkpoint_id))

    def _cancel(self, message: Cancel) -> None:
        run = self._running
        if run is not None and run.message.execution_id == message.execution_id:
            run.reason = message.reason
            assert self._task is not None
            # Not before its first step, which is due already: a task cancelled before that never runs.
            self._loop.call_soon(self._task.cancel)
            return
        for waiting in self._queue:
            if isinstance(waiting, Execute) and waiting.execution_id == message.execution_id:
                self._queue.remove(waiting)
                self._send_error(
                    waiting, "cancelled", "CancellationError", "it was cancelled before it began"
                )
                return

    async def _run_script(self, run: Run) -> None:
        message = run.message
        try:
            async with asyncio.timeout(message.timeout):
                value = await self._behaviour.script_for(message.code)(run)
        except asyncio.CancelledError:
            if self._exit_status is not None:
                raise
            self._send_error(
                message, "timeout" if run.reason == "timeout" else "cancelled", "CancelledError", ""
            )
        except TimeoutError as error:
            self._send_error(message, "timeout", "TimeoutError", str(error))
        except Exception as error:  # noqa: BLE001 - a script's errors are its code's
            self._send_error(message, "exception", type(error).__name__, str(error))
        else:
            self.send(_result(message, value))
        self._running = self._task = None
        self._start_next()

    def _send_error(self, message: Execute, kind: Any, exception: str, text: str) -> None:
        self.send(
            Error(
                kind=kind,
                exception=exception,
                message=text,
                execution_id=message.execution_id,
                traceback=f"Traceback (most recent call last):\n{exception}: {text}\n",
                mode="scripted",
            )
        )


def _result(message: Execute, value: object) -> Result:
    if value is None:
        return Result(execution_id=message.execution_id, mode="scripted")
    try:
        data = encode_value(value)
    except LocalProtocolError:
        data = msgspec.UNSET
    return Result(
        execution_id=message.execution_id,
        mode="scripted",
        value=data,
        repr=repr(value),
        type_name=type(value).__name__,
    )
