# ruff: noqa: E501 - a program a line reads best
"""The three levels, what a policy opens, and machines that can't keep what is asked of them."""

import asyncio
import ctypes
import os
import signal
import stat
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import msgspec
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ResourceLimits, SandboxPolicy, WorkerConfig
from pyrepl3_client._launch.fork_server import ForkServer
from pyrepl3_client._launch.process_tree import children_of, start_time
from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES, PROTOCOL
from pyrepl3_schemas.messages import Hello, Ready
from tests.confinement.escapes import PRELUDE
from tests.confinement.outside_world import SECRET, VARIABLE, OutsideWorld
from tests.confinement.sessions import TIMEOUT_SECONDS, is_working, run, strict_config, value
from tests.helpers.fork_servers import opened
from tests.helpers.processes import ended

pytestmark = pytest.mark.anyio

PROMISED = {
    "files",
    "processes",
    "network",
    "signals",
    "tracing",
    "system_calls",
    "no_new_privs",
    "no_capabilities",
}

LIMITS = {"own_session", "no_new_privs", "no_core_dumps", "no_siblings"}


# --- what is in force ---------------------------------------------------------------------------------


async def test_each_level_tells_what_is_in_force() -> None:
    levels: dict[str, set[str]] = {}
    for level in ("none", "limits", "strict"):
        async with pyrepl3.open_session(config=strict_config(confinement=level)) as session:
            levels[level] = set(session.worker.confinement)
    assert levels["none"] == {"dies_with_parent", "private_stdio"}
    assert levels["limits"] == levels["none"] | LIMITS
    assert levels["strict"] >= levels["none"] | (LIMITS - {"no_siblings"}) | PROMISED | {
        "landlock_files",
        "landlock_signals",
    }


# Each makes a child of the calling process's parent, which ends at once.
SIBLINGS = {
    "clone": "call(56, 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0)",
    "clone3": "call(435, 435, struct.pack('8Q', 0x8000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64) or os._exit(0)",
    "clone of x32": "call(0x40000038, 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0)",
    "clone of i386": """
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex('53bb1180000031c931d231f631ffb878000000cd8085c0750931dbb801000000cd805bc3'))
result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
if result < 0: raise OSError(-result, os.strerror(-result))
""",
}


@pytest.mark.parametrize("forked", [False, True])
async def test_code_makes_no_children_of_the_program(forked: bool) -> None:
    """It would not know of them, nor wait for them."""
    async with AsyncExitStack() as stack:
        if forked:
            pool = await stack.enter_async_context(
                pyrepl3.WorkerPool(1, config=strict_config(confinement="limits"))
            )
            session = await stack.enter_async_context(pool.open_session())
        else:
            session = await stack.enter_async_context(
                pyrepl3.open_session(config=strict_config(confinement="limits"))
            )
        assert "no_siblings" in session.worker.confinement
        await session.execute(PRELUDE)
        for name, attempt in SIBLINGS.items():
            if os.uname().machine != "x86_64" and " of " in name:
                continue
            result = await run(session, attempt)
            assert result.error is not None, name
            assert result.error.type in ("PermissionError", "OSError"), (name, result.error)
        assert [pid for pid in children_of(os.getpid()) if start_time(pid) is None] == []  # no zombies
        code = "import threading, subprocess\nt = threading.Thread(target=print)\nt.start()\nt.join()\n"
        assert (
            await value(
                session,
                code
                + "subprocess.run(['true']).returncode + os.waitpid(os.spawnlp(os.P_NOWAIT, 'true', 'true'), 0)[1]",
            )
            == 0
        )


@pytest.mark.parametrize("ending", ["close", "os._exit", "kill"])
async def test_segments_of_shared_memory_end_with_their_session(ending: str) -> None:
    """They count as no process's, so nothing else would end them before the machine does."""

    def made() -> dict[int, int]:
        rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
        return {int(row[4]): int(row[1]) for row in rows}

    kept = ctypes.CDLL(None).shmget(0, 4096, 0o1600)
    try:
        async with pyrepl3.open_session(config=strict_config(confinement="limits")) as session:
            await session.execute(PRELUDE)
            code = "made = os.pipe()\npid = os.fork()\nif pid == 0:\n    "
            code += "libc.shmget(0, 1 << 20, 0o1600); os.write(made[1], b'x'); signal.pause()\n"
            code += "libc.shmget(0, 1 << 20, 0o1600); os.read(made[0], 1); pid"
            worker = session.worker.pid
            child = await value(session, code)
            own = {worker, child}
            assert own <= set(made())
            if ending == "os._exit":
                with pytest.raises(pyrepl3.WorkerDied):
                    await session.execute("os.kill(pid, 9)\nos.wait()\nos._exit(0)")
                # What a process has made that had ended before its worker stays.
                own = {worker}
            elif ending == "kill":
                os.kill(worker, signal.SIGKILL)
                own = {worker}
        left = made()
        assert not own & set(left)
        assert os.getpid() in left
        ctypes.CDLL(None).shmctl(left.get(child, kept), 0, None)
    finally:
        ctypes.CDLL(None).shmctl(kept, 0, None)


