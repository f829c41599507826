"""The benchmark's machinery, and every subject of our own once, tiny. No figure is held to a time."""

import asyncio
import importlib.util
import json
import math
import os
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from benchmarks import __main__ as command
from benchmarks.measure import Goal, Opener, Peer, Row, Sampler, Subject, Summary, measure
from benchmarks.peers import NoFigureError, NotInstalledError, load
from benchmarks.report import as_json, figure, table, verdict
from benchmarks.scale import Scale
from benchmarks.subjects import SUBJECTS

TINY = Scale(
    rounds=2,
    trips=3,
    pipelined=20,
    streams=1,
    lines=50,
    megabytes=1,
    spawns=1,
    cancels=2,
    bursts=1,
    burst=2,
    few=2,
    some=3,
    many=4,
    local=3,
    saves=1,
    shrink=1000,
    pause=0.02,
    earlier=(1, 2, 3),
    names=6,
    live=2,
    returns=3,
)


def fixed(figures: Sequence[float], log: list[str], name: str) -> Opener:
    """Return a contender whose first sample is the warm-up, and then the figures in order."""

    @asynccontextmanager
    async def opened(_: Scale) -> AsyncGenerator[Sampler]:
        left = iter([math.nan, *figures])

        async def sample() -> float:
            log.append(name)
            return next(left)

        yield sample
        log.append(f"{name} closed")

    return opened


def subject(ours: Opener, peers: Sequence[Peer], goal: Goal | None = None) -> Subject:
    return Subject("made-up", "a made-up subject", "s", lambda scale: scale.rounds, ours, peers, goal)


def lacks_library(name: str) -> bool:
    """Return whether a figure needs a library that is not there."""
    needed = "numpy" if name.endswith(("-100mb", "-array")) else "pyarrow" if name.endswith("-table") else ""
    return bool(needed) and importlib.util.find_spec(needed) is None


@pytest.mark.parametrize("name", SUBJECTS)
def test_each_of_our_own_figures_can_be_taken(name: str) -> None:
    rows = asyncio.run(measure(SUBJECTS[name], TINY, alone=True))

    (row,) = rows
    assert (row.subject, row.peer, row.theirs, row.better) == (name, None, None, None)
    if lacks_library(name):
        assert row.ours is None
        assert str(row.missing).startswith("not installed")
        return
    assert row.ours is not None
    assert 0 < row.ours.low <= row.ours.median <= row.ours.p95 <= row.ours.p99 <= row.ours.high
    assert row.ours.count == SUBJECTS[name].rounds(TINY) * (TINY.burst if name.startswith("durable-") else 1)
    assert SUBJECTS[name].title.format(scale=TINY) in table(rows)


@pytest.mark.parametrize(
    "name",
    [
        *("durable-sqlite", "recovery-idle"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("checkpoint-1mb", "recovery-running")),
    ],
)
def test_durable_figures_stand_beside_others_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.listdir("/proc/self/fd")

    rows = asyncio.run(measure(SUBJECTS[name], TINY))

    # The store's own line carries a goal where there is one; every peer has one line.
    assert [row.peer for row in rows if row.peer is not None] == [
        peer.name.format(scale=TINY) for peer in SUBJECTS[name].peers
    ]
    assert all(row.missing is None and row.theirs is not None for row in rows if row.peer is not None)
    assert "{" not in table(rows)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert Path(f"/proc/self/task/{os.getpid()}/children").read_text() == ""


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("memory", {"memory"}),
        ("capability", {"capability"}),
        ("durable", {"durable-sqlite", "durable-memory", "durable-plain"}),
        ("recovery", {"recovery-idle", "recovery-running"}),
        ("mem", set[str]()),
    ],
)
def test_a_name_stands_for_a_subject_or_for_those_that_begin_with_it(name: str, names: set[str]) -> None:
    assert command.chosen(name) == names


def test_a_subject_that_cannot_be_had_here_is_named_with_the_reason() -> None:
    @asynccontextmanager
    async def absent(_: Scale) -> AsyncGenerator[Sampler]:
        yield cast("Sampler", load("a_module_that_nobody_has_written"))

    rows = asyncio.run(
        measure(subject(absent, [Peer("them", fixed([1.0], [], "them"))], Goal(better=2)), TINY)
    )

    (row,) = rows
    assert (row.ours, row.missing, row.met) == (None, "not installed", None)
    assert table(rows) == "a made-up subject  [made-up]: not installed"
    assert verdict(rows) == "0 of 0 goals met"


def test_a_turn_may_bring_several_figures() -> None:
    def bursts(first: float) -> Opener:
        @asynccontextmanager
        async def opened(_: Scale) -> AsyncGenerator[Sampler]:
            async def sample() -> list[float]:
                return [first, 3 * first]

            yield sample

        return opened

    rows = asyncio.run(measure(subject(bursts(1.0), [Peer("them", bursts(2.0))]), TINY))

    (row,) = rows
    assert row.ours == Summary.of([1.0, 3.0, 1.0, 3.0])
    assert row.better == Summary.of([2.0, 2.0, 2.0, 2.0])


