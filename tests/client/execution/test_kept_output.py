"""The file that holds what is cut of the output: any part of any text, and never more than its limit."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_client._execution.kept_output import OutputKeeper
from pyrepl3_client.errors import OutputNotKept, SessionClosed
from pyrepl3_schemas.messages import StreamName

MIB = 1024 * 1024
BLOCK = 64 * 1024

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["é", "€x", "🎉", "a"]).flatmap(
        lambda text: st.integers(1, BLOCK // 2).map(lambda times: text * times)
    ),
)
WRITES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["stdout", "stderr"]), TEXTS), max_size=40
)


@given(WRITES, st.data())
def test_what_is_read_is_a_slice_of_what_was_written_or_named_as_missing(
    writes: list[tuple[str, StreamName, str]], data: st.DataObject
) -> None:
    keeper = OutputKeeper(MIB, None)
    try:
        written: dict[tuple[str, StreamName], str] = {}
        kept = {name: keeper.begin(name, (), ()) for name in "abc"}
        for name, stream, text in writes:
            kept[name].add(stream, text)
            whole = written.get((name, stream), "") + text.encode("utf-8", "backslashreplace").decode()
            written[name, stream] = whole
        for (name, stream), whole in written.items():
            size = len(whole)
            bounds = st.one_of(st.integers(-size - 3, size + 3), st.none())
            start, stop = data.draw(bounds) or 0, data.draw(bounds)
            if not (kept[name].lost or kept[name].stopped):
                assert asyncio.run(kept[name].read(stream, start, stop)) == whole[start:stop]
                continue
            with suppress(OutputNotKept):
                assert asyncio.run(kept[name].read(stream, start, stop)) == whole[start:stop]
    finally:
        keeper.close()


def test_all_room_comes_back_from_what_goes(tmp_path: Path) -> None:
    keeper = OutputKeeper(MIB, str(tmp_path))
    blocks = MIB // BLOCK
    for n in range(50):
        kept = keeper.begin(f"e{n}", ["x" * BLOCK], ["y" * (BLOCK // 2)])
        assert asyncio.run(kept.read("stderr", -1, None)) == "y"
    alive = [n for n in range(50) if keeper.find(f"e{n}") is not None]
    assert alive == list(range(50 - blocks // 2, 50))
    assert all(keeper.is_dropped(f"e{n}") for n in range(50 - blocks // 2))
    keeper.close()
    assert os.listdir(tmp_path) == []


def test_a_text_that_goes_while_it_is_read_is_an_error_and_not_another_text() -> None:
    keeper = OutputKeeper(4 * MIB, None)

    async def read_and_write() -> None:
        first = keeper.begin("first", ["1" * (3 * MIB)], ())
        reading = asyncio.create_task(first.read("stdout", 0, None))
        await asyncio.sleep(0)  # it has read its first part
        keeper.begin("second", ["2" * (3 * MIB)], ())
        with pytest.raises(OutputNotKept, match="made room"):
            await reading

    asyncio.run(read_and_write())
    keeper.close()


@pytest.mark.parametrize("closes", [False, True])
def test_what_was_written_before_the_cut_goes_to_the_file_turn_by_turn_in_its_order(closes: bool) -> None:
    keeper = OutputKeeper(64 * MIB, None)
    pieces = [f"{n:9}é" * 9000 for n in range(200)]
    errors = ["e" * 400_000]

    async def write_and_read() -> None:
        turns = 0
        kept = keeper.begin("first", pieces, errors)
        reading = asyncio.create_task(kept.read("stderr", 0, None))
        while not reading.done():
            kept.add("stdout", f"turn {turns}\n")
            turns += 1
            await asyncio.sleep(0)
            if closes and turns == 9:
                keeper.close()
        if closes:
            with pytest.raises(SessionClosed):
                await reading
            return
        assert turns > 50
        assert await reading == "".join(errors)
        whole = "".join([*pieces, *(f"turn {n}\n" for n in range(turns))])
        assert await kept.read("stdout", 0, None) == whole

    asyncio.run(write_and_read())
    keeper.close()
