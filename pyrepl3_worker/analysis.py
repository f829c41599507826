"""How a piece of code wants to be run: await and blocking detection on its syntax tree.

What depends on the namespace (is `sleep` here `time.sleep` or the user's own function?) is kept as
candidates and decided when the code runs, so that the rest can be cached.
"""

import ast
from collections.abc import Iterator, Mapping
from enum import Enum
from types import ModuleType
from typing import Final, NamedTuple


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

_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


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


def walk_own_scope(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    """Give the nodes that run in the code's own scope: not the bodies of functions and lambdas.

    Their decorators, defaults and (eager) annotations do run here, and so do class bodies, but an
    `await` in a class body is an error, as it is in a comprehension's own scope unless asynchronous.
    """
    todo: list[ast.AST] = list(reversed(nodes))
    while todo:
        node = todo.pop()
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                todo.extend(node.decorator_list)
                todo.extend(node.args.defaults)
                todo.extend(default for default in node.args.kw_defaults if default is not None)
            case ast.Lambda():
                todo.extend(node.args.defaults)
                todo.extend(default for default in node.args.kw_defaults if default is not None)
            case ast.GeneratorExp():
                # Only the outermost iterable is evaluated here; the rest is the generator's.
                todo.append(node.generators[0].iter)
            case _:
                todo.extend(ast.iter_child_nodes(node))


def has_top_level_await(tree: ast.Module) -> bool:
    """Whether the compiled code will be a coroutine (`CO_COROUTINE`)."""
    for node in walk_own_scope(tree.body):
        match node:
            case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                return True
            case ast.ListComp() | ast.SetComp() | ast.DictComp():
                if any(generator.is_async for generator in node.generators):
                    return True
            case _:
                pass
    return False


def analyze(tree: ast.Module) -> Analysis:
    """Read everything off a tree in one go."""
    own = list(walk_own_scope(tree.body))
    has_async_def = returns = yields = needs_loop_thread = False
    for node in own:
        match node:
            case ast.Return():
                returns = True
            case ast.Yield() | ast.YieldFrom():
                yields = True
            case ast.Name(id=name) if name in _LOOP_THREAD_MODULES:
                needs_loop_thread = True
            case ast.Call(func=ast.Name(id="create_task" | "get_running_loop" | "ensure_future")):
                needs_loop_thread = True
            case _:
                pass
    has_async_def = any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree))
    aliases = _imports(own)
    bound = _bound_names(own)
    blocking, candidates = _blocking_calls(tree, aliases, bound)
    return Analysis(
        awaits=has_top_level_await(tree),
        has_async_def=has_async_def,
        returns=returns,
        yields=yields,
        blocking=blocking,
        candidates=candidates,
        needs_loop_thread=needs_loop_thread,
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
    tree: ast.Module, aliases: dict[str, str], bound: frozenset[str]
) -> tuple[bool, tuple[BlockingCandidate, ...]]:
    if any(_root(origin) in BLOCKING_IO_MODULES for origin in aliases.values()):
        return True, ()
    candidates: dict[BlockingCandidate, None] = {}
    for function in _called(tree.body):
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


def _called(body: list[ast.stmt]) -> Iterator[ast.expr]:
    """What is called, but for the bodies of async functions: what blocks in there is no thread's job."""
    todo: list[ast.AST] = list(reversed(body))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Call):
            yield node.func
        todo.extend(ast.iter_child_nodes(node))


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
