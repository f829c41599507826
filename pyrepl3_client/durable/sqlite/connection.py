"""`SqliteConnection`: Resonate's network and source over one SQLite database."""

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Raw
from resonate.timing import Clock, Sleeper, now_ms, sleep
from resonate_base import ConnectorError

from pyrepl3_client._journal.protocol import OnTrouble, log_trouble
from pyrepl3_client.durable.sqlite.resonate_server.mailbox import Mailbox, anycast, unicast
from pyrepl3_client.durable.sqlite.resonate_server.requests import I64_MAX, PromiseSettle, Request
from pyrepl3_client.durable.sqlite.resonate_server.server import ResonateServer
from pyrepl3_client.durable.sqlite.resonate_server.wire import (
    OutgoingMessage,
    ServerResponse,
    encode_response,
    parse_request,
    too_large,
)
from pyrepl3_client.durable.sqlite.tables.busy import RetryOnBusy
from pyrepl3_client.durable.sqlite.tables.creation import open_database
from pyrepl3_client.durable.sqlite.tables.database import Database, Synchronous
from pyrepl3_client.durable.sqlite.tables.errors import TellOnce
from pyrepl3_client.durable.sqlite.tables.leases import Lease
from pyrepl3_client.durable.sqlite.tables.records import SessionRecords
from pyrepl3_client.durable.sqlite.tables.retention import Pruned, Pruner
from pyrepl3_client.errors import LeaseLost, StoreError

MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
# Seconds after which the timer looks at the clock again in any case: the wall clock can be set, and the
# loop's clock stands still while the machine sleeps.
_LONGEST_WAIT: Final = 30.0


