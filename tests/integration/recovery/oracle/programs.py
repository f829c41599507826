"""Generates programs for a session: cells, the checkpoints between them, and the place of its worker's death."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final, Literal

from hypothesis import strategies as st

from tests.integration.recovery import test_makers as makers
from tests.integration.recovery.oracle.settings import (
    LIBRARIES,
    PROVIDED,
    PROVIDED_CHANGES,
    SETTINGS,
    Setting,
)
from tests.worker.checkpoint.oracle.programs import CHECKPOINT, expressions
from tests.worker.checkpoint.oracle.programs import PRELUDE as HOLDERS_PRELUDE

type Part = Literal["state", "names", "files", "makers", "holders", "clock", "module"]
PARTS: Final[tuple[Part, ...]] = ("state", "names", "files", "makers", "holders", "clock", "module")
_TOGETHER: Final[tuple[Part, ...]] = ("state", "names", "files", "makers", "holders")
_APART: Final[tuple[list[Part], ...]] = (["clock"], ["module"], ["clock", "state", "names"])
MODULE: Final = "fickle"
"""A module that can't be imported by the first worker after a death."""
SLOW: Final = "slow"
"""A module whose import takes longer than objects' code may take."""
PRELUDE: Final = """
import os, sys, importlib, pathlib
root = os.getcwd()
def put(name, data, mode='w'):
    os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
    with open(os.path.join(root, name), mode) as file: file.write(data)
def grow(text):
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith('.txt'):
                put(os.path.join(folder, name), text, 'a')
def put_module(name, v):
    put('lib/' + name + '.py', f'class C: v = {v}')
    sys.path.insert(0, root + '/lib'); importlib.invalidate_caches()
class Plain:
    def __init__(self, v): self.v = v
put('a0.txt', 'begun\\n')
"""
_MOST_CHECKPOINTS: Final = 6
_FILES: Final = (
    "put('a{k}.txt', 'line {n}\\n' * {n})", "put('a{k}.txt', 'more {n}\\n', 'a')",
    "put('pack/b{k}.bin', bytes(range(256)) * {n}, 'wb')", "put('large.bin', bytes([{n}]) * 300_000, 'wb')",
    "put('a{k}.txt', ''); os.remove(root + '/a{k}.txt')", "put('o{n}', 'x'); os.rename(root + '/o{n}', root + '/p{k}')",
    "os.makedirs(root + '/pack/in{k}', exist_ok=True)", "put('pack/in{k}/f', '{n}'); import shutil; shutil.rmtree(root + '/pack/in{k}')",
    "os.symlink('a{k}.txt', root + '/link{n}')", "put('a{k}.txt', '{n}'); os.chmod(root + '/a{k}.txt', 0o640)",
    "put_module('mod_{n}', {n}); from mod_{n} import C as C{n}; i{n} = C{n}(); i{n}.w = [{n}]",
    "put_module('mod_{n}', {n}); import mod_{n}; m{n} = [mod_{n}.C()]",
)  # fmt: skip
_GROWN: Final = ("put('a{k}.txt', ''); grow('once {n}\\n')", "grow('and {n}\\n')", "grow('{n}')")
"""Changes that show by how often they were run."""
_OPENED: Final = (
    "put('r{n}', 'one\\ntwo\\nthree\\n'); f{n} = open(root + '/r{n}'); f{n}.readline()",
    "put('r{n}', 'one\\ntwo\\n'); f{n} = [open(root + '/r{n}', 'a')]; f{n}[0].write('x'); f{n} = f{n}[0]",
    "f{n} = open(root + '/r{n}', 'w'); f{n}.write('new {n}'); f{n}.seek(2); f{n}.write('-')",
    "put('r{n}', 'one\\ntwo\\n'); os.chdir(root); f{n} = open('r{n}', 'r+'); f{n}.seek(4)",
    "put('r{n}', b'0123456789', 'wb'); f{n} = open(root + '/r{n}', 'rb'); f{n}.read({n} % 10)",
    "f{n} = open(root + '/r{n}', 'wb', 0); f{n}.write(b'raw'); g{n} = (f{n}, f{n})",
)  # fmt: skip
_CLOSE: Final = "{h}.close()"
_HANDLE_CHANGES: Final = (
    "{h}.writable() or {h}.readline()", "{h}.writable() and {h}.write('+' if hasattr({h}, 'encoding') else b'+')",
    "{h}.seek(1)", _CLOSE, "{h}.writable() and {h}.flush()", "kept_{h} = {{'h': {h}}}",
)  # fmt: skip
_PLAIN: Final = (
    "big{n} = [[k, str(k)] for k in range(20_000)]", "big{n} = [Plain(k) for k in range(10_000)]",
    "big{n} = {{k: (k, [k]) for k in range(15_000)}}", "small{n} = [{n}]",
    f"import {SLOW}; slow_{{n}} = {SLOW}.Slow({{n}})", f"from {SLOW} import Slow as Slow{{n}}",
)  # fmt: skip
_OF_MODULE: Final = (
    f"import {MODULE}", f"m{{n}} = __import__('{MODULE}').Part({{n}})", f"from {MODULE} import Part as P{{n}}",
    "l{n} = [{n}]", f"d{{n}} = [__import__('{MODULE}').Part({{n}})]",
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """Cells, and what happens between them."""

    cells: tuple[str, ...]
    policy: Literal["auto", "checkpoint"]
    killed_after: int
    """The index of the cell, or checkpoint, after which the worker dies."""
    parts: frozenset[Part] = frozenset()
    settings: dict[str, Setting] = field(default_factory=dict[str, Setting])
    """What has been changed in the process."""
    kinds: frozenset[str] = frozenset()
    """Names of `test_makers.HERE` that have been made."""
    named: frozenset[str] = frozenset()
    """Beginnings of what the report may name."""

    def __repr__(self) -> str:
        """Show it as a program to be read, without what many programs begin with."""
        lines = [cell or "# checkpoint" for cell in self.cells]
        lines.insert(self.killed_after + 1, f"# killed (recovery={self.policy!r})")
        shown = [line for line in lines if line not in (PRELUDE, HOLDERS_PRELUDE, makers.IMPORTS)]
        return "\n".join(shown)

    def may_be_named(self, name: str, reason: str) -> bool:
        """Return whether a report may name this, with that reason."""
        if "took longer" in reason:
            return False
        return any(name == each or re.fullmatch(each, name) is not None for each in self.named)

    @property
    def looks(self) -> dict[str, str]:
        """Expressions that say what there is to say of the kinds that were made."""
        return {name: makers.HERE[name][1] for name in makers.HERE if name in self.kinds}


class _Writer:
    """Draws the cells of one program."""

    def __init__(self, draw: st.DrawFn, parts: Collection[Part], libraries: Collection[str]) -> None:
        self._draw = draw
        self._parts = sorted(parts)
        self._known = {**SETTINGS, **{k: v for each in libraries for k, v in LIBRARIES[each].items()}}
        self._holders: list[str] = []
        self._handles: list[str] = []
        self._n = 0
        self.cells = [PRELUDE]
        self.settings: dict[str, Setting] = {}
        self.kinds: list[str] = []
        self.named: set[str] = set()
        if "makers" in parts:
            self.cells.append(makers.IMPORTS)
        if "holders" in parts:
            self.cells.append(HOLDERS_PRELUDE)
            self.named.add(r"n\d+|Out\[\d+\]")

    def add(self) -> None:
        """Add a cell."""
        self._n += 1
        match self._draw(st.sampled_from(self._parts)):
            case "state":
                self._change_state()
            case "names":
                self._add_one_of(PROVIDED_CHANGES, name=self._draw(st.sampled_from(PROVIDED)))
            case "files":
                self._change_files()
            case "makers":
                self._make_kind()
            case "holders":
                self._hold()
            case "clock":
                self._add_one_of(_PLAIN)
            case _:
                self._add_one_of(_OF_MODULE)

    def _add_one_of(self, choices: Sequence[str], **names: object) -> None:
        chosen = self._draw(st.sampled_from(choices))
        self.cells.append(f"{chosen.format(n=self._n, k=self._n % 3, **names)}\nNone")

    def _change_state(self) -> None:
        key = self._draw(st.sampled_from(sorted(self._known)))
        setting = self.settings[key] = self._known[key]
        if setting.named and self._draw(st.integers(0, 5)) == 0:
            self.named.add(re.escape(setting.reported_as) + ".*")
            self._add_one_of(setting.named)
        else:
            self._add_one_of(setting.changes)

    def _change_files(self) -> None:
        match self._draw(st.integers(0, 4)):
            case 0 if self._handles:
                handle = self._draw(st.sampled_from(self._handles))
                change = self._draw(st.sampled_from(_HANDLE_CHANGES))
                self.cells.append(f"{change.format(h=handle)}\nNone")
                if change == _CLOSE:
                    self._handles.remove(handle)
            case 0 | 1:
                self._handles.append(f"f{self._n}")
                self._add_one_of(_OPENED)
            case 2:
                self._add_one_of(_GROWN)
            case _:
                self._add_one_of(_FILES)

    def _make_kind(self) -> None:
        if self._draw(st.integers(0, 7)) == 0:
            name = self._draw(st.sampled_from(sorted(makers.REFUSED)))
            self.named.add("begun2" if name == "begun" else name)
            self.cells.append(f"{makers.REFUSED[name][0]}\nNone")
            return
        name = self._draw(st.sampled_from([each for each in makers.KINDS if each not in self.kinds]))
        needed = ["memory"] if name == "cursor" and "memory" not in self.kinds else []
        for each in (*needed, name):
            self.kinds.append(each)
            self.cells.append(f"{makers.KINDS[each][0]}\nNone")

    def _hold(self) -> None:
        held = tuple(self._holders)
        match self._draw(st.integers(0, 5)) if held else 0:
            case 0 | 1 | 2:
                self._holders.append(f"n{self._n}")
                self.cells.append(f"n{self._n} = {self._draw(expressions(held))}")
            case 3 | 4:
                self.cells.append(f"change({self._draw(st.sampled_from(held))}, {self._n})")
            case _:
                self.cells.append(self._draw(st.sampled_from(held)))  # it is in `Out` then


@st.composite
def programs(draw: st.DrawFn, *, parts: Collection[Part] = (), libraries: Collection[str] = ()) -> Program:
    """Give a program.

    Args:
        draw: Hypothesis' own.
        parts: what all programs are about; by default any, most often several at once.
        libraries: of these, the settings are changed too; they have to be there.
    """
    chosen = parts or draw(
        st.one_of(
            st.lists(st.sampled_from(_TOGETHER), min_size=1, max_size=4, unique=True),
            st.sampled_from(_APART),
        )
    )
    writer = _Writer(draw, chosen, [each for each in libraries if find_spec(each)])
    for _ in range(draw(st.integers(2, 10))):
        writer.add()
    cells = writer.cells
    for _ in range(draw(st.integers(0, _MOST_CHECKPOINTS - 1))):
        cells.insert(draw(st.integers(1, len(cells))), CHECKPOINT)
    # The cells that follow are run by the next worker; under "auto" some are run again by it.
    last = draw(st.integers(max(1, len(cells) - 3), len(cells)))
    cells.insert(last, CHECKPOINT)
    if "files" in chosen and draw(st.booleans()):
        cells.insert(last + 1, "grow('later\\n')\nNone")
    policy: Literal["auto", "checkpoint"] = (
        "checkpoint" if "module" in chosen else draw(st.sampled_from(["auto", "checkpoint"]))
    )
    # After as many later cells as there are, more often than not: what they do to files is to be undone.
    places = range(len(cells) - 1, last - 1, -1)
    killed_after = draw(st.sampled_from(places)) if policy == "auto" else last
    return Program(
        tuple(cells),
        policy,
        killed_after,
        frozenset(chosen),
        writer.settings,
        frozenset(writer.kinds),
        frozenset(writer.named),
    )
