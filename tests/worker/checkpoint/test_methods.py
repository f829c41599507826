# ruff: noqa: E501, ISC004 - a program a line reads best
"""Bound methods come back as the function and the object they had."""

import pytest

from tests.helpers.checkpoint_namespaces import Worker

METHODS = {
    "a registry of class methods": (
        "class R:\n    @classmethod\n    def make(cls): return 1\nR.table = {'make': R.make}\nr = R()",
        "R.table['make'](), type(r) is R",
    ),
    "a default handler": ("class R:\n    @classmethod\n    def make(cls): return 1\nR.default = R.make", "R.default()"),
    "a registry of subclasses": (
        "class Base:\n    reg = {}\n    def __init_subclass__(cls, **k): Base.reg[cls.__name__] = cls.build\n"
        "class A(Base):\n    @classmethod\n    def build(cls): return cls()\na = A()",
        "type(Base.reg['A']()) is A, type(a) is A",
    ),
    "a partial of a class method": (
        "import functools\nclass R:\n    @classmethod\n    def make(cls, k): return k\n"
        "R.two = functools.partial(R.make, 2)",
        "R.two()",
    ),
    "an instance's method in its class": (
        "class R:\n    def go(self): return 7\nR.one = R()\nR.go_one = R.one.go", "R.go_one(), R.go_one.__self__ is R.one",
    ),
    "a member's method in its enum": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n    def go(self): return self.name\nE.handler = E.A.go", "E.handler()",
    ),
    "an object's own method": (
        "class R:\n    def __init__(self): self.cb = self.go\n    def go(self): return 5\nr = R()", "r.cb(), r.cb.__self__ is r",
    ),
    "a class with __getattr__": (
        "class R:\n    def __init__(self): self.d = {}; self.cb = self.go\n    def go(self): return 5\n"
        "    def __getattr__(self, n):\n        return self.d[n]\nr = R()",
        "r.cb()",
    ),
    "a deleted name": ("class R:\n    def go(self): return 5\nr = R(); m = r.go\ndel R.go", "m()"),
    "an attribute in front of it": (
        "class R:\n    def go(self): return 5\nr = R(); m = r.go\nr.go = lambda: 'other'", "m(), r.go()",
    ),
    "a decorated method": (
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a) + 1\n    return w\n"
        "class R:\n    @deco\n    def go(self): return 5\nr = R(); m = r.go",
        "m()",
    ),
    "a private name": (
        "class R:\n    def __secret(self): return 5\n    def __init__(self): self.cb = self.__secret\nr = R()", "r.cb()",
    ),
    "a parent's method": (
        "class A:\n    def go(self): return 'A'\nclass B(A):\n    def go(self): return 'B'\n"
        "    def parent(self): return super().go\nb = B(); m = b.parent()",
        "m(), b.go(), m.__self__ is b",
    ),
    "made by hand": (
        "import types\ndef go(self): return self.v\nclass R: v = 3\nr = R(); r.go = types.MethodType(go, r); del go", "r.go()",
    ),
    "a library's method": (
        "import logging, collections\nm = logging.getLogger('x').info.__func__\nu = collections.Counter('ab').most_common", "u()",
    ),
    "a builtin's": ("d = {'a': 1}; get = d.get; join = ','.join; up = str.upper", "d.update(b=2), get('b'), join('ab'), up('x')"),
    "of an object that the class holds": (
        "class R:\n    def __init__(self): self.v = 1; R.all.append(self.go)\n    all = []\n    def go(self): return self.v\n"
        "r = R(); r.v = 9",
        "R.all[0](), R.all[0].__self__ is r",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", METHODS)
def test_a_bound_method_is_the_one_it_was(kind: str) -> None:
    program, look = METHODS[kind]
    expected = Worker(program).value(look)
    worker = Worker(program)
    worker.take()
    assert worker.reborn().value(look) == expected
