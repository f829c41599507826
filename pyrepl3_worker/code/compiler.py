"""Source to something that runs: compile, last-statement value, AST fallback, cache."""

import ast
import re
import zlib
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, Final

import msgspec

from pyrepl3_schemas.messages import ResultMode
from pyrepl3_worker.code.analysis import Analysis, ExecutionMode, analyze, resolves_to_blocking
from pyrepl3_worker.code.cell_sources import CellSources
from pyrepl3_worker.code.function_wrapper import wrap_in_function
from pyrepl3_worker.errors import CompilationError

CO_COROUTINE: Final = 0x80
_FUTURE_FLAGS: Final = 0x1FF0000
"""The bits of `co_flags` in which `from __future__ import …` leaves its mark (`__future__.py`)."""

CELL_PREFIX: Final = "<cell "
WRAPPER: Final = "__async_exec__"
LAST: Final = "__pyrepl3_last__"
_NEWLINE: Final = re.compile(r"\r\n|\r|\n")
_MOST_CHARS: Final = 16 * 1024 * 1024
"""Characters of source that are kept compiled; their code takes several times that in memory."""


class CompiledCell(msgspec.Struct):
    """Code, ready to run. `body` runs first, then `last` gives the value."""

    source: str
    filename: str
    analysis: Analysis
    body: CodeType | None
    last: CodeType | None
    is_coroutine: bool
    """Whether one of the two is a coroutine."""
    wrapped: bool
    """Whether `body` defines the AST fallback's function, which is to be called (and awaited)."""
    pops_last: bool
    """Whether the value was bound to a hidden name, to be removed again."""
    flags: int
    """Future flags that the code has switched on for the cells after it."""
    quick: bool = False
    """Whether it ran before, and took next to no time."""
    run_body: Callable[[], Any] | None = None
    run_last: Callable[[], Any] | None = None
    prepared: bool = False
    """Whether the two before stand for `body` and `last` (see `cells.prepare`)."""
    route: str = ""
    """The name of its mode, when that depends on nothing but the code."""

    def mode(self, namespace: Mapping[str, object]) -> ExecutionMode:
        """Decide the route, with what the names are bound to now."""
        analysis = self.analysis
        if self.is_coroutine:
            return ExecutionMode.TOP_LEVEL_AWAIT
        if analysis.has_async_def:
            return ExecutionMode.ASYNC_DEF
        if analysis.needs_loop_thread:
            return ExecutionMode.SIMPLE_SYNC
        if analysis.blocking:
            return ExecutionMode.BLOCKING_SYNC
        for candidate in analysis.candidates:
            if resolves_to_blocking(candidate, namespace):
                return ExecutionMode.BLOCKING_SYNC
        return ExecutionMode.SIMPLE_SYNC


class CompilationCache:
    """The most recently used cells, by their source itself: equal hashes of unlike code are no hit."""

    __slots__ = ("_cells", "_chars", "hits", "max_size", "misses")

    def __init__(self, max_size: int = 1000) -> None:
        """Keep at most `max_size` cells; 0 keeps none. Of long ones it keeps fewer."""
        self.max_size = max_size
        self._chars = 0
        self._cells: dict[tuple[str, str, int], CompiledCell] = {}
        self.hits = 0
        self.misses = 0

    def get_compiled(self, code: str, mode: str, flags: int) -> CompiledCell | None:
        """Give the cell compiled from just this source, result mode and flags."""
        key = (code, mode, flags)
        cell = self._cells.get(key)
        if cell is None:
            self.misses += 1
            return None
        self.hits += 1
        if len(self._cells) >= self.max_size or self._chars > _MOST_CHARS // 2:
            # Order matters only when something may have to go.
            self._cells[key] = self._cells.pop(key)
        return cell

    def store_compiled(self, code: str, mode: str, flags: int, compiled: CompiledCell) -> None:
        """Keep a cell; the one unused for longest goes when there are too many."""
        if self.max_size == 0 or len(code) > _MOST_CHARS:
            return
        self._chars += len(code)
        while self._cells and (len(self._cells) >= self.max_size or self._chars > _MOST_CHARS):
            oldest = next(iter(self._cells))
            del self._cells[oldest]
            self._chars -= len(oldest[0])
        self._cells[code, mode, flags] = compiled


