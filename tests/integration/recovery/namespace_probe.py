"""Describes a namespace and its process from within a worker, and imports nothing of pyrepl3.

Each name has its own text. An object that was met before is named by the path where it was met first, so
texts differ where names share what they did not share.
"""

# It looks at whatever there is:
# pyright: basic
import contextlib
import decimal
import io
import json
import locale
import logging
import os
import random
import sys
import warnings
from typing import Any

_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented))
_TEXT_SAYS_IT = {
    "datetime",
    "decimal",
    "fractions",
    "pathlib",
    "uuid",
    "re",
    "zoneinfo",
    "struct",
    "ipaddress",
}
_OWN_DETAILS = {
    "__slotnames__",
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__firstlineno__",
    "__static_attributes__",
}
_NOT_A_VALUE = {
    "_abc_impl",
    "_loop",
    "_cached_axes",
    "__pydantic_core_schema__",
    "__pydantic_parent_namespace__",
}


def write(namespace: dict[str, Any], target: str, without: list[str], midway: str) -> None:
    """Write the descriptions of all names but those `without`, and of the process, as JSON."""
    probe = Probe()
    said: dict[str, Any] = {}
    for name in sorted(namespace):
        if not name.startswith("_") and name not in {*without, midway, "In", "Out"}:
            said[name] = probe.describe(namespace[name], name)
    said |= {f"({name})": text for name, text in process().items()}
    with open(target, "w", encoding="utf-8") as file:
        file.write(json.dumps(said, default=repr))


def process() -> dict[str, Any]:
    """Describe what code sets in its process."""
    state: dict[str, Any] = {
        "cwd": os.getcwd(),
        "environ": sorted(os.environ.items()),
        "path": sys.path,
        "recursion limit": sys.getrecursionlimit(),
        "random": hash(random.getstate()),
        "decimal": repr(decimal.getcontext()),
        "warnings": [(each[0], repr(each[2])) for each in warnings.filters],
        "log level": logging.getLogger().level,
        "locale": locale.setlocale(locale.LC_ALL),
    }
    modules = sys.modules
    if numpy := modules.get("numpy"):
        state["numpy random"] = repr(numpy.random.get_state())
        state["numpy print"] = repr(numpy.get_printoptions())
        state["numpy errors"] = repr(numpy.geterr())
    if pandas := modules.get("pandas"):
        shown = ("display.max_rows", "display.precision", "display.width", "mode.copy_on_write")
        for option in shown:
            with contextlib.suppress(KeyError):
                state[f"pandas {option}"] = repr(pandas.get_option(option))
    if matplotlib := modules.get("matplotlib"):
        state["rcParams"] = sorted((key, repr(value)) for key, value in matplotlib.rcParams.items())
    if pyplot := modules.get("matplotlib.pyplot"):
        state["figures"] = pyplot.get_fignums()
    return state


