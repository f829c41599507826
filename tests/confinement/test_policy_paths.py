# ruff: noqa: E501 - a program a line reads best
"""Paths of a policy: resolved once for a session, whatever code does to what stands above or below them."""

import asyncio
import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SandboxPolicy
from pyrepl3_client._launch.spawn import Spawner, WorkerProcess
from tests.confinement.sessions import is_working, run, strict_config, value
from tests.helpers.venvs import make_venv

pytestmark = pytest.mark.anyio

SECRET = "outside of the policy"


def policy(*, readable: tuple[Path, ...] = (), writable: tuple[Path, ...] = ()) -> pyrepl3.WorkerConfig:
    sandbox = SandboxPolicy(readable=tuple(map(str, readable)), writable=tuple(map(str, writable)))
    return strict_config(sandbox=sandbox)


def folders(work: Path, *names: str) -> list[Path]:
    made = [work / name for name in names]
    for folder in made:
        folder.mkdir(parents=True, exist_ok=True)
    return made


async def end_worker(session: pyrepl3.Session) -> None:
    with pytest.raises(pyrepl3.WorkerDied):
        await session.execute("import os\nos._exit(0)")


async def test_a_folder_that_code_makes_a_link_leads_nowhere_in_the_next_worker(work: Path) -> None:
    top, inner, outside = folders(work, "top", "top/inner", "outside")
    (outside / "key").write_text(SECRET)
    swap = f"import os\nos.rmdir({str(inner)!r}); os.symlink({str(outside)!r}, {str(inner)!r})"
    look = f"import os\n[os.path.exists(path) for path in ({str(outside / 'key')!r}, {str(inner / 'key')!r})]"
    async with pyrepl3.open_session(config=policy(writable=(top, inner))) as session:
        await session.execute(swap)
        assert await value(session, look) == [False, False]
        await end_worker(session)
        assert await value(session, look) == [False, False]
        assert await is_working(session)


async def test_a_link_that_code_can_have_made_is_followed_for_no_other_session(work: Path) -> None:
    top, inner, outside, _ = folders(work, "top", "top/inner", "outside", "outside/deeper")
    async with pyrepl3.open_session(config=policy(writable=(top,))) as session:
        await session.execute(
            f"import os\nos.rmdir({str(inner)!r}); os.symlink({str(outside)!r}, {str(inner)!r})"
        )
    for config in policy(writable=(inner,)), policy(readable=(inner / "deeper",)), policy(readable=(inner,)):
        with pytest.raises(pyrepl3.SpawnError, match=f"leads through the link '{inner}'"):
            async with pyrepl3.open_session(config=config):
                pass
    async with pyrepl3.open_session(config=policy(readable=(outside,))) as session:
        assert await is_working(session)


async def test_parents_of_what_is_mounted_below_a_writable_folder_stay_where_they_are(work: Path) -> None:
    top, shown, outside = folders(work, "top", "top/conf/a/ro", "outside")
    (shown / "file").write_text("shown")
    (outside / "key").write_text(SECRET)
    config = policy(writable=(top,), readable=(shown,))
    code = f"""
import errno, os
def outcome(deed):
    try: deed()
    except OSError as error: return error.errno in (errno.EBUSY, errno.EXDEV, errno.EROFS)
top = {str(top)!r}
[outcome(lambda: os.rename(top + path, top + '/away')) for path in ('/conf/a/ro', '/conf/a', '/conf')] + [
    outcome(lambda: open(top + '/conf/a/ro/file', 'w')), outcome(lambda: open(top + '/conf/a/new', 'w').close()),
    open(top + '/conf/a/ro/file').read()]
"""
    async with pyrepl3.open_session(config=config) as session:
        for _ in range(2):
            assert await value(session, code) == [True, True, True, True, None, "shown"]
            await end_worker(session)
    assert (top / "conf/a/new").exists()


@pytest.mark.parametrize("kind", ["writable", "readable"])
@pytest.mark.parametrize("change", ["a link", "another folder", "nothing"])
async def test_a_path_that_has_changed_is_an_error_that_names_it(work: Path, kind: str, change: str) -> None:
    named, outside = folders(work, "named", "outside")
    (outside / "key").write_text(SECRET)
    options: dict[str, Any] = {kind: (named,)}
    async with pyrepl3.open_session(config=policy(**options), recovery="none") as session:
        named.rename(work / "away")
        if change == "a link":
            named.symlink_to(outside)
        elif change == "another folder":
            shutil.copytree(outside, named)
        await end_worker(session)
        with pytest.raises(pyrepl3.SpawnError) as error:
            await session.restart()
        assert error.value.exit_code == 78
        assert f"{str(named)!r} of the policy is not what it was when the session began" in error.value.stderr
        if change != "nothing":
            named.unlink() if change == "a link" else shutil.rmtree(named)
        (work / "away").rename(named)
        await session.restart()
        assert await value(session, f"import os\nos.listdir({str(named)!r})") == []


