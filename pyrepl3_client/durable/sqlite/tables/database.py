"""One SQLite connection, its transactions, and how it is opened. It knows no table."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final, Literal, Self

from pyrepl3_client.durable.sqlite.tables.errors import is_busy, store_error
from pyrepl3_client.durable.sqlite.tables.wal_guard import WalGuard, file_identity
from pyrepl3_client.errors import StoreError

IN_MEMORY: Final = ":memory:"

type Synchronous = Literal["NORMAL", "FULL"]
type SqlValue = str | int | bytes | memoryview | None


class Database:
    """A connection to one store, used by one thread, with at most one transaction open.

    Args:
        path: of the file, or ":memory:".
        synchronous: what a power cut can cost, see `SqliteConnection`. A killed process costs nothing
            under either.
        busy_timeout: seconds that `write()` waits for another process's transaction.

    Raises:
        StoreError: the file cannot be opened as an SQLite database in WAL mode. A `StoreBusy` when it
            is locked just now.
    """

    def __init__(self, path: str, synchronous: Synchronous = "NORMAL", busy_timeout: float = 10.0) -> None:
        """Open the file, creating it where there is none."""
        self.in_memory: Final = path == IN_MEMORY
        self.path: Final = path if self.in_memory else os.path.abspath(path)
        self._synchronous: Final = synchronous
        self._busy_ms: Final = int(busy_timeout * 1000)
        self._in_transaction = False
        self._open = True
        self._guard: WalGuard | None = None
        if not self.in_memory:
            check_place(self.path)
        try:
            # isolation_level None: transactions begin and end where this class does it. timeout 0: a request
            # that finds the file locked gives the event loop back at once instead of sleeping in C.
            self._connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, cached_statements=256
            )
        except sqlite3.Error as error:
            raise store_error(error, self.path, "open") from error
        self.execute: Final = self._connection.execute
        # A row has to fit as well: its other columns are small.
        self.max_value: Final = self._connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - 65536
        try:
            self._configure()
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise store_error(error, self.path, "open") from error
            raise
        self._identity: Final = None if self.in_memory else file_identity(self.path)

    def _configure(self) -> None:
        self.execute("PRAGMA temp_store = MEMORY")
        if self.in_memory:
            self.execute("PRAGMA synchronous = OFF")
            return
        (mode,) = self.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(
                f"cannot open the store at {self.path!r}: its file system allows no write-ahead log "
                f"(journal mode stays {mode!r}); choose a path on a local disk"
            )
        self.execute(f"PRAGMA synchronous = {self._synchronous}")
        # `WalGuard` folds the log.
        self.execute("PRAGMA wal_autocheckpoint = 0")
        # Return the space to the file system after a burst.
        self.execute("PRAGMA journal_size_limit = 67108864")

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """Run the body as one write transaction, beginning now or failing now.

        Raises:
            sqlite3.Error: SQLite's own, so that a caller who can wait sees that the file is locked.
            StoreError: the file is not there any more.
        """
        self._require_file()
        self.execute("BEGIN IMMEDIATE")
        with self._commit_or_roll_back():
            yield

    def require_log(self) -> None:
        """Check that the file, which was just opened, has its write-ahead log if it needs one.

        Raises:
            StoreError: it has lost it. A `StoreBusy` when it is locked just now.
        """
        if not self.in_memory:
            with self._opening():
                WalGuard(self.path, self._connection).require_whole()

    def guard_log(self) -> None:
        """See from now on that the file is never read without its write-ahead log.

        Raises:
            StoreError: it cannot be written. A `StoreBusy` when it is locked just now.
        """
        if not self.in_memory:
            self._guard = WalGuard(self.path, self._connection)
            with self._opening():
                self._guard.start(self._identity)

    @contextlib.contextmanager
    def _opening(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise store_error(error, self.path, "open") from error

    def fold_log(self) -> None:
        """Fold the write-ahead log into the file now."""
        if self._guard is not None:
            self._guard.fold()

    def note_bytes(self, count: int) -> None:
        """Take note of so many bytes that are to be written: the log is to be folded after so many."""
        if self._guard is not None:
            self._guard.note_bytes(count)

    def image(self) -> bytes:
        """Return the whole database as the bytes of a file."""
        return self._connection.serialize()

    def require_files(self) -> None:
        """Check that the file and its log are there under their names.

        Raises:
            StoreError: one is not.
        """
        self._require_file()

    @contextlib.contextmanager
    def _commit_or_roll_back(self) -> Generator[None]:
        self._in_transaction = True
        try:
            yield
            self.execute("COMMIT")
            if self._guard is not None:
                self._guard.committed()
        except BaseException:
            # After some failures (a full disk) SQLite has rolled back by itself.
            if self._open and self._connection.in_transaction:
                self.execute("ROLLBACK")
            raise
        finally:
            self._in_transaction = False

    @contextlib.contextmanager
    def write(self, *, durable: bool = False) -> Generator[Self]:
        """Run the body as one transaction; nested ones join the outermost, which alone commits.

        Waits for up to the busy timeout for other processes' transactions, blocking this thread. The
        body must not await: other requests would come into its transaction.

        Args:
            durable: have this transaction, and all before it, on the disk before returning, also where
                the store is opened with `synchronous="NORMAL"` (costs one sync of the disk).

        Raises:
            StoreBusy: another process held the lock for longer than the busy timeout.
            StoreError: the store cannot be written; nothing of the transaction was.
        """
        if self._in_transaction:
            # No clean-up of its own: whatever goes wrong in here must undo the outermost.
            yield self
            return
        upgrade = durable and not self.in_memory and self._synchronous == "NORMAL"
        try:
            if upgrade:
                self.execute("PRAGMA synchronous = FULL")
            try:
                self._require_file()
                self._begin_waiting()
                with self._commit_or_roll_back():
                    yield self
            finally:
                if upgrade:
                    self.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            raise self.as_store_error(error) from error

    def _require_file(self) -> None:
        """Check that the path still names this file (2 µs): a deleted one lives on in its open handles."""
        if self.in_memory or self._identity == file_identity(self.path):
            if self._guard is not None:
                self._guard.require_log()
                self._guard.fold_if_due()
            return
        raise StoreError(
            f"cannot write to the store at {self.path!r}: the file is gone, or another one is in its place "
            "(put it back, or open the session again to start anew)"
        )

    def _begin_waiting(self) -> None:
        try:
            self.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            # SQLite's own handler waits without the GIL; it is armed only for this one statement.
            self.execute(f"PRAGMA busy_timeout = {self._busy_ms}")
            try:
                self.execute("BEGIN IMMEDIATE")
            finally:
                self.execute("PRAGMA busy_timeout = 0")

    @contextlib.contextmanager
    def read(self) -> Generator[Self]:
        """Run single statements that only read, with their failures as `StoreError`."""
        try:
            yield self
        except sqlite3.Error as error:
            raise self.as_store_error(error, "read") from error

    def as_store_error(self, error: sqlite3.Error, doing: str = "write to") -> StoreError:
        """Explain an error that SQLite raised while `doing` something with this store."""
        if not self._open:
            return StoreError(f"the store at {self.path!r} is closed; open it again")
        return store_error(error, self.path, doing)

    def execute_many(self, sql: str, rows: Iterable[Sequence[SqlValue]]) -> None:
        """Run one statement for each of the rows."""
        self._connection.executemany(sql, rows)

    def trace(self, callback: Callable[[str], None] | None) -> None:
        """Have `callback` called with each statement that is run, its values filled in; None ends it."""
        self._connection.set_trace_callback(callback)

    def data_version(self) -> int:
        """Return a number that changes when another connection commits to this file (a cheap call)."""
        (version,) = self.execute("PRAGMA data_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Close the file; the last one to do so folds the log into it and removes the log."""
        self._open = False
        if self._guard is not None:
            self._guard.before_close()
        self._connection.close()
        if self._guard is not None:
            self._guard.stop()


def check_place(path: str) -> None:
    """Check that a store can be at a path.

    Raises:
        StoreError: there is no directory for it, or it is a directory or an empty file.
    """
    if not os.path.isdir(os.path.dirname(path)):
        raise StoreError(
            f"cannot open the store at {path!r}: there is no directory "
            f"{os.path.dirname(path)!r} (create it, or choose another path)"
        )
    if os.path.isdir(path):
        raise StoreError(f"cannot open the store at {path!r}: it is a directory (name a file in it)")
    try:
        is_empty = os.stat(path).st_size == 0
    except OSError:
        return
    if is_empty:
        raise StoreError(
            f"cannot open the store at {path!r}: it is an empty file, which no store ever is: what was in it "
            "is lost (restore a backup; or remove it, and a new store is made in its place)"
        )
