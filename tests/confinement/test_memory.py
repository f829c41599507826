# ruff: noqa: E501 - a program a line reads best
"""Memory that counts as no process's: refused where memory is limited, and by name of the limit."""

from collections.abc import AsyncIterator

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ResourceLimits
from tests.confinement.escapes import PRELUDE
from tests.confinement.sessions import is_working, run, strict_config, value

pytestmark = pytest.mark.anyio

LIMIT = 400_000_000
UNCOUNTABLE = [
    pytest.param("os.close(os.memfd_create('x'))", id="a file without a name"),
    pytest.param("mmap.mmap(-1, 4096).close()", id="shared memory without a file"),
    pytest.param("subprocess.run([sys.executable, '-c', 'import mmap; mmap.mmap(-1, 9)'], check=True, capture_output=True)", id="in a child"),
]  # fmt: skip
COUNTABLE = [
    pytest.param("m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE)\nm[:3] = b'abc'\nm[:3] == b'abc'", id="memory of one's own"),
    pytest.param("f = open('/tmp/shared', 'w+b')\nf.truncate(4096)\nm = mmap.mmap(f.fileno(), 4096)\nm[:3] = b'abc'\nm.flush()\nopen('/tmp/shared', 'rb').read(3) == b'abc'", id="of a file"),
    pytest.param("from multiprocessing.shared_memory import SharedMemory\na = SharedMemory(create=True, size=9)\nb = SharedMemory(a.name)\na.buf[0] = 7\nseen = b.buf[0]\nb.close(); a.close(); a.unlink()\nseen == 7", id="shared with a name"),
    pytest.param("import multiprocessing as mp\nv, w = mp.Value('i', 3), mp.RawArray('i', [1, 2])\np = mp.get_context('fork').Process(target=lambda: setattr(v, 'value', sum(w)))\nwith mp.Lock(): p.start()\np.join()\nv.value == 3 and p.exitcode == 0", id="shared by multiprocessing"),
    pytest.param("call(9, 222, 0, 4096, 3, 0x22, -1, 0) != 0", id="by a call of one's own"),
]  # fmt: skip


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[pyrepl3.Session]:
    config = strict_config(limits=ResourceLimits(max_memory_bytes=LIMIT))
    async with pyrepl3.open_session(config=config) as session:
        await session.execute(PRELUDE)
        yield session


@pytest.mark.parametrize("code", UNCOUNTABLE)
async def test_memory_that_nothing_counts_is_refused(limited: pyrepl3.Session, code: str) -> None:
    assert "countable_memory" in limited.worker.confinement
    result = await run(limited, code)
    assert result.error is not None
    if "subprocess" in code:
        assert result.error.type == "CalledProcessError"
    else:
        assert result.error.kind == "limit"
        assert "Cannot allocate memory" in result.error.message
        assert f"max_memory_bytes={LIMIT}" in str(result.error)
    assert await is_working(limited)


@pytest.mark.parametrize("level", ["none", "limits", "strict"])
async def test_it_is_not_where_no_limit_is_promised(level: str) -> None:
    async with pyrepl3.open_session(config=strict_config(confinement=level)) as session:
        await session.execute(PRELUDE)
        assert "countable_memory" not in session.worker.confinement
        for case in UNCOUNTABLE:
            assert (await run(session, str(case.values[0]))).error is None


@pytest.mark.parametrize("code", COUNTABLE)
async def test_memory_that_is_counted_works(limited: pyrepl3.Session, code: str) -> None:
    assert await value(limited, code) is True


async def test_a_limit_that_a_session_of_a_pool_has_alone_refuses_it_too() -> None:
    async with pyrepl3.WorkerPool(1, config=strict_config()) as pool:
        lower = strict_config(limits=ResourceLimits(max_memory_bytes=LIMIT))
        async with pool.open_session(config=lower) as session:
            assert (await run(session, "import mmap\nmmap.mmap(-1, 9)")).error is not None
            seen = "import threading\nfound = []\nt = threading.Thread(target=lambda: found.append(mmap.mmap(-1, 9)))\nt.start(); t.join()\nfound"
            assert await value(session, seen) == []


@pytest.mark.parametrize("level", ["limits", "strict"])
async def test_tables_of_pages_count(level: str) -> None:
    """A page of zeros takes no memory, but a table for each two megabytes of addresses does."""
    code = """
size = 200 << 30
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
start = libc.mmap(None, size, 1, 0x4022, -1, 0)
assert libc.madvise(start, size, 15) == 0
for at in range(start, start + size, 2 << 20): ctypes.c_char.from_address(at).value
signal.pause()
"""
    limits = ResourceLimits(max_memory_bytes=LIMIT // 2)
    config = strict_config(confinement=level, limits=limits)
    async with pyrepl3.open_session(config=config, recovery="none") as session:
        await session.execute(PRELUDE)
        with pytest.raises(pyrepl3.WorkerDied, match="max_memory_bytes"):
            await session.execute(code, timeout=40)


HELD_BY_TCP = """
import socket
server = socket.create_server(("127.0.0.1", 0))
writer = socket.create_connection(server.getsockname())
reader, _ = server.accept()
writer.setblocking(False)
held = 0
try:
    while True: held += writer.send(bytes(65536))
except BlockingIOError: pass
reader.close(); writer.close(); server.close()
held
"""


async def test_a_connection_that_nothing_reads_from_holds_little() -> None:
    """What sockets hold counts as no memory, and the kernel lets TCP's buffers grow to megabytes each."""
    async with pyrepl3.open_session(config=strict_config()) as session:
        assert await value(session, HELD_BY_TCP) < 1_500_000
