"""What a look at a server found: one check, how serious it is, and what mends it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Result(enum.StrEnum):
    """How serious a finding is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one server.

    `server` is what messages call it. `seen` is what it did, `meaning` what follows from
    that, `remedy` the lines of its configuration, or the words, that mend it. The last two
    may be empty.
    """

    server: str
    check: str
    result: Result
    seen: str
    meaning: str = ""
    remedy: str = ""
