"""What the tests of records in promises share: opening one on a server of the tests' own, and using it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from resonate_base import Network, Source

from pyrepl3_client.durable.remote.connect import REFRESH
from pyrepl3_client.durable.remote.journal import RemoteJournal
from pyrepl3_client.durable.resonate.engine import ResonateConnection
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.errors import StoreError
from tests.helpers.journals import SESSION, must_not_be_lost
from tests.helpers.resonate_server import InProcess, Server

type Opened = Callable[..., Any]
"""Opens the session's journal, as an async context manager."""


@asynccontextmanager
async def opened(
    network: Network,
    source: Source,
    *,
    pid: str,
    session: str = SESSION,
    on_lost: Callable[[StoreError], None] = must_not_be_lost,
    ttl: float = 10.0,
    wait: float = 0.0,
) -> AsyncGenerator[RemoteJournal]:
    connection = ResonateConnection(network, (source,), pid, REFRESH)
    journal = await RemoteJournal.open(connection, session, on_lost=on_lost, ttl=ttl, wait=wait)
    try:
        yield journal
    finally:
        await journal.close()


_pids = iter(range(1, 1 << 30))


def on_server(server: Server) -> Opened:
    def open_it(session: str = SESSION, **options: Any) -> Any:
        pid = f"p{next(_pids)}"
        link = InProcess(server, session_group(session), pid)
        return opened(link, link, pid=pid, session=session, **options)

    return open_it
