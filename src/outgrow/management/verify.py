"""`manage.py outgrow media verify`."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outgrow.management.chosen import check_servers, chosen, known_servers, refuse_unrecorded
from outgrow.management.progress import verifying
from outgrow.management.rates import rate
from outgrow.management.texts import report_lines
from outgrow.media.among import Among
from outgrow.media.base import Replicated
from outgrow.media.distributed import DistributedStorage
from outgrow.media.pace import Pace
from outgrow.media.repair import Repair, Report
from outgrow.media.verify import (
    CONTENT,
    EXTRA,
    GRACE,
    REMOVE_LIMIT,
    WRONG,
    Finding,
    Verdict,
    Verification,
    Verify,
)

#: Findings that are told to people; --json has more.
_TOLD: Final = 20

#: What can be done where nothing says which of several servers is right.
_DIFFER: Final = (
    "Where servers differ without a catalogue, somebody must decide: copy a file that you want to "
    "the servers that lack it, or delete it with 'manage.py outgrow media delete NAME'."
)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `verify`."""
    parser.add_argument(
        "--storage", action="append", default=[], metavar="ALIAS", help="which of STORAGES (all)"
    )
    parser.add_argument(
        "--server", action="append", default=[], metavar="NAME", help="only this one; repeatable"
    )
    parser.add_argument("--prefix", default="", help="only names that begin so")
    parser.add_argument("--digest", action="store_true", help="compare the bytes, too")
    parser.add_argument(
        "--sample", type=_count, metavar="N", help="compare the bytes of N files, chosen at random"
    )
    parser.add_argument(
        "--rate",
        type=rate,
        default=0.0,
        metavar="B",
        help="read at most so many bytes a second (20M)",
    )
    parser.add_argument("--repair", action="store_true", help="mend what is wrong")
    parser.add_argument(
        "--remove-extra",
        action="store_true",
        help=f"delete what nobody has heard of and is older than {GRACE / 3600:g} hours",
    )
    parser.add_argument(
        "--force", action="store_true", help="also where something speaks against it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a number of files")
    return int(text)


def run(command: BaseCommand, options: dict[str, Any]) -> int:
    """Compare, tell, and mend if asked to. 0 when nothing is wrong (any more) but what is owed."""
    if options["remove_extra"] and options["server"]:
        raise CommandError(
            "--remove-extra deletes a file on all servers, and can't be used with --server.",
            returncode=2,
        )
    storages = chosen(options["storage"])
    check_servers(storages, options["server"])
    wanted = set(options["server"])
    code = 0
    for alias, storage in storages:
        _refuse_unrecorded(alias, storage, options)
    for alias, storage in storages:
        if not wanted or known_servers(storage) & wanted:
            kind = _Among if storage.options.journal == "none" else _Run
            code |= kind(command, alias, storage, options).code()
    return code


def _refuse_unrecorded(alias: str, storage: Replicated, options: dict[str, Any]) -> None:
    """Where there is no catalogue, servers are compared, by names and sizes, and not mended."""
    for option in ("repair", "remove_extra", "digest", "sample"):
        if options[option]:
            words = f"'media verify --{option.replace('_', '-')}'"
            refuse_unrecorded(alias, storage, words, f"{_DIFFER} Leave the option out to compare.")


