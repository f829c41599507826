"""The files of a session, as its program uses them: at every level of confinement, and while code runs."""

import asyncio
import hashlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SessionFileError, SessionFileNotFound, sync
from pyrepl3_client.testing import ScriptedWorker
from pyrepl3_client.testing import open_session as open_scripted
from tests.helpers.real_sessions import PATIENCE, quick, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

LEVELS = [
    "limits",
    "strict",
    pytest.param("none", marks=pytest.mark.long),
    pytest.param("own", marks=pytest.mark.long),
]
EVERY_BYTE = bytes(range(256)) * 5
MIB = 1024 * 1024


def skip_below_tmp() -> None:
    """Skip a test of what is in a strict session's `/tmp`, which shows this checkout if it is below /tmp."""
    if any(Path(path).is_relative_to("/tmp") for path in (pyrepl3.__path__[0], sys.prefix)):
        pytest.skip("this checkout is below /tmp, and strict sessions see it in theirs")


def config_of(level: str, folder: Path, **options: Any) -> pyrepl3.WorkerConfig:
    """Return the configuration of a level; "own" is the default one with a directory of the session's own."""
    if level == "strict":
        skip_below_tmp()
        options["confinement"] = level
    elif level == "own":
        options["cwd"] = "own"
    else:
        options.update(confinement=level, cwd=str(folder))
    return pyrepl3.WorkerConfig(cancel_grace=0.4, kill_grace=0.4, close_grace=2.0, **options)


@pytest.fixture(scope="module", params=LEVELS)
async def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[pyrepl3.Session]:
    """A session of each level, in a folder of its own."""
    folder = tmp_path_factory.mktemp("work")
    async with pyrepl3.open_session(config=config_of(request.param, folder)) as session:
        await session.files.write(".begun", b"")  # its threads and descriptors are no leak of a test
        await session.execute("import os, shutil, threading")
        yield session


@pytest.fixture
async def session(opened: pyrepl3.Session) -> pyrepl3.Session:
    """That session, with an empty work directory."""
    for entry in await opened.files.list():
        await opened.files.remove(entry.name, recursive=True)
    return opened


async def test_what_is_written_is_what_the_code_reads_and_the_other_way_round(
    session: pyrepl3.Session,
) -> None:
    await session.files.write("deep/er/bytes.bin", EVERY_BYTE)
    assert await value(session, "open('deep/er/bytes.bin', 'rb').read()") == EVERY_BYTE
    await session.execute("open('back.bin', 'wb').write(bytes(range(255, -1, -1)))")
    assert await session.files.read("back.bin") == bytes(range(255, -1, -1))
    await session.files.write("back.bin", memoryview(EVERY_BYTE)[::2])
    assert await value(session, "open('back.bin', 'rb').read()") == EVERY_BYTE[::2]
    await session.files.write("empty", b"")
    assert await session.files.read("empty") == b""
    here = await value(session, "os.getcwd()")
    assert await session.files.read(f"{here}/back.bin") == EVERY_BYTE[::2]
    assert await session.files.read("deep/../back.bin") == EVERY_BYTE[::2]


async def test_a_folder_is_listed_and_removed(session: pyrepl3.Session) -> None:
    await session.execute("os.makedirs('a/b'); open('a/f', 'w').write('four'); os.symlink('f', 'a/l')")
    await session.execute("os.mkfifo('a/p'); os.utime('a/f', (5, 1234567890))")
    shown = {entry.name: entry for entry in await session.files.list("a")}
    assert [(name, entry.kind) for name, entry in shown.items()] == [
        ("b", "folder"), ("f", "file"), ("l", "link"), ("p", "other"),
    ]  # fmt: skip
    assert (shown["f"].size, shown["f"].modified) == (4, 1234567890)
    with pytest.raises(SessionFileError, match="'a' is not empty: recursive=True"):
        await session.files.remove("a")
    await session.files.remove("a/l")
    await session.files.remove("a/p")
    assert [entry.name for entry in await session.files.list("a")] == ["b", "f"]
    await session.files.remove("a/b")
    await session.files.remove("a", recursive=True)
    assert await session.files.list() == []
    for place in (".", "a/..", "..", await value(session, "os.getcwd()")):
        with pytest.raises(SessionFileError):
            await session.files.remove(place, recursive=True)


