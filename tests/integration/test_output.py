"""What the code writes, by whatever way: it arrives, in order, live, attributed, bounded."""

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import Output
from tests.helpers.real_sessions import outcome, quick, run, running, seen, stop, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        pytest.param("print('a'); import os; os.write(1, b'b\\n'); print('c')", "a\nb\nc\n", "", id="os.write between prints"),
        pytest.param(
            "import os, subprocess, sys\nprint(1)\nos.write(1, b'2\\n')\nsubprocess.run(['echo', '3'])\nsys.stdout.write('4\\n')\nos.system('echo 5')\nprint(6)",
            "1\n2\n3\n4\n5\n6\n", "", id="print, fd, child, write, shell",
        ),
        pytest.param("import ctypes\nprint('py')\nctypes.CDLL(None).puts(b'c')\nctypes.CDLL(None).fflush(None)\nprint('py')", "py\nc\npy\n", "", id="stdio of C"),
        pytest.param("import os\nfor i in range(50): print(i) if i % 2 else os.write(1, b'%d\\n' % i)", "".join(f"{i}\n" for i in range(50)), "", id="a hundred turns"),
        pytest.param("import os\nos.write(2, b'err\\n'); os.write(1, b'out\\n')", "out\n", "err\n", id="both fds"),
        pytest.param("import subprocess, sys\nsubprocess.Popen(['echo', 'x'], stdout=sys.stdout).wait()", "x\n", "", id="a child on sys.stdout"),
        pytest.param("import subprocess, sys\nsubprocess.run(['sh', '-c', 'echo a; echo b >&2'], stdout=sys.stderr, stderr=sys.stdout) and None", "b\n", "a\n", id="a child with the two swapped"),
        pytest.param("import subprocess\nsubprocess.run(['sh', '-c', 'echo a; echo b >&2'], stderr=subprocess.STDOUT) and None", "a\nb\n", "", id="a child with the two as one"),
        pytest.param("import os\nos.write(1, 'ö'.encode()[:1]); os.write(1, 'ö'.encode()[1:])", "ö", "", id="a character in two pieces"),
        pytest.param("import os, sys\nfor b in '🎉é'.encode(): os.write(1, bytes([b]))", "🎉é", "", id="bytes one by one"),
        pytest.param("import os\nos.write(1, b'a\\xffb\\xc3')\n", "a\ufffdb\ufffd", "", id="bytes that are no UTF-8"),
        pytest.param("import sys\nfor b in '🎉é'.encode(): sys.stdout.buffer.write(bytes([b]))\nsys.stdout.flush()", "🎉é", "", id="sys.stdout.buffer byte by byte"),
        pytest.param("import sys\nsys.stdout.buffer.write(b'a\\xffb')\nsys.stdout.flush()", "a\ufffdb", "", id="the buffer, no UTF-8"),
        pytest.param("print('a', end=''); print('b', end='', flush=True); print(); print('c', 'd', sep='\\t')", "ab\nc\td\n", "", id="end, sep and flush"),
        pytest.param("print('a\\r\\nb\\rc')", "a\r\nb\rc\n", "", id="carriage returns stay"),
        pytest.param("print()", "\n", "", id="an empty line"),
        pytest.param("print('', end='')", "", "", id="nothing"),
        pytest.param("import logging\nlogging.basicConfig(level=10, force=True, format='%(levelname)s %(message)s')\nlogging.info('to stderr')", "", "INFO to stderr\n", id="logging"),
        pytest.param("import contextlib, io, sys\nwith contextlib.redirect_stderr(sys.stdout): print('x', file=sys.stderr)", "x\n", "", id="redirect_stderr"),
        pytest.param("import os\nwith os.fdopen(1, 'w', closefd=False) as f: f.write('by fdopen')", "by fdopen", "", id="fdopen of 1"),
        pytest.param("open('/dev/stdout', 'w').write('by name') and None", "by name", "", id="/dev/stdout"),
        pytest.param("import sys\nprint('to the original', file=sys.__stdout__)", "to the original\n", "", id="sys.__stdout__"),
        pytest.param("import threading\nt = threading.Thread(target=print, args=('in a thread',)); t.start(); t.join()", "in a thread\n", "", id="a thread"),
        pytest.param("import asyncio\nasync def say(n):\n    await asyncio.sleep(0)\n    print(n)\nawait asyncio.gather(say(1), say(2))", "1\n2\n", "", id="tasks"),
        pytest.param("import time\ntime.sleep(0)\nprint('from code that blocks')", "from code that blocks\n", "", id="code that blocks"),
    ],
)  # fmt: skip
async def test_output_arrives_in_order(shared: pyrepl3.Session, code: str, stdout: str, stderr: str) -> None:
    result = await shared.execute(code)
    assert (result.stdout, result.stderr) == (stdout, stderr)


