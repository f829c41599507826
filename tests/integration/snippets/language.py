"""Statements and expressions: values, scoping, patterns, imports, text."""

from tests.integration.snippets import Snippet

SYNC = "simple_sync"

ROWS = [
    Snippet(name="an expression", code="1 + 1", value=2, repr="2", type_name="int", mode=SYNC),
    Snippet(name="nothing at all", code="", value=None, repr="", type_name="", mode=SYNC),
    Snippet(name="a comment alone", code="# nothing to do", value=None, mode=SYNC),
    Snippet(name="None is a value without much to show", code="None", value=None, mode=SYNC),
    Snippet(name="two expressions, the last one counts", code="1; 2", value=2),
    Snippet(name="a semicolon at the end hides the value", code="x0 = 5\nx0;", value=None, repr=""),
    Snippet(name="a statement has no value", code="for i0 in range(3): i0", value=None),
    Snippet(name="an assignment's value", code="x1 = [1, 2]", value=[1, 2], repr="[1, 2]"),
    Snippet(name="a chained assignment", code="a1 = b1 = 3", value=3),
    Snippet(name="a tuple assignment", code="a2, b2 = 1, 2", value=[1, 2], repr="(1, 2)", type_name="tuple"),
    Snippet(name="a starred assignment", code="a3, *b3 = 'xyz'", repr="('x', ['y', 'z'])"),
    Snippet(name="an augmented assignment", code="n1 = 40\nn1 += 2", value=42),
    Snippet(name="an annotated assignment", code="n2: int = 7", value=7),
    Snippet(name="an annotation alone", code="n3: int", value=None),
    Snippet(name="annotations are kept", code="n4: 'str' = ''\n__annotations__['n4']", value="str"),
    Snippet(name="an item assignment", code="d1 = {}\nd1['k'] = 9", value=9),
    Snippet(
        name="an attribute assignment runs the setter once",
        code="""
            class Counted:
                sets = gets = 0
                @property
                def a(self): Counted.gets += 1
                @a.setter
                def a(self, value): Counted.sets += 1
            c1 = Counted()
            c1.a = 5
        """,
        value=5,
    ),
    Snippet(
        name="the setter ran once and the getter never",
        before=("class Sets:\n    n = 0\n    def __setitem__(self, k, v): Sets.n += 1\ns1 = Sets()\ns1[0] = 1",),
        code="Sets.n",
        value=1,
    ),
    Snippet(name="an indented last line's value", code="if True:\n    42", value=None),
    Snippet(name="del takes a name away", before=("gone = 1",), code="del gone\n'gone' in globals()", value=False),
    Snippet(name="a walrus binds", code="(w1 := 10) + w1", value=20),
    Snippet(name="a walrus in a comprehension binds outside", code="[w2 := i for i in range(3)]\nw2", value=2),
    Snippet(name="a comprehension's variable stays inside", code="[q9 for q9 in 'ab']\n'q9' in dir()", value=False),
    Snippet(name="a comprehension sees the namespace", code="k5 = 3\n[i * k5 for i in range(3)]", value=[0, 3, 6]),
    Snippet(name="nested comprehensions see it too", code="m6 = [1, 2]\n[[a * b for a in m6] for b in m6]", value=[[1, 2], [2, 4]]),
    Snippet(name="a generator expression sees it too", code="k7 = 2\nsum(i * k7 for i in range(4))", value=12),
    Snippet(name="set and dict comprehensions", code="({i % 2 for i in range(4)}, {i: i for i in 'ab'})", value=[[0, 1], {"a": "a", "b": "b"}]),
    Snippet(
        name="a comprehension in a class body",
        code="""
            class Scoped:
                base = [1, 2]
                doubled = [2 * i for i in base]
            Scoped.doubled
        """,
        value=[2, 4],
    ),
    Snippet(
        name="matching values, sequences, mappings and classes",
        code="""
            def kind(thing):
                match thing:
                    case 0: return "zero"
                    case [x, *rest] if rest: return f"list of {x} and {len(rest)}"
                    case {"k": v, **others}: return f"k={v} {sorted(others)}"
                    case complex(real=r): return f"complex {r}"
                    case str() | bytes(): return "text"
                    case _: return "other"
            [kind(t) for t in (0, [1, 2, 3], {"k": 5, "z": 0}, 3j, b"", 1.5)]
        """,
        value=["zero", "list of 1 and 2", "k=5 ['z']", "complex 0.0", "text", "other"],
    ),
    Snippet(name="a match at the top level binds", code="match (1, 2):\n    case (m1, m2): pass\nm1 + m2", value=3),
    Snippet(name="try, else and finally", code="t1 = []\ntry: t1 += [1]\nexcept: t1 += [9]\nelse: t1 += [2]\nfinally: t1 += [3]\nt1", value=[1, 2, 3]),
    Snippet(name="an except's name goes away", code="try: 1/0\nexcept ZeroDivisionError as e9: pass\n'e9' in globals()", value=False),
    Snippet(name="for and while have an else", code="for _i9 in (): pass\nelse: r9 = 'else'\nr9", value="else"),
    Snippet(name="a with of two", code="import io\nwith io.StringIO('a') as f1, io.StringIO('b') as f2: r8 = f1.getvalue() + f2.getvalue()\nr8", value="ab"),
    Snippet(name="a parenthesised with", code="import contextlib\nwith (contextlib.nullcontext(1) as n8, contextlib.nullcontext(2) as n9):\n    pass\nn8 + n9", value=3),
    Snippet(name="a star import", code="from math import *\nfloor(pi)", value=3),
    Snippet(name="a name from a submodule", code="import os.path as p1\np1.join('a', 'b')", value="a/b"),
    Snippet(name="a dotted import binds the first part", code="import xml.dom\nxml.__name__", value="xml"),
    Snippet(name="a relative import has no package", code="from . import x", error="ImportError", message="relative import", line=1),
    Snippet(name="an unicode identifier", code="größe = 3\nπ = 3.14\ngröße * π", value=9.42),
    Snippet(name="identifiers are normalised", code="ﬁ = 1\nfi", value=1),
    Snippet(name="text beyond the BMP", code="print('🎉 ñ')\n'🎉' * 2", value="🎉🎉", stdout="🎉 ñ\n"),
    Snippet(name="nested f-strings", code="""n = 3\nf"{f'{n:>{n}}'!r} {'a' + "b"} {n=}" """, value="'  3' ab n=3"),
    Snippet(name="quotes of a kind within an f-string", code='w = ["a", "b"]\nf"{", ".join(w)}"', value="a, b"),
    Snippet(name="a raw, a bytes and a joined string", code="(r'\\n', b'\\xff', 'a' 'b')", repr="('\\\\n', b'\\xff', 'ab')"),
    Snippet(name="a type alias", code="type Pair[T] = tuple[T, T]\nPair[int].__value__", repr="tuple[T, T]"),
    Snippet(name="a lazy type alias may look ahead", code="type Ahead = list[Later9]\nclass Later9: ...\nAhead.__value__.__args__[0].__name__", value="Later9"),
    Snippet(name="a generic function", code="def first[T](items: list[T]) -> T: return items[0]\n(first([7]), first.__type_params__[0].__name__)", value=[7, "T"]),
    Snippet(name="a type parameter's default", code="class Box[T = int]: ...\nBox.__type_params__[0].__default__", repr="<class 'int'>", since=(3, 13)),
    Snippet(name="no such default before 3.13", code="class Box[T = int]: ...", error="SyntaxError", kind="compilation", line=1, until=(3, 13)),
    Snippet(name="a future import", code="from __future__ import annotations\ndef f5(x: Missing1) -> Missing2: ...\nf5.__annotations__", value={"x": "Missing1", "return": "Missing2"}),
    Snippet(name="it holds in the cells after", before=("from __future__ import annotations",), code="def f6(x: Missing3): ...\nf6.__annotations__", value={"x": "Missing3"}),
    Snippet(name="a future import comes first or not at all", code="x = 1\nfrom __future__ import annotations", error="SyntaxError", kind="compilation", message="beginning of the file", line=2),
    Snippet(name="a global statement at the top", code="global g1\ng1 = 4", value=4),
    Snippet(name="a docstring is an expression", code='"""Some words."""', value="Some words."),
    Snippet(name="a doctest in a string stays text", code="'''\n>>> 1 + 1\n2\n'''.count('>>>')", value=1),
    Snippet(name="a coding cookie is no trouble", code="# -*- coding: latin-1 -*-\n'é'", value="é"),
    Snippet(name="windows line ends", code="x2 = 1\r\nif x2:\r\n    y2 = 2\r\ny2", value=2),
    Snippet(name="a form feed and a tab", code="\fif True:\n\tz2 = 1\nz2", value=1),
    Snippet(name="a backslash at a line's end", code="1 + \\\n  2", value=3),
    Snippet(name="a last line without its newline, after blanks", code="\n\n  \n5   ", value=5),
    Snippet(name="5,000 lines in a cell", code="\n".join(f"v{i % 50} = {i}" for i in range(4999)) + "\nv48", value=4998, mode=SYNC),
    Snippet(name="a line of 100,000 characters", code="len('" + "x" * 100_000 + "')", value=100_000),
    Snippet(name="a sum of 500 terms", code=" + ".join(["1"] * 500), value=500),
    Snippet(name="large integers survive", code="2**63 - 1, -(2**63), 2**64 - 1", value=[2**63 - 1, -(2**63), 2**64 - 1]),
    Snippet(name="floats survive", code="[0.1, 1e308, -0.0, float('inf')]", value=[0.1, 1e308, -0.0, float("inf")]),
    Snippet(name="bytes survive", code="b'\\x00\\xff'", value=b"\x00\xff"),
    Snippet(name="a mapping with odd keys", code="{1: 'a', 'b': None}", value={1: "a", "b": None}),
    Snippet(name="assert", code="assert 1 == 2, 'not equal'", error="AssertionError", message="not equal", line=1),
    Snippet(name="__debug__ and __name__", code="(__debug__, __name__)", value=[True, "__main__"]),
    Snippet(name="ellipsis", code="...", repr="Ellipsis"),
]
