"""Requests -> routes; and back: what a request wrote, to the client.

`ReplicationMiddleware` stands first in MIDDLEWARE, or at least before the sessions': what they
save after the view is a write of this request, too.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase

from outgrow.databases import route as routes
from outgrow.databases.atomic import AtomicRequests
from outgrow.databases.cluster import (
    ALONE,
    Cluster,
    clusters,
    distinct,
    in_transaction,
    is_database_error,
)
from outgrow.databases.remember import CacheNotes, Cookies, Found, together
from outgrow.databases.route import NOTHING, PIN, PRIMARY, REPLICA, Route, Wanted, active, resumed
from outgrow.databases.setup import install
from outgrow.databases.using import marked
from outgrow.errors import ConfigurationError

logger: Final = logging.getLogger("outgrow.databases")

#: Methods that are safe by RFC 9110 §9.2.1, and QUERY (draft-ietf-httpbis-safe-method-w-body).
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})

#: A response that may be older than what its client wrote says so in this header.
STALE: Final = "Outgrow-Stale"

_KEY: Final = "_outgrow_request"


class ReplicationMiddleware:
    """Reads of safe requests go to replicas; who wrote reads what he wrote.

    For WSGI and ASGI. Raises `ConfigurationError` for a mistake in the settings when it is made.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        install()
        self.get_response = get_response
        self._clusters = distinct(clusters())
        name = self._clusters[0].options.cookie_name if self._clusters else "outgrow"
        self._cookies = Cookies(name)
        self._caches = {
            one.primary: CacheNotes(one.options)
            for one in self._clusters
            if one.options.remember.in_cache
        }
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        if self._is_async:
            return self._serve_async(request)
        route, found = self._begin(request)
        response: HttpResponseBase
        try:
            with active(route):
                self._recall(request, route)
                response = self.get_response(request)
                self._finish(request, response, route, found)
        except BaseException:
            route.close()
            raise
        return self._left_open(response, route)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        route, found = self._begin(request)
        try:
            with active(route):
                if self._caches:
                    await sync_to_async(self._recall)(request, route)
                response: HttpResponseBase = await self.get_response(request)
                if route.written():
                    # In the thread whose connections the request has used.
                    await sync_to_async(self._finish)(request, response, route, found)
                else:
                    self._mark(response, route)
        except BaseException:
            route.close()
            raise
        return self._left_open(response, route)

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., Any],
        args: tuple[Any, ...],  # noqa: ARG002 - Django's signature
        kwargs: dict[str, Any],  # noqa: ARG002
    ) -> None:
        """The option `views`, and views that are decorated."""
        route = routes.current()
        if route is None:
            return
        not_atomic: set[str] = getattr(view, "_non_atomic_requests", set())
        for cluster in self._clusters:
            alias = cluster.primary
            mode = marked(view, alias)
            if not mode and not _forced(request, cluster):
                mode = _by_name(request, view, cluster)
            if mode:
                route.defaults[alias] = mode
            promised = connections.settings[alias]["ATOMIC_REQUESTS"]
            if isinstance(promised, AtomicRequests) and alias not in not_atomic:
                route.atomic.add(alias)

    # --- before

    def _begin(self, request: HttpRequest) -> tuple[Route, Found]:
        found = self._cookies.read(request)
        route = Route(REPLICA if request.method in SAFE else PRIMARY, self._spread(found.written))
        for cluster in self._clusters:
            mode = _forced(request, cluster) or _by_path(request, cluster)
            if mode:
                route.defaults[cluster.primary] = mode
        return route, found

    def _spread(self, written: Mapping[str, Wanted]) -> dict[str, Wanted]:
        """What was written, for each cluster; a note without a cluster is for all."""
        every = written.get("", NOTHING)
        return {
            one.primary: written.get(one.primary, NOTHING).merged(every)
            for one in self._clusters
            if written
        }

    def _recall(self, request: HttpRequest, route: Route) -> None:
        """What the caches say of the user of a request."""
        noted = {}
        for cluster, cache in self._caches.items():
            noted[cluster] = cache.read(request)
            every = noted[cluster].written.get("", NOTHING)
            wanted = noted[cluster].written.get(cluster, NOTHING).merged(every)
            route.wanted = together([route.wanted, {cluster: wanted}])
        if noted:
            setattr(request, _KEY, noted)

    # --- after

    def _finish(
        self, request: HttpRequest, response: HttpResponseBase, route: Route, found: Found
    ) -> None:
        """Tell the client, or the cache, what was written."""
        self._mark(response, route)
        # Those of this moment: a block of `outgrow.testing` has others.
        known = clusters()
        mine = {alias: written_now(known[alias]) for alias in route.written() if alias in known}
        if not mine:
            return
        # What the client wrote to a cluster before is on its primary, and in what it says now.
        written = {**route.wanted, **mine}
        pin_for = max(one.options.pin_for for one in self._clusters)
        told = {one.primary for one in self._clusters if one.options.remember.in_cookie}
        for cluster, cache in self._caches.items():
            notes = getattr(request, _KEY, {}).get(cluster, Found({})).notes
            if cluster in mine and not cache.write(
                request, {cluster: written[cluster]}, pin_for, notes
            ):
                told.add(cluster)
        # What came in a cookie goes back in one: a cache may have been away when it was set.
        told_before = {one for one in found.written if one} & set(written)
        kept = {one: written[one] for one in told | told_before if written.get(one)}
        if told & set(mine):
            self._cookies.write(request, response, kept, pin_for, found.notes)

    @staticmethod
    def _mark(response: HttpResponseBase, route: Route) -> None:
        stale = [cluster for cluster, leg in list(route.legs.items()) if leg.stale]
        if stale:
            response.headers[STALE] = ", ".join(sorted(stale))

    @staticmethod
    def _left_open(response: HttpResponseBase, route: Route) -> HttpResponseBase:
        """End the route, now or, when the body is still to be made, after that."""
        if not getattr(response, "streaming", False) or isinstance(response, FileResponse):
            route.close()
            return response
        streaming: Any = response
        # A body that is never begun ends with the response, not with its last part.
        streaming._resource_closers.append(route.close)  # noqa: SLF001 - there is no public way
        if streaming.is_async:
            streaming.streaming_content = _streamed_async(streaming.streaming_content, route)
        else:
            streaming.streaming_content = _streamed(streaming.streaming_content, route)
        return response


