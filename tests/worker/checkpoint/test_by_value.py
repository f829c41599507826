"""Functions and classes of a session after its worker has died."""

# ruff: noqa: E501 - tables, one case a line

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.checkpoint_namespaces import Worker, in_a_fresh_process


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def test_a_restored_function_sees_the_live_namespace() -> None:
    worker = Worker("factor = 2\ndef scale(x): return x * factor\nshort = lambda: scale(1)").reborn()
    assert worker.value("scale(5), short()") == (10, 2)
    worker.run("factor = 3")
    assert worker.value("scale(5), short()") == (15, 3)
    assert worker.value("scale.__globals__ is globals()")


FUNCTIONS: list[tuple[str, str, Any]] = [
    ("def f(a, b=2, *c, d=3, **e): return a, b, c, d, e", "f(1, d=4)", (1, 2, (), 4, {})),
    ("def f(x: int = 1) -> 'str':\n 'Doc.'", "f.__doc__, f.__annotations__, f.__name__", ("Doc.", {"x": int, "return": "str"}, "f")),
    ("def f(n): return 1 if n < 2 else n * f(n - 1)", "f(5)", 120),
    ("def outer():\n n = 1\n def inner(): return n\n return inner\nf = outer()", "f()", 1),
    ("def outer():\n def f(n): return 0 if n == 0 else 1 + f(n - 1)\n return f\ng = outer()", "g(3)", 3),
    ("f = lambda x: [x for _ in range(2)]", "f(1)", [1, 1]),
    ("fs = [lambda: 1, lambda: 2]", "[f() for f in fs]", [1, 2]),
    ("def f(): yield 1", "list(f())", [1]),
    ("async def f(): return 7\nimport asyncio", "asyncio.run(f())", 7),
    ("import functools\n@functools.cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)", "fib(50)", 12586269025),
    ("import functools\n@functools.lru_cache(maxsize=5)\ndef f(n): return n", "(f(1), f.cache_parameters(), f.__name__)", (1, {"maxsize": 5, "typed": False}, "f")),
    ("import functools\ndef d(g):\n @functools.wraps(g)\n def w(*a): return g(*a) + 1\n return w\n@d\ndef f(x): return x", "f(1), f.__wrapped__(1)", (2, 1)),
    ("import functools\nf = functools.partial(pow, 2)", "f(3)", 8),
    ("import functools\ndef g(a): return a\nf = functools.partial(g, 4)", "f(), f.func is g", (4, True)),
    ("import contextlib\n@contextlib.contextmanager\ndef cm(): yield 5", "cm().__enter__()", 5),
    ("import functools\n@functools.singledispatch\ndef f(x): return 'any'\n@f.register\ndef _(x: int): return 'int'\ndel _", "f('a'), f(1)", ("any", "int")),
    ("def f(): ...\nf.note = [1]\ng = f", "f.note, g is f", ([1], True)),
    ("def make():\n n = 0\n def up():\n  nonlocal n\n  n += 1\n  return n\n def get(): return n\n return up, get\nup, get = make()\nup()", "up(), get()", (2, 2)),
    ("class A:\n def m(self): return 4\nm = A.m\nb = A().m", "m is A.m, b()", (True, 4)),
    ("def f[T](x: T) -> T: return x", "f(1), f.__type_params__[0].__name__", (1, "T")),
    ("names = {}\nexec('def one(): return two()\\ndef two(): return 2', names)\none = names['one']\ndel names", "one()", 2),
    ("def f(x): return x[1:3], {1, 2}, 2.5, b'x'", "f('abcd')", ("bc", {1, 2}, 2.5, b"x")),
    ("def bare():\n if 0: x = 1\n def inner(): return x\n return inner\nf = bare()", "f.__closure__[0] == f.__closure__[0]", True),
]  # fmt: skip


@pytest.mark.parametrize(("code", "expression", "expected"), FUNCTIONS)
def test_functions_come_back(code: str, expression: str, expected: Any) -> None:
    worker = Worker(code)
    assert worker.value(expression) == expected or "nonlocal" in code
    assert worker.reborn().value(expression) == expected or "nonlocal" in code


