"""One worker of a session: its handshake, the routes of its messages, and its end."""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

import msgspec

from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._launch.interpreter import describe_interpreter
from pyrepl3_client._launch.outside_view import unseen
from pyrepl3_client._launch.process_tree import ProcessTree
from pyrepl3_client._launch.worker import ExitStatus, Worker
from pyrepl3_client._log import fields, write
from pyrepl3_client._network.serving import WorkerNetwork
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.events import DeathEvent, ReadyEvent, SpawnEvent, StopEvent
from pyrepl3_client._telemetry.log import NETWORK_LOGGER, WARNING, WORKER_LOGGER
from pyrepl3_client._text import truncated
from pyrepl3_client._wire.connection import Connection, Interceptor, Route, WorkerExit
from pyrepl3_client._wire.stall import StallError
from pyrepl3_client._worker.death_cause import certificate, oom_kills
from pyrepl3_client._worker.message_guard import MessageGuard
from pyrepl3_client._worker.requests import Requests, answer_key
from pyrepl3_client._worker.tree_limits import watch_tree
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import DeathCertificate, ProtocolError, SpawnError, WorkerDied
from pyrepl3_schemas.constants import MIN_MAX_FRAME_BYTES, PROTOCOL
from pyrepl3_schemas.messages import (
    Checkpointed,
    Chunk,
    Completions,
    Error,
    FromWorker,
    Hello,
    Inspect,
    Inspection,
    Output,
    Pong,
    Progress,
    Ready,
    Response,
    Restored,
    Shutdown,
    Stats,
)

_ANSWERS: Final[tuple[type[FromWorker], ...]] = (
    Pong, Stats, Completions, Inspection, Checkpointed, Restored,
)  # fmt: skip
_MAX_SESSION_ERRORS: Final = 20
"""Errors of the worker that belong to no execution and no request. Each is a line in the log."""


