"""Recoveries that take long, and those that do not bring everything back."""

import os
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, run, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

SLOW = """
import time
time.sleep({seconds} if {mark!r} in __import__('os').listdir({folder!r}) else 0)
class Thing:
    v = 1
"""


async def test_what_a_long_recovery_is_at_is_told(tmp_path: Path) -> None:
    (tmp_path / "slowly.py").write_text(SLOW.format(seconds=2.2, mark="mark", folder=str(tmp_path)))
    reports: list[pyrepl3.Recovery] = []
    async with pyrepl3.open_session(config=quick(), on_recovery=reports.append) as session:
        await session.execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import slowly")
        await session.execute("t = slowly.Thing()")
        await session.checkpoint()
        (tmp_path / "mark").touch()
        os.kill(session.worker.pid, 9)
        assert await value(session, "t.v") == 1
        assert [report.lost for report in session.recoveries] == [()]
    *under_way, done = reports
    assert done.progress is None
    assert done is session.recoveries[0]
    told = [report.progress for report in under_way]
    assert any(each and (each.stage, each.name) == ("importing", "slowly") for each in told)
    assert str(under_way[-1]).startswith("the session comes back, for ")
    assert "importing slowly" in str(under_way[-1])


@pytest.mark.parametrize("policy", ["auto", "checkpoint"])
async def test_a_checkpoint_that_did_not_come_back_whole_is_kept(
    tmp_path: Path, policy: pyrepl3.RecoveryPolicy
) -> None:
    module = tmp_path / "here_and_gone.py"
    module.write_text("class Thing:\n    v = 1\n")
    async with pyrepl3.open_session(config=quick(), recovery=policy) as session:
        await session.execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); x = 1")
        await session.execute("import here_and_gone; t = here_and_gone.Thing(); t.v = 5")
        await session.checkpoint("mine")
        module.unlink()
        os.kill(session.worker.pid, 9)
        assert await value(session, "x") == 1
        assert {"here_and_gone", "t"} <= {each.name for each in session.recoveries[-1].lost}
        await session.execute("y = 2")
        await session.checkpoint("mine")  # in its place
        module.write_text("class Thing:\n    v = 1\n")
        assert (await run(session, "t")).error is not None
        restored = await session.restore("(not restored whole)")
        assert {"here_and_gone", "t", "x"} <= set(restored.names)
        assert await value(session, "t.v") == 5
