"""Code that works against `session.files`: links swapped meanwhile, FIFOs, leases, privileges, floods."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SessionFileError
from tests.confinement.sessions import TIMEOUT_SECONDS, is_working, strict_config, value

pytestmark = pytest.mark.anyio

SECRET = b"of the world outside"
INSIDE = b"of the session"
LEAST_TRIES = 150
SWAP = """
import ctypes, os, shutil, threading
outside, stopped, libc = {outside!r}, False, ctypes.CDLL(None)
os.makedirs('folder', exist_ok=True)
for name in ('file', 'folder/file'): open(name, 'wb').write({inside!r})

def swap():
    # Each name is a file or folder of ours at one moment, and a link to the world outside at the next.
    n = 0
    while not stopped:
        n += 1
        for name, target in (('file', 'file'), ('folder', ''), ('tree/folder', 'precious')):
            target, link = os.path.join(outside, target), name.replace('/', '.') + '.link'
            if not os.path.islink(name) and not os.path.islink(link):
                shutil.rmtree(link, ignore_errors=True)
                os.symlink(target if n % 2 else os.path.relpath(target, os.path.dirname(link) or '.'), link)
            libc.renameat2(-100, name.encode(), -100, link.encode(), 2)  # RENAME_EXCHANGE

threads = [threading.Thread(target=swap)]
for thread in threads: thread.start()
"""
END = "stopped = True\nfor thread in threads: thread.join()"


@pytest.fixture(params=["limits", "strict"])
async def attacked(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[pyrepl3.Session, Path]]:
    """A session whose code swaps links to a folder outside for as long as it is open, and that folder."""
    outside, work = tmp_path / "outside", tmp_path / "work"
    outside.mkdir()
    work.mkdir()
    (outside / "file").write_bytes(SECRET)
    config = strict_config(confinement=request.param, cwd=None if request.param == "strict" else str(work))
    async with pyrepl3.open_session(config=config) as session:
        await value(session, SWAP.format(outside=str(outside), inside=INSIDE))
        yield session, outside
        await value(session, END)


async def tried(attempt: Callable[[], Awaitable[None]]) -> None:
    """Attempt something until it has worked and been refused, and often."""
    worked = refused = 0
    with anyio.fail_after(TIMEOUT_SECONDS):
        while worked + refused < LEAST_TRIES or not worked or not refused:
            try:
                await attempt()
            except SessionFileError:
                refused += 1
            else:
                worked += 1


async def test_links_that_are_swapped_while_it_is_downloaded_never_lead_outside(
    attacked: tuple[pyrepl3.Session, Path], tmp_path: Path
) -> None:
    session, _ = attacked
    target = tmp_path / "got"

    async def download() -> None:
        for name in ("file", "folder/file"):
            await session.files.download(name, target)
            assert target.read_bytes() == INSIDE
            assert await session.files.read(name) == INSIDE

    await tried(download)


async def test_links_that_are_swapped_while_it_is_written_never_lead_outside(
    attacked: tuple[pyrepl3.Session, Path],
) -> None:
    session, outside = attacked

    await tried(lambda: session.files.write("folder/new", INSIDE))
    await tried(lambda: session.files.write("folder/newer/file", INSIDE))

    async def upload() -> None:
        await session.files.upload(__file__, "folder/new")

    await tried(upload)
    assert [(entry.name, entry.read_bytes()) for entry in outside.iterdir()] == [("file", SECRET)]


async def test_a_recursive_remove_follows_no_link_that_is_swapped_in(
    attacked: tuple[pyrepl3.Session, Path],
) -> None:
    session, outside = attacked
    (outside / "precious").mkdir()
    (outside / "precious" / "file").write_bytes(SECRET)

    async def remove() -> None:
        await session.files.write("tree/folder/file", INSIDE)
        await session.files.remove("tree", recursive=True)

    await tried(remove)
    assert (outside / "precious" / "file").read_bytes() == SECRET


async def test_what_blocks_an_opening_is_refused_and_not_waited_for() -> None:
    async with pyrepl3.open_session(config=strict_config()) as session:
        with anyio.fail_after(TIMEOUT_SECONDS):
            await value(session, "import os\nos.mkfifo('fifo')")
            with pytest.raises(SessionFileError, match="'fifo' is a FIFO"):
                await session.files.read("fifo")
            for name in (
                "/dev/null",
                "/dev/ptmx",
                "/dev/stdin",
                "/proc/self/fd/0",
                "/proc/kcore",
                "/proc/1/mem",
            ):
                with pytest.raises(SessionFileError):
                    await session.files.read(name)
        assert await is_working(session)


async def test_a_file_with_a_lease_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A strict session can have none."""
    config = strict_config(confinement="limits", cwd=str(tmp_path))
    async with pyrepl3.open_session(config=config) as session:
        with anyio.fail_after(TIMEOUT_SECONDS):
            await value(
                session,
                "import fcntl\nleased = open('leased', 'w+b'); leased.write(b'x')\n"
                "leased.flush()\n"
                "fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
                "import signal; signal.signal(signal.SIGIO, signal.SIG_IGN)",
            )
            with pytest.raises(SessionFileError, match="'leased' is held by the code"):
                await session.files.read("leased")
        assert await is_working(session)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to leave at home")
