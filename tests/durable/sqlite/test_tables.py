"""The records of sessions, against a model, and the promises they make one by one."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyrepl3_client._journal.protocol import blob_digest
from pyrepl3_client.durable.sqlite import Lease, SessionRecords, StoreBusy
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.schema import prepare
from pyrepl3_client.errors import LeaseLost, SessionBusy, StoreError
from tests.helpers.sqlite_store import START, Clock

SESSIONS = ("s", "t")
OWNERS = ("me", "you")
NAMES = ("one", "two", "three")

sessions = st.sampled_from(SESSIONS)
names = st.sampled_from(NAMES)
blobs = st.sampled_from((b"", b"x", b"y" * 5_000))


def opened(path: str, clock: Clock) -> tuple[Database, SessionRecords]:
    database = Database(path, busy_timeout=0.001)
    prepare(database)
    return database, SessionRecords(database, clock)


def holder(database: Database, session_id: str) -> Lease | None:
    """Return the lease on a session, lapsed or not."""
    row = database.execute(
        "SELECT id, owner, token, acquired_at, expires_at FROM sessions WHERE id = ? AND owner <> ''",
        (session_id,),
    ).fetchone()
    return None if row is None else Lease(*row)


class Records(RuleBasedStateMachine):
    """Keeps what should be recorded in plain dictionaries, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.database, self.records = opened(":memory:", self.clock)
        self.leases: list[Lease] = []
        self.holder: dict[str, Lease] = {}
        self.log: dict[str, dict[str, list[Any]]] = {session: {} for session in SESSIONS}
        self.calls: dict[tuple[str, str, str], list[Any]] = {}
        self.stored: dict[str, bytes] = {}
        self.checkpoints: dict[str, dict[str, tuple[int, bytes, set[str]]]] = {s: {} for s in SESSIONS}
        self.saved: dict[str, list[tuple[int, str]]] = {session: [] for session in SESSIONS}

    def teardown(self) -> None:
        self.database.close()

    def lease(self, data: st.DataObject) -> Lease | None:
        """Draw any lease that was ever given; None, after a check, where the store refuses it."""
        if not self.leases:
            return None
        lease = data.draw(st.sampled_from(self.leases))
        current = self.holder.get(lease.session_id)
        if current is None or current.token != lease.token:
            with pytest.raises(LeaseLost):
                self.records.leases.check(lease)
            with pytest.raises(LeaseLost):
                self.records.executions.start(lease, "stale", "d", "")
            return None
        self.records.leases.check(lease)
        return lease

    @rule(span=st.sampled_from((1, 500, 1_000)))
    def time_passes(self, span: int) -> None:
        self.clock.advance(span)

    @rule(session=sessions, owner=st.sampled_from(OWNERS), ttl=st.sampled_from((0.5, 10.0)))
    def acquire(self, session: str, owner: str, ttl: float) -> None:
        current = self.holder.get(session)
        if current is not None and current.owner != owner and self.clock.now < current.expires_at:
            with pytest.raises(SessionBusy) as busy:
                self.records.leases.acquire(session, owner, ttl)
            assert (busy.value.owner, busy.value.expires_at) == (current.owner, current.expires_at)
            return
        lease = self.records.leases.acquire(session, owner, ttl)
        tokens = [other.token for other in self.leases if other.session_id == session]
        assert lease.token == max(tokens, default=0) + 1
        self.leases.append(lease)
        self.holder[session] = lease

    @rule(data=st.data(), ttl=st.sampled_from((0.5, 10.0)))
    def renew(self, data: st.DataObject, ttl: float) -> None:
        lease = self.lease(data)
        if lease is not None:
            self.holder[lease.session_id] = self.records.leases.renew(lease, ttl)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = self.lease(data)
        if lease is not None:
            self.records.leases.release(lease)
            del self.holder[lease.session_id]

    @rule(data=st.data(), name=names, code=st.sampled_from(("a = 1", "b")))
    def start(self, data: st.DataObject, name: str, code: str) -> None:
        lease = self.lease(data)
        if lease is not None:
            log = self.log[lease.session_id]
            new = name not in log
            execution, started = self.records.executions.start(lease, name, f"digest of {code}", code)
            assert started is new
            entry = log.setdefault(name, [len(log) + 1, code, "started", 0, None])
            assert [execution.seq, execution.code, execution.status, execution.attempts] == entry[:4]

    @rule(data=st.data(), name=names)
    def attempt(self, data: st.DataObject, name: str) -> None:
        lease = self.lease(data)
        if lease is None:
            return
        entry = self.log[lease.session_id].get(name)
        if entry is None:
            with pytest.raises(StoreError, match="no execution"):
                self.records.executions.add_death(lease, name)
        else:
            entry[3] += 1
            assert self.records.executions.add_death(lease, name) == entry[3]

    @rule(data=st.data(), name=names, outcome=blobs, rejected=st.booleans())
    def finish(self, data: st.DataObject, name: str, outcome: bytes, *, rejected: bool) -> None:
        lease = self.lease(data)
        if lease is None:
            return
        entry = self.log[lease.session_id].get(name)
        if entry is None:
            with pytest.raises(StoreError, match="no execution"):
                self.records.executions.finish(lease, name, outcome)
            return
        self.records.executions.finish(lease, name, outcome, rejected=rejected)
        if entry[2] == "started":
            entry[2], entry[4] = "rejected" if rejected else "finished", outcome

    @rule(data=st.data(), execution=names, call=names)
    def intend(self, data: st.DataObject, execution: str, call: str) -> None:
        lease = self.lease(data)
        if lease is not None:
            key = lease.session_id, execution, call
            found, new = self.records.calls.begin_call(lease, execution, call, "search", "args")
            assert new == (key not in self.calls)
            entry = self.calls.setdefault(key, ["intent", 1, None])
            assert [found.state, found.attempt, found.outcome] == entry

    @rule(data=st.data(), execution=names, call=names)
    def repeat(self, data: st.DataObject, execution: str, call: str) -> None:
        lease = self.lease(data)
        if lease is None:
            return
        entry = self.calls.get((lease.session_id, execution, call))
        if entry is None or entry[0] == "done":
            with pytest.raises(StoreError, match="no open call"):
                self.records.calls.retry_call(lease, execution, call)
        else:
            entry[1] += 1
            assert self.records.calls.retry_call(lease, execution, call) == entry[1]

    @rule(data=st.data(), execution=names, call=names, outcome=blobs)
    def answer(self, data: st.DataObject, execution: str, call: str, outcome: bytes) -> None:
        lease = self.lease(data)
        if lease is None:
            return
        entry = self.calls.get((lease.session_id, execution, call))
        if entry is None:
            with pytest.raises(StoreError, match="no call"):
                self.records.calls.finish_call(lease, execution, call, outcome)
            return
        self.records.calls.finish_call(lease, execution, call, outcome)
        if entry[0] == "intent":
            entry[0], entry[2] = "done", outcome

    @rule(data=blobs)
    def put(self, data: bytes) -> None:
        self.records.checkpoints.put(data, blob_digest(data))
        self.stored[blob_digest(data)] = data

    @rule(data=st.data(), name=names, after=st.integers(0, 3), parts=st.lists(blobs, max_size=3, unique=True))
    def save(self, data: st.DataObject, name: str, after: int, parts: list[bytes]) -> None:
        lease = self.lease(data)
        if lease is None:
            return
        digests = [blob_digest(part) for part in parts]
        if not set(digests) <= set(self.stored):
            with pytest.raises(StoreError, match="never put"):
                self.records.checkpoints.save(lease, name, after, b"m", digests)
            return
        self.records.checkpoints.save(lease, name, after, b"m", digests, b"u")
        replaced = self.checkpoints[lease.session_id].get(name)
        self.checkpoints[lease.session_id][name] = (after, b"m", set(digests))
        saved = self.saved[lease.session_id]
        saved[:] = [entry for entry in saved if entry[1] != name] + [(after, name)]
        named = {d for of in self.checkpoints.values() for *_, some in of.values() for d in some}
        if replaced is not None:
            for digest in replaced[2] - named:
                del self.stored[digest]

    @rule(data=st.data(), name=names)
    def delete(self, data: st.DataObject, name: str) -> None:
        lease = self.lease(data)
        if lease is not None:
            existed = self.checkpoints[lease.session_id].pop(name, None) is not None
            assert self.records.checkpoints.delete(lease, name) is existed
            saved = self.saved[lease.session_id]
            saved[:] = [entry for entry in saved if entry[1] != name]

    @invariant()
    def leases_are_the_same(self) -> None:
        for session in SESSIONS:
            assert holder(self.database, session) == self.holder.get(session)

    @invariant()
    def logs_are_the_same(self) -> None:
        for session, log in self.log.items():
            found = self.records.executions.after(session)
            assert [execution.execution_id for execution in found] == list(log)
            for execution in found:
                outcome = self.records.executions.outcome(session, execution.execution_id)
                entry = [execution.seq, execution.code, execution.status, execution.attempts, outcome]
                assert entry == log[execution.execution_id]
            assert self.records.executions.after(session, 1) == found[1:]
            assert self.records.executions.up_to(session, 2) == found[:2]
            unfinished = [execution for execution in found[:2] if execution.status == "started"]
            assert self.records.executions.unfinished(session, 2) == unfinished

    @invariant()
    def calls_are_the_same(self) -> None:
        for session in SESSIONS:
            for execution in NAMES:
                found = self.records.calls.of(session, execution)
                expected = {
                    key[2]: entry for key, entry in self.calls.items() if key[:2] == (session, execution)
                }
                assert {call.call_id: [call.state, call.attempt, call.outcome] for call in found} == expected
                assert [call.call_id for call in found] == list(expected)

    @invariant()
    def checkpoints_are_the_same(self) -> None:
        for session, expected in self.checkpoints.items():
            found = self.records.checkpoints.of(session)
            shown = {
                checkpoint.checkpoint_id: (
                    checkpoint.after_seq,
                    checkpoint.manifest,
                    set(self.records.checkpoints.digests(session, checkpoint.checkpoint_id)),
                )
                for checkpoint in found
            }
            assert shown == expected
            assert {checkpoint.unsaved for checkpoint in found} <= {b"u"}
            newest = self.records.checkpoints.newest(session)
            last = max(
                enumerate(self.saved[session]), key=lambda entry: (entry[1][0], entry[0]), default=None
            )
            assert (None if newest is None else newest.checkpoint_id) == (
                None if last is None else last[1][1]
            )
        for digest, data in self.stored.items():
            assert self.records.checkpoints.blob(digest) == data
        (count,) = self.database.execute("SELECT count(*) FROM blobs").fetchone()
        assert count == len(self.stored)


