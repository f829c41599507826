"""Texts of the code's choice in the program's log, errors and terminal: they are read, never obeyed."""

import io
import logging
import re
import sys
from collections.abc import Iterator

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._session.recovery_bar import RecoveryBar
from pyrepl3_client._text import on_one_line, printable
from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES
from pyrepl3_schemas.messages import Error
from tests.confinement.sessions import WRITE_FORGED_FRAMES, run, strict_config

pytestmark = pytest.mark.anyio

FAKE = "2026-01-01 00:00:00 CRITICAL root: all is lost"
EVIL = f"\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\u2028 {FAKE}\n{FAKE}"
"""It sets a terminal's title, clears it, writes over a line and from right to left, and forges lines."""
OBEYED = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that the library logs, as a program has it in a file."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("2026-01-01 00:00:00 %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("pyrepl3")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def check(text: str, where: str) -> None:
    """Check a text that a person reads."""
    assert OBEYED.search(text) is None, (where, text)


def check_log(log: io.StringIO, *expected: str) -> None:
    """Check what was logged, and that the texts of the code did arrive there."""
    text = log.getvalue()
    check(text, "log")
    assert [line for line in text.split("\n") if line.startswith(FAKE)] == [], text
    for part in expected:
        assert part in text


def refuse(text: str) -> None:
    raise ValueError(f"no such account: {text}")


def refuse_in_notes(text: str) -> None:
    error = LookupError("no such account")
    error.add_note(text)
    raise error


async def test_what_host_functions_raise_forges_no_line(log: io.StringIO) -> None:
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.open_session(
        config=strict_config(),
        capabilities={"refuse": refuse, "refuse_in_notes": refuse_in_notes},
        on_event=events.append,
    ) as session:
        for name in "refuse", "refuse_in_notes":
            result = await run(session, f"{name}({EVIL!r})")
            check(str(result.error), "the error")
    check_log(log, "no such account: \\x1b]0;owned\\x07", "ValueError", "LookupError")
    calls = [event for event in events if isinstance(event, pyrepl3.CallEvent)]
    assert [call.outcome for call in calls] == ["error", "error"]
    for call in calls:
        check(call.message, "the event")


async def test_what_code_raises_writes_and_names_is_escaped(log: io.StringIO) -> None:
    reports: list[pyrepl3.Recovery] = []
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.open_session(
        config=strict_config(), on_recovery=reports.append, on_event=events.append
    ) as session:
        with pytest.raises(pyrepl3.ExecutionFailed) as raised:
            await session.execute(f"raise ValueError({EVIL!r})")
        check(str(raised.value), "the error")
        assert "\\x1b]0;owned" in str(raised.value)
        # What the program itself asks for is what the code has made, to the byte.
        assert raised.value.error.message == EVIL
        # A name that cannot be saved, and so is lost with its worker.
        await session.execute(f"import threading\nglobals()[{EVIL!r}] = threading.Lock()")
        await session.checkpoint()
        await session.execute("import os\nos.kill(os.getpid(), 9)", check=False)
        await session.execute("1")
    assert reports
    for report in reports:
        check(str(report), "the report")
    for event in events:
        if isinstance(event, pyrepl3.RecoveryEvent):
            check(event.summary, "the event")
    check_log(log)


async def test_a_worker_that_complains_and_dies_says_nothing_that_is_obeyed(log: io.StringIO) -> None:
    complaint = encode(
        Error(kind="protocol", exception="E", message=EVIL, traceback=EVIL), DEFAULT_MAX_FRAME_BYTES
    )
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.open_session(
        config=strict_config(), recovery="none", on_event=events.append
    ) as session:
        with pytest.raises(pyrepl3.WorkerDied) as raised:
            await session.execute(WRITE_FORGED_FRAMES.format(frames=[complaint, EVIL.encode()]), timeout=5)
        check(str(raised.value), "the error")
    deaths = [event for event in events if isinstance(event, pyrepl3.DeathEvent)]
    assert len(deaths) == 1
    check(str(deaths[0].certificate), "the certificate")
    assert "\n" not in str(deaths[0].certificate)
    check_log(log, "complains", "\\x1b]0;owned")


async def test_what_a_start_prints_is_escaped(
    log: io.StringIO, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = tmp_path_factory.mktemp("start") / "python"
    python.write_text(f"#!{sys.executable} -S\nimport os\nos.write(2, {EVIL.encode()!r})\nos._exit(3)\n")
    python.chmod(0o755)
    with pytest.raises(pyrepl3.SpawnError) as raised:
        async with pyrepl3.open_session(config=pyrepl3.WorkerConfig(python=str(python))):
            pass
    check(str(raised.value), "the error")
    assert FAKE in raised.value.stderr
    check_log(log)


def test_the_line_on_a_terminal_holds_one_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    progress = pyrepl3.RecoveryProgress("restoring", EVIL, 1, 2)
    check(str(progress), "the progress")
    report = pyrepl3.Recovery(None, 2, None, (), (), (), seconds=2.0, progress=progress)
    RecoveryBar(stream=terminal)(report)
    check(terminal.getvalue().replace("\r\x1b[K", ""), "the terminal")
    assert "\n" not in terminal.getvalue()


def test_texts_that_are_harmless_stay_as_they_are() -> None:
    for text in "", "plain", "zwei Zeilen\n\tund ein Tab", "日本語 🙂 é عربي":
        assert printable(text) == text
    assert printable("\x1b\x7f\r\ud800") == r"\x1b\x7f\r\ud800"
    assert on_one_line("a\nb") == r"a\nb"
