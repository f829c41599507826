# ruff: noqa: E501, ISC004 - a program a line reads best
"""What two names share stays shared, through every kind of holder and at every checkpoint."""

import pytest

from tests.helpers.checkpoint_namespaces import Worker

HOLDERS = {
    "a tuple": ("p = ([], 'x'); a = {'k': p}; b = {'k': p}; del p", "a['k'][0].append(1); b['k'][0]", [1]),
    "a tuple with a name": ("p = ([], 'x'); a = [p]; b = [p]", "a[0][0].append(1); b[0][0], p[0]", ([1], [1])),
    "a named tuple": (
        "from collections import namedtuple\nRow = namedtuple('Row', 'tags')\nr = Row([]); a = {1: r}; b = {1: r}; del r",
        "a[1].tags.append('t'); b[1].tags", ["t"],
    ),
    "a dict's items": (
        "nodes = {'a': {'n': 0}}; a = list(nodes.items()); b = a[:]; del nodes",
        "a[0][1]['n'] += 1; b[0][1]", {"n": 1},
    ),
    "a frozenset": (
        "class O: n = 0\no = O(); fs = frozenset([o]); a = [fs]; b = [fs]; del o, fs",
        "next(iter(a[0])).n = 5; next(iter(b[0])).n", 5,
    ),
    "a frozen dataclass": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass F:\n    items: list\n"
        "f = F([]); a = [f]; b = [f]; del f",
        "a[0].items.append(1); b[0].items", [1],
    ),
    "a function's default": (
        "def g(x=[]): x.append(1); return x\na = [g]; b = [g]; del g", "a[0](); b[0].__defaults__", ([1],),
    ),
    "a partial": (
        "import functools\np = functools.partial(print, []); a = [p]; b = [p]; del p",
        "a[0].args[0].append(1); b[0].args", ([1],),
    ),
    "an enum's member": (
        "import enum\nclass E(enum.Enum): A = [1]\na = [E.A]; b = [E.A]; del E",
        "a[0].value.append(2); b[0].value, a[0] is b[0]", ([1, 2], True),
    ),
    "a bound method": (
        "class C:\n    def __init__(s): s.n = 0\n    def up(s): s.n += 1\nm = C().up; a = [m]; b = [m]; del m",
        "a[0](); b[0].__self__.n", 1,
    ),
    "a builtin's bound method": ("push = [1].append; x = [push.__self__]", "push(2); x[0]", [1, 2]),
    "two closures": (
        "def make():\n    n = []\n    return (lambda: n.append(1)), (lambda: n)\na, b = make()", "a(); b()", [1],
    ),
    "a class of before its redefinition": (
        "class C: tags = []\nold = C(); cls = type(old); a = (old,); b = (cls,)\nclass C: pass\nnew = C()",
        "type(a[0]) is b[0], type(old) is type(new), isinstance(new, C)", (True, False, True),
    ),
    "an exception's argument": (
        "l = []; a = [(ValueError(l),)]; b = [a[0]]; del l", "a[0][0].args[0].append(1); b[0][0].args[0]", [1],
    ),
    "a decimal context": (
        "import decimal\na = decimal.Context(prec=3); b = [a]", "a.prec = 7; b[0].prec, b[0] is a", (7, True),
    ),
    "a subclass of date": (
        "import datetime\nclass Day(datetime.date): pass\na = Day(2020, 1, 2); b = [a]", "a.x = 1; b[0].x", 1,
    ),
    "an alias of a type": (
        "import typing\nclass C: tags = []\nk = C; a = [typing.Callable[[C], int]]; b = [a[0]]; del C",
        "k.tags.append(1); typing.get_args(b[0])[0][0].tags", [1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
def test_sharing_lives_through_every_checkpoint(holder: str) -> None:
    program, look, expected = HOLDERS[holder]
    *steps, last = look.split("; ")
    for checkpoints in range(1, 5):
        worker = Worker(program)
        for _ in range(checkpoints):
            worker.take()
            worker.run(f"unrelated = {checkpoints}")
        again = worker.reborn()
        again.run("; ".join(steps))
        assert again.value(last) == expected, f"after {checkpoints} checkpoints"


def test_a_change_behind_a_builtins_bound_method_is_saved() -> None:
    worker = Worker("push = [1].append")
    worker.take()
    worker.run("push(2)")
    assert worker.reborn().value("push.__self__") == [1, 2]


def test_names_are_apart_again_when_they_share_nothing() -> None:
    """What every name refers to, such as a library's class, keeps no group together."""
    worker = Worker(
        "import collections\ns = []; a = [collections.OrderedDict(), s]; b = [collections.OrderedDict(), s]"
    )
    worker.take()
    worker.run("b[1] = []; a[1] = (); s = ()")
    worker.take()
    worker.run("a.append(bytes(100_000))")
    changed = worker.take()
    assert sum(map(len, changed.blobs.values())) < 110_000
    worker.run("b.append(1)")
    assert sum(map(len, worker.take().blobs.values())) < 1_000


VIEWS = {
    "a read-only view": ("import types\nd = {'a': 1}; v = types.MappingProxyType(d)", "d.update(b=2); dict(v)", {"a": 1, "b": 2}),
    "a class's own view": ("class C: pass\nv = C.__dict__; ", "setattr(C, 'x', 4); v['x'], v == C.__dict__", (4, True)),
    "a dict's keys": ("d = {'a': 1}; k = [d.keys()]", "d.update(b=2); list(k[0]), type(k[0]).__name__", (["a", "b"], "dict_keys")),
    "a dict's items": ("d = {'a': 1}; k = d.items()", "d.update(b=2); list(k)", [("a", 1), ("b", 2)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_stays_one(kind: str) -> None:
    program, look, expected = VIEWS[kind]
    worker = Worker(program)
    worker.take()
    again = worker.reborn()
    step, last = look.split("; ")
    again.run(step)
    assert again.value(last) == expected
