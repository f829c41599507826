"""Compiles a cell: code objects, the value of its last statement, the AST fallback, the cache."""

import ast
import re
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, Final, Protocol

import msgspec

from pyrepl3_schemas.messages import ResultMode
from pyrepl3_worker.code.analysis import Analysis, ExecutionMode, analyze, is_blocking
from pyrepl3_worker.code.cell_sources import CellSources, Place, filename_of
from pyrepl3_worker.code.compiler_warnings import CompilerWarnings
from pyrepl3_worker.code.function_wrapper import wrap_in_function
from pyrepl3_worker.code.ipython_lines import explain_ipython_line
from pyrepl3_worker.code.own_frames import CELL_PREFIX, named_cell_files
from pyrepl3_worker.code.pasted_prompts import has_lines_without_prompt, strip_prompts
from pyrepl3_worker.errors import CompilationError

CO_COROUTINE: Final = 0x80
_FUTURE_FLAGS: Final = 0x1FF0000
"""The bits of `co_flags` that `from __future__ import …` sets (`__future__.py`)."""

WRAPPER_NAME: Final = "__async_exec__"
LAST_VALUE_NAME: Final = "__pyrepl3_last__"
_NEWLINE: Final = re.compile(r"\r\n|\r|\n")
_SEMICOLON: Final = re.compile(r"(?:[ \t\f]|\\\r?\n)*;")
_MAX_CACHED_CHARS: Final = 16 * 1024 * 1024
"""Characters of source in the cache; the code takes several times as much memory."""


class CompiledCell(msgspec.Struct):
    """A cell that is ready to run: `body` runs first, then `last` returns the value."""

    source: str
    filename: str
    analysis: Analysis
    body: CodeType | None
    last: CodeType | None
    is_coroutine: bool
    """Whether one of the two is a coroutine."""
    wrapped: bool
    """Whether `body` defines the AST fallback's function, which must be called, and awaited if async."""
    binds_last_value: bool
    """Whether the value is bound to `LAST_VALUE_NAME`, which must be removed again."""
    flags: int
    """The `__future__` flags that the code switches on for later cells."""
    was_fast: bool = False
    """Whether it ran before, and took almost no time."""
    run_body: Callable[[], Any] | None = None
    run_last: Callable[[], Any] | None = None
    prepared: bool = False
    """Whether `run_body` and `run_last` are set for `body` and `last` (see `_prepare_cell` in `executor`)."""
    is_assigned: bool = False
    """Whether the value is what the last statement has assigned: it is not recorded in `_` and `Out`."""
    fixed_mode: str = ""
    """The name of its mode, if that depends only on the code; else empty."""

    def mode(self, namespace: Mapping[str, object]) -> ExecutionMode:
        """Return the execution mode, by what the names are bound to now.

        Args:
            namespace: the namespace in which the cell will run.
        """
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
            if is_blocking(candidate, namespace):
                return ExecutionMode.BLOCKING_SYNC
        return ExecutionMode.SIMPLE_SYNC


class CompilationCache:
    """The most recently used cells, by the source itself: a hash alone could mistake one for another."""

    __slots__ = ("_cells", "_chars", "hits", "max_size", "misses")

    def __init__(self, max_size: int = 1000) -> None:
        """Keep at most `max_size` cells, fewer if they are long; 0 keeps none."""
        self.max_size = max_size
        self._chars = 0
        self._cells: dict[tuple[str, str, int], CompiledCell] = {}
        self.hits = 0
        self.misses = 0

    def get_compiled(self, code: str, mode: str, flags: int) -> CompiledCell | None:
        """Return the cell compiled from this source, result mode and flags; None if there is none."""
        key = (code, mode, flags)
        cell = self._cells.get(key)
        if cell is None:
            self.misses += 1
            return None
        self.hits += 1
        if len(self._cells) >= self.max_size or self._chars > _MAX_CACHED_CHARS // 2:
            # The order matters only if a cell may soon have to be dropped.
            self._cells[key] = self._cells.pop(key)
        return cell

    def store_compiled(self, code: str, mode: str, flags: int, compiled: CompiledCell) -> None:
        """Keep a cell; when there are too many, drop those that were unused for longest."""
        if self.max_size == 0 or len(code) > _MAX_CACHED_CHARS:
            return
        self._chars += len(code)
        while self._cells and (len(self._cells) >= self.max_size or self._chars > _MAX_CACHED_CHARS):
            oldest = next(iter(self._cells))
            del self._cells[oldest]
            self._chars -= len(oldest[0])
        self._cells[code, mode, flags] = compiled


