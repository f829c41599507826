"""Finds the names that a cell's code may bind, and so the cell that a lost value came from."""

import ast
from typing import Final

_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def assigned_names(code: str) -> frozenset[str]:
    """Return the names that code binds at its top level, and those its functions declare global.

    Code that does not parse binds nothing. What is bound by other means (`globals()["x"] = …`, a star
    import) is not seen.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    names: set[str] = set()
    waiting: list[tuple[ast.AST, bool]] = [(tree, True)]
    while waiting:
        node, top = waiting.pop()
        if isinstance(node, ast.Global):
            names.update(node.names)
        elif top:
            names.update(_bound_by(node))
        inner = top and not isinstance(node, _SCOPES)
        waiting.extend((child, inner) for child in ast.iter_child_nodes(node))
    return frozenset(names)


def _bound_by(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.alias(name=name, asname=asname):
            return [asname or name.partition(".")[0]]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case _:
            return []