@pytest.mark.skipif(os.getuid() == 0, reason="root traces everything")
async def test_code_does_not_reach_what_later_workers_are_forked_from() -> None:
    config = strict_config(confinement="limits")
    async with ForkServer(config) as fork_server:
        await fork_server.wait_started()
        async with opened(fork_server, config) as session:
            assert fork_server.reason is None
            for name in "mem", "environ", "maps":
                code = f"open('/proc/{fork_server.pid}/{name}', 'rb').close()"
                result = await run(session, code)
                assert result.error is not None, name
                assert result.error.type == "PermissionError"
            # Its own are in reach.
            assert await value(session, "len(open('/proc/self/environ', 'rb').read()) > 0") is True


async def test_a_plain_worker_is_limited() -> None:
    async with pyrepl3.open_session() as session:
        assert "no_new_privs" in session.worker.confinement
        status = await value(session, "open('/proc/self/status').read()")
        assert "NoNewPrivs:\t1" in status


async def test_secrets_of_the_environment_stay_with_the_parent(world: OutsideWorld) -> None:
    code = f"import os\n[os.environ.get({VARIABLE!r}), os.environ['PATH'][-4:], os.environ.get('MINE')]"
    for level, seen in ("none", SECRET), ("limits", None), ("strict", None):
        config = strict_config(confinement=level, env={"MINE": "given"})
        async with pyrepl3.open_session(config=config) as session:
            assert await value(session, code) == [seen, os.environ["PATH"][-4:], "given"]


async def test_fds_of_the_parent_stay_with_it(world: OutsideWorld) -> None:
    """Also those that it marked as inheritable."""
    with (world.folder / "secret").open() as secret:
        os.set_inheritable(secret.fileno(), True)
        async with pyrepl3.open_session() as session:
            assert (
                await value(session, f"import os\nos.path.exists('/proc/self/fd/{secret.fileno()}')") is False
            )


async def test_limits_hold_without_namespaces() -> None:
    limits = ResourceLimits(max_open_files=80, max_file_bytes=10_000, max_memory_bytes=300_000_000)
    async with pyrepl3.open_session(config=strict_config(confinement="limits", limits=limits)) as session:
        names = {"max_open_files", "max_file_bytes", "max_memory_bytes"}
        assert names <= set(session.worker.confinement)
        for code, message in (
            ("import os\nfds = []\nwhile True: fds.append(os.dup(0))", "Too many open files"),
            ("for fd in fds: os.close(fd)\nimport tempfile\nwith tempfile.TemporaryFile() as f: f.write(bytes(20_000))", "File too large"),
        ):  # fmt: skip
            result = await run(session, code)
            assert result.error is not None
            assert message in result.error.message
        result = await run(session, "len(bytearray(10**9))")
        assert result.error is not None
        assert result.error.type == "MemoryError"
        assert await is_working(session)


HELLO = encode(Hello(protocol=PROTOCOL, session_id="s", incarnation=1), DEFAULT_MAX_FRAME_BYTES)


@pytest.mark.parametrize("order", ['{"level":"strict"}', ' { "required": true, "level": "strict" } '])
async def test_an_order_may_be_written_in_any_way(order: str) -> None:
    """Ours is recognized by how it begins, which saves time; others come to the same."""
    command = [sys.executable, "-P", "-m", "pyrepl3_worker", "--parent", str(os.getpid()), "--confine", order]
    worker = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    assert worker.stdin is not None
    assert worker.stdout is not None
    with anyio.fail_after(TIMEOUT_SECONDS):
        worker.stdin.write(HELLO)
        size = int.from_bytes(await worker.stdout.readexactly(4))
        ready = msgspec.msgpack.decode(await worker.stdout.readexactly(size), type=Ready)
        worker.stdin.write_eof()
        await worker.wait()
    assert set(ready.confinement) >= PROMISED


