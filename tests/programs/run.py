"""Runs a program in plain Python and in a session, and compares what its tests came to."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from tests.programs.known import reason_of
from tests.programs.suites import SETTINGS, SUITES, Suite, fetch

_SECONDS: Final = 900.0
_PLACE: Final = Path(__file__).parent

type Outcomes = dict[str, tuple[str, str]]
"""By test: what it came to, and what is said of that."""


@dataclass(frozen=True)
class Difference:
    """A test that comes to something else in a session."""

    test: str
    plain: str
    inside: str
    text: str
    """What is said of it: that of the session, if it says anything."""
    reason: str
    """Why that is, if it is known."""

    def __str__(self) -> str:
        text = "\n".join(f"        {line}" for line in self.text.splitlines()[-12:])
        why = self.reason or "NOT KNOWN"
        return f"{self.test}: {self.plain} in plain Python, {self.inside} in a session: {why}\n{text}"


@dataclass(frozen=True)
class Program:
    """A script that is also a cell, and what it reads in its environment."""

    file: str
    names: dict[str, str]

    @property
    def source(self) -> str:
        return (_PLACE / self.file).read_text()

    def environment(self, outcomes: Path) -> dict[str, str]:
        names = {f"PROGRAM_{name}": value for name, value in self.names.items()}
        return {**os.environ, **names, "PROGRAM_OUTCOMES": str(outcomes)}


def _suite(suite: Suite) -> Program:
    return Program(
        "pytest_program.py",
        {
            "IMPORTED": str(suite.folder / suite.imported),
            "TESTS": str(suite.folder / suite.tests),
            "SETTINGS": str(SETTINGS),
        },
    )


MODULES: Final = (_PLACE / "modules.txt").read_text().split()
"""Of CPython's tests, those that touch what a worker does in its own way, and that end in a minute or two."""
PROGRAMS: Final = {
    **{module: Program("unittest_program.py", {"MODULE": module}) for module in MODULES},
    **{name: _suite(suite) for name, suite in SUITES.items()},
}


def compare(name: str) -> tuple[int, list[Difference]]:
    """Run a program both ways; return how many tests it has, and what differs."""
    if name in SUITES:
        fetch(SUITES[name])
    with tempfile.TemporaryDirectory(prefix="programs-") as folder:
        expected, seen = _run_plain(name, Path(folder)), _run_inside(name, Path(folder))
    found = list[Difference]()
    for test in sorted({*expected, *seen}):
        plain, said = expected.get(test, ("absent", ""))
        inside, text = seen.get(test, ("absent", ""))
        if plain != inside:
            found.append(Difference(test, plain, inside, text or said, reason_of(test, inside, text)))
    return len(expected), found


def _run_plain(name: str, folder: Path) -> Outcomes:
    outcomes, script = folder / "plain.jsonl", folder / "program.py"
    script.write_text(PROGRAMS[name].source)
    work = folder / "plain"
    work.mkdir()
    with (folder / "plain.log").open("w") as log:
        subprocess.run(
            [sys.executable, str(script)],
            cwd=work,
            env=PROGRAMS[name].environment(outcomes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=_SECONDS,
            check=False,
        )
    return _read(outcomes)


def _run_inside(name: str, folder: Path) -> Outcomes:
    outcomes, work = folder / "inside.jsonl", folder / "inside"
    work.mkdir()
    program = PROGRAMS[name]
    config = pyrepl3.WorkerConfig(cwd=str(work), env=program.environment(outcomes))
    with sync.open_session(config=config, recovery="none") as session:
        result = session.execute(program.source, timeout=_SECONDS, check=False)
    found = _read(outcomes)
    if result.error is not None:
        found["the cell"] = result.error.type, result.error.traceback
    return found


def _read(file: Path) -> Outcomes:
    """Return the worst outcome of each test: one has several if a part of it fails, or its end."""
    found: Outcomes = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        test, outcome, text = json.loads(line)
        if test not in found or found[test][0] in ("unfinished", "passed"):
            found[test] = outcome, text
    return found
