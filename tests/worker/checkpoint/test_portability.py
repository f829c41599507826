"""A checkpoint of another version of Python: what both can load comes back, all else is named."""

import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.messages import Checkpointed, Restore
from pyrepl3_worker.checkpoint.manifest import Manifest
from tests.helpers.checkpoint_namespaces import HIDDEN, Worker
from tests.helpers.other_python import other_python


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


PORTABLE = """
import argparse, collections, datetime, decimal, fractions, json, pathlib, queue, re, threading, types, uuid
count, text, items, table = 3, "abc", [1, [2]], {"a": {1, 2}}
shared = items
path = pathlib.PurePosixPath("/a/b")
when, money, part = datetime.date(2024, 1, 2), decimal.Decimal("1.10"), fractions.Fraction(1, 3)
fancy = collections.defaultdict(list, a=[1])
own = collections.UserDict(a=1)
options = argparse.Namespace(a=1)
simple = types.SimpleNamespace(a=items)
pattern, identity = re.compile("a(b)"), uuid.UUID(int=5)
lock = threading.Lock()
library_function, library_class = json.dumps, json.JSONDecoder
class Empty: pass
empty = Empty()
empty.items = items
error = ValueError("x")
"""
BOUND = """
def double(x): return 2 * x
class Point:
    def __init__(self, x): self.x = x
    def far(self): return self.x > 9
point = Point(1)
points = [point, Point(2)]
half = lambda x: x / 2
code = compile("1", "<x>", "eval")
numbered = collections.namedtuple("numbered", "a b")
pair = numbered(1, 2)
waiting = queue.Queue()
waiting.put(1)
"""
NEEDS = {"point": "Point", "points": "Point", "pair": "numbered"}
BOUND_NAMES = {"double", "Point", "half", "code", "numbered", "waiting", *NEEDS}
LOOK = """[
    count, text, items, table["a"] == {1, 2}, shared is items and simple.a is items and empty.items is items,
    str(path), str(when), str(money), str(part), fancy["a"], fancy["b"], own["a"], options.a,
    pattern.match("ab").group(1), str(identity), lock.locked(), library_function is json.dumps,
    library_class is json.JSONDecoder, type(empty) is Empty, str(error),
]"""


def altered(answer: Checkpointed, python: str) -> Checkpointed:
    """Return a checkpoint as if another version of Python had saved it."""
    found = msgspec.msgpack.decode(answer.data, type=Manifest)
    data = msgspec.msgpack.encode(msgspec.structs.replace(found, python=python))
    return msgspec.structs.replace(answer, data=data)


def check_report(lost: dict[str, str], saved_by: str) -> None:
    assert lost.keys() == BOUND_NAMES
    for name, reason in lost.items():
        needed = f"it needs {NEEDS[name]!r}: " if name in NEEDS else ""
        assert reason.startswith(f"{needed}it holds code or inner state of {saved_by}, which CPython 3."), (
            name
        )


def test_what_holds_no_code_comes_back_from_another_python_and_the_rest_is_named() -> None:
    worker = Worker(PORTABLE + BOUND)
    expected = worker.value(LOOK)
    answer = worker.take()
    assert not answer.unsaved
    other = Worker("double = 'of before'")
    restored = other.restore(altered(answer, "CPython 3.2"), worker.store)
    check_report({each.name: each.reason for each in restored.unsaved}, "CPython 3.2")
    assert other.value(LOOK) == expected
    assert not BOUND_NAMES & other.names.keys()


def test_names_that_share_objects_with_code_are_named_too() -> None:
    worker = Worker("log = []\ndef note(x, log=log): log.append(x)\nplain = 1")
    other = Worker()
    restored = other.restore(altered(worker.take(), "CPython 3.2"), worker.store)
    assert {each.name for each in restored.unsaved} == {"log", "note"}
    assert other.names["plain"] == 1


def test_a_format_that_this_worker_does_not_know_is_refused() -> None:
    worker = Worker("x = 1")
    found = msgspec.msgpack.decode(worker.take().data, type=Manifest)
    data = msgspec.msgpack.encode(msgspec.structs.replace(found, version=99))
    with pytest.raises(LocalProtocolError, match="has format 99"):
        worker.checkpointer.restore(Restore(checkpoint_id="c", data=data))


_OTHER = """
import linecache, sys
from types import ModuleType
import msgspec
from pyrepl3_schemas.messages import Restore
from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
module = sys.modules["__main__"] = ModuleType("__main__")
namespace = module.__dict__
namespace["__builtins__"] = sys.modules["builtins"]
code, look, answer, store = msgspec.msgpack.decode(sys.stdin.buffer.read())
checkpointer = Checkpointer(namespace, frozenset(%r))
exec(code, namespace)
lost = []
if answer is not None:
    message = Restore(checkpoint_id="c", data=answer, blobs=store)
    lost = [(each.name, each.reason) for each in checkpointer.restore(message).unsaved]
saved = checkpointer.create_checkpoint("c", [])
sys.stdout.buffer.write(msgspec.msgpack.encode([lost, eval(look, namespace), saved.data, saved.blobs]))
"""


def test_both_ways_between_two_versions_of_python(pytestconfig: pytest.Config) -> None:
    other = other_python(pytestconfig)

    def run(code: str, look: str, answer: bytes | None, store: dict[str, bytes]) -> list[object]:
        done = subprocess.run(
            [other.program, "-P", "-c", _OTHER % sorted(HIDDEN)],
            input=msgspec.msgpack.encode([code, look, answer, store]),
            env={"PYTHONPATH": other.path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return msgspec.msgpack.decode(done.stdout)

    here = Worker(PORTABLE + BOUND)
    expected = here.value(LOOK)
    lost, value, *_ = run("", LOOK, here.take().data, here.store)
    check_report(dict(lost), f"CPython 3.{sys.version_info.minor}")  # type: ignore[call-overload]
    assert value == expected
    _, value, data, blobs = run(PORTABLE + BOUND, LOOK, None, {})
    again = Worker()
    restored = again.restore(Checkpointed(checkpoint_id="c", data=data, blobs=blobs), blobs)  # type: ignore[arg-type]
    check_report({each.name: each.reason for each in restored.unsaved}, other.name)
    assert again.value(LOOK) == expected == value
