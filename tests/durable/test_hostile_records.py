"""Nothing that a worker says is ever unpickled here, whatever it looks like."""

import asyncio
import base64
import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from resonate.codec import Codec, NoopEncryptor
from resonate.resonate import Resonate
from resonate.types import Value

from pyrepl3_client._journal.protocol import CallRecord, SavedCheckpoint, Spec, blob_digest
from pyrepl3_client.durable.resonate.ids import awaited_id, root_id
from pyrepl3_client.durable.sqlite import SqliteConnection
from tests.helpers.journals import Submitted, journal_at, run

pytestmark = pytest.mark.anyio


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def planted(marker: Path) -> dict[str, str]:
    """Return what Resonate's codec unpickles where a promise is rejected with it."""
    code = base64.b64encode(pickle.dumps(Payload(marker))).decode()
    return {"__type": "error", "message": "boom", "__py_pickle": code}


def test_the_payload_would_work(tmp_path: Path) -> None:
    """The control: this is what must not happen in the tests below."""
    codec = Codec(NoopEncryptor())
    data = base64.b64encode(msgspec.json.encode(planted(tmp_path / "marker"))).decode()
    codec.decode_error(Value(data=data))
    assert (tmp_path / "marker").is_dir()


async def test_no_payload_of_a_workers_is_ever_unpickled(tmp_path: Path) -> None:
    path, marker = tmp_path / "state.db", tmp_path / "marker"
    bomb = planted(marker)
    shapes = [
        msgspec.json.encode(bomb),
        msgspec.msgpack.encode(bomb),
        base64.b64encode(msgspec.json.encode(bomb)),
        msgspec.json.encode({"data": base64.b64encode(msgspec.json.encode(bomb)).decode()}),
        pickle.dumps(Payload(marker)),
    ]
    for _ in range(2):  # and once more, by the session's next owner
        async with journal_at(path) as journal:
            for n, shape in enumerate(shapes):
                spec = Spec(msgspec.json.encode(bomb).decode())
                submitted = Submitted()
                executing = asyncio.create_task(journal.execute(f"r{n}", spec, submitted))
                if await run(journal, f"e{n}", shape, spec) == (shape, False):
                    await submitted.next()
                    name = shape.hex()
                    await journal.begin_call(f"r{n}", CallRecord(name, "search", name))
                    await journal.finish_call(f"r{n}", name, shape)
                    await journal.settle(f"r{n}", shape, rejected=True)
                assert (await executing)[0] == shape
                assert [call.outcome for call in (await journal.calls(f"r{n}")).values()] == [shape]
            saved = SavedCheckpoint("auto", 1, shapes[-1], tuple(map(blob_digest, shapes)))
            await journal.save(saved, {blob_digest(shape): shape for shape in shapes})
            assert (await journal.load()).checkpoint is not None
            await journal.blobs(saved.digests)
    # Whoever asks Resonate for these promises, in another program, is given references.
    async with await SqliteConnection.open(str(path)) as connection:
        resonate = Resonate(network=connection, subscription_refresh_secs=0, env={})
        for n in range(len(shapes)):
            for name, status in ((f"e{n}", "finished"), (f"r{n}", "rejected")):
                for promise_id in (root_id("analysis-7", name), awaited_id(root_id("analysis-7", name))):
                    handle: Any = await resonate.get(promise_id)
                    assert await handle.result() == {
                        "ref": f"exec:{name}",
                        "status": status,
                        "size": len(shapes[n]),
                    }
        await resonate.stop()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT DISTINCT state FROM promises").fetchall() == [("resolved",)]
    assert not marker.exists()
