"""The client's error tree: one base class, pickled whole, texts that stay short."""

import inspect
import pickle

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
