"""One session that runs new cells all day: its worker must not keep them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyrepl3_client as pyrepl3
from tests.stress.soak.resources import resident_bytes

FORMS = (
    "x{slot} = {n}\ny = [i for i in range({n} % 7)]\n# {pad}\nlen(y)",
    "def f{slot}(a):\n    return a + {n}\nf{slot}({n})",
    "def g(a):\n    return a / 0\ng({n})",
    "def g(a:\n    return {n}",
    "import asyncio\nawait asyncio.sleep(0, {n})",
    "class C{slot}:\n    number = {n}\n    def get(self):\n        return self.number\nC{slot}().get()",
    "print({n})",
)


@dataclass(frozen=True)
class Kept:
    """What a worker has after so many cells."""

    cells: int
    resident: int
    sources: int


async def run_cells(marks: Sequence[int], cache_size: int = 1000) -> list[Kept]:
    """Run as many different cells as the last of `marks` says; look at each of them."""
    config = pyrepl3.WorkerConfig(executor=pyrepl3.ExecutorConfig(cache_size=cache_size))
    kept: list[Kept] = []
    async with pyrepl3.open_session(config=config) as session:
        for number in range(1, marks[-1] + 1):
            form = FORMS[number % len(FORMS)]
            await session.execute(form.format(n=number, slot=number % 50, pad=f"{number:0200}"), check=False)
            if number in marks:
                await session.execute("import gc\ngc.collect()")  # a class and its methods lead to each other
                code = "import linecache\nsum(name.startswith('<cell ') for name in linecache.cache)"
                sources = (await session.execute(code)).value
                kept.append(Kept(number, resident_bytes(session.worker.pid), sources))
    return kept
