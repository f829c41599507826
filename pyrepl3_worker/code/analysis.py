"""Finds out how a cell has to be run: detects `await` and blocking calls in its syntax tree.

What depends on the namespace (is `sleep` here `time.sleep` or the user's own function?) is kept as
candidates and decided when the code runs, so that the rest can be cached.
"""

import ast
from collections.abc import Mapping, Sequence
from enum import Enum
from types import ModuleType
from typing import Any, Final, NamedTuple, cast


class ExecutionMode(Enum):
    """The ways in which a cell is run; the specification's five modes."""

    TOP_LEVEL_AWAIT = "top_level_await"
    ASYNC_DEF = "async_def"
    BLOCKING_SYNC = "blocking_sync"
    SIMPLE_SYNC = "simple_sync"
    UNKNOWN = "unknown"


BLOCKING_IO_MODULES: Final = frozenset(
    {"requests", "urllib", "urllib3", "http", "socket", "subprocess", "sqlite3", "psycopg2", "psycopg"}
    | {"pymongo", "redis", "ftplib", "smtplib", "pymysql", "httplib2", "paramiko"}
)
BLOCKING_IO_CALLS: Final = frozenset({"open", "input", "sleep", "wait", "read", "write", "recv", "send"})
_BUILTIN_CALLS: Final = frozenset({"open", "input"})
_MODULES_WITH_BLOCKING_CALLS: Final = frozenset(
    {"time", "select", "io", "_io", "threading", "queue", "getpass"}
)
# Code that uses these names runs on the event loop's thread: tasks, running loops and signal handlers
# exist only there.
_LOOP_THREAD_MODULES: Final = frozenset({"asyncio", "signal", "anyio"})

_LOOP_THREAD_CALLS: Final = frozenset({"create_task", "get_running_loop", "ensure_future"})


class BlockingCandidate(NamedTuple):
    """A call that blocks if its root name is bound to what the name suggests: `time` in `time.sleep()`."""

    root: str
    attribute: str


class Analysis(NamedTuple):
    """What the syntax tree alone tells about a cell."""

    awaits: bool
    """Whether an `await`, `async for` or `async with` stands outside all functions: it is a coroutine."""
    has_async_def: bool
    returns: bool
    """Whether a `return` stands outside all functions: only the AST fallback can run that."""
    yields: bool
    blocking: bool
    """Whether it certainly blocks."""
    candidates: tuple[BlockingCandidate, ...]
    needs_loop_thread: bool


