"""What a session is put through: quick steps, each checked against what it must come to."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyrepl3_client as pyrepl3


class MismatchError(AssertionError):
    """Something came out otherwise than it must."""


def check(there: object, wanted: object, what: str) -> None:
    """Compare.

    Raises:
        MismatchError: they differ.
    """
    if there != wanted:
        raise MismatchError(f"{what}: {there!r} instead of {wanted!r}")


@dataclass
class Hand:
    """One session, and what its namespace must hold."""

    name: str
    chance: random.Random
    submitted: Callable[[int], None]
    """Told of executions, in advance."""
    session: pyrepl3.Session = field(init=False)
    total: int = 0
    steps: int = 0
    last: str = ""
    """The code of the last execution."""
    deaths: int = 0
    """Of the workers of the session that is open now, as far as it has to come back from them."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    # --- what the code may call ----------------------------------------------------------------------

    @property
    def capabilities(self) -> dict[str, Callable[..., Any] | pyrepl3.Capability]:
        """Return the host functions by name."""
        return {
            "add": self._add,
            "hold": pyrepl3.capability(self._hold, awaitable=False),
            "refuse": pyrepl3.capability(self._refuse, awaitable=False),
        }

    def _add(self, a: int, b: int) -> int:
        return a + b

    async def _hold(self) -> str:
        await self.gate.wait()
        return "let go"

    async def _refuse(self, why: str) -> None:
        raise ValueError(why)

    @staticmethod
    def answer(prompt: str) -> str | None:
        """Answer the code's prompts."""
        return None if prompt == "end? " else prompt.upper()

    # --- running code --------------------------------------------------------------------------------

    def next(self) -> int:
        """Return a number that no step before had: its cells are new to the compilation cache."""
        self.steps += 1
        return self.steps

    async def run(self, code: str, **options: Any) -> pyrepl3.ExecutionResult:
        """Run code; give its outcome, a failure too."""
        self.last = code
        self.submitted(1)
        return await self.session.execute(code, check=False, **options)

    def start(self, code: str, **options: Any) -> pyrepl3.Execution:
        """Submit code."""
        self.last = code
        self.submitted(1)
        return self.session.start(code, check=False, **options)

    async def value(self, code: str, wanted: object, stdout: str = "", **options: Any) -> None:
        """Run code that must give a value and this output."""
        result = await self.run(code, **options)
        check(result.error, None, code)
        check(result.value, wanted, code)
        check(result.stdout, stdout, f"stdout of {code}")

    async def error(self, code: str, kind: str, name: str, **options: Any) -> pyrepl3.ErrorInfo:
        """Run code that must fail in this way."""
        return failed(await self.run(code, **options), code, kind, name)

    async def going(self, execution: pyrepl3.Execution, text: str = "go\n") -> None:
        """Wait until an execution has printed."""
        seen = ""
        async for event in execution:
            if isinstance(event, pyrepl3.Output):
                seen += event.data
                if text in seen:
                    return
        raise MismatchError(f"{execution.code} ended with {await execution.result()} before it printed")

    async def intact(self) -> None:
        """Check that the namespace is what it must be."""
        last = self.last
        await self.value("total", self.total)
        self.last = last


def failed(result: pyrepl3.ExecutionResult, code: str, kind: str, name: str) -> pyrepl3.ErrorInfo:
    """Return the error of a result that must have failed in this way."""
    if result.error is None:
        raise MismatchError(f"{code} gave {result.repr} and no {name}")
    check((result.error.kind, result.error.type), (kind, name), code)
    return result.error


# --- steps that take no time --------------------------------------------------------------------------


async def a_value(hand: Hand) -> None:
    a, b = hand.next(), hand.chance.randrange(1000)
    await hand.value(f"{a} + {b}", a + b)


async def counting(hand: Hand) -> None:
    more = hand.chance.randrange(1000)
    hand.total += more
    await hand.value(f"total += {more}; total", hand.total)


