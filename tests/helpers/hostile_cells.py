"""Cells that do harm, and what a session must still do afterwards. All survive; the table says what is seen."""

from dataclasses import dataclass
from textwrap import dedent

ANY = "any outcome"


@dataclass(frozen=True, kw_only=True)
class Harm:
    """One harmful cell.

    `error` is the exception type it ends with (or `ANY`, where either end is right), `message` part of
    its text; else it ends well with `value` and `stdout` (None: not compared). `timeout` in seconds. `mutes`: `print` is of no use afterwards, as the code wanted.
    """

    name: str
    code: str
    error: str = ""
    message: str = ""
    value: object = None
    stdout: str | None = ""
    type_name: str | None = None
    timeout: float | None = None
    mutes: bool = False

    @property
    def source(self) -> str:
        """The code without the table's indentation."""
        return dedent(self.code).removeprefix("\n")


PROCESS = [
    Harm(name="closes fds 0 to 255", code="import os\nos.closerange(0, 256)"),
    Harm(name="closes stdout and stderr by number", code="import os\nos.close(1); os.close(2)\nprint('printed all the same')", stdout="printed all the same\n"),
    Harm(name="points fd 1 at /dev/null and back", code="import os\nkept = os.dup(1)\nn = os.open('/dev/null', os.O_WRONLY)\nos.dup2(n, 1); os.dup2(kept, 1)\nos.write(1, b'back') and None", stdout="back"),
    Harm(name="writes garbage to all low fds", code="import os\nfor fd in range(256):\n    try: os.write(fd, b'\\xff\\x00\\x00\\x01garbage' * 9)\n    except OSError: pass", stdout=None),
    Harm(name="ignores every signal", code="import signal\nfor s in signal.valid_signals():\n    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass"),
    Harm(name="blocks every signal", code="import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nNone"),
    Harm(name="gives every signal a handler that raises", code="import signal\ndef bad(*a): raise RuntimeError('from a handler')\nfor s in signal.valid_signals():\n    try: signal.signal(s, bad)\n    except OSError: pass"),
    Harm(name="sends itself harmless signals", code="import os, signal\nfor s in (signal.SIGURG, signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT): os.kill(os.getpid(), s)"),
    Harm(name="interrupts itself", code="import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor i in range(10**9): pass", error="KeyboardInterrupt"),
    Harm(name="empties the environment", code="import os\nos.environ.clear()"),
    Harm(name="sits in a directory that is gone", code="import os, tempfile\nd = tempfile.mkdtemp()\nos.chdir(d)\nos.rmdir(d)"),
    Harm(name="may open no more fds", code="import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))"),
    Harm(name="tries to leave its process group", code="import os\nos.setpgid(0, 0)", error=ANY),
    Harm(name="becomes nice", code="import os\nos.nice(5)", value=5),
]

STREAMS = [
    Harm(name="replaces stdout", mutes=True, code="import sys, os\nsys.stdout = open(os.devnull, 'w')\nprint('into the void')"),
    Harm(name="closes stdout", code="import sys\nsys.stdout.close()\nprint('said')", stdout="said\n"),
    Harm(name="sets stdout to None", mutes=True, code="import sys\nsys.stdout = None\nprint('unsaid')"),
    Harm(name="deletes stdout", mutes=True, code="import sys\ndel sys.stdout\nprint('unsaid')", error="RuntimeError", message="lost sys.stdout"),
    Harm(name="detaches stdout", mutes=True, code="import sys\nsys.stdout.detach()\nprint('said')", error=ANY, stdout=None),
    Harm(name="sets stdout to something that cannot write", mutes=True, code="import sys\nsys.stdout = 5\nprint('unsaid')", error="AttributeError", message="write"),
    Harm(name="a stdout whose write raises", mutes=True, code="import sys\nclass Bad:\n    def write(self, t): raise OSError('no room')\n    def flush(self): raise OSError('no room')\nsys.stdout = sys.stderr = Bad()\nprint('x')", error="OSError", message="no room"),
    Harm(name="sets stdin, stdout and stderr to None, the originals too", mutes=True, code="import sys\nkept = sys.__stdout__\nsys.stdin = sys.stdout = sys.stderr = sys.__stdin__ = sys.__stderr__ = None"),
    Harm(name="wraps the buffer anew", mutes=True, code="import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='latin-1')\nprint('hällo')\nsys.stdout.flush()", stdout="h\ufffdllo\n"),
    Harm(name="prints lone surrogates", code="print('a\\ud800b')", stdout="a\\ud800b\n"),
    Harm(name="prints every control character", code="print(''.join(map(chr, range(32))))", stdout="".join(map(chr, range(32))) + "\n"),
    Harm(name="prints a subclass of str that lies", code="class S(str):\n    def __str__(self): raise ValueError('no')\n    def endswith(self, x): raise ValueError('no')\n    def __len__(self): return -5\nimport sys\nsys.stdout.write(S('lied')) and None", error=ANY, stdout=None),
]

