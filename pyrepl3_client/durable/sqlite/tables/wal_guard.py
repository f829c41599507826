"""Keeps a store from being read without its write-ahead log, which would be an older store.

What is committed stands in the log ("-wal") until a checkpoint folds it into the file. A file that is copied
or moved without its log is a valid database: the one of the last checkpoint. So the file says in a row of its
own that a log belongs to it (`OPEN`), and the log says that both together are whole (`WHOLE`), as the last
thing before it holds anything else. Read with its log, by whatever program, a store is whole, and a program
that folds the log away leaves a file that says so. Read without it, the file says that it is open.

`fold` keeps that true at each checkpoint: `OPEN` is committed, the log is folded, and `WHOLE` is committed.
SQLite's own checkpoints are off, but for that of the last connection that is closed, whose log ends with
`WHOLE`.
"""

import os
import sqlite3
from typing import Final

from pyrepl3_client.durable.sqlite.tables.errors import is_busy
from pyrepl3_client.errors import StoreError

OPEN: Final = "open"
WHOLE: Final = "whole"

_COMMITS: Final = 400
"""Of one connection, between two folds: a log of some 16 MB."""
_BYTES_PER_COMMIT: Final = 40 * 1024
"""Bytes that count as one commit more."""
_FOLD_TRIES: Final = 3
_COMMITS_UNTIL_NEXT_TRY: Final = 20
_BUSY_MS: Final = 500
"""Milliseconds for which a fold waits for another process's transaction."""

_guarded: dict[tuple[int, int] | None, int] = {}
"""How many guarded connections this process has to each file. Another thread's work on it may at worst have a
file folded twice."""
os.register_at_fork(after_in_child=_guarded.clear)


class WalGuard:
    """Guards the log of one connection's file.

    Args:
        path: of the file.
        connection: the connection, which is in no transaction when this is called.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        """Guard nothing yet: see `start`."""
        self._path: Final = path
        self._wal: Final = f"{path}-wal"
        self._connection: Final = connection
        self._execute: Final = connection.execute
        self._identity: tuple[int, int] | None = None
        self._file: tuple[int, int] | None = None
        self._commits = 0
        self._bytes = 0
        self._says_open = False
        """Whether the newest state may be `OPEN`: a fold was not ended."""

    # --- at the opening ------------------------------------------------------------------------------

    def require_whole(self) -> None:
        """Check that the file has its log, if it needs one. To be called in no transaction.

        Raises:
            StoreError: it has not.
        """
        if not self._execute("SELECT 1 FROM sqlite_master WHERE name = 'log_state'").fetchone():
            return  # of an earlier version, or no store
        if self._state() == WHOLE:
            return
        # The file says that it is open only after the log has got its first frames. A process that was killed
        # while it folded has left a log that may hold nothing, and is there.
        if _size_of(self._wal) == 0:
            raise StoreError(
                f"cannot open the store at {self._path!r}: it has lost its write-ahead log {self._wal!r}, "
                "and with it what was recorded last (put the log back beside it, from where the file was "
                "copied or moved; or restore a backup of both, or one that was made through SQLite)"
            )

    def start(self, file: tuple[int, int] | None) -> None:
        """Have the file say that a log belongs to it, before anything of this connection is in that log.

        Args:
            file: what tells the file from others: where it is open here already, it says so.

        Raises:
            sqlite3.Error: the file is locked, or cannot be written.
        """
        if _guarded.get(file, 0) == 0:
            self.fold()
        self._file = file
        _guarded[file] = _guarded.get(file, 0) + 1
        self._identity = file_identity(self._wal)

    def before_close(self) -> None:
        """See that the log ends with `WHOLE`, or stays: the last connection that is closed folds it away."""
        if self._says_open:
            try:
                self._commit_state(WHOLE)
            except sqlite3.Error:
                self._connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)

    def stop(self) -> None:
        """The connection is closed. Idempotent."""
        if self._identity is not None:
            self._identity = None
            _guarded[self._file] -= 1
            if not _guarded[self._file]:
                del _guarded[self._file]

    # --- while it is in use --------------------------------------------------------------------------

    def committed(self) -> None:
        """Count a commit."""
        self._commits += 1

    def note_bytes(self, count: int) -> None:
        """Count bytes that are to be committed."""
        self._bytes += count

    @property
    def is_due(self) -> bool:
        """Whether the log should be folded."""
        return self._commits + self._bytes // _BYTES_PER_COMMIT >= _COMMITS

    def fold_if_due(self) -> None:
        """Fold the log if it has grown; another process that is at work now makes it wait for later."""
        if not self.is_due:
            return
        try:
            self.fold()
        except sqlite3.Error as error:
            self._try_again()
            if not is_busy(error):
                raise

    def fold(self) -> None:
        """Fold the log into the file, which says that a log belongs to it before and after that.

        Raises:
            sqlite3.Error: the file is locked, or cannot be written.
        """
        for _ in range(_FOLD_TRIES):
            self._says_open = True
            self._commit_state(OPEN)
            # No other process commits during this one, and the next commit begins the log anew.
            _busy, frames, folded = self._execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            before = self._commit_state(WHOLE)
            self._says_open = False
            # Another process may have made it whole in between, and that may be in the file now.
            if before == OPEN and frames == folded != -1:
                self._commits = self._bytes = 0
                return
        self._try_again()

    def _try_again(self) -> None:
        self._commits, self._bytes = _COMMITS - _COMMITS_UNTIL_NEXT_TRY, 0

    def _commit_state(self, state: str) -> str | None:
        """Commit a state, and return the one before it."""
        self._execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        try:
            self._execute("BEGIN IMMEDIATE")
        finally:
            self._execute("PRAGMA busy_timeout = 0")
        try:
            before = self._state()
            self._execute("INSERT OR REPLACE INTO log_state (n, state) VALUES (1, ?)", (state,))
            self._execute("COMMIT")
        except BaseException:
            # After some failures (a full disk) SQLite has rolled back by itself.
            if self._connection.in_transaction:
                self._execute("ROLLBACK")
            raise
        return before

    def _state(self) -> str | None:
        row = self._execute("SELECT state FROM log_state").fetchone()
        return None if row is None else row[0]

    def require_log(self) -> None:
        """Check (2 µs) that the log is still there under its name.

        What was committed to one that was deleted ends with this process: it is folded at once.

        Raises:
            StoreError: it is not there.
        """
        if self._identity is None or file_identity(self._wal) == self._identity:
            return
        # This connection still has it.
        _busy, frames, folded = self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        saved = "all that was recorded is in the file now"
        if frames != folded:
            saved = "others read it now, so what came last is lost unless the sessions in it are closed"
        raise StoreError(
            f"cannot write to the store at {self._path!r}: its write-ahead log {self._wal!r} was removed "
            f"while it was in use; {saved} (close the sessions in it, and open them again)"
        )


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def file_identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from all others there are; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
