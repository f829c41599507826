"""OpenTelemetry's spans and metrics of a session, by its API package alone.

Nothing is imported for it: where the program uses OpenTelemetry (`opentelemetry.trace` is imported when a
session is opened), its modules are there. What is written stays clear of what may be secret: no code, no
value, no argument, no text of an exception.

What the program's providers, processors and samplers raise ends no execution; it is logged, each kind once.

Names of the semantic conventions are used where there are any: `gen_ai.*` of a tool's execution
(https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/execute-tool.md, in
development), `error.type`, `code.file.path`. All others begin with `pyrepl3.`.
"""

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import cache
from importlib import import_module
from typing import Any, Final

from pyrepl3_client._log import write
from pyrepl3_client._telemetry.events import (
    CallEvent,
    CheckpointEvent,
    DeathEvent,
    NetworkEvent,
    RecoveryEvent,
    SessionEvent,
    SpawnEvent,
)
from pyrepl3_client._telemetry.log import HANDLERS_LOGGER, WARNING
from pyrepl3_client._version import __version__

_MODULE: Final = "opentelemetry.trace"
_LOOK_SECONDS: Final = 1.0
"""Between two looks for a provider, each of which reads the environment."""
_REMEMBERED: Final = 256
"""Executions that have ended, whose calls may still come."""
_told: Final[set[tuple[str, type[BaseException]]]] = set()
"""What was logged of failures of OpenTelemetry: where, and of which type."""


