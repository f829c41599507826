"""What pickle can't save comes back by kind in a new worker, or is named."""

import asyncio
import os
import signal
from importlib.util import find_spec
from itertools import batched
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

IMPORTS = """
import asyncio, collections, contextlib, contextvars, csv, dataclasses, functools, io, itertools, logging, mmap, os, queue, re, sqlite3, struct
import tempfile, threading, types, weakref, zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
class Thing:
    def __init__(self, v=1): self.v = v
    def go(self): return self.v
def count(a, *rest, k=0, **more):
    yield a, rest, k, more
def path(name, text='one\\ntwo\\nthree\\n'):
    with open(name, 'w') as file: file.write(text)
    return os.path.abspath(name)
"""
# Name: what makes it, and an expression that has the same value before (in another worker) and after.
KINDS = {
    "lock": ("lock = threading.Lock(); lock2 = [lock]", "lock2[0] is lock, lock.acquire(False), lock.locked(), lock.release()"),
    "rlock": ("rlock = threading.RLock()", "rlock.acquire(False), rlock.release()"),
    "condition": ("condition = threading.Condition()", "condition.acquire(False), condition.notify(), condition.release()"),
    "condition_of": ("base = threading.Lock(); condition_of = threading.Condition(base)", "condition_of._lock is base"),
    "event": ("event = threading.Event(); event.set()", "event.is_set(), event.wait(0)"),
    "semaphore": ("semaphore = threading.BoundedSemaphore(2); semaphore.acquire()", "semaphore.acquire(False), semaphore.acquire(False)"),
    "barrier": ("barrier = threading.Barrier(1)", "barrier.wait(5)"),
    "guarded": ("@dataclasses.dataclass\nclass Guarded:\n    lock: object = dataclasses.field(default_factory=threading.Lock)\nguarded = Guarded()", "guarded.lock.acquire(False)"),
    "fifo": ("fifo = queue.Queue(5); fifo.put(1); fifo.put([2])", "fifo.get(False), fifo.get(False), fifo.maxsize, fifo.empty()"),
    "priority": ("priority = queue.PriorityQueue(); priority.put(2); priority.put(1)", "priority.get(False), priority.get(False)"),
    "simple": ("simple = queue.SimpleQueue(); simple.put(1); simple.put(2)", "simple.get(False), simple.get(False), simple.empty()"),
    "aqueue": ("aqueue = asyncio.Queue(3); await aqueue.put(7)\nasync def later(): await aqueue.put(8)\nasync def take(): return await aqueue.get(), await aqueue.get()\nt = asyncio.create_task(later()); x = await take(); await aqueue.put(9); del t, x", "aqueue.get_nowait(), aqueue.maxsize"),
    "alock": ("alock = asyncio.Lock()\nasync with alock: pass", "alock.locked()"),
    "aevent": ("aevent = asyncio.Event(); aevent.set()", "aevent.is_set()"),
    "asemaphore": ("asemaphore = asyncio.Semaphore(3); await asemaphore.acquire()", "asemaphore._value"),
    "acondition": ("acondition = asyncio.Condition()\nasync with acondition: pass", "acondition.locked()"),
    "reader": ("reader = open(path('r.txt')); reader.readline()", "reader.readline(), reader.tell(), reader.mode, reader.encoding"),
    "writer": ("writer = open('w.txt', 'w'); writer.write('abc'); writer.flush()", "writer.write('DEF'), writer.flush(), open('w.txt').read()"),
    "appender": ("appender = open(path('a.txt'), 'a'); appender.write('x')", "appender.write('y'), appender.flush(), open('a.txt').read()[-2:]"),
    "updater": ("updater = open(path('u.txt'), 'r+'); updater.seek(4)", "updater.write('TWO'), updater.flush(), open('u.txt').read()"),
    "binary": ("binary = open(path('b.bin'), 'rb'); binary.read(4)", "binary.read(3), binary.tell(), type(binary).__name__"),
    "raw": ("raw = open(path('raw.bin'), 'rb', 0); raw.read(4)", "raw.read(3), type(raw).__name__"),
    "closed": ("closed = open(path('c.txt')); closed.close()", "closed.closed, closed.name[-5:], closed.mode, closed.encoding"),
    "closed_raw": ("closed_raw = [open(path('c.bin'), mode, buffering) for mode in ('rb', 'wb', 'ab', 'rb+') for buffering in (0, -1)]; [each.close() for each in closed_raw]", "[(type(each).__name__, each.name[-5:], each.mode, each.closed) for each in closed_raw]"),
    "two_names": ("f1 = open(path('n.txt')); f2 = {'f': f1}", "f1.readline(), f2['f'].readline(), f2['f'] is f1"),
    "named": ("named = tempfile.NamedTemporaryFile('w+', dir='.'); named.write('abc'); named.flush()", "named.seek(0), named.read(), os.path.exists(named.name)"),
    "folder": ("folder = tempfile.TemporaryDirectory(dir='.'); open(folder.name + '/f', 'w').close()", "os.listdir(folder.name), os.path.samefile(folder.__enter__(), folder.name)"),
    "text": ("text = io.StringIO('a\\nb'); text.readline()", "text.read()"),
    "archive": ("with zipfile.ZipFile('z.zip', 'w') as z: z.writestr(zipfile.ZipInfo('m'), 'content')\ndel z\narchive = zipfile.ZipFile('z.zip')", "archive.read('m'), archive.namelist()"),
    "rows": ("sheet = open('s.csv', 'w', newline=''); rows = csv.writer(sheet, delimiter=';'); rows.writerow(['a', 'b;'])", "rows.writerow([1, None]), rows.dialect.delimiter, sheet.flush(), open('s.csv').read()"),
    "records": ("records = csv.DictWriter(io.StringIO(), 'ab'); records.writeheader()", "records.writerow({'a': 1})"),
    "closed_rows": ("with open('cl.csv', 'w') as closed_sheet: closed_rows = csv.writer(closed_sheet)", "closed_sheet.closed, closed_rows.dialect.quoting"),
    "memory": ("memory = sqlite3.connect(':memory:'); memory.row_factory = sqlite3.Row; memory.execute('create table t(a)'); memory.execute('insert into t values(5)'); memory.commit()", "tuple(memory.execute('select * from t').fetchone()), memory.row_factory.__name__"),
    "database": ("database = sqlite3.connect('d.db'); database.execute('create table t(a)'); database.execute('insert into t values(5)'); database.commit()", "database.execute('select * from t').fetchall()"),
    "cursor": ("cursor = memory.cursor()", "cursor.connection is memory, tuple(cursor.execute('select * from t').fetchone())"),
    "ref": ("thing = Thing(); ref = weakref.ref(thing)", "ref() is thing"),
    "dead_ref": ("dead_ref = weakref.ref(Thing())", "dead_ref()"),
    "hidden_ref": ("things = [Thing(3)]; hidden_ref = [weakref.ref(things[0])]", "hidden_ref[0]() is things[0]"),
    "proxy": ("proxied = Thing(4); proxy = weakref.proxy(proxied)", "type(proxy).__name__, proxy.v, [proxy.__reduce_ex__.__self__ is proxied]"),
    "weak_method": ("owner = Thing(5); weak_method = weakref.WeakMethod(owner.go)", "weak_method()(), weak_method().__self__ is owner"),
    "weak_values": ("kept = Thing(6); weak_values = weakref.WeakValueDictionary(k=kept)", "weak_values['k'] is kept"),
    "pool": ("pool = ThreadPoolExecutor(2, 'mine'); pool.submit(len, 'ab').result(); pool.shutdown(wait=False) if False else None", "pool.submit(len, 'abc').result(), pool._max_workers"),
    "processes": ("processes = ProcessPoolExecutor(2); processes.submit(len, 'ab').result()", "processes.submit(len, 'abc').result(), processes._max_workers, processes.shutdown()"),
    "spawning": ("import multiprocessing; spawning = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), max_tasks_per_child=3); None", "spawning._mp_context.get_start_method(), spawning._max_tasks_per_child, spawning._max_workers"),
    "variable": ("variable = contextvars.ContextVar('variable'); token = variable.set([1]); del token; variables = [variable]", "variable.name, variable.get(), variables[0] is variable"),
    "default": ("default = contextvars.ContextVar('default', default=5)", "default.get(), contextvars.Context().run(default.get)"),
    "changed": ("changed = contextvars.ContextVar('changed', default=5); token = changed.set(6); del token", "changed.get(), contextvars.Context().run(changed.get)"),
    "unset": ("unset = contextvars.ContextVar('unset')", "unset.get('nothing')"),
    "local": ("local = threading.local(); local.x = 5", "local.x"),
    "fresh": ("fresh = count(1, 2, 3, k=4, z=5)", "list(fresh)"),
    "ended": ("ended = count(1); list(ended)", "list(ended)"),
    "pattern": ("pattern = re.compile('a(b)')", "pattern.match('ab').group(1)"),
    "match": ("match = re.search('a(b)', 'xxab')", "match.group(1), match.span(), match.string"),
    "compiled": ("compiled = struct.Struct('<i')", "compiled.pack(1)"),
    "logger": ("logger = logging.getLogger('my.own')", "logger is logging.getLogger('my.own')"),
    "counter": ("counter = itertools.count(5, 2); next(counter)", "next(counter), next(counter)"),
    "chained": ("chained = itertools.chain([1, 2], 'ab'); next(chained)", "list(chained)"),
    "iterator": ("iterator = iter([1, 2, 3]); next(iterator)", "list(iterator)"),
    "zipped": ("zipped = zip([1, 2], 'ab'); next(zipped)", "list(zipped)"),
    "enumerated": ("enumerated = enumerate('ab'); next(enumerated)", "list(enumerated)"),
    "mapped": ("mapped = map(len, ['a', 'bb'])", "list(mapped)"),
    "mapped_file": ("with open(path('mf.bin', 'x' * 9000), 'r+b') as file: mapped_file = mmap.mmap(file.fileno(), 4000, offset=4096); mapped_file.seek(5)\ndel file", "len(mapped_file), mapped_file.tell(), mapped_file[:3], mapped_file.write(b'new'), mapped_file.flush(), open('mf.bin').read()[4096:4108]"),
    "mapped_to_read": ("with open(path('mr.bin'), 'rb') as file: mapped_to_read = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\ndel file", "mapped_to_read[:], repr(mapped_to_read)"),
    "mapped_copy": ("with open(path('mc.bin', 'x' * 9000), 'rb') as file: mapped_copy = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)\ndel file; mapped_copy[8000] = 7", "mapped_copy[7999:8002], repr(mapped_copy), open('mc.bin').read()[8000]"),
    "mapped_private": ("with open(path('mp.bin'), 'rb') as file: mapped_private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)\ndel file; mapped_private[0] = 7", "mapped_private[:3], repr(mapped_private), open('mp.bin').read(2)"),
    "mapped_memory": ("mapped_memory = mmap.mmap(-1, 9000); mapped_memory[8000] = 7; mapped_memory.seek(3)", "mapped_memory[7999:8002], mapped_memory.write(b'abc'), repr(mapped_memory)"),
    "mapped_alone": ("mapped_alone = mmap.mmap(-1, 9000, flags=mmap.MAP_PRIVATE); mapped_alone[8000] = 7", "mapped_alone[7999:8002], repr(mapped_alone)"),
    "mapped_closed": ("mapped_closed = mmap.mmap(-1, 9000); mapped_closed.close()", "mapped_closed.closed"),
    "handler": ("handler = logging.FileHandler('h.log', 'w'); handler.emit(logging.makeLogRecord({'msg': 'one'}))", "handler.mode, handler.emit(logging.makeLogRecord({'msg': 'two'})), open('h.log').read(), handler.close(), handler.emit(logging.makeLogRecord({'msg': 'three'})), open('h.log').read()"),
    "rotating": ("import logging.handlers; rotating = logging.handlers.RotatingFileHandler('ro.log', 'w'); rotating.emit(logging.makeLogRecord({'msg': 'one'}))", "rotating.mode, rotating.emit(logging.makeLogRecord({'msg': 'two'})), open('ro.log').read()"),
    "attached": ("attached = logging.FileHandler('at.log', 'w'); [logging.getLogger(each).addHandler(attached) for each in ('one', 'other')]; logging.getLogger('one').warning('1')", "[logging.getLogger(each).handlers[0] is attached for each in ('one', 'other')], attached.mode, attached.stream.mode, logging.getLogger('other').warning('2'), open('at.log').read(), logging.getLogger('one').removeHandler(attached), logging.getLogger('one').handlers, attached.close(), logging.getLogger('other').warning('3'), open('at.log').read()"),
    "late_handler": ("late_handler = logging.FileHandler('late.log', delay=True); logging.getLogger('late').addHandler(late_handler)", "os.path.exists('late.log'), late_handler.delay, late_handler.stream, logging.getLogger('late').warning('1'), open('late.log').read()"),
    "wave": ("import wave; wave = wave.open('w.wav', 'wb'); wave.setparams((1, 2, 8000, 0, 'NONE', '')); wave.writeframes(b'abcd'); wave._file.flush()", "wave.getnframes(), wave.writeframes(b'efgh'), wave.getnframes(), wave.close(), open('w.wav', 'rb').read()"),
    "tar": ("import tarfile; tar = tarfile.open('t.tar', 'w'); tar.addfile(tarfile.TarInfo('in.txt')); tar.fileobj.flush()", "tar.getnames(), tar.addfile(tarfile.TarInfo('again.txt')), tar.close(), tarfile.open('t.tar').getnames()"),
    "appended_zip": ("appended_zip = zipfile.ZipFile('az.zip', 'w'); appended_zip.writestr(zipfile.ZipInfo('m'), 'content'); appended_zip.fp.flush()", "appended_zip.writestr(zipfile.ZipInfo('n'), 'more'), appended_zip.close(), zipfile.ZipFile('az.zip').namelist()"),
    "stack": ("stack = contextlib.ExitStack()", "stack.close()"),
}  # fmt: skip
LIBRARIES = {
    "numpy": {
        "memmap": ("import numpy\nmemmap = numpy.memmap('m.dat', 'f8', 'w+', shape=(4, 4)); memmap[3, 3] = 7; part = memmap[2:4]; part[0, 0] = 5", "float(memmap[3, 3]), float(memmap[2, 0]), numpy.shares_memory(memmap, part), type(part).__name__"),
        "lent": ("import numpy, array\nlent_bytes, lent_items, lent_map = bytearray(20), array.array('i', [1, 2, 3]), mmap.mmap(-1, 100)\nlent = [numpy.frombuffer(lent_bytes, 'u1'), numpy.frombuffer(lent_items, 'i4')[1:], numpy.frombuffer(lent_map, 'u1', 5, 10), numpy.frombuffer(bytes(3), 'u1')]", "lent_bytes.__setitem__(0, 7), lent_items.__setitem__(1, 8), lent_map.__setitem__(10, 9), [int(each[0]) for each in lent], [each.flags.writeable for each in lent]"),
        "in_memmap": ("import numpy\nin_memmap = numpy.asarray(numpy.memmap('im.dat', 'u1', 'w+', shape=(9,)))[2:]", "in_memmap.__setitem__(0, 5), in_memmap.base.flush() if hasattr(in_memmap.base, 'flush') else None, type(in_memmap).__name__, open('im.dat', 'rb').read()"),
        "rng": ("rng = numpy.random.default_rng(3); rng.random()", "float(rng.random())"),
    },
    "shelve": {"shelf": ("import shelve; shelf = shelve.open('shelf', 'n'); shelf['a'] = 1; shelf.sync()", "dict(shelf), shelf.__setitem__('b', 2), sorted(shelf)")},  # its bytes are others each time
    "duckdb": {"duck": ("import duckdb\nduck = duckdb.connect(':memory:'); duck.execute('create table t as select range a from range(5)'); None", "duck.execute('select sum(a) from t').fetchone()")},
    "sqlalchemy": {"engine": ("import sqlalchemy\nengine = sqlalchemy.create_engine('sqlite:///e.db')\nwith engine.begin() as c: c.exec_driver_sql('create table t(a)')\ndel c", "engine.connect().exec_driver_sql('select count(*) from t').fetchone()[0]")},
    "httpx": {"client": ("import httpx\nclient = httpx.Client(base_url='http://127.0.0.1:1/x', headers={'A': 'b'}, cookies={'c': 'd'})", "str(client.base_url), client.headers['A'], client.cookies['c']")},
    "requests": {"web": ("import requests\nweb = requests.Session(); web.headers['A'] = 'b'", "web.headers['A']")},
}  # fmt: skip
HERE = {
    **KINDS,
    **{
        name: kind
        for library, kinds in LIBRARIES.items()
        if find_spec(library)
        for name, kind in kinds.items()
    },
}
REFUSED = {
    "held": ("held = threading.Lock(); held.acquire()", "a lock that is held"),
    "begun": ("begun = count(1); begun2 = (x for x in [1, 2]); next(begun2)\ndel begun", "", "begun2", "a generator's place in its code"),
    "transaction": ("transaction = sqlite3.connect(':memory:'); transaction.execute('create table t(a)'); transaction.execute('insert into t values(1)')", "a transaction is open"),
    "selected": ("selected = sqlite3.connect(':memory:').execute('select 1')", "a cursor's place"),
    "deleted": ("deleted = open(path('gone.txt')); os.unlink('gone.txt')", "has no path any more"),
    "finalizer": ("finalizer = weakref.finalize(Thing, print)", "a finalizer belongs to an object of one process"),
    "unlinked_map": ("with open(path('um.bin'), 'r+b') as file: unlinked_map = mmap.mmap(file.fileno(), 0)\ndel file; os.unlink('um.bin')", "the file that is mapped has no path any more"),
    "wrapped": ("wrapped = io.TextIOWrapper(io.BytesIO())", "text over a BytesIO"),
    "piped": ("piped = os.fdopen(os.pipe()[0])", "no path"),
}  # fmt: skip


