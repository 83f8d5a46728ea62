"""Reading the tables of a configuration file, and saying all that is wrong in it.

A `Table` hands out the values of its keys. What is wrong is noted under the
path of the key and replaced by a value of the right type, so that one run
reports every problem of a file, not the first.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from outgrow.errors import TopologyError
from outgrow.topology.rules import Rule

# A key that TOML takes without quotes, and that needs none in a path.
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


class Problems:
    """What is wrong in one file, in the order in which it was found."""

    def __init__(self) -> None:
        self.found: list[TopologyError] = []

    def add(self, path: str, problem: str, hint: str = "") -> None:
        """Note one problem."""
        self.found.append(TopologyError(path, problem, hint))

    def below(self, path: str) -> bool:
        """Whether anything is wrong at this path or below it."""
        starts = (f"{path}.", f"{path}[")
        return any(p.path == path or p.path.startswith(starts) for p in self.found)


class Table:
    """One table of the file: its keys are taken out by name, then it is closed."""

    def __init__(self, path: str, content: Mapping[str, object], problems: Problems) -> None:
        self.path = path
        self._content = content
        self._problems = problems
        self._known: list[str] = []

    def where(self, key: str) -> str:
        """The path of a key, as a person would write it."""
        return join(self.path, key)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._content

    def report(self, problem: str, hint: str = "") -> None:
        """Note that the table itself, or its name, is wrong."""
        self._problems.add(self.path, problem, hint)

    def wrong(self, key: str, problem: str, hint: str = "") -> None:
        """Note that the value of `key` is wrong."""
        self._problems.add(self.where(key), problem, hint)

    def refuse(self, key: str, problem: str, hint: str = "") -> None:
        """Note that `key` is there and must not be, for a reason that is no misspelling."""
        self._known.append(key)
        if self.has(key):
            self.wrong(key, problem, hint)

    def text(self, key: str, rule: Rule | None = None, *, default: str | None = None) -> str:
        """A string that passes `rule`; without a `default` it must be there."""
        value = self._take(key, required=default is None)
        if value is None:
            return default or ""
        if not isinstance(value, str):
            self.wrong(key, f"must be a string, not {_described(value)}.")
            return default or ""
        self._check(self.where(key), value, rule)
        return value

    def choice(self, key: str, choices: Sequence[str], what: str) -> str | None:
        """One of `choices`, or None when not there; `what` as in "is not `what`"."""
        if not self.has(key):
            self._known.append(key)
            return None
        value = self.text(key)
        if value in choices:
            return value
        if not self._problems.below(self.where(key)):
            self.wrong(key, f'"{value}" is not {what};', suggestion(value, choices))
        return None

    def texts(
        self, key: str, rule: Rule | None = None, *, default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """A list of one or more different strings, each of which passes `rule`.

        Without a `default` it must be there.
        """
        value = self._take(key, required=default is None)
        if value is None:
            return default or ()
        if not isinstance(value, list) or not value:
            self.wrong(key, f"must be a list of one or more strings, not {_described(value)}.")
            return ()
        return tuple(self._items(self.where(key), value, rule))

    def number(self, key: str, *, more_than: float) -> float | None:
        """A number greater than `more_than`; None when the key is not there."""
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(key, f"must be a number, not {_described(value)}.")
            return None
        if not math.isfinite(value) or value <= more_than:
            self.wrong(key, f"must be greater than {more_than:g}, not {value:g}.")
            return None
        return float(value)

    def whole(self, key: str, least: int, most: int, *, default: int) -> int:
        """A whole number from `least` to `most`."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(key, f"must be a whole number, not {_described(value)}.")
            return default
        if not least <= value <= most:
            self.wrong(key, f"must be from {least} to {most}, not {value}.")
            return default
        return value

    def flag(self, key: str) -> bool | None:
        """True or false; None when the key is not there."""
        value = self._take(key)
        if value is None or isinstance(value, bool):
            return value
        self.wrong(key, f"must be true or false, not {_described(value)}.")
        return None

    def word_or_whole(self, key: str, words: Sequence[str], least: int) -> str | int | None:
        """One of `words` or a whole number of at least `least`; None when not there."""
        value = self._take(key)
        if value is None or value in words:
            return value if isinstance(value, str) else None
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        shown = f'"{value}"' if isinstance(value, str) else _described(value)
        allowed = ", ".join(f'"{word}"' for word in words)
        self.wrong(key, f"must be a number of at least {least}, or {allowed}; not {shown}.")
        return None

    def table(self, key: str, *, required: bool = False) -> Table:
        """The table below `key`; an empty one when it is not there."""
        value = self._take(key, required=required)
        if value is not None and not isinstance(value, dict):
            self.wrong(key, f"must be a table, not {_described(value)}.")
        content = value if isinstance(value, dict) else {}
        return Table(self.where(key), content, self._problems)

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Every key of this table, each with the table that is its value."""
        for key in self._content:
            yield key, self.table(key)

    def chosen(self) -> tuple[str, ...]:
        """Every key of a table whose keys may be any."""
        return tuple(self._content)

    def close(self) -> None:
        """Note every key that nothing asked for."""
        for key in self._content:
            if key not in self._known:
                self.wrong(key, "is not a known key;", suggestion(key, self._known))

    def _take(self, key: str, *, required: bool = False) -> object:
        self._known.append(key)
        if required and key not in self._content:
            self.wrong(key, "is missing.")
        return self._content.get(key)

    def _items(self, path: str, items: list[object], rule: Rule | None) -> Iterator[str]:
        for index, item in enumerate(items):
            here = f"{path}[{index}]"
            if not isinstance(item, str):
                self._problems.add(here, f"must be a string, not {_described(item)}.")
            elif item in items[:index]:
                self._problems.add(here, f'"{item}" is in this list twice.')
            elif self._check(here, item, rule):
                yield item

    def _check(self, path: str, value: str, rule: Rule | None) -> bool:
        problem = rule(value) if rule else ""
        if problem:
            self._problems.add(path, problem)
        return not problem


def suggestion(word: str, known: Iterable[str]) -> str:
    """What may have been meant by `word`, or what there is to choose from."""
    choices = list(dict.fromkeys(known))
    close = difflib.get_close_matches(word.lower(), choices, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return "known: " + ", ".join(f'"{choice}"' for choice in sorted(choices)) + "."


def join(path: str, key: str) -> str:
    """The path of `key` below `path`, quoted where TOML would quote it."""
    shown = key if _BARE.match(key) else json.dumps(key, ensure_ascii=False)
    return f"{path}.{shown}" if path else shown


def _described(value: object) -> str:
    """A value of a wrong type, in the words of TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the string "{value}"'
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a table"
    return f"a {type(value).__name__}"
