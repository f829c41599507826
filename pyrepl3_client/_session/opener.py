"""What `open_session` returns: a session to be, opened by `await` or by `async with`."""

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any

from pyrepl3_client._session.session import Session
from pyrepl3_client.errors import PyRepl3Error


class SessionOpener:
    """Opens one session, once: `await` it and close the session yourself, or enter it by `async with`.

    Until then nothing is started.
    """

    def __init__(self, start: Callable[[], Coroutine[Any, Any, Session]]) -> None:
        """Open the session that `start` gives."""
        self._start = start
        self._used = False
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, Any, Session]:
        """Open the session; end it by `await session.close()`.

        Raises:
            PyRepl3Error: it has opened a session already.
        """
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        """Open the session, which leaving the context closes.

        Raises:
            PyRepl3Error: it has opened a session already.
        """
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.__aexit__(kind, error, traceback)

    async def _open(self) -> Session:
        if self._used:
            raise PyRepl3Error("this has opened its session already: call open_session() for each session")
        self._used = True
        return await self._start()
