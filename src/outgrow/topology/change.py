"""One step from a site to another, as a value; and how it is printed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

#: The phases, in their order.
PREPARE: Final = "Prepare"
SWITCH: Final = "Switch"
REMOVE: Final = "Remove"
PHASES: Final = (PREPARE, SWITCH, REMOVE)

_WIDTH: Final = 92
_INDENT: Final = " " * 5

#: What is done to a server.
SET_UP: Final = "set up"
COPY: Final = "copy to"
RECONFIGURE: Final = "reconfigure"
MOVE: Final = "move the data"
DRAIN: Final = "drain"
START: Final = "start"
RELOAD: Final = "reload"
SEND: Final = "send visitors to"
FORGET: Final = "forget"
STOP: Final = "remove"

NOTHING: Final = "Nothing changes on any server."

_HEAD: Final = (
    "Carry out one step after the other, each on the server that it names; commands of manage.py\n"
    "on an application server of today.\n"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One step. `what` is the verb's object and `why` a sentence; `page` is below docs/."""

    phase: str
    server: str
    verb: str
    what: str
    why: str
    commands: tuple[str, ...] = ()
    page: str = ""


def text(changes: Iterable[Change]) -> str:
    """The steps as numbered lines below their phases; or that there are none."""
    return "".join(_lines(changes)) or f"{NOTHING}\n"


def facts(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """The steps for JSON."""
    return [
        {
            "step": number,
            "phase": one.phase,
            "server": one.server,
            "verb": one.verb,
            "what": one.what,
            "why": one.why,
            "commands": list(one.commands),
            "page": one.page,
        }
        for number, one in enumerate(changes, 1)
    ]


def _lines(changes: Iterable[Change]) -> Iterator[str]:
    numbered = list(enumerate(changes, 1))
    if numbered:
        yield _HEAD
    for phase, some in groupby(numbered, key=lambda pair: pair[1].phase):
        yield f"\n{phase}\n"
        for number, one in some:
            yield _wrapped(f"{one.server}: {one.verb} {one.what}", f"{number:>3}. ")
            yield _wrapped(one.why, _INDENT)
            yield from (f"{_INDENT}$ {command}\n" for command in one.commands)
            if one.page:
                yield f"{_INDENT}docs: {one.page}\n"


def _wrapped(sentence: str, first: str) -> str:
    """A paragraph; what is longer than a line, as an address may be, is left whole."""
    lines = textwrap.wrap(
        sentence,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join([*lines, ""])