def filename_of(source: str) -> str:
    """Give the name under which a cell's code appears in tracebacks: the same for the same source."""
    data = source.encode("utf-8", "surrogatepass")
    return f"{CELL_PREFIX}{zlib.crc32(data):08x}{zlib.adler32(data):08x}>"


class Compiler:
    """Compiles the cells of one session."""

    def __init__(self, cache_size: int = 1000) -> None:
        """Keep `cache_size` compiled cells."""
        self.cache = CompilationCache(cache_size)
        self._sources = CellSources()
        self.ast_transforms = 0
        self._flags = 0

    def compile(self, source: str, result_mode: ResultMode = "last_expr_or_assign") -> CompiledCell:
        """Give the cell of a source, from the cache if it was compiled before.

        Raises:
            CompilationError: it does not compile; `__cause__` is the compiler's error.
        """
        cell = self.cache.get_compiled(source, result_mode, self._flags)
        if cell is None:
            cell = self._compile(source, result_mode)
            self._sources.watch(cell.filename, [code for code in (cell.body, cell.last) if code is not None])
            if not cell.analysis.candidates:
                cell.route = cell.mode({}).value
            self.cache.store_compiled(source, result_mode, self._flags, cell)
        if cell.wrapped:
            self.ast_transforms += 1
        return cell

    def adopt(self, cell: CompiledCell) -> None:
        """Let a cell that ran switch its `__future__` features on for those after it, as the REPL does."""
        self._flags |= cell.flags

    def _compile(self, source: str, result_mode: ResultMode) -> CompiledCell:
        filename = filename_of(source)
        self._sources.add(filename, source)
        try:
            tree = compile(source, filename, "exec", ast.PyCF_ONLY_AST | self._flags, dont_inherit=True)
            analysis = analyze(tree)
            if analysis.returns and not analysis.yields:
                return self._wrap(source, filename, tree, analysis, result_mode)
            statement = tree.body[-1] if tree.body else None
            try:
                return self._direct(source, filename, tree, analysis, result_mode)
            except RecursionError:
                # Up to Python 3.12 a tree may nest less deeply than a source.
                if statement is None:
                    raise
                return self._from_source(source, filename, statement, analysis, result_mode)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            # ValueError: NUL bytes. The others: nesting deeper than the parser's or compiler's stack.
            raise compilation_error(error, filename) from error

    def _direct(
        self, source: str, filename: str, tree: ast.Module, analysis: Analysis, result_mode: ResultMode
    ) -> CompiledCell:
        body = tree.body
        last, pops_last = _split_last(body, result_mode)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self._flags
        body_code = last_code = None
        if body:
            body_code = compile(tree, filename, "exec", flags, dont_inherit=True)
            # `from __future__` in the body holds for the last expression too.
            flags |= body_code.co_flags & _FUTURE_FLAGS
        if last is not None:
            last_code = compile(ast.Expression(last), filename, "eval", flags, dont_inherit=True)
        elif body_code is None:
            body_code = compile(tree, filename, "exec", flags, dont_inherit=True)
        return _cell_of(source, filename, analysis, body_code, last_code, flags, pops_last=pops_last)

    def _from_source(
        self, source: str, filename: str, statement: ast.stmt, analysis: Analysis, result_mode: ResultMode
    ) -> CompiledCell:
        """Compile text and no tree; `statement` is the last one.

        What was assigned to `a.b` or `a[i]` is no value then: to catch it takes a tree.
        """
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self._flags
        body, value = source, None
        if isinstance(statement, ast.Expr) and result_mode != "none":
            body, value = _split_source(source, statement)
        body_code: CodeType = compile(body, filename, "exec", flags, dont_inherit=True)
        flags |= body_code.co_flags & _FUTURE_FLAGS
        last: str | ast.Expression | None = value
        if value is None:
            target, pops_last = _split_last([statement], result_mode)
            last = None if target is None or pops_last else ast.Expression(target)
        last_code: CodeType | None = None
        if last is not None:
            last_code = compile(last, filename, "eval", flags, dont_inherit=True)
        return _cell_of(source, filename, analysis, body_code, last_code, flags, pops_last=False)

    def _wrap(
        self, source: str, filename: str, tree: ast.Module, analysis: Analysis, result_mode: ResultMode
    ) -> CompiledCell:
        """The AST fallback: the body of an (async) function that binds its names globally."""
        last, _ = _split_last(tree.body, "none" if result_mode == "none" else "last_expr")
        wrapped = wrap_in_function(tree, last, WRAPPER, is_async=analysis.awaits)
        code = compile(wrapped, filename, "exec", self._flags, dont_inherit=True)
        return CompiledCell(
            source=source,
            filename=filename,
            analysis=analysis,
            body=code,
            last=None,
            is_coroutine=analysis.awaits,
            wrapped=True,
            pops_last=False,
            flags=code.co_flags & _FUTURE_FLAGS,
        )


