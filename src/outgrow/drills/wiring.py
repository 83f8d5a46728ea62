"""What the processes of a site that is drilled are told: a file in the folder of the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

#: Its name, beside the topology file. No server's name begins with "_".
FILE: Final = "_drill.json"

#: The settings that a site has while it is drilled.
SETTINGS: Final = "outgrow.drills.site.settings"

#: The folder of the files that are uploaded.
UPLOADS: Final = "outgrow-drill"


@dataclass(frozen=True, slots=True)
class Wiring:
    """The site's own settings module, the path of the drill's views, and whether it has rows.

    `prefix` has no slash in front and one behind. Without `rows` the database is not touched:
    it is none that the run has made.
    """

    settings: str
    prefix: str
    rows: bool


def write(wiring: Wiring, path: Path) -> None:
    """Write it down."""
    path.write_text(json.dumps(asdict(wiring)), encoding="utf-8")


def read(path: Path) -> Wiring:
    """Read it again."""
    return Wiring(**json.loads(path.read_text(encoding="utf-8")))
