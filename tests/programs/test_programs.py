"""A part of `make long-programs`: modules of CPython's tests that touch loops, prompts and tracebacks."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(find_spec("test.test_asyncio") is None, reason="this Python ships no tests"),
]
QUICK = (
    "asyncio.test_runners",
    "asyncio.test_locks",
    "asyncio.test_context",
    "code_module",
    "contextlib_async",
)


def test_cpythons_tests_come_to_the_same_in_a_session() -> None:
    """In a process of its own, so that what these tests leave behind is not looked for here."""
    names = [part for name in QUICK for part in ("--only", "test.test_" + name)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs", *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " tests: 0 differences that nothing explains" in done.stdout
