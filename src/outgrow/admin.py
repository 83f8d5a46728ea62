"""The page "Media servers" of Django's admin: what `media status` shows, and "Repair now".

Whoever has the permission ``outgrow.view_mediaserver`` sees the page; the button needs
``outgrow.repair_media``, too. The page is read from `outgrow.status` and changes nothing.

The laws of "Repair now":

1. It begins no file after `REPAIR_FOR` seconds, and gives none more than `FILE_FOR`, so that
   the request ends before servers of applications lose their patience. What is left is
   left to the watch, and a process that is killed in the middle has done no harm.
2. It runs outside of the site's transactions: in one of them it could see the site as it
   was when the transaction began, and take a file that was just saved for one that never
   was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from outgrow import conf
from outgrow.errors import ConfigurationError, OutgrowError
from outgrow.management.texts import duration, report_lines
from outgrow.media.base import Replicated
from outgrow.media.repair import Repair, Report
from outgrow.models import MediaServer
from outgrow.status import MAX_AGE, ServerStatus, Snapshot, media_storages, snapshot_of

if TYPE_CHECKING:
    Base = admin.ModelAdmin[MediaServer]
else:
    Base = admin.ModelAdmin

#: Seconds after which "Repair now" begins no other file, and that one file may take.
REPAIR_FOR: Final = 10.0
FILE_FOR: Final = 10.0

#: Lines of a report that are shown; messages may have to fit into a cookie.
SHOWN: Final = 10

#: A server's state, with its icon in Django's admin.
_UP: Final = ("up", "admin/img/icon-yes.svg")
_DOWN: Final = ("down", "admin/img/icon-no.svg")
_FOREIGN: Final = ("not written to", "admin/img/icon-alert.svg")


@dataclass(frozen=True, slots=True)
class Row:
    """One server, as the page shows it."""

    server: ServerStatus
    state: str
    icon: str
    since: datetime | None
    owed: str
    oldest: str


@dataclass(frozen=True, slots=True)
class Section:
    """One storage, as the page shows it; or the `error` for which nothing is known of it."""

    alias: str
    shot: Snapshot | None = None
    rows: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    watched: str = ""
    error: str = ""


@admin.register(MediaServer)
class MediaServerAdmin(Base):
    """Shows every media server, and repairs them on request. Changes no row of any table."""

    change_list_template = "admin/outgrow/mediaserver/change_list.html"

    def get_urls(self) -> list[URLPattern]:
        """The page, and where its button leads."""
        show = self.admin_site.admin_view(self.changelist_view)
        repair = self.admin_site.admin_view(self.repair_view)
        for alias in conf.databases():  # law 2, for sites with ATOMIC_REQUESTS
            repair = transaction.non_atomic_requests(alias)(repair)
        return [
            path("", show, name="outgrow_mediaserver_changelist"),
            path("repair/", repair, name="outgrow_mediaserver_repair"),
        ]

    # --- who may

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody: the settings say which servers there are."""
        return False

    def has_change_permission(
        self,
        request: HttpRequest,  # noqa: ARG002
        obj: MediaServer | None = None,  # noqa: ARG002
    ) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(
        self,
        request: HttpRequest,  # noqa: ARG002
        obj: MediaServer | None = None,  # noqa: ARG002
    ) -> bool:
        """Nobody."""
        return False

    def has_repair_permission(self, request: HttpRequest) -> bool:
        """Whether the user may press the button."""
        may = self.has_view_permission(request)
        return may and request.user.has_perm("outgrow.repair_media")

    # --- the views

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page. Asks the servers themselves only where no watch is running."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Media servers",
            "opts": self.opts,
            "sections": [_section(alias, storage) for alias, storage in media_storages()],
            "may_repair": self.has_repair_permission(request),
            "repair_url": self._url("repair"),
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.change_list_template, context)

    def repair_view(self, request: HttpRequest) -> HttpResponse:
        """One pass over the storage that is named in the form, and back to the page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_repair_permission(request):
            raise PermissionDenied
        alias = request.POST.get("storage", "")
        storage = dict(media_storages()).get(alias)
        if storage is None:
            messages.error(request, f"There is no media storage {alias!r}.")
        else:
            self._repair(request, alias, storage)
        return HttpResponseRedirect(self._url("changelist"))

    def _repair(self, request: HttpRequest, alias: str, storage: Replicated) -> None:
        try:
            report, left = repair_a_while(storage)
        except (OutgrowError, OSError) as error:
            messages.error(request, f"Storage {alias}: {error}")
            return
        level = messages.SUCCESS if report.complete else messages.WARNING
        lines = list(_lines(report, left=left))
        for line in lines:
            messages.add_message(request, level, f"Storage {alias}: {line}")
        LogEntry.objects.create(
            user_id=cast("int", request.user.pk),
            content_type=ContentType.objects.get_for_model(MediaServer, for_concrete_model=False),
            object_repr=alias[:200],
            action_flag=CHANGE,
            change_message=f"Repair now: {lines[0]}",
        )

    def _url(self, view: str) -> str:
        return reverse(f"admin:outgrow_mediaserver_{view}", current_app=self.admin_site.name)


def repair_a_while(storage: Replicated, *, seconds: float = REPAIR_FOR) -> tuple[Report, bool]:
    """One pass that begins no file after so many seconds; whether something was left (law 1).

    Raises `MasterError`, `CatalogueUnavailable` or another `OSError` when the journal can't
    be used, and `ConfigurationError` in a transaction of the site (law 2).
    """
    using = storage.options.using
    if storage.uses_database and connections[using].in_atomic_block:
        raise ConfigurationError(
            f"DATABASES[{using!r}]",
            "is in a transaction, in which files that were just saved may not be seen.",
            "Let no middleware open one for this page; or run 'manage.py outgrow media repair'.",
        )
    end = time.monotonic() + seconds
    left = False

    def go_on() -> bool:
        nonlocal left
        left = time.monotonic() >= end
        return not left

    storage.journal.prepare()
    repair = Repair(storage.replication.within(FILE_FOR))
    report = repair.once(settle=False, sweep=False, go_on=go_on)
    return report, left


def _lines(report: Report, *, left: bool) -> Iterator[str]:
    lines = report_lines(report)
    yield from islice(lines, SHOWN)
    rest = sum(1 for _ in lines)
    if rest:
        yield f"{rest} more lines. Run 'manage.py outgrow media repair' to see them."
    if left:
        yield (
            f"The {REPAIR_FOR:g} s for this page are over. The rest is done by "
            "'manage.py outgrow media repair --watch', if it is running; or press again."
        )


def _section(alias: str, storage: Replicated) -> Section:
    try:
        shot = snapshot_of(alias, storage)
    except (OutgrowError, OSError) as error:
        return Section(alias, error=str(error))
    watched = "" if shot.watch_age is None else duration(shot.watch_age)
    problems = tuple(shot.problems(MAX_AGE))
    return Section(alias, shot, tuple(map(_row, shot.servers)), problems, watched)


def _row(server: ServerStatus) -> Row:
    state, icon = _FOREIGN if server.foreign else _UP if server.up else _DOWN
    return Row(
        server,
        state,
        icon,
        # Without USE_TZ templates show a time as it is.
        server.since and server.since.astimezone(),
        "everything" if server.owed_all else str(server.owed),
        "" if server.oldest is None else duration(server.oldest),
    )
