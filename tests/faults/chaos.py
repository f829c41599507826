"""A fault run: durable sessions whose workers and programs are killed, checked from an independent log.

    python -m tests.faults.chaos [--seed N] [--sessions N] [--cells N]

Each session runs numbered cells that change the namespace, ask a person and call a host function. A
program of its own drives them; meanwhile its workers are killed (SIGKILL) or stopped (SIGSTOP, then killed)
at random moments, and so is the program itself, which is then started again. Afterwards the log of side
effects, which only the host functions write, and the namespace are compared with what an undisturbed run
gives. The seed that is printed repeats the choices, not the scheduler's.
"""

import argparse
import asyncio
import os
import random
import secrets
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyrepl3_client as pyrepl3

CELL = """
n = {n}
answer = input('input {n}? ')
receipt = pay({n})
total = globals().get('total', 0) + n
seen = globals().get('seen', []) + [(n, answer, receipt)]
print('cell', n)
total
"""
HOLD = 0.02
"""Seconds that every third host call takes, so that deaths fall into calls too."""


def value_of(outcome: pyrepl3.ExecutionResult) -> Any:
    """Give a result's value; None of it may have failed."""
    assert outcome.error is None, outcome.error
    return outcome.value


async def drive(store: str, session_id: str, cells: int, log: Path) -> None:
    """Run all cells of one session, those on record included, and say what came of it."""

    async def pay(n: int, context: pyrepl3.CallContext) -> int:
        with log.open("a") as file:
            file.write(f"{context.call_id} {context.attempt}\n")
        if n % 3 == 0:
            await asyncio.sleep(HOLD)
        return 10 * n

    offered = {"pay": pyrepl3.capability(pay, repeatable=True)}
    async with pyrepl3.open_session(
        session_id,
        store=store,
        capabilities=offered,
        on_input=lambda prompt: prompt.strip("? "),
        max_attempts=50,
        config=pyrepl3.WorkerConfig(cancel_grace=0.5, kill_grace=0.5, close_grace=1.0),
    ) as session:
        print("worker", session.worker.pid, flush=True)
        for n in range(cells):
            outcome = await session.execute(CELL.format(n=n), execution_id=f"cell-{n}")
            total = value_of(outcome)
            assert total == n * (n + 1) // 2, (n, total)
            print("known" if outcome.replayed else "done", n, session.worker.pid, flush=True)
        seen = value_of(await session.execute("seen"))
        assert seen == [[n, f"input {n}", 10 * n] for n in range(cells)], seen
    print("finished", flush=True)


class Tally(Counter[str]):
    """What was done to the sessions."""


async def torment(chance: random.Random, store: str, session_id: str, cells: int, log: Path) -> Tally:
    """Drive a session to its end by a program that is started again whenever it was killed."""
    tally = Tally()
    command = [sys.executable, "-m", "tests.faults.chaos", "--drive", store, session_id, str(cells), str(log)]
    while True:
        program = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            finished = await _watch(chance, program, tally)
        finally:
            if program.returncode is None:
                _signal(program.pid, signal.SIGKILL)
            code = await program.wait()
        if finished:
            assert code in (0, -signal.SIGKILL), f"the program of {session_id} ended with {code}"
            return tally
        assert code == -signal.SIGKILL, f"the program of {session_id} ended with {code}: see its stderr"


async def _watch(chance: random.Random, program: asyncio.subprocess.Process, tally: Tally) -> bool:
    """Kill what a program runs, or the program, by chance; say whether it came to its end."""
    assert program.stdout is not None
    finished = False
    async for line in program.stdout:
        words = line.decode().split()
        finished = words[0] == "finished"
        if finished or words[0] not in ("done", "worker"):
            continue
        worker = int(words[-1])
        dice = chance.random()
        if dice < 0.1:
            await asyncio.sleep(chance.random() * 0.05)
            _signal(worker, signal.SIGKILL)
            tally["workers killed"] += 1
        elif dice < 0.12:
            _signal(worker, signal.SIGSTOP)
            await asyncio.sleep(chance.random() * 0.05)
            _signal(worker, signal.SIGKILL)
            tally["workers stopped and killed"] += 1
        elif dice < 0.16:
            await asyncio.sleep(chance.random() * 0.05)
            _signal(program.pid, signal.SIGKILL)
            tally["programs killed"] += 1
            # It may have come to its end meanwhile.
            return b"finished" in (await program.stdout.read()).split()
    await program.wait()
    return finished


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def check_log(log: Path, session_id: str, cells: int) -> int:
    """Check that every call was made, and made again only as a declared repeat; give how many were."""
    lines = [line.split() for line in log.read_text().splitlines()]
    made = Counter(call_id for call_id, _ in lines)
    assert set(made) == {f"cell-{n}:pay:1" for n in range(cells)}, session_id
    attempts = Counter(tuple(line) for line in lines)
    twice = [line for line, count in attempts.items() if count > 1]
    assert not twice, f"{session_id}: the same attempt was made twice: {twice}"
    return sum(count - 1 for count in made.values())


async def run(seed: int, sessions: int, cells: int) -> Tally:
    """Torment several sessions on one store at once; give what was done to them.

    Raises:
        AssertionError: a promise was broken; the text says which.
    """
    with tempfile.TemporaryDirectory(prefix="pyrepl3-chaos-") as folder:
        store = str(Path(folder, "state.db"))
        logs = [Path(folder, f"log-{number}") for number in range(sessions)]
        async with asyncio.TaskGroup() as group:
            done = [
                group.create_task(torment(random.Random(f"{seed}/{n}"), store, f"s{n}", cells, log))
                for n, log in enumerate(logs)
            ]
        tally = Tally()
        for one in done:
            tally.update(one.result())
        for n, log in enumerate(logs):
            tally["calls repeated since the program died in them"] += check_log(log, f"s{n}", cells)
        tally["executions"] = sessions * cells
    return tally


def main() -> int:
    """Run it and print what was done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="repeats the choices")
    parser.add_argument("--sessions", type=int, default=4, help="how many at once (default 4)")
    parser.add_argument("--cells", type=int, default=250, help="executions a session (default 250)")
    parser.add_argument("--drive", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        store, session_id, cells, log = args.drive
        asyncio.run(drive(store, session_id, int(cells), Path(log)))
        return 0
    print(f"seed {args.seed}: {args.sessions} sessions of {args.cells} executions", flush=True)
    tally = asyncio.run(run(args.seed, args.sessions, args.cells))
    for what, count in tally.items():
        print(f"{count:>8,} {what}")
    print("every execution resolved once, no recorded call made twice, every namespace as undisturbed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
