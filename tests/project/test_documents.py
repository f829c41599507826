"""What the documents name exists: files, folders, links, targets of make."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "schemas/PROTOCOL.md"]
TOP = ("pyrepl3_client/", "pyrepl3_worker/", "schemas/", "tests/", "benchmarks/", "docs/", ".ci/")
README = (ROOT / "README.md").read_text()


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def of_document(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=of_document)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    named = {
        word.partition("::")[0] for word in in_backticks(text) if word.startswith(TOP) and " " not in word
    }
    assert [word for word in sorted(named) if not (ROOT / word).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=of_document)
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [link for link in links if not (document.parent / link).is_file()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=of_document)
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)", document.read_text())):
        assert re.search(rf"^{target}\b.*:", makefile, re.MULTILINE), target


MAP = README.partition("## Map of the house")[2]
ROWS = [
    (package, folders, words)
    for package, table in re.findall(r"^\*\*`(\w+)/`\*\*.*?\n((?:.*\n)*?)(?=^\*\*)", MAP, re.MULTILINE)
    for folders, words in re.findall(r"^\| (`.*?) \| (.*) \|$", table, re.MULTILINE)
]


@pytest.mark.parametrize(("package", "folders", "words"), ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_the_map_of_the_house_is_true(package: str, folders: str, words: str) -> None:
    """Each folder exists, and each file that is named is in it, as `{name}.py` or as a folder."""
    rooms = [ROOT / package / room for room in in_backticks(folders)]
    assert [str(room) for room in rooms if not room.exists()] == []
    for word in in_backticks(words):
        if re.fullmatch(r"\w+/?", word):
            name = word.rstrip("/")
            found = [path for room in rooms if room.is_dir() for path in room.rglob("*") if path.stem == name]
            assert found, name


def test_every_room_is_on_the_map() -> None:
    named = {(package, room.rstrip("/")) for package, folders, _ in ROWS for room in in_backticks(folders)}
    files_row = set(in_backticks(MAP))
    for package in ("pyrepl3_client", "pyrepl3_worker"):
        for path in (ROOT / package).iterdir():
            if path.is_dir() and path.name != "__pycache__":
                assert (package, path.name) in named or f"{path.name}/" in files_row, path.name


CALLS = re.findall(
    r"^\| (`(?:await )?\w+\(.*?) \| `(.+?)` \| (.*?) ?\|$",
    (ROOT / "docs/contract.md").read_text().partition("## What the calls of a session give")[2],
    re.MULTILINE,
)


@pytest.mark.parametrize(("calls", "gives", "fields"), CALLS, ids=[row[0] for row in CALLS])
def test_what_the_calls_of_a_session_give_is_what_the_contract_says(
    calls: str, gives: str, fields: str
) -> None:
    for call in in_backticks(calls):
        method: Any = getattr(pyrepl3_client.Session, call.removeprefix("await ").partition("(")[0])
        assert inspect.iscoroutinefunction(method) == call.startswith("await ")
        returned = inspect.signature(method).return_annotation
        name = returned.__name__ if isinstance(returned, type) and "[" not in str(returned) else str(returned)
        assert re.sub(r"\w+\.(?=\w)", "", name) == gives
        named = re.findall(r"\w+", gives)
        kind: Any = getattr(pyrepl3_client, named[2 if named[0] == "dict" else -1], None)
        if kind is not None:
            own = in_backticks(fields.partition("(each")[0])
            assert [field for field in own if not hasattr(kind, field)] == []


def test_the_contract_says_what_each_call_of_a_session_gives() -> None:
    said = {call.removeprefix("await ").partition("(")[0] for row in CALLS for call in in_backticks(row[0])}
    methods = {
        name
        for name, value in vars(pyrepl3_client.Session).items()
        if not name.startswith("_") and inspect.isfunction(value)
    }
    assert said == methods
