"""`manage.py outgrow media copy`: every file of one storage, to another."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage, storages
from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat

from outgrow import conf
from outgrow.management.progress import comparing, copying
from outgrow.management.rates import rate
from outgrow.moving.copying import THREADS, Copy, Done, Plan, Report, state_folder
from outgrow.moving.places import identity
from outgrow.moving.plan import Verb
from outgrow.moving.storages import MovingStorage
from outgrow.moving.unfinished import Unfinished

#: Failures that are told to people; --json has more.
_TOLD: Final = 10


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `copy`."""
    for name, what in (("from", "the storage that has them"), ("to", "the one that gets them")):
        parser.add_argument(
            f"--{name}",
            dest=f"{name}_alias",
            required=True,
            metavar="ALIAS",
            help=f"{what}, one of STORAGES",
        )
    parser.add_argument("--prefix", default="", help="only names that begin so")
    parser.add_argument(
        "--verify", action="store_true", help="compare the bytes of what both have, and of copies"
    )
    parser.add_argument(
        "--delete-extra", action="store_true", help="delete what only the storage of --to has"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, change nothing")
    parser.add_argument(
        "--threads",
        type=_threads,
        default=THREADS,
        metavar="N",
        help=f"files that are copied at a time ({THREADS})",
    )
    parser.add_argument(
        "--rate",
        type=rate,
        default=0.0,
        metavar="B",
        help="copy at most so many bytes a second (20M)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FOLDER",
        help="where a note of unfinished work is kept (~/.local/state/outgrow)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise ArgumentTypeError(f"{text!r} is not a number of files at a time, from 1 to 64")
    return int(text)


def run(command: BaseCommand, options: dict[str, Any]) -> int:
    """Compare, copy, tell. 0 when the target has everything, 1 when something failed."""
    source, target = _storage(options["from_alias"]), _storage(options["to_alias"])
    _check(options)
    aliases = (options["from_alias"], options["to_alias"])
    facts = map(identity, aliases, (source, target))
    unfinished = Unfinished(state_folder(_state(options), *facts))
    run = _Run(command, options, source, target, unfinished)
    if options["dry_run"]:
        return run.show()
    with _alone(unfinished):
        return run.copy()


def _storage(alias: str) -> Storage:
    if alias not in conf.storages():
        known = ", ".join(sorted(conf.storages()))
        raise CommandError(f"STORAGES has no {alias!r}. There are: {known}.", returncode=2)
    try:
        storage = storages[alias]
    except ImproperlyConfigured as error:
        raise CommandError(f"STORAGES[{alias!r}]: {error}", returncode=2) from error
    if isinstance(storage, MovingStorage):
        both = f"--from {storage.options.source} --to {storage.options.to}"
        raise CommandError(
            f"STORAGES[{alias!r}] is two storages. Name those that files move between: {both}",
            returncode=2,
        )
    return storage


def _check(options: dict[str, Any]) -> None:
    source, target = options["from_alias"], options["to_alias"]
    if source == target:
        raise CommandError(f"--from and --to are both {source!r}.", returncode=2)
    if not options["delete_extra"]:
        return
    for alias, entry, _ in conf.storages_of(MovingStorage):
        if entry.get("OPTIONS", {}).get("to") == target:
            raise CommandError(
                f"--delete-extra would delete new files: STORAGES[{alias!r}] saves them to "
                f"{target!r} alone. Leave the option out. Nothing was changed.",
                returncode=2,
            )


def _state(options: dict[str, Any]) -> Path:
    """The folder for notes. XDG's base directory specification names the default one."""
    if options["state"] is not None:
        return Path(options["state"])
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        text = f"This user has no home folder ({error}): say where notes can be kept, --state."
        raise CommandError(text, returncode=2) from error
    return Path(home) / "outgrow"


@contextmanager
def _alone(unfinished: Unfinished) -> Iterator[None]:
    try:
        unfinished.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CommandError(
            f"Notes of unfinished work can't be kept in {unfinished.folder}: {error.strerror}. "
            "Choose another folder with --state, and the same one each time.",
            returncode=2,
        ) from error
    with unfinished.alone():
        yield


@contextmanager
def _stopped_by_signals(copy: Copy) -> Iterator[None]:
    """End it tidily on SIGTERM and SIGINT: what was begun is ended."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield  # who calls the command from a thread has signals of his own
        return
    before = [signal.signal(number, lambda *_: copy.stop()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Run:
    """One copy, told to people or to machines."""

    def __init__(
        self,
        command: BaseCommand,
        options: dict[str, Any],
        source: Storage,
        target: Storage,
        unfinished: Unfinished,
    ) -> None:
        self._command = command
        self._options = options
        self._advance: Callable[[int], None] = _nobody
        self._copy = Copy(
            source,
            target,
            unfinished,
            prefix=options["prefix"],
            verify=options["verify"],
            delete_extra=options["delete_extra"],
            threads=options["threads"],
            rate=options["rate"],
            told=self._told,
        )

    def _told(self, done: Done) -> None:
        self._advance(done.size)

    def _say(self, line: str) -> None:
        if not self._options["json"]:
            self._command.stdout.write(line)

    @contextmanager
    def _planned(self) -> Iterator[Plan]:
        with ExitStack() as stack:
            with comparing(self._command.stderr.write, quiet=self._options["json"]) as seen:
                plan = stack.enter_context(self._copy.planned(seen))
            yield plan

    # --- the plan

    def show(self) -> int:
        """Print it."""
        with self._planned() as plan:
            for action in plan:
                if self._options["json"]:
                    size = None if action.size < 0 else action.size
                    fact = {"do": action.verb.value, "name": action.name, "size": size}
                    self._command.stdout.write(json.dumps(fact))
                elif action.verb is not Verb.EXTRA or self._options["delete_extra"]:
                    verb = "delete" if action.verb is Verb.EXTRA else action.verb.value
                    self._say(f"{verb:<7} {action.name}")
            self._say(self._summary(plan))
        return self._end(plan)

    def _summary(self, plan: Plan) -> str:
        counts = plan.counts
        size = filesizeformat(plan.bytes).replace("\xa0", " ")
        words = [f"{plan.listed:,} files at the source: {counts[Verb.COPY]:,} to copy"]
        words += [f"{counts[Verb.COMPARE]:,} to compare"] if counts[Verb.COMPARE] else []
        words += [f"{counts[Verb.REPLACE]:,} differ"] if counts[Verb.REPLACE] else []
        return f"{', '.join(words)} ({size}), {plan.same:,} are there."

    # --- the copy

    def copy(self) -> int:
        """Carry it out."""
        self._copy.settle()
        with _stopped_by_signals(self._copy), self._planned() as plan:
            self._refuse_empty(plan)
            self._say(self._summary(plan))
            begun = time.monotonic()
            with copying(
                len(plan), plan.bytes, self._command.stderr.write, quiet=self._options["json"]
            ) as self._advance:
                report = self._copy.apply(plan)
            self._tell(report, time.monotonic() - begun)
            return self._end(plan)

    def _refuse_empty(self, plan: Plan) -> None:
        if self._options["delete_extra"] and not plan.listed and plan.counts[Verb.EXTRA]:
            raise CommandError(
                f"{self._options['from_alias']!r} has no file "
                f"{self._of_prefix()}, and --delete-extra would delete all "
                f"{plan.counts[Verb.EXTRA]:,} of {self._options['to_alias']!r}. Nothing was "
                "changed. If that is meant, empty it by other means."
            )

    def _of_prefix(self) -> str:
        prefix = self._options["prefix"]
        return f"whose name begins with {prefix!r}" if prefix else "at all"

    def _tell(self, report: Report, seconds: float) -> None:
        counts = report.counts
        size = filesizeformat(report.bytes).replace("\xa0", " ")
        words = [f"copied {counts['copied']:,} ({size} in {seconds:.0f} s)"]
        words += [
            f"{text} {counts[what]:,}"
            for what, text in _WORDS.items()
            if counts[what] and what != "copied"
        ]
        self._say(", ".join(words))
        for failure in report.failures[:_TOLD]:
            self._say(f"  {failure.name}: {failure.reason}")
        more = counts["failed"] + counts["conflict"] - _TOLD
        if more > 0:
            self._say(f"  ... and {more:,} more; --json has up to {len(report.failures):,}")

    def _end(self, plan: Plan) -> int:
        """The last words, and the exit code."""
        report, options = self._copy.report, self._options
        if options["json"] and not options["dry_run"]:
            self._command.stdout.write(json.dumps(_facts(report, options)))
        if report.stopped:
            self._say(f"Not all was done: {report.stopped}. The same command goes on.")
        elif not plan.listed:
            self._say(f"{options['from_alias']!r} has no file {self._of_prefix()}.")
        elif report.is_complete and not options["dry_run"]:
            has = f"{options['to_alias']!r} has everything that {options['from_alias']!r} has"
            self._say(f"{has}.")
        return 0 if report.is_complete else 1


def _nobody(size: int) -> None:
    """Nobody looks on before the copy begins."""


#: What became of names, for people.
_WORDS: Final = {
    "copied": "copied",
    "replaced": "replaced older ones",
    "same": "already there",
    "newer": "left alone, for the target's is newer,",
    "gone": "deleted at the source meanwhile",
    "extra": "only at the target",
    "deleted": "deleted at the target",
    "conflict": "differ",
    "failed": "failed",
}


def _facts(report: Report, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "from": options["from_alias"],
        "to": options["to_alias"],
        **{word: report.counts[word] for word in _WORDS},
        "bytes": report.bytes,
        "complete": report.is_complete,
        "stopped": report.stopped,
        "failures": [
            {"name": one.name, "what": one.what, "reason": one.reason} for one in report.failures
        ],
    }
