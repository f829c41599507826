"""A worker that waits for its session, and how the client sees that it is warm.

A worker sends nothing before it has received its greeting, and reads its greeting when its imports are
done. So the capacity of the pipe to it is set to one page, and the greeting's first byte is written to it
(the length of a frame begins with a zero byte): such a pipe counts as full until the worker has read that
byte, and as writable afterwards.
"""

import asyncio
import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pyrepl3_client._launch.stderr_tail import StderrTail
from pyrepl3_client._launch.worker import PIPE_BYTES, ExitStatus, Worker, set_pipe_size
from pyrepl3_client.errors import SpawnError, WorkerDied

GREETING_FIRST_BYTE: Final = b"\0"
_ONE_PAGE: Final = 4096
_DEFAULT_PIPE_BYTES: Final = 64 * 1024


class IdleWorker:
    """A worker without a session, watched on the running loop until it is detached or ends."""

    def __init__(
        self, worker: Worker, on_warm: Callable[[], None], on_death: Callable[["IdleWorker"], None]
    ) -> None:
        """Watch a worker that has just been started.

        Args:
            worker: its pipes are this object's until `detach`.
            on_warm: called once, when the worker has done its imports.
            on_death: called when the worker has ended before it was detached.
        """
        self.worker = worker
        self.warm = False
        self.ended: asyncio.Future[WorkerDied] = asyncio.get_running_loop().create_future()
        self.status: ExitStatus | None = None
        """How it ended."""
        self.stderr = ""
        """The last lines that it wrote to its stderr, once it has ended."""
        self._loop = asyncio.get_running_loop()
        self._on_warm = on_warm
        self._on_death = on_death
        pipes = worker.pipes
        set_pipe_size(pipes.writer, _ONE_PAGE)
        with suppress(BrokenPipeError):  # it has ended already, which is heard of below
            os.write(pipes.writer, GREETING_FIRST_BYTE)
        pipes.greeting_sent = GREETING_FIRST_BYTE
        self._loop.add_writer(pipes.writer, self._on_writable)
        self._loop.add_reader(pipes.exit_fd, self._on_exited)

    @property
    def alive(self) -> bool:
        """Whether the process lives, as the kernel says now."""
        if self.ended.done():
            return False
        poller = select.poll()
        poller.register(self.worker.pipes.exit_fd, select.POLLIN)
        return not poller.poll(0)

    def detach(self) -> Worker:
        """Stop watching the worker, and return it for a session."""
        self._stop_watching()
        return self.worker

    def kill(self) -> None:
        """Kill the worker; `ended` gets its result when the process has ended."""
        self.worker.kill()

    def _on_writable(self) -> None:
        writer = self.worker.pipes.writer
        self._loop.remove_writer(writer)
        poller = select.poll()
        poller.register(writer, select.POLLOUT)
        if any(events & select.POLLERR for _, events in poller.poll(0)):
            return  # the other end is closed: the worker has not read the byte, it is ending
        self.warm = True
        if not set_pipe_size(writer, PIPE_BYTES):
            set_pipe_size(writer, _DEFAULT_PIPE_BYTES)
        self._on_warm()

    def _stop_watching(self) -> None:
        pipes = self.worker.pipes
        self._loop.remove_reader(pipes.exit_fd)
        if not self.warm:
            self._loop.remove_writer(pipes.writer)
            if not set_pipe_size(pipes.writer, PIPE_BYTES):
                set_pipe_size(pipes.writer, _DEFAULT_PIPE_BYTES)

    def _on_exited(self) -> None:
        self._stop_watching()
        pipes = self.worker.pipes
        stderr = StderrTail(pipes.stderr)
        stderr.read_rest()
        status = self.status = self.worker.reap()
        self.stderr = stderr.text
        pipes.close()
        what = f"worker {self.worker.pid} of a pool ended before it had a session"
        self.ended.set_result(SpawnError(what, status.exit_code, status.signal, stderr.text))
        self._on_death(self)
