"""Strings of scripts that look like names of files: what a program may load by them.

Bundlers write such lists: Vite of what it preloads, and of pictures that are imported as URLs.
Whether a string is used as a URL is known when it runs, so none is rewritten (law 1 of
`javascript`); but a file that is mentioned so should keep its name, and people are told.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Final

from outgrow.publish.references import Lines, Reference, resolve, text

#: A whole string with a folder and an extension, and no space, as the names of bundlers are.
_NAME: Final = re.compile(
    rb"([\"'`])(?P<name>[\w@%+~.-]{0,250}/[\w@%+~./-]{1,700}\.[A-Za-z][A-Za-z0-9]{1,10})\1"
)

#: The line, 1 for the first, and the text.
Mention = tuple[int, str]


def mentions(content: bytes, references: Iterable[Reference]) -> list[Mention]:
    """Each text once, where it stands first; what is a reference there is none."""
    known = {one.start for one in references}
    lines = Lines(content)
    found: dict[str, int] = {}
    for match in _NAME.finditer(content):
        if match.start("name") not in known:
            found.setdefault(text(match["name"]), lines.at(match.start()))
    return [(line, name) for name, line in found.items()]


def meant(mention: str, script: str, prefix: str, is_file: Callable[[str], bool]) -> str:
    """The file that a text means, or nothing: from the script's folder, or from one above it.

    Vite's list is relative to the root of its own build, which may be published in a folder.
    """
    folder = posixpath.dirname(script)
    while True:
        target = resolve(mention, posixpath.join(folder, "script"), prefix)
        if target is not None and is_file(target.name):
            return target.name
        if not folder or mention.startswith((".", "/")):
            return ""
        folder = posixpath.dirname(folder)


def warning(script: str, found: Iterable[tuple[Mention, str]]) -> str:
    """What people are told of a script and of the files that it mentions."""
    (line, shown), name = min(found)
    pattern = f"{posixpath.dirname(name)}/**".removeprefix("/")
    return (
        f"{script}:{line}: the text {shown!r} is the name of a file that gets another name; only "
        "references are rewritten. If a program loads it: "
        f'immutable = ["{pattern}"] where names hold a hash already, else keep = ["{pattern}"].'
    )
