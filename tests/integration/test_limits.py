"""What a session's configuration bounds: memory, tasks, imports, frames."""

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.constants import MIN_MAX_FRAME_BYTES
from tests.helpers.real_sessions import quick, run, type_of, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def test_memory_over_the_limit_is_a_memory_error_and_the_session_lives() -> None:
    async with pyrepl3.open_session(config=quick(max_memory_usage=100_000_000)) as session:
        assert "memory" in session.worker.confinement
        small = await value(session, "len(bytearray(30_000_000))")
        assert small == 30_000_000
        result = await run(session, "kept = 1\nbig = bytearray(500_000_000)")
        assert result.error is not None
        assert (result.error.kind, result.error.type) == ("limit", "MemoryError")
        assert "max_memory_usage" in " ".join(result.error.notes)
        assert (
            type_of(await run(session, "hoard = []\nwhile True: hoard.append(bytearray(1_000_000))"))
            == "MemoryError"
        )
        await session.execute("hoard.clear()")
        assert await value(session, "kept") == 1
        assert await works(session)


async def test_the_code_can_handle_a_memory_error() -> None:
    async with pyrepl3.open_session(config=quick(max_memory_usage=100_000_000)) as session:
        code = "try: b = bytearray(10**9)\nexcept MemoryError: b = 'too much'\nb"
        assert await value(session, code) == "too much"


async def test_too_many_tasks_are_refused_by_name() -> None:
    async with pyrepl3.open_session(config=quick(max_coroutines=10)) as session:
        code = (
            "import asyncio\nts = []\nfor _ in range(20): ts.append(asyncio.create_task(asyncio.sleep(600)))"
        )
        result = await run(session, code)
        assert result.error is not None
        assert (result.error.kind, result.error.type) == ("limit", "LimitExceeded")
        assert "max_coroutines=10" in result.error.message
        assert await value(session, "len(ts)") == 10
        await session.execute("for t in ts: t.cancel()\nawait asyncio.sleep(0)")
        assert (
            await value(session, "await asyncio.create_task(asyncio.sleep(0, 'free again'))") == "free again"
        )


@pytest.mark.parametrize(
    ("limits", "code", "refused"),
    [
        ({"denied_modules": frozenset({"os"})}, "import os", True),
        ({"denied_modules": frozenset({"os"})}, "import os.path", True),
        ({"denied_modules": frozenset({"os"})}, "from os import path", True),
        ({"denied_modules": frozenset({"os"})}, "import json", False),
        ({"denied_modules": frozenset({"os"})}, "import shutil", False),
        ({"denied_modules": frozenset({"xml.dom"})}, "import xml.etree", False),
        ({"denied_modules": frozenset({"xml.dom"})}, "import xml.dom.minidom", True),
        ({"allowed_modules": frozenset({"json"})}, "import json", False),
        ({"allowed_modules": frozenset({"json"})}, "import json.decoder", False),
        ({"allowed_modules": frozenset({"json"})}, "import math", True),
        ({"allow_imports": False}, "import math", True),
        ({"allow_imports": False}, "def f():\n    import math\nf()", True),
    ],
)
async def test_import_control(limits: dict[str, object], code: str, refused: bool) -> None:
    async with pyrepl3.open_session(config=quick(**limits)) as session:
        result = await run(session, code)
        assert (type_of(result) == "ImportError") is refused, result.error
        assert await works(session)


async def test_bad_limits_are_refused_before_anything_starts() -> None:
    for limits in (
        {"max_execution_time": 0},
        {"max_coroutines": 0},
        {"max_frame_bytes": 1},
        {"cache_size": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(limits))):
            quick(**limits)


async def test_small_frames_still_carry_everything() -> None:
    async with pyrepl3.open_session(config=quick(max_frame_bytes=8192)) as session:
        assert (await session.execute("print('x' * 100_000)")).stdout == "x" * 100_000 + "\n"
        result = await session.execute("'y' * 100_000")
        assert result.truncated
        assert result.value is None
        assert "yyy" in result.repr
        failed = await run(session, "raise ValueError('z' * 100_000)")
        assert failed.error is not None
        assert await works(session)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("'x'", "x"), ("['a', 1.5]", ["a", 1.5]), ("{'k': 1}", {"k": 1}), ("'ö' * 500", "ö" * 500)],
)
async def test_the_smallest_frames_carry_small_values(code: str, expected: object) -> None:
    async with pyrepl3.open_session(config=quick(max_frame_bytes=MIN_MAX_FRAME_BYTES)) as session:
        result = await session.execute(code)
        assert result.value == expected
        assert not result.truncated


LARGE_ERRORS = {
    "a long message": "raise ValueError('m' * 1_000_000)",
    "a long message, not ASCII": "raise ValueError('ö🎉' * 500_000)",
    "many notes": "error = ValueError('m')\nfor n in range(50): error.add_note('n' * 8000)\nraise error",
    "deep": "def f(n, ö='ö'): return f(n - 1) if n else int('m')\nf(400)",
    "a chain": "error = None\nfor n in range(30):\n    error, error.__cause__ = ValueError('m' * 90_000), error\nraise error",
    "a group": "raise ExceptionGroup('m', [ExceptionGroup('n', [ValueError('o' * 9000)] * 50)] * 50)",
    "long lines": "exec('raise ValueError(\"m\") ; ' + 'ö' * 90_000)",
    "a long name": "raise type('E' * 100_000, (ValueError,), {})('m')",
}


@pytest.mark.parametrize("room", [MIN_MAX_FRAME_BYTES, 8192, 262_144])
async def test_small_frames_carry_every_error_shortened(room: int) -> None:
    async with pyrepl3.open_session(config=quick(max_frame_bytes=room)) as session:
        for name, code in LARGE_ERRORS.items():
            execution_id = "é" * 200 + str(abs(hash(name)))
            result = await run(session, code, execution_id=execution_id)
            error = result.error
            assert error is not None, name
            assert error.kind == "exception", name
            assert error.message.startswith(("m", "ö", "invalid literal")), name
            assert error.traceback, name
            assert "Error: " in error.traceback or "Group: " in error.traceback or "EEE" in error.traceback
        assert await works(session)


async def test_a_large_repr_of_what_has_no_plain_form_is_shortened() -> None:
    for room in (MIN_MAX_FRAME_BYTES, 262_144):
        async with pyrepl3.open_session(config=quick(max_frame_bytes=room)) as session:
            code = "class A:\n    def __repr__(self): return '<' + 'ö' * 2_000_000 + '>'\nA()"
            result = await session.execute(code)
            assert (result.type_name, result.truncated, result.value) == ("A", True, None)
            assert result.repr.startswith("<öö")
            assert result.repr.endswith("öö>")
            named = await session.execute("type('A' * 1_000_000, (), {})()")
            assert named.type_name.startswith("AAA")
            assert await works(session)
