"""The options of a `MovingStorage`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from outgrow.errors import ConfigurationError
from outgrow.suggestions import suggestion

_HINT = "Write {'to': ALIAS, 'from': ALIAS}, both of STORAGES."


@dataclass(frozen=True, slots=True)
class MovingOptions:
    """The aliases in STORAGES of the storage that files move to, and of the one they come from."""

    to: str
    source: str


def moving_options(
    given: Mapping[str, Any], path: str, aliases: Collection[str], own: str = ""
) -> tuple[MovingOptions, list[ConfigurationError]]:
    """Check the options, and return all that is wrong with them.

    `aliases` are those of STORAGES; `own` is that of the storage itself, if it is known.
    """
    problems = [
        ConfigurationError(f"{path}[{name!r}]", "is not an option.", _HINT)
        for name in given
        if name not in {"to", "from"}
    ]
    for name in ("to", "from"):
        problem = _problem(given.get(name), aliases, own)
        if problem:
            where = f"{path}[{name!r}]"
            problems.append(ConfigurationError(where, *problem))
    to, source = str(given.get("to", "")), str(given.get("from", ""))
    if not problems and to == source:
        text = f"is {to!r}, and so is 'from': there is nothing to move."
        problems.append(ConfigurationError(f"{path}['to']", text, "Name two storages."))
    return MovingOptions(to, source), problems


def _problem(value: object, aliases: Collection[str], own: str) -> tuple[str, str] | None:
    if not isinstance(value, str) or not value:
        return ("is missing." if value is None else f"is {value!r}, not an alias."), _HINT
    if value == own:
        return f"is {value!r}, which is this storage itself.", "Give both storages an own alias."
    if value in aliases:
        return None
    return f"is {value!r}, which STORAGES has not.", suggestion(value, sorted(aliases))
