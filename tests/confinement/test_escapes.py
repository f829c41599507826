"""Attempts to get out of a strictly confined worker, each checked from inside and from outside."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
import pyrepl3_schemas
import pyrepl3_worker
from tests.confinement.controls import CONTROLS, WITHOUT_CONTROL, has_worked, programs
from tests.confinement.escapes import ESCAPES, PRELUDE, Escape
from tests.confinement.outside_world import OutsideWorld
from tests.confinement.sessions import is_working, run, strict_config

pytestmark = pytest.mark.anyio


def test_there_are_enough_attempts() -> None:
    assert len({escape.name for escape in ESCAPES}) == len(ESCAPES) >= 60


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
async def test_an_attempt_comes_to_nothing(
    confined: pyrepl3.Session, world: OutsideWorld, escape: Escape
) -> None:
    result = await run(confined, escape.code)
    if result.error is None:
        assert result.value == "contained", f"it gave {result.repr}"
    else:
        assert result.error.type in escape.stopped_by, result.error.traceback
    assert world.traces() == []
    assert confined.worker.incarnation == 1
    assert confined.state is pyrepl3.SessionState.READY


@pytest.mark.parametrize(
    "escape", [escape for escape in ESCAPES if escape.control], ids=lambda escape: escape.name
)
async def test_the_same_attempt_succeeds_unconfined(
    unconfined: pyrepl3.Session, world: OutsideWorld, escape: Escape
) -> None:
    """Or else it would prove nothing above."""
    result = await run(unconfined, escape.code)
    assert result.error is None, result.error
    world.traces()  # what it left is taken away


def test_every_attempt_has_a_control_or_a_reason_why_not() -> None:
    assert set(CONTROLS) == {escape.name for escape in ESCAPES if not escape.control}
    assert all(len(reason) > 20 for reason in WITHOUT_CONTROL.values())


@pytest.fixture(scope="module")
def outcomes(world: OutsideWorld) -> dict[str, str]:
    """What came of the controls, by the escapes' names."""
    packages = (pyrepl3_worker, pyrepl3_schemas)
    folders = ["/usr", "/etc", sys.base_prefix, os.path.realpath(sys.prefix), str(world.folder.parent)]
    folders += [os.path.dirname(str(package.__file__)) for package in packages]
    found: dict[str, str] = {}
    for where in "apart", "forked":
        given = {
            "prelude": PRELUDE,
            "facts": world.facts,
            "programs": programs(where, as_root=os.getuid() == 0),
            "folders": ["/tmp", *(each for each in folders if not each.startswith("/tmp/"))],
            "uid": os.getuid(),
            "gid": os.getgid(),
        }
        command = [sys.executable, str(Path(__file__).with_name("unbounded_world.py")), where]
        done = subprocess.run(command, input=repr(given), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found |= json.loads(done.stdout)
    while world.traces():  # what they left is taken away
        pass
    return found


@pytest.mark.parametrize("escape", [each for each in ESCAPES if not each.control], ids=lambda each: each.name)
def test_the_same_attempt_succeeds_where_there_is_no_boundary(
    outcomes: dict[str, str], escape: Escape
) -> None:
    control = CONTROLS[escape.name]
    if isinstance(control, str):
        return
    if control.root and os.getuid() != 0:
        pytest.skip("for root alone")
    outcome = outcomes[escape.name]
    if not has_worked(escape, control, outcome) and control.optional:
        pytest.skip(f"this machine has nothing of the kind: {outcome}")
    assert has_worked(escape, control, outcome), outcome


async def test_the_worker_is_whole_after_all_of_them(confined: pyrepl3.Session) -> None:
    assert await is_working(confined)


async def test_sockets_in_a_writable_path_are_out_of_reach() -> None:
    """Nothing else refuses them: they are where others may put theirs."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as outside:
        os.chmod(folder, 0o777)
        outside.bind(f"{folder}/socket")
        os.chmod(f"{folder}/socket", 0o777)
        outside.listen()
        code = f"import socket\nwith socket.socket(socket.AF_UNIX) as s: s.connect({folder + '/socket'!r})"
        async with pyrepl3.open_session(config=strict_config(confinement="none")) as session:
            assert (await run(session, code)).error is None
        policy = pyrepl3.SandboxPolicy(writable=(folder,))
        async with pyrepl3.open_session(config=strict_config(sandbox=policy)) as session:
            result = await run(session, code)
            assert result.error is not None
            assert result.error.type == "PermissionError"
            pair = "a, b = socket.socketpair()\na.send(b'x')\nb.recv(1) == b'x'"
            assert (await run(session, pair)).value is True