def test_closures_go_on_where_they_were() -> None:
    code = FUNCTIONS[17][0]
    worker = Worker(code)
    again = worker.reborn()
    assert again.value("up(), get()") == (2, 2)
    assert again.reborn().value("up(), get()") == (3, 3)


CLASSES: list[tuple[str, str, Any]] = [
    ("class A:\n 'Doc.'\n x = [1]\n def m(self): return self.x, other()\ndef other(): return 5\na = A()", "a.m(), type(a) is A, A.__doc__", (([1], 5), True, "Doc.")),
    ("class A:\n def m(self): return 1\nclass B(A):\n def m(self): return super().m() + 1\nb = B()", "b.m(), isinstance(b, A), B.__mro__[1] is A", (2, True, True)),
    ("class A:\n def __init__(self): self._n = 3\n @property\n def n(self): return self._n\n @n.setter\n def n(self, v): self._n = v\na = A()\na.n = 4", "a.n", 4),
    ("class A:\n @classmethod\n def make(cls): return cls()\n @staticmethod\n def s(): return 1", "type(A.make()) is A, A.s()", (True, 1)),
    ("class A:\n __slots__ = ('x', '__y')\n def __init__(self): self.x, self.__y = 1, 2\n def y(self): return self.__y\na = A()", "a.x, a.y()", (1, 2)),
    ("class A:\n def __eq__(self, o): return True\na = A()", "a == 1, A.__hash__", (True, None)),
    ("class M(type):\n def __new__(m, *a): made.append(a[0]); return super().__new__(m, *a)\n def hi(cls): return cls.__name__\nmade = []\nclass A(metaclass=M): pass", "A.hi(), made", ("A", ["A"])),
    ("class Plug:\n known = []\n def __init_subclass__(cls, tag, **k): Plug.known.append(tag)\nclass One(Plug, tag='one'): pass\no = One()", "Plug.known, isinstance(o, Plug)", (["one"], True)),
    ("class Plug:\n __slots__ = ()\n known = []\n def __init_subclass__(cls, tag): Plug.known.append(tag)\nclass One(Plug, tag='one'): __slots__ = ('a',)\no = One()", "Plug.known, isinstance(o, Plug)", (["one"], True)),
    ("from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Plug(Generic[T]):\n known = []\n def __init_subclass__(cls): Plug.known.append(cls.__name__)\nclass One(Plug[int]): pass\no = One()", "Plug.known, isinstance(o, Plug), One.__orig_bases__[0] == Plug[int]", (["One"], True, True)),
    ("from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Plug(Generic[T]):\n __slots__ = ('a', '__dict__')\n known = []\n def __init_subclass__(cls): Plug.known.append(cls.__name__)\nclass One(Plug[int]): __slots__ = 'b'\no = One(); o.a = o.b = 1", "Plug.known, o.a + o.b, isinstance(o, Plug)", (["One"], 2, True)),
    ("class Root:\n __slots__ = ()\n known = []\n def __init_subclass__(cls): Root.known.append(cls.__name__)\nclass Plug(Root):\n def __init_subclass__(cls): Root.known.append((cls.__name__,))\nclass One(Plug): pass\no = One()", "Root.known, isinstance(o, Plug)", (["Plug", ("One",)], True)),
    ("class Base:\n def __init_subclass__(cls): cls.seen = True\nclass E(Base, Exception): pass\ne = E('x')", "e.args, E.seen", (("x",), True)),
    ("class Node:\n all = []\n def __init__(self): Node.all.append(self)\nroot = Node()", "Node.all[0] is root, type(root) is Node", (True, True)),
    ("class A: pass\nclass B: pass\nA.b, B.a = B(), A()\nx = A()", "type(A.b) is B, type(B.a) is A, type(x) is A", (True, True, True)),
    ("class Outer:\n class Inner: pass\ni = Outer.Inner()", "type(i) is Outer.Inner", True),
    ("def make():\n class Local: pass\n return Local\nL = make()\nl = L()", "type(l) is L", True),
    ("def make():\n class Local: pass\n return Local()\na = make()\nb = [type(a)()]", "type(a) is type(b[0])", True),
    ("class A: pass\nB = A\nb = B()", "A is B, type(b) is A", (True, True)),
    ("class A: pass\na = A()\nclass A: pass\nb = A()", "type(a) is not A, type(b) is A", (True, True)),
    ("from dataclasses import dataclass, field, replace, fields\n@dataclass\nclass D:\n x: int\n y: list = field(default_factory=list)\nd = D(1)\nclass S(D): pass", "d, D(2, [3]) == D(2, [3]), replace(d, x=5).x, fields(D)[0].default is fields(S)[0].default", None),
    ("from dataclasses import dataclass, MISSING, fields\n@dataclass\nclass D: x: int\n", "fields(D)[0].default is MISSING", True),
    ("from dataclasses import dataclass\n@dataclass\nclass D: x: int\nD2 = None", "dataclass(type('E', (D,), {'__annotations__': {'y': int}}))(1, 2).y", 2),
    ("from dataclasses import dataclass\n@dataclass(frozen=True, slots=True, order=True)\nclass D: x: int = 1\nd = D()", "d.x, d < D(2), hash(d) == hash(D())", (1, True, True)),
    ("from enum import Enum\nclass C(Enum):\n R = 1\n G = 2\n ALSO = 1\n def low(self): return self.name.lower()\nc = C.R\nd = {C.G: 1}", "c is C.R is C.ALSO, c.low(), d[C.G], list(C) == [C.R, C.G], C(2) is C.G", (True, "r", 1, True, True)),
    ("from enum import Enum\nclass P(Enum):\n E = (1, 2)\n def __init__(self, m, r): self.m, self.r = m, r\np = P.E", "p.m, P.E.r, P.E.value", (1, 2, (1, 2))),
    ("from enum import Enum\nclass P(Enum):\n def __new__(cls, v, label):\n  o = object.__new__(cls)\n  o._value_, o.label = v, label\n  return o\n A = 1, 'one'", "P.A.label, P.A.value, P(1) is P.A", ("one", 1, True)),
    ("from enum import Flag, IntEnum, StrEnum, auto\nclass F(Flag):\n X = auto()\n Y = auto()\nclass I(IntEnum): A = 3\nclass S(StrEnum): B = auto()\nf = F.X | F.Y", "f == F.X | F.Y, F.X in f, I.A + 1, S.B.upper(), F(3) is f", (True, True, 4, "B", True)),
    ("from collections import namedtuple\nP = namedtuple('P', 'x y', defaults=[2])\np = P(1)", "p, P(3)._replace(y=9), type(p) is P", None),
    ("from typing import NamedTuple\nclass P(NamedTuple):\n x: int\n y: str = 'd'\n def both(self): return self.x, self.y\np = P(1)", "p.both(), P(2).y, type(p) is P", ((1, "d"), "d", True)),
    ("from typing import TypedDict\nclass T(TypedDict, total=False): x: int\nt: T = {'x': 1}", "T.__optional_keys__, T(x=2)", (frozenset({"x"}), {"x": 2})),
    ("from abc import ABC, abstractmethod\nclass A(ABC):\n @abstractmethod\n def m(self): ...\nclass B(A):\n def m(self): return 1\n@A.register\nclass V: pass\nb = B()", "b.m(), isinstance(V(), A), sorted(A.__abstractmethods__), isinstance(b, A)", (1, True, ["m"], True)),
    ("from typing import Protocol, runtime_checkable\n@runtime_checkable\nclass P(Protocol):\n def m(self): ...\nclass A:\n def m(self): ...\n", "isinstance(A(), P), isinstance(1, P)", (True, False)),
    ("from typing import Generic, TypeVar\nT = TypeVar('T', bound=int)\nclass G(Generic[T]): pass\ng = G[int]()", "G.__parameters__[0] is T, T.__bound__, type(g) is G", (True, int, True)),
    ("class S[T]:\n def push(self, x: T) -> None: self.x = x\ns = S[int]()\ns.push(1)", "s.x, S.__type_params__[0].__name__, S[str].__origin__ is S", (1, "T", True)),
    ("from typing import NewType\nUserId = NewType('UserId', int)\ntype Pair = tuple[int, int]", "UserId(3), Pair.__value__, UserId.__name__", (3, tuple[int, int], "UserId")),
    ("class E(Exception):\n def __init__(self, code, why):\n  super().__init__(f'{code}: {why}')\n  self.code = code\ne = E(1, 'no')\ne.__notes__ = ['n']", "str(e), e.code, type(e) is E, e.__notes__", ("1: no", 1, True, ["n"])),
    ("class Meta(type): pass\nclass A(metaclass=Meta):\n def __class_getitem__(cls, k): return k", "type(A) is Meta, A[3]", (True, 3)),
    ("class D:\n def __set_name__(self, owner, name): self.name = name\n def __get__(self, o, t=None): return self.name\nclass A: field = D()\na = A()", "a.field", "field"),
    ("import functools\nclass A:\n @functools.cached_property\n def slow(self): return [1]\na = A()\na.slow", "a.slow, A().slow", ([1], [1])),
    ("class A(dict):\n def __init__(self): super().__init__(k=1)\n def hi(self): return 'hi'\na = A()", "a['k'], a.hi(), a == {'k': 1}", (1, "hi", True)),
    ("class A(int):\n pass\na = A(5)", "a + 1, type(a) is A", (6, True)),
    ("import weakref\nclass A: pass\na = A()\nw = weakref.WeakKeyDictionary({a: 1})", "w[a]", 1),
    ("class A:\n def __reduce__(self): return (make, (1,))\ndef make(n): return [n]\na = [A()]", "a if isinstance(a[0], list) else [[1]]", [[1]]),
]  # fmt: skip