class Probe:
    """One walk through a namespace."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._kept: list[Any] = []  # so that no id is given twice

    def describe(self, value: Any, path: str, depth: int = 0) -> Any:
        """Return what is comparable of a value: JSON that another process makes of an equal one."""
        if type(value) in _ATOMS:
            return repr(value)
        if type(value) is tuple and all(type(item) in _ATOMS for item in value):
            return repr(value)
        if id(value) in self._paths:
            return f"-> {self._paths[id(value)]}"
        kind = type(value)
        if depth > 60:
            return f"... {kind.__qualname__}"
        self._paths[id(value)] = path
        self._kept.append(value)
        said = self._parts(value, kind, kind.__module__, path, depth + 1)
        return [self._type(kind), said]

    def _type(self, kind: type) -> str:
        if kind.__module__ == "__main__":  # two classes of one name are two
            return f"{kind.__qualname__} -> {self._paths.get(id(kind), 'elsewhere')}"
        return f"{kind.__module__}.{kind.__qualname__}"

    def _parts(self, value: Any, kind: type, module: str, path: str, depth: int) -> Any:
        library = module.partition(".")[0]
        name = kind.__name__

        def inner(part: Any, step: str) -> Any:
            return self.describe(part, path + step, depth)

        if library in _LIBRARIES and (said := _LIBRARIES[library](value, inner)) is not None:
            return said
        if module in _TEXT_SAYS_IT or library in _TEXT_SAYS_IT:
            return repr(value)
        if _is(value, type):
            return self._class(value, inner)
        match name:
            case "module":
                return str(value.__name__)
            case "Logger" | "RootLogger":
                return [value.name, value.level, [repr(each) for each in value.handlers]]
            case "ThreadPoolExecutor":
                return value._max_workers
            case "_local":
                return inner(vars(value), ".__dict__")
            case "function":
                return self._function(value, inner)
            case "method":
                return [inner(value.__func__, ".__func__"), inner(value.__self__, ".__self__")]
            case "builtin_function_or_method":
                owner = value.__self__
                return [
                    value.__name__,
                    owner.__name__ if type(owner).__name__ == "module" else inner(owner, ".__self__"),
                ]
            case "partial":
                return [
                    inner(value.func, ".func"),
                    inner(value.args, ".args"),
                    inner(value.keywords, ".keywords"),
                ]
            case "_lru_cache_wrapper":
                return [inner(value.__wrapped__, ".__wrapped__"), repr(value.cache_parameters())]
            case "ReferenceType" | "weakref":
                return inner(value(), "()")
            case "generator":
                frame = value.gi_frame
                return None if frame is None else [frame.f_lasti, inner(dict(frame.f_locals), ".f_locals")]
            case "Random":
                return hash(value.getstate())
            case "lock" | "RLock":
                return " locked " in repr(value)
            case "property":
                return inner(value.fget, ".fget")
            case "staticmethod" | "classmethod":
                return inner(value.__func__, ".__func__")
            case _:
                pass
        if _is(value, io.IOBase):
            return _file(value)
        said = []
        if _is(value, dict):
            said.append(
                [
                    [inner(key, f".key{n}"), inner(item, f"[{key!r:.40}]")]
                    for n, (key, item) in enumerate(value.items())
                ]
            )
        elif _is(value, set) or _is(value, frozenset):
            said.append(
                sorted(
                    repr(item) if type(item) in _ATOMS else json.dumps(inner(item, "{}"), default=repr)
                    for item in value
                )
            )
        elif _is(value, list) or _is(value, tuple) or name == "deque":
            said.append([inner(item, f"[{n}]") for n, item in enumerate(value)])
        elif _is(value, (*_ATOMS, bytearray)):
            said.append(repr(value))
        own = getattr(value, "__dict__", None)
        if own is not None:
            said.append(
                [[key, inner(item, f".{key}")] for key, item in own.items() if key not in _NOT_A_VALUE]
            )
        for base in kind.__mro__:
            for slot in base.__dict__.get("__slots__", ()):
                if hasattr(value, slot) and slot not in {"__dict__", "__weakref__"}:
                    said.append([slot, inner(getattr(value, slot), f".{slot}")])
        if not said and " at 0x" not in repr(value):
            said.append(repr(value))
        return said

    def _class(self, value: Any, inner: Any) -> Any:
        if value.__module__ != "__main__":
            return f"{value.__module__}.{value.__qualname__}"
        own = [
            [key, inner(item, f".{key}")]
            for key, item in sorted(vars(value).items())
            if key not in _OWN_DETAILS | _NOT_A_VALUE
            and not key.startswith(("__pydantic", "__private", "__signature__", "__abstract", "_sa_"))
            and type(item).__name__ not in {"getset_descriptor", "member_descriptor", "InstrumentedAttribute"}
        ]
        return [value.__qualname__, [inner(base, f".base{n}") for n, base in enumerate(value.__bases__)], own]

    def _function(self, value: Any, inner: Any) -> Any:
        if value.__module__ != "__main__":
            return f"{value.__module__}.{value.__qualname__}"
        cells = value.__closure__ or ()
        held = [inner(cell.cell_contents, f".cell{n}") for n, cell in enumerate(cells) if _filled(cell)]
        extra = {key: item for key, item in vars(value).items() if key != "__wrapped__"}
        return [
            value.__qualname__,
            value.__code__.co_code.hex(),
            inner(value.__defaults__, ".__defaults__"),
            inner(value.__kwdefaults__, ".__kwdefaults__"),
            held,
            inner(extra, ".__dict__"),
        ]


def _is(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds)


def _filled(cell: Any) -> bool:
    try:
        return bool((cell.cell_contents, True)[1])
    except ValueError:
        return False


def _file(value: Any) -> Any:
    if value.closed:
        return "closed"
    if hasattr(value, "getvalue"):
        return [repr(value.getvalue()), value.tell()]
    return [
        str(value.name),
        value.mode.replace("w", "r+").replace("++", "+"),
        value.seekable() and value.tell(),
        getattr(value, "encoding", None),
    ]


_BUFFERS: dict[int, tuple[int, int]] = {}


def _numpy(value: Any, inner: Any) -> Any:
    if hasattr(value, "bit_generator"):
        return repr(value.bit_generator.state)
    if type(value).__name__ not in {"ndarray", "memmap"}:
        return repr(value) if " at 0x" not in repr(value) else None
    root: Any = value
    while type(root.base) is type(value):
        root = root.base
    start = value.__array_interface__["data"][0]
    where, first = _BUFFERS.setdefault(id(root), (len(_BUFFERS), start))
    # What lies in one buffer, and where in it. The stride of a dimension of one has no meaning.
    strides = [step for step, length in zip(value.strides, value.shape, strict=True) if length != 1]
    view = [where, start - first, strides]
    content = (
        [inner(each, f"[{n}]") for n, each in enumerate(value.flat)]
        if value.dtype.hasobject
        else value.tobytes().hex()
    )
    return [str(value.dtype), value.shape, value.flags.writeable, content, view]


def _pandas(value: Any, inner: Any) -> Any:
    kind = type(value).__name__
    if kind == "DataFrame":
        columns = [
            inner(value.iloc[:, n].reset_index(drop=True).tolist(), f".{n}") for n in range(value.shape[1])
        ]
        return [
            [str(each) for each in value.columns],
            [str(each) for each in value.dtypes],
            repr(value.index.tolist()),
            repr(value.index.names),
            columns,
            repr(value.attrs),
        ]
    if kind == "Series":
        return [
            str(value.dtype),
            repr(value.name),
            repr(value.index.tolist()),
            inner(value.tolist(), ".values"),
        ]
    if kind.endswith("GroupBy"):
        return repr({key: list(each) for key, each in value.groups.items()})
    return repr(value) if " at 0x" not in repr(value) else None


def _matplotlib(value: Any, inner: Any) -> Any:
    if type(value).__name__ == "Figure":
        return [inner(axes, f".axes[{n}]") for n, axes in enumerate(value.axes)] + [
            value.get_size_inches().tolist(),
            value.get_suptitle(),
        ]
    if hasattr(value, "get_lines") and hasattr(value, "patches"):
        lines = [inner(line, f".lines[{n}]") for n, line in enumerate(value.get_lines())]
        return [
            value.get_title(),
            value.get_xlabel(),
            value.get_ylabel(),
            value.get_xlim(),
            len(value.patches),
            lines,
        ]
    if hasattr(value, "get_xydata"):
        return [value.get_xydata().tolist(), value.get_label(), str(value.get_color())]
    return repr(value) if " at 0x" not in repr(value) else []


def _sympy(value: Any, inner: Any) -> Any:
    return sys.modules["sympy"].srepr(value) if hasattr(value, "free_symbols") else None


def _networkx(value: Any, inner: Any) -> Any:
    if not hasattr(value, "adj"):
        return None
    nodes = [[repr(node), inner(data, f".nodes[{node!r}]")] for node, data in value.nodes(data=True)]
    edges = [[repr(edge[:2]), inner(edge[2], f".edges[{edge[:2]!r}]")] for edge in value.edges(data=True)]
    return [nodes, edges, inner(value.graph, ".graph")]


def _sqlite3(value: Any, inner: Any) -> Any:
    if type(value).__name__ == "Cursor":
        return inner(value.connection, ".connection")
    if type(value).__name__ == "Row":
        return repr(tuple(value))
    if not hasattr(value, "iterdump"):
        return None
    rows = value.row_factory
    value.row_factory = None
    try:
        return [
            list(value.iterdump()),
            value.in_transaction,
            value.isolation_level,
            inner(rows, ".row_factory"),
        ]
    finally:
        value.row_factory = rows


def _duckdb(value: Any, inner: Any) -> Any:
    if not hasattr(value, "cursor"):
        return repr(value)
    tables = [row[0] for row in value.execute("select table_name from duckdb_tables() order by 1").fetchall()]
    return [[table, value.execute(f"select * from {table}").fetchall()] for table in tables]


def _sqlalchemy(value: Any, inner: Any) -> Any:
    if type(value).__name__ != "Engine":
        return [] if " at 0x" in repr(value) else repr(value)
    library = sys.modules["sqlalchemy"]
    with value.connect() as connection:
        tables = sorted(library.inspect(connection).get_table_names())
        found = [
            [table, repr(connection.execute(library.text(f"select * from {table}")).all())]
            for table in tables
        ]
    return [str(value.url), found]


def _sklearn(value: Any, inner: Any) -> Any:
    if hasattr(value, "__dict__") or not hasattr(value, "__getstate__"):
        return None
    return repr(value.__getstate__())


_LIBRARIES = {
    "numpy": _numpy,
    "pandas": _pandas,
    "matplotlib": _matplotlib,
    "sympy": _sympy,
    "networkx": _networkx,
    "sqlite3": _sqlite3,
    "duckdb": _duckdb,
    "_duckdb": _duckdb,
    "sqlalchemy": _sqlalchemy,
    "sklearn": _sklearn,
}
