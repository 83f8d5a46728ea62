"""`manage.py outgrow uploads clean`: direct uploads that nobody claimed."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from django.core.management.base import BaseCommand

from outgrow.management.buckets import chosen, size_text
from outgrow.objects.arrived import older_than

#: Hours after which nobody comes back to a form.
_OLD: Final = 24.0
_LEAST: Final = 2.0
_BATCH: Final = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """The word of `uploads`, and its options."""
    words = parser.add_subparsers(dest="word", required=True, metavar="COMMAND")
    word = words.add_parser("clean", help="remove what nobody claimed")
    word.add_argument(
        "--storage",
        action="append",
        default=[],
        metavar="ALIAS",
        help="which of STORAGES; repeatable (all object storages)",
    )
    word.add_argument(
        "--older-than",
        type=_hours,
        default=_OLD,
        metavar="HOURS",
        help=f"what arrived before ({_OLD:g}); at least {_LEAST:g}",
    )
    word.add_argument("--dry-run", action="store_true", help="print them, remove nothing")
    word.add_argument("--json", action="store_true", help="print JSON, for machines")


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0
    if not _LEAST <= hours < 1e6:
        raise ArgumentTypeError(f"{text!r} is not a number of hours from {_LEAST:g} on")
    return hours


def run(command: BaseCommand, options: dict[str, Any]) -> int:
    """Remove them, and say how many. Always 0: what can't be removed is an error."""
    for alias, storage in chosen(options["storage"]):
        count = size = 0
        # No copy of these is kept: they are no files of the site's.
        own = storage.plain(backup_bucket="") if storage.options.backup_bucket else storage
        found = older_than(storage, timedelta(hours=options["older_than"]))
        while batch := list(islice(found, _BATCH)):
            if not options["dry_run"]:
                own.delete_many(one.name for one in batch)
            count, size = count + len(batch), size + sum(one.size for one in batch)
            for one in batch if options["dry_run"] and not options["json"] else ():
                command.stdout.write(f"{one.modified:%Y-%m-%d %H:%M} {one.size:>13,} {one.name}")
        verb = "would be removed" if options["dry_run"] else "removed"
        if options["json"]:
            facts = {"storage": alias, "objects": count, "bytes": size}
            command.stdout.write(json.dumps({**facts, "removed": not options["dry_run"]}))
        else:
            command.stdout.write(f"{alias}: {count:,} objects {verb}, {size_text(size)}")
    return 0