RELATIVE = {
    "read": ("read = open('read.txt'); read.readline()", "read.read()"),
    "written": ("written = csv.writer(open('rows.csv', 'w', newline='', buffering=1)); written.writerow([1])", "written.writerow([2]), open(FOLDER + '/rows.csv').read()"),
    "log": ("log = logging.FileHandler('x.log', 'w'); log.emit(logging.makeLogRecord({'msg': 'one'}))", "log.emit(logging.makeLogRecord({'msg': 'two'})), open(FOLDER + '/x.log').read()"),
    "table": ("table = sqlite3.connect('d.db'); table.execute('create table t(a)'); table.commit()", "table.execute('select * from t').fetchall()"),
    "mapped": ("with open('read.txt', 'r+b') as file: mapped = mmap.mmap(file.fileno(), 0)\ndel file", "mapped[:]"),
    "folder": ("folder = tempfile.TemporaryDirectory(dir='.'); open(folder.name + '/f', 'w').close()", "os.listdir(folder.name)"),
}  # fmt: skip
"""Kinds whose file was named by a relative path, as `KINDS`."""
if find_spec("numpy"):
    RELATIVE["array"] = ("import numpy; array = numpy.memmap('m.dat', 'u1', 'w+', shape=(4,)); array[0] = 7", "int(array[0])")  # fmt: skip
