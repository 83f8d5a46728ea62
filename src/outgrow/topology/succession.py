"""Who was the primary, and who becomes it: a note in the folder of a run, and what the data say.

The laws:

1. The note is there before a replica is told to become the primary, and until the old primary
   follows it. Who finds it knows that a promotion was broken off.
2. The data say whether it happened: no replica takes a write while it has `standby.signal`.
3. No data that may lack acknowledged rows are those of the primary in the next run; so no empty
   primary is made beside replicas that have rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from outgrow.errors import TopologyError
from outgrow.topology import steps
from outgrow.topology.keys import join
from outgrow.topology.model import Site
from outgrow.topology.parts import Plan
from outgrow.topology.postgres import IS_STANDBY
from outgrow.topology.promotion import to_write

_NOTE: Final = "_promotion"


@dataclass(frozen=True, slots=True)
class Succession:
    """`new` becomes the primary instead of `old`."""

    old: str
    new: str


def begin(folder: Path, both: Succession) -> None:
    """Write the note: whole, or not at all."""
    new = folder / f"{_NOTE}.new"
    new.write_text(json.dumps(asdict(both)), encoding="utf-8")
    os.replace(new, folder / _NOTE)


def begun(folder: Path) -> Succession | None:
    """What was begun and is not finished."""
    with suppress(FileNotFoundError):
        found = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        return Succession(str(found["old"]), str(found["new"]))
    return None


def finish(folder: Path) -> None:
    """Take the note away."""
    (folder / _NOTE).unlink(missing_ok=True)


def happened(data: Path | None) -> bool:
    """Whether the replica with these data has become a primary."""
    return data is not None and data.is_dir() and not (data / IS_STANDBY).exists()


def check(made: Plan, site: Site, folder: Path) -> None:
    """See that the data of the last run are those of today's roles. Raises `TopologyError`."""
    roots = {planned.name: planned.root for planned in made.processes}
    primaries = {service.name for service in site.services("primary")}
    both = begun(folder)
    if both is not None and happened(roots.get(both.new)) and both.new not in primaries:
        raise TopologyError(
            join("servers", both.new),
            f"was promoted, and {both.old} does not follow it yet: it alone has the newest rows.",
            f"{to_write(both.old, both.new)} What is left is done when it starts.",
        )
    for name in primaries:
        _check_not_lost(name, roots, site, folder)
        root = roots.get(name)
        if root is not None and (root / IS_STANDBY).exists():
            raise TopologyError(
                join("servers", name),
                f"is the primary, and its data in {root} are a replica's. Was another server "
                "promoted, or were roles exchanged by hand?",
                "Give the role to the server that was the primary when the site last ran, and "
                "promote this one while the site runs; or remove the folder of the run, with all "
                "its data.",
            )


def _check_not_lost(name: str, roots: Mapping[str, Path | None], site: Site, folder: Path) -> None:
    """A primary without data would be made anew, and its replicas copied from nothing."""
    root = roots.get(name)
    if root is None or root.is_dir():
        return
    for service in site.services("replica"):
        copy = roots.get(service.name)
        if copy is not None and copy.is_dir():
            raise TopologyError(
                join("servers", name),
                f"has lost its data: {root} is gone, and {service.name} has a copy in {copy}.",
                f"Put a backup in its place, or that copy (of PostgreSQL, without {IS_STANDBY}); "
                f"or remove {folder}, to begin anew without a row.",
            )


def complete(made: Plan, folder: Path) -> str:
    """Let the next start do what is left; a sentence about it, or "". After `check`."""
    both = begun(folder)
    if both is None:
        return ""
    roots = {planned.name: planned.root for planned in made.processes}
    said = ""
    if happened(roots.get(both.new)):
        # Whatever it has, and however much of a rewinding: it is copied anew.
        if (root := roots.get(both.old)) is not None:
            steps.unstamp(root)
        said = (
            f"{both.new} was promoted, and that was broken off before {both.old} followed it: "
            f"the data of {both.old} are copied anew."
        )
    finish(folder)
    return said
