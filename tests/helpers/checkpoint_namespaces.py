"""Namespaces for the checkpoint tests, with `__main__` as a worker has it, here and in fresh processes."""

import linecache
import subprocess
import sys
from types import ModuleType
from typing import Any

import msgspec

from pyrepl3_schemas.messages import Checkpointed, Restore, Restored
from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
from pyrepl3_worker.code.cell_sources import filename_of
from pyrepl3_worker.namespace import CODE_MODULE_KEYS, ENGINE_INTERNALS, MODULE_KEYS

HIDDEN = frozenset(MODULE_KEYS | ENGINE_INTERNALS) - CODE_MODULE_KEYS


class Worker:
    """A namespace that is `__main__`'s from now on, and its checkpoints."""

    def __init__(self, code: str = "", max_bytes: int | None = None) -> None:
        self.module = ModuleType("__main__")
        self.names: dict[str, Any] = self.module.__dict__
        self.names["__builtins__"] = sys.modules["builtins"]
        sys.modules["__main__"] = self.module
        self.checkpointer = Checkpointer(self.names, HIDDEN, max_bytes)
        self.store: dict[str, bytes] = {}
        self.run(code)

    def run(self, code: str) -> None:
        """Run a cell."""
        filename = filename_of(code)
        linecache.cache[filename] = (len(code), None, [f"{line}\n" for line in code.splitlines()], filename)
        exec(compile(code, filename, "exec", dont_inherit=True), self.names)

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the namespace."""
        return eval(expression, self.names)

    def take(self) -> Checkpointed:
        """Create a checkpoint, as a client does that keeps all blobs."""
        answer = self.checkpointer.create_checkpoint("c", list(self.store))
        self.store.update(answer.blobs)
        return answer

    def unsaved(self) -> dict[str, str]:
        """Create a checkpoint; return the reasons for what could not be saved."""
        return {unsaved.name: unsaved.reason for unsaved in self.take().unsaved}

    def restore(self, answer: Checkpointed, store: dict[str, bytes] | None = None) -> Restored:
        """Put a checkpoint back into this namespace."""
        blobs = self.store if store is None else store
        return self.checkpointer.restore(Restore(checkpoint_id="c", data=answer.data, blobs=blobs))

    def reborn(self) -> "Worker":
        """Return what a new worker has after this one's death. Everything must come back."""
        answer = self.take()
        assert not answer.unsaved
        other = Worker()
        other.store = self.store
        restored = other.restore(answer)
        assert not restored.unsaved
        return other


_CHILD = """
import sys
from types import ModuleType
import msgspec
from pyrepl3_schemas.messages import Restore
from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
module = sys.modules["__main__"] = ModuleType("__main__")
namespace = module.__dict__
namespace["__builtins__"] = sys.modules["builtins"]
message = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Restore)
restored = Checkpointer(namespace, frozenset(%r)).restore(message)
sys.stdout.buffer.write(msgspec.msgpack.encode([msgspec.to_builtins(restored), eval(%r, namespace)]))
"""


def in_a_fresh_process(worker: Worker, expression: str) -> Any:
    """Restore a worker's checkpoint in a new interpreter; return what an expression is worth there."""
    answer = worker.take()
    message = Restore(checkpoint_id="c", data=answer.data, blobs=worker.store)
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD % (sorted(HIDDEN), expression)],
        input=msgspec.msgpack.encode(message),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    restored, value = msgspec.msgpack.decode(done.stdout)
    assert restored.get("unsaved", []) == [msgspec.to_builtins(unsaved) for unsaved in answer.unsaved]
    return value
