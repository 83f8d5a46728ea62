"""Folders -> the files that are to be published, by their logical names.

Every problem is found before anything is sent, and all of them are told at once.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outgrow import names as naming
from outgrow.errors import BadSources
from outgrow.publish.targets import problem

#: What is never published: what Django's staticfiles ignores, too. `.well-known` is (RFC 8615).
IGNORED: Final = ("CVS", ".*", "*~")
_WELL_KNOWN: Final = ".well-known"


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its logical name, and where it is. `size` in bytes, as it was seen."""

    name: str
    path: str
    size: int


@dataclass(frozen=True)
class Scan:
    """What was found: `sources` by name, in order. `warnings` are for people."""

    sources: Mapping[str, Source]
    warnings: tuple[str, ...] = ()


class Sources:
    """Gathers files one by one, and whatever is wrong with them."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._problems: list[str] = []

    def add(self, name: str, path: str) -> None:
        """A file and its logical name."""
        why = problem(name) or self._add(name, path)
        if why:
            shown = path.encode(errors="backslashreplace").decode()
            self.refuse(f"{shown} can't be published: {why}.")

    def refuse(self, text: str) -> None:
        """Something that is wrong, in a sentence."""
        self._problems.append(text)

    def scan(self) -> Scan:
        """All files, in the order of their names. Raises BadSources with all that is wrong."""
        problems = [*self._problems, *_clashes(self._sources)]
        if problems:
            raise BadSources(problems)
        ordered = {name: self._sources[name] for name in sorted(self._sources)}
        return Scan(ordered, tuple(_same_but_for_case(ordered)))

    def _add(self, name: str, path: str) -> str:
        """Why a file is no source, or an empty text."""
        try:
            found = os.stat(path)
        except OSError as error:
            return f"{error.strerror}"
        if not stat.S_ISREG(found.st_mode):
            return "it is no regular file"
        if not os.access(path, os.R_OK):
            return "it can't be read"
        other = self._sources.get(name)
        if other is not None and os.path.realpath(other.path) != os.path.realpath(path):
            return f"{other.path} has the same name"
        self._sources[name] = Source(name, path, found.st_size)
        return ""


def scan(
    roots: Iterable[tuple[str, str | os.PathLike[str]]],
    *,
    ignore: Sequence[str] = IGNORED,
    follow: bool = False,
) -> Scan:
    """Find the files of folders; a root may be a single file.

    Each root is a prefix for the names below it and a path: ``("img/", "build/images")``; of a
    file the prefix is its whole name. `ignore` are patterns for one part of a path. A symbolic
    link is followed when what it points to lies in its root; with `follow`, always; loops end.
    Raises BadSources with all that is wrong.
    """
    found = Sources()
    for prefix, path in roots:
        place = os.fspath(path)
        if os.path.isdir(place):
            _walk(found, prefix, place, ignore, follow=follow)
        else:
            found.add(prefix or os.path.basename(place), place)
    return found.scan()


def _walk(found: Sources, prefix: str, root: str, ignore: Sequence[str], *, follow: bool) -> None:
    base = os.path.realpath(root)

    def visit(folder: str, inside: str, above: tuple[str, ...]) -> None:
        real = os.path.realpath(folder)
        if len(inside) > naming.NAME_LIMIT:
            found.refuse(f"{inside[:60]}... lies too deep: no target takes such names.")
            return
        if real in above:
            found.refuse(f"{folder} is a link to a folder that it lies in.")
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            found.refuse(f"{folder} can't be listed: {error.strerror}.")
            return
        for entry in entries:
            if _is_ignored(entry.name, ignore):
                continue
            if entry.is_symlink() and not follow and not _is_inside(entry.path, base):
                found.refuse(
                    f"{entry.path} is a link out of {root}. Allow such links, or copy the file."
                )
            elif _is_folder(entry):
                visit(entry.path, f"{inside}{entry.name}/", (*above, real))
            else:
                found.add(f"{inside}{entry.name}", entry.path)

    visit(root, prefix, ())


def _is_ignored(name: str, ignore: Sequence[str]) -> bool:
    if name == _WELL_KNOWN:
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself; whoever looks at it as a file says so


def _is_inside(path: str, base: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(base)


def _clashes(names: Iterable[str]) -> Iterator[str]:
    """Names that can't lie beside each other on a disk."""
    known = set(names)
    for name in sorted(known):
        parts = name.split("/")
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            if above in known:
                yield f"{above} can't be published: {name} needs a folder of that name."


def _same_but_for_case(names: Iterable[str]) -> Iterator[str]:
    folded = defaultdict(list)
    for name in names:
        folded[name.casefold()].append(name)
    for several in folded.values():
        if len(several) > 1:
            yield f"{' and '.join(several)} differ in case alone: some disks hold one of them."
