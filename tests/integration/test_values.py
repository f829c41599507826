"""The value of a cell, as the table says: what comes back, or in words why nothing does."""

from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ExecutorConfig, ResourceLimits, Session, WorkerConfig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

HOW_TO_GET_IT = "; session.get gives a variable of any size"
NO_FORM = "has no form as plain data"
IMPORTS = """
import collections, dataclasses, datetime, decimal, enum, fractions, pathlib, types, uuid, zoneinfo
@dataclasses.dataclass
class Point: x: int; y: object
class Colour(enum.Enum): RED = 'red'
class Hostile(collections.abc.Mapping):
    def __len__(self): return 1
    def __iter__(self): raise ZeroDivisionError('no')
    def __getitem__(self, key): return 1
ring = []; ring.append(ring)
shared = [1]
for _ in range(60): shared = [shared, shared]
None
"""


@pytest.fixture(scope="module")
async def session() -> AsyncGenerator[Session]:
    async with pyrepl3.open_session() as session:
        await session.execute(IMPORTS)
        yield session


RETURNED: list[tuple[str, Any]] = [
    ("None", None),
    ("True", True),
    ("-7", -7),
    ("2 ** 63", 2**63),
    ("2 ** 200", 2**200),
    ("-(2 ** 63) - 1", -(2**63) - 1),
    ("1.5", 1.5),
    ("'é'", "é"),
    ("b'x'", b"x"),
    ("bytearray(b'x')", b"x"),
    ("memoryview(b'x')", b"x"),
    ("(1, (2, 3))", [1, [2, 3]]),
    ("{7}", [7]),
    ("frozenset({7})", [7]),
    ("collections.deque([1])", [1]),
    ("range(3)", [0, 1, 2]),
    ("collections.namedtuple('Row', 'a b')(1, 2)", [1, 2]),
    ("collections.Counter('aab')", {"a": 2, "b": 1}),
    ("collections.OrderedDict(a=1)", {"a": 1}),
    ("types.MappingProxyType({'a': 1})", {"a": 1}),
    ("{(1, 2): 3, None: 4, 1.5: 5}", {(1, 2): 3, None: 4, 1.5: 5}),
    ("Point(1, Point(2, None))", {"x": 1, "y": {"x": 2, "y": None}}),
    ("Colour.RED", "red"),
    ("{Colour.RED: pathlib.Path('/x')}", {"red": "/x"}),
    ("fractions.Fraction(1, 3)", "1/3"),
    ("1 + 2j", [1.0, 2.0]),
    ("decimal.Decimal('1.10')", Decimal("1.10")),
    ("uuid.UUID(int=7)", UUID(int=7)),
    ("datetime.date(2026, 1, 2)", date(2026, 1, 2)),
    ("datetime.timedelta(days=-1, microseconds=1)", timedelta(days=-1, microseconds=1)),
    ("datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)", datetime(2026, 1, 2, tzinfo=UTC)),
    (
        "datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))",
        datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    ),
    ("x = 5", 5),
    ("[[], {}, '', ()]", [[], {}, "", []]),
]


@pytest.mark.parametrize(("code", "value"), RETURNED, ids=[code for code, _ in RETURNED])
async def test_a_value_comes_back(session: Session, code: str, value: Any) -> None:
    result = await session.execute(code)
    assert result.value == value
    assert type(result.value) is type(value)
    assert result.value_note == ""
    assert not result.truncated


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("object()", f"object {NO_FORM}"),
        ("[1, {'k': {2: object()}}]", f"object at [1]['k'][2] {NO_FORM}"),
        ("{object(): 1}", f"object at .keys() {NO_FORM}"),
        ("(i for i in [])", f"generator {NO_FORM}"),
        ("{'a': 1}.items()", f"dict_items {NO_FORM}"),
        ("ring", "list at [0] holds itself"),
        ("shared", "it holds more than 8,388,352 arrays, maps and texts"),
        ("range(10 ** 12)", f"it is larger than max_frame_bytes allows{HOW_TO_GET_IT}"),
        ("'x' * 70_000_000", f"it is larger than max_frame_bytes allows{HOW_TO_GET_IT}"),
        ("[1.5] * 20_000_000", f"it is larger than max_frame_bytes allows{HOW_TO_GET_IT}"),
        ("'\\ud800'", "str cannot be sent: surrogates not allowed"),
        ("{Colour.RED: 1, 'red': 2}", "dict has keys that would become one and the same"),
        ("Hostile()", "Hostile cannot be read: no"),
    ],
    ids=lambda item: item[:40],
)
async def test_what_does_not_come_back_says_why(session: Session, code: str, note: str) -> None:
    result = await session.execute(code)
    assert result.value is None
    assert result.value_note == note
    assert result.repr
    assert result.truncated == note.startswith("it ")


@pytest.mark.parametrize(
    "code", ["5;", "5 ; # five", "x = 5;", "x = 1; x;", "'''\n''';", "f(\n2\n) \\\n;\n\n"]
)
async def test_a_semicolon_at_the_end_gives_no_value(session: Session, code: str) -> None:
    await session.execute("f = str; Out.clear(); None")
    result = await session.execute(code)
    assert (result.value, result.repr, result.value_note) == (None, "", "")
    assert (await session.execute("len(Out)")).value == 0