if find_spec("duckdb"):
    RELATIVE["duck"] = LIBRARIES["duckdb"]["duck"][0].replace(":memory:", "k.duck").replace("None", "duck.execute('checkpoint'); None"), LIBRARIES["duckdb"]["duck"][1]  # fmt: skip
if find_spec("sqlalchemy"):
    RELATIVE["engine"] = LIBRARIES["sqlalchemy"]["engine"]


async def open_worker(tmp_path: Path) -> pyrepl3.Session:
    """Open a session in a folder of its own, where all kinds have been made."""
    os.makedirs(tmp_path, exist_ok=True)
    session = await pyrepl3.open_session(
        config=pyrepl3.WorkerConfig(cwd=str(tmp_path)), recovery="checkpoint"
    )
    await session.execute(IMPORTS)
    return session


@pytest.mark.timeout(180)  # on a busy machine
async def test_each_kind_is_made_again(tmp_path: Path) -> None:
    undisturbed = await open_worker(tmp_path / "one")
    killed = await open_worker(tmp_path / "two")
    async with undisturbed, killed:
        for some in batched(HERE.values(), 10):  # a checkpoint is taken after each cell
            cell = "\n".join([make for make, _ in some] + ["None"])
            await asyncio.gather(*(session.execute(cell) for session in (undisturbed, killed)))
        saved = await killed.checkpoint()
        assert {each.name: each.reason for each in saved.unsaved} == {}
        os.kill(killed.worker.pid, signal.SIGKILL)
        differences: dict[str, tuple[object, object]] = {}
        for name, (_, look) in HERE.items():
            expected, got = [await each.execute(look, check=False) for each in (undisturbed, killed)]
            assert expected.error is None, f"{name}: {expected.error}"
            outcome = got.repr if got.error is None else got.error.message
            if outcome != expected.repr:
                differences[name] = expected.repr, outcome
        assert differences == {}
        assert killed.recoveries[-1].lost == ()


