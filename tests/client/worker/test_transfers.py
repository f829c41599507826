"""What a worker sends in the place of a response is not believed; what is given up leaves nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client.testing import ScriptedWorker
from pyrepl3_schemas.codec import encode_value
from pyrepl3_schemas.messages import Chunk, FromWorker, Request, RequestError, Response
from tests.helpers.scripted_sessions import opened

pytestmark = pytest.mark.anyio


def data(size: int) -> memoryview:
    return memoryview(bytes(size))


def extension(code: int, text: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(msgspec.msgpack.Ext(code, text.encode())))


LIES: dict[str, tuple[Callable[[str], list[FromWorker]], type[Exception], str]] = {
    "a second response": (
        lambda i: [Response(i, encode_value(1), parts=[9]), Response(i, encode_value(1))],
        pyrepl3.WorkerDied,
        "answers nothing that we asked",
    ),
    "a part of nothing": (lambda i: [Response(i, parts=[0])], pyrepl3.WorkerDied, "a part of 0 bytes"),
    "a chunk before the response": (
        lambda i: [Chunk(i, 0, data=data(1))],
        pyrepl3.WorkerDied,
        "acknowledged chunk 0",
    ),
    "too long a chunk": (
        lambda i: [Response(i, parts=[4]), Chunk(i, 0, True, data(5))],
        pyrepl3.WorkerDied,
        "not what was announced",
    ),
    "an end before the end": (
        lambda i: [Response(i, parts=[4]), Chunk(i, 0, last=True)],
        pyrepl3.WorkerDied,
        "gave up its response",
    ),
    "more than was asked for": (
        lambda i: [Response(i, parts=[2**60]), Chunk(i, 0, last=True)],
        pyrepl3.TransferError,
        "over max_bytes",
    ),
    "an error": (
        lambda i: [Response(i, error=RequestError("NameError", "there is none"))],
        pyrepl3.TransferError,
        "there is none",
    ),
    "no value": (lambda i: [Response(i)], pyrepl3.TransferError, "no value"),
    "a value that is none": (
        lambda i: [Response(i, parts=[2]), Chunk(i, 0, True, memoryview(b"\xc1\xc1"))],
        pyrepl3.TransferError,
        "does not decode",
    ),
    "a part that is not there": (
        lambda i: [Response(i, extension(87, '{"dtype": "<f8", "shape": [1], "order": "C", "part": 3}'))],
        pyrepl3.TransferError,
        "refers to part 3, of 0",
    ),
    "a huge array of nothing": (
        lambda i: [
            Response(i, extension(87, '{"dtype": "<f8", "shape": [1000000000000], "order": "C", "data": ""}'))
        ],
        pyrepl3.TransferError,
        "in 0 bytes",
    ),
    "an array of objects": (
        lambda i: [
            Response(i, extension(87, '{"dtype": "|O", "shape": [1], "order": "C", "data": "AAAAAAAAAAA="}'))
        ],
        pyrepl3.TransferError,
        "array of type",
    ),
    "nothing of an array": (
        lambda i: [Response(i, extension(87, "{}"))],
        pyrepl3.TransferError,
        "does not decode",
    ),
    "no JSON": (lambda i: [Response(i, extension(87, "x"))], pyrepl3.TransferError, "does not decode"),
    "a broken table": (
        lambda i: [Response(i, extension(88, '{"kind": "table", "data": "AAAA"}'))],
        pyrepl3.TransferError,
        "a table",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_about_a_value_is_an_error(worker: ScriptedWorker, lie: str) -> None:
    pytest.importorskip("numpy", reason="NumPy is an optional library, of the group 'notebooks'")
    answers, error, text = LIES[lie]
    worker.unanswered.add(Request)
    async with opened(worker, recovery="none") as session:
        getting = asyncio.create_task(session.get("x"))
        request = await worker.wait_for(Request)
        for answer in answers(request.request_id):
            worker.process.send(answer)
        with pytest.raises(error, match=text):
            await getting


async def test_silence_is_an_error_and_what_comes_later_is_dropped(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Request)
    async with opened(worker) as session:
        with pytest.raises(
            pyrepl3.WorkerUnresponsive, match=r"did not answer a get request: nothing came for 0\.01 s"
        ):
            await session.get("x", timeout=0.01)
        request = await worker.wait_for(Request)
        worker.process.send(Response(request.request_id, parts=[5_000_000]))
        given_up = await worker.wait_for(Chunk)
        assert given_up.last
        worker.process.send(Chunk(request.request_id, 0, data=data(1_000_000)))
        worker.process.send(Chunk(request.request_id, 1, last=True))
        await session.ping()
        held: Any = (await session._ready_worker()).requests.by_kind._open  # pyright: ignore[reportPrivateUsage]
        assert not held


async def test_a_worker_of_protocol_1_is_refused_by_name(worker: ScriptedWorker) -> None:
    worker.ready = msgspec.structs.replace(worker.ready, protocol=1)
    with pytest.raises(pyrepl3.SpawnError, match="it speaks protocol 1, and we speak 2"):
        async with opened(worker):
            pass
