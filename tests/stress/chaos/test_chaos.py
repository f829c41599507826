"""The fault run: in a bounded form, in a long one, and interrupted."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stress.chaos.checks import processes_with
from tests.stress.chaos.plan import Fault, Kind, faults_of, kinds_of

ROOT = Path(__file__).parents[3]
CUT = "frames whose middle was their end"


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "tests.stress.chaos", *args]


def chaos(*args: str) -> dict[str, int]:
    """Do a fault run as `make chaos` does; return the figures that it prints."""
    done = subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = re.findall(r"^ *([\d,]+) (.+)$", done.stdout, re.MULTILINE)
    return {what: int(count.replace(",", "")) for count, what in figures}


@pytest.mark.timeout(120)
def test_whatever_is_killed_or_full_costs_nothing_but_time() -> None:
    figures = chaos("--seed", "2", "--sessions", "2", "--cells", "24")
    assert figures["executions"] == 48
    assert [fault for fault in Fault if not figures[fault]] == []
    assert figures[CUT] >= figures[Fault.CUT_FRAME]
    assert figures["executions and openings refused on a full disk"] > 0


@pytest.mark.timeout(120)
def test_a_disk_without_a_file_system_of_its_own_is_filled_by_a_limit() -> None:
    figures = chaos("--seed", "3", "--sessions", "1", "--cells", "16", "--limit")
    assert figures[Fault.FULL_DISK] == 1


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_thousands_of_executions(seed: str) -> None:
    figures = chaos("--seed", seed, "--sessions", "4", "--cells", "250")
    assert figures[CUT] >= figures[Fault.CUT_FRAME]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    arguments = command("--seed", "4", "--sessions", "2", "--cells", "400")
    with subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stderr is not None
        for line in run.stdout:
            if line.startswith("the first"):
                break
        run.send_signal(signal.SIGINT)
        assert run.stdout.read() == "interrupted; seed 4 repeats it\n"
        assert run.stderr.read() == ""
    assert run.returncode == 130
    assert list(processes_with(b"TMPDIR=" + str(tmp_path).encode())) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_has_every_kind_of_cell_and_every_fault(seed: int) -> None:
    kinds = kinds_of(seed, len(Kind) + len(Fault))
    assert set(kinds) == set(Kind)
    assert set(faults_of(seed, 0, kinds).values()) == set(Fault)
    assert faults_of(seed, 0, kinds) == faults_of(seed, 0, kinds) != faults_of(seed, 1, kinds)
