"""The client's error tree: one base class, pickled whole, texts that stay short."""

import ast
import builtins
import importlib
import inspect
import pickle
import pkgutil
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ErrorInfo, ExecutionResult, errors
from pyrepl3_client.results import LazyText

RESULT = ExecutionResult(
    execution_id="e",
    error=ErrorInfo(kind="exception", type="ValueError", message="m"),
    stdout_text=LazyText(["a", "b"]),
)
EXAMPLES: dict[type[BaseException], tuple[object, ...]] = {
    errors.ExecutionFailed: (RESULT,),
    errors.ExecutionTimeout: (RESULT,),
    errors.ExecutionCancelled: (RESULT,),
    errors.WorkerDied: ("it died", 3, None, "words", ("e",), "why", 2),
    errors.SpawnError: ("it died", None, 9),
    errors.ProtocolError: ("bad length", 17),
    errors.SessionBusy: ("s", "host/4711/1/boot/ns/x", 1_700_000_000_000, 3.0),
    errors.LeaseLost: ("s", None, None),
    errors.WeakerConfinement: ("s", "strict", "limits", "it is opened so"),
    errors.BridgeTimeout: ("input", "e", "e:input:1", 2.0),
    errors.SessionFileError: ("a.txt", "is a FIFO", 22),
    errors.SessionFileNotFound: ("a.txt", "is not there", 2),
}
TREE = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_in_the_tree_and_survives_pickling(kind: type[Exception]) -> None:
    assert issubclass(kind, pyrepl3.PyRepl3Error)
    error = kind(*EXAMPLES.get(kind, ("text",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)


NEVER_OUT = {
    "StallError": "the `__cause__` of a WorkerDied, as any ProtocolError is",
    "RefusedError": "raised in the code, as a CapabilityError",
    "RequestRefused": "a TransferError to the caller",
}
"""Errors that no caller sees as what they are, and what they are then."""


def every_error() -> set[type[BaseException]]:
    """Import all of the client, and return the errors of its own."""
    for module in pkgutil.walk_packages(pyrepl3.__path__, "pyrepl3_client."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[type[BaseException]] = set()
    rest: list[type[BaseException]] = [pyrepl3.PyRepl3Error]
    while rest:
        found.add(kind := rest.pop())
        rest += kind.__subclasses__()
    return {kind for kind in found if kind.__module__.startswith("pyrepl3_client")}


HANDLED_INSIDE = {
    "CarriedError": "unwrapped where what it carries is waited for",
    "LauncherGoneError": "the worker is started without the launcher then",
    "ForkServerGoneError": "workers are spawned then",
    "CutOffError": "a WorkerDied to the caller",
    "ShrunkError": "a SessionFileError to the caller",
    "NotApprovedError": "raised in the code, as a PermissionError",
    "ConnectorError": "of Resonate's SDK, which tries again",
    "DecodingError": "of Resonate's SDK, told to the caller",
    "ServerError": "of Resonate's SDK, told to the caller",
    "BadRequestError": "answered with a status 400 or 502",
    "PeerGoneError": "told to the log; answered with a status 502 where that is possible",
    "TooLongError": "answered with a status 400, 431 or 502",
    "CallFailed": "of testing: a script's word for a call's error",
}
"""Other exceptions that the client raises, and who gets them."""


def raised_names() -> set[str]:
    """Return the names of classes that a `raise` of the client makes an object of."""
    files = Path(pyrepl3.__path__[0]).rglob("*.py")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files if "demo" not in path.parts]
    raises = [node.exc for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    called = [node.func if isinstance(node, ast.Call) else node for node in raises]
    return {node.id for node in called if isinstance(node, ast.Name) and node.id[0].isupper()}


def test_what_is_raised_is_public_or_built_in_or_handled_inside() -> None:
    known = {*pyrepl3.__all__, *vars(builtins), *NEVER_OUT, *HANDLED_INSIDE}
    assert raised_names() - known == set()


def test_every_error_can_be_caught_by_a_public_name() -> None:
    hidden = {kind.__name__ for kind in every_error()} - set(pyrepl3.__all__)
    assert hidden == set(NEVER_OUT)
    assert {name for name in errors.__all__ if name not in pyrepl3.__all__} == set()


@pytest.mark.parametrize("kind", [errors.ExecutionTimeout, errors.WorkerUnresponsive])
def test_what_is_about_time_is_a_timeout_error(kind: type[Exception]) -> None:
    assert issubclass(kind, TimeoutError)


@pytest.mark.parametrize(
    ("exit_code", "signal", "words"),
    [
        (3, None, "exit code 3"),
        (None, 9, "killed by SIGKILL"),
        (None, 40, "killed by signal 40"),
        (None, None, ""),
    ],
)
def test_endings_in_words(exit_code: int | None, signal: int | None, words: str) -> None:
    assert errors.describe_exit(exit_code, signal) == words


def test_a_death_with_much_running_names_a_few() -> None:
    text = str(pyrepl3.WorkerDied("it died", running=tuple(f"e{number}" for number in range(1000))))
    assert text == "it died; running: e0, e1, e2, e3, e4 and 995 more"
