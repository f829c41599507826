"""A stop is described by a shorter way, which must say the same as the long one."""

import linecache
import sys
from asyncio import CancelledError
from types import FunctionType
from typing import Any

import pytest

from pyrepl3_worker.code.cell_sources import filename_of
from pyrepl3_worker.rendering.exceptions import bounded_text, describe_exception

STOPS = [CancelledError, KeyboardInterrupt, TimeoutError]


def _raised(code: str, **names: Any) -> BaseException:
    filename = filename_of(code)
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    run = FunctionType(compile(code, filename, "exec"), {"__builtins__": __builtins__, **names})
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whichever is under test
        run()
    return caught.value


def _without_carets(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.strip() or set(line.strip()) - set("^~")]


@pytest.mark.parametrize("kind", STOPS)
@pytest.mark.parametrize("arguments", [("stopped",), ()])
def test_a_stop_is_described_as_any_exception_is(
    kind: type[BaseException], arguments: tuple[str, ...]
) -> None:
    stop = kind(*arguments)
    stop.add_note("why it was stopped")
    error = _raised(
        "import json\n\ndef f():\n    json.loads('1', object_hook=g())\n\n"
        "def g():\n    raise stop\n\nx = [f() for _ in '1']\n",
        stop=stop,
    )
    short, long = describe_exception(error, "cancelled", "id"), describe_exception(error, "exception", "id")
    assert short.frames == long.frames
    assert (short.exception, short.message, short.notes) == (long.exception, long.message, long.notes)
    assert short.traceback.splitlines() == _without_carets(long.traceback)


def test_frames_of_a_library_have_their_lines() -> None:
    error = _raised("import json\njson.loads(Text())\n", Text=_stopping_text())
    short, long = describe_exception(error, "timeout", "id"), describe_exception(error, "exception", "id")
    assert len(short.frames) > 1
    assert short.frames == long.frames
    assert short.traceback.splitlines() == _without_carets(long.traceback)


def _stopping_text() -> type:
    class Text(str):
        """Text that is stopped when a library looks at it."""

        __slots__ = ()

        def startswith(self, *_: object) -> bool:  # type: ignore[override]
            raise TimeoutError("the execution took too long")

    return Text


def test_of_a_deep_stack_both_ends_are_kept() -> None:
    stop = CancelledError("deep")
    error = _raised(
        "def f(n):\n    if n:\n        f(n - 1)\n    else:\n        raise stop\n\nf(400)\n", stop=stop
    )
    short, long = describe_exception(error, "cancelled", "id"), describe_exception(error, "exception", "id")
    assert len(short.frames) == 150
    assert short.frames == long.frames
    assert short.traceback.count(", in f\n") == 149
    assert "\n  [252 frames left out]\n" in short.traceback
    assert "[Previous line repeated 397 more times]" in long.traceback


def test_of_a_stack_deeper_than_python_allows_the_text_says_what_is_left_out() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        error = _raised(
            "def f(n):\n    g(n)\n\ndef g(n):\n    if n:\n        f(n - 1)\n    else:\n        raise stop\n\n"
            "f(999)\n",
            stop=ValueError("deep"),
        )
    finally:
        sys.setrecursionlimit(limit)
    shown = describe_exception(error, "exception", "id").traceback
    assert "\n  [901 frames left out]\n" in shown
    assert shown.count("  File ") == 1100


def test_what_a_stop_came_from_is_told_too() -> None:
    error = _raised("try:\n    1 / 0\nfinally:\n    raise stop\n", stop=CancelledError("stopped"))
    described = describe_exception(error, "cancelled", "id")
    assert described.cause is not None
    assert described.cause.exception == "ZeroDivisionError"
    assert "division by zero" in described.traceback


def test_a_text_without_any_room_is_only_told_of() -> None:
    """Deep chains leave their innermost errors no character; then the whole text stood there, cut or not."""
    assert bounded_text("some text", 0) == "… 9 characters cut …"
