"""A namespace to ask about, and ways to ask."""

import linecache

import pytest

from pyrepl3_schemas.messages import Complete, Completions, Inspect, Inspection
from pyrepl3_worker.inspection.completion import complete, inspect

SETUP = """
import os
import collections as c
import functools

alpha = 1
alphabet = "x"
_private = 2
été = 3
d = {"key one": 1, "kay": {"inner": ["deep"]}, 5: "five", "it's": 0}

class Point:
    "A point."
    origin = 0
    def __init__(self, across, *, up: int | None = 2):
        self.across = across
    def move(self, by=1, /, *rest, speed: str = "slow", **more) -> int:
        "Move it.\\n\\n        By a step."
    @property
    def length(self):
        "How long."
    @classmethod
    def make(cls, of): ...
    @staticmethod
    def helper(what): ...

p = Point(1)
points = [p]

def greet(name, greeting="hi", *, loud=False):
    return name

@functools.cache
def fib(n): ...

@functools.wraps(greet)
def wrapper(*args, **kwargs): ...

partial = functools.partial(greet, "me")
"""


@pytest.fixture(scope="module")
def namespace() -> dict[str, object]:
    lines = [f"{line}\n" for line in SETUP.splitlines()]
    linecache.cache["<cell 1>"] = (len(SETUP), None, lines, "<cell 1>")
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(SETUP, "<cell 1>", "exec", dont_inherit=True), names)
    return names


def at(code: str) -> tuple[str, int]:
    """Take the cursor, `|`, out of the code."""
    before, bar, after = code.partition("|")
    assert bar
    return before + after, len(before)


def ask(namespace: dict[str, object], code: str) -> Completions:
    text, cursor = at(code)
    return complete(namespace, Complete(code=text, cursor=cursor, request_id="r"))


def completed(namespace: dict[str, object], code: str) -> dict[str, str]:
    """Return the whole code as each match would leave it, with the match's kind."""
    text, _ = at(code)
    answer = ask(namespace, code)
    assert len(answer.kinds) == len(answer.matches)
    return {
        text[: answer.cursor_start] + match + text[answer.cursor_end :]: kind
        for match, kind in zip(answer.matches, answer.kinds, strict=True)
    }


def look(namespace: dict[str, object], code: str) -> Inspection:
    text, cursor = at(code)
    return inspect(namespace, Inspect(code=text, cursor=cursor, request_id="r"))
