"""`manage.py outgrow media repair` and `manage.py outgrow media status`.

Exit codes, for cron and alerts: 0 when all is well, 1 when a server is still owed
something (repair) or something is wrong (status --check), 2 for wrong usage.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from outgrow.errors import OutgrowError
from outgrow.media.journal import LOOKS
from outgrow.media.repair import Repair, Report, Verb
from outgrow.media.storages import HybridStorage
from outgrow.media.watch import INTERVAL, Watch
from outgrow.status import Snapshot, media_storages, snapshot


class Command(BaseCommand):
    """The `outgrow` command, with the site's settings."""

    help = "Look at the media servers, and make them equal to the master."
    requires_system_checks = ("files",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the words and their options."""
        parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
        media = parts.add_parser("media", help="uploaded files on the media servers")
        words = media.add_subparsers(dest="word", required=True, metavar="COMMAND")
        _add_repair(words.add_parser("repair", help="make every media server equal to the master"))
        _add_status(words.add_parser("status", help="show each media server and what it is owed"))

    def handle(self, *_: Any, **options: Any) -> None:
        """Run one word; exit with its code."""
        run: Callable[[dict[str, Any]], int] = {
            "repair": self.repair,
            "status": self.status,
        }[options["word"]]
        try:
            code = run(options)
        except OutgrowError as error:
            raise CommandError(str(error)) from error
        if code:
            sys.exit(code)

    # --- repair

    def repair(self, options: dict[str, Any]) -> int:
        """Run one pass, or one after the other."""
        storage = _storage(options["storage"])
        repair = Repair(storage.replication, only=_only(storage, options["server"]))
        storage.journal.prepare()
        if options["adopt"]:
            self._adopt(storage, options["server"])
        if options["dry_run"]:
            return self._show_plan(repair, as_json=options["json"])
        if options["watch"]:
            return self._watch(repair, options)
        with self._progress(storage, repair, quiet=options["json"]) as progress:
            report = repair.once(settle=not options["no_wait"], progress=progress)
        self._show_report(report, as_json=options["json"])
        return 0 if report.complete else 1

    def _adopt(self, storage: HybridStorage, servers: list[str]) -> None:
        """Let servers that lost the master's id be given it again, and everything else."""
        if not servers:
            raise CommandError("--adopt needs --server: say which server is meant to be empty.")
        for name in servers:
            storage.journal.set_claimed(name, claimed=False)

    def _show_plan(self, repair: Repair, *, as_json: bool) -> int:
        count = 0
        for name in repair.dead():
            count += 1
            self._line({"do": "take over", "name": name}, f"take over {name}", as_json)
        for action in repair.plan():
            count += action.verb is not Verb.WATCH
            where = ", ".join(action.servers)
            fact = {"do": action.verb.value, "name": action.name, "servers": list(action.servers)}
            self._line(fact, f"{action.verb.value:<7} {action.name}  on {where}", as_json)
        for server in repair.everything():
            count += 1
            fact = {"do": "compare everything", "servers": [server]}
            self._line(fact, f"compare everything on {server}", as_json)
        if not count and not as_json:
            self.stdout.write("Nothing is owed.")
        return 0

    def _line(self, fact: dict[str, Any], text: str, as_json: bool) -> None:
        self.stdout.write(json.dumps(fact) if as_json else text)

    @contextmanager
    def _progress(
        self, storage: HybridStorage, repair: Repair, *, quiet: bool
    ) -> Iterator[Callable[[str], None]]:
        """A bar on a terminal; elsewhere a line for every thousand names."""
        total = sum(storage.journal.summary(server.name)[0] for server in repair.servers)
        if quiet or not sys.stderr.isatty():
            yield _counter(self.stderr.write if not quiet else lambda _: None)
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("names"), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("repairing", total=total or None)
            yield lambda _: bar.advance(task)

    def _show_report(self, report: Report, *, as_json: bool) -> None:
        if as_json:
            facts = asdict(report)
            facts["errors"] = [
                {"server": server, "name": name, "reason": reason}
                for (server, name), reason in report.errors.items()
            ]
            self.stdout.write(json.dumps({**facts, "complete": report.complete}))
            return
        for line in _report_lines(report):
            self.stdout.write(line)

    def _watch(self, repair: Repair, options: dict[str, Any]) -> int:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())

        def tell(report: Report) -> None:
            if options["json"]:
                self._show_report(report, as_json=True)
                return
            for line in news.lines(report):
                self.stdout.write(line)
            self.stdout.flush()

        news = _News()
        self.stdout.write("Watching. A server that comes back is repaired by itself.")
        self.stdout.flush()
        Watch(repair, wait=stop.wait, interval=options["interval"]).run(tell)
        return 0

    # --- status

    def status(self, options: dict[str, Any]) -> int:
        """Show each server; with --check, exit 1 when someone is to be woken."""
        _storage(options["storage"])
        shot = snapshot(options["storage"], probe=True)
        problems = shot.problems(options["max_age"])
        if options["json"]:
            self.stdout.write(json.dumps({**shot.to_json(), "problems": problems}))
        else:
            self._show_status(shot)
            for problem in problems:
                self.stdout.write(self.style.WARNING(problem))
        return 1 if options["check"] and problems else 0

    def _show_status(self, shot: Snapshot) -> None:
        table = Table(title=f"Media servers of STORAGES[{shot.storage!r}]", title_justify="left")
        for heading in ("server", "state", "since", "owed", "watched", "oldest", "last error"):
            table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
        for one in shot.servers:
            state = "[green]up[/]" if one.up else "[red]down[/]"
            since = one.since.astimezone().strftime("%Y-%m-%d %H:%M:%S") if one.since else ""
            oldest = "" if one.oldest is None else f"{one.oldest:.0f} s"
            row = (one.name, state, since, str(one.owed), str(one.unknown), oldest)
            table.add_row(*row, escape(one.last_error))
        console = Console(file=self.stdout, no_color=self.style.SUCCESS("") == "")  # type: ignore[arg-type]
        console.print(table)
        for name in shot.retired:
            self.stdout.write(f"{name} has records and is not in the settings any more.")


