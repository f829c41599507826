"""What the session provides (`display`, `exit`, host functions) stands in builtins: the code's own names win."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, run, type_of, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


def search(word: str) -> str:
    """Search for a word."""
    return f"host: {word}"


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick(), capabilities={"search": search}) as opened:
        yield opened


@pytest.mark.parametrize("name", ["display", "search", "exit", "quit"])
async def test_a_name_of_the_codes_own_wins_and_deleting_it_shows_the_sessions(
    session: pyrepl3.Session, name: str
) -> None:
    assert await value(session, f"{name!r} in globals(), callable({name})") == [False, True]
    assert await value(session, f"{name} = 'mine'; {name}") == "mine"
    assert await value(session, f"del {name}\ncallable({name}), {name!r} in globals()") == [True, False]
    assert type_of(await run(session, f"del {name}")) == "NameError"


@pytest.mark.parametrize(
    "code",
    [
        "search('a')",
        "def f(): return search('a')\nf()",
        "scope = {}\nexec('found = search(\"a\")', scope)\nscope['found']",
        "eval('search(\"a\")', {})",
        "import pickle\npickle.loads(pickle.dumps(search))('a')",
        "import copy\ncopy.deepcopy([search])[0]('a')",
        "class C:\n    found = search('a')\nC.found",
        "await search('a')",
    ],
)
async def test_they_are_found_from_everywhere(session: pyrepl3.Session, code: str) -> None:
    assert await value(session, code) == "host: a"


async def test_they_are_found_by_an_editor_and_are_no_variables_of_the_code(session: pyrepl3.Session) -> None:
    await value(session, "exit = 5")
    variables = await session.variables()
    assert not {"display", "search", "quit"} & set(variables)
    assert variables["exit"].repr == "5"
    assert (await session.complete("sear")).matches == ["search"]
    assert "display" in (await session.complete("dis")).matches
    assert "Search for a word." in (await session.inspect("search")).doc
    assert (await session.inspect("search(")).name == "search"
    await value(session, "del exit; None")


@pytest.mark.parametrize("recovery", ["auto", "checkpoint", "replay"])
@pytest.mark.parametrize("store", [False, True])
async def test_the_codes_own_survive_its_workers_death(
    tmp_path: Path, recovery: pyrepl3.RecoveryPolicy, store: bool
) -> None:
    async with pyrepl3.open_session(
        "s",
        config=quick(),
        store=tmp_path / "state.db" if store else None,
        capabilities={"search": search},
        recovery=recovery,
    ) as session:
        await session.execute("def display(x): return 'mine'")
        await session.execute("exit = 'my exit'; quit = 5; In = ['x']; Out = {1: 2}; _ = 99; None")
        await session.execute("show = search; tools = {'search': search}")
        if recovery != "replay":
            await session.checkpoint()
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, "display(1), exit, quit, In, Out, _") == [
            "mine", "my exit", 5, ["x"], {1: 2}, 99,
        ]  # fmt: skip
        assert await value(session, "show('a'), tools['search']('b')") == ["host: a", "host: b"]
        assert await value(session, "show is search is tools['search']") is True
        assert session.recoveries[-1].lost == ()
        assert await value(session, "del display, exit, quit\ncallable(display), callable(exit)") == [
            True,
            True,
        ]


async def test_a_restore_puts_back_and_takes_away_only_what_is_the_codes(session: pyrepl3.Session) -> None:
    await session.checkpoint("before")
    await session.execute("display = search = 'mine'; None")
    await session.checkpoint("after")
    await session.restore("before")
    assert await value(session, "callable(display), search('a')") == [True, "host: a"]
    await session.restore("after")
    assert await value(session, "display, search") == ["mine", "mine"]
    await session.restore("before")


async def test_the_last_values_are_those_of_expressions_and_left_alone_once_bound(
    session: pyrepl3.Session,
) -> None:
    await value(session, "'kept'")
    await session.execute("x = 'assigned'")
    assert await value(session, "_") == "kept"
    await session.execute("for _ in range(3): pass")
    await value(session, "'newer'")
    assert await value(session, "_") == 2
    await session.execute("del _")
    await value(session, "'newest'")
    assert await value(session, "_") == "newest"


@pytest.mark.parametrize("name", ["open", "print", "input", "int", "ValueError", "__import__", "_", "In"])
async def test_a_host_function_under_a_name_that_others_use_is_refused(name: str) -> None:
    with pytest.raises(pyrepl3.CapabilityError, match=f"{name!r} needs another name"):
        async with pyrepl3.open_session(capabilities={name: search}):
            pass


@pytest.mark.parametrize("name", ["exit", "help", "display"])
async def test_a_host_function_under_a_name_for_people_is_theirs(name: str) -> None:
    async with pyrepl3.open_session(config=quick(), capabilities={name: search}) as session:
        assert await value(session, f"{name}('a')") == "host: a"
