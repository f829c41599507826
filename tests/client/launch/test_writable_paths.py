"""A policy may let code write to nothing that is run outside of its boundary, and to no store."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
import pyrepl3_worker
from pyrepl3_client import SandboxPolicy, WorkerConfig
from pyrepl3_client._launch.interpreter import base_python
from pyrepl3_client._launch.writable_paths import check_writable
from pyrepl3_client._session.open import check_policy
from tests.helpers.venvs import make_venv, site_packages


def policy(*writable: Path | str, **options: Any) -> WorkerConfig:
    sandbox = SandboxPolicy(writable=tuple(map(str, writable)))
    return WorkerConfig(confinement="strict", sandbox=sandbox, **options)


def why_not(*writable: Path | str, store: str | None = None, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"^writable holds ") as error:
        check_writable(policy(*writable, **options), store)
    return str(error.value)


OWN = [
    sys.prefix,
    f"{sys.prefix}/lib",
    f"{sys.prefix}/pyvenv.cfg",
    sys.base_prefix,
    os.path.dirname(base_python()),
    os.path.dirname(sys.prefix),
    os.path.dirname(str(pyrepl3_worker.__file__)),
    f"{os.path.dirname(str(pyrepl3_worker.__file__))}/session",
    os.path.dirname(os.__file__),
    "/usr/lib",
    "/usr",
    "/etc",
]


@pytest.mark.parametrize("path", OWN)
def test_what_this_program_runs_is_refused(path: str) -> None:
    text = why_not(path)
    assert repr(path) in text
    assert "give a folder beside it" in text


def test_what_another_interpreter_reads_is_refused(tmp_path: Path) -> None:
    python = make_venv(tmp_path / "project/back/.venv")
    checkout, named = tmp_path / "checkout", tmp_path / "named"
    (site_packages(python) / "app.pth").write_text(f"{checkout}/src\n")
    for folder in (checkout / "src", named, tmp_path / "results", tmp_path / "project/back/data"):
        folder.mkdir(parents=True)
    options: dict[str, Any] = {"python": str(python), "env": {"PYTHONPATH": str(named)}}
    for path, how in (
        (tmp_path / "project", "holds"),
        (tmp_path / "project/back", "holds"),
        (tmp_path / "project/back/.venv", "is"),
        (python.parent, "is"),
        (site_packages(python) / "package", "lies in"),
        (checkout, "holds"),
        (checkout / "src", "is"),
        (checkout / "src/sitecustomize.py", "lies in"),
        (checkout / "src/encodings", "lies in"),
        (named, "is"),
    ):
        text = why_not(path, **options)
        assert f"{str(path)!r} and that {how} " in text
    for path in (
        tmp_path / "results",
        tmp_path / "project/back/data",
        checkout / "src/data",
        tmp_path / "project/back/.venv/share/data",
    ):
        check_writable(policy(path, **options))
    assert "on the sys.path" in why_not(checkout / "src/decimal_data", warm=("decimal_data",), **options)


def test_links_are_followed_both_ways(tmp_path: Path) -> None:
    python = make_venv(tmp_path / "real/venv")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "to_venv").symlink_to("real/venv")
    text = why_not(tmp_path / "to_venv", python=str(python))
    assert f"which leads to {str(tmp_path / 'real/venv')!r}" in text
    assert "holds" in why_not(tmp_path / "real", python=str(tmp_path / "link/venv/bin/python"))


def test_the_store_is_not_the_codes_to_write(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    store = tmp_path / "data/sessions.db"
    assert "the store of the session" in why_not(tmp_path / "data", store=str(store))
    check_writable(policy(tmp_path / "data/work"), str(store))
    for url in (store, f"sqlite://{store}?synchronous=FULL", str(store)):
        with pytest.raises(ValueError, match="the store of the session"):
            pyrepl3.open_session(store=url, config=policy(tmp_path / "data"))
    for url in ("memory:", "http://localhost:1", None):
        check_policy(policy(tmp_path / "data"), url)


def test_it_is_refused_before_anything_is_started() -> None:
    with pytest.raises(ValueError, match="the prefix of the interpreter"):
        pyrepl3.open_session(config=policy(sys.prefix))
    with pytest.raises(ValueError, match="the prefix of the interpreter"):
        pyrepl3.WorkerPool(1, policy(sys.prefix))