Records.TestCase.settings = settings(stateful_step_count=40)
TestRecords = pytest.mark.timeout(300)(Records.TestCase)  # as TestSameAsServerState


# --- one by one ---------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(clock: Clock) -> Iterator[SessionRecords]:
    database, found = opened(":memory:", clock)
    yield found
    database.close()


def test_the_second_owner_is_told_who_and_for_how_long(records: SessionRecords) -> None:
    records.leases.acquire("analysis-7", "host:1", 10.0)
    with pytest.raises(SessionBusy) as busy:
        records.leases.acquire("analysis-7", "host:2", 10.0)
    assert "session 'analysis-7' is owned by host:1, whose lease lapses in 10.0 s" in str(busy.value)
    again = pickle.loads(pickle.dumps(busy.value))
    assert (again.owner, again.expires_at, str(again)) == ("host:1", START + 10_000, str(busy.value))


def test_a_paused_owner_finds_its_lease_taken(records: SessionRecords, clock: Clock) -> None:
    first = records.leases.acquire("s", "host:1", 10.0)
    records.executions.start(first, "e", "d", "code")
    clock.advance(10_001)
    second = records.leases.acquire("s", "host:2", 10.0)
    with pytest.raises(LeaseLost, match="belongs to host:2 since 20"):
        records.executions.finish(first, "e", b"mine")
    records.leases.release(first)  # harmless
    records.executions.finish(second, "e", b"theirs")
    assert records.executions.outcome("s", "e") == b"theirs"


