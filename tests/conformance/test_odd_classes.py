"""Classes whose metaclass refuses what nearly every class allows: editors and checkpoints are none the worse."""

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, run

pytestmark = pytest.mark.anyio

ODD = """
class NoHash(type):
    def __hash__(cls): raise ValueError("no")
class Unhashed(metaclass=NoHash):
    def known(self): pass
odd_one = Unhashed()
odd_list = [odd_one]
odd_beside = 5
"""


async def test_a_class_whose_metaclass_forbids_a_hash_hides_nothing() -> None:
    async with pyrepl3.open_session(config=quick()) as editor:
        await run(editor, ODD)
        shown = await editor.variables()
        assert [shown[name].type_name for name in ("odd_one", "odd_list", "odd_beside")] == [
            "Unhashed",
            "list",
            "int",
        ]
        assert shown["odd_beside"].repr == "5"
        assert (await editor.complete("odd_")).matches == ["odd_beside", "odd_list", "odd_one"]
        assert (await editor.complete("odd_one.")).matches == ["known"]
        assert [(await editor.inspect(code)).found for code in ("odd_one", "odd_one.known", "Unhashed(")] == [
            True
        ] * 3


async def test_its_exceptions_have_their_tracebacks() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        code = "class Odd(KeyError, metaclass=NoHash): pass\ndef f(): raise Odd('x')\nf()"
        error = (await run(session, ODD + code)).error
        assert error is not None
        assert (error.type, [frame.name for frame in error.frames]) == ("Odd", ["<module>", "f"])