async def test_streams_look_as_they_should(shared: pyrepl3.Session) -> None:
    facts = await value(
        shared,
        "import sys\n"
        "[[s.fileno(), s.buffer.fileno(), s.isatty(), s.encoding, s.writable(), s.readable(), s.closed, s.name, s.mode]"
        " for s in (sys.stdout, sys.stderr)]",
    )
    assert facts == [
        [n, n, False, "utf-8", True, False, False, f"<{name}>", "w"]
        for n, name in ((1, "stdout"), (2, "stderr"))
    ]


async def test_writing_the_wrong_type_is_an_error(shared: pyrepl3.Session) -> None:
    result = await run(shared, "import sys\nsys.stdout.write(b'bytes')")
    assert result.error is not None
    assert result.error.type == "TypeError"
    assert "must be str, not bytes" in result.error.message


async def test_stdout_and_stderr_keep_their_order_among_each_other(shared: pyrepl3.Session) -> None:
    execution = shared.start(
        "import sys\nfor i in range(5):\n    print('o', i)\n    print('e', i, file=sys.stderr)"
    )
    events = [event async for event in execution]
    pieces = [(event.stream, event.data) for event in events if isinstance(event, Output)]
    assert [data for _, data in pieces] == [f"{s} {i}\n" for i in range(5) for s in "oe"]
    assert {stream for stream, data in pieces if data.startswith("e")} == {"stderr"}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("print('ready')\nwhile True: pass", id="print"),
        pytest.param("import sys\nsys.stdout.write('ready\\n')\nwhile True: pass", id="write"),
        pytest.param("print('no newline: ready\\n', end='')\nwhile True: pass", id="print with end"),
        pytest.param("for i in range(3): print(i)\nprint('ready')\nwhile True: pass", id="the last of some"),
        pytest.param("print('rea', end='')\nprint('dy')\nwhile True: pass", id="a line in pieces"),
        pytest.param("import os\nos.write(1, b'ready\\n')\nwhile True: pass", id="os.write"),
        pytest.param("import os\nos.system('echo ready')\nwhile True: pass", id="a child"),
        pytest.param("import time\ntime.sleep(0)\nprint('ready')\nwhile True: pass", id="code that blocks"),
        pytest.param(
            "import threading\nthreading.Thread(target=print, args=('ready',)).start()\nwhile True: pass",
            id="a thread",
        ),
        pytest.param("import asyncio\nprint('ready')\nawait asyncio.sleep(60)", id="before an await"),
        pytest.param("import sys\nprint('ready', file=sys.stderr)\nwhile True: pass", id="stderr"),
    ],
)
async def test_output_is_live(shared: pyrepl3.Session, code: str) -> None:
    """It is here while the code computes, and not only once that ends."""
    execution = shared.start(code)
    assert (await seen(execution)).endswith("ready\n")
    assert (await stop(execution)).error is not None


async def test_text_without_a_newline_is_live_too(shared: pyrepl3.Session) -> None:
    execution = shared.start("print('50%', end='')\nwhile True: pass")
    assert await seen(execution, "50%") == "50%"
    await stop(execution)


async def test_200_000_lines_arrive_in_order(shared: pyrepl3.Session) -> None:
    result = await shared.execute("for i in range(200_000): print(i)")
    assert result.stdout == "".join(f"{i}\n" for i in range(200_000))


async def test_a_very_long_line(shared: pyrepl3.Session) -> None:
    result = await shared.execute("print('é' * 5_000_000)")
    assert result.stdout == "é" * 5_000_000 + "\n"


async def test_20_mb_from_a_child(shared: pyrepl3.Session) -> None:
    result = await shared.execute(
        "import subprocess\nsubprocess.run('yes | head -c 20000000', shell=True) and None"
    )
    assert len(result.stdout) == 20_000_000
    assert result.stdout.startswith("y\ny\n")


async def test_the_bound_keeps_head_and_tail_and_says_what_was_cut() -> None:
    async with pyrepl3.open_session(config=quick(max_output_bytes=20_000)) as session:
        result = await session.execute("for i in range(10_000): print('line', i)")
        assert result.truncated
        assert result.stdout.startswith("line 0\nline 1\n")
        assert result.stdout.endswith("line 9998\nline 9999\n")
        assert len(result.stdout) < 21_000
        (notice,) = [line for line in result.stdout.splitlines() if "cut" in line]
        assert "max_output_bytes=20000" in notice
        whole = sum(len(f"line {i}\n") for i in range(10_000))
        cut = int(notice.split(" bytes")[0].split()[-1].replace(",", ""))
        assert whole - cut == len(result.stdout) - len(notice) - 2
        small = await session.execute("print('small')")
        assert (small.stdout, small.truncated) == ("small\n", False)


