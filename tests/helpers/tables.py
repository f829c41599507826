"""Tables of behaviours that one test checks: what a test costs is paid once, and all that fail are named."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any


async def check_rows(rows: Iterable[tuple[Any, ...]], check: Callable[..., Awaitable[None]]) -> None:
    """Await `check` with what follows the name of each row; fail with every row that fails."""
    wrong: list[str] = []
    for name, *row in rows:
        try:
            await check(*row)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, "\n\n".join(wrong)
