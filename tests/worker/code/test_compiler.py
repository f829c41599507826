"""Cells' sources in `linecache`: kept while code of the cell exists, then removed."""

import asyncio
import gc
import linecache
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from pyrepl3_worker.code.cell_sources import filename_of
from pyrepl3_worker.code.compiler import Compiler
from pyrepl3_worker.code.own_frames import CELL_PREFIX
from pyrepl3_worker.errors import CompilationError


@pytest.fixture(autouse=True)
def clean_linecache() -> Iterator[None]:
    """Start without any cell's source, and leave none."""
    for filename in cell_filenames():
        del linecache.cache[filename]
    yield
    for filename in cell_filenames():
        del linecache.cache[filename]


def cell_filenames() -> list[str]:
    return [filename for filename in linecache.cache if filename.startswith(CELL_PREFIX)]


def run(compiler: Compiler, source: str, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a cell whose value does not matter."""
    namespace = {} if namespace is None else namespace
    cell = compiler.compile(source, "none")
    if cell.body is not None:
        exec(cell.body, namespace)
    return namespace


def fill_cache(compiler: Compiler, size: int = 3) -> None:
    """Run newer cells until the cache holds only those."""
    gc.collect()  # a class and its methods are a reference cycle
    for number in range(size + 1):
        run(compiler, f"newer = {number}")


def test_many_cells_leave_as_many_sources_as_the_cache_keeps_cells() -> None:
    compiler = Compiler(10)
    namespace: dict[str, Any] = {}
    for number in range(300):
        source = f"def f(): return {number}\nasync def g(): return [f() for _ in range({number})]"
        run(compiler, source, namespace)
    assert 10 <= len(cell_filenames()) <= 12


def test_without_a_cache_only_the_newest_source_is_there() -> None:
    compiler = Compiler(0)
    for number in range(20):
        run(compiler, f"x = {number}")
    assert cell_filenames() == [filename_of("x = 19")]


def test_cells_that_do_not_compile_leave_the_newest_source() -> None:
    compiler = Compiler(10)
    for number in range(20):
        with pytest.raises(CompilationError):
            compiler.compile(f"x = {number} +")
    assert cell_filenames() == [filename_of("x = 19 +")]


@pytest.mark.parametrize(
    ("source", "keep"),
    [
        ("def f():\n    return 1 / 0", "f"),
        ("f = [lambda: 0][0]", "f"),
        ("class C:\n    def m(self):\n        return 1", "C"),
        ("def make():\n    def inner():\n        return 1\n    return inner\nf = make()\ndel make", "f"),
        ("def steps():\n    yield 1\n    yield 2\ng = steps()\nnext(g)\ndel steps", "g"),
    ],
)
def test_a_source_stays_as_long_as_something_of_its_cell_does(source: str, keep: str) -> None:
    compiler = Compiler(3)
    namespace = run(compiler, source)
    fill_cache(compiler)
    assert linecache.getline(filename_of(source), 1) == source.splitlines(keepends=True)[0]
    namespace.clear()
    fill_cache(compiler)
    assert filename_of(source) not in cell_filenames(), keep


def test_an_error_that_is_kept_shows_its_lines() -> None:
    source = "one = 1\none / 0"
    compiler = Compiler(3)
    error: ZeroDivisionError | None = None
    try:
        run(compiler, source)
    except ZeroDivisionError as raised:
        error = raised
    fill_cache(compiler)
    assert "one / 0" in "".join(traceback.format_exception(error))
    error = None
    fill_cache(compiler)
    assert filename_of(source) not in cell_filenames()


def test_a_source_that_is_compiled_again_stays_for_the_new_code() -> None:
    source = "def f():\n    return 1"
    compiler = Compiler(3)
    old = run(compiler, source)
    fill_cache(compiler)
    new = run(compiler, source)
    old.clear()
    fill_cache(compiler)
    assert linecache.getline(new["f"].__code__.co_filename, 2) == "    return 1"


def test_a_source_that_a_checkpoint_brought_is_not_ours_to_drop() -> None:
    source = "def f():\n    return 1"
    compiler = Compiler(3)
    run(compiler, source).clear()
    lines = str(source).splitlines(keepends=True)
    linecache.cache[filename_of(source)] = (len(source), None, lines, filename_of(source))
    fill_cache(compiler)
    run(compiler, source).clear()
    fill_cache(compiler)
    assert linecache.getline(filename_of(source), 2) == "    return 1"


def test_long_cells_do_not_fill_the_cache_beyond_measure() -> None:
    """The bound on cells alone would let 1000 of them keep gigabytes."""
    compiler = Compiler(1000)
    sources = [f"x = {number}\n#{' ' * 2**20}" for number in range(20)]
    for source in sources:
        compiler.compile(source)
    compiler.compile(sources[-1])
    assert (compiler.cache.hits, compiler.cache.misses) == (1, 20)
    compiler.compile(sources[0])
    assert (compiler.cache.hits, compiler.cache.misses) == (1, 21)
    assert len(cell_filenames()) <= 17
    compiler.compile(f"x = 1\n#{' ' * 2**24}")
    compiler.compile(sources[-1])
    assert compiler.cache.hits == 2, "one that is too long takes no other's place"


def test_a_suspended_coroutine_keeps_its_source() -> None:
    source = "async def wait():\n    await pause()\nw = wait()\ndel wait"
    compiler = Compiler(3)

    async def main() -> None:
        namespace = run(compiler, source, {"pause": asyncio.Event().wait})
        task = asyncio.get_running_loop().create_task(namespace.pop("w"))
        await asyncio.sleep(0)
        fill_cache(compiler)
        assert linecache.getline(filename_of(source), 2) == "    await pause()\n"
        task.cancel()
        await asyncio.wait([task])
        del task
        namespace.clear()
        fill_cache(compiler)

    asyncio.run(main())
    assert filename_of(source) not in cell_filenames()