class Translator(Protocol):
    """A syntax that is more than Python's."""

    def to_python(self, source: str) -> str:
        """Return a cell as Python."""
        ...

    def blocks(self, python: str) -> bool:
        """Return whether a cell, as Python, waits for other processes."""
        ...

    def completeness(self, source: str) -> tuple[str, str]:
        """Return whether a cell is complete (see `inspection.completeness`), and its next line's blanks."""
        ...

    def magic_names(self) -> tuple[list[str], list[str]]:
        """Return the names of line magics and of cell magics, without their signs."""
        ...

    @property
    def changes_trees(self) -> bool:
        """Whether `change_tree` does anything."""
        ...

    def change_tree(self, tree: ast.Module) -> ast.Module:
        """Return the syntax tree that is to be compiled."""
        ...


class Compiler:
    """Compiles the cells of one session."""

    def __init__(self, cache_size: int = 1000) -> None:
        """Keep `cache_size` compiled cells."""
        self.cache = CompilationCache(cache_size)
        self._sources = CellSources()
        self.ast_transforms = 0
        self._future_flags = 0
        self.translator: Translator | None = None
        """Makes Python of cells first; None for cells that are Python."""

    def compile(
        self, source: str, result_mode: ResultMode = "last_expr_or_assign", place: Place | None = None
    ) -> CompiledCell:
        """Return the compiled cell of a source, from the cache if it was compiled before.

        Args:
            source: the cell's source.
            result_mode: which last statements give the cell a value.
            place: where an editor has it from; None for a file name made of the source.

        Raises:
            CompilationError: it does not compile; `__cause__` is the compiler's error.
        """
        translator = self.translator
        if translator is not None:
            source = _translate(translator, source)
            if translator.changes_trees:
                cell = self._compile(source, result_mode, place)
                self._keep_sources(cell)
                return cell
        mode = result_mode if place is None else f"{result_mode} {place.first_line} {place.filename}"
        cell = self.cache.get_compiled(source, mode, self._future_flags)
        if cell is None:
            with CompilerWarnings() as probe:
                cell = self._compile(source, result_mode, place)
            self._keep_sources(cell)
            if not cell.analysis.candidates:
                cell.fixed_mode = cell.mode({}).value
            if not probe.met:  # else it is compiled, and warned of, each time
                self.cache.store_compiled(source, mode, self._future_flags, cell)
        if cell.wrapped:
            self.ast_transforms += 1
        return cell

    def _keep_sources(self, cell: CompiledCell) -> None:
        codes = [code for code in (cell.body, cell.last) if code is not None]
        self._sources.keep_while_alive(cell.filename, codes)

    def apply_future_flags(self, cell: CompiledCell) -> None:
        """Switch a cell's `__future__` features on for later cells, as the REPL does; call it when it ran."""
        self._future_flags |= cell.flags

    def _compile(self, sent: str, result_mode: ResultMode, place: Place | None) -> CompiledCell:
        text = strip_prompts(sent)
        if place is None:
            filename = filename_of(text)
            self._sources.add(filename, text)
            return self._compile_named(filename, text, sent, result_mode)
        named_cell_files.add(place.filename)
        self._sources.add_named(place, text)
        # Empty lines before it: so everything counts from the right one, errors and warnings too.
        padded = "\n" * (place.first_line - 1) + text
        cell = self._compile_named(place.filename, padded, sent, result_mode)
        cell.source = text
        return cell

    def _compile_named(self, filename: str, source: str, sent: str, result_mode: ResultMode) -> CompiledCell:
        in_parser = True
        try:
            tree = compile(
                source, filename, "exec", ast.PyCF_ONLY_AST | self._future_flags, dont_inherit=True
            )
            in_parser = False
            if self.translator is not None:
                tree = self.translator.change_tree(tree)
            analysis = analyze(tree)
            if self.translator is not None and self.translator.blocks(source):
                analysis = analysis._replace(blocking=True)
            if ";" in source and tree.body and _ends_with_semicolon(source, tree.body[-1]):
                result_mode = "none"
            if analysis.returns and not analysis.yields:
                return self._compile_in_function(source, filename, tree, analysis, result_mode)
            statement = tree.body[-1] if tree.body else None
            try:
                return self._compile_tree(source, filename, tree, analysis, result_mode)
            except RecursionError:
                # Up to Python 3.12, the compiler accepts less nesting in a tree than in a source.
                if statement is None:
                    raise
                return self._compile_text(source, filename, statement, analysis, result_mode)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            # ValueError: NUL bytes. The others: nesting deeper than the parser's or compiler's stack.
            if isinstance(error, SyntaxError):
                if not in_parser:
                    _complete_place(error, source)
                elif not filename.startswith(CELL_PREFIX):
                    error = _error_of_text(source, self._future_flags, error)
            raise compilation_error(error, filename, source, sent, explain=self.translator is None) from error

    def _compile_tree(
        self, source: str, filename: str, tree: ast.Module, analysis: Analysis, result_mode: ResultMode
    ) -> CompiledCell:
        body = tree.body
        is_assigned = bool(body) and not isinstance(body[-1], ast.Expr)
        last, binds_last_value = _split_last(body, result_mode)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self._future_flags
        body_code = last_code = None
        if body:
            body_code = compile(tree, filename, "exec", flags, dont_inherit=True)
            # `from __future__` in the body also applies to the last expression.
            flags |= body_code.co_flags & _FUTURE_FLAGS
        if last is not None:
            last_code = compile(ast.Expression(last), filename, "eval", flags, dont_inherit=True)
        elif body_code is None:
            body_code = compile(tree, filename, "exec", flags, dont_inherit=True)
        return _make_cell(
            source,
            filename,
            analysis,
            body_code,
            last_code,
            flags,
            binds_last_value=binds_last_value,
            is_assigned=is_assigned,
        )

    def _compile_text(
        self, source: str, filename: str, statement: ast.stmt, analysis: Analysis, result_mode: ResultMode
    ) -> CompiledCell:
        """Compile text instead of a tree; `statement` is the last statement.

        An assignment to `a.b` or `a[i]` gives no value then: that takes a change of the tree.
        """
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self._future_flags
        body, value = source, None
        if isinstance(statement, ast.Expr) and result_mode != "none":
            body, value = _split_source(source, statement)
        body_code: CodeType = compile(body, filename, "exec", flags, dont_inherit=True)
        flags |= body_code.co_flags & _FUTURE_FLAGS
        last: str | ast.Expression | None = value
        if value is None:
            target, binds_last_value = _split_last([statement], result_mode)
            last = None if target is None or binds_last_value else ast.Expression(target)
        last_code: CodeType | None = None
        if last is not None:
            last_code = compile(last, filename, "eval", flags, dont_inherit=True)
        return _make_cell(
            source,
            filename,
            analysis,
            body_code,
            last_code,
            flags,
            binds_last_value=False,
            is_assigned=value is None,
        )

    def _compile_in_function(
        self, source: str, filename: str, tree: ast.Module, analysis: Analysis, result_mode: ResultMode
    ) -> CompiledCell:
        """Compile by the AST fallback: as the body of an (async) function with global names."""
        last, _ = _split_last(tree.body, "none" if result_mode == "none" else "last_expr")
        wrapped = wrap_in_function(tree, last, WRAPPER_NAME, is_async=analysis.awaits)
        code = compile(wrapped, filename, "exec", self._future_flags, dont_inherit=True)
        return CompiledCell(
            source=source,
            filename=filename,
            analysis=analysis,
            body=code,
            last=None,
            is_coroutine=analysis.awaits,
            wrapped=True,
            binds_last_value=False,
            flags=code.co_flags & _FUTURE_FLAGS,
        )


