"""What stops a session's code, ends its workers, or ends it: and what must be there afterwards."""

import asyncio
import os
import signal

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import CancelReason
from tests.stress.soak.steps import Hand, MismatchError, check, failed

HANGING = (
    "while True: pass",
    "import time\ntime.sleep(60)",
    "import asyncio\nawait asyncio.sleep(60)",
    "await hold()",
    "hold()",
    "import asyncio\nawait asyncio.gather(asyncio.sleep(60), hold())",
    "import threading\nthreading.Event().wait()",
    "import subprocess\nsubprocess.run(['sleep', '60'])",
)


def hanging_cell(hand: Hand) -> str:
    """Return a cell that prints `go` and then does not end by itself."""
    return f"print('go')\n{hand.chance.choice(HANGING)}"


async def _stopped(hand: Hand, reason: CancelReason, name: str) -> None:
    execution = hand.start(hanging_cell(hand))
    await hand.going(execution)
    await execution.cancel(reason)
    result = await execution.result()
    failed(result, execution.code, "cancelled", name)
    check(result.stdout, "go\n", execution.code)
    await hand.intact()


async def cancelled(hand: Hand) -> None:
    await _stopped(hand, "cancelled", "CancelledError")


async def interrupted(hand: Hand) -> None:
    await _stopped(hand, "interrupt", "KeyboardInterrupt")


async def out_of_time(hand: Hand) -> None:
    await hand.error(hanging_cell(hand), "timeout", "TimeoutError", timeout=0.02)
    await hand.intact()


async def cancelled_in_the_queue(hand: Hand) -> None:
    """It never begins, and who is before and behind it does not notice."""
    hand.gate.clear()
    first = hand.start("print('go')\nawait hold()")
    await hand.going(first)
    second = hand.start("total = 'never'")
    third = hand.start("total")
    await second.cancel()
    hand.gate.set()
    check((await first.result()).value, "let go", first.code)
    hand.gate.clear()
    error = (await second.result()).error
    check(error and error.kind, "cancelled", second.code)
    check((await third.result()).value, hand.total, third.code)


async def caller_cancelled(hand: Hand) -> None:
    """The task that awaits is cancelled: so is the code."""
    going = asyncio.Event()
    code = hanging_cell(hand)

    def take(_: pyrepl3.Output) -> None:
        going.set()

    task = asyncio.create_task(hand.run(code, on_output=take))
    await going.wait()
    task.cancel()
    try:
        result = await task
    except asyncio.CancelledError:
        await hand.intact()
    else:
        raise MismatchError(f"{code} ended with {result}, although its caller was cancelled")


# --- deaths -------------------------------------------------------------------------------------------


async def _back(hand: Hand, pid: int) -> None:
    hand.deaths += 1
    await hand.intact()
    if hand.session.worker.pid == pid:
        raise MismatchError(f"worker {pid} of {hand.name} should be dead")
    check(len(hand.session.recoveries), hand.deaths, f"recoveries of {hand.name}")
    cause = hand.session.recoveries[-1].cause
    check(cause and cause.incarnation + 1, hand.session.worker.incarnation, "incarnation")


async def killed_idle(hand: Hand) -> None:
    pid = hand.session.worker.pid
    os.kill(pid, signal.SIGKILL)
    await _back(hand, pid)


async def killed_at_work(hand: Hand) -> None:
    """The cell is run again, its call is not made again, and what was seen is not shown again."""
    hand.gate.clear()
    pid, number = hand.session.worker.pid, hand.next()
    execution = hand.start(f"n = await add({number}, 0)\nprint('go')\nheld = await hold()\nn")
    await hand.going(execution)
    os.kill(pid, signal.SIGKILL)
    hand.gate.set()
    result = await execution.result()
    hand.gate.clear()
    check((result.error, result.value, result.stdout), (None, number, "go\n"), execution.code)
    check(result.attempts, 2, "attempts")
    await _back(hand, pid)


async def ends_its_worker(hand: Hand) -> None:
    """A cell that ends its worker is not run again, and the session goes on."""
    pid = hand.session.worker.pid
    code = "import os\nos._exit(3)"
    result = await hand.run(code)
    certificate = None if result.error is None else result.error.certificate
    check(certificate and (certificate.exit_code, result.attempts), (3, 1), code)
    await _back(hand, pid)


# --- ends and beginnings ------------------------------------------------------------------------------


async def restarted(hand: Hand) -> None:
    """Nothing is left of the namespace; what runs fails."""
    hand.gate.clear()
    pid = hand.session.worker.pid
    execution = hand.start("print('go')\nawait hold()")
    await hand.going(execution)
    await hand.session.restart()
    result = await execution.result()
    certificate = None if result.error is None else result.error.certificate
    check(certificate and certificate.running, (execution.execution_id,), "what a restart ended")
    if hand.session.worker.pid == pid:
        raise MismatchError(f"worker {pid} of {hand.name} should have been replaced")
    await hand.error("total", "exception", "NameError")
    hand.total = 0
    await hand.value("total = 0", 0)
