"""Does for a session what its program asks of its files.

This program does it itself, on descriptors of what the worker sees, in threads: so it works while code
runs, whatever holds the worker's loop. What it does to a directory that is state of the session is on
record with the next checkpoint, which is asked for at once.
"""

import asyncio
import os
import warnings
from collections.abc import Callable
from typing import Final

from pyrepl3_client._concurrency.owner import Owner
from pyrepl3_client._concurrency.thread_pool import ThreadPool
from pyrepl3_client._concurrency.uncancellable import wait_and_forward_cancel
from pyrepl3_client._execution.serving import question_served
from pyrepl3_client._files.actions import Written
from pyrepl3_client._files.transfer import Stop
from pyrepl3_client._files.view import FileView, Folders
from pyrepl3_client._session.supervisor import SessionSupervisor
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SessionClosed, SessionFileError

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class FileAccess:
    """Runs actions on the files of one session, until it is closed."""

    def __init__(self, supervisor: SessionSupervisor, config: WorkerConfig, owner: Owner) -> None:
        """Work for the session that `supervisor` keeps alive; `owner` says whose it is."""
        self.session_id = supervisor.session_id
        self._supervisor = supervisor
        self._config = config
        self._owner = owner
        self._threads: ThreadPool | None = None
        self._stops: set[Stop] = set()
        self._closed = False

    async def close(self, grace: float) -> None:
        """End what is under way, and wait for that, at most `grace` seconds; the session is being closed."""
        self._closed = True
        for stop in self._stops:
            stop.request(self._closed_error())
        if self._threads is None:
            return
        threads, self._threads = self._threads, None
        stuck = await threads.close(grace)
        if stuck:
            warnings.warn(
                f"session {self.session_id!r} is closed, and the system still holds up: "
                f"{', '.join(sorted(stuck))}",
                ResourceWarning,
                stacklevel=2,
            )

    async def change(self, action: str, path: str, work: Callable[[FileView, Stop], Written]) -> None:
        """Run an action that changes a file; see `run`. A change of the session's state is to be kept.

        Raises:
            WorkerDied: the worker whose directory it was is dead.
        """
        worker = await self._worker()
        written = await self.run(action, path, work, worker)
        if not written.own:
            return
        if not worker.alive or worker is not self._supervisor.worker:
            raise worker.died_error(
                reason=f"{written.path!r} is lost with it, or was replaced by a checkpoint's"
            )
        self._supervisor.checkpoints.file_changed(written.path)

    async def run[T](
        self,
        action: str,
        path: str,
        work: Callable[[FileView, Stop], T],
        worker: WorkerHandle | None = None,
    ) -> T:
        """Run an action in a thread. When this is cancelled, it is stopped, and waited for.

        Args:
            action: its name.
            path: what it is about.
            work: does it.
            worker: whose files are meant; by default the present one's.

        Raises:
            SessionFileError: it cannot be done.
            WorkerDied, SessionClosed: there is no worker.
        """
        if worker is None:
            worker = await self._worker()
        if self._closed:
            raise self._closed_error()
        view = self._open_view(path, worker)
        stop = Stop()
        self._stops.add(stop)
        if self._threads is None:
            self._threads = ThreadPool(f"pyrepl3-files-{self.session_id}")

        def job() -> T:
            try:
                return work(view, stop)
            finally:
                view.close()

        task = asyncio.get_running_loop().create_task(self._threads.run(f"files.{action}", job))
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            stop.request(_StoppedError())
            await wait_and_forward_cancel(lambda: asyncio.wait([task]), lambda: None)
            if not task.cancelled():
                task.exception()  # it is seen
            raise
        finally:
            self._stops.discard(stop)
            view.close()  # where no thread could be started
        return task.result()

    async def _worker(self) -> WorkerHandle:
        self._owner.check()
        if self._closed:
            raise self._closed_error()
        if question_served(self._supervisor.queue) is not None:
            # The running code waits for this: so would a recovery that is under way.
            return self._supervisor.require_worker()
        return await self._supervisor.ready_worker()

    def _closed_error(self) -> SessionClosed:
        return SessionClosed(f"session {self.session_id!r} is closed")

    def _open_view(self, path: str, worker: WorkerHandle) -> FileView:
        """Open the folders of a worker, for one action."""
        directories = worker.connection.worker.pipes.directories
        if directories is None:
            raise SessionFileError(path, "cannot be used: a scripted worker has no files")
        if not worker.alive:
            raise worker.died_error()
        own = self._supervisor.own_directory
        opened: list[int] = []

        def keep(fd: int) -> int:
            opened.append(fd)
            return fd

        try:
            if self._config.confinement == "strict":
                handed = directories.handed_over()
                if handed is None:
                    raise SessionFileError(
                        path,
                        "cannot be used: this machine does not enforce confinement 'strict' whole, so the "
                        "worker has no directory of its own; take confinement='limits', or a host function",
                    )
                folders = Folders(
                    root=keep(os.dup(handed.root)),
                    work=keep(os.dup(handed.work)),
                    own=keep(os.dup(handed.own)) if handed.own >= 0 else -1,
                    work_paths=(handed.work_path,),
                    confined=True,
                )
            else:
                work = keep(os.dup(directories.start) if own is None else own.open())
                paths = [os.fsencode(own.path)] if own is not None else [directories.start_path]
                paths = [*filter(None, paths), os.fsencode(os.readlink(f"/proc/self/fd/{work}"))]
                folders = Folders(
                    root=keep(os.open("/", _DIRECTORY)),
                    work=work,
                    own=-1 if own is None else keep(os.dup(work)),
                    work_paths=tuple(paths),
                    confined=False,
                )
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise SessionFileError(
                path,
                f"cannot be opened: {error.strerror}; raise this program's limit of descriptors (ulimit -n)",
            ) from None
        return FileView(folders)


class _StoppedError(Exception):
    """The task that waited for an action was cancelled."""
