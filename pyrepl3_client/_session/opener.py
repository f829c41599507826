"""What `open_session` returns: a session to be, opened by `await` or by `async with`."""

import asyncio
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Final, NoReturn

from pyrepl3_client._session.session import Session
from pyrepl3_client.errors import PyRepl3Error

_HOW: Final = (
    "write `async with {0}(…) as session:`, or `session = await {0}(…)` with "
    "`await session.close()` at its end; without async, take pyrepl3_client.sync"
)


class SessionOpener:
    """Opens one session, once: `await` it and close the session yourself, or enter it by `async with`.

    Until then nothing is started.
    """

    def __init__(self, start: Callable[[], Coroutine[Any, Any, Session]], what: str = "open_session") -> None:
        """Open the session that `start` gives; `what` names the function that returns this, in errors."""
        self._start = start
        self._what = what
        self._how = _HOW.format(what)
        self._used = False
        self._told = False
        """Whether its user has been told how to use it."""
        self._session: Session | None = None

    def __repr__(self) -> str:
        """Show whether it has been used, and how to use it."""
        if self._used:
            return (
                "<SessionOpener: used>" if self._session is None else f"<SessionOpener of {self._session!r}>"
            )
        return "<SessionOpener: nothing is open; await it, or enter it by `async with`>"

    def __await__(self) -> Generator[Any, Any, Session]:
        """Open the session; end it by `await session.close()`.

        Raises:
            PyRepl3Error: it has opened a session already, or no asyncio event loop runs here.
        """
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        """Open the session, which leaving the context closes.

        Raises:
            PyRepl3Error: it has opened a session already, or no asyncio event loop runs here.
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
            raise PyRepl3Error(f"this has opened its session already: call {self._what}() for each session")
        self._told = True
        require_asyncio(f"{self._what}()")
        self._used = True
        return await self._start()

    # --- what is done to it in the place of the session ---------------------------------------------

    def __getattr__(self, name: str) -> NoReturn:
        """Say how to come to the session, whose attribute is asked for."""
        text = f"what {self._what}() returns has no attribute {name!r}"
        if not name.startswith("__") and name in dir(Session):
            self._told = True
            text += f", a session has: {self._how}"
        raise AttributeError(text, name=name, obj=self)

    def __enter__(self) -> NoReturn:
        """Say that it is entered by `async with`."""
        self._told = True
        raise TypeError(f"this session is opened asynchronously, not by `with`: {self._how}")

    def __exit__(self, *_: object) -> None:
        """Be there for `with`, which looks for this first."""

    def __iter__(self) -> NoReturn:
        """Say that it is no sequence of anything."""
        self._told = True
        raise TypeError(
            f"what {self._what}() returns cannot be iterated over, and neither can a session: {self._how}, "
            "then iterate over `session.start(code)` by `async for`"
        )

    def __aiter__(self) -> NoReturn:
        """Say that it is no sequence of anything."""
        self.__iter__()

    def __del__(self) -> None:
        """Warn of one that was never used, as Python does of a coroutine."""
        if not self._told:
            warnings.warn(
                f"{self._what}() was never awaited or entered, so nothing was opened: {self._how}",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


def require_asyncio(what: str) -> None:
    """Raise PyRepl3Error where no asyncio event loop runs that `what` could use."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        raise PyRepl3Error(
            f"{what} needs asyncio, and here trio runs: use pyrepl3_client.sync by trio.to_thread.run_sync, "
            "or run the program by asyncio.run or anyio.run(…, backend='asyncio')"
        )
    raise PyRepl3Error(
        f"{what} needs a running asyncio event loop, and none runs in thread "
        f"{threading.current_thread().name!r}: call it in a coroutine that asyncio.run runs, or take "
        "pyrepl3_client.sync, which needs none"
    )
