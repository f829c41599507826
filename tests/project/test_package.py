"""The package as it is installed: its version, its licence, and the systems on which it can be imported."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert pyrepl3.__version__ == importlib.metadata.version("pyrepl3")


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert PROJECT["license"] == "MIT"
    for name in PROJECT["license-files"]:
        assert (ROOT / name).read_text().startswith("MIT License")


def test_no_python_is_claimed_that_is_not_allowed() -> None:
    claimed = [
        int(classifier.rpartition(".")[2]) for classifier in PROJECT["classifiers"] if " :: 3." in classifier
    ]
    assert PROJECT["requires-python"] == f">=3.{min(claimed)}"


@pytest.mark.parametrize("system", ["darwin", "win32", "freebsd14"])
def test_another_system_gets_one_clear_import_error(system: str) -> None:
    """It names the system, the reason and a way out, before anything is imported that Linux alone has."""
    program = f"""
import sys
sys.platform = {system!r}
try:
    import pyrepl3_client.config
except ImportError as error:
    print(error)
print(sorted(name for name in sys.modules if name.startswith(("pyrepl3_", "asyncio", "msgspec"))))
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    error, loaded = done.stdout.splitlines()
    for word in ("Linux", system, "pidfd", "PR_SET_PDEATHSIG", "/proc", "WSL2", "container"):
        assert word in error
    assert loaded == "[]"
