"""Runs a program undisturbed, and once more with its checkpoints and its worker's death, and compares."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, override
from unittest.mock import patch

import anyio
import msgspec

import pyrepl3_client as pyrepl3
from pyrepl3_client._session import checkpoints
from pyrepl3_schemas.messages import Checkpoint, Restore
from tests.helpers.real_sessions import when_back
from tests.integration.recovery.oracle.programs import MODULE, SLOW, Program
from tests.integration.recovery.oracle.settings import PROVIDED
from tests.worker.checkpoint.oracle import walker as names_walker
from tests.worker.checkpoint.oracle.programs import CHECKPOINT

_WALKER: Final = str(Path(__file__).with_name("walker.py"))
_NOT_WHOLE: Final = "(not restored whole)"
_PATIENCE: Final = 60.0
"""Seconds for what takes a fraction of one."""
_CLOCK: Final = 0.02
"""Seconds that objects' code may take in programs about the clock: less than their data and imports take."""
_SLOW_MODULE: Final = """
import os, time
end = time.thread_time() + (0.6 if os.path.exists(os.path.dirname(__file__) + '/slow_now') else 0)
while time.thread_time() < end: pass
class Slow:
    def __init__(self, v): self.v = v
"""
_FICKLE_MODULE: Final = """
class Part:
    def __init__(self, v): self.v = v
"""


def search(word: str) -> str:
    """Stand for a host function."""
    return word