async def test_an_order_that_is_not_understood_is_refused_behind_the_keeper_too() -> None:
    command = [sys.executable, "-P", "-m", "pyrepl3_worker", "--confine", '{"level":"strict","colour":1}']
    worker = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=-1)
    with anyio.fail_after(TIMEOUT_SECONDS):
        _, words = await worker.communicate()
    assert worker.returncode == 78
    assert "colour" in words.decode()


# --- what still works ---------------------------------------------------------------------------------

DAILY = [
    pytest.param("import sys, subprocess\nsubprocess.check_output([sys.executable, '-c', 'print(6 * 7)'], text=True)", "42\n", id="a child process"),
    pytest.param("import subprocess\nsubprocess.check_output('echo $((6 * 7)) | cat', shell=True, text=True)", "42\n", id="a shell"),
    pytest.param("from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as e: r = list(e.map(abs, [-1, -2]))\nr", [1, 2], id="threads"),
    pytest.param("import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as p: r = p.map(abs, [-1, -2])\nr", [1, 2], id="processes"),
    pytest.param("import asyncio\np = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)\n(await p.communicate(b'x'))[0]", b"x", id="asyncio's processes"),
    pytest.param("import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f: f.write('x'); f.seek(0); r = f.read()\nr", "x", id="temporary files"),
    pytest.param("import sqlite3\nc = sqlite3.connect('data.db')\nc.execute('create table t (x)')\nc.execute('insert into t values (1)')\nc.commit()\nc.execute('select * from t').fetchall()", [[1]], id="sqlite"),
    pytest.param("import asyncio, socket\ns = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname())\na, _ = s.accept()\na.sendall(b'x')\nc.recv(1)", b"x", id="its own loopback"),
    pytest.param("import zoneinfo, datetime\nstr(datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo('UTC')))", "2026-01-01 00:00:00+00:00", id="time zones"),
    pytest.param("import os, getpass, pwd\n[os.path.expanduser('~'), pwd.getpwuid(os.getuid()).pw_name]", ["/tmp", "user"], id="a home and a name"),
    pytest.param("import ssl, hashlib, decimal, xml.etree, ctypes, uuid, json\nlen(os.urandom(8))", 8, id="the standard library"),
    pytest.param("import msgspec, pyrepl3_worker, pyrepl3_client\nopen('/dev/null', 'w').write('x')", 1, id="packages, also editable ones"),
    pytest.param("from multiprocessing import shared_memory\nm = shared_memory.SharedMemory(create=True, size=10)\nm.buf[0] = 7\nr = m.buf[0]\nm.close(); m.unlink()\nr", 7, id="shared memory"),
    pytest.param("import os, pty\na, b = pty.openpty()\nos.isatty(b)", True, id="pseudo-terminals"),
    pytest.param("import os\nopen('a', 'w').write('x'); os.mkdir('d'); os.rename('a', 'd/a'); os.link('d/a', 'b'); os.symlink('b', 'c'); open('c').read()", "x", id="files of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "expected"), DAILY)
async def test_what_code_does_every_day_works_strictly(
    confined: pyrepl3.Session, code: str, expected: object
) -> None:
    assert await value(confined, code) == expected


async def test_cancelling_reaches_children_inside(confined: pyrepl3.Session) -> None:
    result = await run(confined, "import subprocess\nsubprocess.run(['sleep', '600'])", timeout=0.3)
    assert result.error is not None
    assert result.error.kind == "timeout"
    assert (
        await value(
            confined,
            "import os\n[p for p in os.listdir('/proc') if p.isdigit() and b'600' in open(f'/proc/{p}/cmdline', 'rb').read()]",
        )
        == []
    )
    stats = await confined.ping()
    assert stats.rss > 1_000_000


async def test_checkpoints_and_restarts_work_strictly() -> None:
    async with pyrepl3.open_session(config=strict_config()) as session:
        await session.execute("kept = {'a': 1}")
        taken = await session.checkpoint()
        await session.restart()
        await session.restore(taken.checkpoint_id)
        assert await value(session, "kept") == {"a": 1}


async def test_pooled_workers_are_confined_too() -> None:
    config = strict_config()
    async with pyrepl3.WorkerPool(1, config, warm=("json",)) as pool, pool.open_session() as session:
        assert set(session.worker.confinement) >= PROMISED
        assert await is_working(session)


@pytest.mark.parametrize(
    ("code", "code_or_signal"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)]
)
async def test_a_death_is_told_through_the_keeper(code: str, code_or_signal: int) -> None:
    async with pyrepl3.open_session(config=strict_config()) as session:
        pid = session.worker.pid
        with pytest.raises(pyrepl3.WorkerDied) as death:
            await session.execute(f"import os\n{code}")
        ending = death.value.exit_code if death.value.signal is None else -death.value.signal
        assert ending == code_or_signal
        assert await ended(pid)


# --- what a policy opens ------------------------------------------------------------------------------


async def test_paths_of_a_policy(work: Path) -> None:
    for name in ("seen", "written"):
        (work / name).mkdir()
        (work / name).chmod(0o777)
        (work / name / "file").write_text(name)
    policy = SandboxPolicy(readable=(f"{work}/seen",), writable=(f"{work}/written",))
    async with pyrepl3.open_session(config=strict_config(sandbox=policy, cwd=f"{work}/written")) as session:
        assert await value(session, "import os\nos.getcwd()") == f"{work}/written"
        assert await value(session, f"[open('{work}/seen/file').read(), open('file').read()]") == [
            "seen",
            "written",
        ]
        await session.execute("open('new', 'w').write('x')")
        result = await run(session, f"open('{work}/seen/file', 'w')")
        assert result.error is not None
        assert "Read-only" in result.error.message
        assert await value(session, f"sorted(os.listdir({str(work)!r}))") == ["seen", "written"]
    assert (work / "written" / "new").read_text() == "x"


async def test_the_network_of_a_policy(world: OutsideWorld) -> None:
    policy = SandboxPolicy(network=True)
    async with pyrepl3.open_session(config=strict_config(sandbox=policy)) as session:
        assert "network" not in session.worker.confinement
        assert set(session.worker.confinement) >= PROMISED - {"network"} | {"host_network"}
        port = world.tcp.getsockname()[1]
        assert (
            await run(session, f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5).close()")
        ).error is None
        assert world.traces() == ["somebody connected to tcp"]
        for code in (
            f"socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', {world.abstract.getsockname()!r})",
            f"open({str(world.folder / 'secret')!r})",
            f"import os\nos.kill({world.victim.pid}, 15)",
        ):
            assert (await run(session, code)).error is not None, code
    assert world.traces() == []


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: SandboxPolicy(readable=("relative",)), "readable"),
        (lambda: SandboxPolicy(writable=("/",)), "writable"),
        (lambda: SandboxPolicy(tcp_ports=(0,)), "tcp_ports"),
        (lambda: SandboxPolicy(network=True, tcp_ports=(443,)), "tcp_ports"),
        (lambda: SandboxPolicy(network="all", hosts=("pypi.org",)), "hosts"),
        (lambda: SandboxPolicy(work_bytes=1), "work_bytes"),
        (lambda: ResourceLimits(max_processes=0), "max_processes"),
        (lambda: WorkerConfig(confinement="very"), "confinement"),  # pyright: ignore[reportArgumentType]
        (lambda: WorkerConfig(sandbox=SandboxPolicy(network=True)), "sandbox"),
        (lambda: WorkerConfig(confinement="none", limits=ResourceLimits(max_processes=5)), "limits"),
    ],
)  # fmt: skip
def test_a_policy_that_means_nothing_is_refused(make: object, names: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=names):
        make()