def _streamed(content: Iterator[Any], route: Route) -> Iterator[Any]:
    """A body that is made on the request's route, step by step: others run in between."""
    try:
        parts = iter(content)
        while True:
            with resumed(route):
                try:
                    part = next(parts)
                except StopIteration:
                    return
            yield part
    finally:
        route.close()


async def _streamed_async(content: AsyncIterator[Any], route: Route) -> AsyncIterator[Any]:
    try:
        parts = aiter(content)
        while True:
            with resumed(route):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return
            yield part
    finally:
        route.close()


def written_now(cluster: Cluster) -> Wanted:
    """What a server must have to have all that was written to a primary until now.

    One round trip, on the connection of this thread. It must be after the commit: in
    a transaction, or when the primary can't say, the answer is `PIN`.
    """
    from outgrow.databases.watchdog import watchdog

    # Where the primary serves alone, in tests, nobody will compare it; and a question that
    # fails would break the transaction of a `TestCase`.
    if cluster.routing == ALONE or in_transaction(connections[cluster.primary]):
        return PIN
    connection = connections[cluster.primary]
    try:
        connection.ensure_connection()
        asked = cluster.clock()
        with watchdog.limit(connection, cluster.options.read_timeout):
            sighting = cluster.ask(connection)
    except Exception as error:
        if not is_database_error(connection, error):
            raise
        connection.close()
        logger.warning("The primary %r can't say what was written: %s", cluster.primary, error)
        return PIN
    if not sighting.writable or sighting.position is None:
        # It may be a replica by now, which has not what was written.
        return PIN
    cluster.knowledge.note_primary(sighting, asked)
    return Wanted((sighting.position,))


def _by_path(request: HttpRequest, cluster: Cluster) -> str:
    for pattern, mode in cluster.options.views.items():
        if pattern.startswith("/") and fnmatch.fnmatchcase(request.path_info, pattern):
            return mode
    return ""


def _by_name(request: HttpRequest, view: Callable[..., Any], cluster: Cluster) -> str:
    """The option for a view's name in URLs, with its namespaces, or for its import path."""
    if not cluster.options.views:
        return ""
    match = request.resolver_match
    names = [match.view_name, match.url_name] if match is not None else []
    for shown in (getattr(view, "view_class", None), getattr(view, "cls", None), view):
        if shown is not None:
            qualified = getattr(shown, "__qualname__", type(shown).__qualname__)
            names.append(f"{shown.__module__}.{qualified}")
    for name in names:
        if name and name in cluster.options.views:
            return cluster.options.views[name]
    return ""


def _forced(request: HttpRequest, cluster: Cluster) -> str:
    """The route that a trusted proxy has set."""
    options = cluster.options
    if not options.header:
        return ""
    value = request.headers.get(options.header, "").strip().lower()
    if value not in {PRIMARY, REPLICA}:
        return ""
    try:
        address = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return ""
    trusted = map(ipaddress.ip_network, options.trusted_proxies)
    return value if any(address in network for network in trusted) else ""


class ReadOnlyMiddleware:
    """Sets `request.is_read_only`: whether the site's primary can't be written to now.

    It asks no server: it is what the watch over the servers saw last, at most some
    `check_every` seconds ago. Stands behind `ReplicationMiddleware`.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        request.is_read_only = is_read_only()  # type: ignore[attr-defined]
        return self.get_response(request)


def is_read_only(cluster: str = "default") -> bool:
    """Whether a primary can't be written to, by what was seen of it last. Asks no server.

    Of a site without replicas nothing is seen: False. Raises `ConfigurationError` for the
    name of a cluster that is not there.
    """
    found = clusters().get(cluster)
    if found is None:
        if cluster != DEFAULT_DB_ALIAS:
            known = ", ".join(sorted({one.primary for one in clusters().values()})) or "none"
            text = f"{cluster!r} is not a primary in OUTGROW['REPLICATION']."
            raise ConfigurationError("is_read_only()", text, f"There are: {known}.")
        return False
    found.watch()
    seen = found.knowledge.primary
    return bool(found.knowledge.primary_failure) or (
        seen is not None and not seen.sighting.writable
    )


def read_only_response(seconds: int = 30) -> HttpResponse:
    """An answer to a write while the site can only be read: 503, to be tried again (RFC 9110
    §10.2.3) after so many seconds.
    """
    text = "The site can only be read at the moment. Please try again a little later.\n"
    return HttpResponse(
        text, status=503, content_type="text/plain; charset=utf-8", headers={"Retry-After": seconds}
    )
