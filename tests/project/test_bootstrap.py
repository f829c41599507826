"""`.ci/bootstrap` on machines of every sort: which Python it takes, and how it keeps .venv.

The machines are made of a PATH and a home in `tmp_path`. Their interpreters are this one, claiming to be
another version; `-m venv` and `-m pip` only leave a trace of having been called, so nothing is installed.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash") or "/bin/bash"

INTERPRETER = """
import os, sys, time
version, level, lacking, flags, trace, me, *arguments = sys.argv[1:]
while arguments and arguments[0] in ("-E", "-s"):
    del arguments[0]
if arguments[0] == "-c":
    for module in ("venv", "ensurepip", "ssl", "sqlite3", "ctypes"):
        sys.modules[module] = None if module in lacking else sys
    sys.version_info = (*map(int, version.split(".")), level, 0)
    sys.abiflags = flags
    sys._base_executable = me
    exec(arguments[1])
else:
    with open(trace, "a") as file:
        print(*arguments[1:], file=file)
    if arguments[1] == "venv":
        os.mkdir(arguments[-1] + "/bin")
        os.symlink(me, arguments[-1] + "/bin/python")
    elif trouble := os.environ.get("PIP_TROUBLE"):
        if trouble in arguments:
            print("no route to the registry")
            sys.exit(1)
        if trouble == "slow":
            time.sleep(0.1)
        if trouble == "endless":
            open(os.environ["REACHED"], "w").close()
            time.sleep(60)