def test_a_lapsed_lease_that_nobody_took_still_counts(records: SessionRecords, clock: Clock) -> None:
    lease = records.leases.acquire("s", "me", 1.0)
    clock.advance(5_000)
    assert records.leases.renew(lease, 1.0).expires_at == clock.now + 1_000


def test_a_released_session_is_free_at_once(records: SessionRecords) -> None:
    lease = records.leases.acquire("s", "me", 10.0)
    records.leases.release(lease)
    assert records.leases.acquire("s", "you", 10.0).token == lease.token + 1


def test_several_records_are_one_transaction(records: SessionRecords) -> None:
    lease = records.leases.acquire("s", "me", 10.0)
    with pytest.raises(StoreError, match="no open call"), records.transaction(durable=True):  # noqa: PT012 - as one
        records.executions.start(lease, "e", "d", "code")
        records.calls.begin_call(lease, "e", "c", "search", "args")
        records.calls.retry_call(lease, "e", "another")
    assert records.executions.get("s", "e") is None
    assert records.calls.get("s", "e", "c") is None
    with records.transaction(durable=True):
        records.executions.start(lease, "e", "d", "code")
        records.executions.finish(lease, "e", b"")
    assert records.executions.outcome("s", "e") == b""


def test_a_blob_under_a_wrong_name_is_refused(records: SessionRecords) -> None:
    """A worker's word must not change what another session is given."""
    with pytest.raises(ValueError, match="has not the digest"):
        records.checkpoints.put(b"hostile", blob_digest(b"honest"))
    with pytest.raises(StoreError, match="there is no blob"):
        records.checkpoints.blob(blob_digest(b"honest"))


def test_a_durable_transaction_syncs_and_sets_the_mode_back(tmp_path: Path, clock: Clock) -> None:
    database, records = opened(str(tmp_path / "state.db"), clock)
    with records.transaction(durable=True):
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA synchronous").fetchone() == (1,)
    database.close()


def test_records_wait_for_a_locked_file_and_then_say_so(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "state.db")
    database, records = opened(path, clock)
    other, _ = opened(path, clock)
    with other.transaction(), pytest.raises(StoreBusy, match="another process holds its lock"):
        records.leases.acquire("s", "me", 1.0)
    assert records.leases.acquire("s", "me", 1.0).token == 1
    other.close()
    database.close()
