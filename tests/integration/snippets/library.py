"""The standard library as people use it in a session: text, files, processes, threads, warnings."""

from tests.integration.snippets import Snippet

ROWS = [
    Snippet(name="print", code="print('a', 1, None)", value=None, stdout="a 1 None\n"),
    Snippet(name="print with sep, end and flush", code="print(1, 2, sep='-', end='!', flush=True)", stdout="1-2!"),
    Snippet(name="print to stderr", code="import sys\nprint('oops', file=sys.stderr)\nprint('ok')", stdout="ok\n", stderr="oops\n"),
    Snippet(name="printing and a value", code="print('side')\n'value'", value="value", stdout="side\n"),
    Snippet(name="sys.stdout.write's value", code="import sys\nsys.stdout.write('abc')", value=3, stdout="abc"),
    Snippet(name="writelines and the binary buffer", code="import sys\nsys.stdout.writelines(['a', 'b'])\nsys.stdout.buffer.write(b'c\\n')\nsys.stdout.flush()", stdout="abc\n"),
    Snippet(name="pprint", code="from pprint import pprint\npprint({'b': 1, 'a': [2]})", stdout="{'a': [2], 'b': 1}\n"),
    Snippet(name="redirect_stdout", code="import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as buf: print('inside')\nbuf.getvalue()", value="inside\n"),
    Snippet(name="the displayhook is not used", code="import sys\nhooked = []\nsys.displayhook = hooked.append\n41 + 1", value=42),
    Snippet(name="logging to stderr", code="import logging\nlogging.getLogger('x1').warning('careful')", stderr="careful\n"),
    Snippet(name="logging with a handler of one's own", code="import logging, sys\nlg = logging.getLogger('x2')\nlg.propagate = False\nlg.addHandler(logging.StreamHandler(sys.stdout))\nlg.error('said')", stdout="said\n"),
    Snippet(name="a warning says where", code="import warnings\n\nwarnings.warn('watch out')", stderr=None),
    Snippet(name="warnings as errors", code="import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')\n    warnings.warn('now')", error="UserWarning", message="now", line=4),
    Snippet(name="a syntax warning does not stop", code="x3 = 1\nx3 is 1", value=True, stderr=None),
    Snippet(name="json", code="import json\njson.loads(json.dumps({'a': [1, None, True]}))", value={"a": [1, None, True]}),
    Snippet(name="re", code="import re\nre.findall(r'\\d+', 'a1b22')", value=["1", "22"]),
    Snippet(name="datetime has a MessagePack form", code="import datetime\ndatetime.date(2024, 2, 29)", repr="datetime.date(2024, 2, 29)", type_name="date"),
    Snippet(name="decimal and fractions", code="from decimal import Decimal\nfrom fractions import Fraction\n(str(Decimal('0.1') + Decimal('0.2')), str(Fraction(1, 3) + Fraction(1, 6)))", value=["0.3", "1/2"]),
    Snippet(name="collections", code="from collections import Counter, defaultdict, deque\n(Counter('aab').most_common(1), list(deque([1, 2], maxlen=1)), defaultdict(list)['x'])", value=[[["a", 2]], [2], []]),
    Snippet(name="itertools", code="import itertools\nlist(itertools.batched('abcde', 2))", value=[["a", "b"], ["c", "d"], ["e"]]),
    Snippet(name="random with a seed", code="import random\nrandom.Random(1).randint(0, 100)", value=17),
    Snippet(name="statistics and math", code="import statistics, math\n(statistics.median([3, 1, 2]), math.isqrt(17))", value=[2, 4]),
    Snippet(name="hashlib and base64", code="import hashlib, base64\n(hashlib.md5(b'x').hexdigest()[:4], base64.b64encode(b'x'))", value=["9dd4", b"eA=="]),
    Snippet(name="a temporary file", code="import tempfile\nwith tempfile.TemporaryFile('w+') as f:\n    f.write('text'); f.seek(0); got = f.read()\ngot", value="text"),
    Snippet(name="open is a blocking call", code="with open('/dev/null') as f: empty = f.read()\nempty", value="", mode="blocking_sync"),
    Snippet(name="pathlib", code="from pathlib import Path\nPath('/a/b.txt').with_suffix('.md')", repr="PosixPath('/a/b.md')", type_name="PosixPath"),
    Snippet(name="csv and io", code="import csv, io\nlist(csv.reader(io.StringIO('a,b\\n1,2')))", value=[["a", "b"], ["1", "2"]]),
    Snippet(name="sqlite in memory", code="import sqlite3\ndb = sqlite3.connect(':memory:')\ndb.execute('select 1 + 1').fetchone()", value=[2], mode="blocking_sync"),
    Snippet(name="the same connection in the next cell", before=("import sqlite3\ndb2 = sqlite3.connect(':memory:')\ndb2.execute('create table t (a)')", "db2.execute('insert into t values (5)')"), code="db2.execute('select a from t').fetchall()", value=[[5]]),
    Snippet(name="subprocess with its output taken", code="import subprocess\nsubprocess.run(['printf', 'hey'], capture_output=True, text=True).stdout", value="hey", mode="blocking_sync"),
    Snippet(name="subprocess with its output left alone", code="import subprocess\nsubprocess.run(['echo', 'from a child']).returncode", value=0, stdout="from a child\n"),
    Snippet(name="a child's stderr", code="import subprocess\nsubprocess.run(['sh', '-c', 'echo bad >&2; exit 3']).returncode", value=3, stderr="bad\n"),
    Snippet(name="a failing child", code="import subprocess\nsubprocess.run(['false'], check=True)", error="CalledProcessError", message="returned non-zero exit status 1", line=2),
    Snippet(name="a child reads an empty stdin", code="import subprocess\nsubprocess.run(['cat'], stdout=-1).stdout", value=b""),
    Snippet(name="os.system", code="import os\nos.system('echo by system')", value=0, stdout="by system\n"),
    Snippet(name="threads", code="import threading\ngot9 = []\nts = [threading.Thread(target=got9.append, args=(i,)) for i in range(3)]\n[t.start() for t in ts]; [t.join() for t in ts]\nsorted(got9)", value=[0, 1, 2]),
    Snippet(name="a thread pool", code="from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool: out9 = list(pool.map(abs, [-1, 2]))\nout9", value=[1, 2]),
    Snippet(name="a thread that fails says so on stderr", code="import threading\ndef fails(): raise ValueError('in a thread')\nt9 = threading.Thread(target=fails)\nt9.start(); t9.join()", stderr=None),
    Snippet(name="threading.local", code="import threading\nloc = threading.local()\nloc.x = 1\nloc.x", value=1),
    Snippet(name="queue and timer", code="import queue, threading\nq9 = queue.Queue()\nthreading.Timer(0, q9.put, ('tick',)).start()\nq9.get(timeout=10)", value="tick"),
    Snippet(name="a signal handler of one's own", code="import signal, os\nseen = []\nold = signal.signal(signal.SIGUSR1, lambda n, f: seen.append(n))\nos.kill(os.getpid(), signal.SIGUSR1)\nsignal.signal(signal.SIGUSR1, old)\nseen == [signal.SIGUSR1]", value=True),
    Snippet(name="an atexit function can be registered", code="import atexit\natexit.register(len, ()) is len", value=True),
    Snippet(name="the working directory and argv", code="import os, sys\n(os.getcwd() == os.path.abspath('.'), type(sys.argv).__name__)", value=[True, "list"]),
    Snippet(name="a module written now can be imported", code="import sys, tempfile, os, importlib\nd9 = tempfile.mkdtemp()\nwith open(os.path.join(d9, 'fresh_module.py'), 'w') as f: f.write('answer = 42')\nsys.path.insert(0, d9)\nimport fresh_module\nimport shutil; shutil.rmtree(d9); sys.path.remove(d9)\nfresh_module.answer", value=42),
    Snippet(name="ctypes calls C", code="import ctypes\nctypes.CDLL(None).abs(-5)", value=5),
    Snippet(name="traceback.format_exc", code="import traceback\ntry: 1/0\nexcept ZeroDivisionError: text9 = traceback.format_exc()\n('1/0' in text9, text9.splitlines()[-1])", value=[True, "ZeroDivisionError: division by zero"]),
    Snippet(name="sys.exc_info is clean afterwards", before=("try: 1/0\nexcept ZeroDivisionError: pass",), code="import sys\nsys.exc_info()", value=[None, None, None]),
    Snippet(name="unittest in a cell", code="""
        import unittest, io
        class T(unittest.TestCase):
            def test_ok(self): self.assertEqual(1, 1)
            def test_bad(self): self.assertEqual(1, 2)
        r = unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(T))
        (r.testsRun, len(r.failures))
    """, value=[2, 1]),
    Snippet(name="timeit", code="import timeit\ntimeit.timeit('x = 1', number=10) >= 0", value=True),
    Snippet(name="typing at run time", code="import typing\ndef f(x: int) -> str: ...\ntyping.get_type_hints(f)['x'] is int", value=True),
    Snippet(name="zoneinfo, uuid and secrets", code="import uuid, secrets\n(uuid.UUID(int=1).hex[-1], len(secrets.token_hex(4)))", value=["1", 8]),
    Snippet(name="help prints", code="def helped():\n    'Some help.'\nhelp(helped)", stdout="Help on function helped in module __main__:\n\nhelped()\n    Some help.\n\n"),
    Snippet(name="the prompt of input goes to whoever answers", code="input('who? ')", error="EOFError", line=1),
    Snippet(name="breakpoint does not hang", code="import sys\nsys.breakpointhook = lambda *a, **k: print('broke')\nbreakpoint()", stdout="broke\n"),
]
