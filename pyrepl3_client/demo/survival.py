"""The demo's steps in which a worker is killed, and then a program that drives a session."""

import asyncio
import sys
import tempfile
from pathlib import Path

import pyrepl3_client as pyrepl3
from pyrepl3_client.demo.killed_program import CODE
from pyrepl3_client.demo.printer import DemoPrinter, check

_KILLING_CELL = """
import os
city = input('city? ')
weather = lookup(city)
if not os.path.exists(flag):
    open(flag, 'x').close()
    os.system(f'kill -9 {os.getpid()}')  # the worker is gone, in mid-cell
f'{city}: {weather}'
""".strip()


async def show_killed_worker(printer: DemoPrinter) -> None:
    """Kill a worker in the middle of a cell, after an input and a host call."""
    prompts: list[str] = []
    calls: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "Bern"

    def lookup(city: str) -> str:
        calls.append(city)
        return "snow"

    with tempfile.TemporaryDirectory(prefix="pyrepl3-demo-") as folder:
        printer.code(_KILLING_CELL)
        async with pyrepl3.open_session(
            capabilities={"lookup": lookup}, on_input=answer, on_recovery=pyrepl3.RecoveryBar()
        ) as session:
            await session.execute(f"kept = ['from before']; flag = {str(Path(folder, 'died'))!r}")
            result = await session.execute(_KILLING_CELL)
            kept = await session.execute("kept")
            printer.value(result.repr)
            check(result.value == "Bern: snow" and result.attempts == 2, "the cell ended in a second worker")
            check((len(prompts), len(calls)) == (1, 1), "each question and each call was made once")
            check(kept.value == ["from before"], "the namespace came back")
            report = session.recoveries[-1]
            printer.remark(str(report).splitlines()[0])
            printer.remark(
                f"asked {len(prompts)} time, called {len(calls)} time, in {result.attempts} attempts"
            )


async def show_killed_program(printer: DemoPrinter) -> None:
    """Kill a program whose session has a store, and start the program again."""
    printer.code(f'session.execute("{CODE}", execution_id="step-1")')
    with tempfile.TemporaryDirectory(prefix="pyrepl3-demo-") as folder:
        log = Path(folder, "log")
        store = Path(folder, "state.db")
        command = [sys.executable, "-m", "pyrepl3_client.demo.killed_program", str(store), str(log)]
        first = await asyncio.create_subprocess_exec(*command, "hold", stdout=asyncio.subprocess.PIPE)
        if first.stdout is None:
            raise TypeError("the program has no output")
        await first.stdout.readline()
        first.kill()
        await first.wait()
        printer.remark("the program was killed while the cell waited for its second answer")
        second = await asyncio.create_subprocess_exec(*command, "go", stdout=asyncio.subprocess.PIPE)
        printed, _ = await second.communicate()
        printer.value(printed.decode().strip())
        lines = log.read_text().splitlines()  # noqa: ASYNC240 - a few lines, in a demo
        check(printed == b"Ada paid 42, yes\n", "the next run of the program ends what the first began")
        check(lines.count("asked name?") == 1, "the person was not asked again")
        check(lines.count("paid 21") == 1, "the host function was not called again")
        printer.remark(f"what the outside saw, both runs together: {'; '.join(lines)}")
