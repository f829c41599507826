"""Where a store is, by its URL. It opens nothing, and imports nothing that takes long.

| URL | store |
|---|---|
| `memory:` | this process's memory |
| `state.db`, `sqlite:state.db`, `sqlite:///var/state.db?synchronous=FULL&busy_timeout=30` | an SQLite file |
| `http://…`, `https://…` | a Resonate server |
| `postgresql://…` | PostgreSQL with resonate-pg's schema |
"""

import os
import re
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from pyrepl3_client.config import is_path_text
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.executor_config import shown

IN_MEMORY: Final = ":memory:"
# One letter is a drive to some people, and no scheme.
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_KNOWN: Final = "a path, sqlite:, memory:, http(s):// or postgresql://"


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

    def __repr__(self) -> str:
        """Show where it is."""
        return f"RemoteLocation({self.safe_url!r})"


type Location = SqliteLocation | RemoteLocation


def parse_location(url: str | os.PathLike[str]) -> Location:
    """Read a store's URL. It opens nothing.

    Raises:
        StoreError: it is none.
        TypeError: it is no text and no path of text.
    """
    text: Any = os.fspath(url) if isinstance(url, os.PathLike) else url
    if not isinstance(text, str):
        raise TypeError(f"store must be {_KNOWN} as text, not {shown(url)}")
    if not isinstance(url, str):
        return SqliteLocation(_as_path(text, text))
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
    if not path or not is_path_text(path):
        raise StoreError(f"cannot open the store {shown(url)}: it names no file (write a path, or memory:)")
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
