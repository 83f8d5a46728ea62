"""The table ``[worker]`` as a value: what works in the background, beside the requests."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from outgrow.topology import rules
from outgrow.topology.keys import Table

#: As the first word of a command: the interpreter that runs the site.
PYTHON: Final = "python"


@dataclass(frozen=True, slots=True)
class Worker:
    """What every server with the role runs: the words of one command, in the site's folder."""

    command: tuple[str, ...] = ()

    def words(self, python: str) -> tuple[str, ...]:
        """The command with the site's interpreter, whose path is `python`."""
        first, *others = self.command
        return (python if first == PYTHON else first, *others)


def parse(table: Table) -> Worker:
    """The workers that a table describes."""
    text = table.text("command", command, default="")
    words: tuple[str, ...] = ()
    if text and not command(text):
        words = tuple(shlex.split(text))
    table.close()
    return Worker(words)


def command(value: str) -> str:
    """A command, as a shell would take it apart."""
    if problem := rules.path(value):
        return problem
    try:
        words = shlex.split(value)
    except ValueError as error:
        return f"can't be taken apart: {error}."
    first = words[0] if words else ""
    if first == PYTHON or first.startswith("/"):
        return ""
    hint = 'as in "python -m celery -A photos worker"'
    return f'"{value}" must begin with python or with the path of a program, {hint}.'
