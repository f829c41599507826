"""Workers forked from a fork server: a process that has imported everything, forked in milliseconds.

`ForkServer.launch` can be used wherever `spawn` can: where a fork is not safe, or while there is no process
to fork from, it spawns, and `reason` says why.
"""

import asyncio
import logging
from types import TracebackType
from typing import Final, Self

from pyrepl3_client._launch.fork_server_process import (
    ForkServerGoneError,
    ForkServerProcess,
    SpawnEnvironment,
    start_fork_server,
)
from pyrepl3_client._launch.spawn import spawn
from pyrepl3_client._launch.worker import Launch, Worker
from pyrepl3_client._log import write
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SpawnError
from pyrepl3_schemas.fork_server import CanFork, CannotFork, Forked, NotForked

_logger: Final = logging.getLogger("pyrepl3.pool")
_MAX_DEATHS_IN_A_ROW: Final = 3
"""Fork server processes that may die in a row without a worker from them, before no more are started."""
_NOT_READY_YET: Final = "the fork server is not ready yet"
_STRICT_NEVER_FORKS: Final = "strictly confined workers import their modules behind their own boundary"


class ForkServer:
    """Launches workers of one configuration by forking them from a process that has imported its modules.

    A forked worker is like a spawned one: a child of this process in a session of its own, with the same
    limits, ended in the same ways. It lives on when the fork server ends. What differs: all workers of a
    fork server have the memory layout of its start, and umask, rlimits and the like as they were then;
    modules have been imported once for all of them, and what that printed is dropped. `random`, the global
    generator of `numpy.random` and multiprocessing's key are made anew in each worker; other generators
    that a warm module seeds when it is imported are the same in all workers.

    It spawns instead, and `reason` says why, when a warm module started threads that do not end before a
    fork (OpenBLAS's do), left files, sockets, shared memory or child processes open, or can't be imported;
    for confinement "strict", whose modules are imported inside the confinement; where interpreter,
    environment, directory or warm modules differ from the fork server's; and on machines that can't do it.

    Use it on one event loop, whose thread has to live as long as the workers.

    Example:
        async with ForkServer(WorkerConfig(warm=("numpy",))) as fork_server:
            await fork_server.wait_started()
            worker = fork_server.launch(fork_server.config)
    """

    def __init__(self, config: WorkerConfig, *, spawn: Launch = spawn) -> None:
        """Describe the fork server; entering it starts the process.

        Args:
            config: the configuration of its workers.
            spawn: launches the workers that can't be forked.
        """
        self.config = config
        self._spawn = spawn
        self._process: ForkServerProcess | None = None
        self._open = False
        self._can_fork = False
        self._final_reason = ""
        self._deaths_in_a_row = 0
        self._start_finished = asyncio.Event()
        self._logged_reasons: set[str] = set()
        self.reason: str | None = _NOT_READY_YET
        """Why the latest worker was spawned, or the next one will be; None when workers are forked."""

    @property
    def pid(self) -> int | None:
        """The process id of the fork server; None when it has no process."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> Self:
        """Start the process, without waiting for its imports. Never fails: workers are spawned then."""
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process. Workers forked from it go on."""
        self.close()

    def start(self) -> None:
        """Start the process, without waiting for its imports; `close` ends it. Never fails."""
        self._open = True
        self._final_reason = self._reason_never_to_fork()
        self._start_process()

    def close(self) -> None:
        """End the process. Idempotent; `launch` spawns afterwards."""
        self._open = False
        self._end_process()
        self._set_spawn_reason("the fork server is closed")

    async def wait_started(self) -> None:
        """Wait until the process can fork, or is known not to be able to: `reason` is None, or says why."""
        await self._start_finished.wait()

    def launch(self, config: WorkerConfig) -> Worker:
        """Start a worker: by a fork, in a millisecond or two, else by `spawn`. Has the type `Launch`.

        Raises:
            SpawnError: as `spawn` does.
        """
        worker = self._try_fork(config)
        if worker is None:
            return self._spawn(config)
        self.reason = None
        return worker

    def _try_fork(self, config: WorkerConfig) -> Worker | None:
        process = self._process
        if process is None or not self._can_fork:
            return None
        if config.confinement == "strict":
            return self._set_spawn_reason(_STRICT_NEVER_FORKS)
        now = SpawnEnvironment.from_config(config)
        difference = now.differences(process.spawn_environment)
        if difference:
            if SpawnEnvironment.from_config(self.config) != process.spawn_environment:
                # This program's environment or directory has changed: the next workers need a new process.
                self._restart_process()
            return self._set_spawn_reason(
                f"the worker's {difference} differ{'' if ',' in difference else 's'}"
            )
        try:
            worker = process.fork(config)
        except ForkServerGoneError as error:
            self._handle_death(str(error))
            return None
        except SpawnError as error:
            # A spawn may still succeed with what is left; otherwise its error says what is missing.
            return self._set_spawn_reason(str(error))
        self._deaths_in_a_row = 0
        return worker

    # --- the process ---------------------------------------------------------------------------------

    def _reason_never_to_fork(self) -> str:
        return _STRICT_NEVER_FORKS if self.config.confinement == "strict" else ""

    def _start_process(self) -> None:
        self._can_fork = False
        self._start_finished.clear()
        if self._final_reason:
            self._set_spawn_reason(self._final_reason)
            self._start_finished.set()
            return
        try:
            process = start_fork_server(self.config)
        except SpawnError as error:
            self._give_up(str(error))
            return
        self._process = process
        self.reason = _NOT_READY_YET
        loop = asyncio.get_running_loop()
        loop.add_reader(process.control, self._on_message)
        loop.add_reader(process.stderr, self._on_stderr)
        loop.add_reader(process.exit_fd, self._on_exited)

    def _end_process(self) -> str:
        """End the process, if there is one; return how it ended, in words."""
        process, self._process = self._process, None
        self._can_fork = False
        if process is None:
            return ""
        loop = asyncio.get_running_loop()
        for fd in (process.control, process.stderr, process.exit_fd):
            loop.remove_reader(fd)
        return process.close()

    def _restart_process(self) -> None:
        self._end_process()
        self._start_process()

    def _on_message(self) -> None:
        process = self._process
        assert process is not None
        try:
            message = process.receive()
        except ForkServerGoneError:
            # `_on_exited` handles its end.
            asyncio.get_running_loop().remove_reader(process.control)
            return
        match message:
            case CanFork():
                self._can_fork = True
                self.reason = None
                self._start_finished.set()
            case CannotFork(reason):
                self._give_up(reason)
            case Forked() | NotForked() | None:
                return  # an answer that came twice: worker and fork server both send it

    def _on_stderr(self) -> None:
        assert self._process is not None
        if not self._process.read_stderr():
            asyncio.get_running_loop().remove_reader(self._process.stderr)

    def _on_exited(self) -> None:
        # Its last message may say why it ended.
        self._on_message()
        if self._process is not None:
            self._handle_death("it has ended")

    def _handle_death(self, how: str) -> None:
        """Start another process, unless too many have died in a row."""
        ready = self._can_fork
        reason = f"the fork server died: {how}: {self._end_process()}"
        self._deaths_in_a_row += 1
        if not ready or self._deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            self._give_up(reason)
        else:
            self._set_spawn_reason(reason)
            self._start_process()

    def _give_up(self, reason: str) -> None:
        """Spawn all workers from now on."""
        self._final_reason = reason
        self._end_process()
        self._set_spawn_reason(reason)
        self._start_finished.set()

    def _set_spawn_reason(self, reason: str) -> None:
        self.reason = reason
        if reason not in self._logged_reasons and self._open:
            self._logged_reasons.add(reason)
            write(_logger, logging.INFO, "workers are spawned, not forked: %s", reason)