MONKEYS = [
    Harm(name="replaces print", mutes=True, code="import builtins\nbuiltins.print = lambda *a, **k: None\nprint('nothing')"),
    Harm(name="replaces open, input and exit", code="import builtins\nbuiltins.open = builtins.input = builtins.exit = None"),
    Harm(name="deletes len", code="import builtins\ndel builtins.len\nlen([])", error="NameError"),
    Harm(name="replaces len", code="import builtins\nbuiltins.len = lambda *a: 'mine'\nlen([])", value="mine"),
    Harm(name="sets isinstance to None", code="import builtins\nbuiltins.isinstance = None"),
    Harm(name="replaces every builtin function and type", code="import builtins\nvars(builtins).update({name: lambda *a, **k: 'mine' for name in vars(builtins) if name.islower() and name[0] != '_' and name != 'print'})", value=None),
    Harm(name="sets every exception but one to None", code="import builtins\nvars(builtins).update({name: None for name, it in vars(builtins).items() if isinstance(it, type) and issubclass(it, BaseException) and it is not ValueError})"),
    Harm(name="deletes every builtin", code="import builtins\nfor name in [*vars(builtins)]: vars(builtins).pop(name)", error="NameError"),
    Harm(name="deletes every builtin and fails", code="import builtins\nvars(builtins).clear()\n1/0", error="ZeroDivisionError"),
    Harm(name="breaks json", code="import json\njson.dumps = json.loads = None"),
    Harm(name="breaks traceback and linecache", code="import traceback, linecache\ntraceback.TracebackException = traceback.format_exception = None\nlinecache.getline = linecache.getlines = None\nlinecache.cache = {}\nNone"),
    Harm(name="breaks some of asyncio", code="import asyncio\nasyncio.Task = asyncio.Future = asyncio.create_task = asyncio.current_task = None\nasyncio.CancelledError = ZeroDivisionError"),
    Harm(name="puts None into sys.modules", code="import sys\nfor name in ('json', 'traceback', 'linecache', 'asyncio', 'ast', 'pyrepl3_worker'): sys.modules[name] = None"),
    Harm(name="empties sys.path and the finders", code="import sys\nsys.path.clear(); sys.meta_path.clear(); sys.path_hooks.clear()"),
    Harm(name="sets hooks that raise", code="import sys, threading\ndef bad(*a): raise RuntimeError('hooked')\nsys.excepthook = sys.unraisablehook = threading.excepthook = bad"),
    Harm(name="traces with a function that raises", code="import sys, threading\ndef bad(*a): raise RuntimeError('traced')\nthreading.setprofile(bad)\nthreading.settrace(bad)"),
    Harm(name="takes every monitoring tool", code="import sys\nfor t in range(6):\n    try: sys.monitoring.use_tool_id(t, 'mine')\n    except ValueError: pass"),
    Harm(name="adds an audit hook that is slow and loud", code="import sys\nsys.addaudithook(lambda event, args: None)"),
    Harm(name="empties its own namespace", code="globals().clear()"),
    Harm(name="sets time still, as tests do", code="import asyncio, time\ntime.monotonic = time.time = time.perf_counter = lambda: 0.0\nawait asyncio.sleep(0.01, 'slept')", value="slept"),
    Harm(name="replaces every function of os", code="import os\nvars(os).update({name: lambda *a, **k: 'mine' for name, it in vars(os).items() if callable(it) and name[0] != '_'})"),
    Harm(name="sets every function of heapq, resource, re and types to None", code="import heapq, resource, re, types\nfor module in (heapq, resource, re, types): vars(module).update({name: None for name, it in vars(module).items() if callable(it) and name[0] != '_'})"),
    Harm(name="replaces __builtins__", code="__builtins__ = {}\nlen", error=ANY),
    Harm(name="spoils the history", code="In = Out = _ = __ = 5\nIn", value=5),
    Harm(name="empties the history", code="In.clear(); Out.clear()"),
    Harm(name="replaces main", code="import sys\nsys.modules['__main__'] = sys"),
    Harm(name="switches garbage collection off and freezes", code="import gc\ngc.disable(); gc.freeze()"),
    Harm(name="collects garbage at every step, with a callback that raises", code="import gc\ndef bad(phase, info): raise RuntimeError('collected')\ngc.set_threshold(1)\ngc.callbacks.append(bad)", stdout=None),
    Harm(name="walks over every object", code="import gc\nlen([type(o) for o in gc.get_objects()]) > 1000", value=True),
    Harm(name="finalizers that raise and print", code="class F:\n    def __del__(self):\n        print('finalised')\n        raise ValueError('in del')\na = F(); a.me = a\ndel a\nimport gc; (gc.collect(), None)[1]", stdout="finalised\n"),
    Harm(name="a finalizer that comes back to life", code="class Z:\n    def __del__(self): globals()['zombie'] = self\nZ()\nzombie is not None", value=True),
]

