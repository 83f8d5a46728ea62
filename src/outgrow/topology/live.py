"""`outgrow up --live`: a table of the processes in place of their output, on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from outgrow.topology.look import Looker
from outgrow.topology.states import State, Status, shown, shown_age, shown_memory

#: What the processes print, below the folder of the run.
LOG: Final = "_log"

#: Seconds between two looks; between two questions whether to end.
_EVERY: Final = 1.0
_PAUSE: Final = 0.05

_COLOURS: Final = {
    State.FAILING: "bold red",
    State.KILLED: "red",
    State.STOPPED: "dim",
    State.FROZEN: "blue",
    State.RESTARTING: "yellow",
    State.STARTING: "yellow",
    State.READY: "green",
}


class LogFile:
    """Lines of the processes in a file, which is made with the first and begins anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: TextIO | None = None

    def __call__(self, name: str, line: str) -> None:
        """Write one line."""
        if self._stream is None:
            self._stream = self.path.open("w", encoding="utf-8", errors="replace")
        # One write a line: lines of several threads don't mix.
        self._stream.write(f"{name} | {line}\n")
        self._stream.flush()

    def close(self) -> None:
        """The last line was written."""
        if self._stream is not None:
            self._stream.close()


def table(statuses: tuple[Status, ...], now: float) -> Group:
    """The processes as a table, and below it what is wrong. `now` is in seconds of Unix time.

    It has room on a terminal of 80 columns: only the role takes several lines.
    """
    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("server", "role", "state", "for", "address", "process", "memory"):
        is_number = heading in {"for", "process", "memory"}
        found.add_column(
            heading, no_wrap=heading != "role", justify="right" if is_number else "left"
        )
    for one in statuses:
        found.add_row(
            one.name,
            one.role,
            Text(shown(one.state), _COLOURS[one.state]),
            shown_age(now - one.since),
            one.address.rpartition("/")[2],
            str(one.pid or ""),
            shown_memory(one.memory),
        )
    wrong = [Text(f"{one.name}: {one.problem}") for one in statuses if one.problem]
    return Group(found, *wrong)


def show(looker: Looker, caption: str, stream: TextIO, ended: Callable[[], bool]) -> None:
    """Show the table until `ended()`, on the terminal's other screen."""
    console = Console(file=stream, highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as screen:
        while not ended():
            below = Text(f"\n{caption}", "dim")
            screen.update(Group(table(looker.look(), time.time()), below), refresh=True)
            end = time.monotonic() + _EVERY
            while not ended() and time.monotonic() < end:
                time.sleep(_PAUSE)