_NUMBERS = ("owed", "watched", "oldest")


class _News:
    """What is worth a line in the log of a watch: what was done, and what changed."""

    def __init__(self) -> None:
        self._down: dict[str, str] = {}

    def lines(self, report: Report) -> Iterator[str]:
        for server in self._down.keys() - report.down.keys():
            yield f"{server} is up again"
        for server, reason in report.down.items():
            if server not in self._down:
                yield f"{server} is down: {reason}"
        self._down = dict(report.down)
        if report.put or report.deleted or report.taken_over:
            yield f"sent {report.put}, deleted {report.deleted}, still owed {report.still_owed}"
        for (server, name), reason in report.errors.items():
            yield f"{server} refuses {name}: {reason}"


def _report_lines(report: Report) -> Iterator[str]:
    yield f"sent {report.put}, deleted {report.deleted}, still owed {report.still_owed}"
    if report.taken_over:
        yield f"took over {report.taken_over} saves and deletes whose process had died"
    if report.watched:
        yield f"{report.watched} requests of unknown outcome are looked at again later"
    for server, reason in report.down.items():
        yield f"{server} was not repaired: {reason}"
    for (server, name), reason in report.errors.items():
        yield f"{server} refuses {name}: {reason}"
    for name in report.unheard:
        yield f"{name} is neither on the master nor deleted through Django; nothing was sent"
    for name in report.unsafe:
        yield f"{name!r} on the master is not sent: the name is not safe for web servers"
    if report.complete:
        yield "Every server equals the master, as far as it was owed anything."


def _counter(write: Callable[[str], Any]) -> Callable[[str], None]:
    seen = 0

    def count(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen % 1000 == 0:
            write(f"{seen} names")

    return count


def _storage(alias: str) -> HybridStorage:
    found = dict(media_storages())
    if alias in found:
        return found[alias]
    known = ", ".join(map(repr, found)) or "none"
    raise CommandError(
        f"STORAGES[{alias!r}] is not a media storage of Outgrow. There are: {known}. "
        "Choose one with --storage.",
        returncode=2,
    )


def _only(storage: HybridStorage, given: list[str]) -> list[str]:
    known = {server.name for server in storage.options.servers}
    for name in given:
        if name not in known:
            raise CommandError(
                f"There is no media server {name!r}. There are: {', '.join(sorted(known))}.",
                returncode=2,
            )
    return given


def _add_repair(parser: ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument(
        "--server", action="append", default=[], metavar="NAME", help="only this one; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, change nothing")
    parser.add_argument("--watch", action="store_true", help="go on until told to stop")
    parser.add_argument(
        "--interval",
        type=float,
        default=INTERVAL,
        metavar="S",
        help=f"seconds between the passes of --watch ({INTERVAL:g})",
    )
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help=f"do not wait up to {LOOKS[0]:g} s for requests of unknown outcome",
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="the servers of --server lost the master's id for a good reason, such as a new disk",
    )


def _add_status(parser: ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--check", action="store_true", help="exit 1 when something is wrong")
    parser.add_argument(
        "--max-age",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds for which a file may be owed before --check complains (600)",
    )


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--storage", default="default", metavar="ALIAS", help="which of STORAGES (default)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