class WorkerHandle:
    """A worker from its handshake to its end. `wait_ready` returns its `ready` message."""

    def __init__(
        self,
        worker: Worker,
        hello: Hello,
        queue: ExecutionQueue,
        interceptors: list[Interceptor],
        context: Context,
        on_end: Callable[["WorkerHandle"], None],
        config: WorkerConfig,
        telemetry: Telemetry,
    ) -> None:
        """Send `hello` to `worker`, and own it from now on.

        Args:
            worker: the process.
            hello: the first message to it.
            queue: the executions that it runs.
            interceptors: see each of its messages first.
            context: everything is called in a copy of this context.
            on_end: called after its end, on the loop.
            config: what it was started with.
            telemetry: its start and its end are announced to it.
        """
        if worker.pipes.adjustments is not None:
            hello = msgspec.structs.replace(hello, adjust=worker.pipes.adjustments)
        self.number = hello.incarnation
        self.session_id = hello.session_id
        self.pid = worker.pid
        self.ready: Ready | None = None
        self._config = config
        self._telemetry = telemetry
        telemetry.worker, telemetry.incarnation = self.pid, self.number
        self._started = time.perf_counter()
        telemetry.announce(SpawnEvent(**self._whose, warm=bool(worker.pipes.greeting_sent)))
        self._queue = queue
        self._stopped_for = ""
        """Why the session ends it; empty if it does not."""
        self._error_count = 0
        self.processes: ProcessTree | None = None
        """Its processes, once it is ready."""
        self._network: WorkerNetwork | None = None
        """What answers its code's connections, where its policy allows hosts."""
        self._max_memory = hello.config.max_memory_usage
        self._oom_kills = oom_kills()
        self._kernel_has_killed: bool | None = None
        self._guard = MessageGuard(queue)
        self.requests = Requests(lambda: self.connection, queue.busy)
        self._routes: dict[type[FromWorker], Route] = {
            **self._guard.routes,
            **dict.fromkeys(_ANSWERS, self._route_answer),
            Response: self.requests.by_kind.on_response,
            Chunk: self.requests.by_kind.on_chunk,
            Progress: self._route_progress,
            Ready: self._route_ready,
            Error: self._route_error,
        }
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._spawn_failure = ""
        self.connection = Connection(
            worker,
            {
                **dict.fromkeys(self._routes, self._route_early),
                # A thread of a module that was imported in advance may write at any time.
                Output: self._guard.output,
                Ready: self._route_ready,
                Error: self._route_error,
            },
            queue.on_captured,
            interceptors,
            hello.config.max_frame_bytes,
            context,
            config.stall_timeout,
        )
        # While it is known what ran.
        self.connection.exited.add_done_callback(self._announce_end)
        # Added before any other callback: what the end means is settled first.
        self.connection.exited.add_done_callback(lambda _: on_end(self))
        # Whatever it means, no answer comes after it.
        self.connection.exited.add_done_callback(lambda _: self.requests.end(self.died_error))
        try:
            self.connection.send_hello(hello)
        except ProtocolError as error:
            self.connection.kill(f"it could not be greeted: {error}", error)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet, as far as the client knows."""
        return not self.connection.exited.done()

    def cpu_seconds(self) -> float | None:
        """Return the CPU time in seconds that its processes have used; None before it is ready."""
        return None if self.processes is None else self.processes.sample(full=False).cpu_seconds

    async def wait_ready(self) -> Ready:
        """Wait until the worker takes code.

        Raises:
            SpawnError: it ended before, or took longer than `spawn_timeout`; or there is no room for what
                answers its code's connections.
        """
        seconds = self._config.spawn_timeout
        await asyncio.wait(
            [self._ready, self.connection.exited], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if self._ready.done():
            self.processes = watch_tree(self.connection, self._config, self._queue.busy)
            await self._open_network()
            return self._ready.result()
        if self.alive:
            self.connection.kill(f"it was not ready within {seconds:g} seconds")
            await asyncio.wait([self.connection.exited])
        raise self._spawn_error()

    async def _open_network(self) -> None:
        directories = self.connection.worker.pipes.directories
        rules = self._config.sandbox.host_rules
        if not rules or directories is None:
            return
        listener = directories.take_listener()
        if listener is None:
            if self.alive:
                extra = fields(self.session_id, worker=self.pid)
                what = "has no network of its own here, and reaches none of the hosts that its policy allows"
                write(NETWORK_LOGGER, WARNING, "%s", self._name(what), extra=extra)
            return
        try:
            self._network = WorkerNetwork(listener, rules, self._telemetry, self._whose)
        except (OSError, RuntimeError) as error:
            await self.kill("nothing can answer its connections")
            raise SpawnError(f"there is no room for the proxy of {self._name('')}: {error}") from error
        self.connection.exited.add_done_callback(lambda _: self._stop_network())

    def _stop_network(self) -> None:
        if self._network is not None:
            self._network.stop()

    async def _network_ended(self) -> None:
        if self._network is not None:
            await self._network.wait_ended()

    async def stop(self, reason: str, grace: float) -> None:
        """Ask the worker to end, and kill it when it takes longer than `grace` seconds."""
        connection = self.connection
        if not self.alive:
            await self._network_ended()
            return
        self._guard.shutting_down = True
        self._stopped_for = reason
        connection.start_forced_reading()
        connection.send(Shutdown(reason=reason, grace=grace))
        connection.writer.close()
        connection.wake()
        await asyncio.wait([connection.exited], timeout=grace)
        if self.alive:
            connection.kill(f"it did not end within {grace:g} seconds ({reason})")
            await asyncio.wait([connection.exited])
        await self._network_ended()

    async def kill(self, reason: str) -> None:
        """Kill the worker and wait for its end."""
        self._guard.shutting_down = True
        self._stopped_for = reason
        self.connection.kill(reason)
        await asyncio.wait([self.connection.exited])
        await self._network_ended()

    async def names(self) -> frozenset[str]:
        """Ask the worker for the names of the namespace, and return them."""
        key = str(self.requests.next_number())
        message = Inspect(code="", cursor=0, request_id=key)
        inspection = await self.requests.ask(message, Inspection, key, None, urgent=True)
        return frozenset(variable.name for variable in inspection.variables)

    def exit_report(self, running: tuple[str, ...]) -> DeathCertificate:
        """Return all that is known of the worker's end, which has come."""
        end: WorkerExit = self.connection.exited.result()
        if self._kernel_has_killed is None:
            self._kernel_has_killed = oom_kills() > self._oom_kills
        return certificate(
            ExitStatus(end.exit_code, end.signal, end.peak_rss),
            end.stderr,
            pid=self.pid,
            incarnation=self.number,
            reason=end.reason,
            max_memory=self._max_memory,
            kernel_has_killed=self._kernel_has_killed,
            broke_protocol=isinstance(end.cause, ProtocolError) and not isinstance(end.cause, StallError),
            running=running,
        )

    @property
    def _whose(self) -> dict[str, Any]:
        """What is said of it in each event."""
        return {"session_id": self.session_id, "worker": self.pid, "incarnation": self.number}

    def _announce_end(self, _: asyncio.Future[WorkerExit]) -> None:
        if self._stopped_for:
            self._telemetry.announce(StopEvent(**self._whose, reason=self._stopped_for))
            return
        running = self._queue.running
        report = self.exit_report(running)
        first = self._queue.first
        execution_id = None if first is None else first.execution_id
        self._telemetry.announce(DeathEvent(**self._whose, certificate=report, execution_id=execution_id))

    def died_error(self, running: tuple[str, ...] = (), reason: str = "") -> WorkerDied:
        """Return an error that says how the worker ended: a new one for each task that waits."""
        if not self.connection.exited.done():
            return WorkerDied(self._name("is ended"), running=running, reason=reason, incarnation=self.number)
        end: WorkerExit = self.connection.exited.result()
        error = WorkerDied(
            self._name("died"),
            end.exit_code,
            end.signal,
            end.stderr,
            running,
            reason or end.reason,
            self.number,
            certificate=self.exit_report(running),
        )
        error.__cause__ = end.cause
        return error

    def _spawn_error(self) -> SpawnError:
        end: WorkerExit = self.connection.exited.result()
        reasons = (self._spawn_failure or end.reason, describe_interpreter(self._config, end.stderr))
        error = SpawnError(
            self._name("ended before it was ready"),
            end.exit_code,
            end.signal,
            end.stderr,
            reason="; ".join(filter(None, reasons)),
            incarnation=self.number,
        )
        error.__cause__ = end.cause
        return error

    def _name(self, verb: str) -> str:
        return f"worker {self.pid} of session {self.session_id!r} {verb}"

    def _route_ready(self, message: Ready) -> None:
        if message.protocol != PROTOCOL:
            self._spawn_failure = f"it speaks protocol {message.protocol}, and we speak {PROTOCOL}"
            self.connection.kill(self._spawn_failure, ProtocolError(self._spawn_failure))
            return
        if self._ready.done():
            raise ProtocolError("it said ready twice")
        if message.max_frame_bytes < MIN_MAX_FRAME_BYTES:
            raise ProtocolError(f"it agrees to frames of {message.max_frame_bytes} bytes only")
        untrue = unseen(message.confinement, self.pid, self._config)
        if untrue:
            raise ProtocolError(
                f"it says that {', '.join(untrue)} of its confinement are in force, which is not to be seen "
                "of its process"
            )
        self.connection.max_frame_bytes = min(self.connection.max_frame_bytes, message.max_frame_bytes)
        self.connection.routes = self._routes
        self.ready = message
        self._ready.set_result(message)
        seconds = time.perf_counter() - self._started
        self._telemetry.announce(ReadyEvent(**self._whose, seconds=seconds, python=message.python))

    def _route_early(self, message: Any) -> None:
        raise ProtocolError(f"it sent {type(message).__name__.lower()} before it was ready")

    def _route_answer(self, message: Any) -> None:
        self.requests.resolve(answer_key(message), message)

    def _route_progress(self, message: Progress) -> None:
        self.requests.note_progress(message)

    def _route_error(self, message: Error) -> None:
        if message.execution_id is not None:
            self._guard.end(message)
        elif not self._ready.done():
            self._spawn_failure = truncated(message.message)
        elif not self.requests.reject(message.message):
            self._error_count += 1
            if self._error_count > _MAX_SESSION_ERRORS:
                raise ProtocolError(f"it complains without end, as of {truncated(message.message)}")
            extra = fields(self.session_id, worker=self.pid)
            text = truncated(message.message)
            write(WORKER_LOGGER, WARNING, "%s: %s", self._name("complains"), text, extra=extra)
