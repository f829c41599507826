"""execnet: a popen gateway whose remote end runs what its channel brings."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from benchmarks.peers import load

# print() has no way home in execnet (the gateway's own protocol has stdout), so a line is an item sent.
_REMOTE = """
import os
namespace = {"send": channel.send}
channel.send(os.getpid())
for code in channel:
    exec(code, namespace)
    channel.send(namespace.get("value"))
"""


class _Channel(Protocol):
    def send(self, item: object) -> None: ...
    def receive(self, timeout: float | None = None) -> Any: ...
    def close(self) -> None: ...


class _Gateway(Protocol):
    def remote_exec(self, source: str) -> _Channel: ...


class _Group(Protocol):
    def makegateway(self, spec: str) -> _Gateway: ...
    def terminate(self, timeout: float | None = None) -> None: ...


class _Execnet(Protocol):
    def Group(self) -> _Group: ...  # noqa: N802 - execnet's name


class Gateway:
    """A remote interpreter. Everything blocks: that is execnet's way."""

    def __init__(self, channel: _Channel) -> None:
        """Use a channel whose other end has just been started."""
        self._channel = channel
        self.pid: int = channel.receive()

    def execute(self, code: str) -> Any:
        """Run code there; return what it left in `value`."""
        self._channel.send(code)
        return self._channel.receive()

    def pipeline(self, code: str, count: int) -> None:
        """Send the code `count` times without waiting, and take as many answers."""
        for _ in range(count):
            self._channel.send(code)
        for _ in range(count):
            self._channel.receive()

    def lines(self, code: str, count: int) -> int:
        """Run code that sends `count` lines; return the number of characters that came."""
        self._channel.send(code)
        characters = sum(len(self._channel.receive()) for _ in range(count))
        self._channel.receive()
        return characters


@contextmanager
def open_gateway() -> Generator[Gateway]:
    """Start a gateway on this machine with this Python; end it on the way out.

    Raises:
        NotInstalledError: there is no execnet.
    """
    group = cast("_Execnet", load("execnet")).Group()
    try:
        channel = group.makegateway("popen").remote_exec(_REMOTE)
        yield Gateway(channel)
        channel.close()
    finally:
        group.terminate(timeout=5)
