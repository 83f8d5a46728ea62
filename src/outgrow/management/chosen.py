"""Which storages and servers a command is for."""

from __future__ import annotations

from django.core.management.base import CommandError

from outgrow.media.base import Replicated
from outgrow.status import media_storages


def chosen(wanted: list[str]) -> list[tuple[str, Replicated]]:
    """The media storages that are asked for; all of them, if none is."""
    found = dict(media_storages())
    for alias in wanted:
        if alias not in found:
            raise CommandError(
                f"STORAGES[{alias!r}] is not a media storage of Outgrow. There are: "
                f"{', '.join(map(repr, found)) or 'none'}. Choose with --storage.",
                returncode=2,
            )
    if not found:
        raise CommandError("STORAGES has no media storage of Outgrow.", returncode=2)
    return [(alias, storage) for alias, storage in found.items() if not wanted or alias in wanted]


def only_one(wanted: list[str]) -> tuple[str, Replicated]:
    """The one media storage that is meant, with its alias.

    Raises `CommandError` when there are several.
    """
    found = chosen(wanted)
    if len(found) > 1:
        raise CommandError(
            f"There are several media storages: {', '.join(repr(alias) for alias, _ in found)}. "
            "Choose one with --storage.",
            returncode=2,
        )
    return found[0]


def refuse_unrecorded(alias: str, storage: Replicated, what: str, instead: str) -> None:
    """Raise `CommandError` for work that needs a journal, where there is none."""
    if storage.options.journal == "none":
        raise CommandError(
            f"{alias}: {what} needs a catalogue, and there is none (journal='none'): nothing says "
            f"what should be there. Nothing was changed. {instead}"
        )


def known_servers(storage: Replicated) -> set[str]:
    """The names of a storage's servers."""
    return {server.name for server in storage.options.servers}


def check_servers(storages: list[tuple[str, Replicated]], given: list[str]) -> None:
    """Raise `CommandError` for a name that is no server's."""
    known = {name for _, storage in storages for name in known_servers(storage)}
    for name in given:
        if name not in known:
            raise CommandError(
                f"There is no media server {name!r}. There are: {', '.join(sorted(known))}.",
                returncode=2,
            )
