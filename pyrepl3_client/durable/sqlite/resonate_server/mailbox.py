"""Addresses, and the messages that one process leaves for another one on the same file."""

from collections.abc import Iterable, Sequence
from typing import Final

from pyrepl3_client.durable.sqlite.resonate_server.wire import OutgoingMessage
from pyrepl3_client.durable.sqlite.tables.database import Database

SCHEME: Final = "sqlite://"
# Milliseconds after which a message is not fetched any more: by then Resonate has registered its listeners
# anew (every 60 s) and the store has offered the task again (every 30 s).
MAIL_TTL: Final = 60_000


def unicast(group: str, pid: str) -> str:
    """Return the address of one connection."""
    return f"{SCHEME}uni@{group}/{pid}"


def anycast(group: str) -> str:
    """Return the address of a group, of which the first member to fetch gets a message."""
    return f"{SCHEME}any@{group}"


class Mailbox:
    """Sorts messages: those for this connection are delivered by it, the others wait in the file.

    Args:
        database: the store; one in memory has no other process, so every message is this connection's.
        addresses: of this connection.
    """

    def __init__(self, database: Database, addresses: Iterable[str]) -> None:
        """Sort for the connection at `addresses`."""
        self._database: Final = database
        self._addresses: Final = tuple(addresses)

    def route(self, messages: Sequence[OutgoingMessage], now: int, *, receiving: bool) -> list[str]:
        """Write the other connections' messages to the file, within the current transaction.

        Args:
            messages: in the order in which they were sent.
            now: milliseconds since the epoch.
            receiving: whether this connection takes messages at all.

        Returns:
            The bodies of the messages for this connection. An address of another scheme is one that
            no process can fetch here, so it counts as this connection's too.
        """
        ours: list[str] = []
        for message in messages:
            foreign = not message.address.startswith(SCHEME)
            if self._database.in_memory or foreign or (receiving and message.address in self._addresses):
                ours.append(message.body)
            else:
                self._database.execute(
                    "INSERT INTO mail (address, body, expires_at) VALUES (?, ?, ?)",
                    (message.address, message.body, now + MAIL_TTL),
                )
        return ours

    def has_messages(self) -> bool:
        """Return whether the file holds a message for this connection."""
        marks = ", ".join("?" * len(self._addresses))
        sql = f"SELECT 1 FROM mail WHERE address IN ({marks}) LIMIT 1"  # noqa: S608 - only question marks
        return self._database.execute(sql, self._addresses).fetchone() is not None

    def take_messages(self) -> list[str]:
        """Take this connection's messages out of the file, within the current transaction, in order."""
        marks = ", ".join("?" * len(self._addresses))
        sql = f"DELETE FROM mail WHERE address IN ({marks}) RETURNING n, body"  # noqa: S608
        rows: list[tuple[int, str]] = self._database.execute(sql, self._addresses).fetchall()
        return [body for _n, body in sorted(rows)]

    def delete_expired(self, now: int) -> None:
        """Delete, within the current transaction, the messages that were not fetched in time."""
        self._database.execute("DELETE FROM mail WHERE expires_at <= ?", (now,))
