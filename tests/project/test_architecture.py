"""The walls of the house: who imports whom, how long a file is, and what is never written."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from pyrepl3_schemas.codec import ClientDecoder, decode_value, encode
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.messages import Execute, Hello, Ready, Result
from pyrepl3_worker.code.own_frames import PACKAGE_FOLDER, TRANSPARENT_FILES

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "pyrepl3_schemas": ROOT / "schemas" / "pyrepl3_schemas",
    "pyrepl3_worker": ROOT / "pyrepl3_worker",
    "pyrepl3_client": ROOT / "pyrepl3_client",
}
OTHERS = ("tests", "benchmarks")

MAX_LINES = 600
"""A longer file is two ideas, or says in its docstring why it is one."""

STDLIB = sys.stdlib_module_names
MAY_IMPORT = {
    "pyrepl3_schemas": {"msgspec"},
    "pyrepl3_worker": {"msgspec", "pyrepl3_schemas"},
    "pyrepl3_client": {"msgspec", "pyrepl3_schemas", "anyio"},
    "pyrepl3_client.durable": {"msgspec", "pyrepl3_schemas", "anyio", "resonate", "resonate_base"},
}
"""What a package may import beside the standard library and itself, at any time of its life."""

GROUND = {
    "pyrepl3_client": {"errors", "config", "results", "_host_rules", "_log", "_text", "_version"},
    "pyrepl3_worker": {"errors", "config"},
}
"""Files that every room of a package may import."""

ARROWS = {
    "pyrepl3_client": {
        "_concurrency": set[str](),
        "_launch": set[str](),
        "_files": set[str](),
        "_journal": set[str](),
        "_telemetry": {"_concurrency"},
        "_wire": {"_launch"},
        "_execution": {"_concurrency", "_journal", "_telemetry", "_wire"},
        "_network": {"_telemetry"},
        "_worker": {"_execution", "_launch", "_network", "_telemetry", "_wire"},
        "_session": {
            "_concurrency",
            "_execution",
            "_files",
            "_journal",
            "_launch",
            "_telemetry",
            "_wire",
            "_worker",
            "durable",
        },
        "_pool": {"_concurrency", "_execution", "_launch", "_session", "_telemetry", "_worker"},
        "_doctor": {"_launch", "sync"},
        "_store": {"_session", "durable", "durable.sqlite"},
        "testing": {"_execution", "_launch", "_session", "_telemetry", "_wire"},
        "sync": {"_concurrency", "_execution", "_files", "_journal", "_pool", "_session", "_telemetry"},
        "demo": set[str](),  # the public face alone
        "durable": {
            "_journal",
            "durable.lease",
            "durable.remote",
            "durable.resonate",
            "durable.sqlite",
            "durable.sqlite.tables",
        },
        "durable.lease": {"_launch"},
        "durable.resonate": {"_journal"},
        "durable.remote": {"_journal", "durable.lease", "durable.resonate"},
        "durable.sqlite": {
            "_journal",
            "durable.lease",
            "durable.resonate",
            "durable.sqlite.resonate_server",
            "durable.sqlite.tables",
        },
        "durable.sqlite.resonate_server": {"durable.sqlite.tables"},
        "durable.sqlite.tables": {"_journal"},
    },
    "pyrepl3_worker": {
        "wire": set[str](),
        "confinement": set[str](),
        "isolation": set[str](),
        "namespace": set[str](),
        "code": set[str](),
        "interrupts": {"code"},
        "rendering": {"code"},
        "inspection": {"code", "namespace", "rendering"},
        "execution": {"code", "interrupts", "isolation", "rendering"},
        "host_calls": {"execution", "interrupts"},
        "output": {"execution", "interrupts", "wire"},
        "executor": {"code", "execution", "interrupts", "isolation", "namespace"},
        "checkpoint": {"code", "execution", "interrupts", "isolation", "namespace", "rendering"},
        "session": {
            "checkpoint",
            "code",
            "confinement",
            "execution",
            "executor",
            "host_calls",
            "inspection",
            "interrupts",
            "ipython",
            "isolation",
            "namespace",
            "output",
            "rendering",
            "wire",
        },
        "ipython": {"code", "execution", "interrupts", "isolation", "namespace", "rendering"},
        "startup": {"ipython", "isolation", "session", "wire"},
        "__main__": {"confinement", "isolation", "startup", "wire"},
        "fork_server": {"__main__", "isolation", "startup"},
        "launcher": {"confinement", "fork_server"},
    },
}
"""Which room imports which. A package's own `__init__` may import all of it, the ground itself alone."""

