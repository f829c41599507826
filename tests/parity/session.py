"""Runs a notebook's cells in a session of ours."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from pyrepl3_schemas.executor_config import ExecutorConfig
from tests.parity.cells import Outcome, count_pictures, normal


@contextmanager
def session(folder: Path) -> Generator[sync.Session]:
    """Open a session with IPython's syntax that works in a folder."""
    config = pyrepl3.WorkerConfig(executor=ExecutorConfig(syntax="ipython"), cwd=str(folder))
    with sync.open_session(config=config) as opened:
        yield opened


def run_in_session(opened: sync.Session, code: str) -> Outcome:
    """Run one cell; give what it did."""
    result = opened.execute(code, check=False, result_mode="last_expr", timeout=60)
    error = "" if result.error is None else f"{result.error.type}: {result.error.message}"
    shown = [
        tuple(sorted(display.data)) for display in result.displays if not display.update and not display.clear
    ]
    text = result.data.get("text/plain", result.repr)
    value = "" if text == "None" or result.error is not None else text
    mimes = tuple(sorted({*result.data, "text/plain"})) if value else ()
    return Outcome(
        error=normal(error),
        stdout=normal(result.stdout),
        stderr=normal(_last_lines(result.stderr)),
        value=normal(value),
        value_mimes=mimes,
        displays=tuple(shown),
        pictures=count_pictures([*shown, mimes]),
    )


def _last_lines(text: str) -> str:
    """Return stderr with each traceback reduced to its last line, which is what a kernel tells of it."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        inside = line.startswith("Traceback (") or (inside and line.startswith(" "))
        if not inside:
            lines.append(line)
    return "".join(lines)
