"""The cells that the suite executes: as code for the real worker, as scripts for the other."""

import asyncio
from typing import Any

from pyrepl3_client.testing import CallFailed, Run, ScriptedWorker

ONE = "1 + 1"
NOTHING = "x = None"
FAILS = "raise ValueError('on purpose')"
PRINTS = "import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')"
PAST_PYTHON = "import os\nprint('a', flush=True)\nos.write(1, b'b\\n')\nprint('c')"
SPLIT = "import os\nos.write(1, '€'.encode()[:1])\nos.write(1, '€'.encode()[1:])"
UNFINISHED = "import os\nos.write(1, '€'.encode()[:2])"
ASKS = "f'hello {input(\"name? \")}'"
CALLS = "add(1, b=2)"
CALLS_BADLY = "add()"
SLEEPS = "import asyncio\nprint('asleep')\nawait asyncio.sleep(60)"
WAITS_FOR_A_CALL = "await never()"
UNENCODABLE = "object"
EXITS = "import os\nos._exit(3)"


def script_all(worker: ScriptedWorker) -> None:
    """Teach a scripted worker all of them."""

    async def one(run: Run) -> int:
        return 2

    async def nothing(run: Run) -> None:
        pass

    async def fails(run: Run) -> None:
        raise ValueError("on purpose")

    async def prints(run: Run) -> None:
        run.print("one\n")
        run.print("two\n", "stderr")
        run.print("three\n")

    async def past_python(run: Run) -> None:
        run.print("a\n")
        run.write(b"b\n")
        run.print("c\n", captured=True)

    async def split(run: Run) -> None:
        run.write("€".encode()[:1])
        await asyncio.sleep(0)
        run.write("€".encode()[1:])

    async def unfinished(run: Run) -> None:
        run.write("€".encode()[:2])

    async def asks(run: Run) -> str:
        return f"hello {await run.input('name? ')}"

    async def calls(run: Run) -> Any:
        return await run.call("add", 1, b=2)

    async def calls_badly(run: Run) -> Any:
        try:
            return await run.call("add")
        except CallFailed as error:
            raise TypeError(str(error)) from error

    async def sleeps(run: Run) -> None:
        run.print("asleep\n")
        await asyncio.sleep(60)

    async def waits_for_a_call(run: Run) -> Any:
        return await run.call("never")

    async def unencodable(run: Run) -> type[object]:
        return object

    async def exits(run: Run) -> None:
        worker.process.exit(3)
        await asyncio.sleep(60)

    for code, script in {
        ONE: one,
        NOTHING: nothing,
        FAILS: fails,
        PRINTS: prints,
        PAST_PYTHON: past_python,
        SPLIT: split,
        UNFINISHED: unfinished,
        ASKS: asks,
        CALLS: calls,
        CALLS_BADLY: calls_badly,
        SLEEPS: sleeps,
        WAITS_FOR_A_CALL: waits_for_a_call,
        UNENCODABLE: unencodable,
        EXITS: exits,
    }.items():
        worker.script(code)(script)
