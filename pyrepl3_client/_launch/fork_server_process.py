"""A fork server as a child process, and the requests for workers that it forks. Knows no event loop.

A forked worker is a child of this process, as a spawned one is (see `pyrepl3_worker.fork_server.clone`):
this process reaps it, it dies with this process, and it lives on when the fork server ends.
"""

import array
import os
import select
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from pyrepl3_client._launch.directories import WorkerDirectories
from pyrepl3_client._launch.interpreter import describe_failure, interpreter_command
from pyrepl3_client._launch.spawn import WorkerProcess, interpreter_environment, worker_arguments
from pyrepl3_client._launch.stderr_tail import StderrTail
from pyrepl3_client._launch.worker import NewWorkerPipes, open_pipe
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SpawnError, describe_exit
from pyrepl3_schemas.fork_server import (
    MAX_PACKET_BYTES,
    CanFork,
    CannotFork,
    Fork,
    Forked,
    FromForkServer,
    NotForked,
    decode_answer,
    encode_packet,
)

_ANSWER_SECONDS: Final = 5.0
"""Seconds that a fork may take before the fork server is killed as stuck. It takes a millisecond."""


class ForkServerGoneError(Exception):
    """The fork server has ended, or was killed since it did not answer."""


@dataclass(frozen=True, slots=True)
class SpawnEnvironment:
    """What a process has from its start on. A forked worker has that of its fork server."""

    python: str
    warm: tuple[str, ...]
    environment: dict[str, str]
    directory: tuple[int, int]
    """Device and inode."""

    @classmethod
    def from_config(cls, config: WorkerConfig) -> Self:
        """Return what a process that is started now would have.

        Raises:
            SpawnError: there is no such directory.
        """
        path = config.start_directory or "."
        try:
            directory = os.stat(path)
        except OSError as error:
            raise SpawnError(f"no worker could be started in {path!r}: {error}") from error
        place = (directory.st_dev, directory.st_ino)
        return cls(config.python, config.warm, interpreter_environment(config), place)

    def differences(self, other: "SpawnEnvironment") -> str:
        """Return the names of what differs, separated by commas; empty when nothing does."""
        pairs = (
            ("interpreter", self.python == other.python),
            ("warm modules", self.warm == other.warm),
            ("environment", self.environment == other.environment),
            ("directory", self.directory == other.directory),
        )
        return ", ".join(name for name, same in pairs if not same)


