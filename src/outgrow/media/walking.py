"""A tree of folders as one walk in order, in memory for some of its names."""

from __future__ import annotations

import errno
import heapq
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Final, TypeVar, cast

from outgrow.media.listing import BadListing, Child, Entry
from outgrow.names import NAME_LIMIT

#: Tuples that are held in memory: some 15 MB of names.
IN_MEMORY: Final = 50_000

#: What is called with a folder or a file that can't be read.
Failed = Callable[[str, OSError], None]

Row = TypeVar("Row", bound=tuple[object, ...])


def _no_end(folder: str, error: OSError) -> None:
    raise BadListing(f"the folder {folder[:80]!r}... lies too deep") from error


def walk(
    read: Callable[[str], Iterator[Child]],
    folder: str = "",
    *,
    too_deep: Callable[[str, OSError], None] = _no_end,
) -> Iterator[Entry]:
    """The files below a folder, in order; `read` gives what is in one, in any order.

    A folder's name ends in a slash, and that of the root is empty. The folders above the
    present one are kept open. `too_deep` is called with a folder whose name is longer
    than any name may be; without it that raises `BadListing`.
    """
    opened = [(folder, _children(read(folder)))]
    while opened:
        folder, children = opened[-1]
        for name, size, date in children:
            path = folder + name
            if not name.endswith("/"):
                yield Entry(path, size, date)
                continue
            if len(path) > NAME_LIMIT:
                too_deep(path, OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)))
                continue
            opened.append((path, _children(read(path))))
            break
        else:
            opened.pop()


def walk_disk(root: Path, failed: Failed, prefix: str = "", *, skip: str = "") -> Iterator[Entry]:
    """The files below a folder of the disk, in order, also below links to folders.

    Only those whose names begin with `prefix`. What is called `skip` in the root itself is
    left out. `failed` is called with each folder that can't be read, and each file.
    """
    above: list[tuple[int, int]] = []
    start = prefix[: prefix.rfind("/") + 1]
    depth = start.count("/")

    def read(folder: str) -> Iterator[Child]:
        try:
            found = os.stat(root / folder)
            place = (found.st_dev, found.st_ino)
            del above[folder.count("/") - depth :]
            if place in above:
                return  # a link that leads back up
            above.append(place)
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    left_out = not folder and entry.name == skip
                    child = None if left_out else _child(entry, folder, failed)
                    if child is not None:
                        yield child
        except OSError as error:
            failed(folder.rstrip("/"), error)

    if not prefix:
        return walk(read, too_deep=failed)
    return (one for one in walk(read, start, too_deep=failed) if one.name.startswith(prefix))


def _child(entry: os.DirEntry[str], folder: str, failed: Failed) -> Child | None:
    """The file or folder that an entry is, or leads to; None for all else."""
    try:
        if entry.is_dir():
            return Child(f"{entry.name}/")
        return Child(entry.name, entry.stat().st_size) if entry.is_file() else None
    except FileNotFoundError:
        return None  # deleted a moment ago
    except OSError as error:
        failed(folder + entry.name, error)
        return None


def _children(children: Iterator[Child]) -> Iterator[Child]:
    return ordered(children, lambda row: Child(*cast("Child", row)))


def ordered(
    rows: Iterable[Row],
    make: Callable[[Iterable[object]], Row],
    limit: int = IN_MEMORY,
) -> Iterator[Row]:
    """The rows, sorted. All are read before the first is given.

    More than `limit` of them go through temporary files, as JSON: what is in a row must be
    a text, a number or a truth value. `make` makes a row of the list that comes back.
    Raises `OSError` when there is no room for them.
    """
    source = iter(rows)
    first = sorted(islice(source, limit))
    if len(first) < limit:
        yield from first
        return
    with ExitStack() as stack:
        runs = []
        while first:
            file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            _write(file, first)
            runs.append(map(make, _read(file)))
            first = sorted(islice(source, limit))
        yield from heapq.merge(*runs)


def _write(file: IO[str], rows: Iterable[tuple[object, ...]]) -> None:
    # ASCII: a name that is no UTF-8 has surrogates, which only an escape keeps.
    file.writelines(json.dumps(row) + "\n" for row in rows)
    file.flush()
    file.seek(0)


def _read(file: IO[str]) -> Iterator[list[object]]:
    return (json.loads(text) for text in file)
