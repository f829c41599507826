"""A fault run: durable sessions whose workers and programs are killed, checked from an independent log.

    python -m tests.stress.chaos [--seed N] [--sessions N] [--cells N]

Each session runs numbered cells that change the namespace, ask a person, call host functions, gather calls
and print. A program of its own drives them. Meanwhile its workers are killed, stopped, and killed in the
middle of a frame, the program itself is killed and started again, its session is closed or taken over, and
the disk becomes full. Whatever a program awaits has to end. Afterwards
the log of side effects, which only the host functions write, the outcomes and the namespace are compared
with those of an undisturbed run. The seed that is printed repeats the choices, not the scheduler's.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.stress.chaos.checks import (
    check_calls_made,
    check_log,
    check_no_fd_left,
    check_no_process_left,
    check_same,
    check_same_namespace,
    check_store,
    open_fds,
)
from tests.stress.chaos.driver import SessionDriver, Tally
from tests.stress.chaos.plan import FEWEST_CELLS, Fault
from tests.stress.chaos.small_disk import Disk, Filler, own_namespace, small_disk
from tests.stress.chaos.victim_program import TOKEN, Orders

_PATIENCE: Final = 3.0
"""Seconds for somebody to feel that the disk is full."""
_REPORT: Final = 10.0
"""Seconds between two lines about how far it has got."""


class Run:
    """One fault run."""

    def __init__(self, seed: int, sessions: int, cells: int, folder: Path, disk: Disk, token: str) -> None:
        self._folder = folder
        self._disk = disk
        self._filler = Filler(disk, disk.folder / "state.db", _PATIENCE)
        self._token = token
        self._total = sessions * cells
        self._ended = 0
        self._started = time.monotonic()
        self._drivers: list[SessionDriver] = []
        self._undisturbed = Orders(
            None, "undisturbed", seed, cells, self._log("undisturbed"), 0, stand_still=False
        )
        self._orders = [
            Orders(str(disk.folder / "state.db"), f"s{n}", seed, cells, self._log(f"s{n}"), 0)
            for n in range(sessions)
        ]

    def _log(self, name: str) -> str:
        path = self._folder / f"log-{name}"
        path.touch()
        return str(path)

    async def go(self) -> Tally:
        """Disturb all sessions at once, and check the outcome.

        Raises:
            AssertionError: a promise was broken; the text says which.
        """
        fds = open_fds()
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell())
            async with asyncio.TaskGroup() as driving:
                for n, orders in enumerate(self._orders):
                    self._drivers.append(self._driver(n, orders, driving))
                undisturbed = self._driver(-1, self._undisturbed, driving)
                undisturbed.disable_faults()
                for driver in (*self._drivers, undisturbed):
                    driving.create_task(driver.run())
            telling.cancel()
        # The loop's own: the pidfds and pipes of its children go in its next turns.
        await asyncio.sleep(0)
        tally = await asyncio.to_thread(self._check)
        check_no_fd_left(fds)
        return tally

    def _driver(self, n: int, orders: Orders, group: asyncio.TaskGroup) -> SessionDriver:
        counted = orders is not self._undisturbed
        return SessionDriver(
            orders, n, self._folder, self._disk, self._filler, group, self._token,
            self._count if counted else lambda: None,
        )  # fmt: skip

    def _count(self) -> None:
        if not self._ended:
            print("the first execution has ended", flush=True)
        self._ended += 1

    def _faults(self) -> Tally:
        tally = Tally()
        for driver in self._drivers:
            tally.update(driver.tally)
        return tally

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_REPORT)
            done = ", ".join(f"{count:,} {what}" for what, count in sorted(self._faults().items()))
            seconds = time.monotonic() - self._started
            print(f"  {seconds:,.0f} s: {self._ended:,} of {self._total:,} executions; {done}", flush=True)

    def _check(self) -> Tally:
        tally = Tally(executions=self._total)
        tally.update(self._faults())
        tally["times the disk was full and nobody wrote"] = self._filler.unfelt
        undisturbed = check_log(Path(self._undisturbed.log))
        for orders in self._orders:
            outcomes = check_log(Path(orders.log))
            check_same_namespace(orders.session_id, Path(orders.log), Path(self._undisturbed.log))
            check_same(orders.session_id, outcomes, undisturbed)
            tally["calls not made, whose program died between intent and call"] += check_calls_made(
                orders.session_id, Path(orders.log), Path(self._undisturbed.log)
            )
            tally["calls repeated, whose outcome was not on record"] += outcomes.repeats
            tally["prompts repeated, whose answer was not on record"] += outcomes.asked_again
            tally["dead sessions opened again by their program"] += outcomes.reopened
        executions = set(undisturbed.digests)
        check_store(
            self._disk.folder / "state.db", {orders.session_id: executions for orders in self._orders}
        )
        return tally


async def run(seed: int, sessions: int, cells: int, *, may_mount: bool = False) -> Tally:
    """Do a fault run; return what was done. On a failure its files are kept, and the error says where.

    Raises:
        AssertionError: a promise was broken; the text says which.
    """
    folder = Path(tempfile.mkdtemp(prefix="pyrepl3-chaos-"))
    (folder / "disk").mkdir()
    disk = small_disk(folder / "disk", may_mount=may_mount)
    print(f"the store lies on {disk.kind}", flush=True)
    token = secrets.token_hex(8)
    try:
        try:
            tally = await Run(seed, sessions, cells, folder, disk, token).go()
        finally:
            check_no_process_left(f"{TOKEN}={token}".encode())
    except Exception as error:
        shutil.copytree(disk.folder, folder / "kept")
        disk.close()
        error.add_note(f"seed {seed}; its store, logs and programs' stderr are in {folder}")
        raise
    except BaseException:
        disk.close()
        shutil.rmtree(folder)
        raise
    disk.close()
    shutil.rmtree(folder)
    return tally


def main() -> int:
    """Run it and print what was done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="repeats the choices")
    parser.add_argument("--sessions", type=int, default=4, help="how many at once (default 4)")
    parser.add_argument(
        "--cells", type=int, default=250, help=f"executions a session (default 250, at least {FEWEST_CELLS})"
    )
    parser.add_argument(
        "--limit", action="store_true", help="fill the disk by a limit on its files, without a mount"
    )
    args = parser.parse_args()
    if args.sessions < 1 or args.cells < FEWEST_CELLS:
        parser.error(f"a run takes at least 1 session and {FEWEST_CELLS} cells")
    print(f"seed {args.seed}: {args.sessions} sessions of {args.cells} executions", flush=True)
    started = time.monotonic()
    may_mount = not args.limit and own_namespace()
    try:
        tally = asyncio.run(run(args.seed, args.sessions, args.cells, may_mount=may_mount))
    except KeyboardInterrupt:
        print(f"interrupted; seed {args.seed} repeats it", flush=True)
        return 130
    for what, count in tally.items():
        print(f"{count:>8,} {what}")
    missing = [fault for fault in Fault if not tally[fault]]
    print(f"in {time.monotonic() - started:,.0f} s; faults that never came: {', '.join(missing) or 'none'}")
    print(
        "every execution resolved once, no recorded call or prompt put again, every outcome and namespace as "
        "undisturbed, no process, fd or file left"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