"""


@dataclass(frozen=True)
class Machine:
    """A computer, as far as the bootstrap can see."""

    folder: Path
    clone: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def trace(self) -> list[str]:
        """What was asked of `-m venv` and `-m pip`, in order."""
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []

    def program(self, name: str, script: str, where: Path | None = None) -> Path:
        path = (where or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def python(
        self,
        name: str,
        version: str,
        *,
        level: str = "final",
        lacking: str = "",
        flags: str = "",
        where: Path | None = None,
    ) -> Path:
        path = (where or self.bin) / name
        told = f"{version} {level} '{lacking}' '{flags}' '{self.folder}/trace' '{path}'"
        self.program(name, f"exec '{sys.executable}' -IS '{self.folder}/interpreter.py' {told} \"$@\"", where)
        return path

    def pyenv(self, version: str) -> Path:
        """An installed version, which has a shim on PATH that fails as long as it is not active."""
        name = f"python{version.rpartition('.')[0]}"
        self.program(name, f"echo 'pyenv: {name}: command not found' >&2; exit 127")
        return self.python(name, version, where=self.folder / "home/.pyenv/versions" / version / "bin")

    def start(self, *arguments: str, tools: str = "", **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BASH, self.clone / ".ci/bootstrap", *arguments],
            env={"PATH": f"{self.bin}{tools}", "HOME": f"{self.folder}/home", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def find(self, **environment: str) -> Path:
        """The interpreter found. The search has no program but bash to help it."""
        process = self.start("--find", **environment)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return Path(out.removesuffix("\n"))

    def complain(self, **environment: str) -> str:
        """What is said when no interpreter is found."""
        process = self.start("--find", **environment)
        out, err = process.communicate()
        assert (process.returncode, out) == (1, "")
        return err

    def prepare(self, *groups: str, **environment: str) -> subprocess.Popen[str]:
        return self.start(*groups, tools=f":{os.defpath}", PYTHON=str(self.bin / "python3.13"), **environment)

    def prepared(self, *groups: str, **environment: str) -> list[str]:
        """What it took, this time, to make .venv ready."""
        before = len(self.trace)
        process = self.prepare(*groups, **environment)
        _, err = process.communicate()
        assert process.returncode == 0, err
        return self.trace[before:]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, clone=tmp_path / "a clone")
    machine.bin.mkdir()
    (tmp_path / "interpreter.py").write_text(INTERPRETER)
    (machine.clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/bootstrap", machine.clone / ".ci")
    shutil.copy(ROOT / "pyproject.toml", machine.clone)
    return machine


# ── Which Python ──


def test_takes_the_newest_of_those_on_PATH(machine: Machine) -> None:
    machine.python("python3", "3.12.9")
    newest = machine.python("python3.14", "3.14.2")
    machine.python("python3.13", "3.13.7")
    assert machine.find() == newest


def test_passes_over_shims_that_fail_for_the_version_behind_them(machine: Machine) -> None:
    machine.python("python3", "3.11.7")
    machine.pyenv("3.12.1")
    newest = machine.pyenv("3.13.0")
    assert machine.find() == newest


def test_believes_what_an_interpreter_says_rather_than_its_name(machine: Machine) -> None:
    machine.python("python3.14", "3.11.2")
    machine.program("python3.15", "echo Hello")
    machine.program("python3.13-config", "exit 0")
    plain = machine.python("python", "3.12.0")
    assert machine.find() == plain


@pytest.mark.parametrize(("level", "flags"), [("candidate", ""), ("alpha", ""), ("final", "t")])
def test_prefers_any_final_release_to_a_newer_unusual_one(machine: Machine, level: str, flags: str) -> None:
    unusual = machine.python("python3.15", "3.15.0", level=level, flags=flags)
    assert machine.find() == unusual, "better than nothing"
    final = machine.python("python3.12", "3.12.0", where=machine.folder / "home/.pyenv/versions/3.12.0/bin")
    assert machine.find() == final


def test_passes_over_a_python_that_cannot_make_environments(machine: Machine) -> None:
    machine.python("python3.13", "3.13.5", lacking="ensurepip")
    assert "apt install python3.13-venv" in machine.complain()
    older = machine.python("python3.12", "3.12.3")
    assert machine.find() == older


def test_finds_the_interpreter_behind_an_active_virtual_environment(machine: Machine) -> None:
    active = machine.folder / "active"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", active], check=True)
    found = machine.find(PATH=f"{active}/bin")
    assert found.resolve() == (active / "bin/python").resolve()
    assert not found.is_relative_to(active)


def test_without_any_says_what_was_seen_and_what_to_install(machine: Machine) -> None:
    old = machine.python("python3", "3.11.2")
    broken = machine.program("python3.13", "exit 127")
    said = machine.complain()
    assert f"{old} is Python 3.11.2, too old" in said
    assert f"{broken} does not run" in said
    assert "apt install python3" in said
    assert "PYTHON=/path/to/python3" in said


def test_an_empty_machine_gets_the_same_advice(machine: Machine) -> None:
    assert "pyenv install 3.13" in machine.complain()


def test_asks_uv_when_there_is_nothing_else(machine: Machine) -> None:
    fetched = machine.python("python3.13", "3.13.7", where=machine.folder / "uv")
    there = machine.folder / "uv/installed"
    machine.program(
        "uv",
        f"""[ "$UV_PYTHON_PREFERENCE" = only-managed ] || exit 9
        case "$1 $2" in
            "python install") : >'{there}' ;;
            "python find") [ -e '{there}' ] && echo '{fetched}' ;;
        esac""",
    )
    assert machine.find() == fetched


def test_a_failing_uv_leaves_the_advice(machine: Machine) -> None:
    machine.program("uv", "echo 'no route to the host' >&2; exit 2")
    said = machine.complain()
    assert "no route to the host" in said
    assert "pyenv install 3.13" in said


def test_PYTHON_wins_over_a_newer_one(machine: Machine) -> None:
    machine.python("python3.14", "3.14.0")
    named = machine.python("python3.12", "3.12.0")
    assert machine.find(PYTHON="python3.12") == named
    assert machine.find(PYTHON=str(named)) == named


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("missing", "is no program that can be run"),
        ("broken", "does not run"),
        ("old", "is Python 3.11.2, too old; pyrepl3 needs CPython 3.12 or newer"),
        ("bare", "is Python 3.13.0 without ensurepip (on Debian and Ubuntu: apt install python3.13-venv)"),
        ("partial", "is Python 3.13.0, built without sqlite3"),
    ],
)
def test_an_unusable_PYTHON_is_an_error_though_another_would_do(
    machine: Machine, name: str, complaint: str
) -> None:
    machine.python("python3.14", "3.14.0")
    machine.program("broken", "exit 1")
    machine.python("old", "3.11.2")
    machine.python("bare", "3.13.0", lacking="ensurepip")
    machine.python("partial", "3.13.0", lacking="sqlite3")
    assert f"PYTHON={name} {complaint}" in machine.complain(PYTHON=name)


# ── What becomes of .venv ──

CREATE = ["venv --prompt pyrepl3 .venv", "pip install pip>=25.1"]
INSTALL = ["pip install --editable . --group test"]


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """A machine on which `make test` was run once."""
    machine.python("python3.13", "3.13.7")
    assert machine.prepared("test") == [*CREATE, *INSTALL]
    return machine


def test_is_set_up_once(ready: Machine) -> None:
    assert ready.prepared("test") == []
    assert ready.prepared() == []


def test_a_group_is_added_when_it_is_first_needed(ready: Machine) -> None:
    assert ready.prepared("lint", "test", "bench") == ["pip install --group lint --group bench"]
    assert ready.prepared("lint", "test") == []


def a_changed_project(machine: Machine) -> list[str]:
    with (machine.clone / "pyproject.toml").open("a") as file:
        file.write("\n# changed")
    return INSTALL


def a_vanished_interpreter(machine: Machine) -> list[str]:
    (machine.clone / ".venv/bin/python").unlink()
    return [*CREATE, *INSTALL]


def a_stranger(machine: Machine) -> list[str]:
    (machine.clone / ".venv/pyrepl3.stamp").unlink()
    return [*CREATE, *INSTALL]


def another_interpreter(machine: Machine) -> list[str]:
    machine.python("real", "3.14.0", where=machine.folder)
    (machine.bin / "python3.13").unlink()
    (machine.bin / "python3.13").symlink_to(machine.folder / "real")
    return [*CREATE, *INSTALL]


@pytest.mark.parametrize(
    "change", [a_changed_project, a_vanished_interpreter, a_stranger, another_interpreter]
)
def test_is_set_up_again_after(ready: Machine, change: Callable[[Machine], list[str]]) -> None:
    needed = change(ready)
    assert ready.prepared("test") == needed
    assert ready.prepared("test") == []


def test_a_copied_clone_gets_its_own(ready: Machine) -> None:
    copy = replace(ready, clone=ready.folder / "copy")
    shutil.copytree(ready.clone, copy.clone, symlinks=True)
    assert copy.prepared("test") == [*CREATE, *INSTALL]


def test_what_pip_refuses_is_shown_and_changes_nothing(ready: Machine) -> None:
    process = ready.prepare("lint", PIP_TROUBLE="lint")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "no route to the registry" in err
    assert "--group lint" in err
    assert ready.prepared("test") == []
    assert ready.prepared("lint") == ["pip install --group lint"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_set_up_is_started_over(ready: Machine, how: signal.Signals) -> None:
    reached = ready.folder / "reached"
    os.mkfifo(reached)
    process = ready.prepare("lint", PIP_TROUBLE="endless", REACHED=str(reached))
    reached.read_bytes()  # waits until pip is at work
    os.killpg(process.pid, how)
    process.communicate()
    assert process.returncode in {130, 143, -signal.SIGKILL}
    assert ready.prepared("test") == [*CREATE, *INSTALL]


def test_two_at_once_take_turns(machine: Machine) -> None:
    machine.python("python3.13", "3.13.7")
    both = [machine.prepare("test", PIP_TROUBLE="slow") for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert machine.trace == [*CREATE, *INSTALL]
