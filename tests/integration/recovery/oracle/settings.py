"""What a program's cells set in their process, and how each is read back: by the worker, without pyrepl3."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Setting:
    """A part of the process's state."""

    reported_as: str
    """How a report calls it, or begins to."""
    changes: tuple[str, ...]
    """Cells that change it; `{n}` is another number in each."""
    probe: str
    """An expression for all of it, read where one of the changes has run."""
    named: tuple[str, ...] = ()
    """Cells that change it so that a report names it instead."""


SETTINGS: Final[dict[str, Setting]] = {
    "cwd": Setting("os.getcwd()", ("os.makedirs('sub', exist_ok=True); os.chdir('sub')", "os.chdir(root)"), "os.getcwd()"),
    "environ": Setting(
        "os.environ",
        ("os.environ['ORACLE'] = '{n}'", "os.environ.pop('ORACLE', None)", "os.environ.pop('HOME', None)", "os.environ.update(HOME=root, EMPTY='')", "os.environb[b'RAW'] = b'\\xff{n}'"),
        "sorted(os.environb.items())",
    ),
    "path": Setting(
        "sys.path",
        ("sys.path.insert(0, root)", "sys.path.append('/nowhere/{n}')", "sys.path.reverse()", "sys.path.append(root + '/pack'); sys.path.append(root + '/pack')", "sys.path[:] = [each for each in sys.path if 'nowhere' not in str(each)]", "sys.path.append(pathlib.PurePath('/nowhere/{n}'))"),
        "sys.path",
    ),
    "umask": Setting("os.umask()", ("os.umask(0o027)", "os.umask(0o077)", "os.umask(0o022)"), "os.umask(0o077)"),
    "locale": Setting(
        "locale.getlocale()",
        ("import locale; locale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')", "import locale; locale.setlocale(locale.LC_ALL, 'C')", "import locale; locale.setlocale(locale.LC_TIME, 'C.UTF-8')"),
        "[__import__('_locale').setlocale(n, None) for n in range(6)]",
    ),
    "timezone": Setting(
        "time.tzname",
        ("import time; os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()", "import time; os.environ['TZ'] = 'AAA-{n}'; time.tzset()", "import time; os.environ.pop('TZ', None); time.tzset()", "import time; os.environ['TZ'] = 'UTC+3'"),
        "(time.tzname, time.timezone, time.daylight, time.localtime(0)[:6])",
    ),
    "recursion": Setting("sys.getrecursionlimit()", ("sys.setrecursionlimit(3000 + {n})", "sys.setrecursionlimit(900)"), "sys.getrecursionlimit()"),
    "warnings": Setting(
        "warnings.filters",
        ("import warnings; warnings.simplefilter('ignore')", "import warnings; warnings.filterwarnings('ignore', message='old{n}', category=FutureWarning)", "import warnings; warnings.filterwarnings('always', module='mod_{n}', append=True)", "import warnings; warnings.resetwarnings()", "import warnings, ssl; warnings.simplefilter('error', category=BytesWarning, lineno={n})"),
        "[(a, m and (m if isinstance(m, str) else (m.pattern, m.flags)), c.__qualname__, k and (k if isinstance(k, str) else (k.pattern, k.flags)), n) for a, m, c, k, n in warnings.filters]",
        named=("import warnings\nclass Own(UserWarning): pass\nwarnings.simplefilter('ignore', Own)",),
    ),
    "random": Setting("random.getstate()", ("import random; random.seed({n})", "import random; random.seed('s{n}'); random.random()", "import random; random.seed({n}); random.gauss(0, 1)"), "random.getstate()"),
    "decimal": Setting(
        "decimal.getcontext()",
        ("import decimal; decimal.getcontext().prec = {n} + 4", "import decimal; context = decimal.getcontext()", "import decimal; decimal.setcontext(decimal.Context(prec={n} + 2, rounding=decimal.ROUND_DOWN))", "import decimal; decimal.getcontext().traps[decimal.Inexact] = True", "import decimal; decimal.getcontext().clear_traps(); decimal.Decimal(1) / 3", "import decimal; decimal.DefaultContext.prec = 7; decimal.setcontext(decimal.DefaultContext)"),
        "repr(decimal.getcontext()), repr(decimal.DefaultContext), vars(__main__).get('context') is decimal.getcontext()",
    ),
    "logging": Setting(
        "logging",
        (
            "import logging; logging.basicConfig(level=10, format='%(message)s!', stream=sys.stdout)",
            "import logging; logging.basicConfig(level={n} + 11, filename=root + '/x.log', force=True)",
            "import logging; logging.getLogger('a.b').setLevel({n} + 1)",
            "import logging; logging.getLogger('a').propagate = False; logging.getLogger('a.c').disabled = True",
            "import logging; logging.disable({n} + 5)",
            "import logging; h = logging.FileHandler(root + '/y.log', 'w', 'utf-8'); h.setLevel(20); logging.getLogger('a').addHandler(h); logging.getLogger('a').warning('w{n}'); del h",
            "import logging; logging.addLevelName(35, 'NOTE{n}')",
        ),
        "[logging.root.manager.disable, logging.getLevelName(35)] + [(name, l.level, l.propagate, l.disabled, [describe_handler(h) for h in l.handlers], len(l.filters)) for name, l in [('', logging.root), *sorted(logging.root.manager.loggerDict.items())] if isinstance(l, logging.Logger) and name.split('.')[0] in ('', 'a')]",
        named=(
            "import logging, logging.handlers; logging.getLogger('a').addHandler(logging.handlers.MemoryHandler(9))",
            "import logging; logging.getLogger('a').addFilter(logging.Filter('a.b'))",
        ),
    ),
    "gc": Setting("gc", ("import gc; gc.disable()", "import gc; gc.enable()", "import gc; gc.set_threshold({n} + 500, 5, 5)"), "gc.isenabled(), gc.get_threshold()[:2]"),
    "switch interval": Setting("sys.getswitchinterval()", ("sys.setswitchinterval(0.01 + {n} / 1000)",), "round(sys.getswitchinterval(), 6)"),
    "digits": Setting("sys.get_int_max_str_digits()", ("sys.set_int_max_str_digits(0)", "sys.set_int_max_str_digits({n} + 5000)"), "sys.get_int_max_str_digits()"),
    "hooks": Setting(
        "sys.",
        ("def hook(*a): return {n}\nsys.excepthook = hook", "sys.excepthook = sys.__excepthook__", "def shown(value): return {n}\nsys.displayhook = shown", "sys.displayhook = sys.__displayhook__", "import builtins\ndef mine(*a): return {n}\nsys.breakpointhook = mine", "def un(a): return {n}\nsys.unraisablehook = un"),
        "[describe_function(h) for h in (sys.excepthook, sys.displayhook, sys.breakpointhook, sys.unraisablehook)]",
    ),
    "signals": Setting(
        "signal.getsignal()",
        ("import signal\ndef caught(*a): return {n}\nsignal.signal(signal.SIGUSR1, caught)", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)", "import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL)", "import signal; signal.signal(signal.SIGALRM, lambda *a: {n})"),
        "[describe_function(signal.getsignal(n)) for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGINT)]",
    ),
    "asyncio": Setting("asyncio.get_running_loop()", ("import asyncio; asyncio.get_running_loop().set_debug(True)", "import asyncio; asyncio.get_running_loop().set_debug(False); asyncio.get_running_loop().slow_callback_duration = {n} + 1"), "asyncio.get_running_loop().get_debug(), asyncio.get_running_loop().slow_callback_duration"),
    "socket": Setting("socket.getdefaulttimeout()", ("import socket; socket.setdefaulttimeout({n} + 1)", "import socket; socket.setdefaulttimeout(None)"), "socket.getdefaulttimeout()"),
    "stack": Setting("threading.stack_size()", ("import threading; threading.stack_size(65536 * ({n} + 2))",), "threading.stack_size()"),
    "open files": Setting("resource.getrlimit()", ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (400 + {n}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",), "resource.getrlimit(resource.RLIMIT_NOFILE)"),
    "csv": Setting("csv.field_size_limit()", ("import csv; csv.field_size_limit(200_000 + {n})",), "csv.field_size_limit()"),
    "week": Setting("calendar.firstweekday()", ("import calendar; calendar.setfirstweekday({n} % 7)",), "calendar.firstweekday()"),
}  # fmt: skip
LIBRARIES: Final[dict[str, dict[str, Setting]]] = {
    "numpy": {
        "numpy print": Setting("numpy.get_printoptions()", ("import numpy; numpy.set_printoptions(precision={n} + 1)", "import numpy; numpy.set_printoptions(suppress=True, linewidth=60)"), "repr(numpy.get_printoptions())"),
        "numpy errors": Setting("numpy.geterr()", ("import numpy; numpy.seterr(divide='ignore')", "import numpy; numpy.seterr(all='raise')"), "numpy.geterr()"),
        "numpy random": Setting("numpy.random.get_state()", ("import numpy; numpy.random.seed({n})", "import numpy; numpy.random.seed({n}); numpy.random.standard_normal()"), "[str(each) if not hasattr(each, 'tolist') else each.tolist() for each in numpy.random.get_state()]"),
    },
    "pandas": {"pandas": Setting("pandas.options", ("import pandas; pandas.set_option('display.precision', {n} + 1)", "import pandas; pandas.options.display.max_rows = {n} + 7"), "pandas.options.display.precision, pandas.options.display.max_rows")},
    "matplotlib": {"matplotlib": Setting("matplotlib.rcParams", ("import matplotlib; matplotlib.use('agg'); matplotlib.rcParams['figure.dpi'] = 30.0 + {n}", "import matplotlib.style; matplotlib.style.use('ggplot')"), "sorted((key, repr(value)) for key, value in dict.items(matplotlib.rcParams) if key != 'backend')")},
}  # fmt: skip
PROVIDED: Final = ("display", "exit", "quit", "search")
"""What the session provides: found in builtins unless the code has such a name."""
PROVIDED_CHANGES: Final = (
    "{name} = ['mine', {n}]", "def {name}(*args): return {n}", "globals().pop('{name}', None)",
    "import math as {name}", "kept_{name} = {name}",
)  # fmt: skip