class _NodeFields(dict[type[ast.AST], tuple[str, ...]]):
    """The fields of a kind of node that may hold nodes worth a look, found out once."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        leaf = issubclass(kind, ast.Constant)
        self[kind] = found = () if leaf else tuple(field for field in kind._fields if field not in _NO_NODES)
        return found


_NO_NODES: Final = frozenset(
    {"arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "level", "module", "name", "op", "ops"}
    | {"rest", "simple", "type_comment"}
)
"""Fields that hold names, numbers, contexts and operators, which have no children."""
_NODE_FIELDS: Final = _NodeFields()


def _child_nodes(node: ast.AST) -> Sequence[ast.AST]:
    """Return a node's children but for contexts and operators, faster than `iter_child_nodes`."""
    fields = _NODE_FIELDS[type(node)]
    if not fields:
        return ()
    children: list[ast.AST] = []
    for field in fields:
        value = getattr(node, field, None)
        if type(value) is list:
            if value:
                children += [item for item in cast("list[object]", value) if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            children.append(value)
    return children


def _evaluated_at_definition(arguments: ast.arguments) -> list[ast.AST]:
    """Return the parts of a function's parameters that are evaluated where the function is defined."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    annotations = [argument.annotation for argument in every if argument.annotation is not None]
    defaults = [default for default in arguments.kw_defaults if default is not None]
    return [*arguments.defaults, *defaults, *annotations]


def walk_own_scope(nodes: list[ast.stmt]) -> list[ast.AST]:
    """Return the nodes that run in the code's own scope: all but the bodies of functions and lambdas.

    Decorators, defaults and annotations of functions run in it (annotations of a function with type
    parameters do not: they have a scope of their own), and so do class bodies. Comprehensions count as
    part of the scope around them: with an asynchronous generator expression, the compiler makes the code
    a coroutine, although the expression itself awaits nothing. Class bodies are different, since any other
    `await` is an error there: nodes that would make a coroutine are left out.
    """
    walked: list[ast.AST] = []
    bodies: list[ast.AST] = []
    todo: list[ast.AST] = list(nodes)
    while todo or bodies:
        if todo:
            walked += _walk(todo, bodies)
        else:
            todo, bodies = bodies, []
            walked += [node for node in _walk(todo, bodies) if not _makes_coroutine(node)]
    return walked


def _walk(todo: list[ast.AST], bodies: list[ast.AST]) -> list[ast.AST]:
    """Return the nodes in and below `todo`, which is emptied; class bodies are put into `bodies`."""
    walked: list[ast.AST] = []
    while todo:
        node = todo.pop()
        walked.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += node.decorator_list
            todo += _evaluated_at_definition(node.args)
            if node.returns is not None:
                todo.append(node.returns)
        elif isinstance(node, ast.Lambda):
            todo += _evaluated_at_definition(node.args)
        elif isinstance(node, ast.ClassDef):
            todo += [*node.decorator_list, *node.bases, *node.keywords]
            bodies += node.body
        else:
            todo += _child_nodes(node)
    return walked


_AWAITING_NODES: Final = frozenset({ast.Await, ast.AsyncFor, ast.AsyncWith})


def _makes_coroutine(node: ast.AST) -> bool:
    return type(node) in _AWAITING_NODES or (isinstance(node, ast.comprehension) and bool(node.is_async))


def has_top_level_await(tree: ast.Module) -> bool:
    """Return whether the compiled code will be a coroutine (`CO_COROUTINE`)."""
    return any(map(_makes_coroutine, walk_own_scope(tree.body)))


def analyze(tree: ast.Module) -> Analysis:
    """Return the analysis of a cell's syntax tree."""
    own = walk_own_scope(tree.body)
    kinds = set(map(type, own))
    calls, has_async_def = _find_calls(tree.body)
    aliases = _import_origins(own) if ast.Import in kinds or ast.ImportFrom in kinds else {}
    blocking, candidates = (
        _blocking_calls(calls, aliases, _bound_names(own)) if calls or aliases else (False, ())
    )
    return Analysis(
        awaits=any(map(_makes_coroutine, own)),
        has_async_def=has_async_def,
        returns=ast.Return in kinds,
        yields=ast.Yield in kinds or ast.YieldFrom in kinds,
        blocking=blocking,
        candidates=candidates,
        needs_loop_thread=any(
            isinstance(node, ast.Name) and (node.id in _LOOP_THREAD_MODULES or node.id in _LOOP_THREAD_CALLS)
            for node in own
        ),
    )


def _first_part(name: str) -> str:
    return name.partition(".")[0]


def _import_origins(own: list[ast.AST]) -> dict[str, str]:
    """Return local names with their dotted origins, for the imports that the code itself makes."""
    origins: dict[str, str] = {}
    for node in own:
        match node:
            case ast.Import():
                for alias in node.names:
                    if alias.asname is None:
                        origins[_first_part(alias.name)] = _first_part(alias.name)
                        if _first_part(alias.name) in BLOCKING_IO_MODULES:
                            origins[_first_part(alias.name)] = alias.name
                    else:
                        origins[alias.asname] = alias.name
            case ast.ImportFrom(module=str(module), level=0):
                for alias in node.names:
                    origins[alias.asname or alias.name] = f"{module}.{alias.name}"
            case _:
                pass
    return origins


def _bound_names(own: list[ast.AST]) -> frozenset[str]:
    """Return the names that the code binds in its own scope in other ways than by imports."""
    names: set[str] = set()
    for node in own:
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case _:
                pass
    return frozenset(names)


def _blocking_calls(
    calls: list[ast.expr], aliases: dict[str, str], bound: frozenset[str]
) -> tuple[bool, tuple[BlockingCandidate, ...]]:
    if any(_first_part(origin) in BLOCKING_IO_MODULES for origin in aliases.values()):
        return True, ()
    candidates: dict[BlockingCandidate, None] = {}
    for function in calls:
        match function:
            case ast.Name(id=name):
                candidate = BlockingCandidate(name, "")
            case ast.Attribute(attr=attribute):
                root = _root_name(function)
                if root is None:
                    continue
                candidate = BlockingCandidate(root, attribute)
            case _:
                continue
        origin = aliases.get(candidate.root)
        if origin is not None:
            if _imported_call_blocks(origin, candidate.attribute):
                return True, ()
        elif candidate.root not in bound:
            candidates[candidate] = None
    return False, tuple(candidates)


def _find_calls(body: list[ast.stmt]) -> tuple[list[ast.expr], bool]:
    """Return everything that is called anywhere, and whether there is an async function.

    The bodies of async functions are left out: their calls run on the event loop, never in a thread.
    """
    calls: list[ast.expr] = []
    has_async_def = False
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.AsyncFunctionDef):
            has_async_def = True
            continue
        if isinstance(node, ast.Call):
            calls.append(node.func)
        todo += _child_nodes(node)
    return calls, has_async_def


def _root_name(node: ast.Attribute) -> str | None:
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else None


def _imported_call_blocks(origin: str, attribute: str) -> bool:
    """Return whether calling `attribute` of what was imported as `origin` (or `origin` itself) blocks."""
    module, _, name = origin.rpartition(".")
    called = attribute or name
    if called not in BLOCKING_IO_CALLS:
        return False
    return _first_part(module if not attribute and module else origin) in _MODULES_WITH_BLOCKING_CALLS


def is_blocking(candidate: BlockingCandidate, namespace: Mapping[str, object]) -> bool:
    """Return whether a candidate blocks, by what its root name is bound to now.

    No attribute of the user's objects is evaluated: only their types and modules are examined.
    """
    root, attribute = candidate
    missing = object()
    value = namespace.get(root, missing)
    if value is missing:
        return not attribute and root in _BUILTIN_CALLS
    # By types alone, and past metaclasses: `isinstance` and attributes may run the code of objects.
    kind = type(value)
    if issubclass(kind, ModuleType):
        name = _first_part(str(_dict_of_module(value).get("__name__")))
        if name in BLOCKING_IO_MODULES:
            return True
        return attribute in BLOCKING_IO_CALLS and name in _MODULES_WITH_BLOCKING_CALLS
    defined_in = _module_of_class(kind)
    origin = _first_part(defined_in) if type(defined_in) is str else ""
    if attribute:
        if origin in BLOCKING_IO_MODULES:
            return True
        return attribute in BLOCKING_IO_CALLS and origin in _MODULES_WITH_BLOCKING_CALLS
    if issubclass(kind, type):
        home = _module_of_class(value)
    else:
        home = value.__module__ if kind in _FUNCTION_TYPES else None
    if type(home) is not str:
        return False
    if _first_part(home) in BLOCKING_IO_MODULES:
        return True
    return root in BLOCKING_IO_CALLS and _first_part(home) in _MODULES_WITH_BLOCKING_CALLS


_FUNCTION_TYPES: Final = (type(analyze), type(len))
_module_of_class: Final[Any] = type.__dict__["__module__"].__get__
_dict_of_module: Final[Any] = vars(ModuleType)["__dict__"].__get__
