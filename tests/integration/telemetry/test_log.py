"""What operators find in the log: each fact once, by whom, and nothing above INFO while all is well."""

import logging
import os
import resource
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import PATIENCE, quick
from tests.helpers.scripted_sessions import turns_until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


def whose(record: logging.LogRecord) -> tuple[Any, Any, Any]:
    """Return what each record of ours says of session, execution and worker."""
    fields = vars(record)
    return fields["session"], fields["execution"], fields["worker"]


def of(
    caplog: pytest.LogCaptureFixture, logger: str, level: int = logging.WARNING
) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == logger and record.levelno >= level]


def double(x: int) -> int:
    return 2 * x


async def test_a_normal_life_is_quiet(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG, "pyrepl3")
    store = tmp_path / "state.db"
    for _ in range(2):
        async with pyrepl3.open_session(
            "s", store=store, config=quick(), capabilities={"double": double}
        ) as session:
            assert (await session.execute("double(21)")).value == 42
            await session.execute("1 / 0", check=False)
            await session.execute("while True: pass", timeout=0.1, check=False)
            await session.set(word="a value")
            await session.checkpoint("c")
            await session.restart()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert "__pyrepl3" not in caplog.text
    names = {record.name for record in caplog.records if record.name.startswith("pyrepl3")}
    assert names == {"pyrepl3.worker", "pyrepl3.calls", "pyrepl3.checkpoint", "pyrepl3.recovery"}


async def test_a_death_and_a_recovery_are_logged_once_with_whose_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "pyrepl3")
    async with pyrepl3.open_session("s", config=quick()) as session:
        await session.execute("x = 1")
        first = session.worker.pid
        result = await session.execute("import os; os._exit(3)", execution_id="e", check=False)
        assert result.error is not None
        assert result.error.kind == "died"
        assert (await session.execute("x")).value == 1
        second = session.worker.pid
    (death,) = of(caplog, "pyrepl3.worker")
    assert whose(death) == ("s", "e", first)
    assert "exit code 3" in death.getMessage()
    (back,) = of(caplog, "pyrepl3.recovery", logging.INFO)
    assert whose(back) == ("s", None, second)
    started = [record for record in caplog.records if "was started" in record.getMessage()]
    ready = [record for record in caplog.records if "is ready" in record.getMessage()]
    ended = [record for record in caplog.records if "has ended" in record.getMessage()]
    assert [whose(record) for record in started] == [("s", None, first), ("s", None, second)]
    assert [whose(record) for record in ready] == [("s", None, first), ("s", None, second)]
    assert [whose(record) for record in ended] == [("s", None, second)]


async def test_a_host_functions_error_is_logged_once_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def look_up(key: str) -> None:
        raise LookupError(f"no {key}")

    async with pyrepl3.open_session("s", config=quick(), capabilities={"look_up": look_up}) as session:
        await session.execute("try: look_up('it')\nexcept LookupError: pass", execution_id="e")
        pid = session.worker.pid
    (record,) = of(caplog, "pyrepl3.calls")
    assert whose(record) == ("s", "e", pid)
    assert record.exc_info is not None
    traceback = record.exc_info[2]
    assert traceback is not None
    assert traceback.tb_frame.f_code.co_name == "look_up"
    assert record.getMessage() == "host function 'look_up' raised LookupError (call 'e:look_up:1')"


async def test_a_checkpoint_that_is_too_large_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    failed = anyio.Event()

    async def on_event(event: pyrepl3.SessionEvent) -> None:
        if isinstance(event, pyrepl3.CheckpointEvent) and event.state == "failed":
            failed.set()

    config = pyrepl3.WorkerConfig(max_checkpoint_bytes=10_000, close_grace=1.0)
    async with pyrepl3.open_session("s", config=config, on_event=on_event) as session:
        await session.execute("x = bytes(range(256)) * 10_000")
        with anyio.fail_after(PATIENCE):
            await failed.wait()
        (record,) = of(caplog, "pyrepl3.checkpoint")
        assert whose(record) == ("s", None, session.worker.pid)
        assert "max_checkpoint_bytes" in record.getMessage()


