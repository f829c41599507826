"""Prompts: who answers, how, and what becomes of answers that nobody waits for."""

import asyncio
import threading

import pytest

from pyrepl3_client import Prompt
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.messages import InputResponse
from tests.helpers.scripted_sessions import ONE, opened

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def asks(worker: ScriptedWorker) -> None:
    @worker.script("asks")
    async def script(run: Run) -> str:
        return await run.input("? ", password=True)


async def test_a_plain_handler_runs_in_a_thread_and_may_block(worker: ScriptedWorker) -> None:
    may_answer = threading.Event()
    threads: list[threading.Thread] = []

    def answer(prompt: str) -> str:
        threads.append(threading.current_thread())
        may_answer.wait()
        return "yes\n"

    async with opened(worker, on_input=answer) as session:
        execution = session.start("asks")
        await session.ping()  # the loop goes on meanwhile
        may_answer.set()
        assert (await execution.result()).value == "yes"
    assert threads[0] is not threading.current_thread()


async def test_an_asynchronous_handler_is_awaited(worker: ScriptedWorker) -> None:
    async def answer(prompt: str) -> str:
        await asyncio.sleep(0)
        return prompt * 2

    async with opened(worker) as session:
        assert (await session.execute("asks", on_input=answer)).value == "? ? "


async def test_an_executions_own_handler_comes_first(worker: ScriptedWorker) -> None:
    async with opened(worker, on_input=lambda prompt: "session") as session:
        assert (await session.execute("asks", on_input=lambda prompt: "execution")).value == "execution"
        assert (await session.execute("asks")).value == "session"


async def test_a_prompt_knows_more_than_its_text(worker: ScriptedWorker) -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return ""

    async with opened(worker, on_input=answer) as session:
        assert (await session.execute("asks", execution_id="e")).value == ""
    (prompt,) = prompts
    assert isinstance(prompt, Prompt)
    assert prompt == "? "
    assert (prompt.input_id, prompt.execution_id, prompt.password) == ("e:input:1", "e", True)


@pytest.mark.parametrize("with_handler", [True, False])
async def test_nothing_is_the_end_of_input(worker: ScriptedWorker, with_handler: bool) -> None:
    async with opened(worker, on_input=(lambda prompt: None) if with_handler else None) as session:
        result = await session.execute("asks", check=False)
    assert result.error is not None
    assert result.error.type == "EOFError"


async def test_a_failing_handler_is_an_error_of_the_code(worker: ScriptedWorker) -> None:
    def fails(prompt: str) -> str:
        raise OSError("the terminal is gone \ud800")

    async with opened(worker, on_input=fails) as session:
        result = await session.execute("asks", check=False)
    assert result.error is not None
    assert result.error.message == "OSError: the terminal is gone \\ud800"


async def test_what_a_handler_had_cancelled_is_an_error_of_the_code(worker: ScriptedWorker) -> None:
    async def waits_for_a_cancelled_task(prompt: str) -> str:
        task = asyncio.create_task(asyncio.sleep(60, "never"))
        task.cancel("not needed")
        return await task

    def raises_in_a_thread(prompt: str) -> str:
        raise asyncio.CancelledError("in a thread")

    told: list[str] = []
    async with opened(worker) as session:
        for handler in (waits_for_a_cancelled_task, raises_in_a_thread):
            result = await session.execute("asks", check=False, on_input=handler)
            assert result.error is not None
            told.append(result.error.message)
    assert told == ["CancelledError: not needed", "CancelledError: in a thread"]


async def test_an_error_whose_text_cannot_be_had_is_an_error_of_the_code(worker: ScriptedWorker) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fails(prompt: str) -> str:
        raise OddError

    async with opened(worker, on_input=fails) as session:
        result = await session.execute("asks", check=False)
    assert result.error is not None
    assert result.error.message == "OddError: <OddError whose text cannot be had>"


async def test_an_answer_that_is_no_text_is_an_error_of_the_code(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        result = await session.execute("asks", check=False, on_input=lambda prompt: 5)  # pyright: ignore[reportArgumentType]
    assert result.error is not None
    assert "on_input gave a int" in result.error.message


async def test_a_question_is_withdrawn_when_its_execution_ends(worker: ScriptedWorker) -> None:
    asked, withdrawn = asyncio.Event(), asyncio.Event()

    async def answer(prompt: str) -> str:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            withdrawn.set()
        return "never"

    async with opened(worker, on_input=answer) as session:
        execution = session.start("asks")
        await asked.wait()
        await execution.cancel()
        await withdrawn.wait()
        assert (await session.execute(ONE)).value == 2
    assert not any(isinstance(message, InputResponse) for message in worker.received)


async def test_the_late_answer_of_a_thread_is_dropped(worker: ScriptedWorker) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    may_answer = threading.Event()

    def answer(prompt: str) -> str:
        loop.call_soon_threadsafe(asked.set)
        may_answer.wait()
        return "too late"

    async with opened(worker, on_input=answer) as session:
        execution = session.start("asks")
        await asked.wait()
        await execution.cancel()
        may_answer.set()
        assert (await session.execute(ONE)).value == 2
    assert not any(isinstance(message, InputResponse) for message in worker.received)