async def test_the_bound_holds_for_captured_output_too() -> None:
    async with pyrepl3.open_session(config=quick(max_output_bytes=20_000)) as session:
        result = await session.execute("import os\nfor i in range(10_000): os.write(1, b'line %d\\n' % i)")
        assert result.truncated
        assert result.stdout.startswith("line 0\n")
        assert result.stdout.endswith("line 9999\n")
        assert len(result.stdout) < 45_000
        assert await works(session)


async def test_a_thread_that_writes_after_the_end_is_late_and_in_nobody_elses_result() -> None:
    heard: list[Output] = []
    arrived = anyio.Event()

    def listen(output: Output) -> None:
        heard.append(output)
        if "late words" in output.data:
            arrived.set()

    async with pyrepl3.open_session(config=quick(), on_output=listen) as session:
        first = await session.execute(
            "import threading\ngate = threading.Event()\n"
            "def wait():\n    gate.wait()\n    print('late words')\n"
            "threading.Thread(target=wait, daemon=True).start()\nprint('early words')",
            execution_id="first",
        )
        second = await session.execute("print('second'); gate.set()", execution_id="second")
        with anyio.fail_after(10):
            await arrived.wait()
        third = await session.execute("print('third')", execution_id="third")
    assert (first.stdout, second.stdout, third.stdout) == ("early words\n", "second\n", "third\n")
    (late,) = [output for output in heard if "late words" in output.data]
    assert late.execution_id == "first"
    assert late.late


async def test_a_background_task_writes_under_the_id_of_its_cell() -> None:
    heard: list[Output] = []
    async with pyrepl3.open_session(config=quick(), on_output=heard.append) as session:
        await session.execute(
            "import asyncio\ngate = asyncio.Event()\nasync def bg():\n    await gate.wait()\n    print('from the task')\n"
            "task = asyncio.create_task(bg())",
            execution_id="first",
        )
        second = await session.execute("gate.set()\nawait task\nprint('awaited')", execution_id="second")
    assert second.stdout == "awaited\n"
    assert [(o.execution_id, o.late) for o in heard if "from the task" in o.data] == [("first", True)]
    assert [(o.execution_id, o.late) for o in heard if "awaited" in o.data] == [("second", False)]


async def test_on_output_of_an_execution_hears_that_one_alone(shared: pyrepl3.Session) -> None:
    heard: list[str] = []
    await shared.execute("print('before')")
    await shared.execute("print('mine')", on_output=lambda output: heard.append(output.data))
    await shared.execute("print('after')")
    assert heard == ["mine\n"]


async def test_two_executions_at_once_keep_their_output_apart(shared: pyrepl3.Session) -> None:
    first = shared.start("import os\nfor i in range(100): print('first'); os.write(1, b'first\\n')")
    second = shared.start("import os\nfor i in range(100): print('second'); os.write(1, b'second\\n')")
    assert (await outcome(second)).stdout == "second\n" * 200
    assert (await outcome(first)).stdout == "first\n" * 200


async def test_a_slow_reader_slows_the_writer_down(shared: pyrepl3.Session) -> None:
    """Memory stays bounded: what nobody takes is not written."""
    execution = shared.start("n = 0\nwhile True:\n    print('x' * 10_000)\n    n += 1")
    await seen(execution, "x\n")
    events = aiter(execution)
    await anext(events)
    await running(shared, execution)
    before = await value_of_rss(shared)
    await anyio.sleep(0.2)
    assert await value_of_rss(shared) - before < 64 << 20
    await stop(execution)
    assert await value(shared, "n") < 30_000


async def value_of_rss(session: pyrepl3.Session) -> int:
    return (await session.ping()).rss


async def test_warnings_name_the_cells_line(shared: pyrepl3.Session) -> None:
    result = await shared.execute("import warnings\n\nwarnings.warn('watch out')")
    assert ":3: UserWarning: watch out" in result.stderr
    assert "warnings.warn('watch out')" in result.stderr


async def test_a_failing_thread_tells_on_stderr(shared: pyrepl3.Session) -> None:
    result = await shared.execute(
        "import threading\ndef fails():\n    raise ValueError('in a thread')\nt = threading.Thread(target=fails)\nt.start(); t.join()"
    )
    assert result.stderr.endswith("ValueError: in a thread\n")
    assert "line 3, in fails\n" in result.stderr


async def test_a_task_whose_failure_nobody_awaits_is_told(shared: pyrepl3.Session) -> None:
    result = await shared.execute(
        "import asyncio, gc\nasync def fails(): raise ValueError('unheard')\n"
        "t = asyncio.create_task(fails())\nawait asyncio.sleep(0)\ndel t\ngc.collect()\nawait asyncio.sleep(0)"
    )
    assert "ValueError: unheard" in result.stderr


async def test_displays_stand_in_order_with_text(shared: pyrepl3.Session) -> None:
    execution = shared.start("print('before')\ndisplay({'a': 1})\nprint('after')")
    events = [event async for event in execution]
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["Output", "Display", "Output", "Result"]
