"""What the commands say: reports and snapshots as lines and tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from outgrow.findings import Finding, Result
from outgrow.media.repair import Report
from outgrow.status import ServerStatus, Snapshot


def report_lines(report: Report) -> Iterator[str]:
    """One pass of repair, for people."""
    yield f"sent {report.put}, deleted {report.deleted}, still owed {report.still_owed}"
    if report.taken_over:
        yield f"took over {report.taken_over} saves and deletes whose process had died"
    if report.watched:
        yield f"{report.watched} requests of unknown outcome are looked at again later"
    for server, reason in report.down.items():
        yield f"{server} was not repaired: {reason}"
    yield from _findings(report)
    for name in report.unheard:
        yield (
            f"{name} is owed, but neither on the master nor deleted through Django, so nothing was "
            f"sent. Put it back, or run: manage.py outgrow media delete {name}"
        )
    for name in report.unsafe:
        yield f"{name!r} on the master is not sent: the name is not safe for web servers"
    if report.complete:
        yield "Every server equals the master, as far as it was owed anything."


def _findings(report: Report) -> Iterator[str]:
    for (server, name), reason in report.errors.items():
        yield f"{server} refuses {name}: {reason}"
    for name, reason in report.unreadable.items():
        yield f"{name} can't be read on the master: {reason}"


def report_facts(report: Report) -> dict[str, Any]:
    """One pass of repair, for machines."""
    facts = asdict(report)
    facts["errors"] = [
        {"server": server, "name": name, "reason": reason}
        for (server, name), reason in report.errors.items()
    ]
    return {**facts, "complete": report.complete}


class News:
    """What is worth a line in the log of a watch: what was done, and what changed."""

    def __init__(self) -> None:
        self._down: dict[str, str] = {}
        self._found: set[str] = set()

    def lines(self, report: Report) -> Iterator[str]:
        """What is new in this report. A finding is told once, until it has gone."""
        for server in self._down.keys() - report.down.keys():
            yield f"{server} is up again"
        for server, reason in report.down.items():
            if server not in self._down:
                yield f"{server} is down: {reason}"
        self._down = dict(report.down)
        if report.put or report.deleted or report.taken_over:
            yield f"sent {report.put}, deleted {report.deleted}, still owed {report.still_owed}"
        found = list(_findings(report))
        yield from (line for line in found if line not in self._found)
        self._found = set(found)


def counter(write: Callable[[str], Any]) -> Callable[[str], None]:
    """Progress where there is no terminal: a line for every thousand names."""
    seen = 0

    def count(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen % 1000 == 0:
            write(f"{seen} names")

    return count


def duration(seconds: float) -> str:
    """A length of time for people, in its largest unit: "50 s", "12 min", "3 h", "2 days"."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"


def status_table(shot: Snapshot) -> Table:
    """Every media server of a storage, one a row."""
    table = Table(title=f"Media servers of STORAGES[{shot.storage!r}]", title_justify="left")
    numbers = ("owed", "watched", "oldest")
    for heading in ("server", "state", "since", *numbers, "last error"):
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for one in shot.servers:
        table.add_row(*_cells(one))
    return table


def _cells(one: ServerStatus) -> tuple[str, ...]:
    state = "[green]up[/]" if one.up else "[red]down[/]"
    since = one.since.astimezone().strftime("%Y-%m-%d %H:%M:%S") if one.since else ""
    owed = "everything" if one.owed_all else str(one.owed)
    oldest = "" if one.oldest is None else f"{one.oldest:.0f} s"
    error = escape(one.last_error)
    return (escape(one.name), state, since, owed, str(one.unknown), oldest, error)


_COLOURS = {Result.OK: "green", Result.NOTE: "cyan", Result.WARNING: "yellow", Result.BAD: "red"}


def findings_table(title: str, found: Iterable[Finding]) -> Table:
    """What was found on one server, one check a row."""
    table = Table(title=escape(title), title_justify="left")
    for heading in ("check", "result", "what was seen", "what it means"):
        table.add_column(heading)
    for one in found:
        result = f"[{_COLOURS[one.result]}]{one.result}[/]"
        table.add_row(one.check, result, escape(one.seen), escape(one.meaning))
    return table


def remedy_lines(found: Iterable[Finding]) -> Iterator[str]:
    """What mends it, below the table: lines to be copied, which a table would break."""
    for one in found:
        if one.remedy:
            yield f"{one.check}:"
            yield from (f"    {line}" for line in one.remedy.splitlines())


def finding_lines(found: Iterable[Finding]) -> Iterator[str]:
    """The same as plain lines, each with the server's name and the result."""
    for one in found:
        start = f"{one.server}: {one.result}: {one.check}: {one.seen}"
        stop = "" if start.endswith(("?", ".")) else "."
        yield f"{start}{stop} {one.meaning}" if one.meaning else start
        for line in one.remedy.splitlines():
            yield f"{one.server}:     {line}"
