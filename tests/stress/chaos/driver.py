"""Drives one session: runs its program, kills what the plan says when it says so, and starts it again."""

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from tests.stress.chaos.plan import Fault, faults_of, kinds_of
from tests.stress.chaos.small_disk import Disk, Filler
from tests.stress.chaos.victim_program import SIGNALS, TOKEN, Orders

_SOON: Final = 0.03
"""Seconds within which a fault comes, once its cell has begun."""
_PATIENCE: Final = 10.0
"""Most seconds for a program to stop, or for a worker to fill a pipe that nobody reads."""
_LOOKS: Final = 0.002
"""Seconds between two looks at a process: the kernel tells nobody that one has begun to wait."""
_ASLEEP: Final = 3
"""So many looks have to find it waiting: the cell has nothing to wait for then but the full pipe."""
_LINE_BYTES: Final = 1 << 20


class Tally(Counter[str]):
    """What was done, and what came of it."""


class SessionDriver:
    """One session's programs, one after the other."""

    def __init__(
        self, orders: Orders, number: int, folder: Path, disk: Disk, filler: Filler, group: asyncio.TaskGroup,
        token: str, ended: Callable[[], None],
    ) -> None:  # fmt: skip
        """Be ready to run the program of session `number`; `ended` is called for each cell that has ended."""
        self.tally = Tally()
        self._orders = orders
        self._faults = faults_of(orders.seed, number, kinds_of(orders.seed, orders.cells))
        self._chance = random.Random(f"{orders.seed}/moments/{number}")
        self._errors = folder / f"stderr-{orders.session_id}"
        self._disk = disk
        self._filler = filler
        self._group = group
        self._environment = {**os.environ, TOKEN: token}
        self._token = f"{TOKEN}={token}".encode()
        self._ended = ended
        self._done = -1

    def disable_faults(self) -> None:
        """Leave this session undisturbed."""
        self._faults.clear()

    async def run(self) -> None:
        """Have the session driven to its end, by as many programs as it takes."""
        life = 0
        while not await self._run_program(msgspec.structs.replace(self._orders, life=life)):
            life += 1
        if self._orders.store is not None:
            # The next owner finds it all, and brings to its end what the last one's death or a full disk
            # has left in the middle.
            assert await self._run_program(msgspec.structs.replace(self._orders, life=life + 1, again=True))

    async def _run_program(self, orders: Orders) -> bool:
        with self._errors.open("ab") as errors:
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.stress.chaos.victim_program",
                msgspec.json.encode(orders).decode(),
                stdin=PIPE, stdout=PIPE, stderr=errors, env=self._environment, limit=_LINE_BYTES,
                # A Ctrl-C is for the runner, which ends its programs itself.
                start_new_session=True,
            )  # fmt: skip
        self._disk.started(program.pid)
        try:
            finished = await self._watch(program)
        finally:
            if program.returncode is None:
                program.kill()
            code = await program.wait()
            self._disk.ended(program.pid)
            assert program.stdin is not None
            program.stdin.close()
        if not finished:
            assert code == -signal.SIGKILL, (
                f"the program of {orders.session_id} ended with {code}:\n{self._errors.read_text()[-3000:]}"
            )
        return finished

    async def _watch(self, program: Process) -> bool:
        """Do to a program what the plan says. Return whether it finished."""
        assert program.stdout is not None
        killed = False
        async for line in program.stdout:
            match line.decode().split():
                case ["finished"]:
                    await program.wait()
                    return program.returncode == 0
                case ["begin", n, worker] if not killed:
                    killed = await self._inject(int(n), int(worker), program)
                case ["sending", n, worker]:
                    await self._sending(int(n), int(worker), program)
                case ["cut"]:
                    self.tally["frames whose middle was their end"] += 1
                case ["back"]:
                    self.tally["recoveries from a worker's death"] += 1
                case ["refused", *_] if not killed:
                    await self._refused(program)
                case ["done", n]:
                    if int(n) > self._done:
                        self._done = int(n)
                        self._ended()
                case _:
                    pass
        return False

    async def _inject(self, n: int, worker: int, program: Process) -> bool:
        """Cause the fault of cell `n`, unless it was caused before. Return whether it ends the program."""
        fault = self._faults.get(n)
        if fault is None or fault is Fault.CUT_FRAME:
            return False
        del self._faults[n]
        if fault is Fault.FULL_DISK:
            self.tally[fault] += 1
            self._group.create_task(self._filler.fill(self._chance.random() * 0.2))
            return False
        await asyncio.sleep(self._chance.random() * _SOON)
        if fault is Fault.KILL_PROGRAM:
            self.tally[fault] += 1
            program.kill()
            return True
        if fault in SIGNALS:
            self.tally[fault] += self._signal(program.pid, SIGNALS[fault])
            return False
        if fault is not Fault.KILL_WORKER:
            self._signal(worker, signal.SIGSTOP)
            await asyncio.sleep(self._chance.random() * _SOON)
        self.tally[fault] += self._signal(
            worker, signal.SIGCONT if fault is Fault.PAUSE_WORKER else signal.SIGKILL
        )
        return False

    async def _sending(self, n: int, worker: int, program: Process) -> None:
        """Its program stands still: once a worker is stuck in the middle of a frame, kill it there."""
        await _until(program.pid, "TtZX")
        if self._faults.get(n) is Fault.CUT_FRAME:
            del self._faults[n]
            await _until(worker, "SZX", looks=_ASLEEP)
            self.tally[Fault.CUT_FRAME] += self._signal(worker, signal.SIGKILL)
        self._signal(program.pid, signal.SIGCONT)

    async def _refused(self, program: Process) -> None:
        self.tally["executions and openings refused on a full disk"] += 1
        self._filler.feel()
        await self._filler.room.wait()
        assert program.stdin is not None
        program.stdin.write(b"there is room\n")
        try:
            await program.stdin.drain()
        except ConnectionError:
            return  # it was killed meanwhile

    def _signal(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal if the process is one of ours, and say so: a number may be a stranger's by now."""
        try:
            if self._token not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return False
            os.kill(pid, number)
        except (ProcessLookupError, FileNotFoundError):
            return False
        return True


async def _until(pid: int, states: str, *, looks: int = 1) -> None:
    """Wait until some looks in a row have found a process in one of some states (proc_pid_stat(5))."""
    found = 0
    async with asyncio.timeout(_PATIENCE):
        while found < looks:
            found = found + 1 if _state(pid) in states else 0
            await asyncio.sleep(_LOOKS)


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (ProcessLookupError, FileNotFoundError):
        return "X"
    return stat.rpartition(")")[2].split()[0]
