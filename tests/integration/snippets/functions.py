"""Functions, closures, generators, decorators, context managers."""

from tests.integration.snippets import Snippet

ROWS = [
    Snippet(name="a function of an earlier cell", before=("def twice(x): return 2 * x",), code="twice(21)", value=42, mode="simple_sync"),
    Snippet(name="a function sees what is defined later", before=("def later(): return unborn", "unborn = 8"), code="later()", value=8),
    Snippet(name="a redefinition reaches the callers", before=("def inner(): return 1", "def outer(): return inner()", "def inner(): return 2"), code="outer()", value=2),
    Snippet(name="recursion", code="def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(15)", value=610),
    Snippet(name="mutual recursion across cells", before=("def even(n): return n == 0 or odd(n - 1)", "def odd(n): return n != 0 and even(n - 1)"), code="even(10), odd(10)", value=[True, False]),
    Snippet(name="global in a function", before=("count = 0\ndef bump():\n    global count\n    count += 1",), code="bump(); bump(); count", value=2),
    Snippet(name="nonlocal over cells", before=("def counter():\n    n = 0\n    def step():\n        nonlocal n\n        n += 1\n        return n\n    return step\nstep = counter()", "step()"), code="step()", value=2),
    Snippet(name="a closure over a loop variable", code="fs = [lambda: i for i in range(3)]\n[f() for f in fs]", value=[2, 2, 2]),
    Snippet(name="a closure over a cell's own variable", before=("base = 10\nadd = lambda n: n + base", "base = 20"), code="add(1)", value=21),
    Snippet(name="a lambda's default", code="fs2 = [lambda i=i: i for i in range(3)]\n[f() for f in fs2]", value=[0, 1, 2]),
    Snippet(name="every kind of parameter", code="def p(a, /, b, *c, d=4, **e): return [a, b, list(c), d, e]\np(1, 2, 3, d=5, f=6)", value=[1, 2, [3], 5, {"f": 6}]),
    Snippet(name="a generator", code="def squares(n):\n    for i in range(n):\n        yield i * i\nlist(squares(4))", value=[0, 1, 4, 9]),
    Snippet(name="a generator over cells", before=("g = (i for i in range(10))", "next(g)", "next(g)"), code="next(g)", value=2),
    Snippet(name="send, throw, close and return", code="""
        def talk():
            got = yield "first"
            try:
                yield got
            except ValueError:
                yield "thrown"
            return 1
        t = talk()
        [next(t), t.send("sent"), t.throw(ValueError), next(t, "end")]
    """, value=["first", "sent", "thrown", "end"]),
    Snippet(name="yield from gives the return value", code="""
        def inner_gen():
            yield 1
            return "done"
        def outer_gen():
            yield (yield from inner_gen())
        list(outer_gen())
    """, value=[1, "done"]),
    Snippet(name="a decorator with arguments", code="""
        import functools
        def repeat(times):
            def decorate(function):
                @functools.wraps(function)
                def wrapper(*args):
                    return [function(*args) for _ in range(times)]
                return wrapper
            return decorate
        @repeat(3)
        def greet(name):
            "Say hello."
            return f"hello {name}"
        (greet("ann"), greet.__name__, greet.__doc__)
    """, value=[["hello ann"] * 3, "greet", "Say hello."]),
    Snippet(name="a decorated definition has no value", code="@staticmethod\ndef nothing(): ...", value=None),
    Snippet(name="functools.cache keeps across cells", before=("import functools\ncalls = []\n@functools.cache\ndef slow(n):\n    calls.append(n)\n    return n * 2", "slow(4)"), code="slow(4), slow(5), calls", value=[8, 10, [4, 5]]),
    Snippet(name="lru_cache's figures", before=("import functools\n@functools.lru_cache(maxsize=2)\ndef lru(n): return n\nfor i in (1, 2, 1, 3, 2): lru(i)",), code="lru.cache_info().hits", value=1),
    Snippet(name="singledispatch", code="import functools\n@functools.singledispatch\ndef show(x): return 'thing'\n@show.register\ndef _(x: int): return 'int'\n[show(1), show('')]", value=["int", "thing"]),
    Snippet(name="partial and reduce", code="from functools import partial, reduce\nreduce(partial(max), [3, 9, 2])", value=9),
    Snippet(name="a context manager from a generator", code="""
        from contextlib import contextmanager
        log = []
        @contextmanager
        def logged(name):
            log.append(f"enter {name}")
            try:
                yield name.upper()
            finally:
                log.append(f"exit {name}")
        with logged("a") as big:
            log.append(big)
        log
    """, value=["enter a", "A", "exit a"]),
    Snippet(name="a context manager that swallows", code="from contextlib import suppress\nwith suppress(KeyError):\n    {}['missing']\n'on'", value="on"),
    Snippet(name="ExitStack", code="import contextlib\nout = []\nwith contextlib.ExitStack() as stack:\n    stack.callback(out.append, 1)\n    stack.callback(out.append, 2)\nout", value=[2, 1]),
    Snippet(name="inspect.getsource of a cell's function", before=("def shown(x):\n    # a comment\n    return x",), code="import inspect\ninspect.getsource(shown)", value="def shown(x):\n    # a comment\n    return x"),
    Snippet(name="and of one in the same cell", code="import inspect\ndef here(): return 1\ninspect.getsource(here)", value="def here(): return 1\n"),
    Snippet(name="a signature and a docstring", code="import inspect\ndef sig(a: int, *, b='x') -> str:\n    '''Doc.'''\n(str(inspect.signature(sig)), inspect.getdoc(sig))", value=["(a: int, *, b='x') -> str", "Doc."]),
    Snippet(name="doctest finds a cell's examples", code="""
        import doctest
        def double(x):
            '''
            >>> double(4)
            8
            '''
            return 2 * x
        doctest.run_docstring_examples(double, globals(), verbose=False)
        [len(t.examples) for t in doctest.DocTestFinder().find(double, "double", globs=globals())]
    """, value=[1]),
    Snippet(name="dis of a function", code="import dis\ndef d(): return 42\nany(i.argval == 42 for i in dis.get_instructions(d))", value=True),
    Snippet(name="exec and eval reach the namespace", code="exec('made = 5')\neval('made + 1')", value=6),
    Snippet(name="locals are globals at the top", code="locals() is globals()", value=True),
    Snippet(name="vars of main", code="import __main__\nmark9 = 1\n__main__.mark9", value=1),
    Snippet(name="sys.modules knows main", code="import sys\nvars(sys.modules['__main__']) is globals()", value=True),
    Snippet(name="a function is of main", code="def home(): ...\nhome.__module__", value="__main__"),
    Snippet(name="a return ends the cell", code="x7 = 1\nif x7:\n    return 'early'\nx7 = 2", value="early", mode="simple_sync"),
    Snippet(name="what it bound before stays", before=("x8 = 1\nreturn\nx8 = 2",), code="x8", value=1),
    Snippet(name="a return with an await", code="import asyncio\nv8 = await asyncio.sleep(0, 7)\nreturn v8 * 2", value=14, mode="top_level_await"),
    Snippet(name="a return in a loop, with functions about", code="def add1(n): return n + 1\nfor i in range(10):\n    if i == 3:\n        return add1(i)", value=4),
    Snippet(name="a function from a returning cell sees the namespace", before=("late1 = 5\ndef uses(): return late1\nreturn 0", "late1 = 6"), code="uses()", value=6),
    Snippet(name="a yield outside of a function", code="yield 1", error="SyntaxError", kind="compilation", message="'yield' outside function", line=1),
    Snippet(name="deep recursion that fits", code="def down(n): return 0 if n == 0 else 1 + down(n - 1)\ndown(800)", value=800),
    Snippet(name="recursion without end", code="def forever(n):\n    return forever(n + 1)\nforever(0)", error="RecursionError", message="maximum recursion depth", line=2),
]
