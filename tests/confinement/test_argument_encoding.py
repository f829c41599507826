# ruff: noqa: E501 - a program a line reads best
"""What a worker may send to hurt its parent: by what it prints, returns, raises, or writes to any fd."""

import pytest

import pyrepl3_client as pyrepl3
from tests.confinement.outside_world import OutsideWorld
from tests.confinement.sessions import WRITE_FORGED_FRAMES, is_working, run, strict_config, value

pytestmark = pytest.mark.anyio

PICKLE = "b'cos\\nsystem\\n(S\"touch ' + W.encode() + b'/planted\"\\ntR.'"

TEXTS = [
    pytest.param(f"print({PICKLE})", id="a pickle"),
    pytest.param("print('%s %n %x {0.__class__} {}' * 1000)", id="format strings"),
    pytest.param("print('\\0' * 10000)", id="NUL"),
    pytest.param("import os\nos.write(1, bytes(range(128, 256)) * 100)", id="invalid UTF-8"),
    pytest.param("print('\\ud800' * 100)", id="lone surrogates"),
    pytest.param("print('\\x1b]0;owned\\x07\\x1b[2J\\x1b[31m')", id="terminal escapes"),
    pytest.param("class X(Exception):\n    __str__ = lambda self: '\\x1b[2J\\0%n{}' * 1000\nraise X", id="escapes in a traceback"),
    pytest.param("raise type('A' * 10**6, (Exception,), {})('B' * 10**6)", id="names and messages without end"),
    pytest.param("x = []\nfor _ in range(10**5): x = [x]\nx", id="deep nesting"),
    pytest.param("x = []\nx.append(x)\nx", id="a value inside itself"),
    pytest.param("{float('nan'): 2**63, 2**64 - 1: -2**63, b'': None}", id="keys and numbers at their limits"),
    pytest.param("2**100000", id="a number too large"),
    pytest.param("def f(n):\n    try: raise ValueError(n)\n    except ValueError:\n        if n: f(n - 1)\n        else: raise\nf(400)", id="a chain of causes"),
    pytest.param("raise ExceptionGroup('g', [ExceptionGroup('h', [ValueError(n) for n in range(1000)])])", id="a group of a thousand"),
]  # fmt: skip


@pytest.mark.parametrize("code", TEXTS)
async def test_a_payload_is_only_text(
    confined: pyrepl3.Session, world: OutsideWorld, capfd: pytest.CaptureFixture[str], code: str
) -> None:
    result = await run(confined, f"W = {str(world.folder)!r}\n{code}")
    str(result.error)
    assert world.traces() == []
    assert await is_working(confined)
    assert capfd.readouterr() == ("", ""), "the parent printed something by itself"


FORGED = [
    pytest.param(r"[b'\xff\xff\xff\xff' + b'x' * 100]", id="a huge length"),
    pytest.param(r"[b'\0\0\0\0']", id="no length"),
    pytest.param(r"[b'\0\0\0\5hello']", id="no message"),
    pytest.param(r"[b'\0\0\1\0abc']", id="half a frame"),
    pytest.param(r"[(600).to_bytes(4) + b'\x91' * 600]", id="deep nesting"),
    pytest.param(r"[(9).to_bytes(4) + b'\x81\xa4type\xa2no']", id="an unknown type"),
    pytest.param(
        r"[b'\x83\xa4type\xa6result\xacexecution_id\xa4mine\xa4mode\xa1m'.join([(34).to_bytes(4), b''])]", id="a result nobody asked for"
    ),
    pytest.param(r"[os.urandom(10000)]", id="noise"),
]  # fmt: skip


@pytest.mark.parametrize("frames", FORGED)
async def test_forged_frames_cost_the_forger_his_worker_at_most(
    confined: pyrepl3.Session, world: OutsideWorld, frames: str
) -> None:
    async with pyrepl3.open_session(config=strict_config()) as session:
        try:
            # Half a frame swallows the true result behind it: then it is the deadline that ends the worker.
            result = await run(session, WRITE_FORGED_FRAMES.format(frames=frames), timeout=1.0)
        except pyrepl3.WorkerDied as error:
            why = error.reason or error.__cause__
        else:
            why = result.error is None or result.error.kind in ("timeout", "died")
        assert why
    assert world.traces() == []
    assert await value(confined, "6 * 7") == 42
