"""What an interpreter needs, as it is read from files and as the interpreter itself says."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrepl3_client._launch.interpreter import base_python
from pyrepl3_client._launch.python_view import find_view
from pyrepl3_worker.confinement.visible_paths import outermost
from tests.helpers.venvs import make_venv, site_packages

SAYS = """
import json, os, sys
paths = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path]
path = sys.executable
while True:
    paths.append(os.path.dirname(path))
    if not os.path.islink(path): break
    path = os.path.join(os.path.dirname(path), os.readlink(path))
print(json.dumps([each for path in paths if os.path.isabs(path) for each in (path, os.path.realpath(path))]))
"""


def said_by(python: str, environment: dict[str, str], directory: Path) -> tuple[str, ...]:
    command = [python, "-P", "-c", SAYS]
    output = subprocess.check_output(command, env=environment, cwd=directory)
    return outermost(json.loads(output))


def own(folder: Path) -> str:
    return sys.executable


def base(folder: Path) -> str:
    return base_python()


def system(folder: Path) -> str:
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("this system has no Python of its own")
    return "/usr/bin/python3"


def by_name(folder: Path) -> str:
    system(folder)
    return "python3"


def venv(folder: Path) -> str:
    return str(make_venv(folder / "a venv"))


def sharing(folder: Path) -> str:
    return str(make_venv(folder / "venv", "--system-site-packages"))


def copied(folder: Path) -> str:
    return str(make_venv(folder / "venv", "--copies"))


def linked(folder: Path) -> str:
    make_venv(folder / "venv")
    (folder / "link").symlink_to("venv")
    return str(folder / "link/bin/python")


def editable(folder: Path) -> str:
    python = make_venv(folder / "venv")
    for name in ("checkout/src", "beside", "commented"):
        (folder / name).mkdir(parents=True)
    lines = (
        f"{folder}/checkout/src",
        "../../../../../beside  ",
        f"#{folder}/commented",
        "/nowhere",
        "import os",
    )
    (site_packages(python) / "__editable__.app.pth").write_text("\n".join(lines))
    (site_packages(python) / ".hidden.pth").write_text(f"{folder}/commented")
    return str(python)


def relative(folder: Path) -> str:
    os.mkdir(folder / "modules")
    return base_python()


def user(folder: Path) -> str:
    packages = site_packages(make_venv(folder / "like")).relative_to(folder / "like")
    (folder / ".local" / packages).mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    (folder / ".local" / packages / "mine.pth").write_text(f"{folder}/elsewhere")
    return base_python()


@pytest.mark.parametrize(
    "make", [own, base, system, by_name, venv, sharing, copied, linked, editable, relative, user]
)
def test_it_is_what_the_interpreter_says(tmp_path: Path, make: Callable[[Path], str]) -> None:
    python = make(tmp_path)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    if make is relative:
        environment["PYTHONPATH"] = f"modules:{tmp_path}/none:/usr/share"
    found = outermost(find_view(python, environment, str(tmp_path)).all())
    assert found == said_by(python, environment, tmp_path)


def test_a_script_in_the_place_of_an_interpreter_is_read_and_not_run(tmp_path: Path) -> None:
    inside = make_venv(tmp_path / "inside")
    (tmp_path / "scripts").mkdir()
    wrapper = tmp_path / "scripts/wrapper"
    wrapper.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec {shlex.quote(str(inside))} "$@"\n')
    wrapper.chmod(0o755)
    view = find_view(str(wrapper), {}, str(tmp_path))
    assert str(tmp_path / "inside") in view.prefixes
    assert set(outermost(find_view(str(inside), {}, str(tmp_path)).all())) <= set(outermost(view.all()))
    assert not (tmp_path / "ran").exists()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    for name, target in ("one", "two"), ("two", "one"):
        (tmp_path / name).symlink_to(target)
    assert find_view(str(tmp_path / "one"), {}, "/").programs == [str(tmp_path)]