class SqliteConnection:
    """Carries Resonate's requests to an SQLite database, and its messages back.

    Make it with `open`; pass it to `Resonate(network=...)`; `close` it after `Resonate.stop()`. It
    answers as the SDK's in-process server does, but keeps its state in the file, finds everything
    through an index, and lets several processes use one file. Each request is one transaction.

    SQL runs on the event loop's thread: a request takes some 0.07 ms there, and 0.15 ms when it is
    handed to a thread of its own and back (0.2 and 0.3 ms with `"FULL"`; measured on two cores). A lock
    held by another process never blocks the loop: the request waits in `asyncio` and tries again.

    With `synchronous="NORMAL"` (the default) a killed process or parent loses nothing. A power cut or a
    kernel crash can lose the newest transactions (those since the log was last synced, seconds to
    minutes), never the file's consistency. `"FULL"` syncs the disk at each request: nothing
    acknowledged is lost, and each request takes the disk's time for a sync, on the loop's thread.

    Example:
        async with await SqliteConnection.open("state.db") as connection:
            resonate = Resonate(network=connection)
    """

    def __init__(
        self,
        database: Database,
        *,
        pid: str | None = None,
        group: str = "default",
        busy_timeout: float = 10.0,
        tick_interval: float = 0.05,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        clock: Clock = now_ms,
        sleeper: Sleeper = sleep,
        on_trouble: OnTrouble = log_trouble,
    ) -> None:
        """Serve an opened and prepared database; `open` is the usual way, and describes the arguments."""
        self.pid: Final = uuid.uuid4().hex if pid is None else pid
        self._database: Final = database
        self.file_path: Final = None if database.in_memory else database.path
        """The file; None for a store in memory."""
        self._server: Final = ResonateServer(database)
        self._unicast: Final = unicast(group, self.pid)
        self._mailbox: Final = Mailbox(database, (self._unicast, anycast(group)))
        self._pruner: Final = Pruner(database)
        self.records: Final = SessionRecords(database, clock)
        self._retry_on_busy: Final = RetryOnBusy(busy_timeout, sleeper)
        self._tick_interval: Final = tick_interval
        self._max_request_bytes: Final = max_request_bytes
        self._clock: Final = clock
        self._receivers: list[Callable[[str], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = I64_MAX
        self._seen_version = -1
        self.on_trouble: Final = on_trouble
        self._tell_once: Final = TellOnce(on_trouble)
        self._check_lease: Callable[[], None] = lambda: None

    @classmethod
    async def open(
        cls,
        path: str,
        *,
        synchronous: Synchronous = "NORMAL",
        pid: str | None = None,
        group: str = "default",
        busy_timeout: float = 10.0,
        tick_interval: float = 0.05,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        clock: Clock = now_ms,
        sleeper: Sleeper = sleep,
        on_trouble: OnTrouble = log_trouble,
    ) -> Self:
        """Open a store, creating or migrating its file.

        Args:
            path: of the file on a local disk; ":memory:" keeps all in memory and makes no file.
            synchronous: see the class.
            pid: this connection's name among those on the file; by default a new one.
            group: whose tasks this connection takes. Pass the same to `Resonate`.
            busy_timeout: seconds for which a request waits while other processes write.
            tick_interval: seconds between two looks for messages of other processes (each takes some
                3 µs); within the process messages arrive at once.
            max_request_bytes: the largest request, and so about the largest value, in bytes. A larger
                one is refused with status 413.
            clock: returns milliseconds since the epoch.
            sleeper: waits for seconds, between two tries of a request that found the file locked.
            on_trouble: gets what could not be done in the background, each once for as long as it lasts.

        Raises:
            StoreError: the file cannot be used; the text says why and what to do.
        """

        def prepared() -> Database:
            return open_database(path, synchronous, busy_timeout)

        return cls(
            await RetryOnBusy(busy_timeout, sleeper).run(prepared),
            pid=pid,
            group=group,
            busy_timeout=busy_timeout,
            tick_interval=tick_interval,
            max_request_bytes=max_request_bytes,
            clock=clock,
            sleeper=sleeper,
        )

    async def __aenter__(self) -> Self:
        """Return the connection itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    # --- Source ---

    def unicast(self) -> str:
        """Return the address of this connection alone."""
        return self._unicast

    def resolve_target(self, target: str) -> str:
        """Return the address of a group of connections on the same store."""
        return anycast(target)

    def recv(self, callback: Callable[[str], None]) -> None:
        """Have `callback` called, on the loop, with each message for this connection."""
        self._receivers.append(callback)

    async def start(self) -> None:
        """Begin to watch deadlines and the other processes' messages. Starting twice changes nothing."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._due = -1
            self._on_timer()

    async def stop(self) -> None:
        """Stop delivering messages and watching deadlines; requests are answered until `close`."""
        self._halt()

    def close(self) -> None:
        """Stop at once, and close the file. Requests fail with a `ConnectorError` from then on."""
        self._halt()
        self._database.close()

    def _halt(self) -> None:
        self._receivers.clear()
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- Network ---

    async def send(self, req: str, headers: dict[str, str] | None = None) -> str:
        """Do what a request asks for, in one transaction, and return the answer.

        Args:
            req: the request, JSON.
            headers: ignored; they route requests where a store has several parts.

        Raises:
            ConnectorError: around a `StoreError`: other processes kept the file locked for longer than
                the busy timeout, or it cannot be written. Resonate then gives its task back, so this is
                never recorded as an outcome.
            ServerError: (400) the request is malformed or unknown.
            DecodingError: the request is not JSON.
        """
        request, body = parse_request(req)
        if len(req) > self._max_request_bytes:
            return encode_response(request, too_large(len(req), self._max_request_bytes))
        try:
            answer = await self.retry_while_busy(lambda: self._apply(request, body))
        except StoreError as error:
            raise ConnectorError(error) from error
        return encode_response(request, answer)

    def _apply(self, request: Request, body: Raw | str) -> ServerResponse:
        now = self._clock()
        with self._database.transaction():
            self._check_lease()
            answer, messages = self._server.apply(now, request, body)
            ours = self._route(messages, now)
        self._deliver(ours)
        self._note_deadline(self._server.due)
        return answer

    async def retry_while_busy[T](self, work: Callable[[], T]) -> T:
        """Do `work`, one transaction, and again for as long as other processes hold the lock.

        The event loop runs on between two tries, for up to the busy timeout.

        Raises:
            StoreBusy: the lock was held for longer.
            StoreError: the store cannot be read or written.
        """
        try:
            return await self._retry_on_busy.run(work)
        except sqlite3.Error as error:
            raise self._database.as_store_error(error) from error

    # --- a session's records ---

    @property
    def max_value(self) -> int:
        """The largest value that a record may hold, in bytes."""
        return self._database.max_value

    def fence(self, lease: Lease) -> None:
        """Refuse requests from now on, and leave the mail alone, once `lease` does not count any more.

        Resonate's own versions fence tasks; this fences all else that a former owner, paused and
        returned, could do here: create promises, settle them, or fetch the new owner's messages.
        """
        self._check_lease = lambda: self.records.leases.require(lease)

    async def record[T](
        self, work: Callable[[SessionRecords], T], resolve: Mapping[str, bytes] | None = None
    ) -> T:
        """Do `work` on the records as one transaction, waiting for locks without blocking the loop.

        Args:
            work: calls the records, and must not wait for anything.
            resolve: ids of promises to resolve in the same transaction, with their values as the JSON of
                Resonate's `Value`. One that does not exist, or is settled, stays as it is.

        Raises:
            StoreError: nothing was recorded, nor resolved.
        """
        return await self.retry_while_busy(lambda: self._record(work, resolve or {}))

    def _record[T](self, work: Callable[[SessionRecords], T], resolve: Mapping[str, bytes]) -> T:
        ours: list[str] = []
        due = I64_MAX
        with self._database.transaction():
            self._check_lease()
            done = work(self.records)
            for promise_id, value in resolve.items():
                now = self._clock()
                body = msgspec.json.encode(PromiseSettle(promise_id, "resolved", Raw(value)))
                _, messages = self._server.apply(now, Request("promise.settle"), Raw(body))
                ours += self._route(messages, now)
                due = min(due, self._server.due)
        self._deliver(ours)
        self._note_deadline(due)
        return done

    # --- messages ---

    def _route(self, messages: Sequence[OutgoingMessage], now: int) -> list[str]:
        return self._mailbox.route(messages, now, receiving=bool(self._receivers)) if messages else []

    def _deliver(self, bodies: list[str]) -> None:
        """Deliver messages in the loop's next turn: the sender of the request gets its response first."""
        if bodies and self._receivers:
            asyncio.get_running_loop().call_soon(self._call_receivers, bodies)

    def _call_receivers(self, bodies: list[str]) -> None:
        for body in bodies:
            for receiver in tuple(self._receivers):
                receiver(body)

    # --- time and other processes ---

    def tick(self) -> None:
        """Do what is due by the clock and fetch messages of other processes; the timer calls this.

        Raises:
            StoreError: the store cannot be read or written. A `StoreBusy` when it is locked just now.
        """
        try:
            self._tick()
        except sqlite3.Error as error:
            raise self._database.as_store_error(error) from error

    def _tick(self) -> None:
        now = self._clock()
        if not self._database.in_memory:
            self._database.require_files()
            version = self._database.data_version()
            if version != self._seen_version:
                self._fetch_mail()
                self._due = self._server.next_due()
                self._seen_version = version  # only now: had the file been locked, we would look again
        if now >= self._due:
            with self._database.transaction():
                ours = self._route(self._server.tick(now), now)
                self._mailbox.delete_expired(now)
            self._deliver(ours)
            self._due = self._server.next_due()

    def _fetch_mail(self) -> None:
        if self._receivers and self._mailbox.has_messages():
            bodies: list[str] = []
            with suppress(LeaseLost), self._database.transaction():
                self._check_lease()
                bodies = self._mailbox.take_messages()
            self._deliver(bodies)

    def _on_timer(self) -> None:
        try:
            self._tick()
        except (sqlite3.Error, StoreError) as error:
            # A timer has no caller to raise to. What is due stays due, and requests meet the same error.
            self._tell_once.tell(error, self._database.path)
            self._set_timer(self._tick_interval)
        else:
            self._tell_once.reset()
            self._set_timer()

    def _note_deadline(self, due: int) -> None:
        """Let the timer expire for a deadline that was just stored, if it is the earliest."""
        if due < self._due:
            self._due = due
            self._set_timer()

    def _set_timer(self, delay: float | None = None) -> None:
        """Set the timer for the next deadline, and for the next read of a shared file's messages."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is None:
            return
        if delay is None:
            nap = _LONGEST_WAIT if self._database.in_memory else self._tick_interval
            delay = min(max((self._due - self._clock()) / 1000, 0.0), nap)
        self._timer = self._loop.call_later(delay, self._on_timer)

    # --- maintenance ---

    async def reclaim(self, prefix: str) -> None:
        """Take back the leases of the tasks whose id begins with `prefix`, and offer those tasks at once.

        For the owner of a session whose last owner has died: it need not wait until leases lapse. A last
        owner that lives after all finds the version of its lease refused.

        Raises:
            StoreError: the store cannot be written.
        """
        await self.retry_while_busy(lambda: self._reclaim(prefix))

    def _reclaim(self, prefix: str) -> None:
        now = self._clock()
        with self._database.transaction():
            ours = self._route(self._server.reclaim(now, prefix), now)
        self._deliver(ours)
        self._note_deadline(self._server.due)

    async def prune(self, older_than: float) -> Pruned:
        """Delete promises that settled more than `older_than` seconds ago, and blobs that nothing names.

        A promise stays while anything in its lineage (the promises under the same root) is pending,
        since a replay may ask for it. Works in small transactions, between which requests are served.
        The file keeps its size; the space in it is used again.

        Raises:
            StoreError: the store cannot be written; what was deleted so far stays deleted.
        """
        cutoff = self._clock() - int(older_than * 1000)
        step = self._pruner.begin(cutoff)
        while not step.done:
            step = await self.retry_while_busy(lambda step=step: self._pruner.run_batch(step))
            await asyncio.sleep(0)
        return step.pruned
