"""The store and the SDK's own in-process server, given the same requests side by side.

Each step compares the answer, the messages, and then everything that both of them hold.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from resonate.connections.local import ServerState, unwrap_request_envelope, wrap_response_envelope
from resonate.error import ServerError

from pyrepl3_client.durable.sqlite.resonate_server.server import ResonateServer
from pyrepl3_client.durable.sqlite.resonate_server.wire import OutgoingMessage
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.schema import prepare
from tests.helpers.sqlite_store import START, action, apply, request, suspend

ROOTS = ("a", "b")
IDS = ("a", "b", "a:1", "a:2")
ADDRESSES = ("sqlite://any@default", "sqlite://uni@default/p1", "poll://any@else")
PIDS = ("p1", "p2")
KINDS = (
    *("promise.get", "promise.create", "promise.settle", "promise.register_listener", "promise.search"),
    *("task.create", "task.acquire", "task.release", "task.fulfill", "task.fence", "task.suspend"),
    *("task.heartbeat", "schedule.get", "schedule.delete", ""),
)
I64_MAX = 2**63 - 1

ids = st.sampled_from(IDS)
pids = st.sampled_from(PIDS)
spans = st.sampled_from((-5, 0, 10, 5_000, 60_000, 60_000, 10**9, 10**9, None))
ttls = st.sampled_from((-5, 0, 1, 5_000, 60_000, I64_MAX, 2**64 - 1, None))
values = st.none() | st.fixed_dictionaries(
    {}, optional={"headers": st.just({"a": "b"}), "data": st.sampled_from(("", "eyJ4IjoxfQ==", "é\x00\n"))}
)
states = st.sampled_from(("resolved", "rejected", "rejected_canceled", "rejected_timedout", None))


@st.composite
def tags(draw: st.DrawFn, now: int = START) -> dict[str, str]:
    found: dict[str, str] = {}
    if draw(st.booleans()):
        found["resonate:target"] = draw(st.sampled_from(ADDRESSES))
    if draw(st.booleans()):
        found["resonate:branch"] = draw(st.sampled_from(ROOTS))
    if draw(st.integers(0, 3)) == 0:
        found["resonate:timer"] = draw(st.sampled_from(("true", "false")))
    if draw(st.integers(0, 3)) == 0:
        found["resonate:delay"] = draw(st.sampled_from((str(now + 700), str(now - 1), "soon", "")))
    if draw(st.booleans()):
        found["kind"] = "é"
    return found


def sorted_messages(messages: list[Any]) -> list[Any]:
    """Put messages in an order of their own: sets, in the SDK's server, have none."""
    return sorted(messages, key=json.dumps)


def without_nones(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}


