"""`LeaseRenewal`: acquires a session's lease, renews it, and reports once when another owner has it."""

import asyncio
from collections.abc import Callable
from typing import Final, Self

from pyrepl3_client.durable.lease.owner import current_owner, is_dead, mark_ended
from pyrepl3_client.durable.sqlite import Lease, SqliteConnection
from pyrepl3_client.errors import LeaseLost, SessionBusy, StoreError, describe_owner

# Seconds between two tries for a lease that another owner has: it may end or release it at any time, and no
# process is notified of what others write to a file.
_RETRY_SECONDS: Final = 0.25
# How often a lease is renewed within its time to live.
_RENEWALS_PER_TTL: Final = 3


class LeaseRenewal:
    """The lease on a session, renewed until it is released or lost.

    Make it with `acquire`. Whatever is written under its `lease` is refused once another owner has come.
    """

    def __init__(
        self,
        connection: SqliteConnection,
        lease: Lease,
        ttl: float,
        on_lost: Callable[[LeaseLost], None],
    ) -> None:
        """Renew `lease` from now on; `acquire` makes one."""
        self.lease: Final = lease
        self._connection: Final = connection
        self._ttl: Final = ttl
        self._on_lost: Final = on_lost
        self._lost = False
        self._renewing: Final = asyncio.get_running_loop().create_task(
            self._renew(), name=f"renew the lease on {lease.session_id}"
        )

    @classmethod
    async def acquire(
        cls,
        connection: SqliteConnection,
        session_id: str,
        *,
        ttl: float,
        wait: float,
        on_lost: Callable[[LeaseLost], None],
    ) -> Self:
        """Become the owner of a session: of a new one, or one whose owner is gone or let its lease lapse.

        Args:
            connection: the store. From now on it carries nothing that this lease does not cover.
            session_id: the session.
            ttl: seconds for which this process keeps the session if it stops.
            wait: seconds to wait while the session has another owner.
            on_lost: called once, when another owner has taken over.

        Raises:
            SessionBusy: the session has another owner.
            StoreError: the store cannot be read or written.
        """
        owner = current_owner()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            try:
                lease = await connection.record(
                    lambda records: records.leases.acquire(session_id, owner, ttl, _is_dead)
                )
                break
            except SessionBusy as error:
                left = deadline - loop.time()
                if left <= 0:
                    raise SessionBusy(
                        session_id, describe_owner(error.owner), error.expires_at, error.remaining
                    ) from None
                await asyncio.sleep(min(left, _RETRY_SECONDS))
            except BaseException:
                mark_ended(owner)  # it may be on record all the same
                raise
        connection.fence(lease)
        return cls(connection, lease, ttl, on_lost)

    def report_lost(self, error: LeaseLost) -> None:
        """Report, once, that the session has another owner. Called for every write that is refused."""
        if not self._lost:
            self._lost = True
            self._on_lost(error)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ttl / _RENEWALS_PER_TTL)
            try:
                await self._connection.record(lambda records: records.leases.renew(self.lease, self._ttl))
            except LeaseLost as error:
                self.report_lost(error)
                return
            except StoreError as error:
                # A full disk or a long lock: should the lease lapse and another owner come, then that
                # owner is right, and the next renewal raises `LeaseLost`.
                self._connection.on_trouble("its lease cannot be renewed", error)

    async def release(self) -> None:
        """Let the next owner have the session at once. Never raises `StoreError`."""
        self._renewing.cancel()
        await asyncio.wait((self._renewing,))
        try:
            await self._connection.record(lambda records: records.leases.release(self.lease))
        except LeaseLost:
            return
        except StoreError as error:
            mark_ended(self.lease.owner)
            what = "other processes find it locked until its lease lapses, or this one ends"
            self._connection.on_trouble(what, error)


def _is_dead(owner: str) -> bool:
    return is_dead(owner, one_machine=True)
