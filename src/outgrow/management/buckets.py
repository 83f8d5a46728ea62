"""`manage.py outgrow buckets`: the buckets of the site's object storages.

Exit codes: 0; 1 when a check is bad, a bucket is not as it is to be, or uploads are left; 2 for
wrong usage.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, cast

from django.core.files.storage import storages
from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat
from rich.console import Console

from outgrow import conf
from outgrow.findings import Finding, Result
from outgrow.management.progress import deleting
from outgrow.management.texts import finding_lines, findings_table, remedy_lines
from outgrow.objects import ObjectStorage
from outgrow.objects.administration import Administration, Leftover, wanted
from outgrow.objects.bucket import Change, Part, plan
from outgrow.objects.examination import examine

#: Files that are deleted with one request, where the store knows such.
_BATCH: Final = 1000

_NEVER: Final = datetime.max.replace(tzinfo=UTC)

#: Hours after which an upload is taken for one that nobody will end.
_OLD: Final = 24.0


def add_arguments(parser: ArgumentParser) -> None:
    """The words of `buckets`, and their options."""
    words = parser.add_subparsers(dest="word", required=True, metavar="COMMAND")
    for name, text in (
        ("check", "try out what the store really does"),
        ("create", "make the buckets that are missing"),
        ("plan", "show what the options ask for, and the buckets have not"),
        ("apply", "set the buckets up as the options ask"),
        ("ls", "list the files"),
        ("empty", "delete all files of a storage"),
        ("leftovers", "find uploads that nobody ended, and what they take"),
    ):
        word = words.add_parser(name, help=text)
        word.add_argument(
            "--storage",
            action="append",
            default=[],
            metavar="ALIAS",
            help="which of STORAGES; repeatable (all object storages)",
        )
        word.add_argument("--json", action="store_true", help="print JSON, for machines")
        if name in {"apply", "empty"}:
            word.add_argument("--dry-run", action="store_true", help="change nothing")
        if name in {"ls", "empty"}:
            word.add_argument("--prefix", default="", help="only names that begin so")
        if name == "empty":
            word.add_argument("--yes", action="store_true", help="do not ask")
        if name == "leftovers":
            word.add_argument(
                "--older-than",
                type=_hours,
                default=_OLD,
                metavar="HOURS",
                help=f"only those that were begun before ({_OLD:g}); 0 for all",
            )
            word.add_argument("--abort", action="store_true", help="give them up")


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1
    if not 0 <= hours < 1e6:
        raise ArgumentTypeError(f"{text!r} is not a number of hours")
    return hours


def run(command: BaseCommand, options: dict[str, Any]) -> int:
    """Run one word for each storage; the worst of their exit codes."""
    word: Callable[[_Bucket], int] = {
        "check": _Bucket.check,
        "create": _Bucket.create,
        "plan": _Bucket.plan,
        "apply": _Bucket.apply,
        "ls": _Bucket.ls,
        "empty": _Bucket.empty,
        "leftovers": _Bucket.leftovers,
    }[options["word"]]
    found = chosen(options["storage"])
    if options["word"] == "empty" and len(found) > 1:
        names = ", ".join(alias for alias, _ in found)
        raise CommandError(f"Choose one with --storage: {names}.", returncode=2)
    several = len(found) > 1
    return max(word(_Bucket(command, alias, one, options, several)) for alias, one in found)


def chosen(asked: list[str]) -> list[tuple[str, ObjectStorage]]:
    """The object storages that are asked for; all of them, if none is."""
    known = [alias for alias, _, _ in conf.storages_of(ObjectStorage)]
    for alias in asked:
        if alias not in known:
            raise CommandError(
                f"STORAGES[{alias!r}] is not an object storage. There are: "
                f"{', '.join(map(repr, known)) or 'none'}.",
                returncode=2,
            )
    if not known:
        raise CommandError("STORAGES has no object storage.", returncode=2)
    chosen = [alias for alias in known if not asked or alias in asked]
    return [(alias, cast("ObjectStorage", storages[alias])) for alias in chosen]


class _Bucket:
    """One storage's bucket, and what is said of it."""

    def __init__(
        self,
        command: BaseCommand,
        alias: str,
        storage: ObjectStorage,
        options: dict[str, Any],
        several: bool,
    ) -> None:
        self._out = command.stdout
        self._err = command.stderr
        self._alias = alias
        self._storage = storage
        self._options = options
        self._start = f"{alias}: " if several else ""

    def _say(self, line: str) -> None:
        if not self._options["json"]:
            self._out.write(f"{self._start}{line}")

    def _fact(self, **facts: Any) -> None:
        if self._options["json"]:
            self._out.write(json.dumps({"storage": self._alias, **facts}))

    # --- check

    def check(self) -> int:
        """Try it out."""
        found: list[Finding] = []
        try:
            examine(self._storage, found.append)
        finally:
            self._show(found)
        return int(any(one.result is Result.BAD for one in found))

    def _show(self, found: list[Finding]) -> None:
        if self._options["json"]:
            self._fact(findings=[asdict(one) for one in found])
        elif self._out.isatty():
            console = Console(file=self._out, no_color=self._options["no_color"])  # type: ignore[arg-type]
            console.print(findings_table(f"{self._alias}  {self._storage.server}", found))
            for line in remedy_lines(found):
                self._out.write(line)
        else:
            for line in finding_lines(found):
                self._out.write(line)

    # --- set up

    def _planned(self) -> tuple[Administration, list[Change]]:
        administration = Administration(self._storage.options)
        asked = wanted(self._storage.options)
        found = administration.look(asked.parts)
        return administration, plan(asked, found)

    def create(self) -> int:
        """Make the bucket, if it is missing."""
        administration, changes = self._planned()
        if missing := [change for change in changes if change.part is Part.BUCKET]:
            administration.apply(missing[0])
        done = "made" if missing else "there already"
        self._say(f"{self._storage.server} is {done}")
        self._fact(made=bool(missing))
        return 0

    def plan(self) -> int:
        """Show what is to be changed; 1 when there is something."""
        _, changes = self._planned()
        self._tell(changes)
        return int(bool(changes))

    def apply(self) -> int:
        """Change it; 1 when the engine does not know a part."""
        administration, changes = self._planned()
        if self._options["dry_run"]:
            self._tell(changes)
            return 0
        if changes and changes[0].part is Part.BUCKET:
            administration.apply(changes[0])
            self._told(changes[0], "")
            _, changes = self._planned()
        refused = False
        for change in changes:
            reason = change.refused or administration.apply(change)
            self._told(change, reason)
            refused |= bool(reason)
        if not changes:
            self._say(f"{self._storage.server} is as it is to be")
        return int(refused)

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            self._told(change, change.refused)
        if not changes:
            self._say(f"{self._storage.server} is as it is to be")

    def _told(self, change: Change, refused: str) -> None:
        text = f"not known here ({refused}): {change.text}" if refused else change.text
        self._say(f"{change.part.value:<10} {text}")
        self._fact(part=change.part.value, text=change.text, refused=refused)

    # --- files

    def _names(self) -> Iterator[tuple[str, int, datetime]]:
        prefix = self._options["prefix"]
        found = self._storage.walk(prefix.rpartition("/")[0])
        return (one for one in found if one[0].startswith(prefix))

    def ls(self) -> int:
        """List the files, and how much they are."""
        count = total = 0
        for name, size, at in self._names():
            count, total = count + 1, total + size
            when = at.astimezone().strftime("%Y-%m-%d %H:%M")
            self._say(f"{when} {size:>13,} {name}")
            self._fact(name=name, size=size, modified=at.isoformat())
        self._say(f"{count:,} files, {size_text(total)}")
        return 0

    def empty(self) -> int:
        """Delete every file below the storage's location."""
        count = sum(1 for _ in self._names())
        where = f"of {self._storage.server}"
        if prefix := self._options["prefix"]:
            where += f" whose names begin with {prefix!r}"
        if self._options["dry_run"] or not count:
            self._say(f"{count:,} files {where} would be deleted" if count else "no file is there")
            self._fact(files=count, deleted=0)
            return 0
        if not self._options["yes"]:
            question = f"Delete all {count:,} files {where}? Type the alias {self._alias!r}: "
            _ask(question, self._alias)
        names = (name for name, _, _ in self._names())
        deleted = 0
        with deleting(count, self._err.write, quiet=self._options["json"]) as told:
            while batch := list(islice(names, _BATCH)):
                self._storage.delete_many(batch)
                deleted += len(batch)
                told(len(batch))
        self._say(f"{deleted:,} files deleted")
        self._fact(files=count, deleted=deleted)
        return 0

    # --- uploads that nobody ended

    def leftovers(self) -> int:
        """Find them, and give them up if asked to; 1 when some are left."""
        administration = Administration(self._storage.options)
        # Times come in whole seconds, rounded up by some: all means those of this second, too.
        hours = self._options["older_than"]
        before = datetime.now(UTC) - timedelta(hours=hours) if hours else _NEVER
        count = total = 0
        for one in administration.leftovers():
            if one.begun > before:
                continue
            count, total = count + 1, total + one.size
            if self._options["abort"]:
                administration.abort(one)
            self._tell_leftover(one)
        verb = "given up" if self._options["abort"] else "left"
        self._say(f"{count:,} uploads {verb}, {size_text(total)}")
        return int(count > 0 and not self._options["abort"])

    def _tell_leftover(self, one: Leftover) -> None:
        begun = one.begun.astimezone().strftime("%Y-%m-%d %H:%M")
        self._say(f"{begun} {one.size:>13,} {one.key} ({one.parts} parts)")
        aborted = self._options["abort"]
        self._fact(**{**asdict(one), "begun": one.begun.isoformat()}, aborted=aborted)


def size_text(count: int) -> str:
    """Bytes, for people."""
    return filesizeformat(count).replace("\xa0", " ")


def _ask(question: str, answer: str) -> None:
    try:
        given = input(question)
    except EOFError as error:
        text = "Nobody is there to be asked. Nothing was changed. Say --yes if it is meant."
        raise CommandError(text, returncode=2) from error
    if given.strip() != answer:
        raise CommandError("Nothing was changed.")
