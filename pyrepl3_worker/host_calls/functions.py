"""The functions that stand for host functions in the code: their kind, their signature, their text."""

import ast
import builtins
import inspect
from collections.abc import Callable
from os.path import dirname
from types import FunctionType
from typing import Any, Final

_HOST_FILE: Final = f"{dirname(__file__)}/<host function>"
"""Where their code is said to stand: no source is there to be shown, and the frames are the worker's."""
_UNKNOWN: Final = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)


def describe(function: Callable[..., Any], name: str, signature: str, doc: str, *, awaitable: bool) -> None:
    """Give a function the name, the signature and the text of the host function that it stands for.

    Args:
        function: a plain function that takes anything.
        name: the host function's.
        signature: its parameters as text, such as `(word, limit=...)`.
        doc: its docstring.
        awaitable: whether it is a coroutine function: `inspect.iscoroutinefunction` says so then.
    """
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc or None
    function.__module__ = "builtins"  # where it stands, so that it pickles by name
    function.__dict__["__signature__"] = parse_signature(signature)
    assert isinstance(function, FunctionType)
    function.__code__ = function.__code__.replace(co_filename=_HOST_FILE)
    if awaitable:
        inspect.markcoroutinefunction(function)


class Shown:
    """What stands in a signature for a default or an annotation: its text alone is known here."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Show `text`."""
        self._text = text

    def __repr__(self) -> str:
        """Show the text, as the host function's own source has it."""
        return self._text


def parse_signature(text: str) -> inspect.Signature:
    """Return a signature from its text, of which nothing is run; `(*args, **kwargs)` if it is none."""
    try:
        [definition] = ast.parse(f"def f{text}: ...").body
    except (SyntaxError, ValueError):
        return _UNKNOWN
    if not isinstance(definition, ast.FunctionDef):
        return _UNKNOWN
    given = definition.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + given.defaults
    kinds = [inspect.Parameter.POSITIONAL_ONLY] * len(given.posonlyargs)
    kinds += [inspect.Parameter.POSITIONAL_OR_KEYWORD] * len(given.args)
    parameters = [
        _parameter(argument, kind, default)
        for argument, kind, default in zip(plain, kinds, defaults, strict=True)
    ]
    if given.vararg is not None:
        parameters.append(_parameter(given.vararg, inspect.Parameter.VAR_POSITIONAL, None))
    parameters += [
        _parameter(argument, inspect.Parameter.KEYWORD_ONLY, default)
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.kwarg is not None:
        parameters.append(_parameter(given.kwarg, inspect.Parameter.VAR_KEYWORD, None))
    returns = definition.returns
    return inspect.Signature(
        parameters,
        return_annotation=inspect.Signature.empty if returns is None else _annotation(returns),
    )


def _parameter(argument: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    return inspect.Parameter(
        argument.arg,
        kind,
        default=inspect.Parameter.empty if default is None else _default(default),
        annotation=inspect.Parameter.empty
        if argument.annotation is None
        else _annotation(argument.annotation),
    )


def _default(node: ast.expr) -> object:
    if isinstance(node, ast.Constant) and node.value is not ...:
        return node.value
    return Shown(ast.unparse(node))


def _annotation(node: ast.expr) -> object:
    """Return what an annotation of built-in types means; the text of any other."""
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    try:
        return _evaluate(node)
    except (LookupError, TypeError):
        return Shown(ast.unparse(node))


def _evaluate(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name):
            found = vars(builtins)[name]
            if isinstance(found, type):
                return found
        case ast.Constant(value=None):
            return None
        case ast.Subscript(value=value, slice=ast.Tuple(elts=items)):
            return _evaluate(value)[tuple(_evaluate(item) for item in items)]
        case ast.Subscript(value=value, slice=item):
            return _evaluate(value)[_evaluate(item)]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _evaluate(left) | _evaluate(right)
        case _:
            pass
    raise LookupError
