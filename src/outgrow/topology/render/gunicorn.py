"""The words that start a site's application: on the laptop and on servers the same ones.

gunicorn's own page is the source: https://docs.gunicorn.org/en/stable/settings.html
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from outgrow.topology.front import APP_IDLE
from outgrow.topology.model import Port

#: Threads of each worker process.
THREADS: Final = 8

#: More than the deadline of a save (25 s); a worker that is silent so long hangs.
TIMEOUT: Final = 60


def words(
    python: str,
    wsgi: str,
    bind: Port,
    folder: PurePath,
    *,
    workers: int = 1,
    threads: int = THREADS,
    timeout: int = TIMEOUT,
    grace: int = 5,
    keep_alive: int = APP_IDLE,
    log: str = "",
) -> tuple[str, ...]:
    """The command, as a list of words.

    `threads` are those of one worker, and `timeout` the seconds in which it must have answered.
    `grace` is how many seconds running requests have at the end, `keep_alive` for how many an
    idle connection stays open: longer than a balancer keeps it. `log` is the form of a line for
    each request; without one there is none.
    """
    return (
        *(python, "-m", "gunicorn"),
        # By default all of a user's gunicorns share one control socket in his home.
        "--no-control-socket",
        *("--bind", str(bind)),
        *("--chdir", str(folder)),
        *(("--workers", str(workers)) if workers > 1 else ()),
        *("--worker-class", "gthread", "--threads", str(threads)),
        *("--timeout", str(timeout)),
        *("--graceful-timeout", str(grace)),
        *("--keep-alive", str(keep_alive)),
        # By default whoever is at 127.0.0.1 may set SCRIPT_NAME and REMOTE_USER by headers. The
        # scheme is Django's matter (SECURE_PROXY_SSL_HEADER).
        "--forwarded-allow-ips=",
        *(("--access-logfile", "-", "--access-logformat", log) if log else ()),
        wsgi,
    )
