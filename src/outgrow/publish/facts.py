"""What a content says: its references, what it mentions, and where it can't be understood.

It depends on the content and its type alone, so it is kept in the cache, as a line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from outgrow.publish import css, html, integrity, javascript, mentions
from outgrow.publish.mentions import Mention
from outgrow.publish.references import Damage, Found, Kind, Reference, Syntax

_SCRIPT: Final = "text/javascript"

#: What finds the references of a type.
_SCANNERS: Final[Mapping[str, Callable[[bytes], Found]]] = {
    "text/css": lambda content: Found(css.references(content)),
    _SCRIPT: javascript.read,
    "text/html": html.read,
    "application/xhtml+xml": html.read,
}

#: The types that are looked into.
TYPES: Final = frozenset(_SCANNERS)

#: Another one when anything else is found: what is in the cache is of no use then.
VERSION: Final = 4


@dataclass(frozen=True, slots=True)
class Facts:
    """What one content says.

    `integrity` is the value for it, and `damage` what people are told of a script that the
    parser can't make out, from its line on.
    """

    integrity: str = ""
    references: tuple[Reference, ...] = ()
    mentions: tuple[Mention, ...] = ()
    damage: str = ""


def read(content: bytes, media_type: str) -> Facts:
    """Look into a content of one of TYPES. Raises MissingExtra."""
    found = _SCANNERS[media_type](content)
    is_script = media_type == _SCRIPT
    return Facts(
        integrity.of(content),
        tuple(found.references),
        tuple(mentions.mentions(content, found.references)) if is_script else (),
        _damage(content, found.damage),
    )


def dumped(facts: Facts) -> bytes:
    """As it is kept."""
    rows = [_row(one) for one in facts.references]
    return json.dumps([facts.integrity, rows, facts.mentions, facts.damage]).encode()


def loaded(kept: bytes) -> Facts:
    """The same from the cache."""
    own, rows, mentioned, damage = json.loads(kept)
    references = tuple(_reference(row) for row in rows)
    return Facts(own, references, tuple((line, text) for line, text in mentioned), damage)


def _damage(content: bytes, several: Sequence[Damage]) -> str:
    if not several:
        return ""
    first = several[0]
    line, column = _place(content, first.at)
    more = f" There are {len(several) - 1} more such places." if several[1:] else ""
    return (
        f"{line}:{column}: what looks like a reference was left as it is, for the parser can't "
        f"make out this script from line {_place(content, first.start)[0]} to line "
        f"{_place(content, first.end)[0]}. Others there may be missed. Is it a mistake, or newer "
        f"JavaScript?{more}"
    )


def _place(content: bytes, offset: int) -> tuple[int, int]:
    """The line and the column, in characters, both 1 for the first."""
    start = content.rfind(b"\n", 0, offset) + 1
    column = len(content[start:offset].decode(errors="replace")) + 1
    return content.count(b"\n", 0, offset) + 1, column


def _row(one: Reference) -> list[object]:
    syntax = [each.name for each in one.syntax]
    beside = _row(one.integrity) if one.integrity else None
    return [one.start, one.end, one.url, one.line, one.kind, syntax, beside]


def _reference(row: Sequence[Any]) -> Reference:
    start, end, url, line, kind, syntax, beside = row
    names = tuple(Syntax[one] for one in syntax)
    return Reference(start, end, url, line, Kind(kind), names, beside and _reference(beside))