async def test_trouble_with_the_store_is_logged_with_its_session(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.open_session("s", store=path, config=quick(), on_event=events.append) as session:
        await session.execute("x = 1")
        thief = sqlite3.connect(path)
        with thief:  # as another owner does that found the lease lapsed
            thief.execute("UPDATE sessions SET token = token + 1, owner = 'thief'")
        thief.close()
        with pytest.raises(pyrepl3.StoreError):
            await session.execute("x = 2")
    (record,) = of(caplog, "pyrepl3.store")
    assert record.levelno == logging.ERROR
    assert whose(record)[0] == "s"
    (event,) = [event for event in events if isinstance(event, pyrepl3.StoreEvent)]
    assert event.lost


async def test_a_session_that_cannot_come_back_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pyrepl3")
    config = quick()
    events: list[pyrepl3.SessionEvent] = []
    missing = Path(f"/nonexistent-{os.getpid()}")
    async with pyrepl3.open_session("s", config=config, on_event=events.append) as session:
        object.__setattr__(config, "python", str(missing / "python"))
        os.kill(session.worker.pid, 9)
        with pytest.raises(pyrepl3.WorkerDied):
            await session.execute("1")
    (record,) = of(caplog, "pyrepl3.recovery", logging.INFO)
    assert record.levelno == logging.ERROR
    assert whose(record)[0] == "s"
    assert [event.state for event in events if isinstance(event, pyrepl3.RecoveryEvent)] == [
        "started",
        "failed",
    ]


async def test_an_execution_that_the_store_does_not_take_is_logged_once_and_raised(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async with pyrepl3.open_session("s", store=tmp_path / "state.db", config=quick()) as session:
        await session.execute("x = 1")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as on a full disk
        try:
            with pytest.raises(pyrepl3.StoreError):
                await session.execute("x = 2", execution_id="e")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (await session.execute("x")).value == 1
    (record,) = of(caplog, "pyrepl3.store")
    assert whose(record)[:2] == ("s", "e")
    assert "was not run" in record.getMessage()


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the disk of the log is full")


async def test_a_handler_of_the_log_that_raises_reaches_no_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, handler, level = logging.getLogger("pyrepl3"), Broken(), logging.getLogger("pyrepl3").level
    store = tmp_path / "state.db"

    def on_event(event: pyrepl3.SessionEvent) -> None:
        raise ValueError("mine")

    def interceptor(message: object) -> None:
        raise ValueError("mine too")

    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        async with pyrepl3.WorkerPool(1, quick(), max_sessions=1, on_event=on_event) as pool:
            (idle,) = pool._workers.idle  # pyright: ignore[reportPrivateUsage]
            os.kill(idle.worker.pid, 9)
            async with pool.session("s", store=store, capabilities={"double": double}) as session:
                session.interceptors.append(interceptor)
                assert (await session.execute("double(21)")).value == 42
                assert (await session.execute("double(None)", check=False)).error is not None
                os.kill(session.worker.pid, 9)
                assert (await session.execute("import socket; s = socket.socket(); 1")).value == 1
            # It is looked at whether it can make room, which it cannot: a line of the pool's.
            with pytest.raises(pyrepl3.PoolTimeout, match="'s': a checkpoint cannot hold s"):
                await pool.acquire(2)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert "the disk of the log is full" in capsys.readouterr().err


async def test_records_of_pools_say_of_which_session_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pyrepl3.pool")
    async with pyrepl3.WorkerPool(1, quick(), fork=False, idle_timeout=0.01) as pool:
        async with pool.session("s", store=tmp_path / "state.db") as session:
            await session.execute("import socket; s = socket.socket()")
        await turns_until(lambda: bool(pool.stats().kept))
    kept, lost = of(caplog, "pyrepl3.pool", logging.INFO)
    assert whose(kept) == whose(lost) == ("s", None, None)
    assert "stays live though it is idle" in kept.getMessage()
    assert "would lose" in lost.getMessage()