class Oracle:
    """Workers and a store for many programs. A context manager."""

    def __init__(self, folder: Path, *, warm: tuple[str, ...] = ()) -> None:
        """Keep everything in a folder.

        Args:
            folder: an empty one.
            warm: modules that the workers have imported from the beginning.
        """
        self._folder = folder
        self._warm = warm
        self._stack = ExitStack()
        self.programs = 0
        """How many have been run."""

    def __enter__(self) -> Self:
        """Start the workers."""
        runner = self._runner = self._stack.enter_context(asyncio.Runner())
        config = pyrepl3.WorkerConfig(cwd="own", close_grace=1.0)
        self._pool = runner.run(pyrepl3.WorkerPool(2, config, warm=self._warm).__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them."""
        self._runner.run(self._pool.__aexit__(kind, error, trace))
        self._stack.close()

    def worker_file(self) -> str:
        """Return the file that the workers' code comes from."""

        async def ask() -> str:
            async with self._pool.open_session() as session:
                return str((await session.execute("__import__('pyrepl3_worker').__file__")).value)

        return self._runner.run(ask())

    def difference(self, program: Program) -> str:
        """Return what is not as in an undisturbed run and not reported either; empty if there is nothing."""
        with _short_clock() if "clock" in program.parts else ExitStack():
            return self._runner.run(self._compare(program))

    async def _compare(self, program: Program) -> str:
        self.programs += 1
        name = f"s{self.programs}"
        open_session = partial(self._pool.open_session, capabilities={"search": search})
        back = asyncio.Queue[pyrepl3.Recovery]()
        with anyio.fail_after(_PATIENCE):
            async with (
                open_session(recovery="none") as first,
                open_session(
                    name,
                    store=self._folder / "state.db",
                    recovery=program.policy,
                    on_recovery=when_back(back.put_nowait),
                ) as second,
            ):
                undisturbed = _Run(program, first, self._folder / f"{name}-undisturbed")
                killed = _KilledRun(program, second, self._folder / f"{name}-killed", back)
                async with asyncio.TaskGroup() as group:
                    group.create_task(undisturbed.run())
                    group.create_task(killed.run())
                if killed.wrong or killed.gave_up:
                    return killed.wrong
                expected = await undisturbed.describe(killed.reported)
                found = await killed.describe(killed.reported)
        left_out = killed.reported | {
            f"({key})"
            for key, setting in program.settings.items()
            if any(name.startswith(setting.reported_as) for name in killed.reported)
        }
        return "\n".join(
            f"{name}\n  undisturbed {expected.get(name)}\n  came back   {found.get(name)}"
            for name in sorted(expected.keys() | found.keys())
            if name not in left_out and expected.get(name) != found.get(name)
        )


class _Run:
    """A program in a session, with a folder of its own that is none of the session's."""

    def __init__(self, program: Program, session: pyrepl3.Session, outside: Path) -> None:
        self._program = program
        self._session = session
        self._outside = outside
        outside.mkdir()
        (outside / f"{SLOW}.py").write_text(_SLOW_MODULE)
        (outside / f"{MODULE}.py").write_text(_FICKLE_MODULE)
        self._root = ""
        self._errors: dict[str, str] = {}

    async def _begin(self) -> None:
        result = await self._session.execute(
            f"import os, sys; sys.path.append({str(self._outside)!r}); os.getcwd()"
        )
        self._root = str(result.value)

    async def _execute(self, index: int) -> None:
        result = await self._session.execute(self._program.cells[index], check=False)
        if result.error is not None:
            self._errors[f"(cell {index})"] = f"{result.error.type}: {result.error.message}"

    async def run(self) -> None:
        """Run all cells."""
        await self._begin()
        for index, cell in enumerate(self._program.cells):
            if cell != CHECKPOINT:
                await self._execute(index)

    async def describe(self, without: Collection[str]) -> dict[str, Any]:
        """Return what is left, by what it is about."""
        target = self._outside / "found.json"
        arguments: dict[str, Any] = {
            "target": str(target),
            "names_walker": names_walker.__file__,
            "root": self._root,
            "probes": {key: setting.probe for key, setting in self._program.settings.items()},
            "provided": list(PROVIDED),
            "without": sorted({*without, *self._program.looks}),
            "history": "module" not in self._program.parts,
        }
        await self._session.execute(
            f"__import__('runpy').run_path({_WALKER!r})['write'](globals(), **{arguments!r})"
        )
        looked: dict[str, str] = {}
        for name, look in self._program.looks.items():
            result = await self._session.execute(look, check=False)
            looked[name] = str(result.repr if result.error is None else result.error.message)
        text = target.read_text().replace(self._root, "<root>").replace(str(self._outside), "<outside>")
        return json.loads(text) | looked | self._errors


class _KilledRun(_Run):
    """A program whose worker dies."""

    def __init__(
        self,
        program: Program,
        session: pyrepl3.Session,
        outside: Path,
        back: asyncio.Queue[pyrepl3.Recovery],
    ) -> None:
        super().__init__(program, session, outside)
        self._back = back
        self.reported: set[str] = set()
        self.wrong = ""
        """What is wrong, whatever the comparison says."""
        self.gave_up = False
        """Whether the rest of the program needs what was reported."""

    @override
    async def run(self) -> None:
        await self._begin()
        program = self._program
        for index, cell in enumerate(program.cells):
            if cell != CHECKPOINT:
                await self._execute(index)
            else:
                await self._session.checkpoint()
            if index == program.killed_after:
                await self._die_and_come_back()
                last = max(n for n, each in enumerate(program.cells[: index + 1]) if each == CHECKPOINT)
                later = "\n".join(program.cells[last:])
                self.gave_up = any(re.search(rf"\b{re.escape(name)}", later) for name in self.reported)
                if self.wrong or self.gave_up:
                    return

    async def _die(self) -> pyrepl3.Recovery:
        os.kill(self._session.worker.pid, signal.SIGKILL)
        while (report := await self._back.get()).progress is not None:
            pass
        return report

    async def _die_and_come_back(self) -> None:
        fickle = self._outside / f"{MODULE}.py"
        (self._outside / "slow_now").touch()
        if "module" not in self._program.parts:
            self._check(await self._die())
            return
        hidden = fickle.rename(self._outside / "hidden")
        report = await self._die()
        hidden.rename(fickle)
        if report.lost:
            # Its checkpoint is kept, whatever happens to the namespace now.
            await self._session.execute("later = 1")
            await self._session.checkpoint()
            await self._die()
            try:
                report = await self._session.restore(_NOT_WHOLE)
            except ValueError as error:
                self.wrong = f"the checkpoint that was not restored whole is gone: {error}"
                return
            if report.unsaved:
                self.wrong = f"it is not restored whole once more: {report.unsaved}"
        else:
            self._check(report)

    def _check(self, report: pyrepl3.Recovery) -> None:
        reasons = {each.name: each.reason for each in (*report.lost, *report.outdated)}
        self.reported = reasons.keys() | {name for name, _ in report.remade}
        for name in self.reported:
            if not self._program.may_be_named(name, reasons.get(name, "")):
                self.wrong += f"{name} is named: {reasons.get(name, 'made again')}\n"
        if report.skipped and not self.reported:
            self.wrong += f"left out: {report.skipped}\n"


@contextmanager
def _short_clock() -> Generator[None]:
    """Give objects' own code next to no time, in checkpoints and in restores."""

    def checkpoint(**options: Any) -> Checkpoint:
        return msgspec.structs.replace(Checkpoint(**options), timeout=_CLOCK)

    def restore(**options: Any) -> Restore:
        return msgspec.structs.replace(Restore(**options), timeout=_CLOCK)

    with (
        patch.object(checkpoints, "Checkpoint", checkpoint),
        patch.object(checkpoints, "Restore", restore),
    ):
        yield
