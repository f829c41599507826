"""The executor used by itself, without a session around it."""

import pytest

from pyrepl3_worker.executor import AsyncExecutor
from pyrepl3_worker.namespace import NamespaceManager

pytestmark = pytest.mark.anyio

NOTES = ["Execution ID: docs-1", "Execution mode: {mode}", "Session: docs"]


@pytest.mark.parametrize(
    ("code", "mode"),
    [
        ("1 / 0", "simple_sync"),
        ("import asyncio; await asyncio.sleep(0); 1 / 0", "top_level_await"),
        ("1 +", "unknown"),
    ],
)
async def test_an_error_says_which_execution_of_which_session_raised_it(code: str, mode: str) -> None:
    executor = AsyncExecutor(NamespaceManager(), "docs")
    try:
        with pytest.raises((ZeroDivisionError, SyntaxError)) as failure:
            await executor.execute(code)
    finally:
        executor.close()
    assert failure.value.__notes__ == [note.format(mode=mode) for note in NOTES]


async def test_an_error_whose_notes_the_code_has_replaced_is_raised_as_it_is() -> None:
    executor = AsyncExecutor(NamespaceManager(), "docs")
    try:
        with pytest.raises(KeyError) as failure:
            await executor.execute("e = KeyError('mine'); e.__notes__ = 5; raise e")
    finally:
        executor.close()
    assert vars(failure.value)["__notes__"] == 5
