"""The language-neutral files are what the structs say, and the tool that makes them says when not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.messages import Message
from schemas.tools import generate_schema
from schemas.tools.json_form import from_json, message_types, to_json
from tests.helpers.wire_strategies import from_worker, to_worker, validate

ROOT = Path(__file__).parents[2] / "schemas"
PROSE = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
DEFINITIONS: dict[str, Any] = generate_schema.build_schema()["$defs"]


@pytest.mark.parametrize("path", generate_schema.generate(ROOT), ids=lambda path: path.name)
def test_the_file_in_the_repository_is_what_the_structs_say(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate_schema.generate(ROOT)[path], (
        "run `python -m schemas.tools.generate_schema` and look at what has changed in the contract"
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(generate_schema.build_schema())


@given(st.one_of(to_worker.map(lambda m: (True, m)), from_worker.map(lambda m: (False, m))))
def test_the_schema_takes_every_message_and_its_json_form_gives_it_back(case: tuple[bool, Message]) -> None:
    to_worker, message = case
    form = json.loads(json.dumps(to_json(message)))
    name = type(message).__name__
    validate(form, {"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS})
    assert from_json(form, to_worker=to_worker) == message


@pytest.mark.parametrize(
    "form",
    [
        {"type": "execute", "code": "1"},
        {"type": "execute", "execution_id": 1, "code": "1"},
        {"type": "cancel", "execution_id": "e", "reason": "because"},
        {"type": "teleport"},
        {"type": "execute", "execution_id": "e", "code": "1", "timeout": 0},
        {"type": "execute", "execution_id": "e", "code": "1", "timeout": 1e10},
        {"type": "shutdown", "grace": -1},
        {"type": "checkpoint", "checkpoint_id": "c" * 257},
        {"type": "hello", "protocol": 1, "session_id": "s", "config": {"max_coroutines": 0}},
        {"type": "hello", "protocol": 1, "session_id": "s", "config": {"max_execution_time": 0}},
        {"type": "hello", "protocol": 1, "session_id": "s", "config": {"max_memory_usage": 2**63}},
        {},
    ],
    ids=str,
)
def test_the_schema_and_the_structs_refuse_the_same(form: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(form, {"$ref": "#/$defs/ToWorker", "$defs": DEFINITIONS})
    with pytest.raises(msgspec.ValidationError):
        from_json(form, to_worker=True)


def test_a_dollar_word_that_means_nothing_is_refused() -> None:
    form = {"type": "call_response", "call_id": "c", "value": {"$date": "today"}}
    with pytest.raises(ValueError, match=r"'\$date' has no meaning here"):
        from_json(form, to_worker=True)


# --- the tool -----------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the generated files that the tool works on."""
    root = tmp_path / "schemas"
    root.mkdir()
    shutil.copy(ROOT / generate_schema.SCHEMA_NAME, root)
    shutil.copytree(ROOT / generate_schema.VECTORS_NAME, root / generate_schema.VECTORS_NAME)
    monkeypatch.setattr(generate_schema, "ROOT", root)
    return root


def test_check_says_what_is_stale_and_changes_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate_schema.main(["--check"]) == 0
    assert capsys.readouterr().out == ""
    path = checkout / generate_schema.SCHEMA_NAME
    path.write_text("{}\n")
    assert generate_schema.main(["--check"]) == 1
    assert capsys.readouterr().out == "stale: schemas/protocol.schema.json\n"
    assert path.read_text() == "{}\n"
    assert generate_schema.main([]) == 0
    assert capsys.readouterr().out == "written: schemas/protocol.schema.json\n"
    assert generate_schema.main(["--check"]) == 0


def test_a_new_vector_gets_its_hex(checkout: Path) -> None:
    path = checkout / generate_schema.VECTORS_NAME / "to_worker.json"
    file = json.loads(path.read_text(encoding="utf-8"))
    file["vectors"] = [{"name": "new", "direction": "to_worker", "message": {"type": "ping", "nonce": 1}}]
    path.write_text(json.dumps(file))
    assert generate_schema.main([]) == 0
    assert '"hex": "0000001282a474797065a470696e67a56e6f6e636501"' in path.read_text()


def test_without_a_checkout_the_tool_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate_schema, "ROOT", tmp_path)
    assert generate_schema.main([]) == 2
    assert "run this in a checkout" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from([1, 3, 1023, 1024, 3000])), max_size=6))
def test_hex_with_repetitions_gives_the_bytes_back(runs: list[tuple[int, int]]) -> None:
    data = b"".join(bytes([byte]) * times for byte, times in runs)
    form = generate_schema.write_hex(data)
    assert generate_schema.read_hex(json.loads(json.dumps(form))) == data
    longest = max(
        (len(part) for part in ([form] if isinstance(form, str) else form) if isinstance(part, str)),
        default=0,
    )
    assert longest <= 2 * sum(times for _, times in runs if times < 1024) + 2 * 1023 * len(runs)


# --- the prose ----------------------------------------------------------------------------------------


def fields() -> Iterator[tuple[str, str]]:
    """Yield every message and part with each of its fields, as the wire names them."""
    for name, definition in DEFINITIONS.items():
        for field in cast("dict[str, Any]", definition).get("properties", {}):
            yield name, field


@pytest.mark.parametrize("to_worker", [True, False], ids=["to the worker", "from the worker"])
def test_the_prose_has_a_section_on_every_message(to_worker: bool) -> None:
    for tag in message_types(to_worker=to_worker):
        assert f"#### `{tag}`" in PROSE


def test_the_prose_names_every_field() -> None:
    missing = [f"{name}.{field}" for name, field in fields() if f"`{field}`" not in PROSE]
    assert missing == []
