"""Where the sessions that are measured keep their record. No file outlives the measurement."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

type Kind = Literal["plain memory", "memory:", "SQLite"]
"""This process's memory without Resonate (`store=None`) and with it, or an SQLite file by its path."""


@contextmanager
def open_store(kind: Kind) -> Generator[str | None]:
    """Yield an empty store, as `open_session` takes it; it is removed on exit."""
    match kind:
        case "plain memory":
            yield None
        case "memory:":
            yield "memory:"
        case "SQLite":
            with TemporaryDirectory(prefix="pyrepl3-benchmark-") as folder:
                yield str(Path(folder) / "state.db")
