"""Generates the language-neutral half of the contract from the Python half.

    python -m schemas.tools.generate_schema            write `protocol.schema.json` and the vectors' hex
    python -m schemas.tools.generate_schema --check    change nothing; exit 1 and say so when they are stale

The vectors' messages are written by hand, as JSON; only their bytes come from here. A file that says
`"by_hand": true` (what a peer may send although we don't, and what it may not) is left as it is.
"""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import msgspec

from pyrepl3_schemas import constants, executor_config, messages
from pyrepl3_schemas.codec import encode
from schemas.tools.json_form import from_json

ROOT: Final = Path(__file__).resolve().parent.parent
SCHEMA_NAME: Final = "protocol.schema.json"
VECTORS_NAME: Final = "vectors"
_ABOUT: Final = "Make the language-neutral files of the contract: the JSON Schema and the vectors' hex."
_MIN_RUN: Final = 1024
"""Equal bytes in a row that are written as a repetition."""


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of both directions, with the docstrings as descriptions."""
    unions = {"ToWorker": messages.ToWorker.__value__, "FromWorker": messages.FromWorker.__value__}
    forms, definitions = msgspec.json.schema_components(tuple(unions.values()), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        # Python 3.12 keeps the indentation of docstrings, later versions don't.
        definition["description"] = inspect.cleandoc(definition["description"])
        for form in definition["properties"].values():
            # msgspec's versions differ in where they put it.
            form.get("anyOf", []).sort(key=_is_null)
    for module in (messages, executor_config):
        for name, field, text in _field_docs(module):
            definitions[name]["properties"][field]["description"] = text
    _add_limits(definitions["ExecutorConfig"]["properties"])
    directions = {
        "ToWorker": "What a client sends: the body of every frame on the worker's stdin.",
        "FromWorker": "What a worker sends: the body of every frame on its stdout.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The pyrepl3 protocol",
        "description": (
            "The JSON form of every message. On the wire the same maps are MessagePack: what is a base64"
            " string here is a bin there, and a property without a type is MessagePack data of any shape."
            " PROTOCOL.md says how messages follow each other."
        ),
        "protocol": constants.PROTOCOL,
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in unions],
        "$defs": {
            **{
                name: {"title": name, "description": directions[name], **form}
                for name, form in zip(unions, forms, strict=True)
            },
            **definitions,
        },
    }


def _is_null(form: dict[str, Any]) -> bool:
    return form == {"type": "null"}


def _field_docs(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Return class, field and text of every docstring that stands under a field."""
    for statement in ast.parse(inspect.getsource(module)).body:
        if not isinstance(statement, ast.ClassDef):
            continue
        for field, below in zip(statement.body, statement.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.name, name, inspect.cleandoc(text)
                case _:
                    pass


def _add_limits(properties: dict[str, dict[str, Any]]) -> None:
    """Write into the schema what `ExecutorConfig` checks by itself."""
    for name, most in executor_config.UPPER_LIMITS.items():
        number = next(option for option in properties[name]["anyOf"] if option["type"] != "null")
        number.update(exclusiveMinimum=0, maximum=most)
    for name, (least, most) in executor_config.COUNT_RANGES.items():
        properties[name].update(minimum=least, maximum=most)


def expand(form: Any) -> Any:
    """Write out every `{"$repeat": [text or list, times]}` of a vector's message."""
    match form:
        case {"$repeat": [unit, int(times)]}:
            return unit * times
        case dict():
            return {key: expand(value) for key, value in cast("dict[str, Any]", form).items()}
        case list():
            return [expand(item) for item in cast("list[Any]", form)]
        case _:
            return form


def read_hex(form: str | list[Any]) -> bytes:
    """Return the bytes of a vector's hex: a string, or a list of strings and repetitions."""
    if isinstance(form, str):
        return bytes.fromhex(form)
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part["repeat"]) * part["times"]
        for part in form
    )


def write_hex(data: bytes) -> str | list[Any]:
    """Return bytes as a vector's hex, with long runs of one byte as repetitions."""
    parts: list[Any] = []
    plain = start = 0
    while start < len(data):
        end = start + 1
        while end < len(data) and data[end] == data[start]:
            end += 1
        if end - start >= _MIN_RUN:
            parts += [
                data[plain:start].hex(),
                {"repeat": data[start : start + 1].hex(), "times": end - start},
            ]
            plain = end
        start = end
    return [part for part in [*parts, data[plain:].hex()] if part] if parts else data.hex()


def complete_vectors(text: str) -> str:
    """Fill in the hex of a vector file."""
    file: dict[str, Any] = json.loads(text)
    for vector in file["vectors"]:
        if not file.get("by_hand"):
            message = from_json(expand(vector["message"]), to_worker=vector["direction"] == "to_worker")
            vector["hex"] = write_hex(encode(message))
    return render(file)


def render(data: Any) -> str:
    """Return JSON as it stands in the files: stable, and readable as text."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def generate(root: Path) -> dict[Path, str]:
    """Return what every generated file below `root` should hold."""
    files = {root / SCHEMA_NAME: render(build_schema())}
    for path in sorted((root / VECTORS_NAME).glob("*.json")):
        files[path] = complete_vectors(path.read_text(encoding="utf-8"))
    return files


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or check them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m schemas.tools.generate_schema", description=_ABOUT)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is stale")
    check: bool = parser.parse_args(arguments).check
    if not (ROOT / VECTORS_NAME).is_dir():
        print(f"there is no {ROOT / VECTORS_NAME}: run this in a checkout of the project", file=sys.stderr)
        return 2
    stale = 0
    for path, text in generate(ROOT).items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT.parent)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
