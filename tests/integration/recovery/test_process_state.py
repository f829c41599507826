"""What code sets in its process and not in its namespace: it comes back too, or the report names it."""

import os
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, run, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

SET = {
    "os.getcwd()": "import os; os.chdir({folder!r})",
    "[os.environ.get('API_BASE'), os.environ.get('GONE'), os.environ.get('LANG')]": (
        "os.environ['API_BASE'] = 'http://x'; os.environ.pop('LANG', None)"
    ),
    "sys.path.count({folder!r})": "import sys; sys.path.insert(0, {folder!r})",
    "[os.umask(0o077), os.umask(0o027)]": "os.umask(0o027)",
    "[time.tzname[0], time.timezone]": "import time; os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()",
    "locale.setlocale(locale.LC_NUMERIC)": "import locale; locale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')",
    "sys.getrecursionlimit()": "sys.setrecursionlimit(5000)",
    "[(f[0], f[1] and f[1].pattern, f[2].__name__) for f in warnings.filters]": (
        "import warnings; warnings.filterwarnings('ignore', message='old', category=FutureWarning)"
    ),
    "random.Random.random(random._inst)": "import random; random.seed(7); random.random()",
    "[str(decimal.Decimal(1) / 3), decimal.getcontext().traps[decimal.Inexact]]": (
        "import decimal; decimal.getcontext().prec = 5"
    ),
    "[logging.getLogger().level, logging.getLogger('a.b').level, logging.getLogger('a').propagate,"
    " [(type(h).__name__, h.level, h.formatter._fmt) for h in logging.getLogger().handlers]]": (
        "import logging; logging.basicConfig(level=10, format='%(message)s!', stream=sys.stdout)\n"
        "logging.getLogger('a.b').setLevel(30); logging.getLogger('a').propagate = False"
    ),
    "[h.__name__ for h in (sys.excepthook, sys.displayhook, sys.unraisablehook)], sys.excepthook is hook": (
        "def hook(*args): pass\nsys.excepthook = hook; sys.unraisablehook = lambda *args: None"
    ),
    "[getattr(signal.getsignal(n), '__name__', n) for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP)]": (
        "import signal; signal.signal(signal.SIGUSR1, lambda *args: 1); signal.signal(signal.SIGTERM, hook)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    ),
    "[gc.isenabled(), gc.get_threshold()[:2]]": "import gc; gc.disable(); gc.set_threshold(900, 7, 7)",
    "[round(sys.getswitchinterval(), 6), sys.get_int_max_str_digits()]": (
        "sys.setswitchinterval(0.014); sys.set_int_max_str_digits(9000)"
    ),
    "[threading.stack_size(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]]": (
        "import resource, threading; threading.stack_size(262144)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (400, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))"
    ),
    "[asyncio.get_running_loop().get_debug(), asyncio.get_running_loop().slow_callback_duration]": (
        "import asyncio; asyncio.get_running_loop().set_debug(True)\n"
        "asyncio.get_running_loop().slow_callback_duration = 5.0"
    ),
    "[socket.getdefaulttimeout(), csv.field_size_limit(), calendar.firstweekday()]": (
        "import calendar, csv, socket\n"
        "socket.setdefaulttimeout(3.0); csv.field_size_limit(9); calendar.setfirstweekday(6)"
    ),
    "[repr(decimal.DefaultContext), decimal.DefaultContext.prec]": (
        "decimal.DefaultContext.prec = 7; decimal.setcontext(decimal.DefaultContext)"
    ),
    "[str(each) for each in sys.path[-1:]]": "import pathlib; sys.path.append(pathlib.PurePath('/nowhere'))",
    "logging.getLevelName(35)": "logging.addLevelName(35, 'NOTE')",
}
NUMPY = {
    "repr(np.array([1 / 3]))": "import numpy as np; np.set_printoptions(precision=3)",
    "np.geterr()": "np.seterr(divide='ignore')",
    "float(np.random.rand())": "np.random.seed(0)",
}


async def die(session: pyrepl3.Session) -> None:
    """End the worker from outside, after a checkpoint."""
    await session.checkpoint()
    os.kill(session.worker.pid, 9)


@pytest.mark.parametrize("policy", ["auto", "checkpoint"])
async def test_the_state_of_the_process_is_what_it_was(
    tmp_path: Path, policy: pyrepl3.RecoveryPolicy
) -> None:
    settings = SET | (NUMPY if policy == "auto" else {})
    if policy == "auto":
        pytest.importorskip("numpy")
    found: list[list[object]] = []
    for killed in (False, True):
        async with pyrepl3.open_session(config=quick(), recovery=policy) as session:
            for code in settings.values():
                await session.execute(code.format(folder=str(tmp_path)))
            if killed:
                await die(session)
            found.append([await value(session, probe.format(folder=str(tmp_path))) for probe in settings])
            assert killed is bool(session.recoveries)
            assert not any(report.lost or report.replayed for report in session.recoveries)
    assert found[0] == found[1]


async def test_imports_of_a_restore_find_what_they_found(tmp_path: Path) -> None:
    for folder in ("on_path", "in_cwd"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"module_{folder}.py").write_text("class C:\n    v = 1\n")
    async with pyrepl3.open_session(config=quick(), recovery="checkpoint") as session:
        await session.execute(
            f"import sys, os\nsys.path.insert(0, {str(tmp_path / 'on_path')!r})\n"
            f"os.chdir({str(tmp_path / 'in_cwd')!r})"
        )
        await session.execute("import module_on_path\nfrom module_in_cwd import C\nc = C(); c.v = 2")
        await die(session)
        assert await value(session, "c.v + module_on_path.C.v") == 3
        assert not session.recoveries[-1].lost


async def test_a_folder_that_is_gone_is_named_in_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "short-lived"
    folder.mkdir()
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute(f"import os; os.chdir({str(folder)!r}); x = 1")
        await session.checkpoint()
        folder.rmdir()
        os.kill(session.worker.pid, 9)
        assert await value(session, "x") == 1
        (lost,) = session.recoveries[-1].lost
        assert (lost.name, lost.type_name) == ("os.getcwd()", "process state")
        assert "short-lived" in lost.reason


async def test_a_restore_in_a_live_worker_puts_the_state_back_too(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("import os, random, sys; os.environ['A'] = '1'; random.seed(1)")
        before = await value(session, "[os.getcwd(), os.umask(0o022), os.umask(0o022), len(sys.path)]")
        await session.checkpoint("then")
        first = await value(session, "random.random()")
        await session.execute(
            f"os.environ.update(A='2', B='3'); os.chdir({str(tmp_path)!r}); os.umask(0); sys.path.append('x')"
        )
        await session.restore("then")
        assert await value(session, "[os.environ['A'], os.environ.get('B')]") == ["1", None]
        assert (
            await value(session, "[os.getcwd(), os.umask(0o022), os.umask(0o022), len(sys.path)]") == before
        )
        assert await value(session, "random.random()") == first


async def test_names_for_the_decimal_context_stay_names_for_it() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("import decimal; ctx = decimal.getcontext(); ctx.prec = 4")
        await die(session)
        await session.execute("ctx.prec = 6")
        assert await value(session, "[str(decimal.Decimal(2) / 3), ctx is decimal.getcontext()]") == [
            "0.666667",
            True,
        ]


async def test_code_can_register_a_part_of_the_state(tmp_path: Path) -> None:
    (tmp_path / "gauge.py").write_text(
        "unit = 'cm'\ndef get(): return unit\ndef put(value):\n    global unit\n    unit = value\n"
    )
    async with pyrepl3.open_session(config=quick(), recovery="checkpoint") as session:
        await session.execute(
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import gauge\n"
            "from pyrepl3_worker.checkpoint.process_state import register\n"
            "register('gauge.unit', gauge.get, lambda unit: gauge.put(unit)); gauge.unit = 'inch'"
        )
        for _ in range(2):  # the second time, by what the first restore has registered again
            await die(session)
            assert await value(session, "gauge.unit") == "inch"
            assert not session.recoveries[-1].lost
        failed = await run(session, "register(3, gauge.get, gauge.put)")
        assert failed.error is not None
        assert failed.error.message == "a part of the state has a text as its name, not int"


async def test_a_part_that_cannot_be_saved_is_named() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute(
            "from pyrepl3_worker.checkpoint.process_state import register\n"
            "register('broken', lambda: 1 / 0, print)\n"
            "import logging; logging.getLogger('a').addHandler(type('Own', (logging.Handler,), {})())\n"
            "logging.getLogger('b').addFilter(lambda record: True)\n"
            "import asyncio, signal, sys, threading\n"
            "asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, print)\n"
            "class Hook:\n    def __init__(self): self.thread = threading.current_thread()\n"
            "    def __call__(self, *args): pass\n"
            "sys.excepthook = Hook()"
        )
        saved = await session.checkpoint()
        assert {each.name: each.reason for each in saved.unsaved} == {
            "broken": "ZeroDivisionError: division by zero",
            "logging.getLogger('a').handlers": "a Own is not made again; add it again",
            "logging.getLogger('b').filters": "filters are not kept; add them again",
            "loop.add_signal_handler()": "a handler of signal 12 belongs to the event loop",
            "sys.excepthook": "running code can't be saved; start it again",
        }
