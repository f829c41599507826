"""Opens a store, and raises what is wrong with it before any code runs."""

import os
from collections.abc import Callable
from typing import Final

from pyrepl3_client._journal.protocol import Journal, OnTrouble, log_trouble
from pyrepl3_client.durable.location import RemoteLocation, parse_location
from pyrepl3_client.durable.remote.connect import ANSWER_TIMEOUT, connect_http, connect_postgres
from pyrepl3_client.durable.remote.journal import RemoteJournal
from pyrepl3_client.durable.resonate.engine import ResonateConnection
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.durable.sqlite import SqliteConnection
from pyrepl3_client.durable.sqlite.journal import SqliteJournal
from pyrepl3_client.errors import StoreError

LEASE_TTL: Final = 10.0


async def open_store(
    url: str | os.PathLike[str],
    session_id: str,
    *,
    on_lost: Callable[[StoreError], None] = lambda error: None,
    on_trouble: OnTrouble = log_trouble,
    ttl: float = LEASE_TTL,
    wait: float = 0.0,
    max_bytes: int | None = None,
) -> Journal:
    """Open a session's record, and take the session over from an owner that is gone.

    Args:
        url: of the store; see `location`.
        session_id: the session.
        on_lost: called once, on the loop, when another owner has taken the session over: from then on
            every method raises `StoreError`.
        on_trouble: gets what could not be done beside what callers are told; by default it is logged.
        ttl: seconds after which another process may have the session if this one stops without a word. A
            process that is dead on this machine is noticed at once.
        wait: seconds to wait while the session is another owner's.
        max_bytes: that the session may have on record, in an SQLite file or in memory; None is no bound.

    Raises:
        SessionBusy: the session is another owner's; the text names it.
        StoreError: the store cannot be used; the text says why and what to do.
    """
    try:
        group = session_group(session_id)
    except UnicodeEncodeError as error:
        raise StoreError(f"the session's id {session_id!r} is no Unicode text: {error}") from error
    location = parse_location(url)
    if isinstance(location, RemoteLocation):
        if max_bytes is not None:
            unbounded = StoreError("a store over the network does not keep max_store_bytes: bound it there")
            on_trouble("what the session records is not bounded", unbounded)
        return await RemoteJournal.open(
            connect(location, session_id),
            session_id,
            on_lost=on_lost,
            on_trouble=on_trouble,
            ttl=ttl,
            wait=wait,
        )
    connection = await SqliteConnection.open(
        location.path,
        synchronous="FULL" if location.synchronous == "FULL" else "NORMAL",
        group=group,
        busy_timeout=location.busy_timeout,
        on_trouble=on_trouble,
    )
    return await SqliteJournal.open(
        connection, session_id, on_lost=on_lost, ttl=ttl, wait=wait, max_bytes=max_bytes
    )


def connect(location: RemoteLocation, session_id: str, timeout: float = ANSWER_TIMEOUT) -> ResonateConnection:
    """Connect to a store over the network for a session, with so many seconds for an answer.

    Raises:
        StoreError: what it takes is not installed.
    """
    if location.url.startswith("http"):
        return connect_http(location.url, location.safe_url, location.token, session_id, timeout)
    return connect_postgres(location.url, location.safe_url, session_id, timeout)