async def test_files_go_in_and_out_of_any_size(session: pyrepl3.Session, tmp_path: Path) -> None:
    here = tmp_path / "here.bin"
    content = os.urandom(9 * MIB + 13)
    here.write_bytes(content)
    here.chmod(0o750)
    await session.files.upload(here, "in/there.bin")
    found = "import hashlib; hashlib.sha256(open('in/there.bin', 'rb').read()).hexdigest()"
    assert await value(session, found) == hashlib.sha256(content).hexdigest()
    assert await value(session, "os.stat('in/there.bin').st_mode & 0o777") == 0o750
    await session.files.upload(here, "in")
    await session.files.download("in/here.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == content
    (tmp_path / "folder").mkdir()
    await session.files.download("in/there.bin", tmp_path / "folder")
    assert (tmp_path / "folder" / "there.bin").read_bytes() == content
    await session.files.remove("in", recursive=True)


async def test_it_works_while_code_runs_that_answers_to_nothing(session: pyrepl3.Session) -> None:
    started = asyncio.Event()
    session.offer(started=started.set)
    running = session.start("started()\nwhile not os.path.exists('go'): pass\nopen('go').read()")
    async with asyncio.timeout(PATIENCE):
        await started.wait()
        assert await session.files.list() == []
        await session.files.write("go", b"whole")
        # The file is there when it is whole: the code cannot have seen it empty.
        assert (await running).value == "whole"


async def test_a_host_function_that_the_code_waits_for_may_use_files(session: pyrepl3.Session) -> None:
    async def fetch(name: str) -> None:
        await session.files.write(name, b"fetched")

    session.offer(fetch=fetch)
    assert await value(session, "await fetch('f'); open('f').read()") == "fetched"


async def test_what_cannot_be_used_is_refused_by_name(session: pyrepl3.Session, tmp_path: Path) -> None:
    await session.execute("os.mkfifo('fifo'); os.mkdir('folder'); open('file', 'w').close()")
    await session.execute(
        "os.symlink('loop', 'loop'); import socket; s = socket.socket(socket.AF_UNIX); s.bind('sock')"
    )
    files = session.files
    with pytest.raises(FileNotFoundError, match=r"'missing' is not there.*list"):
        await files.read("missing")
    for name, kind in (("fifo", "a FIFO"), ("sock", "a socket"), ("/dev/null", "a device")):
        with pytest.raises(SessionFileError, match=f"{name}' is {kind}"):
            await files.read(name)
        with pytest.raises(SessionFileError, match=f"{name}' is"):
            await files.write(name, b"")
    for refused in (
        files.read("folder"),
        files.write("folder", b""),
        files.download("folder", tmp_path / "x"),
    ):
        with pytest.raises(SessionFileError, match="'folder' is a folder"):
            await refused
    with pytest.raises(SessionFileError, match="'file' is no folder"):
        await files.list("file")
    with pytest.raises(SessionFileError, match="'file/x' is no folder, or a part of it is none"):
        await files.write("file/x", b"")
    with pytest.raises(SessionFileError, match="'loop' leads by links in a circle"):
        await files.read("loop")
    with pytest.raises(SessionFileError, match="'/proc/uptime' is made by the kernel"):
        await files.read("/proc/uptime")
    with pytest.raises(SessionFileError, match=r"'\.\./x' leaves the work directory"):
        await files.write("../x", b"")
    with pytest.raises(SessionFileError, match="x' is too long: a name has at most 255 bytes"):
        await files.write("x" * 300, b"")
    with pytest.raises(SessionFileNotFound, match="'~' stands for no folder here"):
        await files.read("~/x")
    for made in ("/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled"):
        with pytest.raises(
            SessionFileError, match=f"'{made}' is made by the kernel when it is read: read it"
        ):
            await files.upload(made, "made")
    with pytest.raises(SessionFileError, match="program's side: Not a directory; name another file"):
        await files.download("file", __file__ + "/x")
    with pytest.raises(SessionFileNotFound, match="nowhere' cannot be used on this program's side"):
        await files.upload(tmp_path / "nowhere", "x")
    with pytest.raises(SessionFileNotFound, match="this program's side"):
        await files.download("file", tmp_path / "no" / "folder")
    with pytest.raises(SessionFileError, match="is no regular file: upload takes one file"):
        await files.upload(tmp_path, "x")
    await files.write("file", b"12345")
    with pytest.raises(SessionFileError, match="'file' has 5 bytes, more than max_bytes=4"):
        await files.read("file", max_bytes=4)
    with pytest.raises(SessionFileError, match="max_bytes=4: raise that, if it is to be here"):
        await files.download("file", tmp_path / "x", max_bytes=4)
    names = {entry.name for entry in await files.list()}
    assert names == {"fifo", "folder", "file", "loop", "sock"}
    await session.execute("s.close(); del s")


async def test_names_that_are_no_text_are_listed_and_read(session: pyrepl3.Session) -> None:
    await session.execute("open(b'\\xff\\xfe \\n', 'w').write('odd')")
    (entry,) = await session.files.list()
    assert os.fsencode(entry.name) == b"\xff\xfe \n"
    assert await session.files.read(entry.name) == b"odd"
    await session.files.remove(entry.name)


async def test_an_earlier_file_keeps_its_mode_and_a_link_is_replaced(session: pyrepl3.Session) -> None:
    await session.execute(
        "open('script', 'w').close(); os.chmod('script', 0o711); os.symlink('script', 'link')"
    )
    await session.files.write("script", b"new")
    await session.files.write("link", b"other")
    assert await value(session, "os.stat('script').st_mode & 0o777, open('script').read()") == [0o711, "new"]
    assert await value(session, "os.path.islink('link'), open('link').read()") == [False, "other"]


async def test_a_cancelled_transfer_leaves_nothing(session: pyrepl3.Session, tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.write_bytes(b"x" * (64 * MIB))
    (tmp_path / "to").write_bytes(b"before")
    await session.files.write("large", b"before")
    await session.files.write("source", bytes(64 * MIB))
    for transfer in (
        lambda: session.files.upload(endless, "large"),
        lambda: session.files.download("source", tmp_path / "to"),
    ):
        task = asyncio.ensure_future(transfer())
        await asyncio.sleep(0)  # it has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await session.files.read("large") == b"before"
    assert (tmp_path / "to").read_bytes() == b"before"
    assert {entry.name for entry in await session.files.list()} == {"large", "source"}
    assert sorted(os.listdir(tmp_path)) == ["endless", "to"]


async def test_a_session_that_is_closed_has_no_files(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        files = session.files
        assert repr(files) == f"<files of session {session.session_id!r}>"
    with pytest.raises(pyrepl3.SessionClosed):
        await files.list()


@pytest.mark.parametrize("level", [pytest.param("limits", marks=pytest.mark.long), "strict"])
async def test_a_session_that_is_closed_meanwhile_ends_its_transfers(level: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(b"x" * (128 * MIB))
    async with pyrepl3.open_session(config=config_of(level, tmp_path)) as session:
        uploads = [asyncio.ensure_future(session.files.upload(source, f"u{n}")) for n in range(4)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*uploads, return_exceptions=True)
    assert all(each is None or isinstance(each, pyrepl3.SessionClosed) for each in outcomes), outcomes
    left = {name for name in os.listdir(tmp_path) if name.startswith((".pyrepl3", "u"))}
    assert left <= {f"u{n}" for n, each in enumerate(outcomes) if each is None}


async def test_a_full_disk_is_said_and_leaves_the_earlier_file() -> None:
    skip_below_tmp()
    sandbox = pyrepl3.SandboxPolicy(work_bytes=MIB)
    async with pyrepl3.open_session(
        config=pyrepl3.WorkerConfig(confinement="strict", sandbox=sandbox)
    ) as session:
        await session.files.write("f", b"before")
        with pytest.raises(
            SessionFileError, match=r"'f' does not fit: the work directory is full.*work_bytes"
        ):
            await session.files.write("f", bytes(2 * MIB))
        assert await session.files.read("f") == b"before"
        assert [entry.name for entry in await session.files.list()] == ["f"]
        await session.files.write("g", b"x" * (MIB // 2))  # nothing takes up the room


# --- deaths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["strict", pytest.param("own", marks=pytest.mark.long)])
async def test_a_file_of_an_own_directory_survives_the_worker(level: str, tmp_path: Path) -> None:
    back = asyncio.Event()
    async with pyrepl3.open_session(
        config=config_of(level, tmp_path), on_recovery=lambda _: back.set()
    ) as session:
        await session.files.write("kept", EVERY_BYTE)
        await session.checkpoint()
        os.kill(session.worker.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            await back.wait()
        assert await value(session, "open('kept', 'rb').read()") == EVERY_BYTE
        assert await session.files.read("kept") == EVERY_BYTE
        assert not [each for each in session.recoveries[-1].lost if "kept" in each.name]


@pytest.mark.parametrize("level", ["strict", pytest.param("own", marks=pytest.mark.long)])
async def test_a_file_that_no_checkpoint_holds_is_named_as_lost(level: str, tmp_path: Path) -> None:
    blocked, back = asyncio.Event(), asyncio.Event()
    async with pyrepl3.open_session(
        config=config_of(level, tmp_path),
        capabilities={"blocked": blocked.set},
        on_recovery=lambda _: back.set(),
    ) as session:
        running = session.start("blocked()\nwhile True: pass", check=False)
        async with asyncio.timeout(PATIENCE):
            await blocked.wait()
        await session.files.write("lost", b"x")  # no checkpoint while the cell runs
        os.kill(session.worker.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            await back.wait()
        assert await session.files.list() == []
        (lost,) = session.recoveries[-1].lost
        assert lost.name == "file 'lost'"
        assert "after the last checkpoint" in lost.reason
        await session.files.write("again", b"x")
        await running.cancel()
        await session.restart()
        assert await session.files.list() == []


@pytest.mark.parametrize("level", LEVELS)
async def test_after_a_death_the_next_workers_files_are_meant(level: str, tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=config_of(level, tmp_path), recovery="none") as session:
        await session.files.write("f", b"x")
        os.kill(session.worker.pid, signal.SIGKILL)
        with pytest.raises(pyrepl3.WorkerDied):
            await session.execute("import time; time.sleep(60)")
        with pytest.raises(pyrepl3.WorkerDied):
            await session.files.list()
        await session.restart()
        expected = [] if level in ("strict", "own") else ["f"]
        assert [entry.name for entry in await session.files.list()] == expected
        await session.files.write("g", b"x")
        assert await value(session, "import os; os.path.exists('g')")


# --- pools, forks, sync -------------------------------------------------------------------------------


@pytest.mark.parametrize("fork", [pytest.param(True, marks=pytest.mark.long), False])
async def test_sessions_of_a_pool_have_files(tmp_path: Path, *, fork: bool) -> None:
    config = config_of("limits" if fork else "strict", tmp_path)
    async with pyrepl3.WorkerPool(1, config=config, fork=fork) as pool, pool.open_session() as session:
        await session.files.write("f", EVERY_BYTE)
        assert await value(session, "open('f', 'rb').read()") == EVERY_BYTE


def test_sync_sessions_have_the_same_files(tmp_path: Path) -> None:
    with sync.open_session(config=config_of("strict", tmp_path)) as session:
        (tmp_path / "f").write_bytes(EVERY_BYTE)
        session.files.upload(tmp_path / "f", "g")
        session.files.download("g", tmp_path / "h")
        assert (tmp_path / "h").read_bytes() == session.files.read("g") == EVERY_BYTE
        session.files.write("w", b"x")
        assert [entry.name for entry in session.files.list()] == ["g", "w"]
        session.files.remove("w")
        with pytest.raises(FileNotFoundError):
            session.files.read("w")
        assert repr(session.files) == f"<files of session {session.session_id!r}>"


def test_ctrl_c_ends_a_transfer_of_a_sync_session(tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        for place in range(0, 2**30, 2**20):
            os.pwrite(file.fileno(), b"x" * 4096, place)
    interrupted = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
    with sync.open_session(config=config_of("limits", tmp_path)) as session:

        def upload_for_ever() -> None:
            interrupted.start()
            while True:
                session.files.upload(tmp_path / "source", "target")

        with pytest.raises(KeyboardInterrupt):
            upload_for_ever()
        interrupted.join()
        assert ".pyrepl3" not in str(os.listdir(tmp_path))
        assert session.execute("1 + 1").value == 2


async def test_a_scripted_worker_has_no_files() -> None:
    async with open_scripted(ScriptedWorker()) as session:
        with pytest.raises(SessionFileError, match="'x' cannot be used: a scripted worker has no files"):
            await session.files.read("x")


# --- what a cell does to files ------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["limits", "strict"])
async def test_a_result_names_the_files_that_its_cell_has_touched(level: str, tmp_path: Path) -> None:
    config = config_of(level, tmp_path, report=("files",))
    async with pyrepl3.open_session(config=config) as session:
        await session.files.write("old/changed", b"1")
        await session.files.write("old/deleted", b"1")
        await session.files.write("old/same", b"1")
        code = (
            "import os\nopen('new', 'w').write('x'); os.symlink('new', 'link'); os.mkdir('empty')\n"
            "os.unlink('old/deleted'); open('old/changed', 'w').write('22'); open(b'\\xff', 'w').close()\n"
            "os.chdir('/')"
        )
        files = (await session.execute(code)).files
        assert files == pyrepl3.FileChanges(
            created=["link", "new", "\\udcff"], changed=["old/changed"], deleted=["old/deleted"]
        )
        here = "/tmp" if level == "strict" else tmp_path
        failed = await session.execute(f"os.unlink('{here}/new'); 1 / 0", check=False)
        assert failed.files == pyrepl3.FileChanges(deleted=["new"])
        assert (await session.execute("1")).files == pyrepl3.FileChanges()


async def test_files_are_looked_at_only_where_that_is_asked_for(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=config_of("limits", tmp_path)) as session:
        assert (await session.execute("open('f', 'w').close()")).files is None


async def test_files_beyond_what_is_looked_at_are_said_to_be_there(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=config_of("limits", tmp_path, report=("files",))) as session:
        files = (await session.execute("for n in range(1001): open(str(n), 'w').close()")).files
        assert files is not None
        assert (len(files.created), files.truncated) == (1000, True)


# --- many at once, and deaths in between --------------------------------------------------------------


async def test_hundreds_at_once_need_few_descriptors(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=config_of("strict", tmp_path)) as session:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 150, limits[1]))
        try:
            await asyncio.gather(*(session.files.write(f"folder/{n}", b"x") for n in range(300)))
            assert len(await session.files.list("folder")) == 300
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("level", ["limits", "strict"])
async def test_a_worker_that_dies_under_an_upload_takes_along_what_was_its_own(
    level: str, tmp_path: Path
) -> None:
    (tmp_path / "here").write_bytes(bytes(100 * MIB))
    back = asyncio.Event()
    async with pyrepl3.open_session(
        config=config_of(level, tmp_path), on_recovery=lambda _: back.set()
    ) as session:
        uploading = asyncio.ensure_future(session.files.upload(tmp_path / "here", "there"))
        await asyncio.sleep(0)
        os.kill(session.worker.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            (outcome,) = await asyncio.gather(uploading, return_exceptions=True)
        told = outcome is not None
        assert outcome is None or isinstance(outcome, pyrepl3.WorkerDied)
        async with asyncio.timeout(PATIENCE):
            await back.wait()
        names = [entry.name for entry in await session.files.list()]
        lost = [each.name for each in session.recoveries[-1].lost]
        # Where it is on the disk it stays; where it is gone, that was said in one of two ways.
        assert ("there" in names) is not (told or "file 'there'" in lost)
        assert ("there" in names) is (level == "limits")


async def test_code_that_moves_its_folder_away_does_not_change_what_paths_mean(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    async with pyrepl3.open_session(config=config_of("limits", work)) as session:
        await session.files.write("f", b"moved")
        await session.execute(
            f"import os; os.rename({str(work)!r}, {str(tmp_path / 'away')!r}); os.mkdir({str(work)!r})"
        )
        assert await session.files.read("f") == b"moved"
        await session.files.write(work / "f", b"new")
        assert await session.files.read(tmp_path / "away" / "f") == b"moved"
        assert (work / "f").read_bytes() == b"new"


async def test_a_death_that_is_not_known_yet_is_no_empty_folder(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=config_of("strict", tmp_path), recovery="none") as session:
        await session.files.write("there", b"x")
        await session.files.list()
        handle = session._supervisor.require_worker()  # pyright: ignore[reportPrivateUsage]
        directories = handle.connection.worker.pipes.directories
        assert directories is not None
        handed = directories.handed_over()
        assert handed is not None
        os.kill(session.worker.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        # In one turn of the loop, which so does not hear of the death: until the kernel has taken the mounts apart.
        while os.path.samestat(os.stat(f"/proc/self/fd/{handed.root}/tmp"), os.fstat(handed.work)):
            assert time.monotonic() < deadline
            os.sched_yield()
        for refused in (session.files.list(), session.files.read("there"), session.files.write("more", b"x")):
            with pytest.raises(pyrepl3.WorkerDied):
                await refused
