"""The tables, their version, and the way from one version to the next.

`promises` and `tasks` are Resonate's; `callbacks` says which task awaits which promise, `listeners` who
is told when a promise settles, `mail` holds messages for other processes on this file until they come
for them. The rest are the session layer's records.

`due_at` (milliseconds since the epoch) is set on what a timer has to look at and NULL on the rest, so
the partial indexes on it hold what is alive and not the history.
"""

import sqlite3
from typing import Final

from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.errors import store_error
from pyrepl3_client.errors import StoreError

# "pr3s" in ASCII: tells our files from other programs' databases.
APPLICATION_ID: Final = 0x70723373

type Migration = tuple[str, ...]

_FIRST: Final[Migration] = (
    # The rowid keeps the order of creation, in which preloads are answered. Values stay out of a
    # clustered key since they can be large.
    """CREATE TABLE promises (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
        param BLOB, value BLOB, tags BLOB NOT NULL,
        timeout_at INTEGER NOT NULL, created_at INTEGER NOT NULL, settled_at INTEGER,
        target TEXT, branch TEXT, timer INTEGER NOT NULL, due_at INTEGER)""",
    "CREATE INDEX promises_branch ON promises (branch) WHERE branch IS NOT NULL",
    "CREATE INDEX promises_due ON promises (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX promises_settled ON promises (settled_at) WHERE settled_at IS NOT NULL",
    """CREATE TABLE tasks (
        id TEXT PRIMARY KEY, state TEXT NOT NULL, version INTEGER NOT NULL, pid TEXT, ttl INTEGER,
        resumed INTEGER NOT NULL, target TEXT, due_at INTEGER) WITHOUT ROWID""",
    "CREATE INDEX tasks_due ON tasks (due_at) WHERE due_at IS NOT NULL",
    """CREATE TABLE callbacks (
        promise TEXT NOT NULL, task TEXT NOT NULL, PRIMARY KEY (promise, task)) WITHOUT ROWID""",
    "CREATE INDEX callbacks_task ON callbacks (task)",
    """CREATE TABLE listeners (
        promise TEXT NOT NULL, address TEXT NOT NULL, PRIMARY KEY (promise, address)) WITHOUT ROWID""",
    """CREATE TABLE schedules (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, cron TEXT NOT NULL, promise_id TEXT NOT NULL,
        promise_timeout INTEGER NOT NULL, promise_param BLOB, promise_tags BLOB NOT NULL,
        created_at INTEGER NOT NULL)""",
    """CREATE TABLE mail (
        n INTEGER PRIMARY KEY, address TEXT NOT NULL, body TEXT NOT NULL, expires_at INTEGER NOT NULL)""",
    "CREATE INDEX mail_address ON mail (address)",
    "CREATE INDEX mail_expiry ON mail (expires_at)",
    """CREATE TABLE sessions (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, token INTEGER NOT NULL, acquired_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE executions (
        session TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, code_digest TEXT NOT NULL,
        code TEXT NOT NULL, options BLOB NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL,
        started_at INTEGER NOT NULL, finished_at INTEGER, outcome BLOB, PRIMARY KEY (session, seq),
        UNIQUE (session, id))""",
    "CREATE INDEX executions_open ON executions (session, seq) WHERE status = 'started'",
    """CREATE TABLE calls (
        session TEXT NOT NULL, execution TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
        args_digest TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL, outcome BLOB,
        PRIMARY KEY (session, execution, id))""",
    # `data` is a blob's beginning; what is over one part's size follows in `blob_parts`, so that a large
    # blob is written in many short transactions. It counts once it is complete.
    """CREATE TABLE blobs (
        digest TEXT PRIMARY KEY, touched_at INTEGER NOT NULL, size INTEGER NOT NULL,
        complete INTEGER NOT NULL, data BLOB NOT NULL)""",
    "CREATE INDEX blobs_touched ON blobs (touched_at)",
    """CREATE TABLE blob_parts (
        digest TEXT NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (digest, n))""",
    """CREATE TRIGGER blobs_deleted AFTER DELETE ON blobs WHEN OLD.size > length(OLD.data)
        BEGIN DELETE FROM blob_parts WHERE digest = OLD.digest; END""",
    """CREATE TABLE checkpoints (
        n INTEGER PRIMARY KEY, session TEXT NOT NULL, id TEXT NOT NULL, after_seq INTEGER NOT NULL,
        created_at INTEGER NOT NULL, manifest BLOB NOT NULL, unsaved BLOB NOT NULL, UNIQUE (session, id))""",
    "CREATE INDEX checkpoints_seq ON checkpoints (session, after_seq)",
    """CREATE TABLE checkpoint_blobs (
        checkpoint INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (checkpoint, digest)) WITHOUT ROWID""",
    "CREATE INDEX checkpoint_blobs_digest ON checkpoint_blobs (digest)",
)
_TEXTS: Final[Migration] = (
    # The data comes last, so that a look at the others does not read it.
    """CREATE TABLE texts (
        session TEXT NOT NULL, execution TEXT NOT NULL, stream TEXT NOT NULL, n INTEGER NOT NULL,
        size INTEGER NOT NULL, ending TEXT, data BLOB NOT NULL,
        PRIMARY KEY (session, execution, stream, n))""",
)
_LEVEL: Final[Migration] = (
    # The confinement level at which the session's code ran last.
    "ALTER TABLE sessions ADD COLUMN confinement TEXT",
)
_WHOLE: Final[Migration] = (
    # Whether the file needs its log: see `wal_guard`. One row.
    "CREATE TABLE log_state (n INTEGER PRIMARY KEY, state TEXT NOT NULL)",
    "INSERT INTO log_state (n, state) VALUES (1, 'whole')",
    # CRC-32 of what no digest covers; NULL in rows of earlier versions.
    "ALTER TABLE executions ADD COLUMN outcome_crc INTEGER",
    "ALTER TABLE calls ADD COLUMN outcome_crc INTEGER",
    "ALTER TABLE checkpoints ADD COLUMN crc INTEGER",
    "ALTER TABLE texts ADD COLUMN crc INTEGER",
)
MIGRATIONS: Final[tuple[Migration, ...]] = (_FIRST, _TEXTS, _LEVEL, _WHOLE)

