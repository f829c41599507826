"""The requests to a worker, each with one answer: pings, metrics, completions, checkpoints."""

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from pyrepl3_client._text import quoted
from pyrepl3_client._wire.connection import Connection
from pyrepl3_client._worker.transfers import Transfers
from pyrepl3_client.errors import ProtocolError, WorkerUnresponsive
from pyrepl3_schemas.messages import (
    Checkpointed,
    Completions,
    FromWorker,
    Inspection,
    Pong,
    Progress,
    Restored,
    Stats,
    ToWorker,
)

MAX_SAME_PROGRESS: Final = 600.0
"""Seconds for which a worker may be at one and the same thing, such as one import."""
MAX_PATIENCE: Final = 3600.0
"""Seconds for which a worker is waited for, whatever it tells: what it tells may be anything."""
_FIRST_WAKE_AGAIN: Final = 0.02
"""Seconds after which the worker is woken again, for the first time; then after twice as long each time.

A signal that strikes just before a system call begins interrupts nothing, and Python's handler waits then."""

type Answer = Pong | Stats | Completions | Inspection | Checkpointed | Restored


class Requests:
    """The open requests to one worker, also those whose wait was given up: their answers may come."""

    def __init__(self, connection: Callable[[], Connection], busy: Callable[[], str]) -> None:
        """Ask over `connection()`; `busy` returns in words what the worker is doing, empty for nothing."""
        self._connection = connection
        self._busy = busy
        self.by_kind = Transfers(connection, busy)
        """Requests that are told apart by kind, with bodies of any size."""
        self._numbers = itertools.count(1)
        self._waiters: dict[tuple[type[FromWorker], str], deque[asyncio.Future[Answer]]] = {}
        """The oldest first: those of one kind and name are answered in order."""
        self._end_error: Callable[[], BaseException] | None = None
        """Makes the error of each request that comes after the end."""
        self._watchers: dict[str, Callable[[Progress], None]] = {}

    def next_number(self) -> int:
        """Return a number for a request."""
        return next(self._numbers)

    async def ask[A: Answer](
        self, message: ToWorker, answer: type[A], key: str, timeout: float | None, *, urgent: bool
    ) -> A:
        """Send a request and wait for its answer, at most `timeout` seconds.

        Args:
            message: the request.
            answer: the answer's type.
            key: what tells its answer from others of that type.
            timeout: seconds, or None for as long as it takes.
            urgent: the worker answers while code runs, and also while the reading of its output is paused.

        Raises:
            WorkerUnresponsive: there was no answer in time.
            WorkerDied, SessionClosed: there will be none.
            ProtocolError: the request cannot be sent, or the worker could not answer it.
        """
        if self._end_error is not None:
            raise self._end_error()
        connection = self._connection()
        connection.send(message)
        if urgent:
            # Also when nothing is running: a background task may hold the worker's loop.
            connection.wake()
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault((answer, key), deque()).append(waiter)
        if urgent:
            connection.start_forced_reading()
        try:
            if urgent:
                await _wait_and_wake(waiter, timeout, connection.wake)
            else:
                await asyncio.wait([waiter], timeout=timeout)
        finally:
            answered = waiter.done()
            if answered and not waiter.cancelled():
                # Marks it as retrieved, also when this wait is being cancelled.
                waiter.exception()
            waiter.cancel()
            if urgent:
                connection.stop_forced_reading()
        if not answered:
            what = self._busy()
            raise WorkerUnresponsive(
                f"worker {connection.worker.pid} did not answer {type(message).__name__.lower()} "
                f"within {timeout:g} s{f' ({what})' if what else ''}"
            )
        return cast(A, waiter.result())

    def resolve(self, key: str, message: Answer) -> None:
        """Hand an answer to its request; it is dropped when that has been given up.

        Raises:
            ProtocolError: there is no such request.
        """
        waiter = self._take(type(message), key)
        if waiter is None:
            raise ProtocolError(
                f"its {type(message).__name__.lower()} {quoted(key)} answers nothing that we asked"
            )
        if not waiter.done():
            waiter.set_result(message)

    async def ask_patiently[A: Answer](
        self,
        message: ToWorker,
        answer: type[A],
        key: str,
        silence: float,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> A:
        """Send a request and wait for its answer as long as the worker tells that it is at it.

        Args:
            message: the request.
            answer: the answer's type.
            key: the checkpoint that it is about.
            silence: seconds for which the worker may tell nothing.
            on_progress: called with what it tells.

        Raises:
            WorkerUnresponsive: it told nothing for so long, or the same for `MAX_SAME_PROGRESS` seconds,
                or anything for `MAX_PATIENCE`.
            WorkerDied, SessionClosed, ProtocolError: as for `ask`.
        """
        clock = asyncio.get_running_loop().time
        limit = asyncio.timeout(silence)
        last: Progress | None = None
        since = clock()
        began = since

        def note(progress: Progress) -> None:
            nonlocal last, since
            now = clock()
            if progress != last:
                last, since = progress, now
            waits = now - since < MAX_SAME_PROGRESS and now - began < MAX_PATIENCE
            if waits and not limit.expired():
                limit.reschedule(now + silence)
            if on_progress is not None:
                on_progress(progress)

        self._watchers[key] = note
        try:
            async with limit:
                return await self.ask(message, answer, key, None, urgent=False)
        except TimeoutError:
            if not limit.expired():
                raise
            what = f"; the last it told was {last.stage} {last.name}" if last else ""
            raise WorkerUnresponsive(
                f"worker {self._connection().worker.pid} did not answer {type(message).__name__.lower()}: "
                f"nothing new for {silence:g} s{what}"
            ) from None
        finally:
            if self._watchers.get(key) is note:
                del self._watchers[key]

    def note_progress(self, message: Progress) -> None:
        """Hand on what the worker tells of a checkpoint; it is dropped when no request waits for that."""
        watcher = self._watchers.get(message.checkpoint_id)
        if watcher is not None:
            watcher(message)

    def reject(self, error_text: str) -> bool:
        """Fail the request that a worker's error names; return whether there was one."""
        for kind, key in self._waiters:
            if error_text.startswith(f"{key}: "):
                waiter = self._take(kind, key)
                if waiter is not None and not waiter.done():
                    waiter.set_exception(ProtocolError(error_text))
                return True
        return False

    def _take(self, kind: type[FromWorker], key: str) -> asyncio.Future[Answer] | None:
        waiters = self._waiters.get((kind, key))
        if waiters is None:
            return None
        waiter = waiters.popleft()
        if not waiters:
            del self._waiters[kind, key]
        return waiter

    def end(self, error: Callable[[], BaseException]) -> None:
        """Fail all requests, those to come too, each with an error of its own: no answers come any more.

        The first end counts.
        """
        self.by_kind.end(error)
        if self._end_error is None:
            self._end_error = error
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error())


async def _wait_and_wake(
    waiter: asyncio.Future[Answer], timeout: float | None, wake: Callable[[], None]
) -> None:
    """Wait for an answer, at most `timeout` seconds, and wake the worker again until it has come."""
    clock = asyncio.get_running_loop().time
    left, pause = timeout or math.inf, _FIRST_WAKE_AGAIN
    end = clock() + left
    while left > 0:
        done, _ = await asyncio.wait([waiter], timeout=min(left, pause))
        if done:
            return
        wake()
        left, pause = end - clock(), 2 * pause


def answer_key(message: Any) -> str:
    """Return what tells an answer from others of its type: its number or id."""
    match message:
        case Pong():
            return str(message.nonce)
        case Checkpointed() | Restored():
            return message.checkpoint_id
        case _:
            return message.request_id