class ForkServerProcess:
    """A running fork server, made by `start_fork_server`; `close` ends it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        spawn_environment: SpawnEnvironment,
        stderr: int,
    ) -> None:
        """Own the process, this side of its control socket, and the read end of its stderr."""
        self.spawn_environment = spawn_environment
        self.control = control
        self.stderr = stderr
        self.exit_fd = os.pidfd_open(process.pid)
        """A pidfd, readable when the process has ended; -1 once closed."""
        self._process = process
        self._request_number = 0
        self._stderr_tail = StderrTail(stderr)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fork(self, config: WorkerConfig) -> WorkerProcess:
        """Fork a worker. Blocks the calling thread for a millisecond or two.

        Raises:
            ForkServerGoneError: this fork server can fork no more.
            SpawnError: there is no room for another process or fd.
        """
        pipes: NewWorkerPipes | None = None
        directories: WorkerDirectories | None = None
        self._request_number += 1
        try:
            pipes = NewWorkerPipes()
            directories = WorkerDirectories(config)
            self._send(Fork(self._request_number, worker_arguments(config)), pipes.worker_ends)
            pid = self._wait_for_fork()
            exit_fd = os.pidfd_open(pid)
        except (OSError, ForkServerGoneError) as error:
            # If there is a worker whose pid never came, it ends when its input does.
            if pipes is not None:
                pipes.close()
            if directories is not None:
                directories.close()
            if isinstance(error, ForkServerGoneError):
                raise
            raise SpawnError(f"no worker could be forked: {error}") from error
        connected = pipes.connect(exit_fd, directories)
        return WorkerProcess(pid, connected, leaves_segments=config.confinement == "limits")

    def receive(self) -> FromForkServer | None:
        """Return the next message that has come, or None.

        Raises:
            ForkServerGoneError: no more messages will come.
        """
        try:
            packet = self.control.recv(MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ForkServerGoneError(str(error)) from error
        if not packet:
            raise ForkServerGoneError("it has ended")
        try:
            return decode_answer(packet)
        except msgspec.DecodeError as error:
            self.kill()
            raise ForkServerGoneError(f"its message makes no sense: {error}") from error

    def read_stderr(self) -> bool:
        """Read what it has written to its stderr; return whether there may be more later."""
        return self._stderr_tail.read()

    def kill(self) -> None:
        """Kill the process. Idempotent."""
        if self.exit_fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.exit_fd, signal.SIGKILL)

    def close(self) -> str:
        """Kill the process, wait for its end, and close all fds; return how it ended, in words.

        To be called once.
        """
        self.kill()
        code = self._process.wait()
        self._stderr_tail.read_rest()
        self.control.close()
        os.close(self.stderr)
        os.close(self.exit_fd)
        self.exit_fd = -1
        stderr = self._stderr_tail.text
        ending = describe_exit(code, None) if code >= 0 else describe_exit(None, -code)
        return f"{ending}\nlast lines of its stderr:\n{stderr}" if stderr else ending

    def _send(self, message: Fork, fds: list[int]) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        try:
            self.control.sendmsg(
                [encode_packet(message)], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            )
        except (BlockingIOError, BrokenPipeError, ConnectionResetError) as error:
            self.kill()
            raise ForkServerGoneError(str(error)) from error

    def _wait_for_fork(self) -> int:
        """Return the pid of the worker that was requested last.

        Raises:
            ForkServerGoneError: there is none.
            OSError: the kernel refused the fork.
        """
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        waits_left = 2
        while True:
            if not poller.poll(_ANSWER_SECONDS * 1000):
                waits_left -= 1
                if not waits_left:
                    raise ForkServerGoneError("it did not answer")
                # Once it is dead, either the worker itself answers, or the stream ends.
                self.kill()
            match self.receive():
                case Forked(number, pid) if number == self._request_number:
                    return pid
                case NotForked(number, reason) if number == self._request_number:
                    raise OSError(reason)
                case Forked() | NotForked() | CanFork() | CannotFork() | None:
                    continue  # an answer to an earlier request, which came twice


def start_fork_server(config: WorkerConfig) -> ForkServerProcess:
    """Start a fork server for workers of this configuration. Blocks for some milliseconds.

    The calling thread must live as long as the fork server and its workers.

    Raises:
        SpawnError: there is no such interpreter or directory, or no room for another process or fd.
    """
    spawn_environment = SpawnEnvironment.from_config(config)
    command = interpreter_command(config, "pyrepl3_worker.fork_server")
    control = child_control = process = None
    stderr = stderr_write = -1
    try:
        control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stderr, stderr_write = open_pipe()
        os.set_blocking(stderr, False)
        process = subprocess.Popen(  # noqa: S603 - running an interpreter is what this is for
            [*command, str(os.getpid()), *config.warm],
            stdin=child_control.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=stderr_write,
            start_new_session=True,
            cwd=config.start_directory,
            env=spawn_environment.environment,
        )
        return ForkServerProcess(process, control, spawn_environment, stderr)
    except (OSError, ValueError) as error:
        if process is not None:
            process.kill()
            process.wait()
        if stderr >= 0:
            os.close(stderr)
        if control is not None:
            control.close()
        raise SpawnError(describe_failure(config.python, error, "fork server")) from error
    finally:
        if stderr_write >= 0:
            os.close(stderr_write)
        if child_control is not None:
            child_control.close()
