"""The golden frames: the bytes and their meaning in JSON agree, in both directions and with the schema."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyrepl3_schemas.codec import ClientDecoder, WorkerDecoder, encode
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import Message
from schemas.tools.generate_schema import expand, read_hex
from schemas.tools.json_form import from_json, message_types, to_json
from tests.helpers.wire_strategies import validate

ROOT = Path(__file__).parents[2] / "schemas"
SCHEMA: dict[str, Any] = json.loads((ROOT / "protocol.schema.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Vector:
    """One entry of a vector file."""

    file: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.file}: {self.fields['name']}"

    @property
    def to_worker(self) -> bool:
        return {"to_worker": True, "from_worker": False}[self.fields["direction"]]

    @property
    def stream(self) -> bytes:
        return read_hex(self.fields["hex"])

    @property
    def message(self) -> dict[str, Any]:
        """What it means, written out."""
        return expand(self.fields["message"])

    def decoder(self) -> WorkerDecoder | ClientDecoder:
        limit = self.fields.get("max_frame_bytes", 2**26)
        return WorkerDecoder(limit) if self.to_worker else ClientDecoder(limit)

    def validate(self) -> None:
        """Hold the meaning against the schema of its direction."""
        name = "ToWorker" if self.to_worker else "FromWorker"
        validate(self.message, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})


def load(*names: str) -> list[Vector]:
    return [
        Vector(name, fields)
        for name in names
        for fields in json.loads((ROOT / "vectors" / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    ]


CANONICAL = load("to_worker", "from_worker", "big")
LENIENT = load("lenient")
INVALID = load("invalid")


@pytest.mark.parametrize("vector", CANONICAL + LENIENT, ids=str)
def test_a_frame_decodes_to_its_meaning(vector: Vector) -> None:
    decoder = vector.decoder()
    (message,) = decoder.feed(vector.stream)
    decoder.close()
    assert to_json(message) == vector.message


@pytest.mark.parametrize("vector", CANONICAL, ids=str)
def test_a_meaning_encodes_to_its_frame(vector: Vector) -> None:
    assert encode(from_json(vector.message, to_worker=vector.to_worker)) == vector.stream
    (message,) = vector.decoder().feed(vector.stream)
    assert encode(message) == vector.stream


@pytest.mark.parametrize("vector", LENIENT, ids=str)
def test_a_frame_that_we_would_write_otherwise_is_really_another(vector: Vector) -> None:
    (message,) = vector.decoder().feed(vector.stream)
    written = encode(message)
    assert vector.decoder().feed(written) == [message]
    extension = "extension" in vector.fields["name"] or "future" in vector.fields["name"]
    assert (written == vector.stream) == extension


@pytest.mark.parametrize("vector", CANONICAL + LENIENT, ids=str)
def test_the_schema_takes_the_meaning(vector: Vector) -> None:
    vector.validate()


@pytest.mark.parametrize("vector", INVALID, ids=str)
def test_a_stream_that_breaks_the_rules_is_refused_where_it_does(vector: Vector) -> None:
    decoder = vector.decoder()
    messages: list[Message] = []
    if vector.fields["messages"]:
        messages += decoder.feed(vector.stream)
    if vector.fields.get("ends"):
        refused = decoder.close
    else:
        refused = partial(decoder.feed, b"" if messages else vector.stream)
    with pytest.raises(RemoteProtocolError) as caught:
        refused()
    assert [to_json(message) for message in messages] == vector.fields["messages"]
    assert caught.value.offset == vector.fields["offset"]
    # The words of what stands below us change with its releases, in their case too.
    assert vector.fields["says"].lower() in caught.value.reason.lower()


@pytest.mark.parametrize("to_worker", [True, False], ids=["to the worker", "from the worker"])
def test_every_field_of_every_message_is_seen_set_and_left_out(to_worker: bool) -> None:
    vectors = [vector for vector in CANONICAL if vector.to_worker is to_worker]
    for tag, cls in message_types(to_worker=to_worker).items():
        forms = [vector.message for vector in vectors if vector.message["type"] == tag]
        for field in msgspec.structs.fields(cls):
            assert any(field.name in form for form in forms), f"{tag}.{field.name} is never set"
            if not field.required:
                assert any(field.name not in form for form in forms), f"{tag}.{field.name} is always set"


def test_names_of_vectors_are_unique() -> None:
    names = [str(vector) for vector in CANONICAL + LENIENT + INVALID]
    assert len(set(names)) == len(names)
