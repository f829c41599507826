"""Variables set and got by the program, as tables: what goes in, and what the session, or the program, has then."""

import asyncio
import os
import signal
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from tests.helpers.real_sessions import quick, running

numpy = pytest.importorskip("numpy", reason="NumPy is an optional library, of the group 'notebooks'")
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

PATIENCE = 20.0


@pytest.fixture(scope="module")
async def sessions() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick()) as session:
        yield session


@dataclass
class Point:
    x: int
    y: list[int]


class Colour(Enum):
    RED = "red"


class Pair(NamedTuple):
    a: int
    b: int


PLAIN: dict[str, tuple[Any, str | None, Any]] = {
    # name: what is set, its repr in the session, what is got
    "None": (None, "None", None),
    "bool": (True, "True", True),
    "int": (-5, "-5", -5),
    "int above 64 bit": (2**200, repr(2**200), 2**200),
    "float": (0.1, "0.1", 0.1),
    "infinity": (float("inf"), "inf", float("inf")),
    "str": ("a\nü😀", repr("a\nü😀"), "a\nü😀"),
    "bytes": (b"\x00\xff", repr(b"\x00\xff"), b"\x00\xff"),
    "bytearray": (bytearray(b"ab"), "b'ab'", b"ab"),
    "list": ([1, [2, "x"]], "[1, [2, 'x']]", [1, [2, "x"]]),
    "tuple": ((1, 2), "[1, 2]", [1, 2]),
    "set": ({7}, "[7]", [7]),
    "deque": (deque([1]), "[1]", [1]),
    "range": (range(3), "[0, 1, 2]", [0, 1, 2]),
    "named tuple": (Pair(1, 2), "[1, 2]", [1, 2]),
    "dict": ({"a": 1, 2: "b"}, "{'a': 1, 2: 'b'}", {"a": 1, 2: "b"}),
    "ordered dict": (OrderedDict(a=1), "{'a': 1}", {"a": 1}),
    "dataclass": (Point(1, [2]), "{'x': 1, 'y': [2]}", {"x": 1, "y": [2]}),
    "enum": (Colour.RED, "'red'", "red"),
    "Path": (Path("/a/b"), "'/a/b'", "/a/b"),
    "Fraction": (Fraction(1, 3), "'1/3'", "1/3"),
    "complex": (1 + 2j, "[1.0, 2.0]", [1.0, 2.0]),
    "Decimal": (Decimal("1.10"), "Decimal('1.10')", Decimal("1.10")),
    "UUID": (UUID(int=1), repr(UUID(int=1)), UUID(int=1)),
    "date": (date(2026, 1, 2), "datetime.date(2026, 1, 2)", date(2026, 1, 2)),
    "time": (time(1, 2), "datetime.time(1, 2)", time(1, 2)),
    "datetime": (datetime(2026, 1, 2, tzinfo=UTC), None, datetime(2026, 1, 2, tzinfo=UTC)),
    "timedelta": (timedelta(days=-1), None, timedelta(days=-1)),
    "2 MB of text": ("x" * 2_000_000, None, "x" * 2_000_000),
    "3 MB of bytes": (bytes(3_000_000), None, bytes(3_000_000)),
    "many numbers": (list(range(400_000)), None, list(range(400_000))),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_values_go_there_and_back(sessions: pyrepl3.Session, name: str) -> None:
    given, shown, back = PLAIN[name]
    await sessions.set(value=given)
    if shown is not None:
        assert (await sessions.execute("value")).repr == shown
    got = await sessions.get("value")
    assert got == back
    assert type(got) is type(back)


ARRAYS: dict[str, Any] = {
    "numbers": numpy.arange(5),
    "a megabyte": numpy.arange(2e5),
    "in Fortran's order": numpy.asfortranarray(numpy.arange(6_000.0).reshape(60, 100)),
    "every third": numpy.arange(1e4)[::3],
    "backwards": numpy.arange(10)[::-1],
    "no dimension": numpy.array(3),
    "no elements": numpy.zeros((0, 3), "f4"),
    "other byte order": numpy.arange(3, dtype=">i4"),
    "halves": numpy.array([1.5], "f2"),
    "long doubles": numpy.array([1.5], "g"),
    "complex numbers": numpy.array([1 + 2j]),
    "booleans": numpy.array([True, False]),
    "texts": numpy.array(["a", "üü"]),
    "byte strings": numpy.array([b"a", b"bc"]),
    "times": numpy.array(["2026-01-01", "NaT"], "M8[ns]"),
    "spans": numpy.array([1, 2], "m8[25us]"),
    "records": numpy.array([(1, 2.5, "x")], [("a", "i4"), ("b", ">f8"), ("c", "U3")]),
    "nested records": numpy.zeros(2, [("a", "u1"), ("m", "f8", (2, 2)), ("n", [("x", "i2")])]),
    "aligned records": numpy.zeros(2, numpy.dtype([("a", "u1"), ("b", "f8")], align=True)),
}


@pytest.mark.parametrize("name", ARRAYS)
async def test_arrays_arrive_as_what_they_are(sessions: pyrepl3.Session, name: str) -> None:
    array = ARRAYS[name]
    await sessions.set(array=array, inside={"at": [array, 1]})
    seen = "[type(a).__name__, a.shape, a.tobytes(), a.flags.writeable, a.flags.f_contiguous]"
    result = await sessions.execute(
        f"seen = []\nfor a in (array, inside['at'][0]): seen.append({seen})\nseen"
    )
    whole = numpy.ascontiguousarray(array) if not array.flags.f_contiguous else array
    assert (
        result.value == [["ndarray", list(array.shape), array.tobytes(), True, whole.flags.f_contiguous]] * 2
    )
    assert (await sessions.execute("repr(array.dtype.descr)")).value == repr(array.dtype.descr)
    for got in (await sessions.get("array"), (await sessions.get("inside"))["at"][0]):
        assert type(got) is numpy.ndarray
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
        got[...] = got  # it is the program's own


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an object": (
        {"x": object()},
        pyrepl3.TransferError,
        r"'x' cannot be set: object at \['x'\] has no form",
    ),
    "inside": (
        {"x": {"k": [1, object()]}},
        pyrepl3.TransferError,
        r"object at \['x'\]\['k'\]\[1\] has no form",
    ),
    "a lone surrogate": ({"x": "\ud800"}, pyrepl3.TransferError, r"at \['x'\] cannot be sent: surrogates"),
    "a keyword": ({"class": 1}, ValueError, "'class' cannot be a variable"),
    "no identifier": ({"a b": 1}, ValueError, "'a b' cannot be a variable"),
    "the session's own": ({"In": 1}, ValueError, "'In' cannot be set: the session uses"),
    "of the module": ({"__name__": 1}, ValueError, "'__name__' cannot be set"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_set_is_named_and_nothing_is(sessions: pyrepl3.Session, name: str) -> None:
    values, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        await sessions.set(beside=1, **values)
    assert "beside" not in await sessions.variables()


async def test_a_value_that_holds_itself_is_refused(sessions: pyrepl3.Session) -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    with pytest.raises(pyrepl3.TransferError, match="holds itself"):
        await sessions.set(x=cyclic)


NOT_GOT: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "missing": ("", "nothing_here", {}, r"'nothing_here' cannot be got: there is no variable"),
    "misspelt": ("spelling = 1", "speling", {}, "did you mean 'spelling'"),
    "an object": ("thing = object()", "thing", {}, "object has no form as plain data"),
    "inside": ("deep = {'k': [1, object()]}", "deep", {}, r"object at \['k'\]\[1\] has no form"),
    "too large": (
        "large = bytes(2_000_000)",
        "large",
        {"max_bytes": 1000},
        r"2,000,005 bytes, over max_bytes=1,000",
    ),
    "a broken mapping": (
        (
            "import collections.abc\nclass M(collections.abc.Mapping):\n    def __getitem__(s, k): 1 / 0\n"
            "    def __iter__(s): return iter('a')\n    def __len__(s): return 1\nbroken = M()"
        ),
        "broken",
        {},
        "cannot be read: division by zero",
    ),
}