async def test_links_of_the_policys_author_are_followed_and_shown_both_ways(work: Path) -> None:
    real, _ = folders(work, "real/data", "odd, names: of=folders\\ \n")
    odd = work / "odd, names: of=folders\\ \n"
    (work / "link").symlink_to("real")
    (real / "file").write_text("x")
    (odd / "file").write_text("y")
    paths = [str(work / "link/data/file"), str(real / "file"), str(odd / "file")]
    code = (
        f"import os\npaths = {paths!r}\n[[open(path).read() for path in paths], os.path.samefile(*paths[:2])]"
    )
    async with pyrepl3.open_session(config=policy(readable=(work / "link/data", odd))) as session:
        assert await value(session, code) == [["x", "x", "y"], True]
        assert await value(session, f"os.listdir({str(work)!r}).count('outside')") == 0
    async with pyrepl3.open_session(config=policy(writable=(work / "link/data", odd))) as session:
        await session.execute(f"open({paths[0]!r}, 'a').write('!')")
        assert await value(session, code) == [["x!", "x!", "y"], True]


async def test_data_is_seen_as_it_is_now(work: Path) -> None:
    """Files are replaced by renaming others: in folders of data, the code sees those at once."""
    (data,) = folders(work, "data")
    (data / "file").write_text("old")
    look = f"import os\n[open({str(data / 'file')!r}).read(), os.path.exists({str(data / 'new')!r})]"
    async with pyrepl3.open_session(config=policy(readable=(data,))) as session:
        assert "detached_files" not in session.worker.confinement
        assert await value(session, look) == ["old", False]
        (data / "new").write_text("new")
        shutil.copy(data / "new", data / "newer")
        (data / "newer").rename(data / "file")
        assert await value(session, look) == ["new", True]


@pytest.mark.parametrize("how", ["readable", "writable"])
async def test_a_socket_of_the_machine_in_a_path_of_the_policy_is_not_reached(work: Path, how: str) -> None:
    (data,) = folders(work, "data")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data / "socket"))
        listener.listen()
        async with pyrepl3.open_session(config=policy(**{how: (data,)})) as session:
            code = f"import socket\nsocket.socket(socket.AF_UNIX).connect({str(data / 'socket')!r})"
            refused = await run(session, code)
            assert refused.error is not None
            assert refused.error.type == "PermissionError"
            assert await value(session, "a, b = socket.socketpair(); a.send(b'x'), b.recv(1)") == [1, b"x"]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


ENDPOINTS = """
import errno, fcntl, os, signal, socket
def outcome(deed):
    try: return deed()
    except OSError as error: return errno.errorcode[error.errno]
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = open(here + "/file")
reader = os.open(here + "/fifo", os.O_RDONLY | os.O_NONBLOCK)
[
    outcome(lambda: socket.socket(socket.AF_UNIX).connect(here + "/socket")),
    outcome(lambda: fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    outcome(lambda: fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)) and None,
]
"""


async def test_what_only_python_needs_is_apart_from_the_machines_sockets_locks_and_leases(work: Path) -> None:
    python = make_venv(work / "venv")
    (here,) = folders(work / "venv", "share/endpoints")
    (here / "file").write_text("x")
    os.mkfifo(here / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "socket"))
        listener.listen()
        listener.setblocking(False)
        async with pyrepl3.open_session(config=strict_config(python=str(python))) as session:
            assert "detached_files" in session.worker.confinement
            found = await value(session, f"here = {str(here)!r}{ENDPOINTS}")
            assert found[:2] == ["ECONNREFUSED", None]
            with pytest.raises(BlockingIOError):
                listener.accept()
            fd = os.open(here / "file", os.O_RDWR | os.O_NONBLOCK)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(fd)
            # Nobody reads from it.
            with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
                os.open(here / "fifo", os.O_WRONLY | os.O_NONBLOCK)


async def test_system_folders_can_be_leased_by_nobody(confined: pyrepl3.Session) -> None:
    code = "import fcntl, signal\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nleased = open('/usr/bin/env', 'rb')\nfcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)"
    await run(confined, code)
    os.close(os.open("/usr/bin/env", os.O_RDONLY | os.O_NONBLOCK))


async def ended(worker: WorkerProcess) -> None:
    worker.kill()
    worker.kill_outermost()
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(worker.pipes.exit_fd, gone.set)
    await asyncio.wait_for(gone.wait(), 20)
    loop.remove_reader(worker.pipes.exit_fd)
    worker.reap()
    worker.pipes.close()


async def test_what_was_resolved_holds_after_its_descriptors_are_closed(work: Path) -> None:
    """Sessions of a pool may outlive it."""
    (named,) = folders(work, "named")
    spawner, config = Spawner(), policy(writable=(named,))
    await ended(spawner.launch(config))
    spawner.close()
    spawner.close()
    await ended(spawner.launch(config))
    named.rename(work / "away")
    (work / "named").mkdir()
    with pytest.raises(pyrepl3.SpawnError, match="is not what it was when the session began"):
        spawner.launch(config)
    (work / "named").rmdir()
    with pytest.raises(pyrepl3.SpawnError, match="is not there any more"):
        spawner.launch(config)
    await ended(Spawner().launch(policy(writable=(named,))))