@pytest.mark.parametrize("code", ["';'", "5 # ;", "1; 5", "'''\n;'''"])
async def test_another_semicolon_does_not(session: Session, code: str) -> None:
    assert (await session.execute(code)).value is not None


async def test_out_keeps_what_fits_into_64_mebibytes(session: Session) -> None:
    await session.execute("Out.clear(); kept = None")
    for number in range(4):
        await session.execute(f"bytes(30 << 20) + b'{number}'")
    assert (await session.execute("[value[-1:] for value in Out.values()]")).value == [b"2", b"3"]
    await session.execute("bytes(90 << 20)")
    assert (await session.execute("[len(value) for value in Out.values() if len(value) > 99]")).value == [
        90 << 20
    ]
    await session.execute("Out.clear()")


async def test_numpy_and_pandas_give_pythons_own(session: Session) -> None:
    for module in ("numpy", "pandas"):
        if (await session.execute(f"import {module}", check=False)).error is not None:
            pytest.skip(f"{module} is not installed")
    await session.execute("import numpy as np, pandas as pd; df = pd.DataFrame({'a': [1, 2]}); None")
    for code, value in {
        "np.float64(3)": 3.0,
        "[np.int64(1), np.bool_(True), np.str_('x')]": [1, True, "x"],
        "np.arange(4).reshape(2, 2)": [[0, 1], [2, 3]],
        "np.array(5)": 5,
        "np.zeros(10_000)": [0.0] * 10_000,
        "np.datetime64('2026-01-01T01')": datetime(2026, 1, 1, 1),  # noqa: DTZ001 - it has no zone
        "[np.datetime64('NaT'), pd.NaT, pd.NA]": [None] * 3,
        "np.timedelta64(3, 's')": timedelta(seconds=3),
        "df.a.sum()": 3,
        "df.to_dict()": {"a": {0: 1, 1: 2}},
        "pd.Timestamp('2026-01-01', tz='UTC')": datetime(2026, 1, 1, tzinfo=UTC),
        "pd.Timedelta('1s')": timedelta(seconds=1),
    }.items():
        result = await session.execute(code)
        assert (result.value, result.value_note) == (value, ""), code
        assert type(result.value) is type(value), code
    for code, note in {
        "np.zeros(1_000_000)": f"numpy.ndarray of 8,000,000 bytes has no short form{HOW_TO_GET_IT}",
        "df": f"pandas.DataFrame {NO_FORM}",
        "pd.Timestamp(1)": "pandas.Timestamp has nanoseconds, for which datetime has no room",
        "np.longdouble(1)": "numpy.longdouble has no equal in Python",
    }.items():
        result = await session.execute(code)
        assert (result.value, result.value_note) == (None, note), code


@pytest.mark.parametrize(
    "config",
    [
        WorkerConfig(limits=ResourceLimits(max_memory_bytes=400_000_000)),
        WorkerConfig(executor=ExecutorConfig(max_memory_usage=400_000_000)),
    ],
    ids=["max_memory_bytes", "max_memory_usage"],
)
async def test_under_a_memory_limit_a_large_value_says_so_and_the_worker_lives(
    config: WorkerConfig, request: pytest.FixtureRequest
) -> None:
    # Without checkpoints, which would save each of these values too: a quarter of a gigabyte at a time.
    async with pyrepl3.open_session(config=config, recovery="none") as session:
        await session.execute("kept = 1")
        for code in ("['x' * 100] * 500_000 + ['y']", "[1.5] * 7_000_000", "[[1.5, 2]] * 500_000"):
            result = await session.execute(
                f"filler = bytearray(250_000_000); value = {code}; value", check=False
            )
            if result.error is None:
                assert result.value is not None or request.node.callspec.id in result.value_note
            else:
                assert result.error.kind == "limit"
                assert any(request.node.callspec.id in note for note in result.error.notes)
            await session.execute("filler = value = None; Out.clear(); _ = __ = ___ = None")
        assert (await session.execute("kept")).value == 1
        assert not session.recoveries


async def test_host_functions_take_and_give_by_the_same_table() -> None:
    given: list[Any] = []

    def echo(value: Any) -> Any:
        given.append(value)
        return value

    moment = datetime(2026, 1, 2, 3, tzinfo=ZoneInfo("Europe/Berlin"))
    async with pyrepl3.open_session(capabilities={"echo": echo}) as session:
        await session.execute("import datetime, decimal, zoneinfo; from decimal import Decimal")
        await session.execute(f"x = echo({moment!r}); y = echo([Decimal('1.1'), 2 ** 80, {{1, 2}}])")
        result = await session.execute("[x.tzinfo.key, x, y, type(y[0]).__name__]")
        assert result.value == ["Europe/Berlin", moment, [Decimal("1.1"), 2**80, [1, 2]], "Decimal"]
        failed = await session.execute("echo({'k': [object()]})", check=False)
        assert failed.error is not None
        assert f"object at ['k'][0] {NO_FORM}" in failed.error.message.replace("[0]['k']", "['k']")
    assert given == [moment, [Decimal("1.1"), 2**80, [1, 2]]]
