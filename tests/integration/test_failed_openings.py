"""Openings that fail: the error says why, and nothing is left (see the check for leaks of every test)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import WorkerConfig, sync
from tests.helpers.leak_check import Resources

ROWS: dict[str, tuple[Callable[[Path], dict[str, Any]], type[Exception], str]] = {
    "no interpreter": (
        lambda folder: {"config": WorkerConfig(python=str(folder / "python"))},
        pyrepl3.SpawnError,
        "python",
    ),
    "an interpreter that is none": (
        lambda folder: {"config": WorkerConfig(python="/bin/false")},
        pyrepl3.SpawnError,
        "exit code 1",
    ),
    "no such directory": (
        lambda folder: {"config": WorkerConfig(cwd=str(folder / "missing"))},
        pyrepl3.SpawnError,
        "missing",
    ),
    "a warm module that is not there": (
        lambda folder: {"config": WorkerConfig(warm=("no_such_module",))},
        pyrepl3.SpawnError,
        "no_such_module",
    ),
    "a huge argument": (
        lambda folder: {"config": WorkerConfig(env={"HUGE": "x" * 2_000_000})},
        pyrepl3.SpawnError,
        "too long",
    ),
    "a store in no folder": (
        lambda folder: {"store": folder / "missing" / "s.db"},
        pyrepl3.StoreError,
        "there is no directory",
    ),
    "a store that is a folder": (
        lambda folder: {"store": folder},
        pyrepl3.StoreError,
        "cannot open the store",
    ),
    "a store that is something else": (
        lambda folder: {"store": other_file(folder)},
        pyrepl3.StoreError,
        "not an SQLite database",
    ),
    "a name that is too long": (
        lambda folder: {"store": folder / ("x" * 300)},
        pyrepl3.StoreError,
        "cannot open the store",
    ),
}


def other_file(folder: Path) -> Path:
    """Write a file that is no store."""
    file = folder / "letter.txt"
    file.write_text("Dear Ada, " * 1000)
    return file


async def open_async(options: dict[str, Any]) -> None:
    async with pyrepl3.open_session("s", **options):
        pass


async def open_from_pool(options: dict[str, Any]) -> None:
    config = options.pop("config", WorkerConfig())
    async with pyrepl3.WorkerPool(1, config, fork=False) as pool, pool.open_session("s", **options):
        pass


DOORS: dict[str, Callable[[dict[str, Any]], object]] = {
    "async": lambda options: asyncio.run(open_async(options)),
    "sync": lambda options: sync.open_session("s", **options),
    "pool": lambda options: asyncio.run(open_from_pool(options)),
}


@pytest.mark.parametrize("why", ROWS)
def test_an_opening_that_fails_says_why_and_leaves_nothing(why: str, tmp_path: Path) -> None:
    make, kind, words = ROWS[why]
    for door, attempt in DOORS.items():
        before = Resources()
        with pytest.raises(kind, match=words):
            attempt(make(tmp_path))
        after = Resources()
        assert (after.children, after.fds) == (before.children, before.fds), door
        assert {thread.name for thread in after.threads} == {thread.name for thread in before.threads}, door
