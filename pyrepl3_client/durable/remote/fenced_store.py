"""Promises under a lease: the task of a session's root promise, which one owner holds at a time."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from resonate.error import ServerError
from resonate.send import Sender, TaskFenceResult, TaskRef
from resonate.timing import Clock, now_ms
from resonate.transport import Transport
from resonate.types import PromiseCreateReq, PromiseRecord, PromiseSettleReq, Value
from resonate_base import Network, ResonateError

from pyrepl3_client._journal.protocol import OnTrouble, log_trouble
from pyrepl3_client.durable.lease.owner import current_owner, is_dead
from pyrepl3_client.durable.resonate.engine import is_not_found, translate_error
from pyrepl3_client.durable.resonate.function import FOREVER
from pyrepl3_client.durable.resonate.ids import key_tags, session_group, session_root
from pyrepl3_client.errors import LeaseLost, SessionBusy, StoreError, describe_owner

# Seconds between two tries for a lease that another owner has: no store notifies of a release.
_RETRY_SECONDS: Final = 0.25
_RENEWALS_PER_TTL: Final = 3
_FENCED: Final = (404, 409)


class StoredPromise(msgspec.Struct, frozen=True):
    """A promise: what it was created with, and what it was settled with, if it was."""

    param: bytes
    value: bytes | None


class LeaseEntry(msgspec.Struct, frozen=True):
    """The parameter of `owner.{k}`: who acquired the lease, at which version of the task."""

    name: str
    version: int
    since: int | None = None
    """When that was, in milliseconds since the epoch."""


class FencedStore:
    """Reads promises, and writes them for as long as this process holds the session's lease.

    Args:
        network: carries the requests; it is not closed here.
        session_id: whose promises.
        target: returns the address of a group.
        pid: under which the lease is held.
        ttl: seconds for which the lease is held unless renewed.
        on_lost: called once, when another owner has it.
        clock: returns milliseconds since the epoch.
    """

    def __init__(
        self,
        network: Network,
        session_id: str,
        *,
        target: Callable[[str], str],
        pid: str,
        ttl: float,
        on_lost: Callable[[LeaseLost], None],
        on_trouble: OnTrouble = log_trouble,
        clock: Clock = now_ms,
    ) -> None:
        """Hold no lease yet: see `acquire`."""
        self.session_id: Final = session_id
        self.root: Final = session_root(session_id)
        self._sender: Final = Sender(Transport(network), None)
        # A group of its own, without a listener: this task runs no function.
        self._target: Final = target(session_group(session_id) + "-owner")
        self._pid: Final = pid
        self._ttl: Final = ttl
        self._on_lost: Final = on_lost
        self.on_trouble: Final = on_trouble
        self._clock: Final = clock
        self._owner_name: Final = current_owner()
        self._version = -1
        self._entry = b""
        self._owner_count = 0
        """How many owners there have been, this one included."""
        self._level_count = 0
        self._lost: LeaseLost | None = None
        self._closed = False
        self._reacquiring: Final = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    # --- the lease -----------------------------------------------------------------------------------

    async def acquire(self, wait: float) -> None:
        """Become the session's owner, and renew the lease until `release`.

        An owner whose process is dead on this machine is not waited for.

        Args:
            wait: seconds to wait while the session has another owner.

        Raises:
            SessionBusy: the session has another owner.
            StoreError: the store failed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while (version := await self._acquire_task()) is None:
            owner = await self._read_owner()
            if owner is not None and is_dead(owner.name, one_machine=False):
                await self._release_task(owner.version)
                if (version := await self._acquire_task()) is not None:
                    break
            left = deadline - loop.time()
            if left <= 0:
                name = "another process" if owner is None else describe_owner(owner.name)
                expires_at = self._clock() + int(self._ttl * 1000)
                raise SessionBusy(self.session_id, name, expires_at, self._ttl)
            await asyncio.sleep(min(left, _RETRY_SECONDS))
        self._version = version
        try:
            self._owner_count = await find_newest(self._has_owner)
            await self._record_owner()
        except BaseException:
            await self.release()
            raise
        self._renewing = loop.create_task(self._renew(), name=f"renew the lease on {self.session_id}")

    async def _acquire_task(self) -> int | None:
        """Acquire the root's task and return its version; None if it has a holder."""
        try:
            taken = await self._sender.task_create_or_conflict(
                self._pid, int(self._ttl * 1000), self._request(self.root, b"", {})
            )
        except ResonateError as error:
            raise translate_error(error) from error
        if taken == "conflict":
            return None
        if taken.task.state != "acquired":
            raise StoreError(
                f"session {self.session_id!r} has ended: its promise {self.root!r} was settled from outside; "
                "use another session id"
            )
        return taken.task.version

    async def _record_owner(self) -> None:
        """Record the lease's version and owner, for the next owner to read."""
        self._owner_count += 1
        self._entry = msgspec.msgpack.encode(LeaseEntry(self._owner_name, self._version, self._clock()))
        owner_id = self._owner_id(self._owner_count)
        request = self._request(owner_id, self._entry, self._tags(owner_id))
        try:
            await self._sender.task_fence_create(self.root, self._version, request)
        except ResonateError as error:
            raise translate_error(error) from error

    def _owner_id(self, n: int) -> str:
        return f"{self.root}:owner.{n}"

    async def _has_owner(self, n: int) -> bool:
        return await self.get(self._owner_id(n)) is not None

    async def _read_owner(self) -> LeaseEntry | None:
        found = await self.get(self._owner_id(await find_newest(self._has_owner)))
        return None if found is None else msgspec.msgpack.decode(found.param, type=LeaseEntry)

    async def _release_task(self, version: int) -> None:
        try:
            await self._sender.task_release(self.root, version)
        except ServerError as error:
            if error.code not in _FENCED:
                raise translate_error(error) from error
        except ResonateError as error:
            raise translate_error(error) from error

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ttl / _RENEWALS_PER_TTL)
            try:
                try:
                    await self._sender.task_heartbeat(
                        self._pid, [TaskRef(id=self.root, version=self._version)]
                    )
                except ResonateError as error:
                    raise translate_error(error) from error
                # A heartbeat is answered in the same way whether it renewed anything or not.
                await self.create(self._owner_id(self._owner_count), self._entry)
            except LeaseLost:
                return
            except StoreError as error:
                self.on_trouble("its lease cannot be renewed", error)

    async def level(self) -> str | None:
        """Return the newest confinement level on record; None if there is none."""
        self._level_count = await find_newest(self._has_level)
        found = await self.get(self._level_id(self._level_count)) if self._level_count else None
        return None if found is None else found.param.decode(errors="replace")

    async def record_level(self, level: str) -> None:
        """Record a confinement level, after those that `level` has found."""
        self._level_count += 1
        await self.create(self._level_id(self._level_count), level.encode())

    def _level_id(self, n: int) -> str:
        return f"{self.root}:confinement.{n}"

    async def _has_level(self, n: int) -> bool:
        return await self.get(self._level_id(n)) is not None

    @property
    def owner_count(self) -> int:
        """How many owners the session has had, this one included."""
        return self._owner_count

    async def release(self) -> None:
        """Release the lease: the next owner may have the session at once. Never raises `StoreError`."""
        self._closed = True
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
        if self._lost is None and self._version >= 0:
            try:
                await self._release_task(self._version)
            except StoreError as error:
                self.on_trouble("it stays locked until its lease lapses", error)

    # --- promises ------------------------------------------------------------------------------------

    async def get(self, promise_id: str) -> StoredPromise | None:
        """Read a promise.

        Raises:
            StoreError: the store failed.
        """
        try:
            return _stored_promise(await self._sender.promise_get(promise_id))
        except ResonateError as error:
            if is_not_found(error):
                return None
            raise translate_error(error) from error

    async def create(
        self, promise_id: str, param: bytes, key: str = "", tags: dict[str, str] | None = None
    ) -> StoredPromise:
        """Create a promise, or return the one of that id.

        Args:
            promise_id: below the root, unless `tags` are those of another place.
            param: what it holds.
            key: its correlation key, if it has one.
            tags: instead of those of a promise below the root.

        Raises:
            LeaseLost: the session has another owner.
            StoreError: the store failed.
        """
        tags = self._tags(promise_id) if tags is None else tags
        request = self._request(promise_id, param, {**tags, **key_tags(key)} if key else tags)
        done = await self._fenced(lambda version: self._sender.task_fence_create(self.root, version, request))
        return _stored_promise(done.promise)

    async def resolve(self, promise_id: str, value: bytes) -> StoredPromise:
        """Resolve a promise that exists, and return it with its first value.

        Raises:
            LeaseLost: the session has another owner.
            StoreError: the store failed.
        """
        request = PromiseSettleReq(id=promise_id, state="resolved", value=_value(value))
        return _stored_promise(await self.settle(request))

    async def settle(self, request: PromiseSettleReq) -> PromiseRecord:
        """Settle a promise that exists, as Resonate puts it."""
        done = await self._fenced(lambda version: self._sender.task_fence_settle(self.root, version, request))
        return done.promise

    async def _fenced(self, write: Callable[[int], Awaitable[TaskFenceResult]]) -> TaskFenceResult:
        while True:
            if self._lost is not None:
                raise LeaseLost(*self._lost.args)
            if self._closed:
                raise StoreError(f"the record of session {self.session_id!r} is closed; open it again")
            version = self._version
            try:
                return await write(version)
            except ServerError as error:
                if error.code not in _FENCED:
                    raise translate_error(error) from error
            except ResonateError as error:
                raise translate_error(error) from error
            await self._reacquire(version)

    async def _reacquire(self, version: int) -> None:
        """Acquire a lapsed lease again, unless the session has had another owner meanwhile."""
        async with self._reacquiring:
            if self._version != version or self._lost is not None or self._closed:
                return
            taken = await self._acquire_task()
            if taken is None or await self._has_owner(self._owner_count + 1):
                if taken is not None:
                    await self._release_task(taken)
                owner = await self._read_owner()
                who = (None, None) if owner is None else (describe_owner(owner.name), owner.since)
                self._lost = LeaseLost(self.session_id, *who)
                self._on_lost(self._lost)
                return
            self._version = taken
            await self._record_owner()

    def _tags(self, promise_id: str) -> dict[str, str]:
        # A branch of its own: Resonate sends whole branches along with a task.
        return {
            "resonate:scope": "global",
            "resonate:branch": promise_id,
            "resonate:parent": self.root,
            "resonate:origin": self.root,
        }

    def _request(self, promise_id: str, param: bytes, tags: dict[str, str]) -> PromiseCreateReq:
        if promise_id == self.root:
            tags = {**self._tags(self.root), "resonate:target": self._target}
        timeout_at = self._clock() + int(FOREVER.total_seconds() * 1000)
        return PromiseCreateReq(id=promise_id, timeout_at=timeout_at, param=_value(param), tags=tags)


