"""A template as a child process, and the workers that it forks. Knows no loop.

A worker that it forks is a child of ours as one that was spawned is (see `pyrepl3_worker.fork_server.clone`):
we wait for it, it dies with us, and the template's end does not concern it.
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

from pyrepl3_client._launch.spawn import WorkerProcess, interpreter_environment, worker_arguments
from pyrepl3_client._launch.worker import WorkerPipes, open_pipe
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SpawnError, describe_exit
from pyrepl3_schemas.fork_server import (
    MOST_BYTES,
    CanFork,
    CannotFork,
    Fork,
    Forked,
    FromForkServer,
    NotForked,
    pack,
    unpack_answer,
)

_ANSWER_SECONDS: Final = 5.0
"""How long a fork may take, which takes a millisecond, before the template is ended as stuck."""
_STDERR_BYTES: Final = 16 * 1024


class ForkServerGoneError(Exception):
    """The template has ended, or was ended since it did not answer."""


@dataclass(frozen=True, slots=True)
class SpawnEnvironment:
    """What a process has from its start on; a worker forked later has that of its template."""

    python: str
    warm: tuple[str, ...]
    environment: dict[str, str]
    directory: tuple[int, int]
    """Device and inode."""

    @classmethod
    def from_config(cls, config: WorkerConfig) -> Self:
        """Give what a process started now would have.

        Raises:
            SpawnError: there is no such directory.
        """
        try:
            directory = os.stat(config.cwd or ".")
        except OSError as error:
            raise SpawnError(f"no worker could be started in {config.cwd or '.'!r}: {error}") from error
        place = (directory.st_dev, directory.st_ino)
        return cls(config.python, config.warm, interpreter_environment(config), place)

    def differences(self, other: "SpawnEnvironment") -> str:
        """Name what differs, or nothing."""
        pairs = (
            ("interpreter", self.python == other.python),
            ("warm modules", self.warm == other.warm),
            ("environment", self.environment == other.environment),
            ("directory", self.directory == other.directory),
        )
        return ", ".join(name for name, same in pairs if not same)


class ForkServerProcess:
    """A running template. Made by `start_template`; `end` it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        spawn_environment: SpawnEnvironment,
        stderr: int,
    ) -> None:
        """Take over the process, our end of its socket, and of its stderr."""
        self.spawn_environment = spawn_environment
        self.control = control
        self.stderr = stderr
        self.exit_fd = os.pidfd_open(process.pid)
        """Becomes readable when it has ended."""
        self._process = process
        self._request_number = 0
        self._stderr_tail = bytearray()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fork(self, config: WorkerConfig) -> WorkerProcess:
        """Have a worker forked. Blocks the calling thread for a millisecond or two.

        Raises:
            TemplateGoneError: this template forks no more.
            SpawnError: there is no room for another process or fd.
        """
        opened: list[int] = []
        self._request_number += 1
        try:
            for _ in range(5):
                opened.extend(open_pipe())
            (in_read, writer), (reader, out_write), (words, words_write), *captured = zip(
                opened[::2], opened[1::2], strict=True
            )
            (stdout, stdout_write), (stderr, stderr_write) = captured
            theirs = [in_read, out_write, words_write, stdout_write, stderr_write]
            self._send(Fork(self._request_number, worker_arguments(config)), theirs)
            pid = self._wait_for_fork()
            exited = os.pidfd_open(pid)
        except (OSError, ForkServerGoneError) as error:
            # A worker of which nobody heard, if there is one, ends at the end of its input.
            for fd in opened:
                os.close(fd)
            if isinstance(error, ForkServerGoneError):
                raise
            raise SpawnError(f"no worker could be forked: {error}") from error
        for fd in theirs:
            os.close(fd)
        ours = (writer, reader, stdout, stderr, words)
        for fd in ours:
            os.set_blocking(fd, False)
        return WorkerProcess(pid, WorkerPipes(*ours, exited))

    def receive(self) -> FromForkServer | None:
        """Give the next message that has come, or None.

        Raises:
            TemplateGoneError: there will be none any more.
        """
        try:
            packet = self.control.recv(MOST_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ForkServerGoneError(str(error)) from error
        if not packet:
            raise ForkServerGoneError("it has ended")
        try:
            return unpack_answer(packet)
        except msgspec.DecodeError as error:
            self.kill()
            raise ForkServerGoneError(f"its message makes no sense: {error}") from error

    def read_stderr(self) -> bool:
        """Read what it has written to its stderr; say whether there may be more later."""
        try:
            data = os.read(self.stderr, _STDERR_BYTES)
        except BlockingIOError:
            return True
        self._stderr_tail += data
        del self._stderr_tail[:-_STDERR_BYTES]
        return bool(data)

    def kill(self) -> None:
        """End it at once. Idempotent."""
        if self.exit_fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.exit_fd, signal.SIGKILL)

    def close(self) -> str:
        """End it, wait for that, and let go of everything; say how it ended. Once only."""
        self.kill()
        code = self._process.wait()
        self.read_stderr()
        self.control.close()
        os.close(self.stderr)
        os.close(self.exit_fd)
        self.exit_fd = -1
        words = self._stderr_tail.decode("utf-8", "replace").strip()
        ending = describe_exit(code, None) if code >= 0 else describe_exit(None, -code)
        return f"{ending}\nlast lines of its stderr:\n{words}" if words else ending

    def _send(self, message: Fork, fds: list[int]) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        try:
            self.control.sendmsg([pack(message)], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError) as error:
            self.kill()
            raise ForkServerGoneError(str(error)) from error

    def _wait_for_fork(self) -> int:
        """Give the pid of the worker asked for last.

        Raises:
            TemplateGoneError: there is none.
            OSError: the kernel refused.
        """
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        patience = 2
        while True:
            if not poller.poll(_ANSWER_SECONDS * 1000):
                patience -= 1
                if not patience:
                    raise ForkServerGoneError("it did not answer")
                # Once it is dead there is a worker who speaks for itself, or the end of the stream.
                self.kill()
            match self.receive():
                case Forked(number, pid) if number == self._request_number:
                    return pid
                case NotForked(number, reason) if number == self._request_number:
                    raise OSError(reason)
                case Forked() | NotForked() | CanFork() | CannotFork() | None:
                    continue  # of an earlier request, whose answer comes twice


def start_fork_server(config: WorkerConfig) -> ForkServerProcess:
    """Start a template for workers of this configuration. Blocks for some milliseconds.

    The calling thread must live as long as the template and its workers may.

    Raises:
        SpawnError: there is no such interpreter or directory, or no room for another process or fd.
    """
    spawn_environment = SpawnEnvironment.from_config(config)
    ours = theirs = process = None
    words = words_write = -1
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words, words_write = open_pipe()
        os.set_blocking(words, False)
        process = subprocess.Popen(  # noqa: S603 - running an interpreter is what this is for
            [config.python, "-P", "-m", "pyrepl3_worker.fork_server", str(os.getpid()), *config.warm],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=words_write,
            start_new_session=True,
            cwd=config.cwd,
            env=spawn_environment.environment,
        )
        return ForkServerProcess(process, ours, spawn_environment, words)
    except (OSError, ValueError) as error:
        if process is not None:
            process.kill()
            process.wait()
        if words >= 0:
            os.close(words)
        if ours is not None:
            ours.close()
        raise SpawnError(f"no template could be started with {config.python!r}: {error}") from error
    finally:
        if words_write >= 0:
            os.close(words_write)
        if theirs is not None:
            theirs.close()
