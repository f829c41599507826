"""The tables of snippets, each row in a real worker. A session serves all rows of a group."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import cell_lines, quick, run
from tests.integration.snippets import ANY, Snippet, tables

pytestmark = pytest.mark.anyio

CASES = [
    pytest.param(group, row, id=f"{group}: {row.name}")
    for group, rows in tables().items()
    for row in rows
    if row.holds_here
]


@pytest.fixture(scope="module")
async def sessions() -> AsyncIterator[dict[str, pyrepl3.Session]]:
    """A session for each group."""
    async with AsyncExitStack() as stack:
        yield {
            group: await stack.enter_async_context(pyrepl3.open_session(f"snippets-{group}", config=quick()))
            for group in tables()
        }


@pytest.mark.parametrize(("group", "row"), CASES)
async def test_snippet(sessions: dict[str, pyrepl3.Session], group: str, row: Snippet) -> None:
    session = sessions[group]
    for code in row.sources_before:
        await session.execute(code)
    result = await run(session, row.source)
    if row.error is None:
        check_value(row, result)
    else:
        check_error(row, result)
    assert result.stdout == row.stdout
    if row.stderr is not None:
        assert result.stderr == row.stderr
    if row.mode is not None:
        assert result.mode == row.mode


def check_value(row: Snippet, result: pyrepl3.ExecutionResult) -> None:
    assert result.error is None, result.error.traceback
    if row.value is not ANY:
        assert result.value == row.value
    if row.repr is not None:
        assert result.repr == row.repr
    if row.type_name is not None:
        assert result.type_name == row.type_name


def check_error(row: Snippet, result: pyrepl3.ExecutionResult) -> None:
    assert result.error is not None, f"it gave {result.repr}"
    assert (result.error.type, result.error.kind) == (row.error, row.kind)
    assert row.message in result.error.message
    if row.line is not None:
        assert cell_lines(result)[-1] == row.line


def test_the_tables_are_large() -> None:
    assert len(CASES) > 300
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names)
