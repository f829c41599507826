"""The package as it is installed: its version and its licence."""

import importlib.metadata
import tomllib
from pathlib import Path

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
