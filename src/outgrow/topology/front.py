"""A site -> what its balancers do with a request, whatever program they run.

The laws, which each renderer keeps and tests/fronts asks of the real programs:

1. A request goes to the route with the longest prefix of its path. What goes to an
   application is passed on as it came: no byte of path or query is decoded.
2. Host is passed on with its port. X-Forwarded-For, -Proto, -Host and -Port are written
   anew, so no visitor can choose them; `Forwarded` and `Proxy` are dropped
   (RFC 7239 §8.1; CVE-2016-5385), and so are names with an underscore that would become
   the same variables (RFC 3875 §4.1.18).
3. A POST or PATCH that may have been carried out is not sent again (RFC 9110 §9.2.2: they are
   not idempotent): one that met a server's death is answered with 502, and the visitor decides.
4. An idle connection to an application is closed by the front first, which knows that
   it has not sent anything on it: `IDLE` is less than what application servers wait.
5. A body of unknown length does not get to a WSGI application without one, which would
   see it empty (code.djangoproject.com/ticket/35838): it is read first, or refused with 411.
6. Files are read only: no method but GET and HEAD gets to a file server, and no name with a
   leading dot. A file that one has not yet is asked of the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from outgrow.topology.balancer import HTTP, HTTPS, Balancer
from outgrow.topology.model import Port, Service, Site

#: Seconds that a front keeps an idle connection to an application; see `APP_IDLE`.
IDLE: Final = 30

#: Seconds that an application server keeps one: more, whoever looks at the clock first.
APP_IDLE: Final = 75

#: Idle connections to the servers of an upstream that one process of nginx keeps.
KEPT: Final = 32

#: Connections at once: an HAProxy has so many of visitors, and each process of an nginx so many,
#: those to servers among them.
CONNECTIONS: Final = 4096

#: Seconds for a connection to a server, instead of which there may be others.
CONNECT: Final = 2

#: So many health checks that failed take a server out.
FAILURES: Final = 2

#: So many requests that failed take it out, for DOWNTIME seconds, where a front asks nothing by
#: itself. More than two: a page that kills its worker, asked for again and again, would take
#: one server after the other, and the site.
BROKEN: Final = 5
DOWNTIME: Final = 5


@dataclass(frozen=True, slots=True)
class Member:
    """One server of an upstream, and its share of the load."""

    name: str
    port: Port
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Upstream:
    """Servers one of which a request goes to.

    `protocol` is "http", or "fastcgi". An application that is `wsgi` can't read a body
    of unknown length.
    """

    name: str
    members: tuple[Member, ...]
    protocol: str = "http"
    wsgi: bool = True

    @property
    def shares(self) -> tuple[Member, ...]:
        """The members. One that weighs nothing is a last resort, unless all of them are."""
        if any(member.weight for member in self.members):
            return self.members
        return tuple(replace(member, weight=1) for member in self.members)


@dataclass(frozen=True, slots=True)
class Route:
    """Paths that begin with `prefix` go to one upstream: to an application, or for `files`.

    A file server does not know the prefix: it is taken off.
    """

    prefix: str
    upstream: Upstream
    files: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """What one balancer does. The last of its routes is that for "/".

    `domain` is the name that a health check asks for. `redirect` is the port where HTTP is told
    to use HTTPS, when that is spoken.
    """

    name: str
    listen: Port
    routes: tuple[Route, ...]
    options: Balancer = field(default_factory=Balancer)
    domain: str = "localhost"
    redirect: int = HTTP

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """Each of them once."""
        return tuple(dict.fromkeys(route.upstream for route in self.routes))

    @property
    def application(self) -> Route:
        """The route for all that no other is for."""
        return self.routes[-1]

    @property
    def plain(self) -> Port:
        """Where HTTP is told to use HTTPS, when that is spoken."""
        return replace(self.listen, number=self.redirect)

    @property
    def https_port(self) -> str:
        """What stands behind the host in the address that it is told: most often nothing."""
        return "" if self.listen.number == HTTPS else f":{self.listen.number}"

    @property
    def max_bytes(self) -> int:
        """The largest body of a request."""
        return self.options.max_upload * 1_000_000


def front(site: Site, service: Service) -> Front:
    """What `service`, a balancer of `site`, does."""
    routes = []
    media_path = urlsplit(site.media_url)
    if site.services("media") and not media_path.netloc:
        routes.append(Route(site.media_url, _upstream(site, "media"), files=True))
    routes.append(Route("/", _upstream(site, "app")))
    return Front(
        service.name, service.port, tuple(routes), site.balancer, site.domains[0].lstrip(".")
    )


def _upstream(site: Site, role: str) -> Upstream:
    members = (
        Member(service.name, service.port, host.weight)
        for host in site.hosts
        for service in host.services
        if service.role == role
    )
    return Upstream(role, tuple(members), wsgi=role != "app" or not site.is_asgi)
