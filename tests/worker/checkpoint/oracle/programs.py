# ruff: noqa: E501 - a program a line reads best
"""Generates programs: cells that build graphs of objects out of all kinds of holders, and change them."""

from dataclasses import dataclass
from importlib.util import find_spec

from hypothesis import strategies as st

PRELUDE = """
import array, collections, dataclasses, decimal, enum, functools, random, threading, types, weakref
class Base:
    tags = []
    def me(self): return self
    @classmethod
    def cls(cls): return cls
class Proxy:
    def __init__(self, target): self.target = target
    def __getattr__(self, name): return getattr(self.target, name)
class Hashed:
    def __init__(self, tag): self.tag = tag; self.peers = {self}
    def __hash__(self): return hash(self.tag)
    def __eq__(self, other): return self.tag == other.tag
class Strict:
    def __new__(cls, *, v): self = super().__new__(cls); self.v = v; return self
@dataclasses.dataclass(frozen=True)
class Frozen:
    v: object
    tag: int = 0
Row = collections.namedtuple('Row', 'v'); Row.__module__ = '__main__'
def obj(v):
    o = Base(); o.v = v; return o
def default(v):
    def f(a=v, *, b=(v,)): return a
    return f
def noted(v):
    def f(): pass
    f.v = v
    return f
def closure(v):
    def get(): return v
    def put(new):
        nonlocal v
        v = new
    return [get, put]
def make_class(v):
    class Made(Base): at = v
    return Made
def registry(v):
    class Registry:
        at = v
        @classmethod
        def make(cls): return cls
    Registry.table = {'make': Registry.make}
    return Registry
def parent(v):
    class Child(Base):
        def me(self): return super().me
    c = Child(); c.v = v; return c.me()
def make_enum(v):
    class E(enum.Enum): A = [v]
    return E
def prop(v):
    class P: at = property(default(v)); st = staticmethod(default(v))
    return P
def caused(v):
    try:
        try: raise KeyError(1)
        except KeyError as cause: raise ValueError(v) from cause
    except ValueError as error: error.__traceback__ = error.__cause__.__traceback__ = None; return error
def viewed(v):
    m = {'k': v}; return [m, types.MappingProxyType(m)]
def weak(v):
    o = obj(v); return [o, weakref.ref(o)]
def pick(o, how=0):
    if isinstance(o, (list, tuple, collections.deque)) and len(o): return o[how % len(o)]
    if isinstance(o, dict) and o: return list(o.values())[how % len(o)]
    if isinstance(o, (set, frozenset)) and len(o) == 1: return next(iter(o))
    if isinstance(o, types.FunctionType):
        if o.__defaults__: return o.__defaults__[0]
        if o.__closure__: return o.__closure__[0].cell_contents
        return o.__dict__.get('v', o)
    if isinstance(o, types.MethodType): return (o.__self__, o.__func__)[how % 2]
    if isinstance(o, types.BuiltinFunctionType): return o.__self__
    if isinstance(o, functools.partial): return o.args[0]
    if isinstance(o, enum.Enum): return o.value
    if isinstance(o, types.MappingProxyType): return dict(o)
    if isinstance(o, weakref.ref): return o()
    if isinstance(o, BaseException): return (o.args and o.args[0], o.__cause__)[how % 2]
    if isinstance(o, type): return o.__dict__.get('at', o.__dict__.get('table', o))
    if type(o) is Proxy: return o.target
    if type(o).__module__ == '__main__': return getattr(o, 'v', type(o))
    return o
def change(o, n):
    if isinstance(o, (list, collections.deque)): o.append(n)
    elif isinstance(o, dict): o[n] = [n]
    elif isinstance(o, bytearray): o.append(n)
    elif isinstance(o, decimal.Context): o.prec = n + 1
    elif isinstance(o, random.Random): o.random()
    elif type(o).__name__ == 'ndarray': o[0] = n
    elif isinstance(o, (type, types.FunctionType)) and o.__module__ == '__main__': o.at = [n]
    elif isinstance(o, types.BuiltinFunctionType) and isinstance(o.__self__, list): o(n)
    elif isinstance(o, Base) or type(o) is Strict: o.v = [n]
"""
NUMPY = "import numpy\n" if find_spec("numpy") else ""

