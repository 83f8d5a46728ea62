"""The files that a site's templates name by `{% static "..." %}`: are all of them published?

What stands in a template as a literal is looked at, and nothing is rendered. Templates of Jinja2,
and names that a program puts together, are not: they are told when they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urldefrag

from django.template import engines
from django.template.backends.django import DjangoTemplates
from django.template.base import Lexer, Token, TokenType
from django.template.utils import get_app_template_dirs

from outgrow.errors import BadReferences
from outgrow.publish.policy import Policy
from outgrow.publish.release import Release
from outgrow.suggestions import closest

#: Tags whose first word names a static file: Django's, and ours.
_TAGS: Final = ("static", "integrity")

#: Folders of what others have written and pip has installed.
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class Use:
    """A static file that a template names.

    `template` is its name as `get_template` has it, and `path` the file.
    """

    template: str
    path: Path
    line: int
    name: str

    @property
    def is_installed(self) -> bool:
        """Whether it is of a package that is not the site's own."""
        return not _INSTALLED.isdisjoint(self.path.parts)


def check(release: Release, policy: Policy) -> list[str]:
    """Warnings about templates that name what is not in a release.

    Raises BadReferences for the site's own templates, with all that is wrong; those that
    `may_miss` matches are warned of. Those of installed packages are warned of in one line, and
    not at all if `may_miss` matches: the template, or the name that is missing.
    """
    problems, warnings, installed = [], [], []
    for use in uses():
        if use.name in release.entries:
            continue
        may_miss = policy.may_miss(use.template) or policy.may_miss(use.name)
        if use.is_installed:
            installed += [] if may_miss else [use]
        elif may_miss:
            warnings.append(_missing(use, release))
        else:
            problems.append(_missing(use, release))
    if problems:
        raise BadReferences(problems)
    if installed:
        number = len({use.path for use in installed})
        warnings.append(
            f"{number} templates of installed packages name static files that are not there, as "
            f"{installed[0].template}:{installed[0].line} does: {installed[0].name}."
        )
    return warnings


def uses() -> Iterator[Use]:
    """What the templates of all Django engines name, in the order of the files."""
    for folder in _folders():
        for place, folders, files in os.walk(folder):
            folders.sort()
            for file in sorted(files):
                path = Path(place, file)
                yield from _of_file(path.relative_to(folder).as_posix(), path)


def _folders() -> Iterator[Path]:
    """Each once: those of `DIRS`, and those of the apps."""
    found: dict[Path, None] = {}
    for engine in engines.all():
        if isinstance(engine, DjangoTemplates):
            found |= dict.fromkeys(map(Path, engine.template_dirs))
    found |= dict.fromkeys(map(Path, get_app_template_dirs("templates")))
    yield from found


def _of_file(template: str, path: Path) -> Iterator[Use]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # no template, but a picture beside some
    if any(tag in text for tag in _TAGS):
        yield from (Use(template, path, line, name) for line, name in names(text))


def names(template: str) -> Iterator[tuple[int, str]]:
    """The static files that the text of a template names, each with its line.

    Comments are no part of it. A name that ends with a slash is the beginning of others.
    """
    in_comment = False
    for token in Lexer(template).tokenize():
        if token.token_type is not TokenType.BLOCK:
            continue
        tag = token.contents.split()[0] if token.contents else ""
        if tag in {"comment", "endcomment"}:
            in_comment = tag == "comment"
        elif tag in _TAGS and not in_comment and (name := _literal(token)):
            yield token.lineno or 0, name


def _literal(token: Token) -> str:
    words = token.split_contents()[1:]
    word = words[0] if words else ""
    if len(word) < 2 or word[0] != word[-1] or word[0] not in "\"'":
        return ""
    name = unquote(urldefrag(word[1:-1])[0].partition("?")[0])
    return "" if name.endswith("/") else name


def _missing(use: Use, release: Release) -> str:
    text = f"{use.template}:{use.line}: the static file {use.name!r} is not there."
    close = closest(use.name, release.entries)
    return f"{text} Did you mean {close!r}?" if close else text
