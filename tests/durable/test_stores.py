"""What a store's URL may say, and what is said when it cannot be used."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pyrepl3_client.durable.location import RemoteLocation, SqliteLocation, parse_location
from pyrepl3_client.durable.sqlite.journal import SqliteJournal
from pyrepl3_client.durable.stores import open_store
from pyrepl3_client.errors import StoreError
from tests.helpers.journals import SESSION, run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("memory:", SqliteLocation(":memory:")),
        ("memory://", SqliteLocation(":memory:")),
        (":memory:", SqliteLocation(":memory:")),
        ("state.db", SqliteLocation("state.db")),
        ("/var/a b?.db", SqliteLocation("/var/a b?.db")),
        ("./postgres:state.db", SqliteLocation("./postgres:state.db")),
        (Path("a") / "state.db", SqliteLocation("a/state.db")),
        ("sqlite:state.db", SqliteLocation("state.db")),
        ("sqlite:a%20b.db", SqliteLocation("a b.db")),
        ("sqlite:///var/state.db", SqliteLocation("/var/state.db")),
        (
            "sqlite:///state.db?synchronous=full&busy_timeout=2.5",
            SqliteLocation("/state.db", "FULL", 2.5),
        ),
    ],
)
def test_where_a_url_points(url: str | Path, location: SqliteLocation) -> None:
    assert parse_location(url) == location


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "it names no file"),
        ("sqlite:", "it names no file"),
        ("a\0b", "it names no file"),
        ("memory:state.db", "memory: takes no path"),
        ("sqlite://host/state.db", "sqlite:path, or sqlite:///path from the root"),
        ("sqlite:s.db?synchronous=off", "synchronous=off is no setting of a store: it is NORMAL or FULL"),
        ("sqlite:s.db?busy_timeout=soon", "busy_timeout=soon is no time"),
        ("sqlite:s.db?busy_timeout=-1", "busy_timeout=-1 is no time"),
        ("sqlite:s.db?busy_timeout=nan", "busy_timeout=nan is no time"),
        ("sqlite:s.db?sync=FULL", "'sync' is no option of an SQLite store"),
        ("sqllite:s.db", r"no store for the scheme 'sqllite'.*written \./sqllite:"),
        ("mysql://user:secret@host/db", "no store for the scheme 'mysql'"),
        ("http:///path", "names no host"),
        ("postgresql://user:secret@host:port/db", "this URL of a store cannot be read"),
    ],
)
async def test_a_url_that_is_none(
    url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=said) as refused:
        await open_store(url, SESSION)
    assert "secret" not in str(refused.value)
    assert os.listdir(tmp_path) == []


def test_credentials_are_never_shown() -> None:
    location = parse_location("postgresql://user:secret@host:5432/db?password=secret")
    assert isinstance(location, RemoteLocation)
    assert repr(location) == "RemoteLocation('postgresql://host:5432/db')"
    assert location.url.count("secret") == 2


async def test_a_file_that_cannot_be_used_is_told_before_any_code_runs(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE notes (text)")
    (tmp_path / "diary.txt").write_text("Dear diary, " * 1000)
    for name, said in (
        ("no/state.db", "there is no directory"),
        (".", "it is a directory"),
        ("other.db", "another program's database"),
        ("diary.txt", "not an SQLite database"),
    ):
        with pytest.raises(StoreError, match=said):
            await open_store(tmp_path / name, SESSION)


@pytest.mark.parametrize("where", ["memory:", "sqlite:{}/state.db", "{}/state.db"])
async def test_a_store_is_opened_used_and_closed(where: str, tmp_path: Path) -> None:
    journal = await open_store(where.format(tmp_path), SESSION)
    assert isinstance(journal, SqliteJournal)
    assert await run(journal, "e") == (b"outcome", False)
    await journal.close()
    assert os.listdir(tmp_path) == ([] if where == "memory:" else ["state.db"])


async def test_a_session_id_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no Unicode text"):
        await open_store(tmp_path / "state.db", "\ud800")
