"""What tests of a lying worker need: that worker as an interpreter, and a sibling session that goes on."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyrepl3_client as pyrepl3
from tests.helpers.scripted_sessions import brief

LYING_WORKER = Path(__file__).with_name("lying_worker.py")


def lying(tmp_path: Path, how: str = "", **options: Any) -> pyrepl3.WorkerConfig:
    """Return a configuration whose interpreter is the lying worker."""
    interpreter = tmp_path / "python"
    if not interpreter.exists():
        interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{LYING_WORKER}" "$@"\n')
        interpreter.chmod(0o755)
    return brief(python=str(interpreter), env={"LIE": how}, **options)


def gone(pid: int) -> bool:
    """Return whether the kernel knows no such process any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Sibling:
    """Another session of the same parent, which works all the while."""

    def __init__(self, session: pyrepl3.Session) -> None:
        self._session = session
        self._answered = asyncio.Event()
        self.answers = 0

    async def work(self) -> None:
        """Run code again and again, and check each answer."""
        while True:
            await self.answer()

    async def answer(self) -> None:
        """Run code once."""
        n = self.answers
        result = await self._session.execute(f"print({n})\n{n} * 7")
        assert (result.value, result.stdout) == (n * 7, f"{n}\n")
        self.answers += 1
        self._answered.set()

    async def next_answer(self) -> None:
        """Wait until it has answered once more."""
        self._answered.clear()
        await self._answered.wait()


@asynccontextmanager
async def undisturbed(session: pyrepl3.Session) -> AsyncGenerator[Sibling]:
    """Let a sibling session work meanwhile; it must neither fail nor stand still."""
    sibling = Sibling(session)
    work = asyncio.create_task(sibling.work())
    try:
        yield sibling
        progress = asyncio.create_task(sibling.next_answer())
        await asyncio.wait([work, progress], return_when=asyncio.FIRST_COMPLETED)
        progress.cancel()
        assert not work.done(), work
    finally:
        work.cancel()
        await asyncio.wait([work])
    await sibling.answer()
