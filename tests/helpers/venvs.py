"""Virtual environments in which nothing of ours is installed."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

OTHER_MSGSPEC = "0.19.0"
"""Older than what the worker itself needs."""


def make_venv(folder: Path, *options: str, python: str = sys.executable) -> Path:
    """Make a virtual environment without pip, and without network; return its interpreter."""
    command = [python, "-m", "venv", "--without-pip", *options, str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=plain_environment())
    return folder / "bin" / "python"


def venv_with_pip(request: pytest.FixtureRequest) -> Path:
    """Return the interpreter of one that has pip alone (from the wheel that Python carries)."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "venv", str(folder)]
        subprocess.run(command, check=True, capture_output=True, env=plain_environment())

    return _made_once(request, "pip", make)


def venv_with_other_msgspec(request: pytest.FixtureRequest) -> Path:
    """Return the interpreter of one that has another version of msgspec; skip the test where none is had."""

    def make(folder: Path) -> None:
        target = site_packages(make_venv(folder))
        command = [sys.executable, "-m", "pip", "install", "-q", f"msgspec=={OTHER_MSGSPEC}"]
        done = subprocess.run([*command, "--target", target], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(folder)
            pytest.skip(f"msgspec {OTHER_MSGSPEC} can't be installed: {done.stderr.strip()[-200:]}")

    return _made_once(request, f"msgspec-{OTHER_MSGSPEC}", make)


def site_packages(python: Path) -> Path:
    """Return the folder of the packages of a virtual environment."""
    return next((python.parent.parent / "lib").glob("python3*/site-packages"))


def plain_environment() -> dict[str, str]:
    """Return this process's environment without what tells Python where its modules are."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _made_once(request: pytest.FixtureRequest, name: str, make: Callable[[Path], None]) -> Path:
    """Make it in pytest's cache, where other runs find it; without a cache, in the folder of this run."""
    if request.config.pluginmanager.has_plugin("cacheprovider"):
        assert request.config.cache is not None
        base = request.config.cache.mkdir("venvs")
    else:
        base = request.getfixturevalue("tmp_path_factory").getbasetemp()
    folder = base / f"{sys.version_info[0]}.{sys.version_info[1]}-{name}"
    done = folder / "made"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes want it too
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder / "bin" / "python"