LOOPS = [
    Harm(name="stops the loop", code="import asyncio\nasyncio.get_running_loop().stop()"),
    Harm(name="closes the loop", code="import asyncio\nasyncio.get_running_loop().close()", error="RuntimeError", message="running"),
    Harm(name="cancels every task", code="import asyncio\nfor t in asyncio.all_tasks(): t.cancel()\nawait asyncio.sleep(0)", error="CancelledError"),
    Harm(name="cancels itself", code="import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(60)", error="CancelledError"),
    Harm(name="replaces the task factory and exception handler", code="import asyncio\nl = asyncio.get_running_loop()\nl.set_task_factory(None)\nl.set_exception_handler(lambda *a: 1/0)\nl.call_soon(lambda: 1/0)\nawait asyncio.sleep(0)"),
    Harm(name="a callback that raises SystemExit", code="import asyncio, sys\nasyncio.get_running_loop().call_soon(sys.exit, 3)\nawait asyncio.sleep(0.01)"),
    Harm(name="a background task that exits", code="import asyncio\nasync def out(): raise SystemExit(4)\nbg = asyncio.create_task(out())", stdout=None),
    Harm(name="a background task that interrupts", code="import asyncio\nasync def out(): raise KeyboardInterrupt\nbg = asyncio.create_task(out())\nawait asyncio.sleep(0.01)", error=ANY, stdout=None),
    Harm(name="unsets the running loop", code="import asyncio\nasyncio.events._set_running_loop(None)", error=ANY),
    Harm(name="sets another event loop", code="import asyncio\nasyncio.set_event_loop(asyncio.new_event_loop())"),
    Harm(name="exits in a thread", code="import threading, sys\nt = threading.Thread(target=sys.exit, args=(9,))\nt.start(); t.join()"),
    Harm(name="a daemon thread that never ends", code="import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"),
    Harm(name="a thread that never ends, and is no daemon", code="import threading\nthreading.Thread(target=threading.Event().wait).start()"),
    Harm(name="three hundred threads", code="import threading\ngate = threading.Event()\nts = [threading.Thread(target=gate.wait, daemon=True) for _ in range(300)]\n[t.start() for t in ts]\ngate.set()\n[t.join() for t in ts] and None"),
]

RECURSION = [
    Harm(name="recursion to the limit", code="def f(): return f()\nf()", error="RecursionError"),
    Harm(name="recursion in a finalizer at the limit", code="class R:\n    def __del__(self): self.__del__()\nR()\n'on'", value="on", stdout=None),
    Harm(name="a tiny recursion limit", code="import sys\nsys.setrecursionlimit(80)\nprint('at 80')", error=ANY, stdout=None),
    Harm(name="the least recursion limit there is", code="import sys\nfor n in range(1, 100):\n    try: sys.setrecursionlimit(n)\n    except RecursionError: continue\n    break", error=ANY, stdout=None),
    Harm(name="a high limit and deep recursion", code="import sys\nsys.setrecursionlimit(50_000)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nf(40_000)", value=40_000),
    Harm(name="deep recursion and an error at its bottom", code="import sys\nsys.setrecursionlimit(30_000)\ndef g(n): return 1/0 if n == 0 else g(n - 1)\ng(20_000)", error="ZeroDivisionError"),
    Harm(name="a list nested 100,000 deep", code="a = []\nfor _ in range(100_000): a = [a]\na", type_name="list", value=None),
]
