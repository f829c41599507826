"""The analysis of generated cells, compared with what the compiler makes of them."""

import ast
from textwrap import indent
from typing import Final

from hypothesis import assume, example, given
from hypothesis import strategies as st

from pyrepl3_worker.code.analysis import ExecutionMode, has_top_level_await
from pyrepl3_worker.code.compiler import Compiler
from pyrepl3_worker.errors import CompilationError

CO_COROUTINE: Final = 0x80

atoms = st.sampled_from(["x", "1", "'t'", "f(x)", "await f(x)", "await x"])


def compound_expressions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions that contain expressions, in scopes of their own in some of them."""
    return st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]} + {two[1]})"),
        inner.map(lambda one: f"(lambda a={one}: a)"),
        inner.map(lambda one: f"(lambda: {one})"),
        st.tuples(inner, inner).map(lambda two: f"[{two[0]} for i in {two[1]}]"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} for i in {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"{{i: {two[0]} for i in y if {two[1]}}}"),
        inner.map(lambda one: f"{{i async for i in {one}}}"),
        inner.map(lambda one: f"(i async for i in {one})"),
        inner.map(lambda one: f"f'{{{one}}}'"),
        inner.map(lambda one: f"(n := {one})"),
        inner.map(lambda one: f"g(*[{one}], k={one})"),
    )


expressions = st.recursive(atoms, compound_expressions, max_leaves=4)


def compound_statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Statements that contain statements."""
    body = inner.map(lambda text: indent(text, "    "))
    return st.one_of(
        st.tuples(expressions, body).map(lambda two: f"if {two[0]}:\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"for i in {two[0]}:\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"async for i in {two[0]}:\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"with {two[0]} as w:\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"async with {two[0]} as w:\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"def h(a={two[0]}):\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"def h(a: {two[0]}):\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"@d({two[0]})\nasync def h():\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"class C(B, k={two[0]}):\n{two[1]}"),
        st.tuples(expressions, body).map(lambda two: f"try:\n{two[1]}\nexcept E:\n    {two[0]}"),
        st.tuples(expressions, body).map(
            lambda two: f"match {two[0]}:\n    case 1:\n{indent(two[1], '    ')}"
        ),
    )


statements = st.recursive(
    st.one_of(
        expressions,
        expressions.map(lambda text: f"v = {text}"),
        expressions.map(lambda text: f"v: int = {text}"),
        expressions.map(lambda text: f"v[{text}] += 1"),
        expressions.map(lambda text: f"return {text}"),
        expressions.map(lambda text: f"assert {text}"),
        expressions.map(lambda text: f"del v[{text}]"),
    ),
    compound_statements,
    max_leaves=3,
)
programs = st.lists(statements, min_size=1, max_size=3).map("\n".join)


@given(programs)
@example("class C(B, k=x):\n    (await f(x) for i in x)")
@example("class C(await b):\n    pass")
@example("class C:\n    class D(B): (await f(x) for i in x)\nawait f(x)")
def test_an_await_is_seen_where_the_compiler_sees_one(program: str) -> None:
    """`CO_COROUTINE` is set just when the syntax says so."""
    try:
        code = compile(program, "<program>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError:
        assume(False)
        return
    assert has_top_level_await(ast.parse(program)) == bool(code.co_flags & CO_COROUTINE)


@given(programs)
def test_a_cell_that_compiles_has_the_mode_of_its_code(program: str) -> None:
    """Split into body and last statement, or wrapped for a `return`, a cell is a coroutine all the same."""
    try:
        cell = Compiler(cache_size=0).compile(program)
    except CompilationError:
        assume(False)
        return
    awaits = has_top_level_await(ast.parse(program))
    assert (cell.mode({}) is ExecutionMode.TOP_LEVEL_AWAIT) == awaits
    assert cell.is_coroutine == awaits
