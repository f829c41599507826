"""Each fault that the checkpoint room once had is found when it is put back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
FAULTS = sorted(HERE.glob("faults/*.patch"))
BOUNDED = ("sharing-through-what-the-memo-has", "methods-saved-by-name", "views-of-mappings-copied")
"""The faults of the bounded form: one of each part of the room."""


def search(patch: Path, folder: Path) -> str:
    """Return the program that finds a fault, or fail."""
    shutil.copytree(
        ROOT / "pyrepl3_worker", folder / "pyrepl3_worker", ignore=shutil.ignore_patterns("__pycache__")
    )
    applied = subprocess.run(
        ["git", "apply", "-p1", str(patch)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, (
        f"{patch.name} no longer fits the code: make it anew, so that it is looked for\n{applied.stderr}"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.worker.checkpoint.oracle.find_fault", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{patch.stem} was not found: {done.stderr}"
    return done.stdout


def test_there_are_faults() -> None:
    assert len(FAULTS) >= 10
    assert {patch.stem for patch in FAULTS}.issuperset(BOUNDED)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_fault_is_found(name: str, tmp_path: Path) -> None:
    print(search(HERE / "faults" / f"{name}.patch", tmp_path))


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("patch", FAULTS, ids=lambda patch: patch.stem)
def test_every_fault_is_found(patch: Path, tmp_path: Path) -> None:
    print(search(patch, tmp_path))