class SameAsServerState(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.model = ServerState()
        self.folder = Path(tempfile.mkdtemp())
        self.open()

    def open(self) -> None:
        self.database = Database(str(self.folder / "state.db"))
        prepare(self.database)
        self.machine = ResonateServer(self.database)

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    # --- both sides ---

    def model_apply(self, text: str) -> tuple[Any, list[Any]]:
        flat = unwrap_request_envelope(msgspec.json.decode(text))
        answer = wrap_response_envelope(self.model.apply(self.now, flat))
        return json.loads(msgspec.json.encode(answer)), self.model_messages()

    def model_messages(self) -> list[Any]:
        sent = [[out.address, json.loads(msgspec.json.encode(out.message))] for out in self.model.outgoing]
        self.model.outgoing = []
        return sorted_messages(sent)

    def our_messages(self, messages: list[OutgoingMessage]) -> list[Any]:
        return sorted_messages([[message.address, json.loads(message.body)] for message in messages])

    def both(self, kind: str, data: dict[str, Any]) -> Any:
        text = request(kind, data, corr_id=[self.now, kind])
        theirs, their_messages = self.model_apply(text)
        ours, messages = apply(self.database, self.machine, self.now, text)
        assert ours == theirs
        assert self.our_messages(messages) == their_messages
        return ours

    # --- promises ---

    def promise(self, promise_id: str, span: int | None, named: dict[str, str], value: Any) -> dict[str, Any]:
        at = None if span is None else self.now + span
        return {"id": promise_id, **without_nones({"timeoutAt": at}), "tags": named, "param": value}

    @initialize(
        named=st.tuples(tags(), tags(), tags()),
        pid=pids,
        span=st.sampled_from((10, 60_000)),
        waits=st.booleans(),
    )
    def begin_with_work_in_flight(
        self, named: tuple[dict[str, str], ...], pid: str, span: int, *, waits: bool
    ) -> None:
        for task_id, own in zip(("a", "b"), named, strict=False):
            body = self.promise(task_id, 60_000, own, None)
            self.both("task.create", {"pid": pid, "ttl": 5_000, "action": action("promise.create", body)})
        self.promise_create("a:1", span, named[2], None)
        if waits:
            self.both("task.suspend", suspend("a", ["a:1", "b"], 0))
            self.both("task.suspend", suspend("b", ["a:1", "a:2"], 0))

    @rule(promise_id=ids, span=spans, named=tags(), value=values)
    def promise_create(self, promise_id: str, span: int | None, named: dict[str, str], value: Any) -> None:
        self.both("promise.create", self.promise(promise_id, span, named, value))

    @rule(promise_id=ids)
    def promise_get(self, promise_id: str) -> None:
        self.both("promise.get", {"id": promise_id})

    @rule(promise_id=ids, state=states, value=values)
    def promise_settle(self, promise_id: str, state: str | None, value: Any) -> None:
        self.both("promise.settle", without_nones({"id": promise_id, "state": state, "value": value}))

    @rule(promise_id=ids, address=st.sampled_from(ADDRESSES))
    def register_listener(self, promise_id: str, address: str) -> None:
        self.both("promise.register_listener", {"awaited": promise_id, "address": address})

    # --- tasks ---

    def versions(self, task_id: str) -> st.SearchStrategy[int | None]:
        task = self.model.tasks.get(task_id)
        return st.sampled_from((0 if task is None else task.version, None))

    @rule(promise_id=ids, span=spans, named=tags(), pid=pids, ttl=ttls, flat=st.booleans())
    def task_create(
        self,
        promise_id: str,
        span: int | None,
        named: dict[str, str],
        pid: str,
        ttl: int | None,
        *,
        flat: bool,
    ) -> None:
        body = self.promise(promise_id, span, named, {"data": "eA=="})
        inner = body if flat else action("promise.create", body)
        self.both("task.create", without_nones({"pid": pid, "ttl": ttl, "action": inner}))

    @rule(task_id=ids, pid=pids, ttl=ttls, data=st.data())
    def task_acquire(self, task_id: str, pid: str, ttl: int | None, data: st.DataObject) -> None:
        body = {"id": task_id, "version": data.draw(st.sampled_from((0, 1, None))), "pid": pid, "ttl": ttl}
        self.both("task.acquire", without_nones(body))

    @rule(task_id=ids, data=st.data())
    def task_release(self, task_id: str, data: st.DataObject) -> None:
        body = {"id": task_id, "version": data.draw(self.versions(task_id))}
        self.both("task.release", without_nones(body))

    @rule(task_id=ids, other=st.none() | ids, state=states, value=values, data=st.data())
    def task_fulfill(
        self, task_id: str, other: str | None, state: str | None, value: Any, data: st.DataObject
    ) -> None:
        inner = without_nones({"id": other, "state": state, "value": value})
        if data.draw(st.booleans()):
            inner = action("promise.settle", inner)
        body = {"id": task_id, "version": data.draw(self.versions(task_id)), "action": inner}
        self.both("task.fulfill", without_nones(body))

    @rule(task_id=ids, awaited=st.lists(ids, max_size=3), data=st.data())
    def task_suspend(self, task_id: str, awaited: list[str], data: st.DataObject) -> None:
        self.both("task.suspend", suspend(task_id, awaited, data.draw(self.versions(task_id))))

    @rule(task_id=ids, off=st.sampled_from((0, 0, 0, 1)), promise_id=ids, span=spans, named=tags())
    def fence_create(
        self, task_id: str, off: int, promise_id: str, span: int | None, named: dict[str, str]
    ) -> None:
        task = self.model.tasks.get(task_id)
        inner = action("promise.create", self.promise(promise_id, span, named, {"data": "eA=="}))
        version = off + (0 if task is None else task.version)
        self.both("task.fence", {"id": task_id, "version": version, "action": inner})

    @rule(task_id=ids, off=st.sampled_from((0, 0, 0, 1)), promise_id=ids, state=states, value=values)
    def fence_settle(self, task_id: str, off: int, promise_id: str, state: str | None, value: Any) -> None:
        task = self.model.tasks.get(task_id)
        inner = action("promise.settle", without_nones({"id": promise_id, "state": state, "value": value}))
        version = off + (0 if task is None else task.version)
        self.both("task.fence", {"id": task_id, "version": version, "action": inner})

    @rule(pid=pids, task_ids=st.lists(ids, max_size=3), off=st.sampled_from((0, 0, 1, None)))
    def heartbeat(self, pid: str, task_ids: list[str], off: int | None) -> None:
        refs: list[dict[str, Any]] = []
        for task_id in task_ids:
            task = self.model.tasks.get(task_id)
            version = None if off is None else off + (0 if task is None else task.version)
            refs.append(without_nones({"id": task_id, "version": version}))
        self.both("task.heartbeat", {"pid": pid, "tasks": refs})

    @precondition(lambda self: self.model.tasks)
    @rule(
        data=st.data(),
        kind=st.sampled_from(("task.release", "task.fulfill", "task.suspend")),
        off=st.sampled_from((-1, 1, 7)),
    )
    def stale_version(self, data: st.DataObject, kind: str, off: int) -> None:
        """Ours refuses what theirs, which has one process alone, does not look at; and leaves no trace."""
        task_id = data.draw(st.sampled_from(sorted(self.model.tasks)))
        _, their_messages = self.model_apply(request("promise.get", {"id": task_id}))
        body = {"id": task_id, "version": self.model.tasks[task_id].version + off, "pid": "p1"}
        ours, messages = apply(self.database, self.machine, self.now, request(kind, body))
        assert ours["head"]["status"] == 409
        assert self.our_messages(messages) == their_messages

    # --- the ways that chance alone seldom finds ---

    def acquired(self) -> list[str]:
        return sorted(task.id for task in self.model.tasks.values() if task.state == "acquired")

    def pending(self) -> list[str]:
        return sorted(promise.id for promise in self.model.promises.values() if promise.state == "pending")

    @precondition(lambda self: self.acquired())
    @rule(data=st.data())
    def the_holder_suspends(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.acquired()))
        others = [promise_id for promise_id in self.pending() if promise_id != task_id]
        awaited = data.draw(st.lists(st.sampled_from(others), max_size=3)) if others else []
        self.both("task.suspend", suspend(task_id, awaited, self.model.tasks[task_id].version))

    @precondition(lambda self: any(promise.awaiters for promise in self.model.promises.values()))
    @rule(data=st.data(), value=values)
    def what_is_awaited_settles(self, data: st.DataObject, value: Any) -> None:
        awaited = sorted(promise.id for promise in self.model.promises.values() if promise.awaiters)
        self.both("promise.settle", {"id": data.draw(st.sampled_from(awaited)), "value": value})

    @precondition(lambda self: self.acquired())
    @rule(data=st.data(), promise_id=ids, span=spans, named=tags())
    def the_holder_creates(
        self, data: st.DataObject, promise_id: str, span: int | None, named: dict[str, str]
    ) -> None:
        task_id = data.draw(st.sampled_from(self.acquired()))
        inner = action("promise.create", self.promise(promise_id, span, named, None))
        version = self.model.tasks[task_id].version
        self.both("task.fence", {"id": task_id, "version": version, "action": inner})

    @precondition(lambda self: self.model.p_timeouts)
    @rule()
    def all_promises_time_out_at_once(self) -> None:
        self.now = max(
            [self.now, *(entry.timeout for entry in self.model.p_timeouts if entry.timeout < 10**14)]
        )
        self.tick()

    # --- schedules ---

    @rule(schedule_id=ids, named=tags(), param=values)
    def schedules(self, schedule_id: str, named: dict[str, str], param: Any) -> None:
        body = {"id": schedule_id, "cron": "* * * * *", "promiseId": "{{.id}}", "promiseTimeout": 5}
        self.both("schedule.create", {**body, "promiseParam": param, "promiseTags": named})
        self.both("schedule.get", {"id": schedule_id})
        self.both("schedule.search", {})

    @rule(schedule_id=ids)
    def schedule_deletes(self, schedule_id: str) -> None:
        self.both("schedule.delete", {"id": schedule_id})
        self.both("schedule.get", {"id": schedule_id})

    # --- time, and what goes wrong ---

    @rule(span=st.sampled_from((1, 10, 1_000, 30_000, 60_000)))
    def time_passes(self, span: int) -> None:
        self.now += span

    @rule(span=st.sampled_from((0, 1, 10, 1_000, 30_000, 60_000)))
    def time_is_acted_on(self, span: int) -> None:
        self.now += span
        self.tick()

    def tick(self) -> None:
        self.model.outgoing.clear()
        self.model.tick(self.now)
        with self.database.transaction():
            messages = self.machine.tick(self.now)
        assert self.our_messages(list(messages)) == self.model_messages()

    @rule(kind=st.sampled_from(KINDS))
    def without_an_id(self, kind: str) -> None:
        text = request(kind, {})
        refusals: list[tuple[int, str]] = []
        try:
            self.model_apply(text)
        except ServerError as error:
            refusals.append((error.code, error.message))
        try:
            apply(self.database, self.machine, self.now, text)
        except ServerError as error:
            refusals.append((error.code, error.message))
        assert len(refusals) == 2
        assert refusals[0] == refusals[1]

    @rule()
    def reopen(self) -> None:
        self.database.close()
        self.open()

    # --- everything they hold ---

    @invariant()
    def same_promises(self) -> None:
        rows = self.database.execute(
            "SELECT id, state, param, value, tags, timeout_at, created_at, settled_at"
            " FROM promises ORDER BY n"
        )
        ours = [
            (*row[:2], *(None if part is None else json.loads(part) for part in row[2:5]), *row[5:])
            for row in rows
        ]
        theirs = [
            (p.id, p.state, p.param, p.value, p.tags, p.timeout_at, p.created_at, p.settled_at)
            for p in self.model.promises.values()
        ]
        assert ours == theirs

    @invariant()
    def same_tasks(self) -> None:
        ours = self.database.execute("SELECT id, state, version, pid, ttl, resumed FROM tasks").fetchall()
        theirs = [
            (t.id, t.state, t.version, t.pid, t.ttl, int(bool(t.resumes))) for t in self.model.tasks.values()
        ]
        assert sorted(ours) == sorted(theirs)

    @invariant()
    def same_deadlines(self) -> None:
        promises = self.database.execute(
            "SELECT id, due_at FROM promises WHERE due_at IS NOT NULL"
        ).fetchall()
        tasks = self.database.execute("SELECT id, due_at FROM tasks WHERE due_at IS NOT NULL").fetchall()
        assert dict(promises) == {entry.id: entry.timeout for entry in self.model.p_timeouts}
        assert dict(tasks) == {entry.id: entry.timeout for entry in self.model.t_timeouts}
        deadlines = [at for _id, at in promises + tasks]
        assert self.machine.next_due() == min(deadlines, default=I64_MAX)

    @invariant()
    def same_registrations(self) -> None:
        callbacks = self.database.execute("SELECT promise, task FROM callbacks").fetchall()
        listeners = self.database.execute("SELECT promise, address FROM listeners").fetchall()
        promises = self.model.promises.values()
        assert set(callbacks) == {(p.id, task_id) for p in promises for task_id in p.awaiters}
        assert set(listeners) == {(p.id, address) for p in promises for address in p.subscribers}