class _Run:
    """One storage, verified."""

    def __init__(
        self, command: BaseCommand, alias: str, storage: Replicated, options: dict[str, Any]
    ) -> None:
        self._command = command
        self._alias = alias
        self._options = options
        self._verify = Verify(
            storage.replication,
            only=options["server"],
            prefix=options["prefix"],
            digest=options["digest"],
            sample=options["sample"],
            pace=Pace(options["rate"]),
        )
        self._repair = Repair(storage.replication, only=options["server"])
        self._is_distributed = isinstance(storage, DistributedStorage)

    def code(self) -> int:
        """Compare, mend and tell; what to exit with."""
        self._verify.journal.prepare()
        quiet = self._options["json"]
        with verifying(self._command.stderr.write, quiet=quiet) as progress:
            found = self._verify.run(progress)
        extras = self._extras(found)
        report = self._mend(found, extras)
        if self._options["json"]:
            facts = {"storage": self._alias, **found.facts()}
            self._command.stdout.write(json.dumps(facts))
        else:
            self._tell(found, report)
        return 0 if found.equal or self._is_mended(found, report) else 1

    # --- mending

    def _extras(self, found: Verification) -> list[str]:
        """What is to be removed. Refuses too much before anything is changed."""
        if not self._options["remove_extra"]:
            return []
        if found.unreadable and not self._options["force"]:
            what = ", ".join(list(found.unreadable)[:5])
            raise CommandError(
                f"{self._alias}: nothing was removed, for not all could be read: {what}. "
                "What is missing on the master for that reason would be deleted everywhere."
            )
        extras = self._verify.extras(found, time.time())
        strange = self._verify.strange(extras)
        if strange and not self._options["force"]:
            raise CommandError(
                f"{self._alias}: nothing was removed, for the master has nothing at all in "
                f"{', '.join(strange)}. Is that mounted? Say --force if all of it is to go."
            )
        # Without a master there is no second look at what nobody has heard of.
        limit = 0 if self._is_distributed else REMOVE_LIMIT
        if len(extras) > limit and not self._options["force"]:
            where = "the database of the catalogue" if self._is_distributed else "MEDIA_ROOT"
            raise CommandError(
                f"{self._alias}: {len(extras)} files that nobody has heard of would be removed. "
                f"More than {limit} looks like a mistake: is {where} the right one, and whole? "
                "Look at the files (--json), and say --force if they are to go. "
                "Nothing was changed."
            )
        return extras

    def _mend(self, found: Verification, extras: list[str]) -> Report | None:
        self._verify.remove_extra(found, extras)
        if not self._options["repair"] or not self._verify.owe(found, force=self._options["force"]):
            return None
        return self._repair.once(settle=False)

    def _is_mended(self, found: Verification, report: Report | None) -> bool:
        """Whether all that was wrong was mended, as far as can be told without another look."""
        down = any(one.down for one in found.verdicts)
        suspect = found.suspect and not self._options["force"]
        if found.unreadable or found.unsafe or suspect or down:
            return False
        extra = {
            finding.name
            for verdict in found.verdicts
            for finding in verdict.findings
            if finding.what == EXTRA
        }
        if len(extra) > found.removed:
            return False
        if any(sum(one.counts.values()) > len(one.findings) for one in found.verdicts):
            return False  # more than are kept: the next run mends the next
        return not any(map(_mendable, found.verdicts)) or (report is not None and report.complete)

    # --- telling

    def _tell(self, found: Verification, report: Report | None) -> None:
        write = self._command.stdout.write
        _print_table(self._command, self._alias, found)
        for verdict in found.verdicts:
            for line in _verdict_lines(verdict):
                write(line)
        for name, reason in list(found.unreadable.items())[:_TOLD]:
            write(f"{name} can't be read: {reason}")
        for name in sorted(found.unsafe)[:_TOLD]:
            write(f"{name!r} on the master is not sent: the name is not safe for web servers")
        for name, why in list(found.suspect.items())[:_TOLD]:
            write(
                f"{name}: {why}. It is not mended. Look at it: if the master is at fault, copy the "
                "file back to it; if not, say --repair --force."
            )
        if found.removed:
            write(f"deleted {found.removed} files that nobody had heard of")
        for line in report_lines(report) if report is not None else ():
            write(line)
        write(self._last_word(found, report))

    def _last_word(self, found: Verification, report: Report | None) -> str:
        owed = sum(one.owed for one in found.verdicts)
        later = f" {owed} differences are owed, and mended by a repair pass." if owed else ""
        if found.equal:
            return "Every server has what it should." + later
        if self._is_mended(found, report):
            return "What was wrong is mended." + later
        if report is None and any(map(_mendable, found.verdicts)):
            return "To mend what is wrong, run this with --repair." + later
        if any(one.counts[EXTRA] for one in found.verdicts) and not self._options["remove_extra"]:
            return "To delete what nobody has heard of, run this with --remove-extra." + later
        return "Not all is well." + later


class _Among:
    """One storage without a catalogue: its servers, compared with each other."""

    def __init__(
        self, command: BaseCommand, alias: str, storage: Replicated, options: dict[str, Any]
    ) -> None:
        self._command = command
        self._alias = alias
        self._as_json = options["json"]
        self._among = Among(storage.transport, only=options["server"], prefix=options["prefix"])

    def code(self) -> int:
        """Compare, and tell; what to exit with."""
        with verifying(self._command.stderr.write, quiet=self._as_json) as progress:
            found = self._among.run(progress)
        write = self._command.stdout.write
        if self._as_json:
            write(json.dumps({"storage": self._alias, **found.facts()}))
            return 0 if found.equal else 1
        _print_table(self._command, self._alias, found)
        for verdict in found.verdicts:
            for line in _verdict_lines(verdict):
                write(line)
        write("The servers have the same files." if found.equal else _DIFFER)
        return 0 if found.equal else 1


def _print_table(command: BaseCommand, alias: str, found: Verification) -> None:
    plain = command.style.SUCCESS("") == ""
    console = Console(file=command.stdout, no_color=plain)  # type: ignore[arg-type]
    console.print(_table(alias, found))


def _mendable(verdict: Verdict) -> bool:
    return any(count for what, count in verdict.counts.items() if what != EXTRA)


def _table(alias: str, found: Verification) -> Table:
    table = Table(title=f"Media servers of STORAGES[{alias!r}]", title_justify="left")
    table.add_column("server")
    for heading in ("names", *WRONG, "owed", "hashed"):
        table.add_column(heading, justify="right")
    for one in found.verdicts:
        wrong = (_alarming(one.counts[what]) for what in WRONG)
        table.add_row(escape(one.server), str(one.compared), *wrong, str(one.owed), str(one.hashed))
    return table


def _alarming(count: int) -> str:
    return f"[red]{count}[/]" if count else "0"


def _verdict_lines(verdict: Verdict) -> Iterator[str]:
    if verdict.down:
        yield f"{verdict.server} was not verified: {verdict.down}"
    if not verdict.listed:
        yield (
            f"{verdict.server} has no listing, so each name was asked for, and files that nobody "
            "has heard of were not looked for"
        )
    for finding in verdict.findings[:_TOLD]:
        yield _finding_line(finding)
    more = sum(verdict.counts.values()) - len(verdict.findings[:_TOLD])
    if more:
        yield f"... and {more} more on {verdict.server}"


def _finding_line(finding: Finding) -> str:
    text = {
        "missing": "is not there",
        "different": f"has {finding.found} bytes, not {finding.wanted}",
        CONTENT: "has other bytes than the master",
        "undeleted": "was deleted, and is there",
        EXTRA: f"({finding.found} bytes) is there, and nobody has heard of it",
    }[finding.what]
    return f"{finding.server}: {finding.name} {text}"
