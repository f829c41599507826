"""A durable store in one SQLite file (or in memory): Resonate's promises, and the records of sessions.

journal           a session's record          executions     its executions, and its transactions
lease_renewal     its lease                   blob_transfer  blobs in short transactions
connection        Resonate's network and source over the file
resonate_server/  a Resonate server's state   tables/        the tables
"""

from pyrepl3_client.durable.sqlite.connection import SqliteConnection
from pyrepl3_client.durable.sqlite.tables.calls import CallRow, CallTable
from pyrepl3_client.durable.sqlite.tables.checkpoints import (
    PART_BYTES,
    CheckpointRow,
    CheckpointTable,
    parts_of,
)
from pyrepl3_client.durable.sqlite.tables.database import IN_MEMORY
from pyrepl3_client.durable.sqlite.tables.executions import ExecutionRow, ExecutionTable
from pyrepl3_client.durable.sqlite.tables.leases import Lease, LeaseTable
from pyrepl3_client.durable.sqlite.tables.records import SessionRecords
from pyrepl3_client.durable.sqlite.tables.retention import Pruned
from pyrepl3_client.errors import StoreBusy

__all__ = [
    "IN_MEMORY",
    "PART_BYTES",
    "CallRow",
    "CallTable",
    "CheckpointRow",
    "CheckpointTable",
    "ExecutionRow",
    "ExecutionTable",
    "Lease",
    "LeaseTable",
    "Pruned",
    "SessionRecords",
    "SqliteConnection",
    "StoreBusy",
    "parts_of",
]
