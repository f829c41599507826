"""How a piece of code wants to be run: await and blocking detection on its syntax tree.

What depends on the namespace (is `sleep` here `time.sleep` or the user's own function?) is kept as
candidates and decided when the code runs, so that the rest can be cached.
"""

import ast
from collections.abc import Mapping
from enum import Enum
from types import ModuleType
from typing import Final, NamedTuple, cast


class ExecutionMode(Enum):
    """The routes by which code is run."""

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
# Code that speaks of these needs the loop's own thread: tasks, running loops and signal handlers
# exist there alone.
_LOOP_THREAD_MODULES: Final = frozenset({"asyncio", "signal", "anyio"})

_LOOP_THREAD_CALLS: Final = frozenset({"create_task", "get_running_loop", "ensure_future"})


class BlockingCandidate(NamedTuple):
    """A call that blocks if its root name is what it looks like."""

    root: str
    attribute: str


class Analysis(NamedTuple):
    """What the syntax alone tells."""

    awaits: bool
    """Whether `await` and its kin stand outside every function, so that the code is a coroutine."""
    has_async_def: bool
    returns: bool
    """Whether a `return` stands outside every function: only the AST fallback can run that."""
    yields: bool
    blocking: bool
    """Whether it blocks for certain."""
    candidates: tuple[BlockingCandidate, ...]
    needs_loop_thread: bool


def _children(node: ast.AST) -> list[ast.AST]:
    """A node's children but for contexts (Load, Store). `ast.iter_child_nodes`, at a third of its cost."""
    children: list[ast.AST] = []
    for field in node._fields:
        if field == "ctx":
            continue
        value = getattr(node, field, None)
        if isinstance(value, list):
            children += [item for item in cast("list[object]", value) if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            children.append(value)
    return children


def _of_arguments(arguments: ast.arguments) -> list[ast.AST]:
    """What of a function's parameters is evaluated where the function is defined."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    annotations = [argument.annotation for argument in every if argument.annotation is not None]
    defaults = [default for default in arguments.kw_defaults if default is not None]
    return [*arguments.defaults, *defaults, *annotations]


def walk_own_scope(nodes: list[ast.stmt]) -> list[ast.AST]:
    """Give the nodes that run in the code's own scope: not the bodies of functions and lambdas.

    Their decorators, defaults and annotations do run here (unless the function has type parameters: then
    annotations are evaluated in a scope of their own), and so do class bodies. Comprehensions count as part
    of the scope around them: the compiler takes even an asynchronous generator expression for a
    coroutine's, although it awaits nothing itself. Not so in a class body, where every other `await` is
    an error: what would make a coroutine is left out there.
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
    """Walk until nothing is left `todo`; the statements of class bodies go into `bodies`."""
    walked: list[ast.AST] = []
    while todo:
        node = todo.pop()
        walked.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += node.decorator_list
            todo += _of_arguments(node.args)
            if node.returns is not None:
                todo.append(node.returns)
        elif isinstance(node, ast.Lambda):
            todo += _of_arguments(node.args)
        elif isinstance(node, ast.ClassDef):
            todo += [*node.decorator_list, *node.bases, *node.keywords]
            bodies += node.body
        else:
            todo += _children(node)
    return walked


_AWAITS: Final = frozenset({ast.Await, ast.AsyncFor, ast.AsyncWith})


def _makes_coroutine(node: ast.AST) -> bool:
    return type(node) in _AWAITS or (isinstance(node, ast.comprehension) and bool(node.is_async))


def has_top_level_await(tree: ast.Module) -> bool:
    """Whether the compiled code will be a coroutine (`CO_COROUTINE`)."""
    return any(map(_makes_coroutine, walk_own_scope(tree.body)))


def analyze(tree: ast.Module) -> Analysis:
    """Read everything off a tree in one go."""
    own = walk_own_scope(tree.body)
    kinds = set(map(type, own))
    calls, has_async_def = _called(tree.body)
    aliases = _imports(own) if ast.Import in kinds or ast.ImportFrom in kinds else {}
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


def _root(name: str) -> str:
    return name.partition(".")[0]


def _imports(own: list[ast.AST]) -> dict[str, str]:
    """Local name -> dotted origin, for the imports that the code itself makes."""
    origins: dict[str, str] = {}
    for node in own:
        match node:
            case ast.Import():
                for alias in node.names:
                    if alias.asname is None:
                        origins[_root(alias.name)] = _root(alias.name)
                        if _root(alias.name) in BLOCKING_IO_MODULES:
                            origins[_root(alias.name)] = alias.name
                    else:
                        origins[alias.asname] = alias.name
            case ast.ImportFrom(module=str(module), level=0):
                for alias in node.names:
                    origins[alias.asname or alias.name] = f"{module}.{alias.name}"
            case _:
                pass
    return origins


def _bound_names(own: list[ast.AST]) -> frozenset[str]:
    """Names that the code binds in its own scope by other means than imports."""
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
    if any(_root(origin) in BLOCKING_IO_MODULES for origin in aliases.values()):
        return True, ()
    candidates: dict[BlockingCandidate, None] = {}
    for function in calls:
        match function:
            case ast.Name(id=name):
                candidate = BlockingCandidate(name, "")
            case ast.Attribute(attr=attribute):
                root = _attribute_root(function)
                if root is None:
                    continue
                candidate = BlockingCandidate(root, attribute)
            case _:
                continue
        origin = aliases.get(candidate.root)
        if origin is not None:
            if _origin_blocks(origin, candidate.attribute):
                return True, ()
        elif candidate.root not in bound:
            candidates[candidate] = None
    return False, tuple(candidates)


def _called(body: list[ast.stmt]) -> tuple[list[ast.expr], bool]:
    """What is called anywhere, and whether there is an async function.

    But for the bodies of async functions: what blocks in there is no thread's job.
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
        todo += _children(node)
    return calls, has_async_def


def _attribute_root(node: ast.Attribute) -> str | None:
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else None


def _origin_blocks(origin: str, attribute: str) -> bool:
    """Whether calling `attribute` of what was imported as `origin` (or `origin` itself) blocks."""
    module, _, name = origin.rpartition(".")
    called = attribute or name
    if called not in BLOCKING_IO_CALLS:
        return False
    return _root(module if not attribute and module else origin) in _MODULES_WITH_BLOCKING_CALLS


def resolves_to_blocking(candidate: BlockingCandidate, namespace: Mapping[str, object]) -> bool:
    """Decide a candidate by what its root name is bound to now.

    No attribute of the user's objects is evaluated: only types and modules are looked at.
    """
    root, attribute = candidate
    missing = object()
    value = namespace.get(root, missing)
    if value is missing:
        return not attribute and root in _BUILTIN_CALLS
    if isinstance(value, ModuleType):
        name = _root(value.__name__)
        if name in BLOCKING_IO_MODULES:
            return True
        return attribute in BLOCKING_IO_CALLS and name in _MODULES_WITH_BLOCKING_CALLS
    origin = _root(type(value).__module__)
    if attribute:
        if origin in BLOCKING_IO_MODULES:
            return True
        return attribute in BLOCKING_IO_CALLS and origin in _MODULES_WITH_BLOCKING_CALLS
    home = value.__module__ if isinstance(value, _FUNCTION_TYPES) else None
    if not isinstance(home, str):
        return False
    if _root(home) in BLOCKING_IO_MODULES:
        return True
    return root in BLOCKING_IO_CALLS and _root(home) in _MODULES_WITH_BLOCKING_CALLS


_FUNCTION_TYPES: Final = (type(analyze), type(len), type)