HOLDERS = [
    "[{}, {}]", "{{'k': {}, 1: {}}}", "({}, {})", "frozenset([obj({})])", "{{obj({})}}", "obj({})", "default({})",
    "noted({})", "closure({})", "functools.partial(sorted, {})", "Base().me", "obj({}).me", "Base.cls",
    "parent({})", "make_class({})", "make_class({})()", "registry({})", "registry({}).make", "make_enum({})",
    "make_enum({}).A", "prop({})", "ValueError({}, {})", "caused({})", "collections.deque([{}])",
    "collections.OrderedDict(k={})", "collections.defaultdict(list, k={})", "Row({})", "Frozen({})",
    "Strict(v={})", "Proxy({})", "types.SimpleNamespace(v={})", "viewed({})",
    "[{}].append", "{{'k': {}}}.get", "weak({})", "Hashed(3)", "iter([{}, 1])", "decimal.Context(prec=3)",
    "random.Random(1)", "bytearray(b'ab')", "threading.Lock()", "array.array('i', [1])", "type({})",
    "(lambda x: [x, x])({})",
]  # fmt: skip
ARRAYS = ["numpy.arange(4)", "(lambda a: [a, a[1:3]])(numpy.arange(6))"] if NUMPY else []
REDEFINE = "class Base(Base):\n    tags = [1]\n    def other(self): return 1"
CHECKPOINT = ""
"""Stands in a program's cells for a checkpoint."""


@dataclass(frozen=True)
class Program:
    """Cells, and checkpoints between them."""

    cells: tuple[str, ...]

    def __repr__(self) -> str:
        """Show it as a program to be read, without what all programs begin with."""
        return "\n".join(cell or "# checkpoint" for cell in self.cells[1:])


@st.composite
def expressions(draw: st.DrawFn, names: tuple[str, ...], depth: int = 0) -> str:
    """Give an expression that may share what earlier names hold."""
    if names and (depth > 2 or draw(st.integers(0, 2)) == 0):
        name = draw(st.sampled_from(names))
        for _ in range(draw(st.integers(0, 2))):
            name = f"pick({name}, {draw(st.integers(0, 1))})"
        return name
    if depth > 2:
        return draw(st.sampled_from(["[]", "{}", "[1]", "'x'", "()"]))
    holder = draw(st.sampled_from([*HOLDERS, *ARRAYS]))
    inner = [draw(expressions(names, depth + 1)) for _ in range(holder.replace("{{", "").count("{}"))]
    return holder.format(*inner)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Give a program with one to six checkpoints."""
    cells = [PRELUDE + NUMPY]
    names: list[str] = []
    for n in range(draw(st.integers(2, 10))):
        known = tuple(names)
        match draw(st.integers(0, 9)) if known else 0:
            case 0 | 1 | 2 | 3:
                names.append(f"n{n}")
                cells.append(f"n{n} = {draw(expressions(known))}")
            case 4 | 5:
                target = draw(st.sampled_from(known))
                for _ in range(draw(st.integers(0, 2))):
                    target = f"pick({target}, {draw(st.integers(0, 1))})"
                cells.append(f"change({target}, {n})")
            case 6:
                name = draw(st.sampled_from(known))
                names.remove(name)
                cells.append(f"del {name}")
            case 7:
                cells.append(REDEFINE)
            case _:
                if cells.count(CHECKPOINT) < 5:
                    cells.append(CHECKPOINT)
    # The last is what the worker that is killed leaves; then the next one goes on.
    after = draw(st.integers(0, min(3, len(cells) - 1)))
    cells.insert(len(cells) - after, CHECKPOINT)
    return Program(tuple(cells))
