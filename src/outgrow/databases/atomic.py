"""ATOMIC_REQUESTS of a primary: true for the requests that write, false for those that read.

Django asks for the truth of this setting at each request, just before it calls the view and
after all middleware has seen it (`BaseHandler.make_view_atomic`). So the value itself
can answer for the request that is running; no view and no setting changes meanwhile.
"""

from __future__ import annotations

from outgrow.databases import route as routes
from outgrow.databases.route import PRIMARY, mode


class AtomicRequests:
    """A value for DATABASES[...]["ATOMIC_REQUESTS"] that is true where the primary is read."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster

    def __bool__(self) -> bool:
        route = routes.current()
        return route is None or mode(route, self.cluster) == PRIMARY

    def __repr__(self) -> str:
        return f"AtomicRequests({self.cluster!r})"
