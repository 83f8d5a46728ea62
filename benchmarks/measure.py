"""Rounds of several candidates in turn, and their medians."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Told(Protocol):
    """A line of a table: what stands in it, by the headings of its columns."""

    def facts(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class Result:
    """One candidate: medians over the rounds, in milliseconds per operation."""

    what: str
    wall: float
    processor: float
    ratio: str = ""
    least: float = 0.0
    most: float = 0.0
    unit: str = "ms"

    def facts(self) -> dict[str, Any]:
        unit, factor = self.unit, {"ms": 1, "us": 1000}[self.unit]
        return {
            "what": self.what,
            f"wall {unit}": f"{self.wall * factor:.3f}",
            f"processor {unit}": f"{self.processor * factor:.3f}",
            f"min-max {unit}": f"{self.least * factor:.3f}-{self.most * factor:.3f}",
            "ratio": self.ratio,
        }


def processor() -> float:
    """Seconds of processor time of this process, and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def in_turn(
    candidates: Mapping[str, Callable[[], object]], *, count: int, rounds: int = 7
) -> list[Result]:
    """Measure each candidate `rounds` times, one after the other; the first is the base.

    `count` operations are in one call of a candidate. A first call of each warms up.
    """
    walls: dict[str, list[float]] = {name: [] for name in candidates}
    processors: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for _ in range(rounds):
        for name, run in candidates.items():
            before, begin = processor(), time.perf_counter()
            run()
            wall, used = time.perf_counter() - begin, processor() - before
            walls[name].append(wall / count * 1000)
            processors[name].append(used / count * 1000)
    results = [
        Result(
            name,
            statistics.median(walls[name]),
            statistics.median(processors[name]),
            least=min(walls[name]),
            most=max(walls[name]),
        )
        for name in candidates
    ]
    for result in results:
        base = results[0]
        result.ratio = f"{result.wall / base.wall:.2f} wall"
        if base.processor:
            result.ratio += f", {result.processor / base.processor:.2f} processor"
    return results
