"""The table ``[app]`` as a value: what runs the site, on every server with that role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from outgrow.topology.keys import Table

#: What an application server can run; the first is the default.
ENGINES: Final = ("gunicorn", "uvicorn", "granian")

#: Of these, those that run an ASGI application when there is one, and those that run no other.
TAKES_ASGI: Final = ("uvicorn", "granian")
NEEDS_ASGI: Final = ("uvicorn",)

#: Those that listen at an IP address alone, and resolve no name.
NEEDS_IP: Final = ("granian",)

#: Worker processes of a server: one for each core of a small machine, and one more.
WORKERS: Final = 3

#: Threads of each, where a request takes one.
THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class App:
    """What runs the site. `threads` are those of each of the `workers`, which are processes."""

    engine: str = ENGINES[0]
    workers: int = WORKERS
    threads: int = THREADS


def parse(table: Table) -> App:
    """What a table describes."""
    engine = table.choice("engine", ENGINES, "an engine for an application server") or ENGINES[0]
    found = App(
        engine,
        table.whole("workers", 1, 1000, default=WORKERS),
        table.whole("threads", 1, 1000, default=THREADS),
    )
    table.close()
    return found
