"""The table ``[cache]`` as a value: what the application servers remember together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from outgrow.topology.keys import Table

#: What a cache server can run; the first is the default.
ENGINES: Final = ("memcached", "redis")

#: Where it listens, unless `ports` says otherwise.
PORTS: Final[Mapping[str, int]] = {"memcached": 11211, "redis": 6379}

#: Megabytes of each; memcached's own default (memcached(1), -m).
MEMORY: Final = 64


@dataclass(frozen=True, slots=True)
class Cache:
    """The caches of a site, all of one kind. `memory` is that of each, in megabytes."""

    engine: str = ENGINES[0]
    memory: int = MEMORY


def parse(table: Table) -> Cache:
    """The caches that a table describes."""
    engine = table.choice("engine", ENGINES, "an engine for a cache") or ENGINES[0]
    found = Cache(engine, table.whole("memory", 1, 1_000_000, default=MEMORY))
    table.close()
    return found
