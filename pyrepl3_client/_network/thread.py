"""The one thread and event loop on which all proxies of this program run, while there is one.

So a program whose own loop is busy holds up no connection of the code's, and a flood of them no session.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final


class _ProxyThread:
    """The thread. It is a daemon, which holds up no interpreter's exit."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError, RuntimeError: there is no room for its descriptors, or for another thread.
        """
        self.users = 0
        # Not the policy's: a program may have another one there, made for its own loop.
        self.loop = asyncio.SelectorEventLoop()
        self.thread = threading.Thread(target=self._run, name="pyrepl3-network", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            self.loop.close()
            raise

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


class _Shared:
    """The present thread, if there is one; guarded by the lock."""

    def __init__(self) -> None:
        """There is none."""
        self.lock = threading.Lock()
        self.present: _ProxyThread | None = None

    def forget(self) -> None:
        """Know of no thread: a forked child has none of its parent's."""
        self.lock = threading.Lock()
        self.present = None


_shared: Final = _Shared()
os.register_at_fork(after_in_child=_shared.forget)


class Running:
    """Something that runs on the thread, until it is stopped."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what `main` returns, as a task of the thread's loop.

        Raises:
            OSError, RuntimeError: no thread can be started.
        """
        self._ended: Future[None] = Future()
        self._task: asyncio.Task[None] | None = None
        with _shared.lock:
            self._thread = _shared.present = _shared.present or _ProxyThread()
            self._thread.users += 1
        self._is_last = False
        self._thread.loop.call_soon_threadsafe(self._begin, main)

    def stop(self) -> None:
        """Have it end, from any thread and without waiting. Idempotent."""
        with suppress(RuntimeError):  # it has ended, and the loop with it
            self._thread.loop.call_soon_threadsafe(self._cancel)

    async def wait_ended(self) -> None:
        """Wait until it has ended, and the thread with it if nothing else runs there."""
        await asyncio.wrap_future(self._ended)
        if self._is_last:
            # It has only to close its loop: this takes the time that a thread needs to end.
            self._thread.thread.join()

    def _begin(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = self._thread.loop.create_task(main())
        self._task.add_done_callback(self._on_end)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        with _shared.lock:
            self._thread.users -= 1
            self._is_last = self._thread.users == 0
            if self._is_last:
                _shared.present = None
        if self._is_last:
            self._thread.loop.stop()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            context = {"message": "a proxy has ended", "exception": error, "task": task}
            self._thread.loop.call_exception_handler(context)
        self._ended.set_result(None)