def test_a_goal_may_be_how_much_more_than_the_peer_it_takes() -> None:
    peer = Peer("them", fixed([4.0, 1.0], [], "them"), Goal(within=0.5))

    rows = asyncio.run(measure(subject(fixed([3.0, 3.0], [], "us"), [peer]), TINY))

    assert [row.met for row in rows] == [True]
    assert "<= 500 ms more" in table(rows)
    far = asyncio.run(measure(subject(fixed([3.1, 3.1], [], "us"), [peer]), TINY))
    assert [row.met for row in far] == [False]


def test_contenders_take_turns_and_ratios_are_formed_pair_by_pair() -> None:
    log: list[str] = []
    peer = Peer("them", fixed([4.0, 1.0], log, "them"), Goal(better=2))

    rows = asyncio.run(measure(subject(fixed([1.0, 2.0], log, "us"), [peer]), TINY))

    assert log == ["us", "them", "us", "them", "them", "us", "them closed", "us closed"]
    (row,) = rows
    assert row.better == Summary.of([4.0, 0.5])
    assert row.met is True
    assert verdict(rows) == "1 of 1 goals met"


def test_of_rates_more_is_better() -> None:
    log: list[str] = []
    rates = subject(fixed([30.0, 30.0], log, "us"), [Peer("them", fixed([10.0, 10.0], log, "them"))])
    rates = Subject("rates", "rates", "/s", rates.rounds, rates.ours, rates.peers, Goal(at_least=40))

    alone, beside = asyncio.run(measure(rates, TINY))

    assert alone.met is False
    assert beside.better is not None
    assert beside.better.median == 3.0
    assert verdict([alone, beside]) == "0 of 1 goals met; missed: rates (alone)"


@pytest.mark.parametrize("fails", ["on opening", "when it runs"])
def test_a_peer_without_a_figure_is_named_with_the_reason(fails: str) -> None:
    @asynccontextmanager
    async def absent(_: Scale) -> AsyncGenerator[Sampler]:
        if fails == "on opening":
            load("a_module_that_nobody_has_written")

        async def sample() -> float:
            raise NoFigureError("gave up after 5 s")

        yield sample

    rows = asyncio.run(
        measure(subject(fixed([1.0, 1.0], [], "us"), [Peer("them", absent, Goal(better=2))]), TINY)
    )

    reason = "not installed" if fails == "on opening" else "gave up after 5 s"
    (row,) = rows
    assert (row.missing, row.met) == (reason, None)
    assert reason in table(rows)


def test_a_missing_peer_is_an_error_of_its_own() -> None:
    with pytest.raises(NotInstalledError, match="not installed"):
        load("a_module_that_nobody_has_written")


def test_percentiles_are_samples_and_medians_split_the_difference() -> None:
    summary = Summary.of([float(number) for number in range(100, 0, -1)])

    assert summary == Summary(median=50.5, low=1.0, high=100.0, p95=95.0, p99=99.0, count=100)
    assert Summary.of([7.0]) == Summary(7.0, 7.0, 7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.5, "s", "1.50 s"),
        (0.0123, "s", "12.3 ms"),
        (0.000077, "s", "77.0 µs"),
        (0.00000004, "s", "0.04 µs"),
        (48211.3, "/s", "48,211/s"),
        (22_800_000, "B", "22.8 MB"),
    ],
)
def test_figures_are_written_in_the_unit_that_suits_them(value: float, unit: str, text: str) -> None:
    assert unit in ("s", "/s", "B")
    assert figure(value, unit) == text


def test_json_holds_every_row_with_its_verdict() -> None:
    row = Row("a", "b", "s", Summary.of([1.0]), "c", Summary.of([3.0]), Summary.of([3.0]), Goal(better=2))

    data = json.loads(as_json([row]))

    assert data["machine"].keys() == {"python", "system", "processors"}
    (read,) = data["rows"]
    assert (read["ours"]["median"], read["better"]["median"], read["met"]) == (1.0, 3.0, True)


def test_the_command_measures_what_is_named_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"

    status = command.main(["memory", "--quick", "--alone", "--json", str(path)])

    captured = capsys.readouterr()
    assert status == 0
    assert captured.out.startswith("resident memory of an idle worker  [memory]: ")
    assert "memory: round 1 of 1" in captured.err
    (row,) = json.loads(path.read_bytes())["rows"]
    assert row["ours"]["median"] > 1_000_000


def test_an_unknown_subject_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["speed"])

    assert "no such subject: speed; there are round-trip, " in capsys.readouterr().err
