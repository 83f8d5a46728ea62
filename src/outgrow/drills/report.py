"""What came out of drills: a table for people, JSON for machines, and the exit status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table

from outgrow.drills.catalogue import Drill, Skipped
from outgrow.drills.judge import Broken

#: The promises, in the order of the columns.
PROMISES: Final = tuple(one.name for one in fields(Broken))

#: Of what is broken, so much is named below the table; the JSON has it all.
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One drill: what it cost, and what it broke. Times are in seconds.

    `slowest` is the longest time of a request that succeeded; `problems` are the failures, each
    with their number.
    """

    drill: Drill
    sent: int
    failed: int
    broken: Broken
    until_normal: int
    without_writes: int
    slowest: float
    problems: dict[str, int]
    notes: tuple[str, ...] = ()


def holds(outcomes: Sequence[Outcome]) -> bool:
    """Whether every promise was kept."""
    return not any(one.broken for one in outcomes)


def as_json(outcomes: Sequence[Outcome], skipped: Sequence[Skipped]) -> dict[str, Any]:
    """The whole report."""
    return {
        "holds": holds(outcomes),
        "drills": [_one(outcome) for outcome in outcomes],
        "skipped": {one.name: one.reason for one in skipped},
    }


def _one(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.drill.name,
        "servers": list(outcome.drill.servers),
        "sent": outcome.sent,
        "failed": outcome.failed,
        **{name: len(getattr(outcome.broken, name)) for name in PROMISES},
        "until_normal": outcome.until_normal,
        "without_writes": outcome.without_writes,
        "slowest": round(outcome.slowest, 3),
        "broken": {name: sorted(getattr(outcome.broken, name)) for name in PROMISES},
        "problems": outcome.problems,
        "notes": list(outcome.notes),
    }


def print_report(outcomes: Sequence[Outcome], skipped: Sequence[Skipped], stream: TextIO) -> None:
    """The table, and below it what a person should look at."""
    table = Table()
    for heading in ("drill", "server"):
        table.add_column(heading)
    for heading in ("sent", "failed", *PROMISES, "normal after", "no writes", "slowest"):
        table.add_column(heading, justify="right")
    for one in outcomes:
        broken = (_marked(len(getattr(one.broken, name))) for name in PROMISES)
        times = (f"{one.until_normal} s", f"{one.without_writes} s", f"{one.slowest:.1f} s")
        servers = ", ".join(one.drill.servers)
        table.add_row(one.drill.name, servers, str(one.sent), str(one.failed), *broken, *times)
    # Not cut to 80 columns where there is no terminal: a log has room.
    console = Console(file=stream, width=None if stream.isatty() else 160, highlight=False)
    console.print(table)
    for outcome in outcomes:
        for line in _below(outcome):
            console.print(line, markup=False)
    for skip in skipped:
        console.print(f"{skip.name} was skipped: {skip.reason}.", markup=False)
    kept = holds(outcomes)
    console.print("Every promise was kept." if kept else "A promise was broken; see above.")


def _below(outcome: Outcome) -> list[str]:
    name = outcome.drill.name
    lines = [f"{name}: {note}" for note in outcome.notes]
    for promise in PROMISES:
        every = sorted(getattr(outcome.broken, promise))
        lines += [f"{name}: {promise}: {one}" for one in every[:_NAMED]]
        if len(every) > _NAMED:
            lines.append(f"{name}: {promise}: and {len(every) - _NAMED} more")
    return lines


def _marked(count: int) -> str:
    return f"[red]{count}[/]" if count else "0"
