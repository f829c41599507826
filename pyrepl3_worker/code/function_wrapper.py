"""The AST fallback: makes code the body of a function, for what module code cannot do (`return`)."""

import ast


class _BoundNameCollector(ast.NodeTransformer):
    """Collects the names that a scope binds, and removes annotations, which global names may not have."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if not isinstance(node.ctx, ast.Load):
            self.names[node.id] = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        # The compiler refuses it ("annotated name can't be global"), so only the assignment is kept.
        if not isinstance(node.target, ast.Name):
            return self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        plain = ast.Assign([node.target], node.value)
        return self.generic_visit(ast.copy_location(plain, node))

    def _visit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.AST:
        self.names[node.name] = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._visit_definition(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._visit_definition(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._visit_definition(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        # Its targets are local to it; `:=` in its conditions binds in the scope around it.
        self.visit(node.iter)
        for condition in node.ifs:
            self.visit(condition)
        return node

    def visit_alias(self, node: ast.alias) -> ast.AST:
        self.names[node.asname or node.name.partition(".")[0]] = None
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        if node.name is not None:
            self.names[node.name] = None
        return self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        if node.name is not None:
            self.names[node.name] = None
        return self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        if node.name is not None:
            self.names[node.name] = None
        return node

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        if node.rest is not None:
            self.names[node.rest] = None
        return self.generic_visit(node)

    def visit_TypeAlias(self, node: ast.TypeAlias) -> ast.AST:
        self.names[node.name.id] = None
        return node


def wrap_in_function(tree: ast.Module, last: ast.expr | None, name: str, *, is_async: bool) -> ast.Module:
    """Return a module that defines a function with the code as its body; the names it binds are global.

    `compile` refuses the module for code that no function may hold (`from m import *`).

    Args:
        tree: the code, without `last`; it is changed.
        last: the expression that the function returns at its end; None for none.
        name: the function's name.
        is_async: whether it is a coroutine function.
    """
    body = tree.body
    futures: list[ast.stmt] = []
    while body and isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__":
        futures.append(body.pop(0))
    globalizer = _BoundNameCollector()
    body = [globalizer.visit(statement) for statement in body]
    if last is not None:
        globalizer.visit(last)
        body.append(ast.copy_location(ast.Return(last), last))
    already = {bound for node in ast.walk(tree) if isinstance(node, ast.Global) for bound in node.names}
    names = [bound for bound in globalizer.names if bound not in already]
    if names:
        body.insert(0, ast.Global(names))
    arguments = ast.arguments(
        posonlyargs=[], args=[], vararg=None, kwonlyargs=[], kw_defaults=[], kwarg=None, defaults=[]
    )
    make = ast.AsyncFunctionDef if is_async else ast.FunctionDef
    wrapper = make(
        name=name,
        args=arguments,
        body=body,
        decorator_list=[],
        returns=None,
        type_comment=None,
        type_params=[],
    )
    return ast.fix_missing_locations(ast.Module(body=[*futures, wrapper], type_ignores=[]))
