"""A durable store in one SQLite file (or in memory): Resonate's promises, and the records of sessions."""

from pyrepl3_client.durable.sqlite.calls import Call, Calls
from pyrepl3_client.durable.sqlite.checkpoints import (
    PART_BYTES,
    Checkpoint,
    Checkpoints,
    blob_digest,
    parts_of,
)
from pyrepl3_client.durable.sqlite.connection import SqliteConnection
from pyrepl3_client.durable.sqlite.database import IN_MEMORY
from pyrepl3_client.durable.sqlite.executions import Execution, Executions
from pyrepl3_client.durable.sqlite.failures import StoreBusy
from pyrepl3_client.durable.sqlite.leases import Lease, LeaseLost, Leases, SessionBusy
from pyrepl3_client.durable.sqlite.records import SessionRecords
from pyrepl3_client.durable.sqlite.retention import Pruned

__all__ = [
    "IN_MEMORY",
    "PART_BYTES",
    "Call",
    "Calls",
    "Checkpoint",
    "Checkpoints",
    "Execution",
    "Executions",
    "Lease",
    "LeaseLost",
    "Leases",
    "Pruned",
    "SessionBusy",
    "SessionRecords",
    "SqliteConnection",
    "StoreBusy",
    "blob_digest",
    "parts_of",
]
