"""A program that runs the site -> its words, as production wants them behind a balancer.

The laws:

1. The application waits longer with an idle connection than the front does (`front.APP_IDLE`).
2. What a visitor's address is, and whether he came by HTTPS, is believed to nobody but the
   site's balancers, which write it anew (law 2 of `front`). Where a program has its own idea of
   it, it is told their addresses, or to have none.
3. One server never shares a socket or a file with another one of the same user.

Sources: gunicorn.org/reference/settings, uvicorn.dev/settings, `granian --help`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from outgrow.topology.front import APP_IDLE
from outgrow.topology.model import Port
from outgrow.topology.render import gunicorn

#: Seconds that granian waits at most; more than `front.IDLE`, and that is enough.
_GRANIAN_LONGEST: Final = 60

#: Seconds that running requests are given at the end.
GRACE: Final = 5


@dataclass(frozen=True, slots=True)
class Application:
    """One application server.

    `site` is the WSGI or ASGI application, as in "photos.wsgi:application", which FastCGI does
    not need: there Django's settings name it. `fronts` are the addresses of the balancers,
    `threads` those of one worker, and `timeout` seconds in which a worker must have answered.
    """

    site: str
    listen: Port
    fronts: tuple[str, ...] = ()
    workers: int = 1
    threads: int = 8
    timeout: int = 60


@dataclass(frozen=True, slots=True)
class Engine:
    """A program as a front sees it: `protocol` and `wsgi` are those of `front.Upstream`."""

    words: Callable[[Application], tuple[str, ...]]
    protocol: str = "http"
    wsgi: bool = True
    #: Whether REMOTE_ADDR is the visitor's address, and not that of the balancer.
    knows_visitors: bool = False


def words(engine: str, application: Application) -> tuple[str, ...]:
    """What follows the interpreter in the command. Raises KeyError for another engine."""
    return ENGINES[engine].words(application)


def _gunicorn(application: Application) -> tuple[str, ...]:
    _, *found = gunicorn.words(
        "python",
        application.site,
        application.listen,
        PurePath(),
        workers=application.workers,
        threads=application.threads,
        timeout=application.timeout,
        grace=GRACE,
    )
    return tuple(found)


def _uvicorn(application: Application) -> tuple[str, ...]:
    trust: tuple[str, ...] = ("--no-proxy-headers",)
    if application.fronts:
        # The last address that is none of these is the visitor's: fronts write only one.
        trust = ("--proxy-headers", f"--forwarded-allow-ips={','.join(application.fronts)}")
    return (
        *("-m", "uvicorn"),
        *("--host", application.listen.host, "--port", str(application.listen.number)),
        *("--workers", str(application.workers)),
        *("--timeout-keep-alive", str(APP_IDLE)),
        *("--timeout-graceful-shutdown", str(GRACE)),
        # Django knows no lifespan, and says so at every start.
        *("--lifespan", "off"),
        *trust,
        application.site,
    )


def _granian(application: Application) -> tuple[str, ...]:
    # It believes no header.
    return (
        *("-m", "granian", "--interface", "wsgi"),
        *("--host", application.listen.host, "--port", str(application.listen.number)),
        *("--workers", str(application.workers)),
        *("--blocking-threads", str(application.threads)),
        *("--workers-kill-timeout", str(GRACE)),
        # In milliseconds, and for an idle connection, too. By default as long as a front waits.
        *("--http1-header-read-timeout", str(min(APP_IDLE, _GRANIAN_LONGEST) * 1000)),
        # Like gunicorn: a worker that has died is replaced.
        "--respawn-failed-workers",
        *("--no-ws", "--http", "1"),
        application.site,
    )


def _fastcgi(application: Application) -> tuple[str, ...]:
    # The balancer sets all that is known of the visitor, the address and the scheme.
    return (
        *("-m", "django", "runfcgi", "method=threaded"),
        f"host={application.listen.host}",
        f"port={application.listen.number}",
        f"maxchildren={application.threads}",
        f"grace={GRACE}",
    )


#: Each program by its name; the first is the default.
ENGINES: Final[Mapping[str, Engine]] = {
    "gunicorn": Engine(_gunicorn),
    "uvicorn": Engine(_uvicorn, wsgi=False, knows_visitors=True),
    "granian": Engine(_granian),
    "fastcgi": Engine(_fastcgi, protocol="fastcgi", knows_visitors=True),
}
