"""What an interpreter reads at its start may be the work of earlier code: it is read behind the boundary."""

import encodings
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._launch.interpreter import base_python
from tests.confinement.outside_world import OutsideWorld
from tests.confinement.sessions import is_working, run, strict_config, value
from tests.helpers.venvs import make_venv, site_packages

pytestmark = pytest.mark.anyio

LOOK = """
import os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
seen = [status["Seccomp"].strip(), status["CapEff"].strip(), os.path.exists({secret!r})]
try:
    open({mark!r}, "w").close()
except OSError:
    pass
"""
CONFINED = ["2", "0000000000000000", False]


async def test_what_site_runs_runs_behind_the_boundary(world: OutsideWorld, work: Path) -> None:
    python = make_venv(work / "venv")
    look = LOOK.format(secret=str(world.folder / "secret"), mark=str(work / "mark"))
    (site_packages(python) / "sitecustomize.py").write_text(look)
    (site_packages(python) / "planted.py").write_text(look)
    (site_packages(python) / "planted.pth").write_text("import planted\n")
    async with pyrepl3.open_session(config=strict_config(python=str(python))) as session:
        for name in ("sitecustomize", "planted"):
            assert await value(session, f"import sys\nsys.modules[{name!r}].seen") == CONFINED
    assert not (work / "mark").exists()
    assert world.traces() == []


async def test_what_stands_before_the_library_is_imported_behind_the_boundary(work: Path) -> None:
    """Python imports `encodings` before anything else, and from PYTHONPATH if it is there."""
    real = os.path.dirname(encodings.__file__)
    (work / "first/encodings").mkdir(parents=True)
    (work / "first/encodings/__init__.py").write_text(
        "import posix\n"
        "def read(path):\n"
        "    fd = posix.open(path, 0)\n"
        "    try: return posix.read(fd, 1 << 20)\n"
        "    finally: posix.close(fd)\n"
        "posix.early = [read('/proc/self/status'), posix.listdir('/')]\n"
        f"__path__ = [{real!r}]\n"
        f"exec(read({real!r} + '/__init__.py'))\n"
    )
    config = strict_config(env={"PYTHONPATH": str(work / "first")})
    async with pyrepl3.open_session(config=config) as session:
        early = "import posix\n[b'Seccomp:\\t2' in posix.early[0], 'boot' in posix.early[1]]"
        assert await value(session, early) == [True, False]


async def test_a_program_in_the_place_of_the_interpreter_runs_behind_the_boundary(
    world: OutsideWorld, work: Path
) -> None:
    (work / "bin").mkdir()
    planted = work / "bin/python"
    planted.write_text(
        f"#!/bin/sh\nid > {work}/mark\ncat {world.folder}/secret > {work}/mark\n"
        f'exec {shlex.quote(sys.executable)} "$@"\n'
    )
    planted.chmod(0o755)
    async with pyrepl3.open_session(config=strict_config(python=str(planted))) as session:
        assert await is_working(session)
    assert not (work / "mark").exists()


async def test_packages_of_the_user_and_relative_paths_are_found_as_without_a_boundary(work: Path) -> None:
    """Though home and work directory of the code are others."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder, name in (f".local/lib/{version}/site-packages", "of_the_user"), ("modules", "of_the_path"):
        (work / folder).mkdir(parents=True)
        (work / folder / f"{name}.py").write_text("")
    variables = {"HOME": str(work), "PYTHONPATH": "modules"}
    config = strict_config(python=base_python(), env=variables, cwd=str(work))
    async with pyrepl3.open_session(config=config) as session:
        found = await value(
            session,
            "import of_the_user, of_the_path, os\n"
            "[os.environ['HOME'], os.environ['PYTHONPATH'], os.getcwd(), of_the_path.__file__]",
        )
    assert found == ["/tmp", "modules", "/tmp", str(work / "modules/of_the_path.py")]


async def test_an_interpreter_that_cannot_run_behind_the_boundary_says_so(work: Path) -> None:
    (work / "bin").mkdir()
    script = work / "bin/python"
    (work / "elsewhere").mkdir()
    (work / "elsewhere/sh").symlink_to("/bin/sh")
    script.write_text(f'#!{work}/elsewhere/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    script.chmod(0o755)
    with pytest.raises(pyrepl3.SpawnError) as error:
        async with pyrepl3.open_session(config=strict_config(python=str(script))):
            pass
    assert error.value.exit_code == 78
    assert f"{str(script)!r} cannot be run behind the boundary" in error.value.stderr
    sandbox = pyrepl3.SandboxPolicy(readable=(f"{work}/elsewhere",))
    async with pyrepl3.open_session(config=strict_config(python=str(script), sandbox=sandbox)) as session:
        assert await is_working(session)


def inherited_ignored_signals() -> int:
    """Return the mask of the signals that what this process starts ignores too: not those of Python's own."""
    own = int(Path("/proc/self/status").read_text().partition("SigIgn:")[2].split()[0], 16)
    return own & ~sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))


async def test_what_starts_the_interpreter_leaves_nothing_in_it(confined: pyrepl3.Session) -> None:
    facts = (
        "import os, signal, sys\n"
        "[signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), signal.getsignal(signal.SIGINT) is not None,"
        " sys.flags.isolated, sys.flags.no_site, hash('a') == hash('a'),"
        " [n for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')"
        " and 'memfd' in os.readlink(f'/proc/self/fd/{n}')]]"
    )
    assert await value(confined, facts) == [True, True, 0, 0, True, []]
    ignored = await value(
        confined,
        "import subprocess\nsubprocess.check_output(['grep', 'SigIgn', '/proc/self/status'], text=True)",
    )
    # Another test of this process may have had it ignore a signal, which all that it starts inherits.
    assert int(ignored.split()[1], 16) == inherited_ignored_signals()
    assert (
        await run(confined, "import multiprocessing\nmultiprocessing.get_context('spawn').Process")
    ).error is None


def installation_of_links(folder: Path) -> Path:
    """Make an installation whose library is links to this one's, as conda can; return its interpreter."""
    library = Path(os.__file__).parent
    links = folder / library.relative_to(sys.base_prefix)
    links.mkdir(parents=True)
    for path in library.iterdir():
        (links / path.name).symlink_to(path)
    (folder / "bin").mkdir()
    return Path(shutil.copy(os.path.realpath(sys.executable), folder / "bin/python3"))


async def test_an_installation_that_is_links_to_another_one_is_shown_with_that(tmp_path: Path) -> None:
    python = await anyio.to_thread.run_sync(installation_of_links, tmp_path / "links")
    # The library by which it is linked stands in the other one, too.
    env = {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"}
    async with pyrepl3.open_session(config=strict_config(python=str(python), env=env)) as session:
        code = "import decimal, html.parser, sys\n[sys.prefix, decimal.Decimal(1) + 1 == 2]"
        assert await value(session, code) == [str(tmp_path / "links"), True]


async def test_an_interpreter_that_is_none_is_named_behind_the_boundary_too() -> None:
    with pytest.raises(pyrepl3.SpawnError) as error:
        async with pyrepl3.open_session(config=strict_config(python="/bin/false")):
            pass
    # The process that draws the boundary sees no Python any more by then.
    assert error.value.exit_code == 1
    assert error.value.stderr == ""
    assert "its interpreter is '/bin/false'" in str(error.value)
