"""Opens a store by its URL, and raises what is wrong with it before any code runs.

| URL | store |
|---|---|
| `memory:` | this process's memory |
| `state.db`, `sqlite:state.db`, `sqlite:///var/state.db?synchronous=FULL&busy_timeout=30` | an SQLite file |
| `http://…`, `https://…` | a Resonate server |
| `postgresql://…` | PostgreSQL with resonate-pg's schema |
"""

import os
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from pyrepl3_client._journal.protocol import Journal
from pyrepl3_client.durable.remote.connect import ANSWER_TIMEOUT, connect_http, connect_postgres
from pyrepl3_client.durable.remote.journal import RemoteJournal
from pyrepl3_client.durable.resonate.engine import ResonateConnection
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.durable.sqlite import IN_MEMORY, SqliteConnection
from pyrepl3_client.durable.sqlite.journal import SqliteJournal
from pyrepl3_client.errors import StoreError

# One letter is a drive to some people, and no scheme.
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_KNOWN: Final = "a path, sqlite:, memory:, http(s):// or postgresql://"
LEASE_TTL: Final = 10.0


class SqliteLocation(msgspec.Struct, frozen=True):
    """Which SQLite file, and how it is opened: see `SqliteConnection.open`."""

    path: str
    synchronous: str = "NORMAL"
    busy_timeout: float = 10.0


class RemoteLocation(msgspec.Struct, frozen=True):
    """A store that is reached over the network. Its text shows no credentials."""

    url: str
    """As it is connected to."""
    safe_url: str
    token: str | None = None
    """For a server: what it lets us in by."""

    def connect(self, session_id: str, timeout: float = ANSWER_TIMEOUT) -> ResonateConnection:
        """Connect for a session, with so many seconds for an answer.

        Raises:
            StoreError: what it takes is not installed.
        """
        if self.url.startswith("http"):
            return connect_http(self.url, self.safe_url, self.token, session_id, timeout)
        return connect_postgres(self.url, self.safe_url, session_id, timeout)

    def __repr__(self) -> str:
        """Show where it is."""
        return f"RemoteLocation({self.safe_url!r})"


type Location = SqliteLocation | RemoteLocation


async def open_store(
    url: str | os.PathLike[str],
    session_id: str,
    *,
    on_lost: Callable[[StoreError], None] = lambda error: None,
    ttl: float = LEASE_TTL,
    wait: float = 0.0,
) -> Journal:
    """Open a session's record, and take the session over from an owner that is gone.

    Args:
        url: of the store; see the module.
        session_id: the session.
        on_lost: called once, on the loop, when another owner has taken the session over: from then on
            every method raises `StoreError`.
        ttl: seconds after which another process may have the session if this one stops without a word. A
            process that is dead on this machine is noticed at once.
        wait: seconds to wait while the session is another owner's.

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
        return await RemoteJournal.open(
            location.connect(session_id), session_id, on_lost=on_lost, ttl=ttl, wait=wait
        )
    connection = await SqliteConnection.open(
        location.path,
        synchronous="FULL" if location.synchronous == "FULL" else "NORMAL",
        group=group,
        busy_timeout=location.busy_timeout,
    )
    return await SqliteJournal.open(connection, session_id, on_lost=on_lost, ttl=ttl, wait=wait)


def parse_location(url: str | os.PathLike[str]) -> Location:
    """Read a store's URL. It opens nothing.

    Raises:
        StoreError: it is none.
    """
    if not isinstance(url, str):
        path = os.fspath(url)
        return SqliteLocation(_as_path(path, path))
    scheme = _SCHEME.match(url)
    if scheme is None:
        return SqliteLocation(_as_path(url, url))
    match scheme[1].lower():
        case "memory":
            if url[scheme.end() :] not in ("", "//", "///"):
                raise StoreError(f"cannot open the store {url!r}: memory: takes no path (write memory:)")
            return SqliteLocation(IN_MEMORY)
        case "sqlite":
            return _sqlite(url)
        case "http" | "https" | "postgresql" | "postgres":
            return _remote(url)
        case other:
            raise StoreError(
                f"there is no store for the scheme {other!r}: a store is {_KNOWN} (a file whose name begins "
                f"like that is written ./{other}:…)"
            )


def _as_path(path: str, url: str) -> str:
    if not path or "\0" in path:
        raise StoreError(f"cannot open the store {url!r}: it names no file (write a path, or memory:)")
    return path


def _sqlite(url: str) -> SqliteLocation:
    parts = _split(url)
    if parts.netloc or parts.fragment:
        raise StoreError(
            f"cannot open the store {url!r}: an SQLite store is sqlite:path, or sqlite:///path from the root"
        )
    location = SqliteLocation(_as_path(unquote(parts.path), url))
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        match name:
            case "synchronous" if value.upper() in ("NORMAL", "FULL"):
                location = msgspec.structs.replace(location, synchronous=value.upper())
            case "synchronous":
                raise StoreError(f"synchronous={value} is no setting of a store: it is NORMAL or FULL")
            case "busy_timeout":
                location = msgspec.structs.replace(location, busy_timeout=_seconds(name, value))
            case _:
                raise StoreError(
                    f"{name!r} is no option of an SQLite store: there are synchronous and busy_timeout"
                )
    return location


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise StoreError(f"{name}={value} is no time for a store to wait: it is seconds, up to a day")
    return seconds


def _remote(url: str) -> RemoteLocation:
    parts = _split(url)
    safe_url = _safe_url(parts)
    if not parts.hostname:
        raise StoreError(f"a store over the network is scheme://host:port/…; {safe_url!r} names no host")
    if not parts.scheme.startswith("http"):
        return RemoteLocation(url, safe_url)
    if parts.query or parts.fragment:
        raise StoreError(
            f"the store at {safe_url} is a Resonate server: its URL has no query and no fragment"
        )
    # `https://token@host`, or with a user before it that says nothing.
    token = parts.username if parts.password is None else parts.password
    return RemoteLocation(safe_url, safe_url, unquote(token) if token else None)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Its text may hold a password, so it is not shown.
        raise StoreError(f"this URL of a store cannot be read; a store is {_KNOWN}") from None
    return parts


def _safe_url(parts: SplitResult) -> str:
    """Return a URL without what may be secret: user, password and query."""
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}"
