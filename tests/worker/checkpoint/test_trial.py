# ruff: noqa: E501 - a program a line reads best
"""What pickles and then can't be loaded is reported as not saved, and finding that out leaves no trace."""

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrepl3_worker.checkpoint import trial
from pyrepl3_worker.checkpoint.by_value import class_member
from pyrepl3_worker.interrupts.timers import TimerThread
from tests.helpers.checkpoint_namespaces import Worker


@pytest.fixture(autouse=True)
def restore_main_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Where tests run in parallel, the process has a thread of the instrument's, beside which it may be forked.
    ours = vars(trial)["_OUR_THREADS"]
    monkeypatch.setattr("pyrepl3_worker.checkpoint.trial._OUR_THREADS", ours | {"execnet"})
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


UNLOADABLE = {
    "a __setstate__ that raises": (
        "class C:\n    def __setstate__(self, s): raise RuntimeError('no ' + s['v'])\nx = C(); x.v = 'way'",
        "RuntimeError: no way",
    ),
    "a maker that raises": (
        "def make(n): return 1 // n\nclass C:\n    def __reduce__(self): return make, (0,)\nx = C()",
        "ZeroDivisionError: integer division or modulo by zero",
    ),
    "a hash of what is not there yet": (
        "class N:\n    def __init__(self): self.tags = ['a']; self.peers = {self}\n    def __hash__(self): return len(self.tags)\nx = N()",
        "AttributeError: 'N' object has no attribute 'tags'",
    ),
    "wrong arguments for __new__": (
        "class C:\n    def __new__(cls, *, size): return super().__new__(cls)\n    def __getnewargs_ex__(self): return (1,), {}\nx = C(size=1)",
        "TypeError: C.__new__() takes 1 positional argument but 2 were given",
    ),
    "a helper that can't be saved": (
        "def stream():\n    yield 1\nhelper = stream(); next(helper)\nclass C:\n    def __setstate__(self, s): next(helper)\nx = C(); x.v = 1",
        "NameError: name 'helper' is not defined",
    ),
    "an end of the process": (
        "import os\nclass C:\n    def __setstate__(self, s): os._exit(3)\nx = C(); x.v = 1",
        "loading it ends the process (exit code 3)",
    ),
    "a crash": (
        "import os, faulthandler\nclass C:\n    def __setstate__(self, s): faulthandler._sigsegv()\nx = C(); x.v = 1",
        "loading it ends the process (SIGSEGV)",
    ),
    "an exception that is none": (
        "class C:\n    def __setstate__(self, s): raise SystemExit(1)\nx = C(); x.v = 1",
        "SystemExit: 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNLOADABLE)
def test_what_cannot_be_loaded_is_not_called_saved(kind: str) -> None:
    program, reason = UNLOADABLE[kind]
    worker = Worker(f"{program}\nother = [1]")
    unsaved = worker.unsaved()
    assert unsaved.pop("x") == reason
    assert unsaved.keys() <= {"helper"}
    again = Worker()
    again.store = worker.store
    again.restore(worker.take())
    assert again.value("other") == [1]
    assert "x" not in again.names


def test_a_loaded_librarys_object_that_does_not_load_is_not_called_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brittle_library.py").write_text(
        "class Handle:\n    def __setstate__(self, state): raise ValueError('made elsewhere')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType] - its argument has no type
    worker = Worker("import brittle_library\nh = brittle_library.Handle(); h.v = 1\nl = [1]")
    assert worker.unsaved() == {"h": "ValueError: made elsewhere"}


def test_what_needs_an_unloadable_definition_is_not_called_saved() -> None:
    worker = Worker(
        "class Bad:\n    def __setstate__(self, s): raise KeyError('state')\n"
        "bad = Bad(); bad.v = 1\nclass Holder: kept = bad\nholder = Holder()\nfree = 1"
    )
    unsaved = worker.unsaved()
    assert set(unsaved) == {"bad", "Holder", "holder"}
    assert unsaved["holder"] == "it needs Holder, which can't be saved"


SHARING = """
class Bad:
    def __setstate__(self, s): raise RuntimeError('no')
class Good:
    def __setstate__(self, s): self.__dict__.update(s)
bad, part = Bad(), [1]
bad.part = part
direct, one, two = {'bad': bad, 'part': part}, {'part': part}, Good()
two.one = one
also = (part, one)
"""


def test_what_shares_objects_with_an_unloadable_one_is_saved_and_shares_the_rest() -> None:
    worker = Worker(SHARING)
    for _ in range(2):
        assert worker.unsaved() == {"bad": "RuntimeError: no", "direct": "RuntimeError: no"}
        worker.run("part.append(2)")
    other = Worker()
    other.store = worker.store
    other.restore(worker.take())
    assert other.value("part, one['part'] is part, two.one is one, also[0] is part, also[1] is one") == (
        [1, 2, 2], True, True, True, True,
    )  # fmt: skip
    assert not {"bad", "direct"} & other.names.keys()


def test_what_is_shared_through_an_unloadable_one_alone_is_shared_still() -> None:
    worker = Worker(
        "class Bad:\n    def __setstate__(self, s): raise RuntimeError('no')\n"
        "deep = [1]\npair = (deep, 'x')\nfirst = Bad()\nfirst.pair = pair\nsecond = {'p': pair}\n"
        "del pair\nthird = [deep]\ndel deep"
    )
    assert worker.unsaved() == {"first": "RuntimeError: no"}
    other = Worker()
    other.store = worker.store
    other.restore(worker.take())
    assert other.value("third[0] is second['p'][0]")


def test_names_that_fail_only_together_are_all_named() -> None:
    worker = Worker(
        "class Pair:\n    parts = []\n    def __setstate__(self, s):\n"
        "        if any(each is s['part'] for each in Pair.parts): raise ValueError('twice')\n"
        "        Pair.parts.append(s['part']); self.__dict__.update(s)\n"
        "part = [1]\none, two = Pair(), Pair()\none.part = two.part = part"
    )
    unsaved = worker.unsaved()
    assert unsaved.keys() == {"one", "two", "part"}


LOADABLE = {
    "a global counter": (
        "made = 0\nclass C:\n    def __setstate__(self, s):\n        global made\n        made += 1\n        self.__dict__.update(s)\nx = C(); x.v = 1",
        "made",
    ),
    "a registry in the class": (
        "class C:\n    known = []\n    def __setstate__(self, s): C.known.append(self); self.__dict__.update(s)\nx = C(); x.v = 1",
        "len(C.known)",
    ),
    "a random number": (
        "import random\nrandom.seed(1)\nclass C:\n    def __setstate__(self, s): self.v = random.random()\nx = C(); x.v = 1",
        "random.getstate()",
    ),
    "a finalizer": (
        "gone = []\nimport sys\nclass C:\n    def __del__(self): sys.modules['sys'].stdout.write('gone')\n    def __setstate__(self, s): self.__dict__.update(s)\nx = C(); x.v = 1",
        "x.v",
    ),
    "a lookup of other names": (
        "import math\nlimit = [4]\ndef helper(): return math.sqrt(limit[0])\nclass C:\n    def __setstate__(self, s): self.v = helper()\nx = C(); x.v = 2.0",
        "x.v",
    ),
    "what it prints": (
        "class C:\n    def __init__(self): self.v = 1\n    def __setstate__(self, s): self.v = print(s)\nx = C()",
        "x.v",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOADABLE)
def test_a_trial_leaves_no_trace(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    program, look = LOADABLE[kind]
    worker = Worker(program)
    before = worker.value(look), set(sys.modules) | {"pyrepl3_worker.checkpoint.trial"}
    assert worker.unsaved() == {}
    assert (worker.value(look), set(sys.modules) | {"pyrepl3_worker.checkpoint.trial"}) == before
    assert capfd.readouterr() == ("", "")


def test_files_and_programs_stay_untouched_by_a_trial(tmp_path: Path) -> None:
    log, flag = tmp_path / "log", tmp_path / "flag"
    log.write_text("kept")
    worker = Worker(
        "import os\nclass Log:\n    def __setstate__(self, s): self.path = s['path']; open(self.path, 'w').close()\n"
        f"class Run:\n    def __setstate__(self, s): os.system('touch {flag}')\n"
        f"log = Log(); log.path = {str(log)!r}\nrun = Run(); run.v = 1\nclass Bad:\n    def __setstate__(self, s): 1 / 0\nbad = Bad(); bad.v = 1"
    )
    assert set(worker.unsaved()) == {"bad"}
    assert log.read_text() == "kept"
    assert not flag.exists()


def test_an_unchanged_namespace_is_not_tried_again(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.write_text("")
    worker = Worker(
        "class C:\n    def __setstate__(self, s): raise ValueError(open(self.path).read())\n    path = None\n"
        f"C.path = {str(seen)!r}\nx = C(); x.v = 1"
    )
    assert worker.unsaved() == {"x": "ValueError: "}
    seen.write_text("again")
    worker.run("y = [1]")
    assert worker.unsaved() == {"x": "ValueError: "}
    worker.run("x.v = 2")
    assert worker.unsaved() == {"x": "ValueError: again"}
    worker.run("C.__setstate__ = lambda self, s: self.__dict__.update(s)")
    assert worker.unsaved() == {}


def test_a_load_without_end_is_stopped_and_the_next_is_tried() -> None:
    worker = Worker(
        "class Slow:\n    def __setstate__(self, s):\n        while True: pass\n"
        "class Bad:\n    def __setstate__(self, s): raise ValueError\n"
        "a = Slow(); a.v = 1\nb = Bad(); b.v = 1\nc = 1"
    )
    answer = worker.checkpointer.create_checkpoint("c", (), timeout=0.4)
    assert {each.name: each.reason for each in answer.unsaved} == {
        "a": "it took longer than 0.2 s", "b": "ValueError: ",
    }  # fmt: skip


def test_nothing_is_forked_beside_a_thread_of_the_code() -> None:
    worker = Worker(
        "import threading\ngo = None\nclass C:\n    def __setstate__(self, s): raise ValueError\nx = C(); x.v = 1"
    )
    leave = threading.Event()
    begun = threading.Event()

    def code() -> None:
        begun.set()
        leave.wait()

    thread = threading.Thread(target=code)
    thread.start()
    begun.wait()
    try:
        assert worker.unsaved() == {}
    finally:
        leave.set()
        thread.join()
    assert worker.unsaved() == {"x": "ValueError: "}


def test_a_timer_of_the_workers_own_is_no_hindrance_and_no_warning_is_given() -> None:
    worker = Worker("class C:\n    def __setstate__(self, s): raise ValueError\nx = C(); x.v = 1")
    timers = TimerThread()
    timers.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert worker.unsaved() == {"x": "ValueError: "}
    finally:
        timers.stop()


def test_plain_data_and_instances_that_are_made_plainly_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> int:
        raise AssertionError

    monkeypatch.setattr(os, "fork", fail)
    worker = Worker(
        "import collections, dataclasses, decimal, enum\n"
        "class A: pass\na = A(); a.v = {1}\n"
        "@dataclasses.dataclass(frozen=True)\nclass F:\n    a: int\nf = {F(1)}\n"
        "class P(collections.namedtuple('P', 'x y')): pass\np = P(1, 2)\n"
        "class E(enum.Enum):\n    ONE = 1\ne = E.ONE\n"
        "d = decimal.Decimal(1), collections.Counter('aab'), collections.OrderedDict(a=1)\n"
        "class Own(Exception):\n    def __init__(self, a): pass\no = Own(1)\n"
        "class Proxy:\n    def __getattr__(self, n): return getattr(self.t, n)\nq = Proxy(); q.t = 1"
    )
    assert worker.unsaved() == {}
    assert trial.__name__ in sys.modules


def test_a_class_method_of_a_subclass_comes_back() -> None:
    worker = Worker(
        "class own(classmethod):\n    def __init__(self, f, mark=None): super().__init__(f); self.mark = mark\n"
        "class fixed(staticmethod): pass\n"
        "class C:\n    @own\n    def make(cls): return cls\n    @fixed\n    def give(): return 7\n"
        "C.__dict__['make'].mark = [1]\nm = C.__dict__['make']"
    )
    again = worker.reborn()
    assert again.value(
        "C.make() is C, C.give(), type(m) is own, m.mark, m is C.__dict__['make'], type(C.__dict__['give']) is fixed"
    ) == (True, 7, True, [1], True, True)


def test_a_member_that_the_class_has_lost_is_missed() -> None:
    worker = Worker("class A:\n    class B:\n        def f(self): pass")
    found = worker.value("A")
    assert class_member(found, "B.f") is found.B.f
    for path in ("C", "B.g", "B.f.h"):
        with pytest.raises(LookupError, match=f"A.{path}, which the class does not have"):
            class_member(found, path)
