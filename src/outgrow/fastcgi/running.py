"""`runfastcgi()`: the site's application, by FastCGI, in the foreground or as a daemon."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from outgrow.errors import ConfigurationError, FastCGIError
from outgrow.fastcgi import servers
from outgrow.fastcgi.options import Options, parse


def runfastcgi(
    application: Callable[..., Any] | None = None, words: Iterable[str] = (), **given: Any
) -> None:
    """Serve until a signal ends it. For `mysite.fcgi` on shared hosting, and for `runfcgi`.

    `application` is that of WSGI_APPLICATION, by default Django's own. The options are those of
    `manage.py runfcgi`, as words (``"method=threaded"``) or by name. A web server that starts the
    script itself gives its socket on descriptor 0, and no place is needed. Raises
    ConfigurationError, FastCGIError where nothing can be listened at, and MissingExtra.
    """
    options = parse(words, given)
    if not options.is_own and not servers.is_socket(0):
        hint = "Say where: host=127.0.0.1 port=3033, or socket=PATH."
        raise ConfigurationError("runfcgi", "has no place to listen at.", hint)
    servers.flup()  # before anything is opened
    _refuse_places(options)
    _refuse_second(options)
    run(_for_front(application or _own_application()), options)


def run(application: servers.Application, options: Options) -> None:
    """Listen, become a daemon if that is asked for, and serve."""
    try:
        listening = servers.listen(options)
    except OSError as error:
        problem = f"Nothing can be listened at {options.place}: {error.strerror}."
        raise FastCGIError(problem) from error
    begun = _become_daemon(options) if options.daemonize else _in_foreground(options)
    _write_pid(options.pidfile)
    _forget_connections()
    begun()
    try:
        servers.serve(application, options, listening)
    finally:
        _clean(options)


def _own_application() -> servers.Application:
    from django.core.servers.basehttp import get_internal_wsgi_application

    application: servers.Application = get_internal_wsgi_application()
    return application


def _for_front(application: servers.Application) -> servers.Application:
    """Without the name of a script in the site's URLs, unless visitors use it.

    On shared hosting a rewriting rule sends each path to `mysite.fcgi`, and SCRIPT_NAME ends with
    it: every URL that Django makes would have it, too.
    """

    def site(environ: dict[str, Any], start_response: Any) -> Any:
        # HAProxy's health checks have neither, and a view may well rely on both (RFC 3875 §4.1).
        for name in ("REMOTE_ADDR", "QUERY_STRING"):
            environ.setdefault(name, "")
        script = environ.get("SCRIPT_NAME", "")
        before, slash, last = script.rpartition("/")
        asked = environ.get("REQUEST_URI", script).partition("?")[0]
        if slash and last.endswith(".fcgi") and not asked.startswith(script):
            # The whole path, as it was asked for: no rule has to hand it on.
            decoded = unquote_to_bytes(asked).decode("latin-1")  # PEP 3333
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = before, decoded.removeprefix(before)
            # Django takes these for what was asked, and Apache has made one slash of two there.
            for other in ("SCRIPT_URL", "REDIRECT_URL"):
                environ.pop(other, None)
        return application(environ, start_response)

    return site


def _forget_connections() -> None:
    """Processes that are forked must not share the parent's connections."""
    from django.core.cache import close_caches
    from django.db import connections

    connections.close_all()
    close_caches()


# --- one process, and its id


def _refuse_places(options: Options) -> None:
    """Folders that are not there, and files that can't be made: a daemon could tell nobody."""
    if options.workdir is not None and not options.workdir.is_dir():
        raise FastCGIError(f"workdir: {options.workdir} is no folder.")
    names = ("pidfile", "outlog", "errlog")
    for name, path in ((one, getattr(options, one)) for one in names):
        if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
            raise FastCGIError(f"{name}: {path} can't be written.")


def _refuse_second(options: Options) -> None:
    """A pidfile whose process lives is another server of this site."""
    if options.pidfile is None:
        return
    try:
        pid = int(options.pidfile.read_text(encoding="ascii"))
        if pid <= 0:  # to kill(2) those are groups of processes
            return
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    except PermissionError:
        pass  # somebody else's, but alive
    raise FastCGIError(
        f"{options.pidfile} says that process {pid} runs. Stop it (kill {pid}), or remove the file "
        "if that is another program."
    )


def _write_pid(pidfile: Path | None) -> None:
    if pidfile is None:
        return
    aside = pidfile.with_name(f".{pidfile.name}.{os.getpid()}")  # never seen half written
    aside.write_text(f"{os.getpid()}\n", encoding="ascii")
    aside.replace(pidfile)


def _clean(options: Options) -> None:
    for path in (options.pidfile, options.socket):
        if path is not None:
            with suppress(OSError):
                path.unlink()


def _in_foreground(options: Options) -> Callable[[], None]:
    if options.workdir is not None:
        os.chdir(options.workdir)
    _redirect(options.outlog, options.errlog)
    return lambda: None


def _become_daemon(options: Options) -> Callable[[], None]:
    """Leave the terminal; what is returned is to be called when all is ready.

    The process that was called waits for that, and ends with 0; or with 1 where the daemon ends
    before. Twice forked, with a session of its own between: it can't get a terminal again.
    """
    logging.shutdown()
    heard, tells = os.pipe()
    if os.fork():
        os.close(tells)
        is_ready = os.read(heard, 1) != b""
        if not is_ready:
            where = f" {options.errlog} has the reason." if options.errlog else ""
            sys.stderr.write(f"The daemon ended before it served.{where}\n")
            sys.stderr.flush()
        os._exit(0 if is_ready else 1)
    os.close(heard)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir(options.workdir or "/")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    null = Path(os.devnull)
    _redirect(options.outlog or null, options.errlog or null)

    def begun() -> None:
        os.write(tells, b"\1")
        os.close(tells)

    return begun


def _redirect(out: Path | None, err: Path | None) -> None:
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        if path is None:
            continue
        stream.flush()
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
