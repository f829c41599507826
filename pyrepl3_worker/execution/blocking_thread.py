"""The session's one thread for blocking code, started when it is first needed."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


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
            self._thread = threading.Thread(target=self._work, name="pyrepl3-blocking", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end when its jobs are done. A later job starts another."""
        if self._thread is not None:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
