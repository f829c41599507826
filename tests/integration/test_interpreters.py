"""Sessions in another interpreter: nothing of ours is installed there, and neither side sees the other's modules."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import WorkerConfig
from tests.helpers.venvs import (
    OTHER_MSGSPEC,
    make_venv,
    plain_environment,
    site_packages,
    venv_with_other_msgspec,
    venv_with_pip,
)

pytestmark = pytest.mark.anyio

LOOK = """
import importlib.metadata, importlib.util, os, shutil, subprocess, sys
def run(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
ours = ("msgspec", "pyrepl3_worker", "pyrepl3_schemas", "pyrepl3_client")
{
    "executable": sys.executable,
    "prefix": sys.prefix,
    "python": shutil.which("python"),
    "pip": shutil.which("pip"),
    "first": os.environ["PATH"].split(os.pathsep)[0],
    "virtual_env": os.environ.get("VIRTUAL_ENV"),
    "shell": run("sh", "-c", "python -c 'import sys; print(sys.prefix)'"),
    "listed": run("pip", "list", "--disable-pip-version-check", "--format=freeze"),
    "distributions": sorted(each.name for each in importlib.metadata.distributions()),
    "modules": sorted(name for name in sys.modules if name.partition(".")[0] in ours),
    "found": [name for name in ours if importlib.util.find_spec(name)],
    "path": sys.path,
}
"""


async def look(config: WorkerConfig) -> dict[str, Any]:
    async with pyrepl3.open_session(config=config) as session:
        return (await session.execute(LOOK)).value


async def spawn_error(python: Path | str, **options: Any) -> str:
    with pytest.raises(pyrepl3.SpawnError) as error:
        async with pyrepl3.open_session(config=WorkerConfig(python=str(python), **options)):
            pass
    return str(error.value)


def program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("level", ["limits", "strict"])
async def test_a_session_has_the_venvs_programs_and_packages_alone(
    request: pytest.FixtureRequest, level: Any
) -> None:
    python = venv_with_pip(request)
    found = await look(WorkerConfig(python=str(python), confinement=level, cwd="/"))
    venv = str(python.parent.parent)
    assert {name: found[name] for name in ("executable", "python")} == {
        "executable": str(python),
        "python": str(python),
    }
    assert found["pip"] == str(python.parent / "pip")
    assert found["first"] == str(python.parent)
    assert [found["prefix"], found["virtual_env"], found["shell"]] == [venv] * 3
    assert found["distributions"] == ["pip"]
    assert found["listed"].startswith("pip==")
    assert found["listed"].count("==") == 1
    assert found["modules"] == found["found"] == []
    inside = [folder for folder in found["path"] if folder and not folder.startswith(sys.base_prefix)]
    assert inside == [str(site_packages(python))]


@pytest.mark.parametrize("level", ["limits", "strict"])
async def test_python_and_pip_are_the_sessions_own_by_default_too(
    level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/else")
    found = await look(WorkerConfig(confinement=level))
    assert [found["executable"], found["python"]] == [sys.executable] * 2
    assert found["first"] == str(Path(sys.executable).parent)
    assert [found["prefix"], found["virtual_env"], found["shell"]] == [sys.prefix] * 3


STRUCTS = f"""
import msgspec
assert msgspec.__version__ == {OTHER_MSGSPEC!r}
class Point(msgspec.Struct, tag=True, frozen=True):
    x: int
    y: int | msgspec.UnsetType = msgspec.UNSET
    def far(self): return self.x > 5
class Path(msgspec.Struct, kw_only=True, rename="upper"):
    points: list[Point] = []
    name: str
path = Path(points=[Point(1, 2)], name="p")
path
"""


async def test_structs_of_the_venvs_other_msgspec_are_values_and_come_back(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = WorkerConfig(python=str(venv_with_other_msgspec(request)))
    plain = {"POINTS": [{"type": "Point", "x": 1, "y": 2}], "NAME": "p"}
    sent: list[object] = []
    options: Any = {"store": str(tmp_path / "s.db"), "config": config, "recovery": "checkpoint"}
    async with pyrepl3.open_session("s", **options, capabilities={"send": sent.append}) as session:
        assert (await session.execute(STRUCTS)).value == plain
        assert await session.get("path") == plain
        await session.execute("send(path.points); path.points.append(Point(7))")
        assert sent == [plain["POINTS"]]
        assert (await session.checkpoint()).unsaved == []
    async with pyrepl3.open_session("s", **options, capabilities={"send": sent.append}) as session:
        assert session.recoveries[-1].lost == ()
        found = await session.execute(
            "again = msgspec.json.decode(msgspec.json.encode(path), type=Path)\n"
            "again == path, type(again.points[1]) is Point, path.points[1].far(), hash(Point(1)) == hash(Point(1)), "
            "msgspec.json.encode(path)"
        )
        text = b'{"POINTS":[{"type":"Point","x":1,"y":2},{"type":"Point","x":7}],"NAME":"p"}'
        assert found.value == [True, True, True, True, text]
        refused = await session.execute("path.points[0].x = 3", check=False)
        assert refused.error is not None
        assert refused.error.type == "AttributeError"  # frozen, still


async def test_a_session_goes_on_in_another_environment_and_back(tmp_path: Path) -> None:
    """What the worker itself puts into checkpoints is found where it is lent, and where it is not."""
    store = str(tmp_path / "s.db")
    lent = WorkerConfig(python=str(make_venv(tmp_path / "venv")))
    code = (
        "import threading, re\nlock = threading.Lock()\nclass A:\n    def twice(self): return 2 * self.n\n"
        "a = A(); a.n = 1; found = re.match('a+', 'aab'); also = [a]"
    )
    async with pyrepl3.open_session("s", store=store, recovery="checkpoint") as session:
        await session.execute(code)
    for config in (lent, WorkerConfig(), lent):
        async with pyrepl3.open_session("s", store=store, recovery="checkpoint", config=config) as session:
            assert session.recoveries[-1].lost == ()
            found = await session.execute(
                "a.n += 1\n[a.twice(), also[0] is a, found.group(), lock.locked(), type(a) is A]"
            )
            assert found.value[1:] == [True, "aa", False, True]
    assert found.value[0] == 8


@pytest.mark.parametrize("level", ["limits", "strict"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_multiprocessing_works_where_the_worker_is_lent(
    tmp_path: Path, method: str, level: Any
) -> None:
    python = make_venv(tmp_path / "venv")
    code = f"""
import multiprocessing, sys
class Item:
    def __init__(self, n): self.n = n
base = 10
def add(item): return item.n + base
def work(item): return add(item), sys.prefix, [name for name in sys.modules if name.startswith("pyrepl3_")]
with multiprocessing.get_context({method!r}).Pool(1) as pool:
    out = pool.map(work, [Item(1), Item(2)])
out
"""
    async with pyrepl3.open_session(config=WorkerConfig(python=str(python), confinement=level)) as session:
        venv = str(tmp_path / "venv")
        assert (await session.execute(code)).value == [[11, venv, []], [12, venv, []]]


async def test_pools_fork_workers_that_are_lent(tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    config = WorkerConfig(python=str(python), warm=("json",))
    async with pyrepl3.WorkerPool(1, config) as pool:
        for _ in range(2):
            async with pool.open_session() as session:
                found = await session.execute(
                    "import os, sys\n[sys.executable, os.environ['VIRTUAL_ENV'], 'json' in sys.modules, "
                    "[name for name in sys.modules if name.startswith(('pyrepl3_', 'msgspec'))]]"
                )
                assert found.value == [str(python), str(tmp_path / "venv"), True, []]
        assert pool.spawn_reason is None


# --- interpreters that are odd ---------------------------------------------------------------------------


async def test_what_runs_before_the_worker_may_print_read_and_import(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = make_venv(tmp_path / "venv")
    packages = site_packages(python)
    (packages / "sitecustomize.py").write_text(
        "import os, sys\nprint('Welcome')\nsys.stderr.write('!\\n')\nos.write(1, b'more')\n"
        "assert sys.stdin.read() == ''\nimport msgspec\nkept = msgspec\n"
    )
    (packages / "code.pth").write_text("import sys; sys.pth_ran = True; print('hello')\n")
    (packages / "msgspec.py").write_text("__version__ = 'mine'\n")
    async with pyrepl3.open_session(config=WorkerConfig(python=str(python))) as session:
        found = await session.execute(
            "import msgspec, sitecustomize, sys\n[msgspec.__version__, sitecustomize.kept is msgspec, sys.pth_ran]"
        )
        assert (found.value, found.stdout, found.stderr) == (["mine", True, True], "", "")


async def test_variables_that_tell_this_program_where_its_modules_are_stay_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    code = "import importlib.util, os\n[bool(importlib.util.find_spec('only_here')), os.environ.get('PYTHONHOME')]"
    python = str(make_venv(tmp_path / "venv"))
    async with pyrepl3.open_session(config=WorkerConfig(python=python)) as session:
        assert (await session.execute(code)).value == [False, None]
    config = WorkerConfig(python=python, env={"PYTHONPATH": str(tmp_path)})
    async with pyrepl3.open_session(config=config) as session:
        assert (await session.execute(code)).value == [True, None]


def spaces(folder: Path) -> tuple[Path, Path]:
    return make_venv(folder / "a venv, with spaces"), folder / "a venv, with spaces"


def linked(folder: Path) -> tuple[Path, Path]:
    make_venv(folder / "real")
    (folder / "link").symlink_to("real")
    return folder / "link/bin/python", folder / "link"


def copied(folder: Path) -> tuple[Path, Path]:
    return make_venv(folder / "copies", "--copies"), folder / "copies"


def sharing(folder: Path) -> tuple[Path, Path]:
    return make_venv(folder / "shares", "--system-site-packages"), folder / "shares"


def wrapped(folder: Path) -> tuple[Path, Path]:
    inside = make_venv(folder / "inside")
    return program(folder / "wrapper", f'exec {shlex.quote(str(inside))} "$@"'), folder / "inside"


def isolated(folder: Path) -> tuple[Path, Path]:
    inside = make_venv(folder / "inside")
    return program(folder / "wrapper", f'exec {shlex.quote(str(inside))} -I "$@"'), folder / "inside"


@pytest.mark.parametrize("make", [spaces, linked, copied, sharing, wrapped, isolated])
async def test_environments_of_other_kinds(tmp_path: Path, make: Any) -> None:
    python, venv = make(tmp_path)
    found = await look(WorkerConfig(python=str(python), confinement="strict"))
    assert [found["prefix"], found["virtual_env"], found["shell"]] == [str(venv)] * 3
    assert [found["first"], found["python"]] == [str(venv / "bin"), str(venv / "bin/python")]
    assert found["modules"] == []


async def test_a_relative_path_is_one_of_this_programs_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_venv(tmp_path / "venv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    found = await look(WorkerConfig(python="venv/bin/python", cwd=str(tmp_path / "elsewhere")))
    assert found["executable"] == str(tmp_path / "venv/bin/python")


async def test_packages_may_come_go_and_change_while_the_session_runs(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The worker's own msgspec is none of theirs."""
    python = make_venv(tmp_path / "venv")
    packages = site_packages(python)
    async with pyrepl3.open_session(config=WorkerConfig(python=str(python))) as session:
        (packages / "msgspec.py").write_text("def decode(): return 1\n")
        assert (await session.execute("import msgspec; msgspec.decode()")).value == 1
        (packages / "msgspec.py").unlink()
        await session.execute("import sys; del sys.modules['msgspec'], msgspec")
        await session.execute("del sys.modules['_pyrepl3_lent']")
        gone = await session.execute("import msgspec", check=False)
        assert gone.error is not None
        assert gone.error.type == "ModuleNotFoundError"
        assert (await session.checkpoint()).unsaved == []
        assert (await session.execute("{'whole': [1, 2.5, None]}")).value == {"whole": [1, 2.5, None]}


# --- interpreters that will not do -------------------------------------------------------------------------


def old_pythons() -> list[Path]:
    versions = Path.home() / ".pyenv/versions"
    old = [
        *versions.glob("3.[0-9].*/bin/python"),
        *versions.glob("3.1[01].*/bin/python"),
        *versions.glob("2.*/bin/python"),
    ]
    return old + [
        path for path in (Path("/usr/bin/python3.11"), Path("/usr/bin/python3.10")) if path.exists()
    ]


async def test_an_interpreter_that_is_too_old_says_which_and_what_to_do() -> None:
    old = old_pythons()
    if not old:
        pytest.skip("no Python before 3.12 is here")
    for python in old[:3]:
        text = await spawn_error(python)
        assert f"{python} is CPython" in text
        assert "needs 3.12 or newer" in text
        assert "give python= the path of one" in text


def pretending(folder: Path, what: str) -> Path:
    """Make an interpreter that is what it is not."""
    script = folder / "pretend.py"
    script.write_text(
        f"import sys\n{what}\nsys.argv[:] = sys.argv[1:]\nsys.path.insert(0, '')\n"
        "exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'))\n"
    )
    return program(folder / "python", f'exec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"')


async def test_a_free_threaded_interpreter_says_so(tmp_path: Path) -> None:
    text = await spawn_error(pretending(tmp_path, "sys.abiflags = 't'"))
    assert "without the global interpreter lock (free-threaded)" in text
    assert "give python= the path of a build that has it" in text


async def test_another_abi_without_msgspec_says_both_and_what_to_install(tmp_path: Path) -> None:
    pretence = (
        "import _imp; _imp.extension_suffixes = lambda: ['.cpython-399-x.so']\n"
        "from importlib.machinery import PathFinder\nfind = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *_: None if name == 'msgspec' else find(name, *_)"
    )
    text = await spawn_error(pretending(tmp_path, pretence))
    assert "(cpython-399-x), and the msgspec of this program is built for cpython-3" in text
    assert f"install msgspec there ({sys.executable} -m pip install 'msgspec>=" in text


async def test_a_broken_environment_says_what_is_broken(tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    assert f"give {str(python)!r}" in await spawn_error(tmp_path / "venv")
    os.unlink(tmp_path / "venv/bin/python")
    (tmp_path / "venv/bin/python").symlink_to("/gone/bin/python3")
    text = await spawn_error(python)
    assert str(python) in text
    assert "it is a link to '/gone/bin/python3', which is not there" in text
    assert "python -m venv --clear" in text
    (tmp_path / "script").write_text("#!/gone/python\n")
    (tmp_path / "script").chmod(0o755)
    assert "the program that its first line names" in await spawn_error(tmp_path / "script")


async def test_an_interpreter_without_its_library_is_named(tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    text = await spawn_error(python, env={"PYTHONHOME": "/nowhere"})
    assert f"its interpreter is {str(python)!r}: see whether that runs any program" in text
    assert "encodings" in text
    assert plain_environment().get("PYTHONHOME") is None


NO_PROGRAMS = {
    "~/venv/bin/python": "'~' stands for no folder here",
    "pyrepl3-no-such-python": "no folder of PATH has a program of that name",
    "{tmp}/gone/bin/python": "that of a virtual environment is FOLDER/bin/python",
    "{tmp}/text/python": "that of a virtual environment is FOLDER/bin/python",
    "{tmp}/text": "this user may not execute it",
    "{tmp}/noise": "no program of this machine, and no script whose first line names one",
    "{tmp}/venv/bin": "give '{tmp}/venv/bin/python'",
}


async def test_what_the_system_does_not_run_is_said_with_what_to_do(tmp_path: Path) -> None:
    make_venv(tmp_path / "venv")
    (tmp_path / "text").write_text("print(1)\n")
    (tmp_path / "noise").write_bytes(b"\x7fELF" + bytes(100))
    (tmp_path / "noise").chmod(0o755)
    for python, remedy in NO_PROGRAMS.items():
        text = await spawn_error(python.format(tmp=tmp_path))
        assert text.startswith(f"no worker could be started with {python.format(tmp=tmp_path)!r}: ")
        assert remedy.format(tmp=tmp_path) in text


async def test_a_folder_to_start_in_that_is_not_there_is_not_taken_for_the_interpreter(
    tmp_path: Path,
) -> None:
    text = await spawn_error(make_venv(tmp_path / "venv"), cwd=str(tmp_path / "gone"))
    assert f"{str(tmp_path / 'gone')!r} (the folder in which it starts: see cwd=)" in text


async def test_an_environment_that_hangs_or_ends_at_its_start_is_named(tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    named = f"its interpreter is {str(python)!r}: see whether that runs any program (-c 'print(1)')"
    start = site_packages(python) / "sitecustomize.py"
    start.write_text("import time\nwhile True: time.sleep(1)\n")
    hung = WorkerConfig(python=str(python), spawn_timeout=0.5)
    text = await spawn_error(python, spawn_timeout=0.5)
    assert f"it was not ready within 0.5 seconds; {named}" in text
    with pytest.raises(pyrepl3.SpawnError, match=r"not warm within 0\.5 seconds") as error:
        async with pyrepl3.WorkerPool(1, hung):
            pass
    assert named in str(error.value)
    start.write_text("import os\nos._exit(3)\n")
    for fork in (True, False):
        with pytest.raises(pyrepl3.SpawnError, match="ended before it had a session") as error:
            async with pyrepl3.WorkerPool(1, WorkerConfig(python=str(python)), fork=fork):
                pass
        assert f"(exit code 3): {named}, and what it runs at every start" in str(error.value)
