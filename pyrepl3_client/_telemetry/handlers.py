"""Hands events to `on_event`: in order, beside the session, so that no handler is in its way."""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from pyrepl3_client._concurrency.thread_pool import ThreadPool
from pyrepl3_client._log import fields, write
from pyrepl3_client._telemetry.events import SessionEvent
from pyrepl3_client._telemetry.log import HANDLERS_LOGGER, WARNING

type EventHandler = Callable[[SessionEvent], Awaitable[None] | None]
"""Takes an event. A plain function is called in a thread, one event after the other, and may block; an
asynchronous one is awaited on the session's event loop. What it raises is logged, and nothing else comes
of it."""

MAX_WAITING: Final = 1000
"""Events that wait for a handler; above it the oldest are dropped, and the log says how many."""
SLOW_SECONDS: Final = 10.0
"""How long a handler is at one event until the log says so."""


class EventDelivery:
    """Delivers the events of one session, or of a pool's waiting workers, to one handler."""

    def __init__(self, session_id: str, handler: EventHandler) -> None:
        """Deliver to `handler`; belong to the running loop. A pool has no session's id."""
        self._session_id = session_id
        self._whose = f"session {session_id!r}" if session_id else "a pool"
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[SessionEvent] = deque()
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None
        self._threads: ThreadPool | None = None
        self._closed = False

    def add(self, event: SessionEvent) -> None:
        """Deliver an event, when those before it have been."""
        if self._closed:
            return
        self._waiting.append(event)
        if len(self._waiting) > MAX_WAITING:
            if not self._dropped:
                self._warn(
                    "is slow: %d events wait for it, and from here on the oldest are dropped", MAX_WAITING
                )
            self._waiting.popleft()
            self._dropped += 1
        if self._task is None:
            self._task = self._loop.create_task(self._deliver(), name=f"on_event of {self._whose}")

    async def _deliver(self) -> None:
        try:
            while self._waiting:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    self._warn("was slow: it did not get %d events", dropped)
                await self._call(self._waiting.popleft())
        finally:
            self._task = None

    async def _call(self, event: SessionEvent) -> None:
        slow = self._loop.call_later(
            SLOW_SECONDS,
            self._warn,
            "has been at %s for %g s; later events wait",
            type(event).__name__,
            SLOW_SECONDS,
        )
        try:
            if inspect.iscoroutinefunction(self._handler):
                await self._handler(event)
                return
            if self._threads is None:
                self._threads = ThreadPool(f"pyrepl3-{self._session_id or 'pool'}-on_event")
            awaitable = await self._threads.run("on_event", lambda: self._handler(event))
            if awaitable is not None:
                await awaitable  # a plain callable that returns a coroutine
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._closed:
                raise
            write(
                HANDLERS_LOGGER,
                WARNING,
                "on_event of %s raised %s at %s",
                self._whose,
                type(error).__name__,
                type(event).__name__,
                exc_info=error,
                extra=fields(self._session_id, worker=event.worker, event=event),
            )
        finally:
            slow.cancel()

    def _warn(self, text: str, *args: object) -> None:
        extra = fields(self._session_id)
        write(HANDLERS_LOGGER, WARNING, "on_event of %s " + text, self._whose, *args, extra=extra)

    async def close(self, grace: float) -> None:
        """Wait until all events are delivered, at most `grace` seconds; those that wait then are dropped."""
        task = self._task
        end = self._loop.time() + grace
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task], timeout=grace)
        self._closed = True
        if task is not None and not task.done() and task is not asyncio.current_task():
            self._warn(
                "did not end within %g s: %d events are dropped", grace, len(self._waiting) + self._dropped
            )
            self._waiting.clear()
            task.cancel()
            await asyncio.wait([task], timeout=grace)
        if self._threads is not None:
            await self._threads.close(max(end - self._loop.time(), 0))