# --- a machine that can't -----------------------------------------------------------------------------


def forbid_namespaces(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have workers started by a Python that may not create namespaces, as in many containers."""
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "from pyrepl3_worker.confinement import seccomp, syscalls\n"
        "syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)\n"
        "seccomp.install_filter((1, 2, 10, 16))\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    monkeypatch.setattr(sys, "_base_executable", str(path))


async def test_what_cannot_be_enforced_is_an_error_that_says_what_to_do(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_namespaces(monkeypatch, work)
    with pytest.raises(pyrepl3.SpawnError) as error:
        async with pyrepl3.open_session(config=strict_config()):
            pass
    assert error.value.exit_code == 78
    for part in (
        "'strict' cannot be enforced",
        "processes",
        "user.max_user_namespaces",
        "confinement_required=False",
    ):
        assert part in str(error.value)


async def test_less_is_had_only_if_asked_for_and_it_is_told(
    world: OutsideWorld, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landlock and seccomp alone still keep files, network, signals and tracing."""
    forbid_namespaces(monkeypatch, work)
    config = strict_config(confinement_required=False)
    async with pyrepl3.open_session(config=config) as session:
        told = set(session.worker.confinement)
        assert "processes" not in told
        assert told >= PROMISED - {"processes"}
        facts = world.facts
        for code in (
            f"open({facts['secret']!r}).read()",
            f"open({facts['secret']!r}, 'w')",
            "open('/etc/shadow')",
            f"open('/proc/{facts['parent']}/environ').read()",
            f"open('/proc/{facts['parent']}/mem', 'rb').read()",
            f"import os\nos.readlink('/proc/{facts['parent']}/fd/0')",
            f"os.listdir('/proc/{facts['parent']}/root/')",
            "open('/proc/sys/kernel/core_pattern', 'w')",
            f"import os, signal\nos.kill({facts['victim']}, signal.SIGTERM)",
            f"import resource\nresource.prlimit({facts['victim']}, resource.RLIMIT_CPU, (1, 1))",
            f"resource.prlimit({facts['parent']}, resource.RLIMIT_NOFILE)",
            f"os.sched_setaffinity({facts['victim']}, {{0}})",
            f"os.setpriority(os.PRIO_PROCESS, {facts['victim']}, 19)",
            "os.setpriority(os.PRIO_USER, 0, 19)",
            f"os.sched_setscheduler({facts['victim']}, os.SCHED_IDLE, os.sched_param(0))",
            f"import fcntl\nfcntl.fcntl(0, fcntl.F_SETOWN, {facts['victim']})",
            f"import socket\nsocket.create_connection(('127.0.0.1', {facts['tcp']}), 5)",
            f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {facts['udp']}))",
            f"socket.socket(socket.AF_UNIX).connect({facts['unix']!r})",
            f"socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', {facts['abstract']!r})",
            "os.unshare(os.CLONE_NEWUSER)",
        ):
            result = await run(session, code)
            assert result.error is not None, code
            assert result.error.type == "PermissionError", (code, result.error)
        assert await is_working(session)
        assert (
            await value(
                session,
                "import subprocess, sys\nsubprocess.check_output([sys.executable, '-c', 'print(1)'], text=True)",
            )
            == "1\n"
        )
        result = await run(session, "import subprocess\nsubprocess.run(['sleep', '600'])", timeout=0.3)
        assert result.error is not None
        assert result.error.kind == "timeout"
    assert world.traces() == []


