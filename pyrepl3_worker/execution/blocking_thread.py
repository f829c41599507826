"""The session's one thread for blocking code, started when it is first needed."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

BLOCKING_THREAD_NAME: Final = "pyrepl3-blocking"


class BlockingThread:
    """Runs jobs one after the other, off the loop's thread."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def ident(self) -> int | None:
        """The thread's identifier, or None before it is started."""
        return None if self._thread is None else self._thread.ident

    def run(self, job: Callable[[], None]) -> None:
        """Run `job`, which must not raise."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name=BLOCKING_THREAD_NAME, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function and wait for it, while no other job is there; return its value.

        Raises:
            BaseException: what it raises.
        """
        ended: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def job() -> None:
            try:
                ended.put((function(*arguments), None))
            except BaseException as error:  # it is raised where this is waited for
                ended.put((None, error))

        self.run(job)
        value, error = ended.get()
        if error is not None:
            raise error
        return value

    def stop(self) -> None:
        """Let the thread end when its jobs are done. A later job starts another."""
        if self._thread is not None:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