def _make_cell(
    source: str,
    filename: str,
    analysis: Analysis,
    body: CodeType | None,
    last: CodeType | None,
    flags: int,
    *,
    binds_last_value: bool,
    is_assigned: bool,
) -> CompiledCell:
    return CompiledCell(
        source=source,
        filename=filename,
        analysis=analysis,
        body=body,
        last=last,
        is_coroutine=any(code.co_flags & CO_COROUTINE for code in (body, last) if code is not None),
        wrapped=False,
        binds_last_value=binds_last_value,
        flags=flags & _FUTURE_FLAGS,
        is_assigned=is_assigned,
    )


def _translate(translator: Translator, source: str) -> str:
    try:
        return translator.to_python(source)
    except Exception as error:  # a SyntaxError; or whatever a translator of the code's own raises
        if not isinstance(error, SyntaxError):
            error = SyntaxError(f"an input transformer raised {type(error).__name__}: {error}")
        raise compilation_error(error, filename_of(source), source, source, explain=False) from error


def compilation_error(
    error: Exception, filename: str, source: str, sent: str, *, explain: bool = True
) -> CompilationError:
    """Return the executor's error for an error of the compiler.

    Args:
        error: the compiler's.
        filename: the cell's.
        source: what was compiled.
        sent: the same with the prompts that it was pasted with.
        explain: whether to say of a line in IPython's syntax what it is: the session speaks Python alone.
    """
    if isinstance(error, SyntaxError):
        if explain:
            error.msg = explain_ipython_line(error, source) or error.msg
        converted = CompilationError(*error.args)
        # Errors of the symbol table have these only as attributes, not in `args`.
        converted.msg, converted.filename, converted.text = error.msg, error.filename, error.text
        converted.lineno, converted.offset = error.lineno, error.offset
        converted.end_lineno, converted.end_offset = error.end_lineno, error.end_offset
        converted.print_file_and_line = error.print_file_and_line
        if has_lines_without_prompt(sent):
            note = "lines without a prompt are run as code; leave out what the pasted code has printed"
            for each in (error, converted):
                each.add_note(note)
        return converted
    text = str(error) if isinstance(error, ValueError) else f"the code nests too deeply to compile ({error})"
    return CompilationError(text, (filename, 1, 1, None))


