"""The command `outgrow capacity`: what each server needs, and what stops when one dies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outgrow.topology.load import load
from outgrow.topology.needs import needs
from outgrow.topology.sums import Need, Sum, facts, named, shown, shown_limit, warnings
from outgrow.topology.ways import way
from outgrow.topology.weak_points import weak_points

_DIES: Final = "When one server dies"

#: Columns of the terminal for each of the first two.
_NARROW: Final = 16


def weigh(
    path: Path, out: TextIO, *, worker_memory: int | None = None, as_json: bool = False
) -> bool:
    """Print the sums of a topology file; whether all of them are within their limits.

    A table on a terminal, lines elsewhere. `worker_memory` is megabytes of one worker process;
    without it, what was measured.
    Raises `TopologyError`.
    """
    site = load(path)
    found = needs(site, worker_memory)
    weak = weak_points(site)
    wrong = list(warnings(found))
    if as_json:
        out.write(f"{json.dumps(_facts(found, weak, wrong), indent=2)}\n")
    elif out.isatty():
        _show(found, weak, wrong, out)
    else:
        out.writelines(f"{line}\n" for line in _lines(found, weak, wrong))
    return not wrong


def _facts(found: tuple[Need, ...], weak: Iterable[str], wrong: list[str]) -> dict[str, object]:
    return {"sums": facts(found), "weak_points": list(weak), "exceeded": wrong}


def _lines(found: tuple[Need, ...], weak: tuple[str, ...], wrong: list[str]) -> Iterator[str]:
    for names, sums, several in _alike(found):
        yield names
        yield from (f"  {_line(one, several)}" for one in sums)
        yield ""
    yield from _end(weak, wrong)


def _alike(found: tuple[Need, ...]) -> Iterator[tuple[str, tuple[Sum, ...], bool]]:
    """Servers that need the same: their names, what each needs, whether it has several roles."""
    for (roles, sums), some in groupby(found, key=lambda one: (_roles(one), one.sums)):
        names = ", ".join(one.host.name for one in some)
        nouns = ", ".join(way(role).noun for role in roles)
        yield f"{names}: {nouns}", sums, len(roles) > 1


def _roles(one: Need) -> tuple[str, ...]:
    return tuple(service.role for service in one.host.services)


def _line(one: Sum, several: bool) -> str:
    both = " = ".join(filter(None, (shown(one), one.text)))
    limit = f"; limit {shown_limit(one)}" if one.limit is not None else ""
    return f"{named(one, several)}: {both}{limit}"


def _end(weak: tuple[str, ...], wrong: list[str]) -> Iterator[str]:
    yield from wrong
    if weak:
        yield f"{_DIES}:"
        yield from (f"  {sentence}" for sentence in weak)


def _show(found: tuple[Need, ...], weak: tuple[str, ...], wrong: list[str], out: TextIO) -> None:
    console = Console(file=out, highlight=False)
    for names, sums, several in _alike(found):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=True, title_justify="left")
        table.title, table.title_style = escape(names), "bold"
        table.add_column("needs", width=_NARROW)
        table.add_column("at the most", width=_NARROW, justify="right")
        table.add_column("sum", ratio=1)
        for one in sums:
            most = f"{one.limit:,}" if one.limit is not None else ""
            cells = (
                named(one, several),
                " of ".join(filter(None, (shown(one), most))),
                "; limit: ".join(filter(None, (one.text, one.limited_by))),
            )
            table.add_row(*map(escape, cells), style="bold red" if one.exceeds else None)
        console.print(table)
    for line in _end(weak, wrong):
        console.print(escape(line), style="bold red" if line in wrong else None)
