"""A worker driven by hand: the process, its pipes and the codec, with no client between."""

import os
import select
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

from pyrepl3_schemas.codec import ClientDecoder, encode
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.messages import Error, Execute, FromWorker, Hello, Output, Ready, Result, ToWorker

PATIENCE = 30.0


class RawWorker:
    """Plain stdio and no `--capture`, as a stranger would spawn it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pyrepl3_worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._decoder = ClientDecoder()
        self._messages: list[FromWorker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def hello(self, **limits: object) -> Ready:
        """Begin the session."""
        self.send(Hello(protocol=PROTOCOL, session_id="raw", config=ExecutorConfig(**limits)))  # pyright: ignore[reportArgumentType]
        ready = self.receive()
        assert isinstance(ready, Ready)
        return ready

    def send(self, message: ToWorker) -> None:
        """Write a frame."""
        self.write(bytes(encode(message)))

    def write(self, data: bytes) -> None:
        """Write bytes."""
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), data)

    def receive(self) -> FromWorker:
        """Return the next message."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while not self._messages:
            assert select.select([fd], [], [], PATIENCE)[0], "no message"
            data = os.read(fd, 1 << 20)
            assert data, "the stream has ended"
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    def run(self, code: str) -> tuple[Result | Error, str]:
        """Run code; give its outcome and what it wrote."""
        self.send(Execute(execution_id="raw-1", code=code))
        output = ""
        while True:
            message = self.receive()
            if isinstance(message, Output):
                output += message.data
            elif isinstance(message, Result | Error):
                return message, output

    def close_stdin(self) -> None:
        """End the worker's input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def send_wakeup_signal(self) -> None:
        """Send the wake-up signal: code that holds the loop hears of what was sent."""
        self.process.send_signal(signal.SIGURG)

    def exit_code(self) -> int:
        """Wait for its end."""
        return self.process.wait(PATIENCE)