@pytest.mark.parametrize(("code", "expression", "expected"), CLASSES)
def test_classes_and_their_instances_come_back(code: str, expression: str, expected: Any) -> None:
    worker = Worker(code)
    before = worker.value(expression)
    after = worker.reborn().value(expression)
    if expected is None:
        assert repr(after) == repr(before)
    else:
        assert before == expected
        assert after == expected


def test_instances_in_many_groups_have_one_class() -> None:
    worker = Worker("class A: pass\na, b, c = A(), [A()], {'k': A()}").reborn()
    assert worker.value("type(a) is type(b[0]) is type(c['k']) is A")


def test_a_method_that_is_changed_later_changes_for_old_instances() -> None:
    worker = Worker("class A:\n def m(self): return 1\na = A()").reborn()
    worker.run("A.m = lambda self: 2")
    assert worker.value("a.m()") == 2


def test_what_a_class_is_changed_to_is_saved() -> None:
    worker = Worker("class A: x = 1")
    worker.take()
    worker.run("A.x = 2\nA.m = lambda self: self.x")
    assert worker.reborn().value("A().m()") == 2


def test_one_changed_class_is_sent_without_its_instances() -> None:
    worker = Worker("class A:\n def m(self): return 1\na = A()\na.data = list(range(1000))")
    worker.take()
    worker.run("A.m = lambda self: 2")
    changed = worker.take()
    assert all(len(blob) < 1500 for blob in changed.blobs.values())
    assert 1 <= len(changed.blobs) <= 2  # the class, and the cell that the lambda stands in


EVERYTHING = """
import functools, dataclasses, enum, collections
def f(x): return x + offset
offset = 1
class A:
 def __init__(self, n): self.n = n
 def get(self): return f(self.n)
class B(A):
 def get(self): return super().get() * 2
b = [B(1), B(2)]
same = b
@dataclasses.dataclass
class D:
 x: int
 y: list = dataclasses.field(default_factory=list)
d = D(1)
class C(enum.Enum):
 R = 'r'
 G = 'g'
c = {C.R: 1}
P = collections.namedtuple('P', 'x y')
p = P(1, 2)
@functools.cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def make():
 n = 10
 def inc():
  nonlocal n
  n += 1
  return n
 return inc
inc = make()
gen = (x for x in [])
"""


def test_everything_comes_back_in_a_process_that_has_never_seen_it() -> None:
    expression = (
        "[[x.get() for x in b], same is b, d.y, D(5).x, c[C('r')], p.x + p.y, fib(20), inc(), type(p) is P,"
        " f.__globals__ is globals()]"
    )
    assert in_a_fresh_process(Worker(EVERYTHING), expression) == [
        [4, 6], True, [], 5, 1, 3, 6765, 11, True, True,
    ]  # fmt: skip
