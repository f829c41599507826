# ruff: noqa: E501 - a program a line reads best
"""Ways in which code tries to hold up the program that runs it, for `test_stalls`.

Each prints `ready` first. What it does then may end, or never; it may also leave something behind that a
later call meets. `W` is a folder that it can write to.
"""

from dataclasses import dataclass

PRELUDE = r"""
import asyncio, atexit, ctypes, errno, fcntl, gc, os, resource, signal, socket, struct, subprocess, sys, threading, time
print('ready', flush=True)
libc = ctypes.CDLL(None, use_errno=True)
def mask(): signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
def for_ever():
    while True:
        try:
            while True: time.sleep(600)
        except BaseException: pass
def busy():
    while True:
        try:
            while True: pass
        except BaseException: pass
def child(function):
    pid = os.fork()
    if pid == 0:
        try: function()
        finally: os._exit(0)
    return pid
"""


@dataclass(frozen=True)
class Stall:
    """One such way."""

    name: str
    code: str
    quick: bool = False
    """Whether it is one of those that the suite tries each time."""
    levels: tuple[str, ...] = ("strict", "limits")
    """Where it is tried: some would harm this machine where nothing bounds them."""


STRICT = ("strict",)

STALLS = [
    # signals, and processes that stand still
    Stall("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)", quick=True),
    Stall("stops its process group", "child(for_ever)\nos.kill(0, signal.SIGSTOP)"),
    Stall("is stopped again and again", "pid = os.getpid()\ndef stop():\n    while True: os.kill(pid, signal.SIGSTOP); time.sleep(0.001)\nchild(stop)\nfor_ever()"),
    Stall("stops itself when it exits", "atexit.register(os.kill, os.getpid(), signal.SIGSTOP)"),
    Stall("masks all signals", "mask()\nbusy()", quick=True),
    Stall("masks all signals in a call", "mask()\nwhile True: libc.pause()"),
    Stall("ignores the wake-up signal", "signal.signal(signal.SIGURG, signal.SIG_IGN)\nbusy()"),
    Stall("handles the wake-up signal, and never returns", "signal.signal(signal.SIGURG, lambda *_: busy())\nfor_ever()"),
    Stall("handles SIGTERM and SIGINT by going on", "for n in (2, 15): signal.signal(n, lambda *_: None)\nbusy()"),
    Stall("sends itself signals without end", "pid = os.getpid()\ndef send():\n    while True: os.kill(pid, signal.SIGURG)\nchild(send)\nbusy()"),
    Stall("has timers without end", "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 1e-5, 1e-5)\nbusy()"),
    Stall("catches whatever is raised", "busy()"),
    Stall("is traced by its parent", "libc.ptrace(0, 0, 0, 0)\nos.kill(os.getpid(), signal.SIGUSR2)\nfor_ever()"),
    Stall("runs last of all", "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nbusy()"),
    # calls that do not return
    Stall("calls a function that does not return", "ctypes.PyDLL(None).sleep(600)"),
    Stall("holds the lock of the interpreter, masked", "mask()\nwhile True: ctypes.PyDLL(None).pause()"),
    Stall("matches for ever", "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')"),
    Stall("counts in C", "sum(range(10**15))"),
    Stall("makes a child that its thread waits for (vfork)", "if os.uname().machine == 'x86_64':\n    if libc.syscall(58) == 0:\n        while True: libc.pause()\nelse: for_ever()", quick=True),
    Stall("reads a FIFO without a writer", "os.mkfifo(W + '/fifo')\nos.open(W + '/fifo', os.O_RDONLY)"),
    Stall("waits for a lock of a file", "f = open(W + '/lock', 'w')\nr, w = os.pipe()\ndef hold():\n    fcntl.lockf(f, fcntl.LOCK_EX); os.write(w, b'x'); for_ever()\nchild(hold)\nos.read(r, 1)\nmask()\nfcntl.lockf(f, fcntl.LOCK_EX)"),
    Stall("waits for its own lock of a file", "a, b = open(W + '/a', 'w'), open(W + '/a', 'w')\nfcntl.flock(a, fcntl.LOCK_EX)\nfcntl.flock(b, fcntl.LOCK_EX)"),
    Stall("becomes another program", "os.execvp('sleep', ['sleep', '600'])"),
    # threads, loops and the interpreter's own hooks
    Stall("has busy threads", "for _ in range(20): threading.Thread(target=busy).start()\nbusy()"),
    Stall("leaves a thread that never ends", "threading.Thread(target=for_ever).start()"),
    Stall("holds the import lock", "import _imp\n_imp.acquire_lock()\nfor_ever()"),
    Stall("blocks its loop", "async def f(): busy()\nawait f()"),
    Stall("fills its loop", "loop = asyncio.get_running_loop()\ndef again(): loop.call_soon(again); loop.call_soon(again)\nagain()\nawait asyncio.sleep(600)"),
    Stall("never ends when it exits", "atexit.register(busy)"),
    Stall("never ends when a thing is deleted", "class D:\n    def __del__(self): busy()\nkept = D()\nD()"),
    Stall("has a repr that never ends", "class R:\n    def __repr__(self): busy()\nR()"),
    Stall("has a repr that never ends, masked", "class R:\n    def __repr__(self): mask(); busy()\nR()"),
    Stall("has an exception whose text never ends", "class E(Exception):\n    def __str__(self): busy()\nraise E"),
    Stall("has a type whose name never ends", "class M(type):\n    @property\n    def __name__(cls): busy()\n    __qualname__ = __module__ = __name__\nclass T(metaclass=M): pass\nT()"),
    Stall("has hooks that never end", "sys.displayhook = sys.excepthook = sys.unraisablehook = lambda *_: busy()\n1"),
    Stall("has a collector that never ends", "gc.callbacks.append(lambda *_: busy())\ngc.collect()"),
    Stall("has imports that never end", "class F:\n    def find_spec(self, *_): busy()\nsys.meta_path.insert(0, F())\nimport something_else"),
    Stall("is traced by itself", "sys.settrace(lambda *_: busy())\ndef f(): pass\nf()"),
    Stall("replaces what its worker may call", "import select\nfor module in (os, time, select, signal): \n    for name in ('read', 'write', 'sleep', 'monotonic', 'poll', 'kill', '_exit'):\n        if hasattr(module, name): setattr(module, name, lambda *_: busy())"),
    Stall("waits in a debugger", "import pdb\npdb.set_trace()"),
    # what it asks of the program
    Stall("waits for a host function", "never()"),
    Stall("waits for many host functions", "await asyncio.gather(*(never() for _ in range(200)))"),
    Stall("floods with host calls", "await asyncio.gather(*(never() for _ in range(20000)))"),
    Stall("waits for input", "input('? ')"),
    # output, values and frames
    Stall("prints without end", "while True: print('x' * 10000)", quick=True),
    Stall("writes to its fds without end", "while True: os.write(1, b'x' * 65536); os.write(2, b'x' * 65536)"),
    Stall("has children that write without end", "for _ in range(4): subprocess.Popen(['cat', '/dev/zero'])\nfor_ever()", levels=STRICT),
    Stall("fills pipes that nothing reads", "r, w = os.pipe()\nwhile True: os.write(w, b'x' * 65536)"),
    Stall("has a huge value", "list(range(10**7))"),
    Stall("has a value nested deeply", "x = []\nfor _ in range(10**5): x = [x]\nx"),
    Stall("has a value of very many names", "{str(n): [n] * 3 for n in range(10**6)}"),
    Stall("raises a huge text", "raise ValueError('x' * (1 << 28))"),
    Stall("raises very many causes", "e = None\nfor n in range(10**5):\n    f = ValueError(n); f.__cause__ = e; e = f\nraise e"),
    Stall("stops within a frame", "PIPES = [n for n in range(3, 65536) if os.path.exists(f'/proc/self/fd/{n}') and 'pipe' in os.readlink(f'/proc/self/fd/{n}')]\nfor n in PIPES:\n    try: os.set_blocking(n, False); os.write(n, b'\\0\\0\\1\\0abc')\n    except OSError: pass\nmask()\nfor_ever()"),
    Stall("floods with frames that are none", "PIPES = [n for n in range(3, 65536) if os.path.exists(f'/proc/self/fd/{n}') and 'pipe' in os.readlink(f'/proc/self/fd/{n}')]\nwhile True:\n    for n in PIPES:\n        try: os.write(n, b'\\0\\0\\0\\5hello' * 1000)\n        except OSError: pass"),
    Stall("reads what it is told", "PIPES = [n for n in range(3, 65536) if os.path.exists(f'/proc/self/fd/{n}') and 'pipe' in os.readlink(f'/proc/self/fd/{n}')]\ndef read(n):\n    while True:\n        try: os.read(n, 65536)\n        except OSError: return\nfor n in PIPES: threading.Thread(target=read, args=(n,)).start()\nfor_ever()"),
    Stall("makes its pipes small", "for n in range(65536):\n    try: fcntl.fcntl(n, 1031, 4096)\n    except OSError: pass\nlist(range(10**5))"),
    # descriptors, processes, memory and files
    Stall("closes all its fds", "os.closerange(0, 65536)\nbusy()", quick=True),
    Stall("has something else at all its fds", "n = os.open('/dev/null', os.O_RDWR)\nfor fd in range(65536):\n    try:\n        if fd != n: os.fstat(fd); os.dup2(n, fd)\n    except OSError: pass"),
    Stall("has no fd left", "kept = []\ntry:\n    while True: kept.append(os.dup(0))\nexcept OSError: pass\nfor_ever()", levels=STRICT),
    Stall("leaves a daemon that holds its pipes", "def daemon():\n    os.setsid()\n    if os.fork() == 0:\n        with open(W + '/left', 'a') as f: f.write(f'{os.getpid()}\\n')\n        for n in (1, 2, 3, 10, 12, 13, 15): signal.signal(n, signal.SIG_IGN)\n        time.sleep(40)\nchild(daemon)\nos.wait()\nos._exit(0)", quick=True),
    Stall("leaves a stopped child that holds its pipes", "os.kill(child(for_ever), signal.SIGSTOP)\nos._exit(0)"),
    Stall("goes on in two processes", "os.fork()"),
    Stall("goes on in its child alone", "if os.fork(): os._exit(0)"),
    Stall("leaves zombies up to its limit", "try:\n    while True: child(lambda: None)\nexcept OSError: pass\nfor_ever()", levels=STRICT),
    Stall("makes processes without end", "while True:\n    try: os.fork()\n    except OSError: pass", levels=STRICT),
    Stall("makes threads up to its limit", "try:\n    while True: threading.Thread(target=time.sleep, args=(600,)).start()\nexcept RuntimeError: pass\nfor_ever()", levels=STRICT),
    Stall("fills its memory", "kept = []\nwhile True:\n    try: kept.append(bytearray(1 << 16))\n    except MemoryError: pass", levels=STRICT),
    Stall("fills its work directory", "f = open('/tmp/full', 'wb', 0)\nwhile True:\n    try: f.write(bytes(1 << 16))\n    except OSError: pass", levels=STRICT),
    Stall("fills it with names", "n = 0\nwhile True:\n    n += 1\n    try: os.mkdir(f'/tmp/{n}')\n    except OSError: pass", levels=STRICT),
    Stall("makes folders within folders", "os.chdir(W)\nfor _ in range(5000): os.mkdir('d'); os.chdir('d')\nfor_ever()", levels=STRICT),
    Stall("loses its directory", "os.mkdir(W + '/gone')\nos.chdir(W + '/gone')\nos.rmdir(W + '/gone')\nfor_ever()"),
]  # fmt: skip
