"""SQLite's error codes as errors whose text names what was wrong, where, and what to do."""

import sqlite3
from typing import Final

from pyrepl3_client._journal.protocol import OnTrouble
from pyrepl3_client.errors import StoreBusy, StoreError

# Primary codes (https://www.sqlite.org/rescode.html); the extended ones carry more in the high bytes.
_REMEDIES: Final = {
    sqlite3.SQLITE_BUSY: "another process holds its lock; let that process end, or wait for longer",
    sqlite3.SQLITE_LOCKED: "another process holds its lock; let that process end, or wait for longer",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check that its directory exists and may be written",
    sqlite3.SQLITE_PERM: "this user may not use the file; change its owner or mode, or choose another path",
    sqlite3.SQLITE_READONLY: "it cannot be written; change the mode of the file and of its directory, or"
    " choose another path",
    sqlite3.SQLITE_FULL: "the disk is full; free space there and try again, nothing was half written",
    sqlite3.SQLITE_CORRUPT: "the file is corrupt; restore a backup, or move it away (with its -wal file) to"
    " start anew",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database; choose another path, or move it away",
    sqlite3.SQLITE_IOERR: "the disk reported an error; check it (and its free space) and try again",
    sqlite3.SQLITE_TOOBIG: "a value is over SQLite's limit of a billion bytes; store it in parts",
    sqlite3.SQLITE_NOMEM: "there was not enough memory for it; free some and try again",
}
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, or `SQLITE_ERROR` when Python itself raised the error."""
    try:
        return error.sqlite_errorcode & 0xFF
    except AttributeError:
        # The attribute is only there on errors that came from SQLite's library.
        return sqlite3.SQLITE_ERROR


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether the error means that another connection holds a lock."""
    return primary_code(error) in _BUSY


def store_error(error: sqlite3.Error, path: str, doing: str) -> StoreError:
    """Explain `error`, met while `doing` something ("open", "write to") with the store at `path`.

    Returns:
        A `StoreBusy` for a held lock, else a `StoreError`; raise it `from` the error.
    """
    code = primary_code(error)
    remedy = _REMEDIES.get(code, "this is unexpected; please report it with this text")
    kind = StoreBusy if code in _BUSY else StoreError
    return kind(f"cannot {doing} the store at {path!r}: {error} ({remedy})")


class TellOnce:
    """Tells of the errors of background work, which no caller gets: each once, for as long as it lasts."""

    def __init__(self, on_trouble: OnTrouble) -> None:
        """Start without an error; tell `on_trouble`."""
        self._on_trouble = on_trouble
        self._last = ""

    def tell(self, error: sqlite3.Error | StoreError, path: str) -> None:
        """Tell of an error met with the store at `path`; a lock that another process holds is none."""
        if isinstance(error, StoreBusy) or (isinstance(error, sqlite3.Error) and is_busy(error)):
            return
        told = error if isinstance(error, StoreError) else store_error(error, path, "write to")
        if str(told) != self._last:
            self._last = str(told)
            self._on_trouble("what is due has to wait", told)

    def reset(self) -> None:
        """Tell of the next error whatever it is: the last one is over."""
        self._last = ""
