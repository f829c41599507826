"""Runs a program undisturbed, and once more with its checkpoints and a death after the last of them."""

from tests.helpers.checkpoint_namespaces import Worker
from tests.worker.checkpoint.oracle.programs import CHECKPOINT, Program
from tests.worker.checkpoint.oracle.walker import describe


def difference(program: Program) -> str:
    """Return what is not as in an undisturbed run and not reported either; empty if there is nothing."""
    undisturbed = Worker()
    for cell in program.cells:
        undisturbed.run(cell)
    worker, reported = Worker(), set[str]()
    last = len(program.cells) - 1 - program.cells[::-1].index(CHECKPOINT)
    for at, cell in enumerate(program.cells):
        if cell != CHECKPOINT:
            worker.run(cell)
            continue
        answer = worker.take()
        if at == last:
            killed, worker = worker, Worker()
            worker.store = killed.store
            restored = worker.restore(answer)
            reported = {each.name for each in (*answer.unsaved, *restored.unsaved)}
            if any(name in later for later in program.cells[last:] for name in reported):
                return ""  # what comes after it fails
    expected, got = describe(undisturbed.names, reported), describe(worker.names, reported)
    return "\n".join(
        f"{name}\n  undisturbed {expected.get(name)}\n  came back   {got.get(name)}"
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name) != got.get(name)
    )