# Each key has an index of its own, so both of its ends are one descent away.
_PROBES: Final = (
    ("promises", "n"),
    ("promises", "id"),
    ("tasks", "id"),
    ("callbacks", "promise"),
    ("listeners", "promise"),
    ("schedules", "n"),
    ("mail", "n"),
    ("sessions", "id"),
    ("executions", "session"),
    ("calls", "session"),
    ("blobs", "digest"),
    ("blob_parts", "digest"),
    ("checkpoints", "n"),
    ("checkpoint_blobs", "checkpoint"),
    ("texts", "session"),
)


def prepare(database: Database, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the store to the newest version, in one transaction, and check that it can be read and written.

    Processes that start at the same time take turns: the first one migrates, the others find it done.

    Raises:
        StoreError: the file belongs to another program, is of a newer version, cannot be written, or is
            corrupt. A `StoreBusy` when another process is at it just now.
    """
    try:
        with database.transaction():
            _migrate(database, migrations)
            _probe(database)
    except sqlite3.Error as error:
        raise store_error(error, database.path, "open") from error


def _migrate(database: Database, migrations: tuple[Migration, ...]) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (tables or application):
        raise StoreError(
            f"cannot open the store at {database.path!r}: it is another program's database "
            "(choose another path)"
        )
    if version > len(migrations):
        raise StoreError(
            f"cannot open the store at {database.path!r}: it is of version {version}, written by a newer "
            f"pyrepl3; this one knows up to {len(migrations)} (install the newer one, or choose another path)"
        )
    if version == len(migrations):
        return
    for migration in migrations[version:]:
        for statement in migration:
            database.execute(statement)
    # Pragmas take no parameters. Both are part of the transaction: they live in the file's first page.
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {len(migrations)}")


def _probe(database: Database) -> None:
    """Touch both ends of every tree: a torn or overwritten file shows itself now, not in mid-session.

    A full check reads every page, which a store of some gigabytes cannot afford at each start.
    """
    for table, key in _PROBES:
        for order in ("ASC", "DESC"):
            database.execute(f"SELECT {key} FROM {table} ORDER BY {key} {order} LIMIT 1").fetchone()  # noqa: S608
