"""Views for the tests of databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View

from outgrow.databases import using_primary, using_replica
from tests.databases.interleaved import PATH, other


def names() -> list[str]:
    return sorted(Group.objects.values_list("name", flat=True))


def served_by() -> str:
    return Group.objects.all().db


def listing(request: HttpRequest) -> JsonResponse:
    """Read, and say who served it."""
    return JsonResponse({"names": names(), "db": served_by()})


def writing(request: HttpRequest) -> JsonResponse:
    """Write, then read."""
    Group.objects.create(name=request.GET["name"])
    return JsonResponse({"names": names(), "db": served_by()})


def looking(request: HttpRequest) -> JsonResponse:
    """What might be taken for a write and is none."""
    group = Group(name=request.GET.get("name", "x"))
    group.full_clean()
    Group.objects.get_or_create(name="there")
    return JsonResponse({"db": served_by()})


def session(request: HttpRequest) -> JsonResponse:
    """Write to the session alone."""
    request.session["seen"] = request.session.get("seen", 0) + 1
    return JsonResponse({"seen": request.session["seen"]})


def session_read(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"seen": request.session.get("seen", 0)})


def failing(request: HttpRequest) -> HttpResponse:
    """Write, then fail."""
    Group.objects.create(name=request.GET["name"])
    raise RuntimeError("the view fails")


def atomic(request: HttpRequest) -> JsonResponse:
    """Whether Django has opened a transaction for this view."""
    return JsonResponse({"atomic": connections["default"].in_atomic_block, "db": served_by()})


@using_primary
def on_primary(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"atomic": connection.in_atomic_block, "db": served_by()})


@using_replica
def on_replica(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"db": served_by()})


def old_report(request: HttpRequest) -> JsonResponse:
    """A report that may be behind what its reader wrote."""
    with using_replica(stale=True):
        return JsonResponse({"db": served_by()})


@using_replica
class Report(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse({"db": served_by()})

    post = get


@method_decorator(using_primary, name="dispatch")
class Account(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse({"atomic": connection.in_atomic_block, "db": served_by()})


def streaming(request: HttpRequest) -> StreamingHttpResponse:
    """A body whose parts are read while it is sent."""
    if request.GET.get("write"):
        Group.objects.create(name=request.GET["write"])

    def parts() -> Iterator[str]:
        for _ in range(3):
            yield f"{served_by()}\n"

    return StreamingHttpResponse(parts())


async def streaming_async(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for _ in range(3):
            yield f"{await sync_to_async(served_by)()}\n"
            await asyncio.sleep(0)

    return StreamingHttpResponse(parts())


async def listing_async(request: HttpRequest) -> JsonResponse:
    found = [name async for name in Group.objects.values_list("name", flat=True)]
    return JsonResponse({"names": sorted(found), "db": await sync_to_async(served_by)()})


async def writing_async(request: HttpRequest) -> JsonResponse:
    """Write in one task of several; all of the request reads the primary then."""

    async def write() -> None:
        await Group.objects.acreate(name=request.GET["name"])

    before = await sync_to_async(served_by)()
    await asyncio.gather(write(), asyncio.sleep(0))
    elsewhere = await sync_to_async(served_by, thread_sensitive=False)()
    return JsonResponse(
        {"before": before, "db": await sync_to_async(served_by)(), "elsewhere": elsewhere}
    )


def commits(request: HttpRequest) -> JsonResponse:
    """Reads in a transaction, its savepoint, its hooks, and behind it."""
    seen: dict[str, Any] = {}
    with transaction.atomic():
        Group.objects.create(name=request.GET["name"])
        with transaction.atomic():
            seen["savepoint"] = served_by()
        transaction.on_commit(lambda: seen.update(hook=served_by()))
        seen["inside"] = served_by()
    seen["after"] = served_by()
    return JsonResponse(seen)


@transaction.non_atomic_requests
def not_atomic(request: HttpRequest) -> JsonResponse:
    """Write on a GET, as a view that wants no transaction of Django's."""
    Group.objects.create(name=request.GET["name"])
    return JsonResponse({"db": served_by()})


views = [
    path("not-atomic/", not_atomic, name="not-atomic"),
    path("list/", listing, name="list"),
    path("write/", writing, name="write"),
    path("look/", looking, name="look"),
    path("session/", session, name="session"),
    path("session/read/", session_read, name="session-read"),
    path("fail/", failing, name="fail"),
    path("atomic/", atomic, name="atomic"),
    path("primary/", on_primary, name="primary"),
    path("replica/", on_replica, name="replica"),
    path("old-report/", old_report, name="old-report"),
    path("report/", Report.as_view(), name="report"),
    path("account/", Account.as_view(), name="account"),
    path("stream/", streaming, name="stream"),
    path("async/stream/", streaming_async, name="stream-async"),
    path("async/list/", listing_async, name="list-async"),
    path("async/write/", writing_async, name="write-async"),
    path("commits/", commits, name="commits"),
]
urlpatterns = [
    *views,
    path(PATH.removeprefix("/"), other),
    path("spaced/", include((views, "app"), namespace="spaced")),
]
