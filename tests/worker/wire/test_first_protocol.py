"""A client of protocol 1 gets the messages and fields that protocol 1 has, and no other."""

import os
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrepl3_schemas.messages import FromWorker
from pyrepl3_worker.wire.transport import FrameSender
from schemas.tools.json_form import message_types
from tests.helpers.wire_strategies import of_type

FIRST: dict[str, str] = {
    "ready": "protocol pid python max_frame_bytes features confinement",
    "output": "stream data execution_id late captured_stdout captured_stderr",
    "display": "data execution_id metadata display_id update",
    "input": "input_id execution_id prompt password",
    "call": "call_id execution_id capability args kwargs",
    "result": "execution_id mode value repr type_name duration truncated captured",
    "error": (
        "kind exception message execution_id notes frames traceback cause members suggestion mode duration"
        " truncated captured"
    ),
    "checkpointed": "checkpoint_id data blobs unsaved duration needs",
    "restored": "checkpoint_id names unsaved duration",
    "completions": "request_id matches kinds cursor_start cursor_end",
    "inspection": "request_id found name type_name signature doc source repr variables",
    "pong": "nonce rss cpu_time queue current_execution",
    "stats": "metrics request_id",
}
"""The fields of each message from the worker in protocol 1, which never change any more."""
PARTS = {
    "unsaved": "name type_name reason",
    "variables": "name type_name repr size",
    "frames": "filename lineno name line end_lineno colno end_colno",
    "cause": "exception message notes frames cause members",
    "members": "exception message notes frames cause members",
    "metrics": (
        "total_executions successful_executions failed_executions total_duration duration_buckets"
        " mode_distribution cache_hits cache_misses cache_hit_rate ast_transforms active_tasks tasks_created"
        " output_bytes"
    ),
}
"""The fields of what stands in them, by the name of the field that holds it."""
_FREE = {"value", "args", "kwargs", "blobs", "mode_distribution", "metadata", "data"}
KINDS = message_types(to_worker=False)


def check(fields: dict[str, Any], known: str) -> None:
    """Compare the keys of a decoded map, and of those inside of it, with the tables."""
    assert fields.keys() <= set(known.split())
    for name, value in fields.items():
        parts: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, dict) and name not in _FREE:
                check(cast("dict[str, Any]", part), PARTS[name])


def sent(message: FromWorker, protocol: int) -> list[dict[str, Any]]:
    """Send a message to a client of a protocol; return the frames, decoded."""
    reading, writing = os.pipe()
    try:
        FrameSender(writing, 1 << 16, protocol).send(message)
        os.close(writing)
        data = b""
        while part := os.read(reading, 1 << 16):
            data += part
    finally:
        os.close(reading)
    return [msgspec.msgpack.decode(data[4:])] if data else []


@pytest.mark.parametrize("tag", sorted(KINDS))
def test_every_message_is_as_protocol_1_has_it(tag: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def each(data: st.DataObject) -> None:
        message = data.draw(of_type(KINDS[tag]))
        frames = sent(message, 1)
        if tag not in FIRST:
            assert frames == []
        for fields in frames:
            assert fields.pop("type") == tag
            check(fields, FIRST[tag])
            assert fields.items() <= sent(message, 2)[0].items() or tag in (
                "checkpointed",
                "restored",
                "inspection",
            )

    each()