async def a_burst(hand: Hand) -> None:
    """Many are queued at once: they come back in order, each with its own."""
    mores = [hand.chance.randrange(100) for _ in range(hand.chance.randrange(2, 9))]
    executions = [hand.start(f"print({more}); total += {more}; total") for more in mores]
    for more, execution in zip(mores, executions, strict=True):
        hand.total += more
        result = await execution.result()
        check((result.value, result.stdout), (hand.total, f"{more}\n"), execution.code)


async def a_function(hand: Hand) -> None:
    number = hand.next()
    await hand.value(f"def f(x):\n    return [x + {number} for _ in range(3)]\nf(1)", [number + 1] * 3)


async def printing(hand: Hand) -> None:
    number = hand.next()
    code = f"import sys\nprint('a{number}')\nprint('b', file=sys.stderr)\nprint('c' * 200, end='')"
    result = await hand.run(code)
    check((result.stdout, result.stderr), (f"a{number}\n" + "c" * 200, "b\n"), code)


async def writing_past_python(hand: Hand) -> None:
    number = hand.next()
    code = f"import os\nn = os.write(1, b'raw {number}\\n' * 50)\nprint('end')"
    result = await hand.run(code)
    check(result.stdout, f"raw {number}\n" * 50 + "end\n", code)


async def a_child_process(hand: Hand) -> None:
    code = "import subprocess\nsubprocess.run(['echo', 'from a child'], check=True).returncode"
    await hand.value(code, 0, "from a child\n")


async def awaiting(hand: Hand) -> None:
    number = hand.next()
    await hand.value(f"import asyncio\nawait asyncio.sleep(0.001, {number})", number)


async def blocking(hand: Hand) -> None:
    await hand.value(f"import time\ntime.sleep(0.0005)\n{hand.next()}", hand.steps)


async def an_error(hand: Hand) -> None:
    error = await hand.error(f"def g():\n    {hand.next()} / 0\ng()", "exception", "ZeroDivisionError")
    if "/ 0" not in error.traceback:
        raise MismatchError(f"the traceback lacks its line: {error.traceback}")


async def no_python(hand: Hand) -> None:
    await hand.error(f"total = {hand.next()} +", "compilation", "SyntaxError")


async def asking(hand: Hand) -> None:
    await hand.value(f"input('who{hand.next()}')", f"WHO{hand.steps}")
    await hand.error("input('end? ')", "exception", "EOFError")


async def calling(hand: Hand) -> None:
    number = hand.next()
    await hand.value(f"add({number}, 1)", number + 1)
    await hand.value(
        f"import asyncio\nawait asyncio.gather(*[asyncio.to_thread(add, n, {number}) for n in range(3)])",
        [number, number + 1, number + 2],
    )
    error = await hand.error(f"await refuse('no {number}')", "exception", "ValueError")
    check(error.message, f"no {number}", "message of a host function's error")


async def a_background_task(hand: Hand) -> None:
    number = hand.next()
    code = (
        "import asyncio\nheard = []\nasync def tick():\n    for n in range(3):\n"
        f"        heard.append({number} + n)\n        await asyncio.sleep(0)\n    return heard\n"
        "task = asyncio.create_task(tick())"
    )
    check((await hand.run(code, result_mode="none")).error, None, code)
    await hand.value("await task", [number, number + 1, number + 2])
    check((await hand.run("del task")).error, None, "del task")


async def a_known_id(hand: Hand) -> None:
    """Asked twice, run once."""
    number = hand.next()
    name = f"{hand.name}-{hand.chance.getrandbits(64):x}"
    hand.total += number
    for replayed in (False, True):
        result = await hand.run(f"total += {number}; total", execution_id=name)
        check((result.value, result.replayed), (hand.total, replayed), name)


async def questions(hand: Hand) -> None:
    check((await hand.session.ping()).current_execution, None, "ping")
    check((await hand.session.variables())["total"].repr, repr(hand.total), "variables")
    if "total" not in (await hand.session.complete("tot")).matches:
        raise MismatchError("total is not among the completions of tot")


async def saving(hand: Hand) -> None:
    await hand.session.checkpoint("soak")
    await hand.value("total += 1; total", hand.total + 1)
    await hand.session.restore("soak")
    await hand.intact()
