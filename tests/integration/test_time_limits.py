"""Time limits on real workers: what counts, and what does not."""

import asyncio
import dataclasses
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import CallRequest, capability
from tests.helpers.real_sessions import quick

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

LIMIT = 0.25
LONGER = 3 * LIMIT
"""Seconds that a person takes: more than the code may run."""


async def person(_: Any = None) -> str:
    await asyncio.sleep(LONGER)
    return "yes"


async def approve(_: CallRequest) -> bool:
    await asyncio.sleep(LONGER)
    return True


def act() -> str:
    return "done"


TOOLS = {
    "ask": capability(person, awaitable=False, pauses_timeout=True),
    "ask_later": capability(person, pauses_timeout=True),
    "fetch": capability(person, awaitable=False),
    "act": capability(act, approve=approve),
}
COMPUTES = "import threading\nstop = False\ndef burn():\n    while not stop: pass\nthreading.Thread(target=burn).start()\n"
RUNS_ON = "\nwhile True: pass"


@pytest.fixture(scope="module")
async def session() -> Any:
    async with pyrepl3.open_session(config=quick(), capabilities=TOOLS, on_input=person) as session:
        yield session


@pytest.mark.parametrize(
    "code",
    [
        "input()",
        "await input()",
        "ask()",
        "await ask_later()",
        "act()",
        "import getpass; getpass.getpass()",
        "import asyncio; (await asyncio.gather(ask_later(), ask_later()))[0]",
    ],
)
async def test_the_time_stands_still_while_somebody_is_asked(session: pyrepl3.Session, code: str) -> None:
    result = await session.execute(code, timeout=LIMIT)
    assert result.value in ("yes", "done")
    assert result.duration > LIMIT


@pytest.mark.parametrize(
    "code",
    [
        "fetch()",
        f"input(){RUNS_ON}",
        f"ask(){RUNS_ON}",
        f"act(){RUNS_ON}",
        "import time; input(); time.sleep(60)",
        "import asyncio; input(); await asyncio.sleep(60)",
        f"{COMPUTES}try: input()\nfinally: stop = True",
        f"{COMPUTES}try: await ask_later()\nfinally: stop = True",
        "import subprocess, sys\nburner = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\ninput()",
    ],
)
async def test_it_passes_while_the_code_does_anything_else(session: pyrepl3.Session, code: str) -> None:
    with pytest.raises(pyrepl3.ExecutionTimeout, match=rf"longer than {LIMIT:g} s"):
        await session.execute(code, timeout=LIMIT)


@pytest.mark.parametrize("limit", [Decimal("0.25"), Fraction(1, 4)], ids=repr)
async def test_any_number_is_a_limit(session: pyrepl3.Session, limit: Any) -> None:
    with pytest.raises(pyrepl3.ExecutionTimeout, match=r"longer than 0\.25 s"):
        await session.execute(RUNS_ON, timeout=limit)


async def test_it_is_not_counted_in_the_queue(session: pyrepl3.Session) -> None:
    first = session.start(f"import time; time.sleep({LONGER})")
    second = session.start("'ran'", timeout=LIMIT)
    assert (await second).value == "ran"
    await first


async def test_it_is_not_counted_behind_a_checkpoint(session: pyrepl3.Session) -> None:
    slow = f"import time\nclass Slow:\n    def __reduce__(self): time.sleep({LONGER}); return Slow, ()\nslow = Slow()"
    await session.execute(slow)
    saving = asyncio.create_task(session.checkpoint("slow"))
    await asyncio.sleep(0)
    try:
        assert (await session.execute("'ran'", timeout=LIMIT)).value == "ran"
    finally:
        await saving
        await session.execute("del slow")
    with pytest.raises(pyrepl3.ExecutionTimeout):
        await session.execute(RUNS_ON, timeout=LIMIT)


async def test_the_limit_of_the_configuration_is_kept_the_same_way() -> None:
    async with pyrepl3.open_session(config=quick(max_execution_time=LIMIT), on_input=person) as session:
        assert (await session.execute("input()")).value == "yes"
        with pytest.raises(pyrepl3.ExecutionTimeout, match=rf"longer than {LIMIT:g} s"):
            await session.execute(RUNS_ON)


async def test_a_strict_session_is_counted_too() -> None:
    config = dataclasses.replace(quick(), confinement="strict")
    async with pyrepl3.open_session(config=config, on_input=person) as session:
        assert (await session.execute("input()", timeout=LIMIT)).value == "yes"
        with pytest.raises(pyrepl3.ExecutionTimeout):
            await session.execute(f"{COMPUTES}try: input()\nfinally: stop = True", timeout=LIMIT)