def _safely[**P, T](function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call a function of OpenTelemetry; None if that raises, which is logged once."""
    try:
        return function(*args, **kwargs)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever the program's raise
        name = getattr(function, "__qualname__", type(function).__qualname__)
        if (name, type(error)) not in _told:
            _told.add((name, type(error)))
            text = "OpenTelemetry's %s raised %s; spans or figures of sessions may be missing"
            write(HANDLERS_LOGGER, WARNING, text, name, type(error).__name__, exc_info=error)
        return None


class _Api:
    """OpenTelemetry's API, and the instruments of this process."""

    def __init__(self) -> None:
        self.trace: Any = import_module(_MODULE)
        self.context: Any = import_module("opentelemetry.context")
        metrics: Any = import_module("opentelemetry.metrics")
        self.metrics = metrics
        self.tracer: Any = self.trace.get_tracer("pyrepl3", __version__)
        meter: Any = metrics.get_meter("pyrepl3", __version__)
        self.executions: Any = meter.create_counter(
            "pyrepl3.executions", "{execution}", "Executions that have ended, by outcome."
        )
        self.duration: Any = meter.create_histogram(
            "pyrepl3.execution.duration", "s", "From an execution's beginning to its outcome."
        )
        self.queue_wait: Any = meter.create_histogram(
            "pyrepl3.execution.queue_wait", "s", "From an execution's submission to its beginning."
        )
        self.spawns: Any = meter.create_counter(
            "pyrepl3.worker.spawns", "{worker}", "Workers started or taken."
        )
        self.deaths: Any = meter.create_counter(
            "pyrepl3.worker.deaths", "{worker}", "Workers that have ended unasked."
        )
        self.recoveries: Any = meter.create_counter(
            "pyrepl3.recoveries", "{recovery}", "Recoveries that have ended, by state."
        )
        self.recovery_duration: Any = meter.create_histogram(
            "pyrepl3.recovery.duration", "s", "From a death, or a reopening, until the session takes code."
        )
        self.checkpoint_duration: Any = meter.create_histogram(
            "pyrepl3.checkpoint.duration", "s", "How long a checkpoint took."
        )
        self.call_duration: Any = meter.create_histogram(
            "pyrepl3.host_call.duration", "s", "How long a host function took to answer, by outcome."
        )
        self.connections: Any = meter.create_counter(
            "pyrepl3.network.connections", "{connection}", "Connections through the proxy, by outcome."
        )
        self.network_bytes: Any = meter.create_counter(
            "pyrepl3.network.io", "By", "Bytes through the proxy, by direction."
        )


@cache
def _api() -> _Api:
    return _Api()


def spans_of(session_id: str) -> "SessionSpans | None":
    """Return what makes the spans of a session where the program uses OpenTelemetry; empty for a pool."""
    return _safely(SessionSpans, session_id) if _MODULE in sys.modules else None


class Span:
    """A span that is open."""

    __slots__ = ("_api", "_span", "context")

    def __init__(self, api: _Api, name: str, parent: Any, attributes: dict[str, Any]) -> None:
        """Start it below the span of the context `parent`, or without a parent if there is none there."""
        self._api = api
        self.context: Any = parent
        """A context in which it is the current span."""
        self._span: Any = _safely(api.tracer.start_span, name, context=parent, attributes=attributes)
        if self._span is not None:
            self.context = api.trace.set_span_in_context(self._span, parent)

    def set(self, attribute: str, value: Any) -> None:
        """Give it an attribute."""
        if self._span is not None and self._span.is_recording():
            _safely(self._span.set_attribute, attribute, value)

    def add_event(self, name: str) -> None:
        """Note in it what has happened now."""
        if self._span is not None:
            _safely(self._span.add_event, name)

    def end(self, error_type: str = "", **attributes: Any) -> None:
        """End it; with an error if there is a type of one."""
        if self._span is None:
            return
        if self._span.is_recording():
            for name, value in attributes.items():
                self.set(f"pyrepl3.{name}", value)
            if error_type:
                self.set("error.type", error_type)
                trace = self._api.trace
                _safely(self._span.set_status, trace.Status(trace.StatusCode.ERROR, error_type))
        _safely(self._span.end)


class ExecutionSpan:
    """One execution, from its submission to its outcome."""

    __slots__ = ("_began", "_session", "_submitted", "span")

    def __init__(self, session: "SessionSpans", span: Span) -> None:
        """Time it from now on."""
        self._session = session
        self.span = span
        self._submitted = time.perf_counter()
        self._began = 0.0

    def begun(self) -> None:
        """Note that it runs now."""
        self._began = time.perf_counter()
        wait = self._began - self._submitted
        _safely(self._session.api.queue_wait.record, wait)
        self.span.set("pyrepl3.execution.queue_wait", wait)

    def interrupted(self) -> None:
        """Note that its worker is gone, and that it waits again."""
        self.span.add_event("pyrepl3.interrupted")

    def ended(
        self, execution_id: str, outcome: str, error_type: str, mode: str, attempts: int, *, replayed: bool
    ) -> None:
        """Note its outcome."""
        api = self._session.api
        attributes = {"pyrepl3.execution.outcome": outcome, "pyrepl3.execution.replayed": replayed}
        _safely(api.executions.add, 1, attributes)
        if self._began:
            _safely(api.duration.record, time.perf_counter() - self._began, attributes)
        self.span.end(
            error_type,
            **{
                "execution.outcome": outcome,
                "execution.replayed": replayed,
                "execution.attempts": attempts,
                "execution.mode": mode,
            },
        )
        self._session.execution_ended(execution_id)


class SessionSpans:
    """The spans of one session, and what is counted of it."""

    def __init__(self, session_id: str) -> None:
        """Trace the session; OpenTelemetry is in use."""
        self.api = _api()
        self._session_id = session_id
        self._heard = False
        self._look_at = 0.0
        self._opened_in: Any = self.api.context.get_current()
        self._executions: dict[str, Span] = {}
        self._ended: deque[str] = deque()
        self._running = ""
        """The execution that the last death interrupted."""
        self._recovery: Span | None = None

    @property
    def are_heard(self) -> bool:
        """Whether the program has set up a provider of traces or metrics: until then spans are for nothing.

        It may do so at any time; that is noticed within a second.
        """
        if not self._heard and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            looked = self.api.trace.get_tracer_provider, self.api.metrics.get_meter_provider
            providers = [provider for look in looked if (provider := _safely(look)) is not None]
            # What stands in for a provider that is not there yet; that of metrics has no public name.
            self._heard = any("Proxy" not in type(provider).__name__ for provider in providers)
        return self._heard

    def _attributes(self, execution_id: str = "") -> dict[str, Any]:
        attributes: dict[str, Any] = {"pyrepl3.session.id": self._session_id}
        if execution_id:
            attributes["pyrepl3.execution.id"] = execution_id
        return attributes

    def begin_execution(
        self, execution_id: str, filename: str, *, is_replay: bool, is_resumed: bool
    ) -> ExecutionSpan:
        """Begin the span of an execution that has just been submitted, in the caller's context."""
        attributes = self._attributes(execution_id)
        attributes["gen_ai.operation.name"] = "execute_tool"
        attributes["gen_ai.tool.name"] = "python"
        attributes["gen_ai.tool.call.id"] = execution_id
        attributes["pyrepl3.execution.is_replay"] = is_replay
        if is_resumed:
            attributes["pyrepl3.execution.is_resumed"] = True
        if filename:
            attributes["code.file.path"] = filename
        parent: Any = self.api.context.get_current()
        if self._recovery is not None and is_replay:
            parent = self._recovery.context
        span = self._executions[execution_id] = Span(self.api, "execute", parent, attributes)
        return ExecutionSpan(self, span)

    def execution_ended(self, execution_id: str) -> None:
        """Remember an ended execution for a while: calls that it left behind belong to it."""
        self._ended.append(execution_id)
        if len(self._ended) > _REMEMBERED:
            self._executions.pop(self._ended.popleft(), None)

    @contextlib.contextmanager
    def calling(self, execution_id: str, call_id: str, name: str, attempt: int) -> Generator[Span]:
        """Have a host call's span be the current one meanwhile; `end_call` ends it."""
        of = self._executions.get(execution_id)
        attributes = self._attributes(execution_id)
        attributes["gen_ai.operation.name"] = "execute_tool"
        attributes["gen_ai.tool.name"] = name
        attributes["gen_ai.tool.type"] = "function"
        attributes["gen_ai.tool.call.id"] = call_id
        attributes["pyrepl3.host_call.attempt"] = attempt
        parent = self._opened_in if of is None else of.context
        span = Span(self.api, f"execute_tool {name}", parent, attributes)
        token = self.api.context.attach(span.context)
        try:
            yield span
        finally:
            self.api.context.detach(token)

    def record(self, event: SessionEvent) -> None:
        """Count an event; begin and end what it is about."""
        api = self.api
        match event:
            case SpawnEvent(warm=warm):
                _safely(api.spawns.add, 1, {"pyrepl3.worker.warm": warm})
            case DeathEvent(certificate=certificate):
                self._running = event.execution_id or ""
                attributes = {"pyrepl3.death.own_doing": certificate.own_doing, **_exit_of(event)}
                _safely(api.deaths.add, 1, attributes)
            case RecoveryEvent(state="started"):
                of = None if event.reopened else self._executions.get(self._running)
                parent = self._opened_in if event.reopened else api.context.Context()
                attributes = self._attributes()
                attributes["pyrepl3.recovery.reopened"] = event.reopened
                self._recovery = Span(api, "recover", parent if of is None else of.context, attributes)
            case RecoveryEvent():
                _safely(api.recoveries.add, 1, {"pyrepl3.recovery.state": event.state})
                _safely(api.recovery_duration.record, event.seconds)
                if self._recovery is not None:
                    self._recovery.end(
                        "recovery_failed" if event.state == "failed" else "",
                        **{
                            "recovery.state": event.state,
                            "recovery.replayed": len(event.replayed),
                            "recovery.lost": len(event.lost),
                            "recovery.skipped": len(event.skipped),
                        },
                    )
                    self._recovery = None
            case CheckpointEvent():
                attributes = {"pyrepl3.checkpoint.state": event.state}
                _safely(api.checkpoint_duration.record, event.seconds, attributes)
            case CallEvent():
                attributes = {"gen_ai.tool.name": event.name, "pyrepl3.host_call.outcome": event.outcome}
                _safely(api.call_duration.record, event.seconds, attributes)
            case NetworkEvent():
                _safely(api.connections.add, 1, {"pyrepl3.network.outcome": event.outcome})
                _safely(api.network_bytes.add, event.sent, {"network.io.direction": "transmit"})
                _safely(api.network_bytes.add, event.received, {"network.io.direction": "receive"})
            case _:
                pass


def _exit_of(event: DeathEvent) -> dict[str, Any]:
    certificate = event.certificate
    if certificate.signal is not None:
        return {"pyrepl3.death.signal": certificate.signal}
    return {} if certificate.exit_code is None else {"pyrepl3.death.exit_code": certificate.exit_code}