async def test_a_restore_in_a_live_worker_leaves_temporary_files_where_they_are(tmp_path: Path) -> None:
    async with await open_worker(tmp_path) as session:
        for name in ("named", "folder"):
            await session.execute(f"{KINDS[name][0]}\nNone")
        await session.checkpoint("then")
        for _ in range(2):
            await session.restore("then")
            await session.execute("import gc; gc.collect()")
            result = await session.execute("os.path.exists(named.name), os.listdir(folder.name)")
            assert result.value == [True, ["f"]]
        await session.execute("paths = named.name, folder.name; del named, folder; gc.collect()")
        assert (await session.execute("[os.path.exists(each) for each in paths]")).value == [False, False]


async def test_a_relative_path_is_that_of_the_folder_where_the_object_was_made(tmp_path: Path) -> None:
    """Files of the same names are where the process is when it is saved, and when it comes back."""
    undisturbed = await open_worker(tmp_path / "one")
    killed = await open_worker(tmp_path / "two")
    async with undisturbed, killed:
        for session in (undisturbed, killed):
            await session.execute("FOLDER = os.getcwd(); path('read.txt'); None")
            for make, _ in RELATIVE.values():
                await session.execute(f"{make}\nNone")
            await session.execute(
                "os.mkdir('other'); [path('other/' + name, 'decoy') for name in os.listdir() if os.path.isfile(name)]\n"
                "os.chdir('other')"
            )
        assert not (await killed.checkpoint()).unsaved
        os.kill(killed.worker.pid, signal.SIGKILL)
        for name, (_, look) in RELATIVE.items():
            expected, got = [await each.execute(look) for each in (undisturbed, killed)]
            assert (name, got.repr) == (name, expected.repr)
        assert killed.recoveries[-1].lost == ()


