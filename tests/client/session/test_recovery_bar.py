"""The line that a person sees while a session comes back."""

import io
import os
import pty

import pyrepl3_client as pyrepl3
from pyrepl3_client._session.recovery_bar import recovery_line

CLEAR = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(*progress: object) -> pyrepl3.Recovery:
    return pyrepl3.Recovery(
        cause=None, incarnation=2, restored_from=None, replayed=(), lost=(), skipped=(), seconds=3.2,
        progress=pyrepl3.RecoveryProgress(*progress) if progress else None,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_recovery_is_one_line_that_fits() -> None:
    half = report("restoring", "table", 5, 10)
    assert recovery_line(half, 79) == "[##########..........] 3 s: restoring table (5 of 10)"
    assert recovery_line(report("importing", "numpy"), 79) == "3 s: importing numpy"
    assert recovery_line(report("restoring", "x", 12, 10), 25) == "[####################] 3 "
    assert recovery_line(report("restoring", "a\nb\x1b[2Jc"), 79) == r"3 s: restoring a\nb\x1b[2Jc"
    assert recovery_line(report(), 79) == ""


def test_it_is_shown_while_it_lasts_and_erased_then() -> None:
    stream = Terminal()
    bar = pyrepl3.RecoveryBar(stream)
    bar(report())
    assert stream.getvalue() == ""
    bar(report("starting a worker"))
    bar(report())
    bar(report())
    assert stream.getvalue() == f"{CLEAR}3 s: starting a worker{CLEAR}"


def test_nothing_is_shown_where_nobody_watches(capfd: object) -> None:
    stream = io.StringIO()
    pyrepl3.RecoveryBar(stream)(report("importing", "numpy"))
    pyrepl3.RecoveryBar()(report("importing", "numpy"))
    assert stream.getvalue() == ""
    assert capfd.readouterr() == ("", "")  # type: ignore[attr-defined]


def test_it_fits_a_real_terminal() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        pyrepl3.RecoveryBar(stream)(report("importing", "n" * 200))
        shown = os.read(ours, 1000).decode()
    os.close(ours)
    assert shown == f"{CLEAR}3 s: importing {'n' * 64}"