HEAVY = {
    "anyio",
    "cloudpickle",
    "concurrent",
    "dataclasses",
    "email",
    "http",
    "IPython",
    "inspect",
    "jedi",
    "json",
    "logging",
    "multiprocessing",
    "numpy",
    "pathlib",
    "pickle",
    "pyrepl3_client",
    "resonate",
    "resonate_base",
    "rlcompleter",
    "subprocess",
    "tempfile",
    "typing_extensions",
    "unittest",
    "urllib",
}


ANYTHING = {"Exception", "BaseException"}


@dataclass(frozen=True)
class Source:
    """One Python file of the tree."""

    path: Path
    module: str

    def __str__(self) -> str:
        return self.module

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def outer_room(self) -> str:
        """The package that this file stands in, or `durable`."""
        return max((room for room in MAY_IMPORT if f"{self.module}.".startswith(f"{room}.")), key=len)

    def imports(self) -> list[tuple[str, int]]:
        """Return the modules that are imported anywhere in the file, by absolute name, with their lines."""
        return self._imports

    @cached_property
    def _imports(self) -> list[tuple[str, int]]:
        return list(self._find_imports())

    def _find_imports(self) -> Iterator[tuple[str, int]]:
        for node in ast.walk(self.tree):
            match node:
                case ast.Import(names=names):
                    yield from ((alias.name, node.lineno) for alias in names)
                case ast.ImportFrom(module=str(module), level=0, names=names):
                    yield from ((f"{module}.{alias.name}", node.lineno) for alias in names)
                case ast.ImportFrom(level=level) if level > 0:
                    yield self.package, node.lineno
                case _:
                    pass


def sources(name: str, folder: Path) -> Iterator[Source]:
    """Yield the Python files below a folder, named as they are imported."""
    for path in sorted(folder.rglob("*.py")):
        parts = [name, *path.relative_to(folder).with_suffix("").parts]
        yield Source(path, ".".join(parts).removesuffix(".__init__"))


PACKAGED = [source for name, folder in PACKAGES.items() for source in sources(name, folder)]
EVERYWHERE = PACKAGED + [source for name in OTHERS for source in sources(name, ROOT / name)]


def top(module: str) -> str:
    return module.partition(".")[0]


def test_the_tree_is_where_this_file_looks() -> None:
    modules = {source.module for source in EVERYWHERE}
    expected = {"pyrepl3_schemas.codec", "pyrepl3_worker.session.session", "pyrepl3_client", "benchmarks"}
    assert expected <= modules


def test_a_room_imports_only_what_it_may() -> None:
    wrong = [
        f"{source} line {line}: {module}; {source.outer_room} may import "
        f"{sorted(MAY_IMPORT[source.outer_room])} and the standard library"
        for source in PACKAGED
        for module, line in source.imports()
        if top(module) not in MAY_IMPORT[source.outer_room] | STDLIB | {source.package}
    ]
    assert not wrong


def test_only_its_room_imports_IPython() -> None:
    """By name, since most environments have none; and only in sessions that ask for its syntax."""
    importing = {
        room_of(source.module)
        for source in PACKAGED
        if re.search(r"""import_module\(\s*["'](IPython|traitlets)\b""", source.text)
    }
    assert importing == {"ipython"}