def _cell_of(
    source: str,
    filename: str,
    analysis: Analysis,
    body: CodeType | None,
    last: CodeType | None,
    flags: int,
    *,
    pops_last: bool,
) -> CompiledCell:
    return CompiledCell(
        source=source,
        filename=filename,
        analysis=analysis,
        body=body,
        last=last,
        is_coroutine=any(code.co_flags & CO_COROUTINE for code in (body, last) if code is not None),
        wrapped=False,
        pops_last=pops_last,
        flags=flags & _FUTURE_FLAGS,
    )


def compilation_error(error: Exception, filename: str) -> CompilationError:
    """Give the executor's error for the compiler's."""
    if isinstance(error, SyntaxError):
        mended = CompilationError(*error.args)
        # Errors of the symbol table's pass have these as attributes alone, not in `args`.
        mended.msg, mended.filename, mended.text = error.msg, error.filename, error.text
        mended.lineno, mended.offset = error.lineno, error.offset
        mended.end_lineno, mended.end_offset = error.end_lineno, error.end_offset
        mended.print_file_and_line = error.print_file_and_line
        return mended
    text = str(error) if isinstance(error, ValueError) else f"the code nests too deeply to compile ({error})"
    return CompilationError(text, (filename, 1, 1, None))


def _split_last(body: list[ast.stmt], result_mode: ResultMode) -> tuple[ast.expr | None, bool]:
    """Take the value's expression off the body; say whether a hidden name is used for it."""
    if not body or result_mode == "none":
        return None, False
    match body[-1]:
        case ast.Expr(value=value):
            body.pop()
            return value, False
        case ast.Assign() as assign if result_mode == "last_expr_or_assign":
            target = assign.targets[0]
            if _is_plain(target):
                return _load(target), False
            # What was assigned to `a.b` or `a[i]` is caught on its way: reading it back would run
            # the object's own code once more.
            hidden = ast.Name(LAST, ast.Store())
            assign.value = ast.NamedExpr(hidden, assign.value)
            for name in (hidden, assign.value):
                ast.copy_location(name, assign)
            return ast.copy_location(ast.Name(LAST, ast.Load()), assign), True
        case (
            ast.AugAssign(target=ast.Name() as name)
            | ast.AnnAssign(target=ast.Name() as name, value=ast.expr())
        ) if result_mode == "last_expr_or_assign":
            return _load(name), False
        case _:
            return None, False


def _split_source(source: str, statement: ast.Expr) -> tuple[str, str]:
    """Give what comes before an expression, and the expression, in brackets, at the same line and column."""
    line, column = statement.lineno, statement.col_offset
    start = _index_of(source, line, column)
    text = source[start : _index_of(source, statement.end_lineno or line, statement.end_col_offset or 0)]
    if line > 1:
        text = f"{'\n' * (line - 2)}(\n{' ' * column}{text}\n)"
    elif column > 0:
        text = f"({' ' * (column - 1)}{text}\n)"
    return source[:start], text


def _index_of(source: str, line: int, column: int) -> int:
    """Give the place in a text of what a tree calls a line, from 1, and a column, in bytes."""
    start = 0
    for _ in range(line - 1):
        end = _NEWLINE.search(source, start)
        assert end is not None
        start = end.end()
    return start + len(source[start : start + column].encode()[:column].decode(errors="ignore"))


def _is_plain(target: ast.expr) -> bool:
    match target:
        case ast.Name():
            return True
        case ast.Starred(value=inner):
            return _is_plain(inner)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return all(_is_plain(part) for part in parts)
        case _:
            return False


def _load(target: ast.expr) -> ast.expr:
    """The same names, read instead of bound."""
    match target:
        case ast.Name(id=name):
            return ast.copy_location(ast.Name(name, ast.Load()), target)
        case ast.Starred(value=inner):
            # `a, *b = …` bound a list to b; a tuple of what was bound holds it as it is.
            return _load(inner)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return ast.copy_location(ast.Tuple([_load(part) for part in parts], ast.Load()), target)
        case _:
            return target
