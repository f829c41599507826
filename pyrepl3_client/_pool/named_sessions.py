"""The sessions by name of a pool: the live one if there is one, else from its store, else new.

Each is opened and ended by the pool, and held by all that use it. One that is not held and in which nothing
runs is passivated: saved in its store, and its worker freed. That is done when it has been idle for
`idle_timeout`, and before that when others wait for room, the least recently used first. What would be lost
by it (tasks, threads, processes, values that no checkpoint can hold) keeps a session live, and is told.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from pyrepl3_client._concurrency.uncancellable import wait_uncancelled
from pyrepl3_client._log import fields, write
from pyrepl3_client._pool.named_session import Key, NamedOptions, NamedSession, StartNamed
from pyrepl3_client._pool.places import Places
from pyrepl3_client._pool.stats import KeptSession
from pyrepl3_client._session.session import Session
from pyrepl3_client._session.shared import SharedSession
from pyrepl3_client.errors import PyRepl3Error

_logger: Final = logging.getLogger("pyrepl3.pool")
_LOOK_AGAIN_SECONDS: Final = 5.0
"""Seconds after which it is tried again to passivate what could not be, unless it is used before."""


class NamedSessions:
    """Gives sessions by name to those who ask, and frees the workers of idle ones."""

    def __init__(
        self,
        places: Places,
        start: StartNamed,
        idle_timeout: float | None,
        timeout_error: Callable[[float], Exception],
    ) -> None:
        """Have none yet.

        Args:
            places: each live session takes one.
            start: opens a session.
            idle_timeout: seconds after which an idle one is passivated; None for when there is need alone.
            timeout_error: makes the error of who has waited so many seconds for room.
        """
        self._places = places
        self._start = start
        self._idle_timeout = idle_timeout
        self._timeout_error = timeout_error
        self._sessions: dict[Key, NamedSession] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._look_timer: asyncio.TimerHandle | None = None
        self._refusal: Callable[[], Exception] | None = None
        self.returned = 0
        self.passivated = 0

    # --- figures -------------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        """How many are live, or being opened or closed."""
        return len(self._sessions)

    @property
    def held(self) -> int:
        """How many are held."""
        return sum(each.held > 0 for each in self._sessions.values())

    @property
    def kept(self) -> tuple[KeptSession, ...]:
        """Which stay live though they are idle, and why."""
        return tuple(
            KeptSession(each.options.name, each.options.why_kept or each.kept)
            for each in self._sessions.values()
            if each.shared is not None and not each.wanted and (each.options.why_kept or each.kept)
        )

    # --- holding -------------------------------------------------------------------------------------

    async def hold(self, options: NamedOptions, timeout: float | None) -> Session:
        """Return a face of a session by name; closing that gives it back.

        Args:
            options: which session, and how it is opened if it is not live.
            timeout: seconds to wait for room.

        Raises:
            PoolTimeout: there was none in time.
            PoolClosed: there are no sessions any more.
            SpawnError, StoreError, CapabilityError: it cannot be opened.
            ValueError: it is live with other options.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        named = self._sessions.get(options.key)
        if named is None:
            named = self._sessions[options.key] = NamedSession(options)
        elif named.shared is not None and named.closing is None:
            named.options.check_same(options)
        named.wanted += 1
        named.stop_timer()
        try:
            while True:
                shared = await self._live(named, options, timeout, deadline)
                if named.shared is shared and named.closing is None:
                    break
            named.options.check_same(options)
            shared.offer(options.capabilities)
        except BaseException:
            self._unwant(named)
            raise
        named.held += 1
        named.uses += 1
        named.kept = ""
        named.look_again_at = 0.0
        return shared.share(lambda: self._give_back(named))

    async def _live(
        self, named: NamedSession, options: NamedOptions, timeout: float | None, deadline: float | None
    ) -> SharedSession:
        while True:
            if self._refusal is not None:
                raise self._refusal()
            if named.closing is not None:
                await asyncio.wait([named.closing])
            elif named.shared is not None:
                if named.shared.is_usable:
                    return named.shared
                # Another process has taken it over: what it holds here is old.
                self._close(named)
            else:
                opening = named.opening
                if opening is None:
                    named.options = options
                    named.has_place = asyncio.get_running_loop().create_future()
                    # Up to its first wait it runs now: who asks first is the first to wait for room.
                    opening = self._run(self._open(named, options), eager_start=True)
                    if not opening.done():
                        named.opening = opening
                await self._wait_opened(named, opening, timeout, deadline)
                if opening.cancelled():
                    continue  # by the last who wanted it before, or by the pool's end
                error = opening.exception()
                if error is not None:
                    raise error if named.wanted == 1 else _copy_of(error)

    async def _wait_opened(
        self,
        named: NamedSession,
        opening: asyncio.Task[SharedSession],
        timeout: float | None,
        deadline: float | None,
    ) -> None:
        """Wait until a session was opened, or not; for room no longer than until the deadline."""
        while not opening.done():
            if deadline is None or named.has_place.done():
                await asyncio.wait([opening])
                continue
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                assert timeout is not None
                raise self._timeout_error(timeout)
            await asyncio.wait([opening, named.has_place], timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _open(self, named: NamedSession, options: NamedOptions) -> SharedSession:
        try:
            place = await self._places.take()
            named.has_place.set_result(None)
            try:
                shared = await self._start(options, place.give_back)
            except BaseException:
                place.give_back()
                raise
        except BaseException:
            named.opening = None
            self._forget(named)
            raise
        finally:
            named.opening = None
            if not named.has_place.done():
                named.has_place.cancel()
        if shared.came_back:
            self.returned += 1
        named.shared = shared
        if not named.wanted:
            self._became_idle(named)
        return shared

    def _give_back(self, named: NamedSession) -> None:
        named.held -= 1
        self._unwant(named)

    def _unwant(self, named: NamedSession) -> None:
        named.wanted -= 1
        if named.wanted:
            return
        if named.shared is not None:
            if named.closing is None:
                self._became_idle(named)
        elif named.opening is not None:
            named.opening.cancel()
        else:
            self._forget(named)

    def _forget(self, named: NamedSession) -> None:
        if not named.wanted and self._sessions.get(named.options.key) is named:
            del self._sessions[named.options.key]

    # --- passivation ---------------------------------------------------------------------------------

    def _became_idle(self, named: NamedSession) -> None:
        """It is not wanted any more: have it passivated when it is time for that."""
        shared = named.shared
        assert shared is not None
        named.used_at = asyncio.get_running_loop().time()
        if not shared.is_usable:
            self._close(named)
            return
        if shared.busy:
            if named.watching is None:
                named.watching = self._run(self._watch(named, shared))
            return
        if self._refusal is not None:
            if named.saving is None:
                self._passivate(named)
            return
        self._start_timer(named)
        self.make_room()

    async def _watch(self, named: NamedSession, shared: SharedSession) -> None:
        """Wait for what runs in a session that is not held."""
        try:
            await shared.wait_idle()
        finally:
            named.watching = None
        if named.shared is shared and not named.wanted and named.closing is None:
            self._became_idle(named)

    def _start_timer(self, named: NamedSession) -> None:
        named.stop_timer()
        if self._idle_timeout is not None and self._refusal is None and not named.options.why_kept:
            loop = asyncio.get_running_loop()
            at = max(loop.time() + self._idle_timeout, named.look_again_at)
            named.idle_timer = loop.call_at(at, self._on_idle, named)

    def _on_idle(self, named: NamedSession) -> None:
        named.idle_timer = None
        if named.is_idle(asyncio.get_running_loop().time()):
            self._passivate(named)
        elif named.shared is not None and not named.wanted:
            self._start_timer(named)

    def make_room(self) -> None:
        """Passivate as many idle sessions as there are requests that wait, if there are so many."""
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        under_way = sum(
            each.saving is not None or each.closing is not None for each in self._sessions.values()
        )
        needed = self._places.waiting - under_way
        if needed <= 0:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        idle = sorted(
            (each for each in self._sessions.values() if each.is_idle(now)), key=lambda each: each.used_at
        )
        for named in idle[:needed]:
            self._passivate(named)
        later = [
            each.look_again_at
            for each in self._sessions.values()
            if not each.wanted and each.shared is not None and each.look_again_at > now
        ]
        if later and len(idle) < needed:
            self._look_timer = loop.call_at(min(later), self.make_room)

    def _passivate(self, named: NamedSession) -> None:
        named.stop_timer()
        named.saving = self._run(self._save(named))

    async def _save(self, named: NamedSession) -> None:
        """Save an idle session, and close it if all of it is in its store then."""
        shared, uses = named.shared, named.uses
        assert shared is not None
        why = ""
        try:
            why = await shared.why_not_passive()
        finally:
            named.saving = None
        # From here to the close nothing is awaited: no task can come to use it in between.
        if named.shared is not shared or named.closing is not None or named.wanted:
            self.make_room()
            return
        if shared.busy or named.uses != uses:
            # What was found is about the time before it was used again.
            self._became_idle(named)
            self.make_room()
            return
        if self._refusal is not None:
            named.kept = why
            self._close(named)
            return
        if not why:
            named.kept = ""
            await self._close(named)
            self.passivated += 1
            return
        if why != named.kept:
            _log(logging.INFO, "session %r stays live though it is idle: %s", named, why)
        named.kept = why
        named.look_again_at = asyncio.get_running_loop().time() + _LOOK_AGAIN_SECONDS
        self._start_timer(named)
        self.make_room()

    # --- ending --------------------------------------------------------------------------------------

    def _close(self, named: NamedSession) -> asyncio.Task[None]:
        """Begin to close a session, held or not."""
        if named.closing is None:
            named.stop_timer()
            shared = named.shared
            assert shared is not None
            if named.kept:
                _log(logging.WARNING, "session %r is closed, and would lose: %s", named, named.kept)
            named.closing = self._run(self._end(named, shared))
        return named.closing

    async def _end(self, named: NamedSession, shared: SharedSession) -> None:
        try:
            await shared.close()
        except PyRepl3Error as error:
            _log(logging.WARNING, "session %r was not closed well: %s", named, error)
        finally:
            named.shared = None
            named.closing = None
            named.kept = ""
            named.look_again_at = 0.0
            self._forget(named)
            self.make_room()

    async def close_one(self, key: Key) -> bool:
        """End the live session of a name, held or not; return whether there was one."""
        named = self._sessions.get(key)
        if named is None or (named.opening is not None and not named.has_place.done()):
            return False
        named.wanted += 1  # so that it is not forgotten meanwhile
        try:
            while named.opening is not None:
                await asyncio.wait([named.opening])
            if named.shared is None:
                return False
            await wait_uncancelled(self._close(named))
            return True
        finally:
            self._unwant(named)

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Give no more sessions, and close those that are idle, and each that becomes it.

        None gives them again.
        """
        self._refusal = error
        if error is None:
            return
        for named in list(self._sessions.values()):
            named.stop_timer()
            if named.opening is not None and not named.has_place.done():
                named.opening.cancel()
            elif named.shared is not None and not named.wanted and named.closing is None:
                self._became_idle(named)

    async def close(self) -> None:
        """End all of them, held or not. To be called after `refuse`."""
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        while True:
            for named in list(self._sessions.values()):
                named.stop_timer()
                for task in (named.opening, named.watching, named.saving):
                    if task is not None:
                        task.cancel()
                if named.shared is not None:
                    self._close(named)
            if not self._tasks:
                break
            await asyncio.wait(self._tasks)
        self._sessions.clear()

    def _run[T](self, coro: Coroutine[Any, Any, T], *, eager_start: bool = False) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=asyncio.get_running_loop(), eager_start=eager_start)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task


def _log(level: int, text: str, named: NamedSession, what: object) -> None:
    name = named.options.name
    write(_logger, level, text, name, what, extra=fields(name))


def _copy_of(error: BaseException) -> BaseException:
    """Copy an error: one exception object must not be raised to several at once."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    for note in error.__dict__.get("__notes__", ()):
        copy.add_note(note)
    return copy