def test_only_its_room_imports_OpenTelemetry_and_by_name() -> None:
    """So it is not imported where it is absent, or where the program does not use it."""
    naming = {source.module for source in PACKAGED if "opentelemetry" in source.text}
    assert naming == {"pyrepl3_client._telemetry.spans"}
    assert "opentelemetry" not in {top(module) for module in loaded_by("import pyrepl3_client")}


def room_of(module: str) -> str:
    """Return a module's room, such as `_wire` or `durable.sqlite`; empty for a package itself."""
    package, _, inner = module.partition(".")
    rooms = [room for room in ARROWS[package] if f"{inner}.".startswith(f"{room}.")]
    return max(rooms, key=len) if rooms else inner.partition(".")[0]


def test_arrows_between_rooms_run_one_way() -> None:
    wrong: list[str] = []
    for source in PACKAGED:
        room = room_of(source.module) if source.package in ARROWS else ""
        if not room:
            continue  # no house of rooms; or the public face, which shows what all rooms have
        ground = GROUND[source.package]
        allowed = ground if room in ground else ARROWS[source.package][room] | ground | {room}
        wrong += [
            f"{source} line {line}: {module}; {room} may import {sorted(allowed)}"
            for module, line in source.imports()
            if top(module) == source.package and room_of(module) and room_of(module) not in allowed
        ]
    assert not wrong


@pytest.mark.parametrize("package", ARROWS)
def test_every_room_exists_and_the_arrows_make_no_circle(package: str) -> None:
    arrows = {room: set(targets) for room, targets in ARROWS[package].items()}
    folder = PACKAGES[package]
    for room in [*arrows, *GROUND[package]]:
        path = folder / room.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), room
    while leaves := {room for room, targets in arrows.items() if not targets & arrows.keys()}:
        for leaf in leaves:
            del arrows[leaf]
    assert not arrows


@pytest.mark.parametrize("package", ARROWS)
def test_no_arrow_is_allowed_that_is_not_used(package: str) -> None:
    used = {
        (room_of(source.module), room_of(module))
        for source in PACKAGED
        for module, _ in source.imports()
        if source.package == top(module) == package
    }
    arrows = {(room, target) for room, targets in ARROWS[package].items() for target in targets}
    assert arrows - used == set()


def test_a_rooms_init_is_a_map_and_imports_nothing() -> None:
    public = {"pyrepl3_client", "pyrepl3_client.testing", "pyrepl3_client.durable.sqlite"}
    rooms = [
        source for source in PACKAGED if source.path.name == "__init__.py" and source.module not in public
    ]
    assert len(rooms) >= len(ARROWS["pyrepl3_client"])
    assert {room.module: room.imports() for room in rooms if room.imports()} == {}


def test_every_file_that_an_interrupt_may_pass_exists() -> None:
    assert [path for path in sorted(TRANSPARENT_FILES) if not Path(path).is_file()] == []
    assert all(path.startswith(PACKAGE_FOLDER) for path in TRANSPARENT_FILES)
    assert Path(PACKAGE_FOLDER) == PACKAGES["pyrepl3_worker"]


def test_private_names_stay_in_their_package() -> None:
    """Private is a package's own business: `_connection` may be used in the client, and nowhere else."""
    wrong = [
        f"{source} line {line}: {module}"
        for source in EVERYWHERE
        for module, line in source.imports()
        if top(module) in PACKAGES
        and top(module) != source.package
        and any(part.startswith("_") and not part.endswith("__") for part in module.split("."))
        and source.package != "tests"
    ]
    assert not wrong


def test_imports_between_the_modules_of_a_package_have_no_cycles() -> None:
    known = {source.module for source in PACKAGED}
    edges: dict[str, set[str]] = {}
    for source in PACKAGED:
        # An import in a function or for the type checker runs later, or never: it makes no cycle.
        at_import = [node for node in source.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name for name, line in source.imports() if line in {node.lineno for node in at_import}}
        targets = {name if name in known else name.rpartition(".")[0] for name in names} & known
        edges[source.module] = targets - {source.module, source.package}
    while leaves := {module for module, targets in edges.items() if not targets & edges.keys()}:
        for leaf in leaves:
            del edges[leaf]
    assert not edges


