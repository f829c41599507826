"""Prints what the demo shows: headings, cells, their output as it comes, and remarks."""

import os
import sys
from typing import TextIO

INDENT = "    "


class DemoError(Exception):
    """The product did not do what the demo shows."""


def check(condition: object, claim: str) -> None:
    """Check a claim of the demo.

    Raises:
        DemoError: the condition is false.
    """
    if not condition:
        raise DemoError(f"not as shown: {claim}")


class DemoPrinter:
    """Prints the demo's steps. Each piece is flushed at once, so that output is seen live, also in a pipe."""

    def __init__(self, stream: TextIO, *, colours: bool) -> None:
        """Print to `stream`."""
        self._stream = stream
        self._colours = colours
        self._step_number = 0
        self._at_line_start = True

    @classmethod
    def for_stdout(cls) -> "DemoPrinter":
        """Print to standard output; with colours on a terminal, unless NO_COLOR is set."""
        return cls(sys.stdout, colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))

    def title(self, text: str) -> None:
        """Print a line above all steps."""
        self._line(self._paint("1", text))

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step_number += 1
        self._line()
        self._line(self._paint("1;36", f"{self._step_number:2}. {title}"))

    def code(self, code: str) -> None:
        """Print a cell, before it runs."""
        for line in code.splitlines():
            self._line(f"{INDENT}{self._paint('2', '|')} {line}")

    def output(self, text: str) -> None:
        """Print a piece of a cell's output."""
        for piece in text.splitlines(keepends=True):
            start = INDENT + "  " if self._at_line_start else ""
            self._at_line_start = piece.endswith("\n")
            self._stream.write(
                start + self._paint("32", piece.removesuffix("\n")) + "\n" * self._at_line_start
            )
        self._stream.flush()

    def answer(self, text: str) -> None:
        """Print the demo's answer to a prompt, behind the prompt."""
        self._stream.write(self._paint("33", text) + "\n")
        self._stream.flush()
        self._at_line_start = True

    def value(self, text: str) -> None:
        """Print a cell's value."""
        self._line(f"{INDENT}{self._paint('35', '=')} {text}")

    def traceback(self, text: str) -> None:
        """Print a traceback or another long text."""
        for line in text.rstrip("\n").splitlines():
            self._line(f"{INDENT}  {self._paint('31', line)}")

    def remark(self, text: str) -> None:
        """Print a remark on what has just been shown."""
        self._line(f"{INDENT}{self._paint('2', '# ' + text)}")

    def measurement(self, what: str, value: str, remark: str = "") -> None:
        """Print a measured value."""
        line = f"{INDENT}{what:<36}{self._paint('1', f'{value:>12}')}"
        self._line(f"{line}  {self._paint('2', remark)}" if remark else line)

    def _line(self, text: str = "") -> None:
        if not self._at_line_start:
            self._stream.write("\n")
            self._at_line_start = True
        self._stream.write(text + "\n")
        self._stream.flush()

    def _paint(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours and text else text
