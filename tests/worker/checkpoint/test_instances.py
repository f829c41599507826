# ruff: noqa: E501, ISC004 - a program a line reads best
"""Objects of the session's classes that plain pickle saves, and then cannot load."""

import pytest

from tests.helpers.checkpoint_namespaces import Worker

OBJECTS = {
    "a proxy": (
        "class P:\n    def __init__(self, t): self._t = t\n    def __getattr__(self, n): return getattr(self._t, n)\np = P([1])",
        "p._t, p.count(1)",
    ),
    "a proxy that compares": (
        "class P:\n    def __init__(self, t): self._t = t\n    def __getattr__(self, n): return getattr(self._t, n)\n"
        "    def __eq__(self, o): return self._t == o._t\n    def __hash__(self): return hash(self._t)\n"
        "p = P('x'); s = {p}; p.home = s",
        "p in s, p.home is s, list(s)[0] is p",
    ),
    "keyword-only arguments of __new__": (
        "class K:\n    def __new__(cls, *, size): k = super().__new__(cls); k.size = size; return k\nk = K(size=3)", "k.size",
    ),
    "more arguments than the base has": (
        "class M(float):\n    def __new__(cls, value, unit): m = super().__new__(cls, value); m.unit = unit; return m\nm = M(2.5, 'kg')",
        "m, m.unit, type(m) is M",
    ),
    "an object inside its own set": (
        "class N:\n    def __init__(self, n): self.n = n; self.peers = {self}\n    def __hash__(self): return hash(self.n)\n"
        "    def __eq__(self, o): return self.n == o.n\nn = N(5)",
        "n in n.peers, len(n.peers), list(n.peers)[0] is n",
    ),
    "an object that is a key in itself": (
        "class N:\n    __slots__ = 'name', 'table'\n    def __init__(self, n): self.name = n; self.table = {self: 1}\n"
        "    def __hash__(self): return hash(self.name)\nn = N('a'); t = n.table",
        "n.table[n], t is n.table",
    ),
    "a frozen dataclass in its own set": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass F:\n    a: int\n    b: tuple\n    own: set = dataclasses.field(default_factory=set, compare=False)\n"
        "f = F(1, ('x',)); f.own.add(f)",
        "f in f.own, [*vars(f)]",
    ),
    "an attribute that may not be set": (
        "class S:\n    __slots__ = ('v',)\n    def __setattr__(self, n, v): raise TypeError(n)\ns = S(); object.__setattr__(s, 'v', [1])",
        "s.v",
    ),
    "a list with a hash": (
        "class L(list):\n    def __hash__(self): return hash(self.name)\nl = L([1, 2]); l.name = 'n'; s = {l}; l.append(s)",
        "l[:2], l[2] is s, l in s",
    ),
    "a class with __getattribute__": (
        "class G:\n    def __init__(self): self.x = 1\n    def __getattribute__(self, n):\n"
        "        return object.__getattribute__(self, n)\ng = G()",
        "g.x",
    ),
    "a class of no module": (
        "class O:\n    def __init__(self): self.x = [1]\nO.__module__ = None\no = O(); p = o.x; E = type('E', (ValueError,), {'__module__': None})",
        "o.x, p is o.x, type(o) is O, O.__module__, issubclass(E, ValueError)",
    ),
    "a class whose module is no name": (
        "class O:\n    __module__ = ['x']\n    def __init__(self): self.x = [1]\no = O(); p = o.x",
        "o.x, p is o.x, type(o) is O, O.__module__",
    ),
    "a function of no module": ("def f(): return 3\nf.__module__ = None\ng = f", "f(), f.__module__, g is f"),
    "a metaclass that tells no module": (
        "class M(type):\n    @property\n    def __module__(cls): raise RuntimeError('no')\nclass O(metaclass=M):\n    x = 3\no = O()",
        "o.x, type(o) is O",
    ),
    "a tuple with its own __new__": (
        "class T(tuple):\n    def __new__(cls, a, b): return super().__new__(cls, (a, b))\nt = T(1, [2]); u = t[1]", "t, type(t) is T, u is t[1]",
    ),
}  # fmt: skip


SILENT = {
    "attributes": "class M(type):\n    def __getattribute__(cls, name): raise RuntimeError('no')",
    "a hash": "class M(type):\n    def __hash__(cls): raise RuntimeError('no')",
}


@pytest.mark.parametrize("what", SILENT)
def test_a_class_whose_metaclass_refuses_costs_its_own_names_alone(what: str) -> None:
    worker = Worker(f"{SILENT[what]}\nclass O(metaclass=M): pass\no = O()\nkept = [1]")
    saved = worker.take()
    assert {"o"} <= {each.name for each in saved.unsaved} <= {"o", "O"}
    other = Worker()
    other.store = worker.store
    other.restore(saved)
    assert other.value("kept") == [1]


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_comes_back(kind: str) -> None:
    program, look = OBJECTS[kind]
    expected = Worker(program).value(look)
    worker = Worker(program)
    worker.take()
    got = worker.reborn().value(look)
    assert repr(got) == repr(expected)


def test_an_exception_keeps_what_it_was_raised_from() -> None:
    worker = Worker(
        "try:\n"
        "    try: 1 / 0\n"
        "    except ZeroDivisionError as zero:\n"
        "        cause = zero\n"
        "        raise KeyError('k') from zero\n"
        "except KeyError as raised: error = raised; error.add_note('look'); error.seen = [1]\n"
        "class Own(Exception):\n"
        "    def __init__(self, a, *, b): super().__init__(a); self.b = b\n"
        "try:\n"
        "    try: raise error\n"
        "    except KeyError: raise Own(1, b=2)\n"
        "except Own as raised: own = raised\n"
        "group = ExceptionGroup('both', [error, own])\n"
    )
    worker.take()
    again = worker.reborn()
    assert again.value("error.__cause__ is cause, error.__suppress_context__, error.__notes__, error.seen") == (
        True, True, ["look"], [1],
    )  # fmt: skip
    assert again.value("own.__context__ is error, own.__cause__, own.b, own.__suppress_context__") == (
        True,
        None,
        2,
        False,
    )
    assert again.value("group.exceptions[0] is error, group.exceptions[1] is own") == (True, True)


def test_objects_that_share_nothing_are_saved_apart() -> None:
    worker = Worker(
        "class P:\n    def __getattr__(self, n): raise AttributeError(n)\n"
        "a = P(); a.v = bytes(100_000); b = P(); b.v = 1"
    )
    worker.take()
    worker.run("b.v = 2")
    assert sum(map(len, worker.take().blobs.values())) < 1_000
