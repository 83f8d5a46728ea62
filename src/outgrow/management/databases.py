"""`manage.py outgrow databases status`: role, lag, position and last failure of every server.

Exit codes: 0, and with --check 1 when something is wrong; 2 for wrong usage. `databases
migrate` is in `outgrow.management.migrations`.
"""

from __future__ import annotations

import json
import signal
import threading
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outgrow.databases.cluster import Cluster, clusters, distinct
from outgrow.databases.survey import PATIENCE, Surveyed, problems, survey
from outgrow.management import migrations

#: Seconds from one survey to the next, with --watch.
INTERVAL: Final = 2.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the words of `databases` and their options."""
    words = parser.add_subparsers(dest="word", required=True, metavar="COMMAND")
    status = words.add_parser("status", help="show the primary and every replica")
    status.add_argument(
        "--cluster", action="append", default=[], metavar="ALIAS", help="the primary's alias"
    )
    status.add_argument("--json", action="store_true", help="print JSON, for machines")
    status.add_argument(
        "--check", action="store_true", help="exit 1 when something is wrong; waits up to max_lag"
    )
    status.add_argument("--watch", action="store_true", help="go on until told to stop")
    status.add_argument(
        "--interval",
        type=float,
        default=INTERVAL,
        metavar="S",
        help=f"seconds between the surveys of --watch ({INTERVAL:g})",
    )
    migrations.add_arguments(
        words.add_parser("migrate", help="migrate, when nobody else does, until replicas have it")
    )


def run(command: BaseCommand, options: dict[str, Any]) -> int:
    """Run one word; its exit code."""
    if options["word"] == "migrate":
        return migrations.run(command, options)
    return _status(command, options)


def _status(command: BaseCommand, options: dict[str, Any]) -> int:
    """Show the clusters, once or again and again."""
    chosen = _chosen(options["cluster"])
    if not options["watch"]:
        return _show(command, chosen, options)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    code = 0
    while not stop.is_set():
        code = _show(command, chosen, options)
        stop.wait(options["interval"])
    return code


def _chosen(wanted: list[str]) -> list[Cluster]:
    found = {cluster.primary: cluster for cluster in distinct(clusters())}
    if not found:
        raise CommandError("OUTGROW['REPLICATION'] has no replicas.", returncode=2)
    for alias in wanted:
        if alias not in found:
            known = ", ".join(map(repr, found))
            text = f"{alias!r} is no primary in OUTGROW['REPLICATION']. There are: {known}."
            raise CommandError(text, returncode=2)
    return [cluster for alias, cluster in found.items() if not wanted or alias in wanted]


def _show(command: BaseCommand, chosen: list[Cluster], options: dict[str, Any]) -> int:
    wrong = False
    for cluster in chosen:
        # For an alert it is waited for as long as a lag is allowed, else as long as a person waits.
        patience = cluster.options.max_lag if options["check"] else PATIENCE
        found = survey(cluster, patience=patience)
        troubles = list(problems(found, cluster.options.max_lag))
        wrong = wrong or bool(troubles)
        if options["json"]:
            facts = {
                "cluster": cluster.primary,
                "servers": [one.facts() for one in found],
                "problems": troubles,
            }
            command.stdout.write(json.dumps(facts))
        else:
            plain = command.style.SUCCESS("") == ""
            console = Console(file=command.stdout, no_color=plain)  # type: ignore[arg-type]
            console.print(_table(cluster, found))
            for trouble in troubles:
                command.stdout.write(command.style.WARNING(trouble))
        command.stdout.flush()
    return int(options["check"] and wrong)


def _table(cluster: Cluster, found: list[Surveyed]) -> Table:
    title = f"The primary {escape(repr(cluster.primary))} and its replicas"
    table = Table(title=title, title_justify="left")
    for heading in ("alias", "role", "state", "lag", "behind", "position", "last failure"):
        table.add_column(heading, justify="right" if heading in {"lag", "behind"} else "left")
    for one in found:
        table.add_row(*_cells(one))
    return table


def _cells(one: Surveyed) -> tuple[str, ...]:
    state = "[green]up[/]" if one.up else "[red]down[/]"
    if one.up and one.problem:
        state = "[yellow]not used[/]" if one.role != "primary" else "[yellow]read only[/]"
    return (
        escape(one.alias),
        one.role,
        state,
        _lag(one),
        "" if one.behind is None else _size(one.behind),
        escape(one.position),
        escape(one.failure),
    )


def _lag(one: Surveyed) -> str:
    if one.lag is None:
        return ""
    if one.at_least:
        return f"over {one.lag:.1f} s"
    return "none" if not one.lag else f"{one.lag * 1000:.0f} ms"


def _size(count: int) -> str:
    for limit, unit, name in ((10_000, 1, "B"), (10_000_000, 1024, "KB")):
        if count < limit:
            return f"{count // unit} {name}"
    return f"{count >> 20} MB"