@pytest.mark.parametrize("name", NOT_GOT)
async def test_what_cannot_be_got_is_said(sessions: pyrepl3.Session, name: str) -> None:
    code, variable, options, text = NOT_GOT[name]
    await sessions.execute(code)
    with pytest.raises(pyrepl3.TransferError, match=text):
        await sessions.get(variable, **options)


@pytest.mark.parametrize(("options", "error"), [({"timeout": 0}, ValueError), ({"max_bytes": 0}, ValueError)])
async def test_wrong_arguments_are_refused(
    sessions: pyrepl3.Session, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await sessions.get("x", **options)
    with pytest.raises(TypeError, match="name must be a string"):
        await sessions.get(3)  # pyright: ignore[reportArgumentType]


async def test_a_set_takes_its_turn_and_a_get_does_not(sessions: pyrepl3.Session) -> None:
    await sessions.execute("turn = 'before'")
    busy = sessions.start("import asyncio\nawait asyncio.sleep(60)")
    await running(sessions, busy)
    setting = asyncio.create_task(sessions.set(turn="after"))
    assert await sessions.get("turn") == "before"
    await busy.cancel()
    await setting
    assert await sessions.get("turn") == "after"


async def test_a_get_reaches_code_that_holds_the_loop(sessions: pyrepl3.Session) -> None:
    await sessions.set(large=numpy.arange(3e5))
    busy = sessions.start("n = 0\nwhile True: n += 1")
    await running(sessions, busy)
    assert (await sessions.get("large")).sum() == numpy.arange(3e5).sum()
    assert await sessions.get("n") >= 0
    await busy.cancel()


async def test_a_set_is_no_cell_of_the_history(sessions: pyrepl3.Session) -> None:
    before = (await sessions.execute("len(In), len(Out)", result_mode="last_expr")).value
    await sessions.set(x=1)
    assert (await sessions.execute("len(In), len(Out)", result_mode="last_expr")).value == [
        n + 1 for n in before
    ]


async def test_many_at_once_are_all_right(sessions: pyrepl3.Session) -> None:
    arrays = [numpy.full(200_000, n) for n in range(6)]
    await asyncio.gather(*(sessions.set(**{f"v{n}": array}) for n, array in enumerate(arrays)))
    got = await asyncio.gather(*(sessions.get(f"v{n}") for n in range(6)))
    assert [(g[0], g[-1], len(g)) for g in got] == [(n, n, 200_000) for n in range(6)]


async def test_a_cancelled_transfer_leaves_the_session_whole(sessions: pyrepl3.Session) -> None:
    large = numpy.zeros(5_000_000)
    await sessions.set(large=large)
    for turn in range(4):
        for work in (sessions.get("large"), sessions.set(other=large)):
            task = asyncio.create_task(work)
            for _ in range(3 ** (turn + 1)):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    await sessions.set(other="whole")
    assert await sessions.get("other") == "whole"
    worker = await sessions._ready_worker()  # pyright: ignore[reportPrivateUsage]
    await sessions.ping()
    assert not worker.requests.by_kind._open  # pyright: ignore[reportPrivateUsage]


async def test_inside_of_host_functions_both_happen_at_once() -> None:
    got: list[Any] = []

    async def load(n: int) -> int:
        await session.set(rows=[n], nested={"n": n})
        got.append(await session.get("rows"))
        return n

    def load_in_thread() -> int:
        asyncio.run_coroutine_threadsafe(session.set(thread=threading.get_ident()), loop).result(PATIENCE)
        return 1

    async def ask(prompt: str) -> str:
        await session.set(asked=prompt)
        return "yes"

    loop = asyncio.get_running_loop()
    capabilities = {"load": load, "load_in_thread": load_in_thread}
    async with pyrepl3.open_session(config=quick(), capabilities=capabilities, on_input=ask) as session:
        result = await session.execute("n = await load(3)\n(n, rows, nested)")
        assert result.value == [3, [3], {"n": 3}]
        assert got == [[3]]
        assert (await session.execute("load_in_thread()\ntype(thread).__name__")).value == "int"
        assert (await session.execute("input('sure? ')\nasked")).value == "sure? "


async def test_an_output_handler_cannot_set_but_is_told() -> None:
    errors: list[Exception] = []

    async def on_output(_: pyrepl3.Output) -> None:
        try:
            await session.set(x=1)
        except pyrepl3.CapabilityError as error:
            errors.append(error)

    async with pyrepl3.open_session(config=quick(), on_output=on_output) as session:
        await session.execute("print(1)")
    assert "would wait for itself" in str(errors[0])


@pytest.mark.parametrize("name", ["max_memory_usage", "max_memory_bytes"])
async def test_a_value_over_the_memory_limit_is_refused_and_the_session_lives(name: str) -> None:
    config = quick(max_memory_usage=60_000_000)
    if name == "max_memory_bytes":
        config = pyrepl3.WorkerConfig(limits=pyrepl3.ResourceLimits(max_memory_bytes=200_000_000))
    async with pyrepl3.open_session(config=config) as session:
        with pytest.raises(pyrepl3.TransferError, match=rf"no memory.*{name}=\d+"):
            await session.set(large=bytes(220_000_000))
        await session.execute("small = 1")
        assert await session.get("small") == 1
        assert "large" not in await session.variables()


async def test_small_frames_carry_large_values() -> None:
    async with pyrepl3.open_session(config=quick(max_frame_bytes=8192)) as session:
        await session.set(array=numpy.arange(1e5), text="x" * 100_000)
        assert (await session.execute("(array.sum(), len(text))")).value == [numpy.arange(1e5).sum(), 100_000]
        assert (await session.get("array")).sum() == numpy.arange(1e5).sum()


def test_the_synchronous_client_does_the_same() -> None:
    with sync.open_session(config=quick()) as session:
        session.set(x=[1, 2], array=numpy.arange(3))
        assert session.execute("array.tolist() + x").value == [0, 1, 2, 1, 2]
        assert session.get("x") == [1, 2]
        assert session.get("array").tolist() == [0, 1, 2]


async def test_tables_arrive_as_tables(sessions: pyrepl3.Session) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an optional library")
    table = pyarrow.table({"n": list(range(50_000)), "s": ["ü", None] * 25_000})
    batch = table.to_batches()[0]
    await sessions.set(table=table, batch=batch, inside=[table])
    result = await sessions.execute("(type(table).__name__, type(batch).__name__, inside[0].equals(table))")
    assert result.value == ["Table", "RecordBatch", True]
    assert (await sessions.get("table", arrow=True)).equals(table)
    assert (await sessions.get("batch", arrow=True)).equals(batch)


async def test_data_frames_come_as_tables_on_request(sessions: pyrepl3.Session) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is an optional library")
    pandas = pytest.importorskip("pandas", reason="pandas is an optional library, of the group 'notebooks'")
    await sessions.execute("import pandas as pd\nframe = pd.DataFrame({'a': [1, 2]}, index=['p', 'q'])")
    with pytest.raises(pyrepl3.TransferError, match="a table of pyarrow's alone"):
        await sessions.get("frame")
    table = await sessions.get("frame", arrow=True)
    assert table.to_pandas().equals(pandas.DataFrame({"a": [1, 2]}, index=["p", "q"]))
    with pytest.raises(pyrepl3.TransferError, match=r"pyarrow.Table.from_pandas"):
        await sessions.set(frame=pandas.DataFrame())


async def test_objects_in_a_polars_frame_are_no_table(sessions: pyrepl3.Session) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is an optional library")
    pytest.importorskip("polars", reason="polars is an optional library")
    await sessions.execute(
        "import polars as pl\nheld = pl.DataFrame({'a': [object()]}, schema={'a': pl.Object})"
    )
    with pytest.raises(pyrepl3.TransferError, match="columns of Python's objects"):
        await sessions.get("held", arrow=True)


async def test_a_name_is_bound_as_code_spells_it(sessions: pyrepl3.Session) -> None:
    ligature = "\ufb01le"  # which the compiler takes for two letters
    await sessions.set(**{ligature: 1})
    assert (await sessions.execute(f"[{ligature}, file]")).value == [1, 1]
    assert [await sessions.get(name) for name in (ligature, "file")] == [1, 1]
    with pytest.raises(ValueError, match="two of these names are one variable: 'file'"):
        await sessions.set(**{ligature: 1, "file": 2})
    with pytest.raises(pyrepl3.TransferError, match="surrogates not allowed"):
        await sessions.get("\ud800")


async def test_a_range_that_no_memory_holds_is_refused(sessions: pyrepl3.Session) -> None:
    pid = sessions.worker.pid
    await sessions.execute("long = range(10**9)")
    with pytest.raises(pyrepl3.TransferError, match="range of 1,000,000,000 numbers is too long"):
        await sessions.get("long")
    assert sessions.worker.pid == pid


ENDLESS = """
from collections.abc import Mapping
class Endless(Mapping):
    def __len__(self): return 1
    def __getitem__(self, key): return 1
    def __iter__(self):
        while True: pass
class Deaf(Endless):
    def __iter__(self):
        while True:
            try:
                while True: pass
            except BaseException: pass
class Asleep(Endless):
    def __iter__(self): __import__('time').sleep(600)
endless, deaf, asleep = Endless(), Deaf(), Asleep()
"""


@pytest.mark.parametrize(
    ("name", "meanwhile"),
    [
        ("endless", ""),
        ("deaf", ""),
        ("asleep", ""),
        ("endless", "while True: pass"),
        ("deaf", "await sleep(600)"),
    ],
)
async def test_a_value_whose_own_code_never_ends_costs_its_get_alone(
    sessions: pyrepl3.Session, name: str, meanwhile: str
) -> None:
    await sessions.execute(f"from asyncio import sleep\nx = 5\n{ENDLESS}", result_mode="none")
    pid = sessions.worker.pid
    execution = None
    if meanwhile:
        execution = sessions.start(meanwhile)
        await running(sessions, execution)
    with pytest.raises((pyrepl3.TransferError, pyrepl3.WorkerUnresponsive)):
        await sessions.get(name, timeout=0.3)
    assert await sessions.get("x") == 5
    if execution is not None:
        await execution.cancel()
    assert (await sessions.execute("x + 1")).value == 6
    assert sessions.worker.pid == pid


# --- what survives ---------------------------------------------------------------------------------------


def kill(session: pyrepl3.Session) -> None:
    os.kill(session.worker.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "recovery",
    [
        "auto",
        pytest.param("replay", marks=pytest.mark.long),
        pytest.param("checkpoint", marks=pytest.mark.long),
    ],
)
async def test_what_was_set_is_there_after_the_workers_death(recovery: Any) -> None:
    async with pyrepl3.open_session(config=quick(), recovery=recovery) as session:
        await session.set(array=numpy.arange(2e5), x=1)
        await session.execute("x += 1")
        await session.set(y=[1])
        if recovery == "checkpoint":
            await session.checkpoint()
        kill(session)
        assert (await session.execute("(array.sum(), x, y)")).value == [numpy.arange(2e5).sum(), 2, [1]]
        assert [recovery.lost for recovery in session.recoveries] == [()]


async def test_what_a_host_function_has_set_is_set_again_when_its_cell_runs_again(tmp_path: Path) -> None:
    calls: list[int] = []

    async def load() -> str:
        calls.append(1)
        await session.set(rows=[len(calls)])
        await session.set(rows_2=[len(calls)])
        return "done"

    code = (
        f"import os, signal, pathlib\nloaded = await load()\nmark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists():\n    mark.touch()\n    print('ready', flush=True)\n"
        "    await __import__('asyncio').sleep(60)\n(loaded, rows, rows_2)"
    )
    async with pyrepl3.open_session(config=quick(), capabilities={"load": load}) as session:
        execution = session.start(code)
        async for event in execution:
            if isinstance(event, pyrepl3.Output):
                kill(session)
        result = await execution
        assert result.value == ["done", [1], [1]]
        assert (len(calls), result.attempts) == (1, 2)


async def test_what_was_set_is_in_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        await session.set(array=numpy.arange(2e5))
        kill(session)
        assert (await session.execute("array.sum()")).value == numpy.arange(2e5).sum()
        await session.set(x=5)
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        assert (await session.execute("(x, array.sum())")).value == [5, numpy.arange(2e5).sum()]


async def test_a_worker_that_dies_in_a_transfer_costs_time_alone() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("x = 1")
        setting = asyncio.create_task(session.set(large=numpy.ones(5_000_000)))
        while not (await session.ping()).current_execution:
            pass
        kill(session)
        await setting
        assert (await session.execute("(x, large.sum())")).value == [1, 5_000_000]
        getting = asyncio.create_task(session.get("large"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        kill(session)
        assert (await getting).sum() == 5_000_000
