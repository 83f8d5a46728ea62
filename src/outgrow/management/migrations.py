"""`manage.py outgrow databases migrate`: Django's `migrate`, by one process at a time.

Exit codes: 0 when the primary and every replica that answers have it; 1 when another process
migrates for too long, when a replica is behind, and whenever `migrate` itself fails.
"""

from __future__ import annotations

import io
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import DEFAULT_DB_ALIAS, connections

from outgrow.databases.cluster import clusters
from outgrow.databases.migrating import turn
from outgrow.databases.survey import REPLICA, Surveyed, survey

#: Seconds for another process that migrates, and for replicas, at most.
TURN_LIMIT: Final = 600.0
REPLICA_LIMIT: Final = 60.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `databases migrate`."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="what Django's migrate is given, behind '--' when it begins with a dash",
    )
    parser.add_argument(
        "--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="a primary's (default)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TURN_LIMIT,
        metavar="S",
        help=f"seconds to wait while another process migrates ({TURN_LIMIT:g})",
    )
    parser.add_argument(
        "--replicas",
        type=float,
        default=REPLICA_LIMIT,
        metavar="S",
        help=f"seconds to wait for replicas; 0: not at all ({REPLICA_LIMIT:g})",
    )


def run(command: BaseCommand, options: dict[str, Any]) -> int:
    """Migrate one database; the exit code. Raises `OutgrowError` and `CommandError`."""
    alias = options["database"]
    if alias not in connections:
        raise CommandError(f"DATABASES has no {alias!r}.", returncode=2)
    cluster = clusters().get(alias)
    if cluster is not None and alias != cluster.primary:
        text = f"{alias!r} is a replica of {cluster.primary!r}: give that --database."
        raise CommandError(text, returncode=2)

    def waiting(holder: str) -> None:
        command.stdout.write(f"Another migration is at work: {holder}. It is waited for.")
        command.stdout.flush()

    with turn(alias, seconds=options["timeout"], waiting=waiting):
        call_command(
            "migrate",
            *options["words"],
            database=alias,
            interactive=False,
            verbosity=options["verbosity"],
            no_color=options["no_color"],
            force_color=options["force_color"],
            stdout=_Through(command.stdout),
            stderr=_Through(command.stderr),
        )
    if cluster is None or not options["replicas"]:
        return 0
    found = survey(cluster, patience=options["replicas"])
    return _tell(command, [one for one in found if one.role == REPLICA], options["replicas"])


class _Through(io.TextIOBase):
    """The output of a command, for another command: of its own it would end each piece a line."""

    def __init__(self, stream: OutputWrapper) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text, ending="")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return bool(self._stream.isatty())


def _tell(command: BaseCommand, replicas: list[Surveyed], limit: float) -> int:
    """Say which replicas have it; 1 if one has not that may be read."""
    code = 0
    for one in replicas:
        if one.failure:
            command.stdout.write(
                command.style.WARNING(f"{one.alias} does not answer ({one.failure})")
            )
        elif one.problem:
            command.stdout.write(command.style.WARNING(f"{one.alias}: {one.problem}"))
        elif one.at_least:
            code = 1
            command.stderr.write(
                f"{one.alias} has not replayed the migration after {limit:g} s. Start no code "
                "that needs it, while visitors may read there: see 'manage.py outgrow databases "
                "status'."
            )
        else:
            command.stdout.write(f"{one.alias} has it.")
    return code
