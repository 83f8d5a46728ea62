"""Views for load balancers, monitoring and dashboards. Put them where only those can come.

::

    urlpatterns = [path("outgrow/", include("outgrow.urls"))]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from outgrow.errors import MissingExtra
from outgrow.status import ServerStatus, Snapshot, media_storages, snapshot_of

#: Seconds for which a change may be on its way to the servers before they are not ready.
#: A busy site always has some; those of an `AsyncStorage` may wait for long in its queue.
ON_ITS_WAY: Final = 5.0


@never_cache
@require_safe
def status(request: HttpRequest) -> HttpResponse:
    """Every media storage and its servers, as JSON: what ``media status --json`` prints."""
    del request
    shots = [snapshot_of(alias, storage).to_json() for alias, storage in media_storages()]
    return JsonResponse({"storages": shots})


@never_cache
@require_safe
def ready(request: HttpRequest, server: str) -> HttpResponse:
    """200 when a media server is up and lacks nothing, by every storage that uses it; else 503.

    It lacks what it is owed, and perhaps a change that has been on its way for `ON_ITS_WAY`.
    404 for a server that no storage has. For a balancer that sends visitors to a server
    that was down only when it has every file again.
    """
    del request
    shots = [snapshot_of(alias, storage) for alias, storage in media_storages()]
    found = [(shot, one) for shot in shots for one in shot.servers if one.name == server]
    if not found:
        return HttpResponse(f"no media server is called {server!r}\n", "text/plain", 404)
    for text in (text for shot, one in found for text in _lacks(shot, one)):
        return HttpResponse(f"{server} {text}\n", "text/plain", 503)
    return HttpResponse("ready\n", "text/plain")


def _lacks(shot: Snapshot, server: ServerStatus) -> Iterator[str]:
    """Why visitors should not be sent to a server."""
    if not server.up:
        yield f"is down: {server.last_error}"
    if server.owed:
        yield f"is owed {'everything' if server.owed_all else f'{server.owed} files'}"
    if shot.oldest_change is not None and shot.oldest_change > ON_ITS_WAY:
        yield (
            f"may lack {shot.in_progress} changes that are on their way, the first for "
            f"{shot.oldest_change:.0f} s"
        )


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The metrics of all servers, for Prometheus. Raises MissingExtra without its client."""
    del request
    try:
        from prometheus_client import CollectorRegistry, exposition
    except ModuleNotFoundError as error:
        raise MissingExtra("The metrics view", "prometheus-client", "metrics") from error
    from outgrow.metrics import DatabaseCollector, MediaCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(MediaCollector())
    registry.register(DatabaseCollector())
    return HttpResponse(exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST)