def _error_of_text(source: str, flags: int, error: SyntaxError) -> SyntaxError:
    """Return the parser's error with the line that was sent, not that of a file on disk."""
    try:
        compile(source, CELL_PREFIX, "exec", ast.PyCF_ONLY_AST | flags, dont_inherit=True)
    except SyntaxError as again:
        again.filename = error.filename
        return again
    return error


def _complete_place(error: SyntaxError, source: str) -> None:
    """Give an error of the compiler's later passes its line, for which they look in a file.

    Their columns count bytes; the parser's count characters.
    """
    if error.lineno is None:
        return
    lines = _NEWLINE.split(source)
    if not 1 <= error.lineno <= len(lines):
        return
    line = lines[error.lineno - 1]
    error.text = f"{line}\n"
    error.offset = _offset_in_characters(line, error.offset)
    if error.end_lineno is not None and 1 <= error.end_lineno <= len(lines):
        error.end_offset = _offset_in_characters(lines[error.end_lineno - 1], error.end_offset)


def _offset_in_characters(line: str, offset: int | None) -> int | None:
    """Return a column, from 1, in characters for one in bytes of a line."""
    if offset is None or offset < 1:
        return offset
    return len(line.encode("utf-8", "surrogatepass")[: offset - 1].decode(errors="ignore")) + 1


def _split_last(body: list[ast.stmt], result_mode: ResultMode) -> tuple[ast.expr | None, bool]:
    """Return the expression of the cell's value, and whether it reads `LAST_VALUE_NAME`.

    An expression statement is removed from `body`; an assignment stays.
    """
    if not body or result_mode == "none":
        return None, False
    match body[-1]:
        case ast.Expr(value=value):
            body.pop()
            return value, False
        case ast.Assign() as assign if result_mode == "last_expr_or_assign":
            target = assign.targets[0]
            if _binds_only_names(target):
                return _to_load_context(target), False
            # The value assigned to `a.b` or `a[i]` is bound to a hidden name too: reading it back would
            # run the object's own code once more.
            hidden = ast.Name(LAST_VALUE_NAME, ast.Store())
            assign.value = ast.NamedExpr(hidden, assign.value)
            for name in (hidden, assign.value):
                ast.copy_location(name, assign)
            return ast.copy_location(ast.Name(LAST_VALUE_NAME, ast.Load()), assign), True
        case (
            ast.AugAssign(target=ast.Name() as name)
            | ast.AnnAssign(target=ast.Name() as name, value=ast.expr())
        ) if result_mode == "last_expr_or_assign":
            return _to_load_context(name), False
        case _:
            return None, False


def _ends_with_semicolon(source: str, statement: ast.stmt) -> bool:
    """Return whether a semicolon stands after the last statement, which so gives no value."""
    end = _offset_of(source, statement.end_lineno or 1, statement.end_col_offset or 0)
    return _SEMICOLON.match(source, end) is not None


def _split_source(source: str, statement: ast.Expr) -> tuple[str, str]:
    """Return the source before an expression, and the expression in brackets at its line and column."""
    line, column = statement.lineno, statement.col_offset
    start = _offset_of(source, line, column)
    text = source[start : _offset_of(source, statement.end_lineno or line, statement.end_col_offset or 0)]
    if line > 1:
        text = f"{'\n' * (line - 2)}(\n{' ' * column}{text}\n)"
    elif column > 0:
        text = f"({' ' * (column - 1)}{text}\n)"
    return source[:start], text


def _offset_of(source: str, line: int, column: int) -> int:
    """Return the index in a text of a line, from 1, and a column in bytes, as syntax trees count them."""
    start = 0
    for _ in range(line - 1):
        end = _NEWLINE.search(source, start)
        assert end is not None
        start = end.end()
    return start + len(source[start : start + column].encode()[:column].decode(errors="ignore"))


def _binds_only_names(target: ast.expr) -> bool:
    match target:
        case ast.Name():
            return True
        case ast.Starred(value=inner):
            return _binds_only_names(inner)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return all(_binds_only_names(part) for part in parts)
        case _:
            return False


def _to_load_context(target: ast.expr) -> ast.expr:
    """Return an assignment's target as an expression that reads the same names."""
    match target:
        case ast.Name(id=name):
            return ast.copy_location(ast.Name(name, ast.Load()), target)
        case ast.Starred(value=inner):
            # `a, *b = …` binds a list to b; the value is a tuple that holds this list.
            return _to_load_context(inner)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return ast.copy_location(
                ast.Tuple([_to_load_context(part) for part in parts], ast.Load()), target
            )
        case _:
            return target