def test_a_file_can_be_read_in_one_sitting() -> None:
    """More lines than that are two files, or a docstring that says why the file is long."""
    wrong = [
        f"{source}: {lines} lines"
        for source in EVERYWHERE
        if (lines := source.text.count("\n")) > MAX_LINES
        and not re.search(r"\blong\b", ast.get_docstring(source.tree) or "")
    ]
    assert not wrong


def test_a_module_says_what_it_is() -> None:
    assert [str(source) for source in PACKAGED if not ast.get_docstring(source.tree)] == []


def test_no_attribute_is_probed_and_no_exception_swallowed() -> None:
    assert [f"{source} {what}" for source in PACKAGED for what in probes(source.tree)] == []


def probes(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="hasattr")):
                yield f"line {node.lineno}: hasattr"
            case ast.ExceptHandler(type=None):
                yield f"line {node.lineno}: a bare except"
            case ast.ExceptHandler(type=ast.Name(id=name), body=[ast.Pass()]) if name in ANYTHING:
                yield f"line {node.lineno}: except {name}: pass"
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=args):
                names = {arg.id for arg in args if isinstance(arg, ast.Name)}
                yield from (f"line {node.lineno}: suppress({name})" for name in names & ANYTHING)
            case _:
                pass


# --- what is loaded when ------------------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """Run an import in a fresh interpreter; return the modules that it brought."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def modules_of_a_worker() -> set[str]:
    """Start a worker by hand, and ask it in a cell what it has loaded."""
    command = [sys.executable, "-P", "-m", "pyrepl3_worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(Hello(PROTOCOL, "s")))
        process.stdin.flush()
        decoder = ClientDecoder()
        while data := os.read(process.stdout.fileno(), 65536):
            for message in decoder.feed(data):
                if isinstance(message, Ready):
                    process.stdin.write(encode(Execute("e", "list(__import__('sys').modules)")))
                    process.stdin.flush()
                    continue
                assert isinstance(message, Result), message
                assert isinstance(message.value, msgspec.Raw)
                process.stdin.close()
                return set(decode_value(message.value))
    raise AssertionError("the worker ended without an answer")


def test_a_worker_starts_with_nothing_that_it_does_not_need() -> None:
    modules = modules_of_a_worker()
    assert "pyrepl3_worker.session.session" in modules
    # What asyncio and msgspec load themselves is their own affair: a session needs both.
    needed = {top(module) for module in loaded_by("import asyncio, msgspec")}
    assert {top(module) for module in modules} & HEAVY - needed == set()


def test_the_heavy_half_of_the_schemas_stays_out_of_worker_and_client() -> None:
    heavy = {"schemas.tools.generate_schema", "schemas.tools.json_form"}
    assert not heavy & loaded_by("import pyrepl3_client")
    assert not heavy & modules_of_a_worker()


def test_resonate_is_loaded_only_when_a_session_needs_it() -> None:
    assert not {"resonate", "resonate_base"} & {top(module) for module in loaded_by("import pyrepl3_client")}


def test_the_client_never_loads_the_worker() -> None:
    assert "pyrepl3_worker" not in {top(module) for module in loaded_by("import pyrepl3_client")}


# --- the public face ----------------------------------------------------------------------------------


def names_of_the_client() -> dict[str, Any]:
    return vars(importlib.import_module("pyrepl3_client"))


def test_the_clients_all_is_what_is_public() -> None:
    names = names_of_the_client()
    public = [
        name
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert sorted(names["__all__"]) == sorted(public)


def test_everything_public_says_what_it_is() -> None:
    names = names_of_the_client()
    silent = [name for name in names["__all__"] if callable(names[name]) and not names[name].__doc__]
    assert not silent
