"""`WorkerConfig.untrusted`: what code that is not trusted finds, and what it does not."""

import pytest

import pyrepl3_client as pyrepl3
from tests.confinement.sessions import is_working, run, value

pytestmark = pytest.mark.anyio


def pay(amount: int) -> int:
    raise ValueError(f"the key s3cret was refused for {amount}")


def greet(name: str) -> str:
    raise LookupError(f"there is no {name}")


async def test_untrusted_code_is_kept_within_what_its_configuration_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LC_SECRET", "s3cret")
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    config = pyrepl3.WorkerConfig.untrusted(env={"GIVEN": "given"})
    capabilities = {"pay": pay, "greet": pyrepl3.capability(greet, errors="shown")}
    async with pyrepl3.open_session(config=config, capabilities=capabilities) as session:
        environment = await value(session, "import os; dict(os.environ)")
        assert environment["GIVEN"] == "given"
        assert "s3cret" not in str(environment)
        assert "PYTHONBREAKPOINT" not in environment
        refused = await run(session, "import socket; socket.create_connection(('192.0.2.1', 80), 5)")
        assert refused.error is not None
        assert refused.error.type == "OSError"
        in_force = session.worker.confinement
        assert {"files", "network", "processes", "system_calls"} <= set(in_force)
        assert {"max_processes", "max_memory_bytes", "max_cpu_seconds", "work_bytes"} <= set(in_force)
        masked = await run(session, "pay(3)")
        assert masked.error is not None
        assert masked.error.type == "ValueError"
        assert "s3cret" not in masked.error.message + masked.error.traceback
        shown = await run(session, "greet('one')")
        assert shown.error is not None
        assert "there is no one" in shown.error.message
        assert await is_working(session)


async def test_a_worker_that_inherits_nothing_finds_programs_all_the_same() -> None:
    config = pyrepl3.WorkerConfig(inherit_env=False)
    async with pyrepl3.open_session(config=config) as session:
        code = "import os, subprocess; subprocess.run(['env'], capture_output=True, text=True).stdout"
        lines = set((await value(session, code)).split())
    assert {line.partition("=")[0] for line in lines} <= {"PATH", "LANG", "PYTHONHASHSEED", "VIRTUAL_ENV"}
    assert "LANG=C.UTF-8" in lines
