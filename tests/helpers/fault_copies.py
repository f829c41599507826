"""Copies of the packages with a fault put back, to see that an oracle finds it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = ("pyrepl3_worker", "pyrepl3_client")


def find_in_copy(patch: Path, folder: Path, search: str, *arguments: str) -> str:
    """Run a search in a copy of the packages that has a fault; return what it prints, or fail.

    Args:
        patch: puts the fault back.
        folder: an empty folder, for the copy.
        search: the module to run; its first argument is the folder that the packages must come from.
        arguments: the others.
    """
    for package in _PACKAGES:
        shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    applied = subprocess.run(
        ["git", "apply", "-p1", str(patch)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, (
        f"{patch.name} no longer fits the code: make it anew, so that it is looked for\n{applied.stderr}"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", search, str(folder), *arguments],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{_ROOT}"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{patch.stem} was not found: {done.stderr}"
    return done.stdout
