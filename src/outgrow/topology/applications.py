"""A program that runs the site -> its words, as production wants them behind a balancer.

The laws:

1. The application waits longer with an idle connection than the front does (`front.APP_IDLE`).
2. What a visitor's address is, and whether he came by HTTPS, is believed to nobody but the
   site's balancers, which write it anew (law 2 of `front`). Where a program has its own idea of
   it, it is told their addresses, or to have none.
3. One server never shares a socket or a file with another one of the same user.
4. A reload is named only where all that has been begun is answered, and others serve meanwhile
   (tests/fronts/test_applications.py counts). Where there is none, the server is stopped, in grace,
   and started (tests/fronts/test_restarts.py).

Sources: gunicorn.org/reference/settings, uvicorn.dev/settings, `granian --help`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from outgrow.topology.app import THREADS
from outgrow.topology.front import APP_IDLE
from outgrow.topology.model import Port, Service, Site

#: More than the deadline of a save (25 s); a worker that is silent so long hangs.
TIMEOUT: Final = 60

#: Seconds that granian waits at most; more than `front.IDLE`, and that is enough.
_GRANIAN_LONGEST: Final = 60

#: Seconds that running requests are given at the end.
GRACE: Final = 5

#: Connections that a worker of granian takes, the idle ones that a front keeps among them: what
#: gunicorn takes by default. By default granian's workers take 1,024 together, and HAProxy keeps
#: one for each visitor: the next would wait until an idle one is closed.
CONNECTIONS: Final = 1000

#: The form of a line for each request, where one is wanted: method, path, status, time.
_GUNICORN_LOG: Final = "%(m)s %(U)s %(s)s %(M)s ms"
_GRANIAN_LOG: Final = "%(method)s %(path)s %(status)d %(dt_ms).0f ms"


@dataclass(frozen=True, slots=True)
class Application:
    """One application server.

    `site` is the WSGI application, or with `asgi` the ASGI one, as in "photos.wsgi:application";
    FastCGI does not need it: there Django's settings name it. `folder` is where the site's code
    is, and the server is started there. `fronts` are the addresses of the balancers, `threads`
    those of one worker, `timeout` seconds in which a worker must have answered, and `grace` those
    that running requests have at the end. With `log` there is a line for each request.
    """

    site: str
    listen: Port
    folder: PurePath = field(default_factory=PurePath)
    fronts: tuple[str, ...] = ()
    workers: int = 1
    threads: int = THREADS
    timeout: int = TIMEOUT
    grace: int = GRACE
    asgi: bool = False
    log: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """A program, and as a front sees it: `protocol` is that of `front.Upstream`.

    `wsgi` and `asgi` say which kinds of application it can run. `package` is what is installed
    with pip, and `extra` ours that has it. `reload` is the signal of law 4.
    """

    words: Callable[[Application], tuple[str, ...]]
    package: str = ""
    extra: str = ""
    protocol: str = "http"
    wsgi: bool = True
    asgi: bool = False
    #: Whether REMOTE_ADDR is the visitor's address, and not that of the balancer.
    knows_visitors: bool = False
    reload: signal.Signals | None = signal.SIGHUP
    #: So many workers it must have, or the signal ends it.
    reload_workers: int = 1


def application(
    site: Site, service: Service, *, grace: int = GRACE, log: bool = False
) -> Application:
    """What `service`, an application server of `site`, runs."""
    return Application(
        site.application,
        service.port,
        site.folder,
        tuple(balancer.port.host for balancer in site.services("balancer")),
        site.app.workers,
        site.app.threads,
        grace=grace,
        asgi=site.is_asgi,
        log=log,
    )


def words(engine: str, application: Application) -> tuple[str, ...]:
    """What follows the interpreter in the command. Raises KeyError for another engine."""
    return ENGINES[engine].words(application)


def reload(engine: str, application: Application) -> signal.Signals | None:
    """The signal by which new workers take up new code and settings (law 4), if there is one."""
    known = ENGINES[engine]
    return known.reload if application.workers >= known.reload_workers else None


def _gunicorn(application: Application) -> tuple[str, ...]:
    workers = ("--workers", str(application.workers)) if application.workers > 1 else ()
    log = ("--access-logfile", "-", "--access-logformat", _GUNICORN_LOG)
    return (
        *("-m", "gunicorn"),
        # By default all of a user's gunicorns share one control socket in his home.
        "--no-control-socket",
        *("--bind", str(application.listen)),
        *("--chdir", str(application.folder)),
        *workers,
        *("--worker-class", "gthread", "--threads", str(application.threads)),
        *("--timeout", str(application.timeout)),
        *("--graceful-timeout", str(application.grace)),
        *("--keep-alive", str(APP_IDLE)),
        # By default whoever is at 127.0.0.1 may set SCRIPT_NAME and REMOTE_USER by headers. The
        # scheme is Django's matter (SECURE_PROXY_SSL_HEADER).
        "--forwarded-allow-ips=",
        *(log if application.log else ()),
        application.site,
    )


def _uvicorn(application: Application) -> tuple[str, ...]:
    trust: tuple[str, ...] = ("--no-proxy-headers",)
    if application.fronts:
        # The last address that is none of these is the visitor's: fronts write only one.
        trust = ("--proxy-headers", f"--forwarded-allow-ips={','.join(application.fronts)}")
    return (
        *("-m", "uvicorn"),
        *("--host", application.listen.host, "--port", str(application.listen.number)),
        *("--workers", str(application.workers)),
        # A worker that is silent so long is replaced, and a reload waits so long for a new one.
        # By default 5: less than a busy machine takes to import a site.
        *("--timeout-worker-healthcheck", str(application.timeout)),
        *("--timeout-keep-alive", str(APP_IDLE)),
        *("--timeout-graceful-shutdown", str(application.grace)),
        # Django knows no lifespan, and says so at every start.
        *("--lifespan", "off"),
        *trust,
        *(() if application.log else ("--no-access-log",)),
        application.site,
    )


def _granian(application: Application) -> tuple[str, ...]:
    # It believes no header.
    kind = ("--interface", "wsgi", "--blocking-threads", str(application.threads))
    if application.asgi:
        # It can't but have one thread then. Django knows no lifespan.
        kind = ("--interface", "asginl", "--blocking-threads", "1")
    return (
        *("-m", "granian", *kind),
        *("--host", application.listen.host, "--port", str(application.listen.number)),
        *("--workers", str(application.workers)),
        *("--workers-kill-timeout", str(application.grace)),
        *("--backpressure", str(CONNECTIONS)),
        # In milliseconds, and for an idle connection, too. By default as long as a front waits.
        *("--http1-header-read-timeout", str(min(APP_IDLE, _GRANIAN_LONGEST) * 1000)),
        # Like gunicorn: a worker that has died is replaced.
        "--respawn-failed-workers",
        *("--no-ws", "--http", "1"),
        *(("--access-log", "--access-log-fmt", _GRANIAN_LOG) if application.log else ()),
        application.site,
    )


def _fastcgi(application: Application) -> tuple[str, ...]:
    # The balancer sets all that is known of the visitor, the address and the scheme.
    return (
        *("-m", "django", "runfcgi", "method=threaded"),
        f"host={application.listen.host}",
        f"port={application.listen.number}",
        f"maxchildren={application.threads}",
        f"grace={application.grace}",
    )


#: Each program by its name; the first is the default.
ENGINES: Final[Mapping[str, Engine]] = {
    # 25.1 has --no-control-socket.
    "gunicorn": Engine(_gunicorn, "gunicorn>=25.1", "local"),
    # 0.37 has --timeout-worker-healthcheck. A single process dies of SIGHUP.
    "uvicorn": Engine(
        _uvicorn,
        "uvicorn>=0.37",
        "uvicorn",
        wsgi=False,
        asgi=True,
        knows_visitors=True,
        reload_workers=2,
    ),
    # At SIGHUP it stops each worker some seconds after it has started another, ready or not, and
    # with it a socket of its own, in which connections wait.
    "granian": Engine(_granian, "granian>=2.5", "granian", asgi=True, reload=None),
    "fastcgi": Engine(_fastcgi, protocol="fastcgi", knows_visitors=True, reload=None),
}