async def test_what_would_be_another_one_is_named(tmp_path: Path) -> None:
    async with await open_worker(tmp_path) as session:
        for make, *_ in REFUSED.values():
            await session.execute(f"{make}\nNone")
        unsaved = {each.name: each.reason for each in (await session.checkpoint()).unsaved}
        expected = {name: rest[-1] for name, (_, *rest) in REFUSED.items() if name != "begun"} | {
            "begun2": REFUSED["begun"][-1]
        }
        assert unsaved.keys() == expected.keys()
        for name, reason in expected.items():
            assert reason in unsaved[name]


async def test_a_file_that_is_gone_or_shorter_is_named_and_not_made(tmp_path: Path) -> None:
    async with await open_worker(tmp_path) as session:
        await session.execute(
            "gone = open(path('gone.txt')); cut = open(path('cut.bin'), 'rb'); cut.read(9); log = open(path('log.txt'), 'a'); db = sqlite3.connect('x.db'); db.execute('create table t(a)'); db.commit()\nNone"
        )
        await session.checkpoint()
        for name in ("gone.txt", "log.txt", "x.db"):
            (tmp_path / name).unlink()
        (tmp_path / "cut.bin").write_text("cut")
        os.kill(session.worker.pid, signal.SIGKILL)
        await session.execute("None")
        lost = {each.name: each.reason for each in session.recoveries[-1].lost}
        assert lost.keys() == {"gone", "cut", "log", "db"}
        assert "gone.txt" in lost["gone"]
        assert "has 3 bytes now" in lost["cut"]
        assert os.listdir(tmp_path) == ["cut.bin"]
        assert (tmp_path / "cut.bin").read_text() == "cut"
