"""Any number of tuples in order, in memory for some of them."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO, Final, TypeVar

#: Tuples that are held in memory: some 15 MB of names.
IN_MEMORY: Final = 50_000

Row = TypeVar("Row", bound=tuple[object, ...])


def ordered(
    rows: Iterable[Row],
    make: Callable[[Iterable[object]], Row],
    key: Callable[[Row], str] = lambda row: str(row[0]),
    limit: int = IN_MEMORY,
) -> Iterator[Row]:
    """The rows, sorted by `key`. All are read before the first is given.

    More than `limit` of them go through temporary files, as JSON: what is in a row must be
    a text, a number or a truth value. `make` makes a row of the list that comes back.
    Raises `OSError` when there is no room for them.
    """
    source = iter(rows)
    first = sorted(islice(source, limit), key=key)
    if len(first) < limit:
        yield from first
        return
    with ExitStack() as stack:
        runs = []
        while first:
            file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            _write(file, first)
            runs.append(map(make, _read(file)))
            first = sorted(islice(source, limit), key=key)
        yield from heapq.merge(*runs, key=key)


def _write(file: IO[str], rows: Iterable[tuple[object, ...]]) -> None:
    # ASCII: a name that is no UTF-8 has surrogates, which only an escape keeps.
    file.writelines(json.dumps(row) + "\n" for row in rows)
    file.flush()
    file.seek(0)


def _read(file: IO[str]) -> Iterator[list[object]]:
    return (json.loads(text) for text in file)
