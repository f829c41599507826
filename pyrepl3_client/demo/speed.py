"""The demo's last step: measurements on this machine. `benchmarks/` compares pyrepl3 with other projects."""

import statistics
import time
from pathlib import Path

import pyrepl3_client as pyrepl3
from pyrepl3_client.demo.printer import DemoPrinter, check
from pyrepl3_schemas.messages import Output

ROUND_TRIPS = 500
PIPELINED = 10_000
CANCELS = 15
SPAWNS = 3


def milliseconds(seconds: float) -> str:
    """Return a duration in milliseconds, as text."""
    value = seconds * 1e3
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


async def measure_round_trip(session: pyrepl3.Session) -> float:
    """Return the median seconds of an awaited `1+1`."""
    samples: list[float] = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        result = await session.execute("1+1")
        samples.append(time.perf_counter() - began)
        check(result.value == 2, "1+1 is 2")
    return statistics.median(samples)


async def measure_pipelined(session: pyrepl3.Session) -> float:
    """Return the executions per second when they are submitted without waiting."""
    await session.execute("n = 0")
    began = time.perf_counter()
    executions = [session.start("n = n + 1") for _ in range(PIPELINED)]
    values = [(await execution.result()).value for execution in executions]
    seconds = time.perf_counter() - began
    check(values == list(range(1, PIPELINED + 1)), "pipelined cells run and answer in order")
    return PIPELINED / seconds


async def measure_cancel(session: pyrepl3.Session, code: str) -> float:
    """Return the median seconds from `cancel()` to the end of code that would not end by itself."""
    samples: list[float] = []
    for _ in range(CANCELS):
        execution = session.start(f"print('running')\n{code}")
        async for event in execution:
            if isinstance(event, Output):
                break
        began = time.perf_counter()
        await execution.cancel()
        try:
            await execution.result()
        except pyrepl3.ExecutionCancelled:
            samples.append(time.perf_counter() - began)
    check(len(samples) == CANCELS, f"every {code!r} is cancelled")
    return statistics.median(samples)


async def measure_cold_start() -> float:
    """Return the median seconds that a session takes to open in a new worker."""
    samples: list[float] = []
    for _ in range(SPAWNS):
        began = time.perf_counter()
        async with pyrepl3.open_session():
            samples.append(time.perf_counter() - began)
    return statistics.median(samples)


async def measure_warm_start() -> float:
    """Return the seconds that a session takes to open in a pool that has a warm worker."""
    async with pyrepl3.WorkerPool(1) as pool:
        began = time.perf_counter()
        async with pool.open_session() as session:
            seconds = time.perf_counter() - began
            check((await session.execute("6 * 7")).value == 42, "a pooled worker works")
    return seconds


def resident_megabytes(pid: int) -> float:
    """Return a process's resident memory in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kibibytes) * 1024 / 1e6


async def show_measurements(printer: DemoPrinter) -> None:
    """Print each measurement as soon as it is made."""
    async with pyrepl3.open_session() as session:
        await session.execute("1+1")
        memory = resident_megabytes(session.worker.pid)
        printer.measurement(
            "round trip of 1+1", f"{await measure_round_trip(session) * 1e6:.0f} µs", "median"
        )
        printer.measurement(
            "executions, pipelined", f"{await measure_pipelined(session):,.0f}/s", "of n = n + 1"
        )
        for code in ("while True: pass", "import time; time.sleep(60)"):
            latency = await measure_cancel(session, code)
            printer.measurement(f"cancel of {code.rpartition('; ')[2]}", milliseconds(latency), "median")
    printer.measurement("cold start until ready", milliseconds(await measure_cold_start()))
    printer.measurement("session from a warm pool", milliseconds(await measure_warm_start()))
    printer.measurement("memory of an idle worker", f"{memory:.1f} MB", "resident")
