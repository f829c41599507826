"""A demo of pyrepl3 in some ten seconds: `python -m pyrepl3_client.demo`.

Every step prints its code, runs it in a real worker, shows what happens while it happens, and checks
the outcome: the demo fails when pyrepl3 does not do what a step shows.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from textwrap import dedent

import pyrepl3_client as pyrepl3
from pyrepl3_client.demo.printer import DemoError, DemoPrinter, check
from pyrepl3_client.demo.speed import milliseconds, show_measurements
from pyrepl3_client.demo.survival import show_killed_program, show_killed_worker
from pyrepl3_schemas.messages import Output

type Step = Callable[[DemoPrinter, pyrepl3.Session], Awaitable[None]]

LOOKUP_SECONDS = 0.3


def dedent_cell(code: str) -> str:
    """Return a cell's code without the indentation that it has in this file."""
    return dedent(code).strip()


async def lookup(city: str) -> dict[str, object]:
    """Look a city up, slowly: the host function that the cells call."""
    await asyncio.sleep(LOOKUP_SECONDS)
    return {"city": city, "degrees": {"Oslo": 4, "Lima": 19, "Pune": 31}[city], "answered by": os.getpid()}


async def show_events(printer: DemoPrinter, execution: pyrepl3.Execution) -> pyrepl3.ExecutionResult:
    """Print a cell's output as it comes, and then its value."""
    async for event in execution:
        if isinstance(event, Output):
            printer.output(event.data)
    result = await execution.result()
    if result.repr not in ("", "None"):
        printer.value(result.repr)
    return result


async def run_cell(printer: DemoPrinter, session: pyrepl3.Session, code: str) -> pyrepl3.ExecutionResult:
    """Print a cell, run it, and print its output and its value."""
    printer.code(code)
    return await show_events(printer, session.start(code))