# What no fd of a file is needed for, or one that reads nothing.
BY_NAME = {
    "mode": "os.chmod(F, 0o600)",
    "mode by an fd": "os.fchmod(os.open('/usr/bin/env', os.O_RDONLY), 0o755)",
    "mode by an fd that reads nothing": "call(452, 452, os.open(F, os.O_PATH), b'', 0o600, 0x1000)",
    "owner": "os.chown(F, os.getuid(), os.getgid())",
    "owner by an fd that reads nothing": "call(260, 54, os.open(F, os.O_PATH), b'', os.getuid(), os.getgid(), 0x1000)",
    "times": "os.utime(F, (0, 0))",
    "attribute": "os.setxattr(F, 'user.a', b'1')",
    "attribute that is read": "os.getxattr(F, 'user.of_the_test')",
    "watch": "assert (n := libc.inotify_add_watch(libc.inotify_init(), os.path.dirname(F).encode(), 0xFFF)) >= 0 or (_ for _ in ()).throw(PermissionError())",
}


async def test_files_outside_keep_their_modes_owners_and_times_where_nothing_but_landlock_hides_them(
    world: OutsideWorld, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landlock judges what opens a file, and not what works by its name."""
    file = work / "file"
    file.write_text("x")
    with suppress(OSError):  # a file system may have none
        os.setxattr(file, "user.of_the_test", b"1")
    code = f"{PRELUDE}\nF = {str(file)!r}"
    async with pyrepl3.open_session(config=strict_config(confinement="none")) as session:
        await session.execute(code)
        for name, attempt in BY_NAME.items():
            if os.getuid() == 0 or not name.endswith("by an fd"):
                assert (await run(session, attempt)).error is None, name
    before = file.stat()
    forbid_namespaces(monkeypatch, work)
    async with pyrepl3.open_session(config=strict_config(confinement_required=False)) as session:
        await session.execute(code)
        for name, attempt in BY_NAME.items():
            result = await run(session, attempt)
            assert result.error is not None, name
            assert result.error.type in ("PermissionError", "OSError"), (name, result.error)
        assert "files" in session.worker.confinement
    assert file.stat() == before
    assert world.traces() == []


async def test_the_machines_network_opens_no_socket_files_where_its_files_are_in_reach(
    world: OutsideWorld, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_namespaces(monkeypatch, work)
    sandbox = pyrepl3.SandboxPolicy(network=True)
    config = strict_config(confinement_required=False, sandbox=sandbox)
    async with pyrepl3.open_session(config=config) as session:
        assert (await run(session, "import socket\nsocket.socket().close()")).error is None
        result = await run(session, f"socket.socket(socket.AF_UNIX).connect({world.facts['unix']!r})")
        assert result.error is not None
        assert result.error.type == "PermissionError"
    assert world.traces() == []
