"""What the `schedule.*` requests do: schedules are stored and read, and (as in the SDK) none fires."""

from typing import Final

from msgspec import Raw

from pyrepl3_client.durable.sqlite.resonate_server.requests import (
    NULL,
    PromiseGet,
    ScheduleCreate,
    ScheduleSearch,
)
from pyrepl3_client.durable.sqlite.resonate_server.state import PromiseTables
from pyrepl3_client.durable.sqlite.resonate_server.wire import (
    ResponseData,
    Schedule,
    ServerResponse,
    clamp,
    encode_tags,
    required,
)

_SCHEDULE: Final = (
    "SELECT id, cron, promise_id, promise_timeout, promise_param, promise_tags, created_at FROM schedules "
)


class Schedules:
    """Creates, reads and deletes schedules."""

    def __init__(self, state: PromiseTables) -> None:
        """Work on `state`."""
        self._execute: Final = state.execute

    def create(self, now: int, request: ScheduleCreate) -> ServerResponse:
        """Create a schedule, or return the one of that id."""
        schedule_id = required(request.id, "id")
        tags = request.promise_tags or {}
        if "resonate:target" not in tags:
            return ServerResponse(400, ResponseData(error="promiseTags must include a resonate:target tag"))
        existing = self._find(schedule_id)
        if existing is not None:
            return ServerResponse(200, ResponseData(schedule=existing))
        cron, promise_id = required(request.cron, "cron"), required(request.promise_id, "promiseId")
        timeout, param, raw_tags = clamp(request.promise_timeout), request.promise_param, encode_tags(tags)
        self._execute(
            "INSERT INTO schedules (id, cron, promise_id, promise_timeout, promise_param, promise_tags,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (schedule_id, cron, promise_id, timeout, bytes(param), raw_tags, now),
        )
        schedule = Schedule(schedule_id, cron, promise_id, timeout, param, Raw(raw_tags), now)
        return ServerResponse(201, ResponseData(schedule=schedule))

    def get(self, _now: int, request: PromiseGet) -> ServerResponse:
        """Read a schedule."""
        schedule = self._find(required(request.id, "id"))
        return (
            _missing(request.id) if schedule is None else ServerResponse(200, ResponseData(schedule=schedule))
        )

    def delete(self, _now: int, request: PromiseGet) -> ServerResponse:
        """Delete a schedule."""
        cursor = self._execute("DELETE FROM schedules WHERE id = ?", (required(request.id, "id"),))
        return ServerResponse(200) if cursor.rowcount else _missing(request.id)

    def search(self, _now: int, _request: ScheduleSearch) -> ServerResponse:
        """Return all schedules, in the order of their creation."""
        rows = self._execute(_SCHEDULE + "ORDER BY n").fetchall()
        return ServerResponse(200, ResponseData(schedules=[_schedule(*row) for row in rows], cursor=None))

    def _find(self, schedule_id: str) -> Schedule | None:
        row = self._execute(_SCHEDULE + "WHERE id = ?", (schedule_id,)).fetchone()
        return None if row is None else _schedule(*row)


def _schedule(
    schedule_id: str,
    cron: str,
    promise_id: str,
    timeout: int,
    param: bytes | None,
    tags: bytes,
    created_at: int,
) -> Schedule:
    return Schedule(schedule_id, cron, promise_id, timeout, Raw(param or NULL), Raw(tags), created_at)


def _missing(schedule_id: str) -> ServerResponse:
    return ServerResponse(404, ResponseData(error=f"schedule {schedule_id} not found"))
