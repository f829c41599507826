"""What code finds around it: the same as at Python's own prompt, and nothing of the worker's own start."""

from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._launch.fork_server import ForkServer
from tests.helpers.fork_servers import modules, opened, ready
from tests.helpers.real_sessions import quick, run, value

pytestmark = pytest.mark.anyio

PARSING = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--size", type=int, default=3)
parser.parse_args().size
"""

TESTING = """
import unittest
class Sums(unittest.TestCase):
    def test_one(self):
        self.assertEqual(1 + 1, 2)
unittest.main(exit=False).result.testsRun
"""


async def test_code_has_no_command_line(shared: pyrepl3.Session) -> None:
    assert await value(shared, "import sys\nsys.argv") == [""]
    assert await value(shared, PARSING) == 3
    assert await value(shared, TESTING) == 1


async def test_a_warm_module_sees_no_command_line(tmp_path: Path) -> None:
    config = modules(tmp_path, arguments="import sys\nseen = list(sys.argv)\nlater = sys.argv")
    asked = "import arguments, sys\n[arguments.seen, arguments.later, sys.argv]"
    async with pyrepl3.open_session(config=config) as session:
        assert await value(session, asked) == [[""]] * 3
    async with ForkServer(config) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session:
            assert await value(session, asked) == [[""]] * 3


async def test_a_host_function_named_display_is_the_one_that_is_called() -> None:
    def shown(text: str) -> str:
        return f"shown: {text}"

    async with pyrepl3.open_session(config=quick(), capabilities={"display": shown}) as session:
        assert await value(session, "display('a map')") == "shown: a map"
        result = await run(session, "class Rich:\n    def _repr_html_(self): return '<b>rich</b>'\nRich()")
        assert result.error is None
