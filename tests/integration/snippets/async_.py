"""Top-level await and all that goes with it; tasks over cells; threads and processes."""

from tests.integration.snippets import Snippet

AWAIT = "top_level_await"
SYNC = "simple_sync"

ROWS = [
    Snippet(name="await at the top", code="import asyncio\nawait asyncio.sleep(0, 42)", value=42, mode=AWAIT),
    Snippet(name="the contract's own example", code="import asyncio; await asyncio.sleep(0, 42)", value=42, repr="42", mode=AWAIT),
    Snippet(name="an assignment from an await", code="import asyncio\nr1 = await asyncio.sleep(0, 'x')", value="x", mode=AWAIT),
    Snippet(name="an await deep inside an expression", code="import asyncio\n[1, {'k': (await asyncio.sleep(0, 5)) + 1}]", value=[1, {"k": 6}], mode=AWAIT),
    Snippet(name="an await before the last statement alone", code="import asyncio\nawait asyncio.sleep(0)\n'sync end'", value="sync end", mode=AWAIT),
    Snippet(name="an await in if, for, while, try and with", code="""
        import asyncio, contextlib
        got = []
        if await asyncio.sleep(0, True):
            for i in range(2):
                got.append(await asyncio.sleep(0, i))
        while not await asyncio.sleep(0, True): ...
        try:
            got.append(await asyncio.sleep(0, "try"))
        finally:
            with contextlib.nullcontext(await asyncio.sleep(0, "with")) as w:
                got.append(w)
        got
    """, value=[0, 1, "try", "with"], mode=AWAIT),
    Snippet(name="an async function is only defined", code="async def f1(): return 5", value=None, mode="async_def"),
    Snippet(name="and awaited in the next cell", before=("async def f2(): return 5",), code="await f2()", value=5, mode=AWAIT),
    Snippet(name="define and await at once", code="async def f3(): return 6\nawait f3()", value=6, mode=AWAIT),
    Snippet(name="a coroutine is a value, not run", before=("async def f4(): return 7", "c4 = f4()"), code="await c4", value=7),
    Snippet(name="async for at the top", code="async def agen():\n    for i in range(3):\n        yield i\nacc = []\nasync for i in agen():\n    acc.append(i)\nacc", value=[0, 1, 2], mode=AWAIT),
    Snippet(name="async for with else", before=("async def agen2():\n    yield 1",), code="async for a in agen2(): pass\nelse: a += 10\na", value=11, mode=AWAIT),
    Snippet(name="async with at the top", code="""
        class Room:
            async def __aenter__(self): return "in"
            async def __aexit__(self, *details): print("out")
        async with Room() as where:
            pass
        where
    """, value="in", stdout="out\n", mode=AWAIT),
    Snippet(name="asynchronous comprehensions", before=("async def agen3():\n    for i in range(4):\n        yield i",), code="([i async for i in agen3() if i % 2], {i async for i in agen3()}, {i: i async for i in agen3()})", value=[[1, 3], [0, 1, 2, 3], {i: i for i in range(4)}], mode=AWAIT),
    Snippet(name="awaits inside a comprehension", code="import asyncio\n[await asyncio.sleep(0, i) for i in range(3)]", value=[0, 1, 2], mode=AWAIT),
    Snippet(name="an asynchronous generator expression is lazy", before=("async def agen4():\n    yield 1",), code="ge = (i async for i in agen4())\ntype(ge).__name__", value="async_generator"),
    Snippet(name="a lambda may not await", code="import asyncio\nlambda: await asyncio.sleep(0)", error="SyntaxError", kind="compilation", line=2),
    Snippet(name="a plain function may not await", code="def no():\n    await 1", error="SyntaxError", kind="compilation", line=2),
    Snippet(name="gather keeps order", code="import asyncio\nasync def after(n):\n    for _ in range(n): await asyncio.sleep(0)\n    return n\nawait asyncio.gather(after(3), after(1), after(2))", value=[3, 1, 2]),
    Snippet(name="gather with exceptions as values", code="import asyncio\nasync def bad(): raise ValueError('no')\n[type(r).__name__ for r in await asyncio.gather(bad(), asyncio.sleep(0), return_exceptions=True)]", value=["ValueError", "NoneType"]),
    Snippet(name="a task group", code="import asyncio\nasync with asyncio.TaskGroup() as tg:\n    t1 = tg.create_task(asyncio.sleep(0, 1))\n    t2 = tg.create_task(asyncio.sleep(0, 2))\nt1.result() + t2.result()", value=3),
    Snippet(name="a task group's failure is a group", code="import asyncio\nasync def boom(): raise KeyError('k')\nasync with asyncio.TaskGroup() as tg:\n    tg.create_task(boom())", error="ExceptionGroup", message="unhandled errors in a TaskGroup (1 sub-exception)", line=3),
    Snippet(name="asyncio.timeout", code="import asyncio\ntry:\n    async with asyncio.timeout(0.001):\n        await asyncio.sleep(60)\nexcept TimeoutError as e:\n    out5 = 'timed out'\nout5", value="timed out"),
    Snippet(name="wait_for", code="import asyncio\nawait asyncio.wait_for(asyncio.sleep(60), 0.001)", error="TimeoutError", kind="exception", line=2),
    Snippet(name="a queue between tasks", code="""
        import asyncio
        async def produce(q):
            for i in range(3): await q.put(i)
            await q.put(None)
        async def consume(q):
            seen = []
            while (item := await q.get()) is not None: seen.append(item)
            return seen
        q = asyncio.Queue(maxsize=1)
        (await asyncio.gather(produce(q), consume(q)))[1]
    """, value=[0, 1, 2]),
    Snippet(name="locks, events, semaphores over cells", before=("import asyncio\nlock, event, sem = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(1)", "event.set()"), code="async with lock, sem:\n    r6 = await event.wait()\nr6", value=True),
    Snippet(name="create_task in a sync cell", before=("import asyncio\nasync def work(): return 'worked'", "task7 = asyncio.create_task(work())"), code="await task7", value="worked"),
    Snippet(name="a cell with create_task runs on the loop's thread", code="import asyncio\nasyncio.create_task(asyncio.sleep(0)).done()", value=False, mode=SYNC),
    Snippet(name="a background task lives on between cells", before=("import asyncio\nticks = 0\ngo = asyncio.Event()\nasync def ticker():\n    global ticks\n    while True:\n        await go.wait()\n        go.clear()\n        ticks += 1\nbg = asyncio.create_task(ticker())", "go.set(); await asyncio.sleep(0); await asyncio.sleep(0)", "go.set(); await asyncio.sleep(0); await asyncio.sleep(0)"), code="alive = not bg.done()\nbg.cancel()\n(ticks, alive)", value=[2, True]),
    Snippet(name="asyncio.run in a cell", code="import asyncio\nasync def main(): return await asyncio.sleep(0, 'ran')\nasyncio.run(main())", value="ran"),
    Snippet(name="asyncio.run in a cell without async def", before=("import asyncio\nasync def main2(): return 3",), code="asyncio.run(main2())", value=3, mode=SYNC),
    Snippet(name="asyncio.run, then await, then asyncio.run", before=("import asyncio\nasync def main3(n): return n",), code="[asyncio.run(main3(1)), await main3(2), asyncio.run(main3(3))]", value=[1, 2, 3], mode=AWAIT),
    Snippet(name="the session's loop is back after asyncio.run", before=("import asyncio\nouter8 = asyncio.get_running_loop()\nasync def main4(): return asyncio.get_running_loop() is outer8",), code="(asyncio.run(main4()), asyncio.get_running_loop() is outer8)", value=[False, True]),
    Snippet(name="run_until_complete of the session's loop", code="import asyncio\nasyncio.get_event_loop().run_until_complete(asyncio.sleep(0, 9))", value=9),
    Snippet(name="run_until_complete inside of a loop says what to do", code="import asyncio\nasync def f():\n    c9 = asyncio.sleep(0)\n    try: asyncio.get_running_loop().run_until_complete(c9)\n    finally: c9.close()\nasyncio.run(f())", error="RuntimeError", message="already running", line=4),
    Snippet(name="to_thread", code="import asyncio, threading\nawait asyncio.to_thread(lambda: threading.current_thread() is threading.main_thread())", value=False),
    Snippet(name="run_coroutine_threadsafe from a thread", code="import asyncio\nloop9 = asyncio.get_running_loop()\nawait asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 'there'), loop9).result(10))", value="there"),
    Snippet(name="call_soon and a future", code="import asyncio\nfut = asyncio.get_running_loop().create_future()\nasyncio.get_running_loop().call_soon(fut.set_result, 'soon')\nawait fut", value="soon"),
    Snippet(name="a context variable crosses cells", before=("import contextvars\ncv = contextvars.ContextVar('cv', default=0)\ncv.set(1)",), code="cv.get()", value=1, mode=SYNC),
    Snippet(name="also one set in an awaiting cell", before=("import asyncio, contextvars\ncv2 = contextvars.ContextVar('cv2', default=0)", "await asyncio.sleep(0)\ncv2.set(5)"), code="cv2.get()", value=5, mode=SYNC),
    Snippet(name="and one set in a blocking cell", before=("import time, contextvars\ncv3 = contextvars.ContextVar('cv3', default=0)", "time.sleep(0); cv3.set(6)"), code="import asyncio\nawait asyncio.sleep(0, cv3.get())", value=6, mode=AWAIT),
    Snippet(name="a token of one cell resets in another", before=("import contextvars\ncv4 = contextvars.ContextVar('cv4', default='d')\ntok = cv4.set('set')",), code="cv4.reset(tok)\ncv4.get()", value="d"),
    Snippet(name="a task's setting stays in the task", before=("import asyncio, contextvars\ncv5 = contextvars.ContextVar('cv5', default='out')\nasync def sets(): cv5.set('in')", "await asyncio.create_task(sets())"), code="cv5.get()", value="out"),
    Snippet(name="asynchronous context managers by decorator", code="from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def res():\n    yield 'r'\nasync with res() as r9: pass\nr9", value="r"),
    Snippet(name="an async generator's cleanup", code="import contextlib\nasync def ag9():\n    try:\n        yield 1\n    finally:\n        print('closed')\nasync with contextlib.aclosing(ag9()) as g9:\n    async for x in g9: break\nx", value=1, stdout="closed\n"),
    Snippet(name="an awaitable class", code="class Aw:\n    def __await__(self):\n        yield from ()\n        return 'mine'\nawait Aw()", value="mine", mode=AWAIT),
    Snippet(name="awaiting what cannot be awaited", code="await 5", error="TypeError", message="can't be used in 'await' expression", line=1, mode=AWAIT),
    Snippet(name="a subprocess by asyncio", code="import asyncio\np = await asyncio.create_subprocess_exec('printf', 'hi', stdout=-1)\n(await p.communicate())[0].decode(), p.returncode", value=["hi", 0]),
    Snippet(name="streams over a local socket", code="""
        import asyncio, socket
        async def handle(reader, writer):
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
        a, b = socket.socketpair()
        (r1, w1), (r2, w2) = await asyncio.open_connection(sock=a), await asyncio.open_connection(sock=b)
        server = asyncio.create_task(handle(r2, w2))
        w1.write(b"hey\\n")
        line = await r1.readline()
        await server
        w1.close()
        line
    """, value=b"HEY\n"),
    Snippet(name="the current task is the cell's", code="import asyncio\n(asyncio.current_task() is not None, await asyncio.sleep(0, 1))", value=[True, 1]),
    Snippet(name="shield and wait", code="import asyncio\nt = asyncio.create_task(asyncio.sleep(0, 4))\ndone, pending = await asyncio.wait([asyncio.shield(t)])\n(len(done), len(pending), t.result())", value=[1, 0, 4]),
    Snippet(name="eager tasks", code="import asyncio\nt = asyncio.eager_task_factory(asyncio.get_running_loop(), asyncio.sleep(0, 'e'))\nawait t", value="e"),
    Snippet(name="a blocking call runs on the loop's thread, as other code does", before=("import threading, time\ntime.sleep(0); first_thread = threading.current_thread()",), code="time.sleep(0)\n(threading.current_thread() is first_thread, first_thread is threading.main_thread())", value=[True, True], mode="blocking_sync"),
    Snippet(name="blocking by attribute of a module of an earlier cell", before=("import time as clock",), code="clock.sleep(0)", value=None, mode="blocking_sync"),
    Snippet(name="blocking by from-import", code="from time import sleep as nap\nnap(0)", value=None, mode="blocking_sync"),
    Snippet(name="blocking by module", code="import socket\nsocket.socket().close()", value=None, mode="blocking_sync"),
    Snippet(name="a name of one's own does not block", before=("def sleep(n): return 'mine'\nclass Box:\n    def read(self): return 'read'\nbox = Box()",), code="(sleep(1), box.read())", value=["mine", "read"], mode=SYNC),
]
