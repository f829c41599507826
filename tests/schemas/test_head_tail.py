"""Texts within a limit: what is kept, what is said to be missing, and that characters stay whole."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.head_tail import (
    HeadTail,
    shorten_to_bytes,
    shorten_to_characters,
    split_at,
    tail_bytes,
)

MARKER = re.compile(r"\n… ([\d,]+) bytes of output cut \(max_output_bytes=\d+\) …\n")
# Of one to four bytes each.
TEXTS = st.text(st.sampled_from("ab\nßé€中🎉\ufffd"), min_size=1, max_size=30)
STREAMS = st.sampled_from(["stdout", "stderr"])


def size_of(text: str) -> int:
    return len(text.encode())


def number_in(marker: str) -> int:
    found = MARKER.fullmatch(marker)
    assert found is not None, marker
    return int(found[1].replace(",", ""))


class Written:
    """What came out of a `HeadTail` that was given some texts."""

    def __init__(self, limit: int, texts: list[tuple[str, str]]) -> None:
        self.bound = HeadTail[str](limit)
        self.used = 0
        self.head: list[tuple[str, str]] = []
        for stream, text in texts:
            self.head.append((stream, self.add(stream, text)))
        self.tail = self.bound.finish()
        self.marker = self.tail.pop(0)[1] if self.bound.missing else ""

    def add(self, stream: str, text: str) -> str:
        passed = self.bound.add(stream, text, size_of(text), self.used)
        self.used += size_of(text)
        return passed

    def kept(self) -> str:
        return "".join(text for _, text in [*self.head, *self.tail])


@given(st.integers(1, 80), st.lists(st.tuples(STREAMS, TEXTS), max_size=12))
def test_head_and_tail_are_within_the_limit_and_nothing_is_lost_untold(
    limit: int, texts: list[tuple[str, str]]
) -> None:
    written = Written(limit, texts)
    whole = "".join(text for _, text in texts)
    kept = written.kept()
    if size_of(whole) <= limit:
        assert (kept, written.marker, written.bound.missing) == (whole, "", 0)
        return
    head = "".join(text for _, text in written.head)
    tail = "".join(text for _, text in written.tail)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert size_of(kept) <= limit
    # No more than two characters cut at each place.
    assert size_of(kept) >= limit - 6
    assert number_in(written.marker) == written.bound.missing == size_of(whole) - size_of(kept)


@given(st.integers(1, 80), st.lists(st.tuples(STREAMS, TEXTS), max_size=12))
def test_every_stream_keeps_its_own_text(limit: int, texts: list[tuple[str, str]]) -> None:
    written = Written(limit, texts)
    for stream in ("stdout", "stderr"):
        whole = "".join(text for name, text in texts if name == stream)
        assert whole.startswith("".join(text for name, text in written.head if name == stream))
        assert whole.endswith("".join(text for name, text in written.tail if name == stream))


@given(st.integers(1, 80), st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=5))
def test_after_the_end_what_is_over_the_limit_is_cut_and_said_once(
    limit: int, texts: list[str], late_texts: list[str]
) -> None:
    written = Written(limit, [("stdout", text) for text in texts])
    missing = written.bound.missing
    late = [written.add("stdout", text) for text in late_texts]
    marker = f"\n… more late output cut (max_output_bytes={limit}) …\n"
    passed = "".join(late).replace(marker, "")
    assert "".join(late_texts).startswith(passed)
    assert written.bound.missing - missing == size_of("".join(late_texts)) - size_of(passed)
    assert "".join(late).count(marker) == (written.bound.missing > missing)
    assert written.bound.finish() == []


def test_a_limit_of_one_byte_keeps_a_head_only() -> None:
    written = Written(1, [("stdout", "abc"), ("stderr", "def")])
    assert written.kept() == "a"
    assert number_in(written.marker) == 5


def test_what_others_have_used_leaves_less_room_for_the_head() -> None:
    bound = HeadTail[str](100)
    assert bound.add("stdout", "x" * 20, 20, used=40) == "x" * 10
    # Once something is kept back, what follows stays behind it.
    assert bound.add("stdout", "y", 1, used=0) == ""
    assert bound.finish() == [("stdout", "x" * 10 + "y")]


def test_lone_surrogates_are_escaped() -> None:
    bound = HeadTail[str](20)
    assert bound.add("stdout", "\ud800" * 5, 30, used=0) == "\\ud800\\ud8"
    assert bound.finish()[-1] == ("stdout", "00\\ud800\\ud800"[-10:])


def test_a_large_limit_has_a_tail_of_one_mebibyte() -> None:
    limit = 100 * 2**20
    assert tail_bytes(limit) == 2**20
    assert tail_bytes(7) == 3
    bound = HeadTail[str](limit)
    for _ in range(200):
        bound.add("stdout", "x" * 2**16, 2**16, used=limit)
    assert bound.missing > 0
    _, *tail = bound.finish()
    assert sum(len(text) for _, text in tail) == 2**20
    assert bound.missing == 200 * 2**16 - 2**20


@given(TEXTS.map(lambda text: text * 3), st.integers(0, 100))
def test_a_whole_text_is_shortened_to_bytes(text: str, limit: int) -> None:
    short, was_cut = shorten_to_bytes(text, limit, "the record keeps some")
    if size_of(text) <= limit:
        assert (short, was_cut) == (text, False)
        return
    assert was_cut
    found = re.search(r"\n… ([\d,]+) bytes of output cut \(the record keeps some\) …\n", short)
    assert found is not None
    head, tail = short[: found.start()], short[found.end() :]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert limit - 6 <= size_of(head) + size_of(tail) <= limit
    assert int(found[1]) == size_of(text) - size_of(head) - size_of(tail)


@given(st.text(min_size=1, max_size=60), st.data())
def test_a_whole_text_is_shortened_to_characters(text: str, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(text) - 1))
    short = shorten_to_characters(text, kept, unseen=5)
    marker = f"… {len(text) + 5 - kept} characters cut …"
    assert len(short) == kept + len(marker)
    assert short == text[: kept - kept // 2] + marker + text[len(text) - kept // 2 :]


@pytest.mark.parametrize(
    ("text", "short"), [("abcdef", "ab… 3 characters cut …f"), ("abcd", "ab… 1 characters cut …d")]
)
def test_a_shortened_text_reads_well(text: str, short: str) -> None:
    assert shorten_to_characters(text, 3) == short


@given(TEXTS, st.integers(-3, 130))
def test_a_text_is_split_where_no_character_is_cut(text: str, size: int) -> None:
    head, rest = split_at(text, size)
    assert head + rest == text
    assert size_of(head) <= max(size, 0)
    assert not rest or size_of(head + rest[0]) > size


@given(st.integers(1, 80), st.lists(TEXTS, max_size=6), st.integers(1, 9999), st.lists(TEXTS, max_size=6))
def test_what_never_came_is_counted_and_what_was_before_it_is_no_tail(
    limit: int, before: list[str], gap: int, after: list[str]
) -> None:
    bound = HeadTail[str](limit)
    used, head = 0, ""
    for text in before:
        head += bound.add("stdout", text, size_of(text), used)
        used += size_of(text)
    bound.leave_out("stdout", gap)
    for text in after:
        assert bound.add("stdout", text, size_of(text), used) == ""
        used += size_of(text)
    (_, marker), *tail = bound.finish("here it is")
    kept = "".join(text for _, text in tail)
    assert marker.endswith(f" (max_output_bytes={limit}; here it is) …\n")
    assert "".join(before).startswith(head)
    assert "".join(after).endswith(kept)
    whole = size_of("".join([*before, *after])) + gap
    assert marker.startswith(f"\n… {whole - size_of(head + kept):,} bytes of output cut ")
