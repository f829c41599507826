"""A worker's proxy from its `ready` to its end, whose connections are announced on the session's loop."""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from pyrepl3_client._host_rules import HostRule
from pyrepl3_client._log import fields, write
from pyrepl3_client._network.addresses import Resolver
from pyrepl3_client._network.proxy import Clients, Limits, Served, serve_clients
from pyrepl3_client._network.thread import Running
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.events import NetworkEvent
from pyrepl3_client._telemetry.log import NETWORK_LOGGER, WARNING

MAX_WAITING: Final = 1000
"""Connections that wait to be announced while the session's loop is busy; above it the newest are dropped."""


class WorkerNetwork:
    """Serves what the code of one worker connects to its proxy."""

    def __init__(
        self,
        listener: socket.socket,
        rules: Sequence[HostRule],
        telemetry: Telemetry,
        whose: dict[str, Any],
    ) -> None:
        """Serve at once; announce on the running loop.

        Args:
            listener: a socket that listens in the worker's network; owned from now on.
            rules: what may be reached.
            telemetry: the session's.
            whose: what is said of the worker in each event.

        Raises:
            OSError, RuntimeError: there is no room for the proxy's thread or its descriptors.
        """
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._rules = rules
        self._telemetry = telemetry
        self._whose = whose
        self._waiting: deque[Served] = deque()
        self._dropped = 0
        self._is_announcing = False
        try:
            self._running = Running(self._serve)
        except BaseException:
            listener.close()
            raise

    def stop(self) -> None:
        """Abort all connections and take no more, without waiting. Idempotent."""
        self._running.stop()

    async def wait_ended(self) -> None:
        """Wait until nothing of it is left, and all its connections have been announced."""
        await self._running.wait_ended()
        self._announce()

    async def _serve(self) -> None:
        with self._listener:
            self._listener.setblocking(False)
            clients = Clients(self._rules, Resolver().resolve, self._tell, Limits())
            await serve_clients(self._listener, clients)

    def _tell(self, served: Served) -> None:
        """Take note of a connection, on the proxy's thread."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
        else:
            self._waiting.append(served)
        if not self._is_announcing:
            self._is_announcing = True
            with suppress(RuntimeError):  # the session's loop is closed
                self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        self._is_announcing = False
        # Those that come meanwhile have their turn in the next round.
        for _ in range(len(self._waiting)):
            served = self._waiting.popleft()
            self._telemetry.announce(NetworkEvent(**self._whose, **msgspec.structs.asdict(served)))
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            extra = fields(str(self._whose["session_id"]), worker=self._whose["worker"])
            write(
                NETWORK_LOGGER,
                WARNING,
                "session %r makes more connections than can be told of: %d are in no log",
                self._whose["session_id"],
                dropped,
                extra=extra,
            )
