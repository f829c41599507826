"""What host functions and handlers run for, as their context knows it: so that no session waits for itself.

The context of a host function says which call it serves, and so does that of the tasks and threads that it
starts. What it submits to the session whose cell waits for that very call would wait for ever. A submission
that carries no such context is queued; when the cell before it waits for a call all the while, that is
logged.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from pyrepl3_client._log import fields, write
from pyrepl3_client.errors import CapabilityError

_logger: Final = logging.getLogger("pyrepl3.calls")
NOTICE_SECONDS: Final = 30.0
"""How long an execution waits behind an unanswered call before that is logged."""


class Served:
    """A call, prompt or output of a session's code that a host function or handler is serving."""

    __slots__ = ("before", "ended", "execution_id", "owner", "question_id", "what")

    def __init__(
        self,
        owner: object,
        execution_id: str,
        what: str,
        before: "Served | None" = None,
        question_id: str = "",
    ) -> None:
        """Begin to serve.

        Args:
            owner: stands for the session.
            execution_id: the execution whose code waits for it; empty for what all executions wait for.
            what: it in words.
            before: what the execution was submitted for, by a host function of another session.
            question_id: the id of the call or prompt; empty for output.
        """
        self.owner = owner
        self.execution_id = execution_id
        self.what = what
        self.before = before
        self.question_id = question_id
        self.ended = False
        """Whether nothing that runs in its context can hold it up any more."""


_current: Final[contextvars.ContextVar[Served | None]] = contextvars.ContextVar(
    "pyrepl3_served", default=None
)
current_served: Final = _current.get
"""Returns what the code in this context serves, or did when its context was made; None if nothing."""


def serve_here(served: Served) -> None:
    """Let the current task's context say that it serves this."""
    _current.set(served)


async def until_served[T](awaitable: Awaitable[T]) -> T:
    """Await a host function or handler; as soon as it has ended, what it serves does not wait for it."""
    try:
        return await awaitable
    finally:
        served = _current.get()
        if served is not None:
            served.ended = True


def question_served(owner: object) -> Served | None:
    """Return the call or prompt of a session's code that is served here, and that the code waits for.

    Args:
        owner: stands for the session.
    """
    served = _current.get()
    while served is not None and not served.ended:
        if served.owner is owner and served.question_id:
            return served
        served = served.before
    return None


def refuse_own_session(owner: object, kind: str, name: str) -> None:
    """Refuse a request that would wait for itself.

    Args:
        owner: stands for the session that is asked.
        kind: the request in words.
        name: its id.

    Raises:
        CapabilityError: the caller serves a call of that session's code, which waits for it; also by way of
            other sessions.
    """
    served = _current.get()
    while served is not None and not served.ended:
        if served.owner is owner:
            waiting = (
                f"execution {served.execution_id!r} of the same session waits for that"
                if served.execution_id
                else "every outcome of the session waits for that"
            )
            raise CapabilityError(
                f"{kind} {name!r} would wait for itself: it was asked for inside of {served.what}, and "
                f"{waiting}. Return first: what is submitted afterwards, by a task started here too, "
                f"is queued{'; set and get work here' if served.question_id else ''}"
            )
        served = served.before


class WaitingNotice:
    """Logs that an execution waits behind one that waits for a host call: perhaps for each other."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[], tuple[Served, str] | None],
        session_id: str,
    ) -> None:
        """Look for such a pair by `look`, which returns the call and the id of the execution that waits."""
        self._session_id = session_id
        self._loop = loop
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._told: Served | None = None

    def look_later(self) -> None:
        """Look for a pair now, and whether it is still there when it has waited long enough."""
        if self._timer is None:
            pair = self._look()
            if pair is not None and pair[0] is not self._told:
                self._timer = self._loop.call_later(NOTICE_SECONDS, self._look_again, pair)

    def _look_again(self, pair: tuple[Served, str]) -> None:
        self._timer = None
        if self._look() != pair:
            self.look_later()
            return
        self._told, waiting = pair
        write(
            _logger,
            logging.WARNING,
            "execution %r has waited for %g s behind execution %r, which waits for %s; if that waits for %r, "
            "neither ends",
            waiting,
            NOTICE_SECONDS,
            self._told.execution_id,
            self._told.what,
            waiting,
            extra=fields(self._session_id, waiting),
        )

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
