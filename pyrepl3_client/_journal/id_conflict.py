"""The error for other code under an execution id that is taken: it names the first line that differs."""

from pyrepl3_client.errors import ExecutionIdConflict


def conflict(execution_id: str, recorded: str, given: str) -> ExecutionIdConflict:
    """Return the error that says that an id stands for other code, and from which line on."""
    same = next(
        (i for i, (a, b) in enumerate(zip(recorded, given, strict=False)) if a != b),
        min(len(recorded), len(given)),
    )
    line = recorded.count("\n", 0, same) + 1
    return ExecutionIdConflict(
        f"execution id {execution_id!r} stands for other code in this session (they differ from line {line} "
        f"on: {_excerpt(recorded, same)} was recorded, {_excerpt(given, same)} was given); use another id"
    )


def _excerpt(code: str, at: int) -> str:
    start = code.rfind("\n", 0, at) + 1
    return repr(code[start:].partition("\n")[0][:60])
