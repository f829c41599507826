"""The programs in the README and in `docs/` are run, not only read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
PROGRAMS = [
    (f"{name} {number}", program)
    for name, text in PAGES.items()
    for number, program in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL), 1)
]
SAID = {
    "README.md 1": [
        "42 42 top_level_await",
        "hello",
        "['needle-0', 'needle-1']",
        "TimeoutError",
        "while True: pass",
        "2",
    ],
    "README.md 2": ["Ada"],
    "README.md 3": ["42"],
    "interpreters.md 1": ["[True, "],
    "displays.md 2": ["True", "\nline 99999\n"],
    "displays.md 1": [
        "<table><tr><td>1</td></tr></table>",
        "Table(1) Table(1)",
        "new '0 of 2'",
        "update '2 of 2'",
    ],
    "host-functions.md 1": ["[2, ['<a>', '<b>']]", "(row: list)", "NOW"],
    "host-functions.md 2": ["paid 21", "pay() was not approved (call "],
    "values.md 1": [
        "{'sum': Decimal('1.10'), 'big': 1180591620717411303424, 'ids': [7]}",
        "None - object at [1]['socket'] has no form as plain data",
        "''",
    ],
    "values.md 2": [
        "[0, 1]",
        "'choosen' cannot be got: there is no variable 'choosen' in the session; did you mean 'chosen'?",
    ],
    "sessions-that-survive.md 1": ["receipt for 21 False", "receipt for 21 True", "worker incarnation 2"],
    "pools.md 1": ["'USER-7'", "ZeroDivisionError", "3 3 0 True True", "\nTrue\n"],
    "sessions-that-survive.md 2": [
        "1.1 interrupted True False its end is not on record\n",
        "2.1 ended True True",
    ],
    "telemetry.md 1": ["double ok in first", "died: killed from outside (SIGKILL)", "everything is back"],
    "ipython.md 1": ["Wall time", "45", "['a', 'b']", "hello"],
    "files.md 1": ["['data', 'report.txt']", "2 cities", "'/etc/shadow' is not there for the session's code"],
    "network.md 1": ["Tunnel connection failed: 403 Forbidden"],
    "stores.md 1": ["analysis-7 closed 1 ", "[('step-1', 'finished')]", "bytes are given back"],
    "confinement.md 1": ["'no_new_privs'", "'files'", "FileNotFoundError"],
}


NEEDS = {"ipython.md 1": "IPython"}
"""Packages of the optional groups that a program is about."""


def test_every_program_is_known_here() -> None:
    assert {name for name, _ in PROGRAMS} == SAID.keys()


@pytest.mark.parametrize(("name", "program"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_a_program_of_the_documents(name: str, program: str) -> None:
    """It runs, says what it should, and complains of nothing."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    if name == "files.md 1" and Path(sys.prefix).is_relative_to("/tmp"):
        pytest.skip("this checkout is below /tmp, and strict sessions see it in theirs")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for text in SAID[name]:
        assert text in run.stdout
    assert run.stderr == ""
