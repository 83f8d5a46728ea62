"""`manage.py outgrow media`: repair, verify, status, probe, delete, copy, server;
`outgrow buckets`, `outgrow uploads`, `outgrow publish`, and `outgrow databases`.

Exit codes, for cron and alerts: 0 when all is well, 1 when a server is still owed
something (repair), something is wrong (verify, status --check, probe, server) or was not
copied (copy), 2 for wrong usage.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, cast

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import Storage
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from outgrow.errors import OutgrowError
from outgrow.management import (
    arrivals,
    buckets,
    copies,
    databases,
    membership,
    probing,
    publishing,
    verify,
)
from outgrow.management.chosen import (
    check_servers,
    chosen,
    known_servers,
    only_one,
    refuse_unrecorded,
)
from outgrow.management.progress import repairing
from outgrow.management.rates import rate
from outgrow.management.texts import News, report_facts, report_lines, status_table
from outgrow.media.base import Replicated
from outgrow.media.journal import LOOKS
from outgrow.media.pace import Pace
from outgrow.media.repair import Repair, Report, Verb
from outgrow.media.replication import Replication
from outgrow.media.watch import INTERVAL, Watch
from outgrow.status import MAX_AGE, Snapshot, snapshot_of


class Command(BaseCommand):
    """The `outgrow` command, with the site's settings."""

    help = "Look at the media servers and databases, and make media servers equal to the master."
    requires_system_checks = ("files",)
    _several = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the words and their options."""
        parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
        media = parts.add_parser("media", help="uploaded files on the media servers")
        words = media.add_subparsers(dest="word", required=True, metavar="COMMAND")
        _add_repair(words.add_parser("repair", help="make every media server equal to the master"))
        verify.add_arguments(
            words.add_parser("verify", help="compare every server with the master")
        )
        _add_status(words.add_parser("status", help="show each media server and what it is owed"))
        _add_probe(words.add_parser("probe", help="try out what each media server really does"))
        _add_delete(words.add_parser("delete", help="delete files on the master and all servers"))
        copies.add_arguments(words.add_parser("copy", help="copy files to another storage"))
        membership.add_arguments(words.add_parser("server", help="add, drain or retire a server"))
        buckets.add_arguments(parts.add_parser("buckets", help="the buckets of object storages"))
        arrivals.add_arguments(parts.add_parser("uploads", help="uploads straight from browsers"))
        publishing.add_arguments(parts.add_parser("publish", help="the site's static files"))
        databases.add_arguments(parts.add_parser("databases", help="the primary and its replicas"))

    def handle(self, *_: Any, **options: Any) -> None:
        """Run one word; exit with its code."""
        words = {
            "buckets": self._buckets,
            "databases": self._databases,
            "media": self._media,
            "publish": self._publish,
            "uploads": self._uploads,
        }[options["part"]]
        try:
            code = words(options)
        except OutgrowError as error:
            raise CommandError(str(error)) from error
        if code:
            sys.exit(code)

    def _databases(self, options: dict[str, Any]) -> int:
        """See `outgrow.management.databases`."""
        return databases.run(self, options)

    def _buckets(self, options: dict[str, Any]) -> int:
        """See `outgrow.management.buckets`."""
        return buckets.run(self, options)

    def _publish(self, options: dict[str, Any]) -> int:
        """See `outgrow.management.publishing`."""
        return publishing.run(options)

    def _uploads(self, options: dict[str, Any]) -> int:
        """See `outgrow.management.arrivals`."""
        return arrivals.run(self, options)

    def _media(self, options: dict[str, Any]) -> int:
        run: Callable[[dict[str, Any]], int] = {
            "repair": self.repair,
            "verify": self.verify,
            "status": self.status,
            "probe": self.probe,
            "delete": self.delete,
            "copy": self.copy,
            "server": self.server,
        }[options["word"]]
        return run(options)

    # --- repair

    def repair(self, options: dict[str, Any]) -> int:
        """Run one pass, or one after the other, for each media storage."""
        storages = chosen(options["storage"])
        check_servers(storages, options["server"])
        if options["adopt"] and not options["server"]:
            raise CommandError("--adopt needs --server: say which server is meant to be empty.")
        for alias, storage in storages:
            _refuse_unrecorded(alias, storage, options)
        repairs = [
            (alias, Repair(_slowed(storage, options["rate"]), only=options["server"]))
            for alias, storage in storages
            if not options["server"] or known_servers(storage) & set(options["server"])
        ]
        self._several = len(repairs) > 1
        for _, repair in repairs:
            repair.journal.prepare()
        if options["dry_run"]:
            for alias, repair in repairs:
                self._show_plan(alias, repair, options)
            return 0
        for _, repair in repairs:
            self._prepare(repair, options)
        if options["watch"]:
            return self._watch(repairs, options)
        complete = [self._repair(alias, repair, options) for alias, repair in repairs]
        return 0 if all(complete) else 1

    def verify(self, options: dict[str, Any]) -> int:
        """Compare every server with the master: see `outgrow.management.verify`."""
        return verify.run(self, options)

    def server(self, options: dict[str, Any]) -> int:
        """Add, drain or retire one: see `outgrow.management.membership`."""
        return membership.run(self, options)

    def copy(self, options: dict[str, Any]) -> int:
        """Copy files from a storage to another: see `outgrow.management.copies`."""
        return copies.run(self, options)

    def _prepare(self, repair: Repair, options: dict[str, Any]) -> None:
        """What --adopt and --all ask for, before the pass."""
        for server in repair.servers:
            if options["adopt"]:
                repair.journal.set_claimed(server.name, claimed=False)
            if options["all"]:
                repair.journal.owe_all(server.name)

    def _repair(self, alias: str, repair: Repair, options: dict[str, Any]) -> bool:
        with repairing(repair, self.stderr.write, quiet=options["json"]) as progress:
            report = repair.once(settle=not options["no_wait"], progress=progress)
        if options["json"]:
            self._say(alias, json.dumps({"storage": alias, **report_facts(report)}), as_json=True)
        else:
            for line in report_lines(report):
                self._say(alias, line)
        return report.complete

    def _say(self, alias: str, line: str, *, as_json: bool = False) -> None:
        """One line; it names the storage where there are several."""
        self.stdout.write(f"{alias}: {line}" if self._several and not as_json else line)
        self.stdout.flush()

    def _show_plan(self, alias: str, repair: Repair, options: dict[str, Any]) -> None:
        count = 0
        for fact, text in _planned(repair, options):
            count += 1
            line = json.dumps({"storage": alias, **fact}) if options["json"] else text
            self._say(alias, line, as_json=options["json"])
        if not count and not options["json"]:
            self._say(alias, "Nothing is owed.")

    def _watch(self, repairs: list[tuple[str, Repair]], options: dict[str, Any]) -> int:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if not options["json"]:
            self.stdout.write("Watching. A server that comes back is repaired by itself.")
            self.stdout.flush()
        with ThreadPoolExecutor(len(repairs)) as pool:
            watches = [
                pool.submit(self._watch_one, alias, repair, stop, options)
                for alias, repair in repairs
            ]
            # One that ends by itself (the journal is too new) ends the others.
            wait(watches, return_when=FIRST_COMPLETED)
            stop.set()
        for watch in watches:
            watch.result()
        return 0

    def _watch_one(
        self, alias: str, repair: Repair, stop: threading.Event, options: dict[str, Any]
    ) -> None:
        news = News()

        def told(report: Report) -> None:
            if options["json"]:
                line = json.dumps({"storage": alias, **report_facts(report)})
                self._say(alias, line, as_json=True)
                return
            for line in news.lines(report):
                self._say(alias, line)

        def broken(error: OSError) -> None:
            self.stderr.write(f"{alias}: this pass broke off, the next will try again: {error}")

        Watch(repair, wait=stop.wait, stopped=stop.is_set, interval=options["interval"]).run(
            told, broken
        )

    # --- status

    def status(self, options: dict[str, Any]) -> int:
        """Show each server; with --check, exit 1 when someone is to be woken."""
        code = 0
        for alias, storage in chosen(options["storage"]):
            shot = snapshot_of(alias, storage, probe=True)
            problems = shot.problems(options["max_age"])
            if options["json"]:
                self.stdout.write(json.dumps({**shot.to_json(), "problems": problems}))
            else:
                self._show_status(shot)
                for problem in problems:
                    self.stdout.write(self.style.WARNING(problem))
            code |= bool(options["check"] and problems)
        return code

    def _show_status(self, shot: Snapshot) -> None:
        console = Console(file=self.stdout, no_color=self.style.SUCCESS("") == "")  # type: ignore[arg-type]
        console.print(status_table(shot))
        if shot.oldest_change is not None:
            self.stdout.write(
                f"{shot.in_progress} saves and deletes are on their way to the servers, the first "
                f"for {shot.oldest_change:.0f} s."
            )
        for name in shot.retired:
            self.stdout.write(
                f"{name} has records and is not in the settings any more. When no process has it "
                f"in its list, run: manage.py outgrow media server retire {name}"
            )

    # --- probe

    def probe(self, options: dict[str, Any]) -> int:
        """Try each server out, with files that are removed again."""
        storages = chosen(options["storage"])
        check_servers(storages, options["server"])
        return probing.run(storages, options, self.stdout, self.stderr)

    # --- files and servers

    def delete(self, options: dict[str, Any]) -> int:
        """Delete files, also those that the master has not (any more)."""
        _, storage = only_one(options["storage"])
        for name in options["name"]:
            try:
                cast("Storage", storage).delete(name)
            except SuspiciousFileOperation as error:
                raise CommandError(str(error), returncode=2) from error
            self.stdout.write(f"{name} is deleted, or owed for deletion where a server is down")
        return 0


def _refuse_unrecorded(alias: str, storage: Replicated, options: dict[str, Any]) -> None:
    """Nobody is to believe that a server has everything because nothing was compared."""
    for option, instead in (
        ("all", "'manage.py outgrow media verify' compares the servers with each other"),
        ("adopt", "A server that has lost its files is taken for a new one by the next process"),
    ):
        if options[option]:
            words = f"'media repair --{option}'"
            more = f"{instead}. Choose other storages with --storage."
            refuse_unrecorded(alias, storage, words, more)


def _slowed(storage: Replicated, rate: float) -> Replication:
    """How files are sent, at so many bytes a second; 0 is as fast as can be."""
    return storage.replication.at(Pace(rate)) if rate else storage.replication


def _planned(repair: Repair, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """What a pass would do: each for machines and for people."""
    for server in repair.servers if options["adopt"] else ():
        yield {"do": "adopt", "servers": [server.name]}, f"adopt {server.name}"
    for name in repair.dead():
        yield {"do": "take over", "name": name}, f"take over {name}"
    for action in repair.plan():
        if action.verb is not Verb.WATCH:
            servers = list(action.servers)
            fact = {"do": action.verb.value, "name": action.name, "servers": servers}
            yield fact, f"{action.verb.value:<7} {action.name}  on {', '.join(servers)}"
    everything = repair.everything()
    if options["all"] or options["adopt"]:
        everything = [server.name for server in repair.servers]
    for name in everything:
        yield {"do": "compare everything", "servers": [name]}, f"compare everything on {name}"


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
        "--rate",
        type=rate,
        default=0.0,
        metavar="B",
        help="send at most so many bytes a second (20M)",
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
    parser.add_argument(
        "--all",
        action="store_true",
        help="compare every file, also on servers that are owed nothing",
    )


def _add_status(parser: ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--check", action="store_true", help="exit 1 when something is wrong")
    parser.add_argument(
        "--max-age",
        type=float,
        default=MAX_AGE,
        metavar="S",
        help=f"seconds for which a file may be owed before --check complains ({MAX_AGE:g})",
    )


def _add_probe(parser: ArgumentParser) -> None:
    _add_common(parser)
    probing.add_arguments(parser)


def _add_delete(parser: ArgumentParser) -> None:
    _add_storage(parser)
    parser.add_argument("name", nargs="+", metavar="FILE", help="as the database has it")


def _add_common(parser: ArgumentParser) -> None:
    _add_storage(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _add_storage(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--storage",
        action="append",
        default=[],
        metavar="ALIAS",
        help="which of STORAGES; repeatable (all media storages)",
    )
