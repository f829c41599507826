"""`Telemetry`: the one place where the rooms of a session announce what happens."""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from pyrepl3_client._telemetry import spans
from pyrepl3_client._telemetry.events import CallEvent, CallOutcome, SessionEvent, StoreEvent
from pyrepl3_client._telemetry.handlers import EventDelivery, EventHandler
from pyrepl3_client._telemetry.log import CALLS_LOGGER, DEBUG, ExcInfo, is_logged, log_event
from pyrepl3_client._text import printable


class Telemetry:
    """Announces the facts of one session: to the log, to `on_event` and to OpenTelemetry.

    With no handler, no OpenTelemetry and a log that takes no DEBUG lines, an execution comes past none of
    this, and a host call past one comparison.
    """

    def __init__(self, session_id: str, handlers: Sequence[EventHandler] = ()) -> None:
        """Announce for a session; belong to the running loop."""
        self.session_id = session_id
        self._deliveries = [EventDelivery(session_id, handler) for handler in handlers]
        self.spans = spans.spans_of(session_id)
        self.worker: int | None = None
        """The process id of the present worker, or of the last one."""
        self.incarnation: int | None = None

    @property
    def whose(self) -> dict[str, Any]:
        """What is said of the session and its worker in each event."""
        return {"session_id": self.session_id, "worker": self.worker, "incarnation": self.incarnation}

    def announce(self, event: SessionEvent, exc_info: ExcInfo | None = None) -> None:
        """Announce an event; `exc_info` is for the log alone."""
        log_event(event, exc_info)
        for delivery in self._deliveries:
            delivery.add(event)
        if self.spans is not None:
            self.spans.record(event)

    @property
    def hears_calls(self) -> bool:
        """Whether anything comes of a host call that went well."""
        heard = self.spans is not None and self.spans.are_heard
        return heard or bool(self._deliveries) or is_logged(CALLS_LOGGER, DEBUG)

    def store_trouble(
        self, what: str, error: Exception, *, lost: bool = False, execution_id: str | None = None
    ) -> None:
        """Announce what could not be done in the store, and why."""
        self.announce(
            StoreEvent(
                **self.whose,
                what=what,
                message=str(error),
                lost=lost,
                execution_id=execution_id,
            )
        )

    async def close(self, grace: float) -> None:
        """Wait until handlers have got everything, at most `grace` seconds."""
        for delivery in self._deliveries:
            await delivery.close(grace)


class CallWatch:
    """One host call, from its arrival to its end, which is announced once."""

    __slots__ = ("_attempt", "_began", "_call_id", "_ended", "_execution_id", "_name", "_span", "_telemetry")

    def __init__(
        self, telemetry: Telemetry, execution_id: str, call_id: str, name: str, *, announced: bool = True
    ) -> None:
        """It has arrived; nothing is told of one that is not to be `announced`."""
        self._telemetry = telemetry
        self._execution_id = execution_id
        self._call_id = call_id
        self._name = name
        self._began = time.perf_counter()
        self._attempt = 1
        self._ended = not announced
        self._span: spans.Span | None = None

    @contextmanager
    def calling(self, attempt: int) -> Generator[None]:
        """Have its span be the current one while the host function runs, if spans are made."""
        self._attempt = attempt
        made = self._telemetry.spans
        if made is None or not made.are_heard or self._ended:
            yield
            return
        with made.calling(self._execution_id, self._call_id, self._name, attempt) as span:
            self._span = span
            yield

    def ended(
        self, outcome: CallOutcome, error_type: str = "", message: str = "", exc_info: ExcInfo | None = None
    ) -> None:
        """Announce how it ended, the first time."""
        if self._ended:
            return
        self._ended = True
        telemetry = self._telemetry
        if self._span is not None:
            self._span.end(error_type, **{"host_call.outcome": outcome})
        if exc_info is None and outcome != "refused" and not telemetry.hears_calls:
            return
        telemetry.announce(
            CallEvent(
                **telemetry.whose,
                execution_id=self._execution_id,
                call_id=self._call_id,
                name=self._name,
                outcome=outcome,
                seconds=time.perf_counter() - self._began,
                attempt=self._attempt,
                error_type=error_type,
                message=printable(message),
            ),
            exc_info,
        )
