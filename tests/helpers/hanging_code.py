"""Code that would run for a minute or for ever, in every mode and by every way of waiting there is.

Each prints `ready` when it is where it wants to be stopped. `mode` is the route that it takes. Loops
inside a `try` call a function: in CPython 3.12 an exception that strikes a loop of one jump is not
caught around it.
"""

from dataclasses import dataclass

SYNC, AWAIT, BLOCKING, DEF = "simple_sync", "top_level_await", "blocking_sync", "async_def"


@dataclass(frozen=True, kw_only=True)
class HangingCell:
    """One such piece of code."""

    name: str
    code: str
    mode: str


CASES = [
    HangingCell(name="a loop", mode=SYNC, code="print('ready')\nwhile True: pass"),
    HangingCell(
        name="a loop in a function", mode=SYNC, code="def f():\n    print('ready')\n    while True: pass\nf()"
    ),
    HangingCell(
        name="a loop that calls", mode=SYNC, code="print('ready')\nn = 0\nwhile True: n = abs(n + 1)"
    ),
    HangingCell(
        name="a generator without end",
        mode=SYNC,
        code="import itertools\nprint('ready')\nfor _ in itertools.count(): pass",
    ),
    HangingCell(
        name="a comprehension without end",
        mode=SYNC,
        code="import itertools\nprint('ready')\n[0 for i in itertools.count() if False]",
    ),
    HangingCell(
        name="a loop in a class body", mode=SYNC, code="class C:\n    print('ready')\n    while True: pass"
    ),
    HangingCell(
        name="recursion without end in width",
        mode=SYNC,
        code="def f(n):\n    while True: f(n - 1) if n else None\nprint('ready')\nf(20)",
    ),
    HangingCell(
        name="a sleep on the loop's thread",
        mode=SYNC,
        code="import asyncio, time\nasyncio\nprint('ready')\ntime.sleep(60)",
    ),
    HangingCell(
        name="a lock",
        mode=SYNC,
        code="import threading\nl = threading.Lock()\nl.acquire()\nprint('ready')\nl.acquire()",
    ),
    HangingCell(name="a queue", mode=SYNC, code="import queue\nprint('ready')\nqueue.Queue().get()"),
    HangingCell(
        name="a join",
        mode=SYNC,
        code="import threading\ng = threading.Event()\nt = threading.Thread(target=g.wait, daemon=True)\nt.start()\nprint('ready')\nt.join()",
    ),
    HangingCell(
        name="a read of a pipe",
        mode=SYNC,
        code="import os, asyncio\nasyncio\nr, w = os.pipe()\nprint('ready')\nos.read(r, 1)",
    ),
    HangingCell(
        name="a select", mode=SYNC, code="import select\nprint('ready')\nselect.select([], [], [], 60)"
    ),
    HangingCell(
        name="asyncio.run of a sleep",
        mode=SYNC,
        code="import asyncio\nprint('ready')\nasyncio.run(asyncio.sleep(60))",
    ),
    HangingCell(
        name="asyncio.run of a loop",
        mode=DEF,
        code="import asyncio\nasync def f():\n    print('ready')\n    while True: pass\nasyncio.run(f())",
    ),
    HangingCell(
        name="an await of a sleep", mode=AWAIT, code="import asyncio\nprint('ready')\nawait asyncio.sleep(60)"
    ),
    HangingCell(
        name="an await of a future",
        mode=AWAIT,
        code="import asyncio\nprint('ready')\nawait asyncio.get_running_loop().create_future()",
    ),
    HangingCell(
        name="a loop of awaits",
        mode=AWAIT,
        code="import asyncio\nprint('ready')\nwhile True: await asyncio.sleep(0)",
    ),
    HangingCell(
        name="a loop inside an awaited coroutine",
        mode=AWAIT,
        code="async def f():\n    print('ready')\n    while True: pass\nawait f()",
    ),
    HangingCell(
        name="a sleep inside an awaited coroutine",
        mode=AWAIT,
        code="import time\nasync def f():\n    print('ready')\n    time.sleep(60)\nawait f()",
    ),
    HangingCell(
        name="a gather of sleeps",
        mode=AWAIT,
        code="import asyncio\nprint('ready')\nawait asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))",
    ),
    HangingCell(
        name="a gather with a loop inside a task",
        mode=AWAIT,
        code="import asyncio\nasync def f():\n    print('ready')\n    while True: pass\nawait asyncio.gather(f(), asyncio.sleep(60))",
    ),
    HangingCell(
        name="a gather with a blocking sleep inside a task",
        mode=AWAIT,
        code="import asyncio, time\nasync def f():\n    print('ready')\n    time.sleep(60)\nawait asyncio.gather(asyncio.sleep(60), f())",
    ),
    HangingCell(
        name="a task group with a loop inside",
        mode=AWAIT,
        code="import asyncio\nasync def f():\n    print('ready')\n    while True: pass\nasync with asyncio.TaskGroup() as tg:\n    tg.create_task(f())\n    tg.create_task(asyncio.sleep(60))",
    ),
    HangingCell(
        name="an asynchronous generator without end",
        mode=AWAIT,
        code="import asyncio\nasync def g():\n    print('ready')\n    while True:\n        yield\n        await asyncio.sleep(0)\nasync for _ in g(): pass",
    ),
    HangingCell(
        name="a sleep in a cell that blocks",
        mode=BLOCKING,
        code="import time\nprint('ready')\ntime.sleep(60)",
    ),
    HangingCell(
        name="a loop in a cell that blocks",
        mode=BLOCKING,
        code="import time\ntime.sleep(0)\nprint('ready')\nwhile True: pass",
    ),
    HangingCell(
        name="a loop of short sleeps",
        mode=BLOCKING,
        code="import time\nprint('ready')\nwhile True: time.sleep(0.001)",
    ),
    HangingCell(
        name="a child process",
        mode=BLOCKING,
        code="import subprocess\nprint('ready')\nsubprocess.run(['sleep', '60'])",
    ),
]
"""Code that the first cancel stops."""

