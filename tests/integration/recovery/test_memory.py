"""A cell that takes more memory than there is: its worker dies, the certificate says why, it is not run again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3

pytestmark = pytest.mark.anyio

LIMIT = 300_000_000
CELL = "open({log!r}, 'a').write('run ')\nbig = b'x' * 3_000_000_000"
PROGRAM = """
import asyncio, os, sys
import pyrepl3_client as pyrepl3

group, log = sys.argv[1:]
with open(group + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))


async def main():
    async with pyrepl3.open_session() as session:
        await session.execute("x = 1")
        died = await session.execute(%r.format(log=log), check=False)
        certificate = died.error.certificate
        print(died.error.kind, died.attempts, certificate.cause, certificate.signal, certificate.own_doing)
        print((await session.execute("x")).value, session.worker.incarnation)


asyncio.run(main())
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """Make a control group with little memory, where this process may."""
    for root, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max"), ("unified", "memory.max")):
        path = Path("/sys/fs/cgroup", root, f"pyrepl3-test-{os.getpid()}")
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            (path / limit).write_text(str(LIMIT))
            swap = path / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
            yield path
        except OSError:
            continue  # it has no say over memory
        else:
            return
        finally:
            path.rmdir()
    pytest.skip("no control group with a limit of memory can be made here")


def test_a_cell_that_the_kernel_kills_for_want_of_memory_is_not_run_again(
    group: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % CELL, str(group), str(log)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "died 1 memory 9 True\n1 2\n", done.stderr
    assert log.read_text() == "run "


async def test_a_cell_whose_processes_are_over_the_limit_together_is_not_run_again(tmp_path: Path) -> None:
    """One process alone would get a MemoryError."""
    log = tmp_path / "log"
    code = f"""
import os, time
open({str(log)!r}, 'a').write('run ')
for _ in range(2):
    if not os.fork():
        taken = b'x' * {LIMIT * 2 // 3}
        time.sleep(600)
time.sleep(600)
"""
    limits = pyrepl3.ResourceLimits(max_memory_bytes=LIMIT)
    async with pyrepl3.open_session(config=pyrepl3.WorkerConfig(limits=limits)) as session:
        await session.execute("x = 1")
        died = await session.execute(code, check=False)
        assert died.error is not None
        assert (died.error.kind, died.attempts) == ("died", 1)
        assert died.error.certificate is not None
        assert died.error.certificate.own_doing
        assert f"over max_memory_bytes={LIMIT}" in died.error.certificate.cause
        assert (await session.execute("x")).value == 1
    assert log.read_text() == "run "