async def show_top_level_await(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Await at the top level, in another process."""
    result = await run_cell(
        printer,
        session,
        dedent_cell("""
            import asyncio, os
            await asyncio.sleep(0.1, f"hello from process {os.getpid()}")
        """),
    )
    check(result.mode == "top_level_await", "the cell runs as top-level await")
    check(result.value == f"hello from process {session.worker.pid}", "the worker answers for itself")
    printer.remark(f"this program is process {os.getpid()}; the value came back as a Python object")


async def show_kept_state(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Keep a function and a running task from cell to cell."""
    await run_cell(
        printer,
        session,
        dedent_cell("""
            async def count_down(n):
                while n:
                    await asyncio.sleep(0.05)
                    n -= 1
                return "the task lived on between the cells"

            task = asyncio.create_task(count_down(3))
            print("started")
        """),
    )
    result = await run_cell(printer, session, "await task")
    check(result.value == "the task lived on between the cells", "a background task lives on")


async def show_live_output(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Print lines while the code still runs."""
    code = dedent_cell("""
        import time
        for i in range(5):
            print("line", i)
            time.sleep(0.15)
    """)
    printer.code(code)
    execution = session.start(code)
    began = time.perf_counter()
    arrivals: list[float] = []
    async for event in execution:
        if isinstance(event, Output):
            arrivals.append(time.perf_counter() - began)
            printer.output(f"{event.data.rstrip():<10} after {arrivals[-1]:.2f} s\n")
    result = await execution.result()
    seconds = time.perf_counter() - began
    check(result.stdout == "".join(f"line {i}\n" for i in range(5)), "all lines arrive, in order")
    check(len(arrivals) >= 5 and seconds - arrivals[0] > 0.6, "a line is seen before the cell ends")
    printer.remark(f"the cell ended after {seconds:.2f} s, with everything printed in its result, too")


async def show_input(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Answer the code's input()."""
    code = dedent_cell("""
        name = input("Who are you? ")
        print(f"Hello, {name}: that took", len(name), "characters")
    """)
    printer.code(code)

    async def on_input(prompt: str) -> str:
        printer.output(prompt)
        printer.answer("Ada")
        return "Ada"

    result = await show_events(printer, session.start(code, on_input=on_input))
    check("Hello, Ada: that took 3 characters\n" in result.stdout, "input() gives the program's answer")


async def show_host_functions(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Let the cell call a function of this program: several at once, and one."""
    began = time.perf_counter()
    result = await run_cell(
        printer,
        session,
        dedent_cell("""
            cities = ["Oslo", "Lima", "Pune"]
            found = await asyncio.gather(*(lookup(city) for city in cities))
            max(found, key=lambda each: each["degrees"])
        """),
    )
    seconds = time.perf_counter() - began
    check(result.value == {"city": "Pune", "degrees": 31, "answered by": os.getpid()}, "calls come here")
    check(seconds < 2.5 * LOOKUP_SECONDS, "the calls run side by side")
    printer.remark(f"three calls of {LOOKUP_SECONDS} s each, side by side, in {seconds:.2f} s")
    result = await run_cell(printer, session, '(await lookup("Oslo"))["degrees"]')
    check(result.value == 4, "a call gives what the function returns")


async def show_cancel(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Cancel a busy loop, and find the variable that it left."""
    code = dedent_cell("""
        rounds = 0
        print("off it goes")
        while True:
            rounds += 1
    """)
    printer.code(code)
    execution = session.start(code)
    async for event in execution:
        if isinstance(event, Output):
            printer.output(event.data)
            break
    await asyncio.sleep(0.3)  # let it turn for a while
    began = time.perf_counter()
    await execution.cancel()
    try:
        await execution.result()
    except pyrepl3.ExecutionCancelled:
        seconds = time.perf_counter() - began
    else:
        raise DemoError("not as shown: the loop is cancelled")
    printer.remark(f"cancelled; it stopped {milliseconds(seconds)} later")
    result = await run_cell(printer, session, "rounds")
    check(isinstance(result.value, int) and result.value > 1000, "the namespace outlives a cancel")


async def show_timeout(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Run a blocking call with a timeout."""
    code = "time.sleep(60)"
    printer.code(code)
    began = time.perf_counter()
    try:
        await session.execute(code, timeout=0.4)
    except pyrepl3.ExecutionTimeout as error:
        seconds = time.perf_counter() - began
        printer.traceback(str(error))
    else:
        raise DemoError("not as shown: sixty seconds do not pass in 0.4")
    check(0.3 < seconds < 3, "the timeout comes when it should")
    printer.remark(f"timeout=0.4, over after {seconds:.3f} s")


async def show_traceback(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Print an error's traceback with the user's own lines, and check its data."""
    code = dedent_cell("""
        def parse(text):
            return int(text)

        async def load(text):
            try:
                return parse(text)
            except ValueError as error:
                raise LookupError(f"no number in {text!r}") from error

        async with asyncio.TaskGroup() as group:
            for text in ("1", "two"):
                group.create_task(load(text))
    """)
    printer.code(code)
    try:
        await session.execute(code)
    except pyrepl3.ExecutionFailed as failed:
        error = failed.error
    else:
        raise DemoError("not as shown: 'two' is no number")
    printer.traceback(error.traceback)
    check(error.type == "ExceptionGroup" and len(error.members) == 1, "the group arrives with its member")
    member = error.members[0]
    check(member.type == "LookupError" and member.cause is not None, "a member arrives with its cause")
    check("return int(text)" in error.traceback, "the traceback shows the user's lines")
    check("pyrepl3_worker" not in error.traceback, "the traceback shows none of ours")


async def show_crash(printer: DemoPrinter, session: pyrepl3.Session) -> None:
    """Crash every worker that takes a cell, and go on."""
    code = "import ctypes; ctypes.string_at(0)"
    printer.code(code)
    before = session.worker.pid
    try:
        await session.execute(code)
    except pyrepl3.WorkerDied as error:
        # The error's other lines are the worker's stderr: where each of its threads was when it died.
        printer.traceback(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        check(error.signal == signal.SIGSEGV, "the error names the signal")
    else:
        raise DemoError("not as shown: reading address 0 kills the worker")
    result = await run_cell(printer, session, "'and on it goes'")
    check(result.value == "and on it goes", "the session goes on after a crash")
    check(session.worker.pid != before, "in another process")
    printer.remark(f"worker {session.worker.pid} took over from {before}, and those it cost")


STEPS: tuple[tuple[str, Step], ...] = (
    ("Top-level await, in another process", show_top_level_await),
    ("State that lives on between cells", show_kept_state),
    ("Output, live", show_live_output),
    ("input(), answered by the program", show_input),
    ("Functions of this program, called from the cell", show_host_functions),
    ("A busy loop, cancelled", show_cancel),
    ("A blocking call, timed out", show_timeout),
    ("An error and its traceback", show_traceback),
    ("A cell that crashes every worker, explained and survived", show_crash),
)


async def run_demo(printer: DemoPrinter) -> None:
    """Run all steps."""
    began = time.perf_counter()
    async with pyrepl3.open_session(capabilities={"lookup": lookup}) as session:
        ready = time.perf_counter() - began
        printer.title(f"pyrepl3: a worker was ready after {milliseconds(ready)}. Every | cell runs in it.")
        for title, step in STEPS:
            printer.step(title)
            await step(printer, session)
    printer.step("A worker killed in mid-cell: no question is asked twice")
    await show_killed_worker(printer)
    printer.step("This library's own program killed, and started again")
    await show_killed_program(printer)
    printer.step("Figures of this machine, just now")
    await show_measurements(printer)
    printer.title(f"\nThat was all of it, checked at every step, in {time.perf_counter() - began:.1f} s.")


def main() -> int:
    """Run the demo; return its exit status: 0, 1 when a check failed, 130 after Ctrl-C."""
    argparse.ArgumentParser(prog="python -m pyrepl3_client.demo", description=__doc__).parse_args()
    printer = DemoPrinter.for_stdout()
    try:
        asyncio.run(run_demo(printer))
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        printer.title("\nstopped")
        return 130
    except BrokenPipeError:
        # The reader (a pager, `head`) has seen enough. Nothing may write to the pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