def _value(data: bytes) -> Value:
    """Put bytes where Resonate has JSON in base64: they pass through none of its codecs."""
    return Value(data=base64.b64encode(data).decode())


def _stored_promise(record: PromiseRecord) -> StoredPromise:
    value = None if record.state == "pending" else _data(record.id, record.value)
    return StoredPromise(_data(record.id, record.param), value)


def _data(promise_id: str, value: Value) -> bytes:
    if value.data is None:
        return b""
    try:
        return base64.b64decode(value.data, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise StoreError(f"promise {promise_id!r} holds what was not written by pyrepl3: {error}") from error


async def find_newest(exists: Callable[[int], Awaitable[bool]]) -> int:
    """Return the largest number from 1 on that exists, 0 when there is none.

    Asks some `2 * log2(n)` times: by doubling steps, then by halving the gap.

    Args:
        exists: returns whether a number exists; if it does, so do all before it.
    """
    low, high = 0, 1
    while await exists(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if await exists(middle):
            low = middle
        else:
            high = middle
    return low


def decode_record[T](data: bytes, type_: type[T], what: str = "record") -> T:
    """Return what a promise's parameter or value holds, as MessagePack of a type.

    Raises:
        StoreError: the bytes are of no such type; the text calls them `what`.
    """
    try:
        return msgspec.msgpack.decode(data, type=type_)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the store holds a damaged {what}: {error}; restore a backup") from error
