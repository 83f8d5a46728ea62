"""`manage.py outgrow media server add | drain | retire`: servers that come and go."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from outgrow.management.chosen import known_servers, only_one, refuse_unrecorded
from outgrow.management.progress import repairing, verifying
from outgrow.management.texts import report_lines
from outgrow.media.base import Replicated
from outgrow.media.repair import Repair, Report
from outgrow.media.verify import Verify
from outgrow.servers import Server

_BY_HAND = (
    "Copy the files of another server to a new one before it is in the option 'servers', and "
    "compare them with 'manage.py outgrow media verify'."
)


def add_arguments(parser: ArgumentParser) -> None:
    """The words behind `server`, and their options."""
    deeds = parser.add_subparsers(dest="deed", required=True, metavar="COMMAND")
    for deed, text in (
        ("add", "bring in a server that is new in the settings"),
        ("drain", "make sure that a server can be taken out of the settings"),
        ("retire", "forget a server that is in no list any more"),
    ):
        words = deeds.add_parser(deed, help=text)
        words.add_argument("name", metavar="SERVER", help="its name in the option 'servers'")
        words.add_argument(
            "--storage", action="append", default=[], metavar="ALIAS", help="which of STORAGES"
        )


def run(command: BaseCommand, options: dict[str, Any]) -> int:
    """Do it. 0 when it is done, 1 when something is in the way."""
    (alias, storage), name = only_one(options["storage"]), options["name"]
    refuse_unrecorded(alias, storage, f"'media server {options['deed']}'", _BY_HAND)
    storage.journal.prepare()
    deed = {"add": _add, "drain": _drain, "retire": _retire}[options["deed"]]
    return deed(command, storage, name)


def _add(command: BaseCommand, storage: Replicated, name: str) -> int:
    """Claim a server, and send it all that is there, while the site goes on writing."""
    server = _find(storage, name)
    problem = storage.transport.probe([server])[server]
    if problem is not None:
        raise CommandError(f"{problem}. Nothing was sent.")
    if not storage.journal.is_owed_all(name):
        storage.journal.owe_all(name)
    report = _repair(command, storage, [name])
    if not report.complete:
        command.stdout.write(f"{name} does not have everything yet. Run this again.")
        return 1
    command.stdout.write(
        f"{name} has every file. What is saved from now on reaches it by itself, or is owed to it, "
        "by processes with the older list of servers, too. Restart those."
    )
    return 0


def _drain(command: BaseCommand, storage: Replicated, name: str) -> int:
    """See to it that nothing is missing anywhere when this server goes."""
    server = _find(storage, name)
    others = [one.name for one in storage.transport.servers if one != server]
    needed = storage.options.need
    if len(others) < max(1, needed):
        raise CommandError(
            f"Without {name} there are {len(others)} servers, and a save needs {needed} "
            "(the option 'need'). Add another server first."
        )
    report = _repair(command, storage, others)
    if not report.complete:
        command.stdout.write(
            f"Not yet: the other servers are still owed something, and {name} may be the only one "
            "that has it. Run this again."
        )
        return 1
    with verifying(command.stderr.write, quiet=False) as progress:
        found = Verify(storage.replication, only=others).run(progress)
    if not found.equal:
        command.stdout.write(
            f"Not yet: the other servers are not as they should be, and {name} may be the only one "
            "that has what they lack. Run 'media verify', and mend that first."
        )
        return 1
    command.stdout.write(
        f"The other servers have every file. Take {name} out of the option 'servers', restart "
        f"every process of the site, and run: manage.py outgrow media server retire {name}"
    )
    return 0


def _retire(command: BaseCommand, storage: Replicated, name: str) -> int:
    """Forget what a server is owed that the site does not have any more."""
    if name in known_servers(storage):
        raise CommandError(
            f"{name!r} is still in the settings. Run 'media server drain {name}', take it out of "
            "the option 'servers', restart every process of the site, and retire it then.",
            returncode=2,
        )
    count = storage.journal.retire(name)
    if count is None:
        raise CommandError(f"The journal knows no server {name!r}.", returncode=2)
    command.stdout.write(f"{name} is forgotten, with the {count} records of what it was owed")
    return 0


def _find(storage: Replicated, name: str) -> Server:
    for server in storage.transport.servers:
        if server.name == name:
            return server
    raise CommandError(
        f"There is no server {name!r} in the settings of this process. Add it to the option "
        f"'servers', which has {', '.join(sorted(known_servers(storage)))}.",
        returncode=2,
    )


def _repair(command: BaseCommand, storage: Replicated, only: list[str]) -> Report:
    repair = Repair(storage.replication, only=only)
    with repairing(repair, command.stderr.write, quiet=False) as progress:
        report = repair.once(progress=progress)
    for line in report_lines(report):
        command.stdout.write(line)
    return report