PROMPTS = [
    HangingCell(name="input", mode=BLOCKING, code="input('ready\\n')"),
    HangingCell(
        name="input on the loop's thread", mode=SYNC, code="import asyncio\nasyncio\ninput('ready\\n')"
    ),
    HangingCell(
        name="input in a coroutine", mode=AWAIT, code="async def f(): return input('ready\\n')\nawait f()"
    ),
    HangingCell(name="an awaited input", mode=AWAIT, code="await input('ready\\n')"),
    HangingCell(
        name="input in a thread",
        mode=SYNC,
        code="import threading\nt = threading.Thread(target=input, args=('ready\\n',), daemon=True)\nt.start()\nt.join()",
    ),
    HangingCell(name="a read of stdin", mode=SYNC, code="import sys\nsys.stdin.readline()"),
]
"""What waits for a person: no time limit counts that."""

CALLS = [
    HangingCell(name="a host function", mode=SYNC, code="hang()"),
    HangingCell(name="a host function that is awaited", mode=AWAIT, code="await hang()"),
    HangingCell(
        name="a host function in a gather",
        mode=AWAIT,
        code="import asyncio\nawait asyncio.gather(hang(), hang())",
    ),
    HangingCell(
        name="a host function in a cell that blocks",
        mode=BLOCKING,
        code="import time\ntime.sleep(0)\nhang()",
    ),
    HangingCell(
        name="a host function in asyncio.run",
        mode=DEF,
        code="import asyncio\nasync def f(): return await hang()\nasyncio.run(f())",
    ),
]
"""What waits for the program of the parent."""

ASKING = [*PROMPTS, *CALLS]

STUBBORN = [
    HangingCell(
        name="swallows the first",
        mode=SYNC,
        code="try:\n    print('ready')\n    while True: abs(0)\nexcept BaseException: print('swallowed')\nwhile True: abs(0)",
    ),
    HangingCell(
        name="swallows everything",
        mode=SYNC,
        code="print('ready')\nwhile True:\n    try:\n        while True: abs(0)\n    except BaseException: pass",
    ),
    HangingCell(
        name="swallows everything in a function",
        mode=SYNC,
        code="def f():\n    while True:\n        try:\n            while True: abs(0)\n        except BaseException: pass\nprint('ready')\nf()",
    ),
    HangingCell(
        name="swallows everything asleep",
        mode=SYNC,
        code="import asyncio, time\nasyncio\nprint('ready')\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass",
    ),
    HangingCell(
        name="swallows everything in awaits",
        mode=AWAIT,
        code="import asyncio\nprint('ready')\nwhile True:\n    try: await asyncio.sleep(60)\n    except BaseException: pass",
    ),
    HangingCell(
        name="swallows everything in a coroutine's loop",
        mode=AWAIT,
        code="async def f():\n    while True:\n        try:\n            while True: abs(0)\n        except BaseException: pass\nprint('ready')\nawait f()",
    ),
    HangingCell(
        name="swallows everything in a cell that blocks",
        mode=BLOCKING,
        code="import time\ntime.sleep(0)\nprint('ready')\nwhile True:\n    try:\n        while True: abs(0)\n    except BaseException: pass",
    ),
    HangingCell(
        name="swallows everything asleep in a cell that blocks",
        mode=BLOCKING,
        code="import time\nprint('ready')\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass",
    ),
    HangingCell(
        name="cleans up for a minute",
        mode=SYNC,
        code="try:\n    print('ready')\n    while True: abs(0)\nfinally:\n    for _ in range(10**10): pass",
    ),
    HangingCell(
        name="retries",
        mode=SYNC,
        code="def work():\n    while True: abs(0)\ndef retry():\n    while True:\n        try: return work()\n        except BaseException as e: last = e\nprint('ready')\nretry()",
    ),
]
"""Code that the first cancel does not stop; a second one may, and the end of the process does."""

HANG = (
    "import ctypes\n"
    "mutex, libc = ctypes.create_string_buffer(64), ctypes.PyDLL(None)\n"
    "libc.pthread_mutex_lock(mutex)\n"
    "libc.pthread_mutex_lock(mutex)"
)
"""A C call that holds the GIL and that no signal wakes: a mutex locked twice."""
