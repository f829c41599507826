"""The file that holds what is cut of the output: any part of any text, and never more than its limit."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_client._execution.kept_output import OutputKeeper
from pyrepl3_client.errors import OutputNotKept
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
    first = keeper.begin("first", ["1" * (3 * MIB)], ())

    async def read_and_write() -> None:
        reading = asyncio.create_task(first.read("stdout", 0, None))
        await asyncio.sleep(0)  # it has read its first part
        keeper.begin("second", ["2" * (3 * MIB)], ())
        with pytest.raises(OutputNotKept, match="made room"):
            await reading

    asyncio.run(read_and_write())
    keeper.close()
