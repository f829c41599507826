"""The README is run, not only read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SAID = [
    ["42 42 top_level_await", "hello", "['needle-0', 'needle-1']", "TimeoutError", "while True: pass", "2"],
    ["Ada"],
    ["42"],
    ["receipt for 21 False", "receipt for 21 True", "worker incarnation 2"],
    ["'no_new_privs'", "'files'", "FileNotFoundError"],
]


@pytest.mark.parametrize(("program", "said"), list(zip(PROGRAMS, SAID, strict=True)))
def test_a_program_of_the_readme(program: str, said: list[str]) -> None:
    """It runs, says what it should, and complains of nothing."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for text in said:
        assert text in run.stdout
    assert run.stderr == ""


def test_every_make_target_it_names_exists() -> None:
    """`make demo` and the like are targets of the Makefile."""
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", README)):
        assert re.search(rf"^{target}\b.*:", makefile, re.MULTILINE), target
