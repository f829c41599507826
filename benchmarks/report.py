"""Rows as a table for people and as JSON for programs."""

import os
import platform
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from benchmarks.measure import Goal, Row, Summary, Unit

_FOR_P95 = 20
_FOR_P99 = 100
"""Samples that it takes for a percentile to be one of them, and not the worst."""

_HEADERS = ("peer", "theirs (min - max)", "ours is", "ratios", "goal", "")


def figure(value: float, unit: Unit) -> str:
    """Return a figure to three digits, in the unit that suits its size."""
    match unit:
        case "s":
            for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
                if value * factor >= 1 or name == "µs":
                    return f"{_digits(value * factor)} {name}"
            raise AssertionError("the last unit always suits")
        case "/s":
            return f"{value:,.0f}/s"
        case "B":
            return f"{value / 1e6:.1f} MB"


def table(rows: Iterable[Row]) -> str:
    """Lay out all rows, subject by subject, with each subject's own figure in its heading."""
    blocks: list[str] = []
    for _, group in groupby(rows, key=lambda row: row.subject):
        lines = list(group)
        first = lines[0]
        cells = [_HEADERS, *(_cells(row) for row in lines)]
        if first.ours is None or (all(row.peer is None for row in lines) and first.goal is None):
            cells = []
        widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADERS))] if cells else []
        body = ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        own = first.missing or "" if first.ours is None else _spread(first.ours, first.unit)
        blocks.append("\n".join([f"{first.title}  [{first.subject}]: {own}", *body]))
    return "\n\n".join(blocks)


def verdict(rows: Sequence[Row]) -> str:
    """Return a line with how many goals were met and the names of the missed ones."""
    judged = [row for row in rows if row.met is not None]
    missed = [f"{row.subject} ({row.peer or 'alone'})" for row in judged if row.met is False]
    text = f"{len(judged) - len(missed)} of {len(judged)} goals met"
    return f"{text}; missed: {', '.join(missed)}" if missed else text


def as_json(rows: Sequence[Row]) -> bytes:
    """Return the rows, and the machine they were measured on, as indented JSON."""
    machine = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": os.cpu_count(),
    }
    plain = [{**msgspec.to_builtins(row), "met": row.met} for row in rows]
    return msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": plain}), indent=2) + b"\n"


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _spread(summary: Summary, unit: Unit) -> str:
    text = figure(summary.median, unit)
    if summary.count == 1:
        return text
    text += f" ({figure(summary.low, unit)} - {figure(summary.high, unit)})"
    if summary.count < _FOR_P95 or unit != "s":
        return text
    if summary.count < _FOR_P99:
        return f"{text}, 95% within {figure(summary.p95, unit)}"
    return f"{text}, 99% within {figure(summary.p99, unit)}"


def _cells(row: Row) -> tuple[str, ...]:
    goal = _goal(row.goal, row.unit) if row.goal is not None else ""
    met = "" if row.met is None else "met" if row.met else "MISSED"
    if row.peer is None:
        return ("(alone)", "", "", "", goal, met)
    if row.missing is not None or row.theirs is None or row.better is None:
        return (row.peer, row.missing or "", "", "", goal, "")
    theirs = f"{figure(row.theirs.median, row.unit)}"
    if row.theirs.count >= _FOR_P99 and row.unit == "s":
        theirs = _spread(row.theirs, row.unit)
    elif row.theirs.count > 1:
        theirs += f" ({figure(row.theirs.low, row.unit)} - {figure(row.theirs.high, row.unit)})"
    ratios = f"{_digits(row.better.low)} - {_digits(row.better.high)}" if row.better.count > 1 else ""
    return (row.peer, theirs, _compared(row.better.median, row.unit), ratios, goal, met)


def _compared(better: float, unit: Unit) -> str:
    good, bad = ("smaller", "larger") if unit == "B" else ("faster", "slower")
    return f"{_digits(better)} x {good}" if better >= 1 else f"{_digits(1 / better)} x {bad}"


def _goal(goal: Goal, unit: Unit) -> str:
    parts: list[str] = []
    if goal.better is not None:
        parts.append(
            f">= {goal.better:g} x faster" if goal.better >= 1 else f"<= {1 / goal.better:g} x slower"
        )
    if goal.within is not None:
        parts.append(f"<= {figure(goal.within, unit)} more")
    if goal.at_most is not None:
        parts.append(f"<= {figure(goal.at_most, unit)}")
    if goal.at_least is not None:
        parts.append(f">= {figure(goal.at_least, unit)}")
    return ", ".join(parts)