async def test_it_uses_the_rights_of_the_code_not_those_of_its_program(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "closed").write_bytes(SECRET)
    os.chown(shown / "closed", 4711, 4711)
    os.chmod(shown / "closed", 0o600)
    os.chown(shown, 4711, 4711)
    sandbox = pyrepl3.SandboxPolicy(writable=(str(shown),))
    async with pyrepl3.open_session(config=strict_config(sandbox=sandbox)) as session:
        refused = await session.execute(f"open({str(shown / 'closed')!r})", check=False)
        assert refused.error is not None
        assert refused.error.type == "PermissionError"
        await value(session, f"import os; os.symlink({str(shown / 'closed')!r}, 'mine')")
        for name in ("mine", str(shown / "closed")):
            with pytest.raises(SessionFileError, match="the session's code has no right to it"):
                await session.files.read(name)
        with pytest.raises(SessionFileError, match="the session's code has no right to it"):
            await session.files.write(str(shown / "new"), b"x")
    assert (shown / "closed").read_bytes() == SECRET
    (shown / "after").touch()  # this thread, and the others, have what they had


async def test_a_policys_paths_are_there_with_the_rights_that_it_gives(tmp_path: Path) -> None:
    for name in ("readable", "writable", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    sandbox = pyrepl3.SandboxPolicy(
        readable=(str(tmp_path / "readable"),), writable=(str(tmp_path / "writable"),)
    )
    async with pyrepl3.open_session(config=strict_config(sandbox=sandbox)) as session:
        files = session.files
        assert await files.read(tmp_path / "readable" / "file") == b"readable"
        await files.write(tmp_path / "writable" / "file", b"new")
        assert (tmp_path / "writable" / "file").read_text() == "new"
        with pytest.raises(
            SessionFileError, match="readable/file' is read-only for the session: name its folder"
        ):
            await files.write(tmp_path / "readable" / "file", b"")
        with pytest.raises(
            pyrepl3.SessionFileNotFound, match="hidden/file' is not there for the session's code"
        ):
            await files.read(tmp_path / "hidden" / "file")
        # A link leads where it leads the code.
        await value(
            session, f"import os; os.symlink({str(tmp_path / 'readable')!r}, 'r'); os.symlink('/tmp/f', 'l')"
        )
        await files.write("f", b"x")
        assert await files.read("r/file") == b"readable"
        assert await files.read("l") == b"x"


async def test_floods_are_bounded(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=strict_config()) as session:
        with anyio.fail_after(TIMEOUT_SECONDS):
            await value(
                session, "import os; f = open('sparse', 'wb'); f.truncate(1 << 60); f.write(b'x'); f.close()"
            )
            with pytest.raises(SessionFileError, match="bytes, more than max_bytes=1,073,741,824"):
                await session.files.read("sparse")
            with pytest.raises(SessionFileError, match="more than max_bytes=5: raise that"):
                await session.files.download("sparse", tmp_path / "to", max_bytes=5)
            await value(
                session,
                "here = os.getcwd()\nfor n in range(300): os.mkdir('d'); os.chdir('d')\n'x'; os.chdir(here)",
            )
            with pytest.raises(SessionFileError, match="'d' holds folders 128 deep"):
                await session.files.remove("d", recursive=True)
        assert await is_working(session)
    assert os.listdir(tmp_path) == []


async def test_set_user_id_bits_are_not_carried(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"x")
    os.chmod(tmp_path / "program", 0o6755)
    async with pyrepl3.open_session(config=strict_config()) as session:
        await session.files.upload(tmp_path / "program", "program")
        assert await value(session, "import os; oct(os.stat('program').st_mode)") == "0o100755"
        await session.files.download("program", tmp_path / "back")
    assert not stat.S_IMODE(os.stat(tmp_path / "back").st_mode) & 0o111


async def test_the_way_by_which_the_worker_hands_over_is_closed_before_code_runs() -> None:
    async with pyrepl3.open_session(config=strict_config()) as session:
        sockets = await value(
            session,
            "import os, stat\n"
            "found = [n for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')]\n"
            "[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')"
            " if os.path.lexists(f'/proc/self/fd/{n}')]",
        )
        own = [link for link in sockets if link.startswith(("socket:", "/"))]
        # The event loop's own pair of sockets, and /dev/null; no folder.
        assert sum(link.startswith("socket:") for link in own) <= 2
        assert {link for link in own if link.startswith("/")} <= {"/dev/null", "/proc/2/fd", "/proc/self/fd"}


async def test_an_own_directory_that_the_code_swaps_for_a_link_empties_nothing_else(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(SECRET)
    config = strict_config(confinement="limits", cwd="own")
    async with pyrepl3.open_session(config=config) as session:
        await value(session, f"import os; h = os.getcwd(); os.rmdir(h); os.symlink({str(precious)!r}, h)")
        with pytest.raises(SessionFileError, match=r"'new' is not there: the work directory, .* was removed"):
            await session.files.write("new", b"x")
        await session.restart()
        assert await session.files.list() == []
        await session.files.write("new", b"x")
        assert await asyncio.to_thread(os.listdir, precious) == ["file"]
