"""Views for load balancers, monitoring and dashboards. Put them where only those can come.

::

    urlpatterns = [path("outgrow/", include("outgrow.urls"))]
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from outgrow.errors import MissingExtra
from outgrow.status import media_storages, snapshot_of


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
    """200 when a media server is up and owed nothing, by every storage that uses it; else 503.

    404 for a server that no storage has. For a balancer that sends visitors to a server
    that was down only when it has every file again.
    """
    del request
    found = [
        one
        for alias, storage in media_storages()
        for one in snapshot_of(alias, storage).servers
        if one.name == server
    ]
    if not found:
        return HttpResponse(f"no media server is called {server!r}\n", "text/plain", 404)
    late = [one for one in found if not one.up or one.owed]
    if not late:
        return HttpResponse("ready\n", "text/plain")
    one = late[0]
    what = "everything" if one.owed_all else f"{one.owed} files"
    text = f"is owed {what}" if one.up else f"is down: {one.last_error}"
    return HttpResponse(f"{server} {text}\n", "text/plain", 503)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The metrics of the media servers, for Prometheus. Raises MissingExtra without its client."""
    del request
    try:
        from prometheus_client import CollectorRegistry, exposition
    except ModuleNotFoundError as error:
        raise MissingExtra("The metrics view", "prometheus-client", "metrics") from error
    from outgrow.metrics import MediaCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(MediaCollector())
    return HttpResponse(exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST)
